"""A random walk through the core: any event that the world may send, in any state that decisions led to.

The world here has no truth: agents answer whatever they like, fence devices too. So nothing is said of guests that
really run; what must hold is that `decide` never raises, and that each decision is sound by its own records. Truth is
the simulator's business (`dr.sim.truth`).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast, get_args

import msgspec

from dr.core.branch import branched
from dr.core.decide import decide
from dr.core.drills.paper import Paper, takeable
from dr.core.drills.report import of_loss
from dr.core.guests import asked_to_start
from dr.core.playbooks.check import TAKES_BACK
from dr.core.playbooks.due import Lookout
from dr.core.playbooks.runner import OVER
from dr.core.state import Draft, State
from dr.core.volatile import Pending, View
from dr.model import verbs
from dr.model.allowed import Report
from dr.model.base import changed
from dr.model.checks import Agent, CheckResult, Ping, Running
from dr.model.clones import BubbleSeen, CloneMade, DrillEnd, Kept
from dr.model.commands import Abort, Answer, Outcome, ProtectedEntry, Sample, Stay, Testimony
from dr.model.conditions import GuestIs
from dr.model.decision import Changes
from dr.model.drills import DrillReport
from dr.model.effects import (
    CheckGuest,
    DropSession,
    Effect,
    Fence,
    Look,
    PowerOn,
    ReadPower,
    Reply,
    RunCommand,
    Send,
    SendStart,
)
from dr.model.events import (
    Admitted,
    Answered,
    Ask,
    AskApply,
    AskProtect,
    AskRun,
    CheckEnded,
    CommandEnded,
    Connected,
    Disconnected,
    Event,
    FenceEnded,
    Heard,
    Leaving,
    LookEnded,
    OperatorAsk,
    PowerOnEnded,
    PowerSeen,
    Reconfigured,
    Reported,
    ScheduleDue,
    Started,
    Tick,
)
from dr.model.evidence import Power, PowerReport, ProofKind
from dr.model.facts import Definition, DomainState, GuestFacts, HookState, Level, Part, Reading, Sighting
from dr.model.hooks import Hooks
from dr.model.operations import OperationState
from dr.model.plans import Approved, terms_of
from dr.model.playbooks import Playbook, Run, RunLimits, StepSpec, StepState
from dr.model.policy import (
    After,
    GuestPolicy,
    HostPolicy,
    OnLeave,
    OnUnhealthy,
    PolicyChange,
    Timers,
)
from dr.model.records import Desired, DeviceIdentity, GuestPhase, GuestRecord, HostRecord, Place
from dr.model.schedules import Schedule, ScheduleRecord
from dr.model.settings import Settings
from dr.model.verbs import AnyVerb, Notify, Wait
from dr.model.wire import PROTOCOL, Hello, Memory
from dr.sim.commands import ALLOWED
from tests.core.build import facts, levels, reading

XML = (
    "<domain type='kvm'><name>{name}</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"
)
LOCAL_DISK = "<disk type='file'><source file='/local.img'/><target dev='vda'/></disk>"
HOSTS = ("h1", "h2", "h3", "h4")
STRANGER = "h9"
GUESTS = ("g1", "g2", "g3")
ASKS: tuple[type[Ask], ...] = get_args(OperatorAsk)
STEPS = 400
NUMBERED = re.compile(r"\b([a-z][a-z-]*-\d+)-\d+\b")  # an id: its last number says only what came before it
PING = Ping(address="10.1.1.1")
ON = (DomainState.RUNNING, DomainState.PAUSED)


class Unsound(AssertionError):
    """A decision broke an invariant."""


QUIET = Playbook(
    playbook="quiet", steps=(StepSpec(verb=Notify(notify="here")), StepSpec(verb=Wait(wait=20.0)))
)


class Walk:
    """One walk. `kindness`: how often hosts do what they were asked, and say so."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        # Of its own, so that what comes by the clock changes nothing else that is drawn.
        self.clock_rng = random.Random(f"clock {seed}")
        self.wall = 1_780_000_000.0
        self.lookout = Lookout()
        self.kindness = self.rng.choice([0.5, 0.8, 0.95, 1.0])
        self.now = 1000.0
        self.boots = dict.fromkeys((*HOSTS, STRANGER), 1)
        self.runs: dict[str, dict[str, DomainState]] = {name: {} for name in self.boots}
        self.parts: dict[tuple[str, str], Part] = {}  # (host, guest), in a migration
        self.memory = {name: Memory() for name in self.boots}
        self.sessions = 0
        self.asks = 0
        self.seen: Counter[tuple[str, str]] = Counter()  # (phase, kind of event)
        self.last = ""
        self.backup: State | None = None
        self.state = State(settings=self.settings(calm=True))
        self.terms = 0
        self._start()
        if self.rng.random() < 0.9:
            self._begin()

    def _begin(self) -> None:
        """Most walks begin well: hosts joined, devices proven, guests run and are protected."""
        kindness, self.kindness = self.kindness, 2.0
        for number, name in enumerate(HOSTS):
            self.send(Admitted(id="a", by="ops", host=name))
            for device in (f"bmc-{name}", f"pdu-{name}"):
                proven = DeviceIdentity(
                    host=name,
                    device=device,
                    guid=f"guid-{device}",
                    fingerprint=f"fp-{device}",
                    proven_at=self.now,
                )
                self.state.identities[name, device] = proven
            if number < len(GUESTS):
                self.runs[name][GUESTS[number]] = DomainState.RUNNING
        for name in HOSTS:
            self._connect(name)
        self._settle()
        self.send(AskProtect(id="b", by="ops", guests=GUESTS))
        self._settle()
        self.kindness = kindness

    def _settle(self) -> None:
        for _ in range(12):
            self.now += 0.4
            self._hear()
            self._answer()

    # ---- the coordinator

    def _start(self) -> None:
        self.terms += 1
        self.send(Started(leader_id=f"L{self.terms}", machine="m", cluster="c", boot_id="own"))

    def restart(self) -> None:
        """A crash: evidence is gone. At times the store is an older copy."""
        old = self.state
        if self.backup is not None and self.rng.random() < 0.2:
            old = self.backup
        fresh = State(settings=old.settings)
        fresh.load(
            cluster=old.cluster,
            hosts=old.hosts.values(),
            guests=old.guests.values(),
            identities=old.identities.values(),
            operations=old.operations.values(),
            alerts=old.alerts.values(),
            schedules=old.schedules.values(),
        )
        self.lookout = Lookout()
        fresh.revision = old.revision
        self.state = fresh
        self._start()

    def send(self, event: Event) -> list[Effect]:
        """Decide, check, take over."""
        self.last = f"{self.now:.2f} {event}"
        self._count(event)
        before = (
            dict(self.state.guests),
            dict(self.state.hosts),
            dict(self.state.views),
            dict(self.state.pending),
        )
        draft = decide(self.state, event, self.now)
        after = self.state.guests, self.state.hosts, self.state.views, self.state.pending
        if before != after:
            raise Unsound("decide changed the state itself")
        check(draft, event)
        decision = draft.decision()
        if decision.changes:
            self.state.revision += 1
        self.state.apply(draft)
        for effect in decision.effects:
            self._carry_out(effect)
        return list(decision.effects)

    def _count(self, event: Event) -> None:
        self.seen.update(self.meets(event))

    def meets(self, event: Event) -> list[tuple[str, str]]:
        """Which phases this event meets now: (phase, kind of event)."""
        state, kind = self.state, type(event).__name__
        pending = state.pending.get(getattr(event, "effect", ""))
        if isinstance(event, Answered):
            kind = f"{pending.kind} {event.answer.outcome}" if pending else "stray answer"
        everybody = isinstance(event, Tick | Started | Reconfigured) or kind in ("AskPause", "AskResume")
        named = {getattr(event, "host", ""), getattr(event, "name", "")}
        if isinstance(event, Ask):
            named |= {*getattr(event, "guests", ()), *getattr(event, "hosts", ())}
        elif pending:
            named |= {pending.guest, *pending.detail.split()}
        hosts = [f"host {host.phase}" for host in state.hosts.values() if everybody or host.name in named]
        guests = [
            f"guest {guest.phase}"
            for guest in state.guests.values()
            if everybody or {guest.id, guest.name} & named
        ]
        return [(phase, kind) for phase in dict.fromkeys(hosts + guests)]

    def present(self) -> set[str]:
        """Phases that there are now, and commands whose end is out."""
        found = {f"host {host.phase}" for host in self.state.hosts.values()}
        found |= {f"guest {guest.phase}" for guest in self.state.guests.values()}
        return found | {f"pending {pending.kind}" for pending in self.state.pending.values()}

    def peek(self, event: Event) -> None:
        """What would be decided, checked; and nothing is taken over."""
        self.last = f"{self.now:.2f} {event}"
        self._count(event)
        check(decide(self.state, event, self.now), event)

    def everything(self) -> Iterator[Event]:
        """An event of every kind for every host and guest, and every end of all that is under way."""
        state = self.state
        for name in state.hosts:
            session = (state.views.get(name) or View()).session
            yield Heard(host=name, session=session, fresh=self.now)
            yield Heard(host=name, session=session, fresh=0.0)
            yield Disconnected(host=name, session=session, goodbye="agent stops: asked to")
            yield Leaving(host=name, session=session, kind="reboot")
            yield Reported(
                host=name,
                session=session,
                facts=self._facts(name),
                guests=self.inventory(name),
                health=self._health(),
            )
            yield Reported(host=name, session=session, guests=())
            everybody = (
                GuestFacts(id=guest, name=guest, state=DomainState.RUNNING) for guest in state.guests
            )
            yield Reported(host=name, session=session, guests=tuple(everybody))
            for boot in (0, 1):
                self.boots[name] += boot
                yield self.hello(name)
                self.boots[name] -= boot
            yield self.end_of("nothing-1-1", Pending(kind="fence", host=name))
            yield self.end_of("nothing-1-1", Pending(kind="power", host=name))
            yield self.end_of("nothing-1-1", Pending(kind="look", host="", detail=name))
            yield self.end_of("nothing-1-1", Pending(kind="on", host=name))
            yield self.end_of("nothing-1-1", Pending(kind="start", host=name))
        for kind in ASKS:
            fields = fields_of(kind)
            ask = self.make(kind)
            if "host" in fields:
                yield from (changed(cast(Any, ask), host=name) for name in state.hosts)
            elif "guests" in fields:
                yield from (changed(cast(Any, ask), guests=(guest,)) for guest in state.guests)
            elif "name" in fields:
                yield from (changed(cast(Any, ask), kind="host", name=name) for name in state.hosts)
                yield from (changed(cast(Any, ask), kind="guest", name=name) for name in state.guests)
            else:
                yield ask
        for key, pending in state.pending.items():
            end = self.end_of(key, pending)
            if isinstance(end, Answered):
                for outcome in Outcome:
                    yield changed(end, answer=changed(end.answer, outcome=outcome))
            else:
                yield end
        yield Tick()
        yield Tick(lag_s=5.0)
        yield Reconfigured(settings=self.settings())
        yield Started(leader_id="L", machine="m", cluster="c")

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, DropSession):
            self.send(Disconnected(host=effect.host, session=effect.session))

    # ---- the world

    def step(self) -> None:
        rng = self.rng
        self.now += rng.choice([0.01, 0.1, 0.1, 0.5, 1.0])
        doings = [
            (30, self._answer),
            (20, self._tick),
            (20, self._hear),
            (5, self._quiet),
            (7, self._connect_some),
            (3, self._disconnect),
            (6, self._report),
            (2, self._stray),
            (8, self._ask),
            (1, self._reconfigure),
            (1, self._leave),
            (1, self._backup_or_restart),
            (2, self._crash_or_shut_down),
        ]
        rng.choices([do for _, do in doings], [weight for weight, _ in doings])[0]()
        if self.clock_rng.random() < 0.1:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        """It goes on, and now and then somebody sets it."""
        rng = self.clock_rng
        self.wall += rng.choice([1.0, 20.0, 60.0, 300.0])
        if rng.random() < 0.05:
            self.wall += rng.choice([-7200.0, 7200.0, -3 * 86400.0, 30 * 86400.0])
        found = self.lookout.look(self.state.settings.schedules, self.state.schedules, self.wall)
        for event in found:
            self.send(event)

    def _timed(self) -> dict[str, Any]:
        """Schedules and hooks of a configuration."""
        rng = self.clock_rng
        schedules = {
            name: Schedule(
                playbook=changed(QUIET, playbook=f"of-{name}"),
                cron=rng.choice(["* * * * *", "*/7 * * * *", "30 2 * * *"]),
                zone=rng.choice(["UTC", "Europe/Vienna"]),
                window=rng.choice([60.0, 600.0]),
            )
            for name in rng.sample(["s", "t"], rng.randint(0, 2))
        }
        hooks = Hooks(failover_begins=QUIET, failover_ends=QUIET) if rng.random() < 0.7 else Hooks()
        return {"schedules": schedules, "hooks": hooks}

    def _host(self) -> str:
        return self.rng.choice(HOSTS)

    def _live(self) -> list[str]:
        return [name for name, view in self.state.views.items() if view.session]

    def _tick(self) -> None:
        self.send(Tick(lag_s=self.rng.choice([0.0, 0.0, 0.0, 0.2, 3.0]) if self.rng.random() < 0.2 else 0.0))

    def _quiet(self) -> None:
        """Time passes in which nobody says a word, or all but one do."""
        self.now += self.rng.choice([2.0, 6.0, 6.0, 40.0, 400.0, 4000.0])
        for name in self._live():
            if self.rng.random() < 0.8:
                self.send(Heard(host=name, session=self.state.views[name].session, fresh=self.now))
        self._tick()

    def _hear(self) -> None:
        for name in self._live():
            if self.rng.random() < 0.8:
                session = self.state.views[name].session
                fresh = self.now - 0.01 if self.rng.random() < 0.95 else 0.0
                self.send(Heard(host=name, session=session, fresh=fresh))
                known = self.memory[name]
                self.memory[name] = changed(
                    known,
                    epoch=max(known.epoch, self.state.cluster.epoch),
                    leader_id=self.state.cluster.leader_id,
                    revision=max(known.revision, self.state.revision + self.state.cluster.revision_offset),
                )
        self._tick()

    def inventory(self, name: str) -> tuple[GuestFacts, ...]:
        return tuple(
            GuestFacts(
                id=guest,
                name=guest,
                state=state,
                reason=self.rng.choice(["booted", "ioerror", "shutdown", "destroyed", "crashed", ""]),
                memory_mib=1024,
                part=self.parts.get((name, guest), Part.NONE) if state in ON else Part.NONE,
                digest=f"d{self.rng.choice([1, 1, 1, 2])}-{guest}",
            )
            for guest, state in self.runs[name].items()
        )

    def _facts(self, name: str) -> Any:
        sick = self.rng.random() > 0.95 and self.kindness <= 1
        return facts(
            name,
            boot_id=f"{name}-b{self.boots[name]}",
            hook=HookState(proven=not sick, reason="canary ran"),
            memory_mib=self.rng.choice([1600, 2600, 8192]) if sick else 8192,
            live_migration=not sick,
            hibernation_masked=not sick,
        )

    def _health(self) -> tuple[Reading, ...]:
        if self.rng.random() < 0.9 or self.kindness > 1:
            return ()
        part = self.rng.choice(["libvirt", "state", "hook", "memory"])
        return (Reading(part=part, level=Level.CRITICAL, reason="broken"),)

    def _connect_some(self) -> None:
        """Mostly a host that is not connected; a stranger at times."""
        name = self.rng.choice([n for n in HOSTS if n not in self._live()] or HOSTS)
        self._connect(name if self.rng.random() < 0.97 else STRANGER)

    def _connect(self, name: str) -> None:
        if self.rng.random() > self.kindness:
            self.boots[name] += 1
            self.runs[name] = {g: DomainState.SHUTOFF for g in self.runs[name] if self.rng.random() < 0.8}
        self.sessions += 1
        self.send(self.hello(name))

    def hello(self, name: str) -> Connected:
        odd = self.rng.random() + (self.kindness > 1)
        memory = self.memory[name]
        if odd < 0.01:
            memory = changed(memory, revision=memory.revision + 10**7)
        elif odd < 0.02:
            memory = changed(memory, epoch=memory.epoch + 3, leader_id="X")
        elif odd < 0.1:
            memory = Memory()
        hello = Hello(
            protocol=PROTOCOL if self.rng.random() < 0.98 else 99,
            version="0",
            cluster="c" if self.rng.random() < 0.98 else "other",
            boot_id=f"{name}-b{self.boots[name]}",
            nonce="n",
            memory=memory,
            facts=self._facts(name),
            guests=self.inventory(name) if self.rng.random() < 0.9 else None,
            health=self._health(),
        )
        return Connected(host=name, session=f"s{self.sessions}", hello=hello)

    def _disconnect(self) -> None:
        name = self._host()
        view = self.state.views.get(name) or View()
        session = view.session if self.rng.random() < 0.9 else "old"
        goodbye = self.rng.choice(["", "agent stops: asked to"])
        self.send(Disconnected(host=name, session=session, goodbye=goodbye))

    def _report(self) -> None:
        name = self._host()
        view = self.state.views.get(name) or View()
        self.send(
            Reported(
                host=name,
                session=view.session or "none",
                facts=self._facts(name) if self.rng.random() < 0.3 else None,
                guests=self.inventory(name) if self.rng.random() < 0.7 else None,
                health=self._health() if self.rng.random() < 0.3 else None,
            )
        )

    def _crash_or_shut_down(self) -> None:
        """Guests end or begin round the coordinator; or nothing of the kind happened and the host says so."""
        name, guest = self._host(), self.rng.choice(GUESTS)
        self.runs[name][guest] = self.rng.choice(list(DomainState))
        self.parts[name, guest] = self.rng.choice([Part.NONE, Part.NONE, *Part])
        if self.rng.random() < 0.3:
            self.runs[name].pop(guest)

    def _backup_or_restart(self) -> None:
        if self.rng.random() < 0.5:
            copy = State(settings=self.state.settings)
            copy.__dict__.update({key: value for key, value in vars(self.state).items() if key != "settings"})
            copy.hosts, copy.guests = dict(self.state.hosts), dict(self.state.guests)
            copy.operations, copy.alerts = dict(self.state.operations), dict(self.state.alerts)
            copy.identities = dict(self.state.identities)
            self.backup = copy
        else:
            self.restart()

    def _leave(self) -> None:
        name = self._host()
        view = self.state.views.get(name) or View()
        self.send(Leaving(host=name, session=view.session, kind=self.rng.choice(["shutdown", "reboot"])))

    # ---- answers

    def _answer(self) -> None:
        """Some of what is out comes back; rarely, nobody's answer does."""
        for key, pending in list(self.state.pending.items()):
            if key in self.state.pending and self.rng.random() < 0.5:
                self.send(self.end_of(key, pending))

    def _stray(self) -> None:
        """Answers to what nobody asked, or in a session that is gone."""
        name = self._host()
        pending = Pending(
            kind=self.rng.choice(["start", "power", "fence", "look", "on"]), host=name, detail=name
        )
        self.send(self.end_of("nothing-1-1", pending))
        for key, each in list(self.state.pending.items())[:1]:
            if each.host:
                answer = Answer(outcome=Outcome.DONE)
                self.send(Answered(host=each.host, session="old", effect=key, answer=answer))

    def end_of(self, key: str, pending: Pending) -> Event:
        kind = self.rng.random() < self.kindness
        match pending.kind:
            case "look":
                answered = {"10.0.0.1": self.rng.random() < 0.2} if self.rng.random() < 0.9 else {}
                return LookEnded(effect=key, host=pending.detail, answered=answered)
            case "check":
                found = (CheckResult(check=PING, passed=kind, why="" if kind else "no echo came back"),)
                return CheckEnded(
                    effect=key, guest=pending.guest, results=found if self.rng.random() < 0.9 else ()
                )
            case "command":
                return CommandEnded(effect=key, host=pending.host, report=self._command_report(kind))
            case "exec":
                session = (self.state.views.get(pending.host) or View()).session or "none"
                told = Answer(outcome=Outcome.DONE, report=self._command_report(kind))
                answer = (
                    told if self.rng.random() < 0.8 else Answer(outcome=Outcome.REFUSED, reason="old epoch")
                )
                return Answered(host=pending.host, session=session, effect=key, answer=answer)
            case "power":
                return PowerSeen(effect=key, host=pending.host, reports=(self._power(pending.host, kind),))
            case "fence":
                return FenceEnded(
                    effect=key, host=pending.host, report=self._power(pending.host, kind, off=True)
                )
            case "on":
                return PowerOnEnded(
                    effect=key, host=pending.host, ok=kind, reason="" if kind else "BMC is dead"
                )
            case _:
                session = (self.state.views.get(pending.host) or View()).session or "none"
                answer = self._agent_says(key, pending, kind)
                return Answered(host=pending.host, session=session, effect=key, answer=answer)

    def _command_report(self, kind: bool) -> Report:
        """Of a command of a playbook."""
        bad = [
            Report(state="lost"),
            Report(state="unreached"),
            Report(state="refused"),
            Report(state="unknown"),
        ]
        if not kind and self.rng.random() < 0.8:
            return self.rng.choice([*bad, Report(state="other_boot", reason="another boot")])
        code = 0 if kind else self.rng.choice([1, -15])
        return Report(state="ended", code=code, timed_out=code < 0, output="so far\n", bytes=7)

    def _power(self, host: str, kind: bool, *, off: bool = False) -> PowerReport:
        says = Power.OFF if (off and kind) or self.rng.random() < 0.2 else self.rng.choice(list(Power))
        level = self.rng.choice([0, 0, 0, 1])
        guid = "" if self.rng.random() < 0.95 else "guid-bmc-h1"
        one = reading(f"bmc-{host}" if level == 0 else f"pdu-{host}", says)
        readings = (changed(one, guid=guid or one.guid),) if self.rng.random() < 0.95 else ()
        return PowerReport(level=level, readings=readings, reason="" if readings else "unreachable")

    def _migrate(self, key: str, pending: Pending, done: bool) -> str:
        """What a ticket of a live move does to the hosts; returns the job that took the guest away from the source."""
        name, guest = pending.host, pending.guest
        here = self.runs.setdefault(name, {})
        if pending.kind == "receive" and done:
            here[guest], self.parts[name, guest] = DomainState.PAUSED, Part.ARRIVING
        elif pending.kind == "resume" and done:
            here[guest], self.parts[name, guest] = DomainState.RUNNING, Part.NONE
        elif pending.kind == "migrate" and (done or self.rng.random() < 0.3):
            here[guest] = DomainState.SHUTOFF
            move = self.state.guests[guest].move if guest in self.state.guests else None
            if move is not None:
                self.parts[move.destination, guest] = Part.WAITING
            return key if done or self.rng.random() < 0.5 else ""
        return ""

    def _agent_says(self, key: str, pending: Pending, kind: bool) -> Answer:
        """Every field of an answer at once: the core reads those of its kind."""
        rng, name = self.rng, pending.host
        outcome = Outcome.DONE if kind else rng.choice(list(Outcome))
        about = [pending.guest] if pending.guest else pending.detail.split()
        begun = pending.kind == "start" and outcome is Outcome.DONE
        ended = pending.kind in ("stop", "clean", "discard") and outcome is Outcome.DONE
        left_by = self._migrate(key, pending, outcome is Outcome.DONE)
        for guest in about:
            if begun or ended:
                self.runs.setdefault(name, {})[guest] = DomainState.RUNNING if begun else DomainState.SHUTOFF
        testimony = tuple(
            changed(self._testimony(name, guest, kind), left_by=left_by)
            for guest in about
            if guest in self.state.guests
        )
        devices = "" if rng.random() < 0.95 else LOCAL_DISK
        definition = Definition(
            id=pending.guest,
            name=pending.guest,
            xml=XML.format(name=pending.guest, devices=devices) if rng.random() < 0.97 else "<nonsense",
            digest=f"d{rng.choice([1, 1, 2])}-{pending.guest}",
            storage=("nbd:a",),
        )
        version = self.state.cluster.protected_version if kind else 0
        if pending.kind == "protect" and outcome is Outcome.DONE:
            entries = tuple(
                ProtectedEntry(guest=g.id, name=g.name, generation=g.generation, holder=g.holder)
                for g in self.state.guests.values()
            )
            self.memory[name] = changed(self.memory[name], entries=entries, protected_version=version)
        silent = CheckResult(check=Agent(), passed=kind, why="" if kind else "it does not answer")
        return Answer(
            outcome=outcome,
            reason="" if kind else "it would not",
            checks=(silent,) if rng.random() < 0.9 else (),
            testimony=testimony if rng.random() < 0.95 else (),
            answered={"10.0.0.1": rng.random() < 0.15} if kind else {},
            definition=definition if kind else None,
            protected_version=version,
            hook=HookState(proven=kind) if rng.random() < 0.3 else None,
            clone=CloneMade(
                guest=pending.guest,
                clone="c",
                domain="d",
                point=1.0,
                took_s=1.0,
                size_b=2**20,
                left_out=("tpm",),
            )
            if kind
            else None,
            drill=DrillEnd(
                kept=(Kept(guest=rng.choice(GUESTS), name="g", ok=rng.random() < 0.8, why="as it was"),),
                bubble=BubbleSeen(bridge="drb", ports=("vnet9",), strangers=rng.choice([(), (), ("eth0",)])),
            )
            if kind
            else None,
        )

    def _testimony(self, host: str, guest: str, kind: bool) -> Testimony:
        active = self.runs.get(host, {}).get(guest) in ON
        sighting = Sighting.PRESENT if active else Sighting.ABSENT
        if not kind:
            sighting = self.rng.choice(list(Sighting))
        sealed = self.state.guests[guest].generation + self.rng.choice([0, 0, 0, -1])
        known = self.memory[host] if host in self.memory else Memory()
        if host in self.memory:
            self.memory[host] = changed(
                known, sealed=known.sealed | {guest: max(sealed, known.sealed.get(guest, 0))}
            )
        return Testimony(
            guest=guest, sighting=sighting, sealed=sealed, part=self.parts.get((host, guest), Part.NONE)
        )

    # ---- people

    def _ask(self) -> None:
        kinds: list[type[Ask]] = list(ASKS)
        wanted = self.rng.choices(kinds, [WEIGHT.get(kind.__name__, 2) for kind in kinds])[0]
        self.send(self.make(wanted))

    def make(self, kind: type[Ask]) -> OperatorAsk:  # noqa: PLR0912  # one case for each field
        """An ask of that kind about anything; most of it makes sense."""
        rng = self.rng
        self.asks += 1
        if kind is AskApply:
            return self._apply()
        if kind is AskRun:
            dry_run = rng.random() < 0.1
            return AskRun(id=f"ask{self.asks}", by="ops", playbook=self._playbook(), dry_run=dry_run)
        found: dict[str, Any] = {"id": f"ask{self.asks}", "by": "ops", "reason": rng.choice(["", "to see"])}
        for name in fields_of(kind):
            match name:
                case "host" | "to":
                    found[name] = rng.choice([*HOSTS, *HOSTS, *HOSTS, STRANGER, ""])
                    if name == "host":
                        found["host"] = found["host"] or "h1"
                case "guests":
                    found["guests"] = tuple(
                        rng.choices([*GUESTS, *GUESTS, *GUESTS, "g9"], k=rng.choice([1, 1, 2]))
                    )
                case "name":
                    found["name"] = rng.choice([*HOSTS, *GUESTS])
                case "kind":
                    found["kind"] = rng.choice(["host", "guest"])
                case "labels":
                    found["labels"] = rng.choice([{"a": "1"}, {"a": None}])
                case "job":
                    runs = [key for key, job in self.state.operations.items() if job.run is not None]
                    found["job"] = rng.choice([*self.state.operations, *runs[-3:] * 9, "nothing-1-1"])
                case "agree":
                    found["agree"] = rng.random() < 0.7
                case "mode":
                    found["mode"] = rng.choice(["shutdown", "destroy"])
                case "desired":
                    found["desired"] = rng.choice([None, *Desired])
                case "policy":
                    found["policy"] = self._policy_change()
                case "boot_id":
                    record = self.state.hosts.get(found.get("host", "h1"))
                    found["boot_id"] = rng.choice(["", record.boot_id if record else "", "other"])
                case "report":
                    found["report"] = self._dry_run()
                case "priority":
                    found["priority"] = rng.choice([None, 1, 200])
                case _:
                    pass  # its default will do
        return cast(OperatorAsk, kind(**found))

    def _apply(self) -> AskApply:
        """A plan in which some of it is so."""
        rng = self.rng
        hosts = tuple(rng.choices([*HOSTS, *HOSTS, *HOSTS, STRANGER], k=rng.choice([1, 2])))
        return AskApply(
            id=f"ask{self.asks}",
            by="ops",
            plan=rng.choice(["p1", "p2"]),
            hosts=hosts,
            approved=tuple(self._approved(guest, rng.choice(hosts)) for guest in rng.sample(GUESTS, 2)),
            anyway=rng.random() < 0.7,
            deadline_s=rng.choice([0.0, 0.0, 60.0]),
        )

    def _dry_run(self) -> DrillReport:
        """What is told of the site as it is, if some hosts of it died. Telling it changes nothing."""
        paper = Paper(branched(self.state), self.now)
        hosts = [name for name, host in self.state.hosts.items() if takeable(host)]
        lost = sorted(self.rng.sample(hosts, min(len(hosts), self.rng.choice([1, 1, 2]))))
        before = dict(self.state.guests)
        work = paper.lose(lost)
        while True:
            try:
                next(work)
            except StopIteration as ended:
                report = of_loss(ended.value, paper.takes, self.rng.choice([0.0, 60.0]))
                _hold(self.state.guests == before, "a dry run has changed something")
                return changed(report, id=f"drill-{self.asks - self.asks % 2}", asked_by="ops")

    def _playbook(self) -> Playbook:
        """A few steps about anybody, of which some may be taken back."""
        rng = self.rng

        def steps(most: int) -> tuple[StepSpec, ...]:
            return tuple(self._playbook_step() for _ in range(rng.randint(1, most)))

        if rng.random() < 0.3:
            return self._drill()
        return Playbook(
            playbook=rng.choice(["a", "b", "c"]),
            steps=steps(4),
            limits=RunLimits(timeout=rng.choice([0.0, 0.0, 60.0])),
            finally_=steps(2) if rng.random() < 0.5 else (),
        )

    def _drill(self) -> Playbook:
        """Clones of some, started and checked, whatever becomes of these."""
        rng = self.rng
        guests = tuple(rng.sample(GUESTS, rng.choice([1, 1, 2])))
        some: list[AnyVerb] = [
            verbs.MakeClones(clone=guests),
            verbs.Boot(boot=guests),
            verbs.Check(check=guests),
        ]
        steps = [StepSpec(verb=verb, retry=rng.choice([0, 1])) for verb in some[: rng.randint(1, 3)]]
        return Playbook(
            playbook=rng.choice(["a", "b", "c"]),
            kind="drill",
            steps=(*steps, StepSpec(verb=verbs.Wait(wait=rng.choice([0.0, 3.0])))),
            limits=RunLimits(timeout=rng.choice([0.0, 60.0])),
        )

    def _playbook_step(self) -> StepSpec:
        rng = self.rng
        hosts = tuple(rng.sample(HOSTS, rng.choice([1, 1, 2])))
        guests = tuple(rng.sample(GUESTS, rng.choice([1, 1, 2])))
        condition = GuestIs(guest=guests, is_=rng.choice(list(GuestPhase)))
        some: list[AnyVerb] = [
            verbs.Cordon(cordon=hosts),
            verbs.Uncordon(uncordon=hosts),
            verbs.Drain(drain=hosts),
            verbs.Undrain(undrain=hosts),
            verbs.Migrate(migrate=guests, to=rng.choice([*HOSTS, "", ""])),
            verbs.Relocate(relocate=guests, to=rng.choice([*HOSTS, "", ""])),
            verbs.Start(start=guests),
            verbs.Stop(stop=guests, mode=rng.choice(["shutdown", "destroy"])),
            verbs.Fence(fence=hosts),
            verbs.Pause(pause="to see"),
            verbs.Resume(resume="seen"),
            verbs.Wait(wait=rng.choice([0.0, 3.0])),
            verbs.Until(until=condition),
            verbs.Check(check=guests),
            verbs.RunCommand(run=rng.choice(["update", "reboot", "power-off"]), on=hosts),
            verbs.RunCommand(run="flush", in_=guests),
            verbs.Approve(approve="go on?", by=rng.choice([(), ("ops",), ("boss",)])),
            verbs.Notify(notify="so far"),
        ]
        verb = rng.choice(some)
        return StepSpec(
            verb=verb,
            timeout=rng.choice([0.0, 10.0, 60.0]),
            retry=rng.choice([0, 0, 1]),
            on_fail=rng.choice(["stop", "continue", "rollback"]),
            undo=rng.choice([None, *TAKES_BACK.get(verb.word(), ())[:1]]),
            when=rng.choice([None, None, None, condition]),
        )

    def _approved(self, guest: str, host: str) -> Approved:
        rng, record = self.rng, self.state.guests.get(guest)
        terms = None if record is None or rng.random() < 0.1 else terms_of(record)
        if rng.random() < 0.3:
            return Approved(guest=guest, name=guest, host=host, fate="blocked", terms=terms)
        to = rng.choice([*HOSTS, STRANGER])
        return Approved(guest=guest, name=guest, host=host, fate="live", to=to, terms=terms)

    def _policy_change(self) -> PolicyChange:
        """Some parts of a policy, often none."""
        drawn = msgspec.structs.asdict(cast(Any, self._policy()))
        parts = self.rng.sample(sorted(drawn), self.rng.choice([0, 0, 1, 3]))
        return PolicyChange(**{part: drawn[part] for part in parts})

    def _policy(self) -> GuestPolicy:
        rng = self.rng
        return GuestPolicy(
            priority=rng.choice([1, 100]),
            max_restarts=rng.choice([0, 2]),
            max_relocations=rng.choice([0, 2]),
            failback=rng.random() < 0.3,
            boot_after=(After(guest=rng.choice(GUESTS)),) if rng.random() < 0.1 else (),
            checks=rng.choice([(PING,), (PING, Running()), (Agent(),)]) if rng.random() < 0.2 else (),
            on_unhealthy=rng.choice([*OnUnhealthy]),
        )

    def settings(self, *, calm: bool = False) -> Settings:
        rng = self.rng

        def one(name: str) -> HostPolicy:
            odd = 1.0 if calm else rng.random()
            return HostPolicy(
                name=name,
                addresses=(f"10.0.0.{name[1:]}",) if odd > 0.1 else (),
                fencing=levels(name, (f"bmc-{name}",), (f"pdu-{name}",)) if odd > 0.2 else (),
                power_on_after_fence=odd > 0.4,
                coordinator_here=odd < 0.05,
                on_leave=None if calm else rng.choice([None, *OnLeave]),
            )

        return Settings(
            timers=Timers(),
            hosts={name: one(name) for name in HOSTS},
            guests=GuestPolicy() if calm else self._policy(),
            auto_fence=calm or rng.random() < 0.9,
            commands=ALLOWED,
            **self._timed(),
        )

    def _reconfigure(self) -> None:
        self.send(Reconfigured(settings=self.settings(calm=self.rng.random() < 0.7)))


