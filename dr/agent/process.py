"""The agent: one process beside the guests, one link to the coordinator at a time.

Here: the order of its start and end, sessions, beats. Not here: commands (`dr.agent.executor`), what is seen
(`dr.agent.reporter`), the rules (`dr.core.warden`), which adapters there are (`dr.cli` hands them in).

The link outlives everything else here: a dead libvirtd, a full disk, a hook that cannot be written are told over it,
as a critical reading with its reason, and are never a cause to exit. Guests are left alone when the agent ends.

Room is left for `dr agent override GUEST --reason …` (the emergency start without a coordinator): it will use the
entry's holder in the memory, the gate and a note in the next hello; nothing of it is here yet.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from dr import __version__
from dr.agent.clocks import Clocks
from dr.agent.clones import Drills
from dr.agent.copies import Parts, Strays
from dr.agent.departing import Departing
from dr.agent.disks import Disks
from dr.agent.execs import Insides
from dr.agent.executor import Executor
from dr.agent.following import Following
from dr.agent.hook import Hook
from dr.agent.inside import look_inside
from dr.agent.isolation import Isolation
from dr.agent.journal import Journal, StateTrouble, Worker
from dr.agent.looks import Looks, Patience
from dr.agent.moves import MoveTickets
from dr.agent.reporter import Reporter, Rhythm
from dr.agent.sampling import Pace, Sampling
from dr.agent.session import Session
from dr.agent.tickets import Tickets
from dr.agent.transfers import TransferTickets
from dr.core import warden
from dr.model.base import BootId, GuestId, HostName, Record, changed
from dr.model.commands import ProtectedEntry
from dr.model.facts import Level, Reading
from dr.model.policy import HEARTBEAT_S_MAX, HEARTBEAT_S_MIN
from dr.model.wire import (
    PROTOCOL,
    Ack,
    Beat,
    Command,
    FromCoordinator,
    Goodbye,
    Hello,
    LeaveKind,
    Memory,
    Refused,
    Report,
    Welcome,
)
from dr.ports.clones import Clones
from dr.ports.courier import Courier
from dr.ports.execs import Execs
from dr.ports.hypervisor import Gate, HostHealth, Hypervisor
from dr.ports.link import AgentLink, Dialler, LinkClosed
from dr.ports.memory import MemoryStore
from dr.ports.world import Departure, Prober

log = logging.getLogger("dr.agent")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Timing(Record):
    """The process's own figures, in seconds."""

    # Doubles up to redial_max_s, with jitter: a coordinator that restarted sees all its agents within about 1 s.
    redial_s: float = 0.1
    redial_max_s: float = 1.0
    dial_s: float = 5.0
    welcome_s: float = 5.0
    silence_s: float = (
        10.0  # a coordinator unheard for so long is dialled anew; its machine may have lost power
    )
    first_look_s: float = 2.0  # a hello waits so long for the first facts
    save_s: float = 5.0
    adopt_s: float = 1.0  # a first beat waits so long for the new epoch to become durable
    flush_s: float = 1.0  # revisions become durable at most this late, when no ticket needs them earlier
    drain_s: float = 3.0
    goodbye_s: float = 1.0
    departure_s: float = 1.0  # how often it is looked whether the host goes down
    isolation_look_s: float = 1.0  # how often a host without a session looks for the others
    follow_s: float = 1.0  # how often libvirt is asked how far a migration is
    copies_s: float = 0.5  # how often copies that wait, or arrive, are looked after
    drills_s: float = 10.0  # how often it is looked whether the time of a drill is over
    watchdog_s: float = 5.0  # a third of the unit's WatchdogSec


