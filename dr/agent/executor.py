"""Takes commands in the order in which they came, writes down what must not be forgotten, then lets them run.

Here: the lane, the turns of each guest, bounds, answers. Not here: the rules (`dr.core.warden`), what a ticket does to
libvirt (`dr.agent.tickets`, `dr.agent.moves`) or to disks (`dr.agent.transfers`), the link (`dr.agent.process`).

One task, the lane, does every command's durable part: admission, seals, the protected list. So what was sent later is
judged later, and it waits for the state disk at most, never for libvirt. Effects run beside it, those of one guest
one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import assert_never

from dr.agent.clones import Drills
from dr.agent.execs import Insides
from dr.agent.hook import Hook
from dr.agent.inside import look_inside
from dr.agent.journal import Journal, StateTrouble
from dr.agent.looks import Looks, Patience, refused, unseen
from dr.agent.moves import MoveTickets
from dr.agent.session import Session
from dr.agent.tickets import Tickets
from dr.agent.transfers import TransferTickets
from dr.core import warden
from dr.model.base import BootId, GuestId, HostName, changed
from dr.model.commands import (
    Abort,
    AllowDowntime,
    Answer,
    BootClone,
    CheckClone,
    Clean,
    Describe,
    Discard,
    EndDrill,
    LookInside,
    LookUp,
    MakeClone,
    Migrate,
    Order,
    Outcome,
    Probe,
    Protect,
    ProveHook,
    Question,
    Receive,
    Resume,
    RunInside,
    Sample,
    SendDisks,
    Start,
    Stay,
    Stop,
    TakeDisks,
    Testify,
    Testimony,
)
from dr.model.facts import Sighting
from dr.model.wire import Command, Result
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown
from dr.ports.link import LinkClosed
from dr.ports.world import Prober

log = logging.getLogger("dr.agent.executor")

WAITING_MAX = 256  # commands in the lane
TICKETS_MAX = 64  # under way or waiting for their guest's turn
READS_MAX = 64
SIGHTS_MAX = 16  # looks at once; each may read all of /proc
PROBE_ADDRESSES_MAX = 16
REASON_CHARS_MAX = 10_000  # of an answer that was too large, kept in the one that is sent instead
ANSWER_S = 5.0  # a link that does not take an answer for so long is stuck; the lane does not wait for it


class Executor:
    """Runs the coordinator's commands on this host."""

    def __init__(
        self,
        host: HostName,
        boot_id: BootId,
        *,
        journal: Journal,
        hook: Hook,
        looks: Looks,
        tickets: Tickets,
        moves: MoveTickets,
        transfers: TransferTickets,
        drills: Drills,
        insides: Insides,
        hypervisor: Hypervisor,
        prober: Prober,
        patience: Patience,
        sample: Callable[[tuple[GuestId, ...]], None],  # measures these guests soon
        stay: Callable[[Stay], None],  # holds this host's own shutdown up
        refresh: Callable[..., None],  # of the reporter: reads these parts again (default: guests)
    ) -> None:
        self._host = host
        self._boot_id = boot_id
        self._journal = journal
        self._hook = hook
        self._looks = looks
        self._tickets = tickets
        self._moves = moves
        self._transfers = transfers
        self._drills = drills
        self._insides = insides
        self._hypervisor = hypervisor
        self._prober = prober
        self._patience = patience
        self._refresh = refresh
        self._sample = sample
        self._stay = stay
        self._lane: asyncio.Queue[tuple[Session, Command]] = asyncio.Queue(WAITING_MAX)
        self._session: Session | None = None
        self._stopping = False
        self._turns: dict[
            GuestId, asyncio.Task[None]
        ] = {}  # the last ticket of each guest that has any under way
        self._acting: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._drilling: set[asyncio.Task[None]] = set()
        self._sights = asyncio.Semaphore(SIGHTS_MAX)

    # ---- the link's side

    def attach(self, session: Session | None) -> None:
        """Commands of this session count from now on, and of no other: tickets not yet acted on lose their force."""
        self._session = session

    def submit(self, session: Session, command: Command) -> None:
        """Take a command; never waits."""
        try:
            self._lane.put_nowait((session, command))
        except asyncio.QueueFull:
            self._read(
                self._answer(session, command.id, refused("too many commands are waiting on this host"))
            )

    async def run(self) -> None:
        """The lane. Runs until cancelled."""
        while True:
            session, command = await self._lane.get()
            try:
                await self._take(session, command)
            except StateTrouble as trouble:
                await self._answer(session, command.id, refused(str(trouble)))
            except Exception as error:  # a bug must not cost the lane
                log.exception("command %s failed", command.id)
                reason = f"the agent failed: {type(error).__name__}: {error}"
                await self._answer(session, command.id, Answer(outcome=Outcome.UNKNOWN, reason=reason))

    async def drain(self, patience_s: float) -> None:
        """Take no more, give what is under way some time, then drop it: its end will be unknown."""
        self._stopping = True
        if self._acting:
            await asyncio.wait(self._acting, timeout=patience_s)
        left = self._acting | self._reading | self._drilling
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=patience_s)

    # ---- what nobody's ticket asks for

    def busy(self, guest: GuestId) -> bool:
        """Whether anything of that guest is under way here."""
        return guest in self._turns

    def locally(self, guest: GuestId, work: Coroutine[None, None, None]) -> None:
        """The host's own work on a guest, in its turn; dropped while anything of it is under way, or if we stop."""
        if self.busy(guest) or self._closing() or self._full():
            work.close()
            return
        self._turns[guest] = self._act(self._own_turn(guest, work))

    async def _own_turn(self, guest: GuestId, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("own work on %s failed", guest)
        if self._turns.get(guest) is asyncio.current_task():
            del self._turns[guest]
        self._refresh()

    # ---- the lane

    async def _take(self, session: Session, command: Command) -> None:
        if session is not self._session:
            return  # its link is gone, and with it the force of everything that came over it
        if reason := warden.stale(self._journal.memory, command, session.id) or self._closing():
            await self._answer(session, command.id, refused(reason))
            return
        body = command.body
        match body:
            case Start() | Stop() | Clean() | Receive() | Migrate() | Resume() | Discard():
                await self._admit(session, command.id, body)
            case SendDisks() | TakeDisks():
                await self._admit(session, command.id, body)
            case Testify():
                await self._testify(session, command.id, body)
            case Protect():
                await self._protect(session, command.id, body)
            case Abort():
                self._read(self._reply(session, command.id, self._abort(body)))
            case AllowDowntime():
                self._read(self._reply(session, command.id, self._moves.allow_downtime(body)))
            case RunInside():
                self._read(self._reply(session, command.id, self._insides.run(command.id, body)))
            case Sample():
                self._sample(body.guests)
                await self._answer(session, command.id, Answer(outcome=Outcome.DONE))
            case Stay():
                self._stay(body)
                await self._answer(session, command.id, Answer(outcome=Outcome.DONE))
            case Probe() | LookInside() | Describe() | ProveHook():
                self._read(self._reply(session, command.id, self._look_up(body)))
            case MakeClone() | BootClone() | CheckClone() | EndDrill():
                self._drill(self._reply(session, command.id, self._drills.answer(body)))
            case _:
                assert_never(body)

    def _closing(self) -> str:
        return "the agent stops" if self._stopping else ""

    async def _admit(self, session: Session, command: str, order: Order) -> None:
        ticket = order.ticket
        memory, verdict = warden.admit(
            self._journal.memory,
            command,
            ticket,
            host=self._host,
            boot_id=self._boot_id,
            session=session.id,
        )
        match verdict:
            case warden.Known():
                await self._answer(session, command, await self._durable(verdict.answer))
                return
            case warden.Refuse():
                await self._answer(session, command, refused(verdict.reason))
                return
            case warden.Accept():
                pass
        if reason := warden.mismatch(order) or self._full():
            await self._answer(session, command, refused(reason))
            return
        self._journal.put(memory)
        try:
            await self._journal.save()
        except StateTrouble as trouble:  # never acted on; an equal command is told the same
            self._journal.put(warden.finish(self._journal.memory, command, refused(str(trouble))))
            raise
        log.info("ticket %s taken: %s %s generation %d", command, ticket.kind, ticket.name, ticket.generation)
        before = self._turns.get(ticket.guest)
        self._turns[ticket.guest] = self._act(self._turn(session, command, order, before))

    def _full(self) -> str:
        return "too many tickets are under way on this host" if len(self._acting) >= TICKETS_MAX else ""

    async def _turn(
        self, session: Session, command: str, order: Order, before: asyncio.Task[None] | None
    ) -> None:
        """One ticket, after the one before it of the same guest. Its end is durable before it is told."""
        ticket = order.ticket
        if before is not None:
            await asyncio.wait({before})

        def valid() -> str:
            if self._session is not session:
                return f"{ticket.name}: the session of its ticket ended before it was acted on"
            return (
                warden.invalid(
                    self._journal.memory,
                    ticket,
                    host=self._host,
                    boot_id=self._boot_id,
                    session=session.id,
                )
                or self._closing()
            )

        try:
            await self._drills.give_way(ticket.guest)
            answer = await self._run(order, valid)
        except Exception as error:
            log.exception("ticket %s failed", command)
            answer = Answer(
                outcome=Outcome.UNKNOWN, reason=f"the agent failed: {type(error).__name__}: {error}"
            )
        log.info("ticket %s: %s %s: %s %s", command, ticket.kind, ticket.name, answer.outcome, answer.reason)
        self._journal.put(warden.finish(self._journal.memory, command, answer))
        answer = await self._durable(answer)
        if self._turns.get(ticket.guest) is asyncio.current_task():
            del self._turns[ticket.guest]
        self._refresh()
        await self._answer(session, command, answer)

    async def _run(self, order: Order, valid: Callable[[], str]) -> Answer:
        match order:
            case Start() | Stop() | Clean():
                return await self._tickets.run(order, valid)
            case Receive() | Migrate() | Resume() | Discard():
                return await self._moves.run(order, valid)
            case SendDisks() | TakeDisks():
                return await self._transfers.run(order, valid)

    async def _abort(self, order: Abort) -> Answer:
        """The copy of its disks, if that is what is under way; else its migration."""
        if self._transfers.cancel(order.guest, again=order.again):
            return Answer(outcome=Outcome.DONE)
        return await self._moves.abort(order)

    async def _durable(self, answer: Answer) -> Answer:
        """The answer once it cannot be forgotten; where it could be, it is not told."""
        try:
            await self._journal.save()
        except StateTrouble as trouble:
            return Answer(outcome=Outcome.UNKNOWN, reason=f"it ended ({answer.outcome}), but {trouble}")
        return answer

    async def _testify(self, session: Session, command: str, order: Testify) -> None:
        """Seal all (one write), revoke all, then look. What is under way is unknown, at once."""
        memory = self._journal.memory
        listed = warden.listed(memory)
        answers: dict[GuestId, Testimony] = {}
        asked: dict[GuestId, Question] = {}
        for question in order.questions:
            guest = question.guest
            if guest in self._turns:
                answers[guest] = unseen(guest, f"{question.name}: a ticket is still under way here")
            elif guest not in listed:
                reason = (
                    f"{question.name}: not on this host's protected list, so the hook does not hold it back"
                )
                answers[guest] = unseen(guest, reason)
            elif guest not in asked or question.generation > asked[guest].generation:
                asked[guest] = question
        if asked:
            self._journal.put(
                warden.seal(memory, {guest: question.generation for guest, question in asked.items()})
            )
            try:
                await self._journal.save()
            except StateTrouble as trouble:
                answers |= {guest: unseen(guest, str(trouble)) for guest in asked}
                asked = {}
        if asked:
            await (
                self._hook.look_after()
            )  # a hook that somebody removed holds no start back that libvirtd still has
        sealed = self._journal.memory.sealed
        for guest in list(asked):
            # Here in the lane, so that no newer ticket has written its permit yet.
            if failed := self._looks.revoke(guest):
                answers[guest] = failed
                del asked[guest]
        # A newer ticket begun from here on raises the seal, and is under way: only what is sealed now is testified.
        upto = {guest: sealed.get(guest, 0) for guest in asked}
        self._read(self._reply(session, command, self._sight_all(answers, upto)))

    async def _sight_all(self, answers: dict[GuestId, Testimony], upto: dict[GuestId, int]) -> Answer:
        """What is not seen in time is unknown: one slow look must not cost the other answers."""

        async def one(guest: GuestId, sealed: int) -> None:
            async with self._sights:
                seen = answers[guest] = await self._looks.sight(guest, sealed)
                if seen.sighting is Sighting.ABSENT:
                    self._journal.put(warden.without_copy(self._journal.memory, guest, sealed))

        try:
            async with asyncio.timeout(self._patience.testify_s), asyncio.TaskGroup() as looks:
                for guest, sealed in upto.items():
                    looks.create_task(one(guest, sealed))
        except TimeoutError:
            late = unseen("", f"not looked at within {self._patience.testify_s:g} s")
            answers = {guest: changed(late, guest=guest) for guest in upto} | answers
        return Answer(outcome=Outcome.DONE, testimony=tuple(answers.values()))

    async def _protect(self, session: Session, command: str, order: Protect) -> None:
        """List durable, hook files in force, then the proof (outside the lane: it asks libvirt)."""
        memory, verdict = warden.protect(self._journal.memory, order)
        version = self._journal.memory.protected_version
        if isinstance(verdict, warden.Refuse):
            answer = Answer(outcome=Outcome.REFUSED, reason=verdict.reason, protected_version=version)
            await self._answer(session, command, answer)
            return
        if not self._journal.readable:
            raise StateTrouble(self._journal.trouble)
        self._journal.put(memory)
        await self._journal.save()
        await self._hook.protect(memory.entries)
        self._hypervisor.watch_storage(memory.watch_storage)
        self._refresh("facts")  # guests are placed by what each host sees of that storage
        self._read(self._reply(session, command, self._acknowledge(memory.protected_version)))

    async def _acknowledge(self, version: int) -> Answer:
        hook = await self._hook.ensure()
        if self._hook.trouble:
            return Answer(outcome=Outcome.FAILED, reason=self._hook.trouble, hook=hook)
        return Answer(outcome=Outcome.DONE, protected_version=version, hook=hook)

    async def _look_up(self, body: LookUp) -> Answer:
        match body:
            case Probe():
                async with asyncio.timeout(body.window_s + self._patience.probe_s):
                    answered = await self._prober.probe(body.addresses[:PROBE_ADDRESSES_MAX], body.window_s)
                return Answer(outcome=Outcome.DONE, answered=answered)
            case LookInside():
                return await look_inside(self._hypervisor, body)
            case Describe():
                async with asyncio.timeout(self._patience.describe_s):
                    return Answer(
                        outcome=Outcome.DONE, definition=await self._hypervisor.describe(body.guest)
                    )
            case ProveHook():
                return Answer(outcome=Outcome.DONE, hook=await self._hook.prove())

    # ---- tasks and answers

    async def _reply(self, session: Session, command: str, work: Awaitable[Answer]) -> None:
        """The answer of work that changes nothing, whatever becomes of it."""
        try:
            answer = await work
        except TimeoutError:
            answer = Answer(outcome=Outcome.UNKNOWN, reason="no answer in time")
        except HypervisorUnknown as error:
            answer = Answer(outcome=Outcome.UNKNOWN, reason=str(error))
        except HypervisorError as error:
            answer = Answer(outcome=Outcome.FAILED, reason=str(error))
        except Exception as error:
            log.exception("command %s failed", command)
            answer = Answer(
                outcome=Outcome.UNKNOWN, reason=f"the agent failed: {type(error).__name__}: {error}"
            )
        await self._answer(session, command, answer)

    async def _answer(self, session: Session, command: str, answer: Answer) -> None:
        """Tell it in the session that asked, or nobody: the coordinator asks again in its new one."""
        if session is not self._session:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                await session.link.send(Result(command=command, answer=answer))
        except (LinkClosed, TimeoutError):
            log.info("answer to %s not sent: the session is over or stuck", command)
        except (
            ValueError
        ) as error:  # too large for a message; with a definition it is that, which only was read
            log.error("answer to %s not sent: %s", command, error)
            outcome = answer.outcome if answer.definition is None else Outcome.FAILED
            reason = f"the agent's answer could not be sent: {error}"
            if len(answer.reason) < REASON_CHARS_MAX and answer.definition is None:
                reason = f"{answer.reason}; {reason}".lstrip("; ")
            await self._answer(session, command, Answer(outcome=outcome, reason=reason))

    def _act(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        return task

    def _read(self, work: Coroutine[None, None, None]) -> None:
        if len(self._reading) >= READS_MAX:
            work.close()
            log.warning("a command was dropped: %d are under way", READS_MAX)
            return
        task = asyncio.create_task(work)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    def _drill(self, work: Coroutine[None, None, None]) -> None:
        """Apart from what is read: copying disks takes long, and no testimony may wait for it. Bounded by `Drills`."""
        task = asyncio.create_task(work)
        self._drilling.add(task)
        task.add_done_callback(self._drilling.discard)