WEIGHT = {
    "Admitted": 6,
    "AskProtect": 12,
    "AskResume": 12,
    "AskPause": 1,
    "AskRemoveHost": 1,
    "AskUnprotect": 1,
    "AskStart": 6,
    "AskMigrate": 12,
    "AskStop": 3,
    "AskFenceTest": 6,
    "AskFence": 2,
    "AskClearQuarantine": 6,
    "AskApply": 1,
    "AskRun": 10,
    "AskAgree": 4,
}


def fields_of(kind: type[Ask]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(cast(Any, kind))]


# ---- what must hold of every decision


def check(draft: Draft, event: Event) -> None:
    """Raises Unsound."""
    changes, effects = draft.changes(), draft.decision().effects
    for guest_id, guest in changes.guests.items():
        _sound_guest(draft, draft.state.guests.get(guest_id), guest)
    for host in changes.hosts.values():
        _sound_host(draft.state.hosts.get(host.name), host)
    _sound_cluster(draft)
    dropped = {effect.session for effect in effects if isinstance(effect, DropSession)}
    for operation in changes.operations.values():
        before = draft.state.operations.get(operation.id)
        if operation.run is not None:
            _sound_run(before.run if before is not None else None, operation.run, operation.state)
        kept = before.hooks if before is not None else {}
        _hold(kept.items() <= operation.hooks.items(), f"a hook was run again: {kept} to {operation.hooks}")
    for name, record in changes.schedules.items():
        _sound_schedule(draft, event, draft.state.schedules.get(name), record)
    for effect in effects:
        if getattr(effect, "session", "") not in dropped:  # what goes there too, reaches nobody
            _sound_effect(draft, effect)
    if isinstance(event, Ask):
        _sound_ask(draft, event)
    pendings = Counter(
        (pending.kind, pending.guest)
        for _, pending in draft.pendings()
        if pending.guest and pending.kind != "describe"
    )
    _hold(all(count == 1 for count in pendings.values()), f"two of a kind are out at once: {pendings}")


