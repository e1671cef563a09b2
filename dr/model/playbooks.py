"""A playbook: what a team does in a case, step by step, and one run of it. `docs/playbooks.md` explains the language.

Here: the words as records, as they are written in YAML (`dr.model.words`) and kept in the store. Not here: files and
their lines (`dr.cli.playbook_file`), what cannot mean anything (`core.playbooks.check`), what a step does
(`core.playbooks`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from dr.model.base import Record
from dr.model.policy import StopMode
from dr.model.records import GuestPhase, HostPhase
from dr.model.words import (
    NAME,
    Kind,
    Many,
    Name,
    OneOf,
    Problems,
    Seconds,
    Where,
    Whole,
    fields_of,
    nearest,
    read_fields,
    write_fields,
    written,
)

PARAMETER = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]{0,62})\}")
LABEL = re.compile(r"label:([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([A-Za-z0-9._-]{0,63})")
Job = Literal[
    "failover", "restart", "drain", "leave", "failback", "fence", "fence-test", "confirm-down", "protect",
    "guest-start", "guest-stop", "guest-migrate", "guest-relocate", "playbook",
]  # fmt: skip
ALL = "all"
ON = "on:"  # guests: those of the host that follows
SHOWN_MAX = 200  # characters of a step
TARGETS = "targets"  # what the playbook's own `targets` names


class Chosen(Kind):
    """Hosts or guests: a name, `${parameter}`, `label:key=value`, `targets`, `all`; of guests also `on:HOST`."""

    def __init__(self, of: str) -> None:
        self.of = of
        more = ", on:HOST" if of == "guest" else ""
        self.means = f"the name of a {of}, ${{parameter}}, label:key=value, targets{more} or all"

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        text = value if isinstance(value, str) else ""
        like = PARAMETER.sub("x", text)  # what it stands for is looked at when it is known
        if not LABEL.fullmatch(like) and not NAME.fullmatch(
            like.removeprefix(ON if self.of == "guest" else "")
        ):
            hint = "; put it in quotes" if isinstance(value, int | float) else ""
            self.wrong(value, where, problems, hint)
        return text


class OwnName(Name):
    """What the playbook itself is called."""

    means = "a name: letters, digits, dots, dashes and underscores, at most 63"

    def __init__(self) -> None:
        self.of, self.new, self.also = "playbook", True, ()


class Reference(Name):
    """One name, or a parameter that stands for it."""

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        if isinstance(value, str) and PARAMETER.fullmatch(value):
            return value
        return super().read(value, where, problems)


HostsChosen = Annotated[tuple[str, ...], Many(Chosen("host"))]
GuestsChosen = Annotated[tuple[str, ...], Many(Chosen("guest"))]
OneHost = Annotated[str, Reference("host")]
OneGuest = Annotated[str, Reference("guest")]


# ---- conditions


class Condition(Record):
    """Something that is so, or not, as the coordinator knows it."""

    def text(self) -> str:
        return written(write_fields(self)).removeprefix("{").removesuffix("}")


class HostIs(Condition, tag="host"):
    """The phase of hosts: of all of them."""

    host: Annotated[tuple[str, ...], Many(Chosen("host")), "hosts; all of them"]
    is_: Annotated[HostPhase, "their phase"] = HostPhase.ONLINE


class GuestIs(Condition, tag="guest"):
    """The phase of guests: of all of them."""

    guest: Annotated[tuple[str, ...], Many(Chosen("guest")), "guests; all of them"]
    is_: Annotated[GuestPhase, "their phase"] = GuestPhase.RUNNING


class AutomationIs(Condition, tag="automation"):
    """Whether automation is on, or paused by a person."""

    automation: Annotated[Literal["on", "paused"], "which"]


class Spare(Condition, tag="spare"):
    """Every guest would have a place if any one host died now (N+1). Not so until each host was looked at."""

    spare: Annotated[Literal["host"], "`host`: any one of them"]


class Nothing(Condition, tag="nothing"):
    """No other job of that kind is open."""

    no_open: Annotated[Job, "a kind of job, as `dr job list` shows it"]


CONDITIONS: dict[str, type[Condition]] = {
    fields_of(each)[0].key: each for each in (HostIs, GuestIs, AutomationIs, Spare, Nothing)
}
CONDITION = OneOf(CONDITIONS, "condition")
AnyCondition = HostIs | GuestIs | AutomationIs | Spare | Nothing


# ---- verbs


class Verb(Record):
    """One thing that the product does anyway. Its first field bears the verb's own name."""

    TIMEOUT_S: ClassVar[float] = 600.0  # of a step that names none

    @classmethod
    def word(cls) -> str:
        return fields_of(cls)[0].key

    def text(self) -> str:
        """As a playbook writes it."""
        return written(write_fields(self)).removeprefix("{").removesuffix("}")


