"""The deciding process: one queue of events, one `decide`, one writer.

For each event: decide, write the changes in one guarded transaction, take them over, run the effects. Effects
run beside the loop and come back as events. The loop itself never waits for anything but the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from dr.coordinator import journal
from dr.coordinator.journal import StoredNote, Term
from dr.coordinator.recorder import Recorder
from dr.coordinator.sessions import Sessions
from dr.core.decide import decide
from dr.core.playbooks.due import LOOK_S, Lookout
from dr.core.state import Draft, State
from dr.model.allowed import Output
from dr.model.base import GuestId
from dr.model.commands import Answer, Body, Outcome, Start
from dr.model.drills import DrillReport
from dr.model.effects import (
    Accept,
    CheckGuest,
    DropSession,
    Effect,
    Fence,
    Look,
    Notify,
    PowerOn,
    ReadPower,
    Reply,
    RunCommand,
    Send,
    SendStart,
)
from dr.model.events import (
    Answered,
    CheckEnded,
    CommandEnded,
    Event,
    FenceEnded,
    LookEnded,
    OperatorAsk,
    PowerOnEnded,
    PowerSeen,
    Reconfigured,
    Started,
    Tick,
)
from dr.model.facts import Definition
from dr.model.operations import Operation
from dr.model.records import StoredDefinition, StoredPicture
from dr.model.settings import Settings
from dr.ports.decisions import Decisions
from dr.ports.link import HostSession
from dr.ports.store import Store, StoreError
from dr.ports.world import Checker, Fencer, Notifier, Prober, Runner

TICK_S = 0.1
QUEUE_MAX = 10_000
STORE_RETRY_S = 0.5
STORE_PATIENCE_S = 10.0  # then this process ends, and its successor begins with what is in the store
ASK_S = 30.0

log = structlog.get_logger("coordinator")


class Coordinator:
    """One term of one coordinator over one store."""

    def __init__(
        self,
        *,
        store: Store,
        fencer: Fencer,
        prober: Prober,
        checker: Checker,
        runner: Runner,
        notifier: Notifier,
        decisions: Decisions,
        settings: Settings,
        machine: str,
        boot_id: str = "",
        leader_id: str,
        cluster: str,
        stopping: asyncio.Event,
        sd_notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = State(settings=settings)
        self._store = store
        self._fencer = fencer
        self._prober = prober
        self._checker = checker
        self._runner = runner
        self._notifier = notifier
        self._recorder = Recorder(decisions)
        self._machine = machine
        self._boot_id = boot_id
        self._leader_id = leader_id
        self._cluster_id = cluster
        self._stopping = stopping
        self._sd_notify = sd_notify
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_MAX)
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._base = 0.0  # leader time at the start of this term
        self._begun = time.monotonic()
        self._next_note = 1
        self._terms: list[Term] = []
        self._noted = asyncio.Condition()
        self._tick_due = 0.0  # when the tick that is in the queue should have run; 0 = there is none
        self._sessions = Sessions(
            submit=self._queue.put,
            now=self.now,
            cluster=lambda: self.state.cluster,
            revision=lambda: self.state.revision + self.state.cluster.revision_offset,
            heartbeat_s=lambda: self.state.settings.timers.heartbeat_s,
        )

    # ---- time

    def now(self) -> float:
        """Leader time in seconds: goes on where the last term's last commit left it."""
        return self._base + time.monotonic() - self._begun

    def wall(self, now: float) -> float:
        """Leader time as unix seconds, for people."""
        term = next((term for term in reversed(self._terms) if term.now <= now), None)
        return term.wall + now - term.now if term else 0.0

    # ---- life

    async def start(self) -> None:
        """Load the store and begin a new term, durably, before anything is heard or sent.

        Raises StoreError, StoreConflict, and core.decide.StoreElsewhere for a store of another machine.
        """
        clock, self._next_note, self._terms = await journal.load(self._store, self.state)
        self._base, self._begun = clock.now, time.monotonic()
        event = Started(
            leader_id=self._leader_id,
            machine=self._machine,
            cluster=self._cluster_id,
            boot_id=self._boot_id,
            away_s=max(0.0, time.time() - clock.wall) if clock.wall else 0.0,
        )
        now = self.now()
        draft = decide(self.state, event, now)
        term = Term(epoch=draft.cluster.epoch, now=now, wall=time.time())
        self._terms.append(term)
        key, value = journal.term_write(term)
        await self._commit(draft, {key: value})
        self.state.apply(draft)
        log.info("leading", epoch=self.state.cluster.epoch, revision=self.state.revision)

    async def serve_session(self, session: HostSession) -> None:
        """Serve one agent's link until it ends."""
        await self._sessions.serve(session)

    async def run(self) -> None:
        """Decide until `stopping` is set.

        Raises StoreConflict when somebody else wrote to the store, StoreError when it stays unwritable.
        """
        ticker = asyncio.create_task(self._tick())
        recording = asyncio.create_task(self._recorder.run())
        looking = asyncio.create_task(self._look_at_the_clock())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                get = asyncio.create_task(self._queue.get())
                await asyncio.wait({get, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not get.done():
                    get.cancel()
                    break
                await self._handle(get.result())
                # Take what else is there without a task for each: heartbeats come by the thousand.
                while not self._queue.empty() and not self._stopping.is_set():
                    await self._handle(self._queue.get_nowait())
        finally:
            beside = (ticker, stop, recording, looking, *self._tasks)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _tick(self) -> None:
        """Time goes by. One tick at a time is in the queue; it knows when it should have run."""
        beats = 0
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            if self._tick_due:
                continue
            self._tick_due = due
            await self._queue.put(Tick())
            beats += 1
            if beats % 20 == 0:
                self._sd_notify("WATCHDOG=1")

    async def _look_at_the_clock(self) -> None:
        """Times of schedules that have come; by the wall, as they are dates."""
        lookout = Lookout()
        while True:
            await asyncio.sleep(LOOK_S)
            schedules, records = self.state.settings.schedules, dict(self.state.schedules)
            if not schedules:
                continue
            # Beside the loop: many that are due at once would delay a heartbeat.
            try:
                events = await asyncio.to_thread(lookout.look, schedules, records, time.time())
            except Exception as error:  # of one look: the next one may go well, and nothing else must end
                log.error("the clock could not be looked at for schedules", exc_info=error)
                continue
            for event in events:
                await self._queue.put(event)

    # ---- deciding

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Tick):
            event = await self._tick_now()
        name = ""  # of what is kept to explain this decision
        while True:
            now = self.now()
            draft = decide(self.state, event, now)
            decision = draft.decision()
            if not decision.changes:
                break
            name = self._recorder.name(self.state, decision)
            try:
                await self._commit(draft, {}, name)
            except StoreError as error:
                # Nothing was written, so nothing was decided: no effect runs. The event is decided anew.
                log.error("the store cannot be written, nothing is done until it can", error=str(error))
                self._store_failed_at = self._store_failed_at or time.monotonic()
                if time.monotonic() - self._store_failed_at > STORE_PATIENCE_S:
                    raise  # whether the last commit is there is unknown: a new term reads what is
                await asyncio.sleep(STORE_RETRY_S)
            else:
                self._store_failed_at = 0.0
                break
        self._recorder.keep(name, self.state, event, now)
        self.state.apply(draft)
        for note in decision.changes.notes:
            log.info(note.text, kind=note.kind, host=note.host or None, operation=note.operation or None)
        for effect in decision.effects:
            self._run_effect(effect)
        if decision.changes.notes:
            async with self._noted:
                self._noted.notify_all()

    async def _tick_now(self) -> Tick:
        """The tick, after all that came before this moment: a host must not look late for a beat that lies here."""
        for _ in range(self._queue.qsize()):
            await self._handle(self._queue.get_nowait())
        lag_s = max(time.monotonic() - self._tick_due, 0.0)
        self._tick_due = 0.0
        return Tick(lag_s=lag_s)

    async def _commit(self, draft: Draft, more: dict[str, bytes], decision: str = "") -> None:
        changes = draft.changes()
        puts, deletes = journal.writes(
            changes,
            now=draft.now,
            wall=time.time(),
            next_note=self._next_note,
            definitions_kept=self.state.settings.limits.definitions_kept,
            decision=decision,
        )
        guard = {journal.CLUSTER: self._cluster_revision} if self._cluster_revision is not None else None
        revision = await self._store.commit(puts | more, deletes, guard)
        if changes.cluster is not None:
            self._cluster_revision = revision
        self.state.revision = revision
        self._next_note += len(changes.notes)

    _store_failed_at = 0.0
    # Of the cluster record as we wrote it: whoever else writes it, stops us.
    _cluster_revision: int | None = None

    # ---- effects

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The effect's answer will not come: it times out as unknown, and is asked again.
            log.error("an effect failed", exc_info=error)

    def _run_effect(self, effect: Effect) -> None:
        match effect:
            case Accept():
                self._sessions.welcome(effect.host, effect.session)
            case Send():
                self._command(effect, effect.body)
            case Reply():
                future = self._replies.pop(effect.id, None)
                if future is not None and not future.done():
                    future.set_result(effect)
            case SendStart():
                self._spawn(self._send_start(effect))
            case DropSession():
                self._spawn(self._sessions.drop(effect.host, effect.session, effect.reason))
            case Look():
                self._spawn(self._look(effect))
            case CheckGuest():
                self._spawn(self._check(effect))
            case ReadPower():
                self._spawn(self._read_power(effect))
            case Fence():
                self._spawn(self._fence(effect))
            case PowerOn():
                self._spawn(self._power_on(effect))
            case RunCommand():
                self._spawn(self._run_command(effect))
            case Notify():
                self._spawn(self._notifier.send(effect.alert, effect.cleared))

    async def _send_start(self, effect: SendStart) -> None:
        stored = await journal.definition(self._store, effect.ticket.guest, effect.version)
        assert stored is not None, "a start is only issued for a stored definition"
        definition = Definition(
            id=stored.guest,
            name=effect.ticket.name,
            xml=stored.xml,
            digest=stored.digest,
            nvram=stored.nvram,
        )
        body = Start(ticket=effect.ticket, definition=definition)
        self._command(effect, body)

    def _command(self, effect: Send | SendStart, body: Body) -> None:
        """Send it. What cannot be sent is answered here at once: nobody will ever run it."""
        if why := self._sessions.command(effect.host, effect.session, effect.id, body):
            log.error("a command was not sent", host=effect.host, why=why)
            answer = Answer(outcome=Outcome.REFUSED, reason=why)
            answered = Answered(host=effect.host, session=effect.session, effect=effect.id, answer=answer)
            self._spawn(self._queue.put(answered))

    async def _look(self, effect: Look) -> None:
        answered = await self._prober.probe(effect.addresses, effect.window_s)
        await self._queue.put(LookEnded(effect=effect.id, host=effect.host, answered=answered))

    async def _check(self, effect: CheckGuest) -> None:
        results = await self._checker.check(effect.checks, effect.window_s)
        await self._queue.put(CheckEnded(effect=effect.id, guest=effect.guest, results=results))

    async def _read_power(self, effect: ReadPower) -> None:
        reports = await self._fencer.read(effect.levels)
        await self._queue.put(PowerSeen(effect=effect.id, host=effect.host, reports=reports))

    async def _fence(self, effect: Fence) -> None:
        report = await self._fencer.off(effect.level, effect.devices, effect.timeout_s)
        await self._queue.put(FenceEnded(effect=effect.id, host=effect.host, report=report))

    async def _power_on(self, effect: PowerOn) -> None:
        ok, reason = await self._fencer.on(effect.levels)
        await self._queue.put(PowerOnEnded(effect=effect.id, host=effect.host, ok=ok, reason=reason))

    async def _run_command(self, effect: RunCommand) -> None:
        report = await self._runner.run(effect)
        await self._queue.put(CommandEnded(effect=effect.id, host=effect.host, report=report))

    # ---- for the API

    async def ask(self, ask: OperatorAsk) -> Reply:
        """One operator request, decided in order with everything else. Raises TimeoutError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[ask.id] = future
        try:
            await self._queue.put(ask)
            async with asyncio.timeout(ASK_S):
                return await future
        finally:
            self._replies.pop(ask.id, None)

    def reconfigure(self, settings: Settings) -> None:
        """Take over a configuration that was found valid. Raises asyncio.QueueFull when far behind."""
        self._queue.put_nowait(Reconfigured(settings=settings))

    async def notes(self, *, after: str = "", limit: int = 200, last: bool = False) -> list[StoredNote]:
        """Lines of the timeline after that key, or the last ones. Raises StoreError."""
        if last:
            entries = await self._store.last(journal.NOTES, limit)
        else:
            entries = await self._store.scan(journal.NOTES, after=after, limit=limit)
        return [journal.decode(entry.value, StoredNote) for entry in entries]

    async def wait_notes(self, after: str, timeout_s: float) -> None:
        """Return when there is a line after that key, or when time is up."""
        try:
            async with asyncio.timeout(timeout_s), self._noted:
                await self._noted.wait_for(lambda: f"{journal.NOTES}{self._next_note - 1:012d}" > after)
        except TimeoutError:
            return

    async def operations(self, limit: int) -> list[Operation]:
        """The newest operations, open or closed, newest last. Raises StoreError."""
        entries = await self._store.last(journal.OPERATIONS, limit)
        return [journal.decode(entry.value, Operation) for entry in entries]

    async def outputs(self, operation: str) -> list[Output]:
        """What the commands of the run of a playbook said, in the order in which they were begun. Raises StoreError."""
        entries = await self._store.scan(journal.outputs_of(operation))
        return [journal.decode(entry.value, Output) for entry in entries]

    async def decision(self, name: str) -> bytes | None:
        """A saved decision (see `core.saved`); None when there is none of that id, or no longer. Raises OSError."""
        return await self._recorder.read(name)

    async def drill(self, key: str) -> DrillReport | None:
        """The report of a drill; None when none of that id is kept. Raises StoreError."""
        return await journal.drill_report(self._store, key) if key in self.state.drills else None

    async def picture(self, guest: GuestId) -> StoredPicture | None:
        """The newest picture of its console. Raises StoreError."""
        return await journal.picture(self._store, guest)

    async def definition(self, guest: GuestId) -> StoredDefinition | None:
        """The newest stored definition of a protected guest. Raises StoreError."""
        record = self.state.guests.get(guest)
        if record is None or not record.definition:
            return None
        return await journal.definition(self._store, guest, record.definition)