def _hold(holds: bool, text: str) -> None:
    if not holds:
        raise Unsound(text)


def _sound_guest(draft: Draft, before: GuestRecord | None, guest: GuestRecord | None) -> None:
    """Places leave by a proof, generations grow."""
    if before is None:
        return
    if guest is None:
        _hold(
            draft.cluster.generation_floor >= before.generation,
            "a forgotten guest's generation is below the floor",
        )
        return
    _hold(guest.generation >= before.generation, f"the generation of {guest.name} fell")
    proofs = [note for note in draft.changes().notes if note.kind == "proof" and note.guest == guest.id]
    after = {(place.host, place.boot_id): place for place in guest.may_run_on}
    _hold(len(after) == len(guest.may_run_on), f"one boot stands twice in the set of {guest.name}")
    for place in before.may_run_on:
        kept = after.get((place.host, place.boot_id))
        if kept is None:
            _hold(
                any(_proves(note.proof, place) for note in proofs),
                f"{place} left {guest.name} without a proof",
            )
        else:
            _hold(kept.generation >= place.generation, f"the generation of {place} of {guest.name} fell")
    _hold(
        all(p.generation <= guest.generation for p in guest.may_run_on),
        f"a place of {guest.name} is ahead of it",
    )


def _proves(proof: Any, place: Place) -> bool:
    if proof is None or (proof.host, proof.boot_id) != (place.host, place.boot_id):
        return False
    return proof.kind is not ProofKind.SELF or proof.sealed >= place.generation