class Cordon(Verb, tag="cordon"):
    """Hosts take no more guests."""

    TIMEOUT_S: ClassVar[float] = 60.0
    cordon: Annotated[HostsChosen, "hosts"]


class Uncordon(Verb, tag="uncordon"):
    """Hosts take guests again. Of a host that is not cordoned: nothing to do."""

    TIMEOUT_S: ClassVar[float] = 60.0
    uncordon: Annotated[HostsChosen, "hosts"]


class Drain(Verb, tag="drain"):
    """All guests of hosts move away, then the hosts are in maintenance: as `dr host drain`."""

    TIMEOUT_S: ClassVar[float] = 3600.0
    drain: Annotated[HostsChosen, "hosts"]
    deadline: Annotated[Seconds, "who has not left by then is stopped; 0: nobody is"] = 0.0
    leave_unprotected: Annotated[bool, "guests that nobody protects may stay"] = False


class Undrain(Verb, tag="undrain"):
    """Hosts are used again, and online."""

    undrain: Annotated[HostsChosen, "hosts"]


class Migrate(Verb, tag="migrate"):
    """Guests move live: as `dr guest migrate`."""

    TIMEOUT_S: ClassVar[float] = 3600.0
    migrate: Annotated[GuestsChosen, "guests"]
    to: Annotated[OneHost, "the host; wherever each fits best, if not named"] = ""


class Relocate(Verb, tag="relocate"):
    """Guests are stopped where they run and start elsewhere: as `dr guest relocate`."""

    TIMEOUT_S: ClassVar[float] = 3600.0
    relocate: Annotated[GuestsChosen, "guests"]
    to: Annotated[OneHost, "the host; wherever each fits best, if not named"] = ""
    mode: Annotated[StopMode, "a clean shutdown, or a pulled plug"] = "shutdown"


class Start(Verb, tag="start"):
    """Guests are to run, in the order of their priorities and dependencies. One that runs: nothing to do."""

    start: Annotated[GuestsChosen, "guests"]


class Stop(Verb, tag="stop"):
    """Guests are to be off. One that is off: nothing to do."""

    stop: Annotated[GuestsChosen, "guests"]
    mode: Annotated[StopMode, "a clean shutdown, or a pulled plug"] = "shutdown"


class Fence(Verb, tag="fence"):
    """A host is fenced and its guests are recovered elsewhere: as `dr host fence`. One that is down: nothing to do."""

    fence: Annotated[HostsChosen, "hosts"]


class Pause(Verb, tag="pause"):
    """Automation off: nothing is fenced or restarted by itself."""

    TIMEOUT_S: ClassVar[float] = 60.0
    pause: Annotated[str, "why"]


class Resume(Verb, tag="resume"):
    """Automation on."""

    TIMEOUT_S: ClassVar[float] = 60.0
    resume: Annotated[str, "why"]


class Wait(Verb, tag="wait"):
    """So long."""

    TIMEOUT_S: ClassVar[float] = 86_400.0
    wait: Annotated[Seconds, "how long"]


class Until(Verb, tag="until"):
    """Until this is so; at once if it is."""

    until: Annotated[AnyCondition, CONDITION, "what"]


