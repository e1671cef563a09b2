"""The verbs of playbooks: one record each, as it is written in YAML and kept in the store.

Not here: what a verb does (`core.playbooks.deeds`), what stands beside it in a step (`dr.model.playbooks`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from dr.model.base import Record
from dr.model.conditions import CONDITION, AnyCondition, GuestsChosen, HostsChosen, OneHost
from dr.model.policy import StopMode
from dr.model.words import Kind, Name, OneOf, Problems, Seconds, Where, fields_of, write_fields, written


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
    """Guests are to be off: those that start after others before these. One that is off: nothing to do."""

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
    """Guests run, and their policy's checks, where they have any, pass now. In a drill: their clones do."""

    TIMEOUT_S: ClassVar[float] = 120.0
    check: Annotated[GuestsChosen, "guests"]


class MakeClones(Verb, tag="clone"):
    """Guests are cloned while they run on: their disks as they are at one moment. Only in a drill."""

    TIMEOUT_S: ClassVar[float] = 1800.0
    clone: Annotated[GuestsChosen, "guests"]


class Boot(Verb, tag="boot"):
    """Clones are started, where nothing but other clones of this drill reaches them. Only in a drill."""

    boot: Annotated[GuestsChosen, "guests whose clones are meant"]


class RunCommand(Verb, tag="run"):
    """A command of the configuration's allow-list, on hosts or in guests: one after the other, and none after one that
    fails. Where it ended well before, in this step: not again."""

    TIMEOUT_S: ClassVar[float] = 3600.0
    run: Annotated[str, Name("command"), "its name in the configuration of the coordinator"]
    on: Annotated[HostsChosen, "hosts"] = ()
    in_: Annotated[GuestsChosen, "guests"] = ()
    with_: Annotated[dict[str, str], "what its parameters are, each one word of the command"] = {}


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
    | MakeClones
    | Boot
    | RunCommand
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