def _sound_host(before: HostRecord | None, host: HostRecord) -> None:
    if before is not None and before.phase is not host.phase:
        _hold(bool(host.reason), f"{host.name} is {host.phase} and nobody says why")
    _hold(host.fencing is None or host.fencing.boot_id != "", f"{host.name} is fenced for no boot")


def _sound_cluster(draft: Draft) -> None:
    before, after = draft.state.cluster, draft.cluster
    for name in ("epoch", "revision_offset", "protected_version", "generation_floor"):
        _hold(getattr(after, name) >= getattr(before, name), f"{name} fell")


def _sound_effect(draft: Draft, effect: Effect) -> None:
    # What its host shows next says whether an abort, or a sample, is asked for again: nobody waits for an answer.
    abort = isinstance(effect, Send) and isinstance(effect.body, Abort | Sample | Stay)
    beside = Look | CheckGuest | ReadPower | Fence | PowerOn | RunCommand
    if isinstance(effect, Send | SendStart | beside) and not abort:
        _hold(draft.pending_of(effect.id) is not None, f"nobody waits for the end of {effect}")
    if isinstance(effect, SendStart):
        _sound_start(draft, effect)
    if isinstance(effect, Send | SendStart):
        view = draft.view(effect.host)
        _hold(
            bool(view.session) and view.session == effect.session,
            f"sent into a session that is gone: {effect}",
        )
        ticket = getattr(effect, "ticket", None) or getattr(getattr(effect, "body", None), "ticket", None)
        if ticket is not None:
            host = draft.require_host(effect.host)
            _hold(ticket.boot_id == host.boot_id, f"a ticket for another boot: {ticket}")
            _hold(
                ticket.epoch == draft.cluster.epoch == view.acked_epoch,
                f"a ticket of another epoch: {ticket}",
            )
            before = draft.state.guests[ticket.guest]
            _hold(ticket.generation > before.generation, f"a ticket that is not new: {ticket}")
    if isinstance(effect, Fence):
        host = draft.require_host(effect.host)
        fencing = host.fencing
        assert fencing is not None
        _hold(fencing.boot_id == effect.boot_id, f"a fence for another boot: {effect}")
        _hold(host.boot_id != draft.own_boot, "the coordinator fences its own machine")
        # A playbook's step may pause automation after the fence, in the same decision.
        paused = draft.cluster.pause is not None and draft.state.cluster.pause is not None
        held = paused or draft.cluster.restored or not draft.config.auto_fence
        _hold(
            not held or fencing.operator or bool(fencing.test),
            f"fenced by itself while that is off: {effect}",
        )