class Check(Verb, tag="check"):
    """Guests run, and their policy's checks, where they have any, pass now."""

    TIMEOUT_S: ClassVar[float] = 120.0
    check: Annotated[GuestsChosen, "guests"]


class Approve(Verb, tag="approve"):
    """A person must agree; the run waits. The step's `timeout` is how long is waited for one."""

    TIMEOUT_S: ClassVar[float] = 3600.0
    approve: Annotated[str, "what they are asked"]
    by: Annotated[tuple[str, ...], "who may answer, as in their certificates; anybody, if not named"] = ()
    otherwise: Annotated[Literal["fail", "go on"], "what silence means"] = "fail"


class Notify(Verb, tag="notify"):
    """Tell people, the way alerts are told."""

    TIMEOUT_S: ClassVar[float] = 60.0
    notify: Annotated[str, "what"]
    severity: Annotated[Literal["info", "warning", "critical"], "how urgent"] = "info"


AnyVerb = (
    Cordon
    | Uncordon
    | Drain
    | Undrain
    | Migrate
    | Relocate
    | Start
    | Stop
    | Fence
    | Pause
    | Resume
    | Wait
    | Until
    | Check
    | Approve
    | Notify
)
VERBS: dict[str, type[Verb]] = {each.word(): each for each in AnyVerb.__args__}
VERB = OneOf(VERBS, "verb")


class Undo(Kind):
    """A verb of its own, or only its word: then of the same hosts or guests."""

    means = f"a verb, or only its word: {', '.join(VERBS)}"

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        if isinstance(value, str) and value in VERBS:
            return value
        return VERB.read(value, where, problems)

    def write(self, value: Any) -> Any:
        return value if isinstance(value, str) else VERB.write(value)


UNDO = Undo()


# ---- steps and playbooks


class StepSpec(Record, tag="step"):
    """One entry of `steps`: a verb, and how it is to be done. Both stand side by side."""

    verb: Annotated[AnyVerb, VERB, "what is done"]
    name: Annotated[str, "as it is shown; else the verb as written"] = ""
    timeout: Annotated[Seconds, "how long it may take; else as its verb says"] = 0.0
    retry: Annotated[int, Whole(0), "tried again so many times after it failed"] = 0
    on_fail: Annotated[
        Literal["stop", "continue", "rollback"],
        "`stop`: no step after it but `finally`; `continue`: as if it had not failed, and the run fails in the end; "
        "`rollback`: the `undo` of every step that did something, the last first",
    ] = "stop"
    undo: Annotated[AnyVerb | str | None, UNDO, "what takes it back"] = None
    when: Annotated[AnyCondition | None, CONDITION, "it is left out unless this is so as its turn comes"] = (
        None
    )

    def text(self) -> str:
        """As people are shown it, in a line: it may be about thousands."""
        text = self.name or self.verb.text()
        return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


class StepKind(Kind):
    """A verb with the keys of a step beside it."""

    means = f"a step: a mapping with one of {', '.join(VERBS)}"

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        if not isinstance(value, dict):
            bare = isinstance(value, str) and value in VERBS
            hint = f"; write {{{value}: …}}" if bare else nearest(value, VERBS)
            self.wrong(value, where, problems, hint)
            return None
        beside = [field for field in fields_of(StepSpec) if field.key != "verb"]
        verb = VERB.read(value, where, problems, [field.key for field in beside])
        given = {
            field.name: field.kind.read(value[field.key], (*where, field.key), problems)
            for field in beside
            if field.key in value
        }
        return None if verb is None else StepSpec(verb=verb, **given)

    def write(self, value: Any) -> Any:
        plain = write_fields(value)
        verb: dict[str, Any] = plain.pop("verb")
        return verb | plain


STEP = StepKind()


class EachSpec(Record, tag="each"):
    """Steps for each of some hosts or guests, one after the other; `${host}` or `${guest}` in them is the one."""

    steps: Annotated[tuple[StepSpec, ...], Many(STEP), "what is done for each"]
    each_host: Annotated[HostsChosen, "hosts"] = ()
    each_guest: Annotated[GuestsChosen, "guests"] = ()