class Agent:
    """Runs on one host until told to stop."""

    def __init__(
        self,
        host: HostName,
        cluster: str,
        *,
        dialler: Dialler,
        hypervisor: Hypervisor,
        inside: Execs,
        gate: Gate,
        courier: Courier,
        clones: Clones,
        memory: MemoryStore,
        host_health: HostHealth,
        prober: Prober,
        departure: Departure,
        boot_id: BootId = "",
        notify: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        timing: Timing | None = None,
        rhythm: Rhythm | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`boot_id` empty: the kernel's. `notify` takes systemd's words: "READY=1", "STATUS=…", "WATCHDOG=1", …"""
        self.host = host
        self.cluster = cluster
        self.boot_id = boot_id or BOOT_ID.read_text().strip()
        self._dialler = dialler
        self._hypervisor = hypervisor
        self._courier = courier
        self._notify = notify
        self._clock = clock
        self._jitter = jitter
        self._timing = timing = timing or Timing()
        patience = patience or Patience()
        self._nonce = secrets.token_hex(16)
        self._session: Session | None = None
        self._refusal = ""
        worker = Worker("dr-state")
        self._journal = Journal(memory, worker, save_s=timing.save_s, changed=self._look_again)
        self._hook = Hook(gate, hypervisor, worker, write_s=timing.save_s, changed=self._look_again)
        parts = Parts(self.boot_id, hypervisor=hypervisor, journal=self._journal)
        self._drills = drills = Drills(
            clones,
            look=partial(look_inside, hypervisor),
            every_s=timing.drills_s,
            busy=self._is_busy,
            tell=self._look_again,
        )
        self._reporter = Reporter(
            self.boot_id,
            hypervisor=hypervisor,
            host_health=host_health,
            hook=self._hook,
            own=self._own_readings,
            parts=lambda guests: parts.of(drills.told(guests)),
            tell=lambda guests: parts.told(warden.told(self._journal.memory, guests)),
            moves=lambda: self._following.moves,
            samples=lambda: self._sampling.samples,
            clock=clock,
            rhythm=rhythm or Rhythm(),
        )
        self._departing = Departing(
            departure,
            session=lambda: self._session,
            look_s=timing.departure_s,
            clock=clock,
            notify=notify,
        )
        looks = Looks(
            self.boot_id, hypervisor=hypervisor, hook=self._hook, journal=self._journal, patience=patience
        )
        disks = Disks(hypervisor=hypervisor, journal=self._journal, looks=looks, patience=patience)
        self._executor = Executor(
            host,
            self.boot_id,
            journal=self._journal,
            hook=self._hook,
            looks=looks,
            tickets=Tickets(
                hypervisor=hypervisor,
                gate=gate,
                hook=self._hook,
                journal=self._journal,
                looks=looks,
                patience=patience,
            ),
            moves=MoveTickets(
                self.boot_id,
                hypervisor=hypervisor,
                gate=gate,
                hook=self._hook,
                journal=self._journal,
                looks=looks,
                disks=disks,
                clocks=Clocks(hypervisor=hypervisor),
                patience=patience,
            ),
            transfers=TransferTickets(courier=courier, disks=disks, looks=looks),
            drills=drills,
            insides=Insides(inside, self._journal),
            hypervisor=hypervisor,
            prober=prober,
            patience=patience,
            refresh=self._reporter.refresh,
            sample=self._sample_soon,
            stay=self._departing.bid,
        )
        self._isolation = Isolation(
            journal=self._journal,
            reporter=self._reporter,
            executor=self._executor,
            hypervisor=hypervisor,
            prober=prober,
            session=lambda: self._session,
            look_s=timing.isolation_look_s,
            window_s=timing.isolation_look_s,
            clock=clock,
        )

        self._following = Following(
            hypervisor=hypervisor,
            courier=courier,
            journal=self._journal,
            reporter=self._reporter,
            every_s=timing.follow_s,
        )
        self._sampling = Sampling(
            hypervisor=hypervisor,
            journal=self._journal,
            reporter=self._reporter,
            busy=self._executor.busy,
            clock=clock,
            jitter=jitter,
            pace=pace or Pace(),
        )
        self._strays = Strays(
            self.boot_id,
            hypervisor=hypervisor,
            journal=self._journal,
            reporter=self._reporter,
            executor=self._executor,
            every_s=timing.copies_s,
        )

    # ---- start and end

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises only for a bug, so that systemd starts it again."""
        await self._prepare()
        self._notify("READY=1")
        stopped = asyncio.create_task(stop.wait())
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._executor.run(),
                self._reporter.run(),
                self._isolation.run(),
                self._strays.run(),
                self._following.run(),
                self._sampling.run(),
                self._drills.run(),
                self._departing.run(),
                self._flush(),
                self._feed_watchdog(),
                self._keep_linked(),
            )
        ]
        try:
            done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            self._notify("STOPPING=1")
            await self._departing.look(sure=True)
            await self._executor.drain(self._timing.drain_s)
            await self._drills.close()
            asked = "asked to (service stopped, restarted, or host shutting down)"
            await self._say_goodbye(f"agent stops: {asked if stopped in done else 'it failed, see its log'}")
            for task in done - {stopped}:
                task.result()  # none of them ends by itself
        finally:
            for task in (stopped, *tasks):
                task.cancel()
            await asyncio.gather(stopped, *tasks, return_exceptions=True)
            await self._close_courier()

    async def _close_courier(self) -> None:
        """After the copies' own tasks were dropped: what they took is kept, where calling them off would remove it."""
        try:
            async with asyncio.timeout(self._timing.goodbye_s):
                await self._courier.close()
        except TimeoutError:
            log.info("the courier did not close in time")

    async def _prepare(self) -> None:
        """Memory, then the hook and its list, before anything is told or taken."""
        self._journal.load()
        memory = warden.wake(self._journal.memory, self._nonce)
        if not memory.cluster:
            memory = changed(memory, cluster=self.cluster)
        elif memory.cluster != self.cluster:
            log.error(
                "memory is of cluster %s, configured is %s: run `dr agent join` again",
                memory.cluster,
                self.cluster,
            )
        if self._journal.readable:
            self._journal.put(memory)
        await self._hook.install(self._list(), revoke=True)
        self._hypervisor.watch_storage(memory.watch_storage)

    def _list(self) -> tuple[ProtectedEntry, ...] | None:
        """The protected list; None if none was ever received here, or if it cannot be read."""
        memory = self._journal.memory
        return memory.entries if self._journal.readable and memory.protected_version else None

    async def _flush(self) -> None:
        """Make durable what no ticket waits for (revisions), try again what failed, look after the hook's files."""
        while True:
            await asyncio.sleep(self._timing.flush_s)
            if self._journal.behind or self._journal.trouble:
                with suppress(StateTrouble):  # logged once, and told as a reading
                    await self._journal.save()
            entries = self._list()
            if self._hook.trouble or (entries is not None and not self._hook.in_force(entries)):
                await self._hook.install(entries)
            await self._hook.look_after()

    async def _feed_watchdog(self) -> None:
        while True:
            self._notify("WATCHDOG=1")
            await asyncio.sleep(self._timing.watchdog_s)

    def _look_again(self) -> None:
        self._reporter.changed.set()

    def _is_busy(self, guest: GuestId) -> bool:
        return self._executor.busy(guest)

    def _sample_soon(self, guests: tuple[GuestId, ...]) -> None:
        self._sampling.soon(guests)

    def _own_readings(self) -> tuple[Reading, ...]:
        readings = []
        if self._journal.trouble:
            readings.append(Reading(part="state", level=Level.CRITICAL, reason=self._journal.trouble))
        if (of_hook := self._hook.reading()) is not None:
            readings.append(of_hook)
        if (of_drills := self._drills.reading()) is not None:
            readings.append(of_drills)
        return tuple(readings)

    # ---- the link

    async def _keep_linked(self) -> None:
        await self._reporter.first(self._timing.first_look_s)
        pause_s = self._timing.redial_s
        while True:
            lived_s = 0.0
            try:
                lived_s = await self._one_session()
            except TimeoutError:
                self._refused("the coordinator did not answer in time")
            except (LinkClosed, OSError) as error:
                self._refused(str(error))
            except Exception as error:
                log.exception("session failed")
                self._refused(f"{type(error).__name__}: {error}")
            if lived_s > self._timing.redial_max_s:
                pause_s = self._timing.redial_s
            else:
                pause_s = min(2 * pause_s, self._timing.redial_max_s)
            await asyncio.sleep(pause_s * (0.5 + 0.5 * self._jitter()))

    def _refused(self, why: str) -> None:
        """Log a reason once, not at each try."""
        if why != self._refusal:
            log.warning("not linked: %s", why)
            self._notify(f"STATUS=not linked: {why}")
        self._refusal = why

    async def _one_session(self) -> float:
        """Dial, and live with one session until it ends: for how long, 0 if there was none."""
        async with asyncio.timeout(self._timing.dial_s):
            link = await self._dialler.dial()
        try:
            leaving = await self._departing.hello()
            told = self._reporter.snapshot()
            messages = aiter(link)
            async with asyncio.timeout(self._timing.welcome_s):
                await link.send(self._hello(told, leaving))
                welcome = await anext(messages, None)
            if not isinstance(welcome, Welcome):
                why = welcome.reason if isinstance(welcome, Refused) else "it did not say welcome"
                self._refused(f"the coordinator does not take this host: {why}")
                return 0.0
            session = await self._adopt(link, welcome)
            if session is None:
                return 0.0
            self._refusal = ""
            self._session = session
            self._executor.attach(session)
            told = changed(told, samples=None)  # a hello has none
            since = self._clock()
            await self._live(session, messages, told)
            return self._clock() - since
        finally:
            self._session = None
            self._executor.attach(None)
            await self._close(link)

    def _hello(self, told: Report, leaving: LeaveKind) -> Hello:
        memory = self._journal.memory
        return Hello(
            protocol=PROTOCOL,
            version=__version__,
            cluster=self.cluster,
            boot_id=self.boot_id,
            nonce=self._nonce,
            memory=Memory(
                epoch=memory.epoch,
                leader_id=memory.leader_id,
                revision=memory.revision,
                protected_version=memory.protected_version,
                entries=memory.entries,
                sealed=memory.sealed,
            ),
            facts=told.facts or self._reporter.facts,
            guests=told.guests,
            health=told.health or (),
            leaving=leaving,
        )

    async def _adopt(self, link: AgentLink, welcome: Welcome) -> Session | None:
        """Follow this leader. If that cannot be made durable the agent beats all the same, see `_acknowledged`."""
        memory, verdict = warden.adopt(self._journal.memory, welcome)
        if isinstance(verdict, warden.Refuse):
            self._refused(verdict.reason)
            return None
        self._journal.put(memory)
        with suppress(StateTrouble):
            await self._journal.save(self._timing.adopt_s)
        log.info("linked: epoch %d, leader %s, session %s", welcome.epoch, welcome.leader_id, welcome.session)
        self._notify(f"STATUS=linked, epoch {welcome.epoch}")
        heartbeat_s = min(max(welcome.heartbeat_s, HEARTBEAT_S_MIN), HEARTBEAT_S_MAX)
        return Session(link, welcome.session, welcome.nonce, heartbeat_s, self._clock())

    async def _live(self, session: Session, messages: AsyncIterator[FromCoordinator], told: Report) -> None:
        """All that goes on in a session; the first part to end ends it."""
        parts = [
            asyncio.create_task(work)
            for work in (
                self._beat(session),
                self._listen(session, messages),
                self._report(session, told),
                self._mind_silence(session),
            )
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                try:
                    part.result()
                except LinkClosed as closed:
                    log.warning("session over: %s", closed)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _acknowledged(self) -> bool:
        """Whether the leader that is followed is durably the one.

        A beat that echoes a nonce acknowledges the epoch, and the new leader builds on it that an older one is refused
        here. So while a crash could make this agent forget the epoch, its beats echo nothing: it lives, no more.
        """
        memory, saved = self._journal.memory, self._journal.saved
        return (memory.epoch, memory.leader_id) == (saved.epoch, saved.leader_id)

    async def _beat(self, session: Session) -> None:
        """Awaits nothing but its hour and the link, so nothing else on this host can delay a beat."""
        seq = 0
        due = self._clock()
        while True:
            seq += 1
            await session.link.send(Beat(seq=seq, echo=session.echo if self._acknowledged() else ""))
            due = max(due + session.heartbeat_s, self._clock())  # after a stall: no burst
            await asyncio.sleep(due - self._clock())

    async def _listen(self, session: Session, messages: AsyncIterator[FromCoordinator]) -> None:
        async for message in messages:
            session.heard = self._clock()
            match message:
                case Ack():
                    session.echo = message.nonce
                    self._journal.put(warden.acknowledge(self._journal.memory, message.revision))
                case Command():
                    self._executor.submit(session, message)
                case Refused():
                    self._refused(f"the coordinator ended the session: {message.reason}")
                    return
                case Welcome():
                    raise LinkClosed("the coordinator said welcome twice")

    async def _report(self, session: Session, told: Report) -> None:
        while True:
            await self._reporter.changed.wait()
            self._reporter.changed.clear()
            now = self._reporter.snapshot()
            report = self._reporter.difference(told, now)
            if report is not None:
                if _ended(told, now):  # by its owner, or by a host that goes down? That is told first.
                    await self._departing.look(sure=True)
                try:
                    await session.link.send(report)
                except (
                    ValueError
                ) as error:  # too large for a message: the link is worth more than this report
                    log.error("report not sent: %s", error)
                told = now
            await asyncio.sleep(self._reporter.gap_s)

    async def _mind_silence(self, session: Session) -> None:
        """End a session whose other side is gone without a word. Doubts its own process first."""
        every_s = self._timing.silence_s / 10
        while True:
            before = self._clock()
            await asyncio.sleep(every_s)
            if self._clock() - before > 2 * every_s:
                continue  # we were the ones who stood still: messages may be waiting unread
            if self._clock() - session.heard > self._timing.silence_s:
                raise LinkClosed(f"nothing came from the coordinator for {self._timing.silence_s:g} s")

    async def _say_goodbye(self, reason: str) -> None:
        if self._session is None:
            return
        try:
            async with asyncio.timeout(self._timing.goodbye_s):
                await self._session.link.send(Goodbye(reason=reason))
        except (LinkClosed, TimeoutError):
            log.info("goodbye not sent: the session is over")

    async def _close(self, link: AgentLink) -> None:
        try:
            async with asyncio.timeout(self._timing.goodbye_s):
                await link.close()
        except (LinkClosed, TimeoutError):
            log.debug("link did not close in time")


def _ended(told: Report, now: Report) -> bool:
    """Whether a guest that ran when it was told last does not run now."""
    if told.guests is None or now.guests is None:
        return False
    active = {facts.id for facts in now.guests if facts.active}
    return any(facts.active and facts.id not in active for facts in told.guests)
