"""A playbook: what a team does in a case, step by step, and one run of it. `docs/playbooks.md` explains the language.

Here: steps and what stands around them as records, as they are written in YAML (`dr.model.words`) and kept in the
store. Not here: verbs (`dr.model.verbs`), whom they name, and conditions (`dr.model.conditions`); files and their lines
(`dr.cli.playbook_file`), what cannot mean anything (`core.playbooks.check`), what a step does (`core.playbooks`).
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, Any, Literal

from dr.model.base import BootId, GuestId, HostName, Record
from dr.model.clones import Clone, Ended
from dr.model.conditions import CONDITION, PARAMETER, AnyCondition, GuestsChosen, HostsChosen
from dr.model.records import HostPhase
from dr.model.verbs import UNDO, VERB, VERBS, AnyVerb
from dr.model.words import (
    Kind,
    Many,
    Mib,
    Name,
    Problems,
    Seconds,
    Where,
    Whole,
    fields_of,
    nearest,
    read_fields,
    write_fields,
)

SHOWN_MAX = 200  # characters of a step


class OwnName(Name):
    """What the playbook itself is called."""

    means = "a name: letters, digits, dots, dashes and underscores, at most 63"

    def __init__(self) -> None:
        self.of, self.new, self.also = "playbook", True, ()


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
        if {"each_host", "each_guest"} & value.keys():
            problems.add(where, "an each_… cannot stand within another one")
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


class OwnAddress(Kind):
    """Where something is within a network, and how large that is."""

    means = "an address with its network's length, such as 10.0.0.1/24, or ${parameter}"

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        if isinstance(value, str) and PARAMETER.fullmatch(value):
            return value
        try:
            if isinstance(value, str) and "/" in value:
                found = ipaddress.ip_interface(value)
                ends = {found.network.network_address}
                if isinstance(found, ipaddress.IPv4Interface):
                    ends.add(found.network.broadcast_address)
                size = found.network.num_addresses
                if size > 1 and (found.ip not in ends or size == 2):  # of a link of two, both are
                    return str(found)
                self.wrong(value, where, problems, ": that is the network's own, and no address in it")
                return ""
        except ValueError:
            pass
        self.wrong(value, where, problems)
        return ""


class Bubble(Record):
    """The network that clones of a drill live in: one on each host that has any, and none leads out of it."""

    address: Annotated[
        str,
        OwnAddress(),
        "what checks are made from, in the guests' own network: best their gateway's, which is not in there",
    ] = ""
    memory: Annotated[
        Mib, "of all clones on a host together; 0MiB: what is free there, but for its reserve"
    ] = 0
    disk: Annotated[
        Mib, "that the copies may take on a host; 0MiB: what is free there, but for a reserve"
    ] = 0


class Playbook(Record):
    """All of one file."""

    playbook: Annotated[str, OwnName(), "its name"]
    steps: Annotated[Entries, "what is done, from top to bottom"]
    kind: Annotated[
        Literal["playbook", "drill"], "`drill`: of clones in a network of their own; no guest is touched"
    ] = "playbook"
    description: Annotated[str, "what it is for, for a tired person"] = ""
    params: Annotated[dict[str, Parameter], "what a run is told: `${name}` in the steps"] = {}
    targets: Annotated[Targets, "whom `targets` means"] = Targets()
    objectives: Annotated[Objectives, "what is to be reached"] = Objectives()
    limits: Annotated[RunLimits, "what bounds it"] = RunLimits()
    bubble: Annotated[Bubble, "of a drill: the network of its clones"] = Bubble()
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


class CommandRun(Record):
    """A command of a `run` step, on one host or in one guest. Times are leader time."""

    id: str  # its effect's: it runs at most once under it, however often that is sent
    on: str  # the host or guest
    host: HostName  # of a guest: where it ran as it was begun
    boot_id: BootId
    phase: HostPhase  # of the host as it began
    argv: tuple[str, ...]
    at: float
    limit_s: float
    guest: GuestId = ""
    process: str = ""  # of the agent that it was sent to first
    reboots: bool = False
    powers_off: bool = False
    asked: int = 0  # how often it was sent
    unreached: int = 0  # of these, how often it cannot have arrived
    asked_at: float = 0.0
    state: Literal["running", "done", "failed", "unknown"] = "running"
    code: int | None = None
    last: str = ""  # line of its output
    bytes: int = 0  # of its output
    digest: str = ""
    said: str = ""  # what came of it


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
    commands: tuple[CommandRun, ...] = ()  # of a `run`: the newest of each host or guest


class Run(Record):
    """One run of a playbook; its operation is open until it is over."""

    playbook: str
    kind: Literal["playbook", "drill"] = "playbook"
    params: dict[str, str] = {}
    rto_s: float = 0.0
    limit_s: float = 0.0  # of all its steps together; 0: none
    steps: tuple[RunStep, ...] = ()
    failed: str = ""  # why it failed, by its first step that did; "": none has
    cancelled: str = ""  # by whom, and why
    asked_wall: float = 0.0  # unix time
    bubble: Bubble = Bubble()  # of a drill, as the rest of it
    clones: tuple[Clone, ...] = ()
    ends: dict[HostName, Ended] = {}  # by host that was asked for anything
    part: Literal["steps", "undo", "finally"] = "steps"