def _sound_start(draft: Draft, effect: SendStart) -> None:
    ticket, guest = effect.ticket, draft.guest(effect.ticket.guest)
    assert guest is not None
    here = Place(host=ticket.host, boot_id=ticket.boot_id, generation=ticket.generation)
    _hold(
        guest.may_run_on == (here,),
        f"{guest.name} starts on {ticket.host} while it may run on {guest.may_run_on}",
    )
    _hold(not draft.cluster.restored, "a start from a restored store")
    # One that is left alone starts only because a person asked.
    alone = guest.desired is Desired.IGNORED and asked_to_start(draft, guest)
    _hold(guest.desired is Desired.RUNNING or alone, f"{guest.name} is started and wanted {guest.desired}")


def _sound_run(before: Run | None, run: Run, state: OperationState) -> None:
    """Every step is over once; one at a time; and what is to be done in the end had its turn."""
    for was, step in zip(before.steps if before else (), run.steps, strict=False):
        still = changed(step, commands=was.commands)  # of those it may be heard later how they ended
        _hold(was.state not in OVER or still == was, f"a step that was over changed: {was} to {step}")
        # They come before what is done in the end, none of which has had its turn by then.
        _hold(step.part != "undo" or was.part != "steps", "undos are added behind all steps")
    under_way = [step for step in run.steps if step.state is StepState.RUNNING]
    _hold(len(under_way) <= 1, f"several steps at once: {under_way}")
    _hold(all(step.part == run.part for step in under_way), f"it is not its turn: {under_way}")
    if state is OperationState.OPEN:
        return
    _hold(run.part == "finally" and all(step.state in OVER for step in run.steps), f"it ended early: {run}")
    for step in run.steps:
        late = step.part != "steps" and step.state is StepState.SKIPPED
        _hold(not late or step.text.startswith("left out"), f"it had no turn: {step}")