class EntryKind(Kind):
    """A step, or steps for each of some."""

    means = f"{STEP.means}, each_host or each_guest"

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        each = isinstance(value, dict) and [key for key in ("each_host", "each_guest") if key in value]
        if not each:
            return STEP.read(value, where, problems)
        if len(each) > 1:
            problems.add((*where, each[1]), f"one of the two: {each[0]} stands here already")
        return read_fields(EachSpec, value, where, problems, partly=True)

    def write(self, value: Any) -> Any:
        return write_fields(value) if isinstance(value, EachSpec) else STEP.write(value)


ENTRY = EntryKind()
Entries = Annotated[tuple[StepSpec | EachSpec, ...], Many(ENTRY)]


class Parameter(Record):
    """What a run is told."""

    is_: Annotated[Literal["host", "guest", "text"], "what it names"] = "text"
    says: Annotated[str, "what it is for"] = ""
    default: Annotated[str | None, "if not told; without one it must be told"] = None


class Targets(Record):
    """Whom `targets` means in the steps."""

    hosts: Annotated[HostsChosen, "where a step wants hosts"] = ()
    guests: Annotated[GuestsChosen, "where a step wants guests"] = ()


class Objectives(Record):
    """What the team wants to reach; a run tells what it took."""

    rto: Annotated[Seconds, "from its start to its last step; 0: none"] = 0.0


class RunLimits(Record):
    """What bounds a run."""

    timeout: Annotated[
        Seconds,
        "the whole run; no step of it may be given longer. What is under way then has failed; 0: none",
    ] = 0.0


class Playbook(Record):
    """All of one file."""

    playbook: Annotated[str, OwnName(), "its name"]
    steps: Annotated[Entries, "what is done, from top to bottom"]
    description: Annotated[str, "what it is for, for a tired person"] = ""
    params: Annotated[dict[str, Parameter], "what a run is told: `${name}` in the steps"] = {}
    targets: Annotated[Targets, "whom `targets` means"] = Targets()
    objectives: Annotated[Objectives, "what is to be reached"] = Objectives()
    limits: Annotated[RunLimits, "what bounds it"] = RunLimits()
    require: Annotated[
        tuple[AnyCondition, ...], Many(CONDITION), "what must be so before the first step, or nothing is done"
    ] = ()
    finally_: Annotated[Entries, "what is done in the end, however it went"] = ()


# ---- a run


class StepState(StrEnum):
    """How far a step is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # its `when` was not so, or it was never its turn
    UNDONE = "undone"


class RunStep(Record):
    """One step of a run, with names in place of parameters, and how far it is. Times are leader time."""

    spec: StepSpec
    part: Literal["steps", "undo", "finally"] = "steps"
    state: StepState = StepState.WAITING
    began: float = 0.0  # its first try
    ended: float = 0.0
    tries: int = 0
    tried_at: float = 0.0  # the last of them
    again_at: float = 0.0  # the next try
    jobs: tuple[str, ...] = ()  # what it opened, by its last try
    acted: bool = False  # something was asked for and granted: there may be something to take back
    before: tuple[str, ...] = ()  # who was so as it began: not its doing, and not taken back
    was: dict[str, str] = {}  # of a move to wherever they fit: where guests were as it began
    answered: bool = False  # of an `approve`: somebody agreed; of a `notify`: it is told
    refused: bool = False  # of an `approve`: somebody did not
    text: str = ""  # what came of it, or why it waits


class Run(Record):
    """One run of a playbook; its operation is open until it is over."""

    playbook: str
    params: dict[str, str] = {}
    rto_s: float = 0.0
    limit_s: float = 0.0  # of all its steps together; 0: none
    steps: tuple[RunStep, ...] = ()
    failed: str = ""  # why it failed, by its first step that did; "": none has
    cancelled: str = ""  # by whom, and why
    part: Literal["steps", "undo", "finally"] = "steps"