def _sound_schedule(
    draft: Draft, event: Event, before: ScheduleRecord | None, record: ScheduleRecord | None
) -> None:
    """No time is decided about twice; what begins is alone, and nobody holds it."""
    if record is None or before is None or before.times != record.times:
        return
    _hold(isinstance(event, ScheduleDue), f"decided without a look at the clock: {record}")
    assert isinstance(event, ScheduleDue)
    _hold(record.decided >= before.decided or before.ahead(event.wall), f"{before} to {record}")
    if record.run == before.run:
        return
    _hold(before.decided < record.run_at <= event.wall, f"{record} ran for a time that was decided about")
    _hold(draft.cluster.pause is None and not draft.cluster.restored, f"{record} ran although all is held")
    others = [
        op.id
        for op in draft.state.operations.values()
        if op.state is OperationState.OPEN and (op.asked_by.startswith("schedule ") or op.kind == "failover")
    ]
    _hold(not others, f"{record} began beside {others}")


def _sound_ask(draft: Draft, ask: Ask) -> None:
    """One answer; and a refusal changes nothing, beyond what time would have changed anyway."""
    replies = [effect for effect in draft.decision().effects if isinstance(effect, Reply)]
    _hold([reply.id for reply in replies] == [ask.id], f"{ask} got {replies}")
    audits = [note for note in draft.changes().notes if note.kind == "audit"]
    steps = len(audits) if any(job.run is not None for job in draft.open_operations()) else 1
    _hold(len(audits) == steps and audits[0].by == ask.by, f"{ask} is not in the audit")
    if replies[0].accepted:
        return
    _hold(bool(replies[0].blockers), f"{ask} is refused and nobody says why")
    idle = decide(draft.state, Disconnected(host="", session="none"), draft.now)

    def but_audit(
        changes: Changes,
    ) -> str:  # runs of playbooks ask too; a look that was begun has taken an id
        told = changed(changes, notes=tuple(note for note in changes.notes if note.kind != "audit"))
        return NUMBERED.sub(r"\1-N", msgspec.json.encode(told).decode())

    _hold(
        but_audit(draft.changes()) == but_audit(idle.changes()),
        f"{ask} is refused, and yet something of it was done",
    )


def main() -> int:
    """`python -m tests.core.walk --seeds N --from S`: walks of which each that fails prints its seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.walk")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=1, dest="first")
    asked = parser.parse_args()
    failed = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        walk: Walk | None = None
        try:
            walk = Walk(seed)
            for _ in range(STEPS):
                walk.step()
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"seed {seed}, at {walk.last if walk is not None else 'the beginning'}")
    print(f"{asked.seeds} walks of {STEPS} events, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
