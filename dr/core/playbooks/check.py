"""What a playbook cannot mean: parameters that nobody declared, targets that name nobody, ways back that lead nowhere.

Here: checks between the parts of a playbook, all at once, and (`unknown_of`) names that a fleet does not have.
Not here: how single values are written (`dr.model.playbooks`), what a run is told and is about (`compiling`).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Map
from typing import NamedTuple

from dr.core.playbooks import builtin
from dr.model.base import Record
from dr.model.conditions import ALL, LABEL, ON, PARAMETER, TARGETS, Chosen, Reference
from dr.model.playbooks import Bubble, EachSpec, Entries, Parameter, Playbook, StepSpec
from dr.model.verbs import (
    VERBS,
    Approve,
    Boot,
    Check,
    Drain,
    Fence,
    MakeClones,
    Notify,
    RunCommand,
    Until,
    Verb,
    Wait,
)
from dr.model.words import (
    FEW,
    NAME,
    TIME,
    Many,
    Mapping,
    OneOf,
    Problems,
    Text,
    Where,
    fields_of,
    nearest,
    shown,
)

STEPS_MAX = 500  # those inside of each_host and each_guest too
RETRY_MAX = 100
TEXT_MAX = 2000

LOOPS = ("host", "guest")  # the parameters of each_host and each_guest
# The words that `undo` may be alone, by the verb that they take back: the first is the one to write.
TAKES_BACK = {
    "cordon": ("uncordon",),
    "uncordon": ("cordon",),
    "drain": ("undrain",),
    "undrain": ("drain", "cordon"),
    "start": ("stop",),
    "stop": ("start",),
}
# What a drill may do: all of it with clones, or with nobody.
IN_DRILLS = (MakeClones, Boot, Check, Wait, Until, Approve, Notify)
AFTER_DRILLS = (Wait, Until, Approve, Notify)  # its clones are being removed by then
NO_WAY_BACK = (Wait, Until, Check, Approve, MakeClones, Boot)  # what changes nothing changes nothing back
SEVERAL_LINES = ("description", "notify", "approve")


def problems_of(playbook: Playbook) -> list[tuple[Where, str]]:
    """Everything that the playbook cannot mean, each with its place in the file."""
    problems = Problems()
    if playbook.playbook == builtin.NAME:
        problems.add(("playbook",), f"{builtin.NAME} is the one that is built in: give this another name")
    _parameters(playbook, problems)
    _said(playbook, problems)
    _texts(playbook, problems)
    _steps(playbook, problems)
    _ways_back(playbook, problems)
    _drill(playbook, problems)
    return problems.found


def unknown_of(
    playbook: Playbook,
    hosts: Map[str, Map[str, str]],
    guests: Map[str, Map[str, str]],
    params: Map[str, str],
    commands: Map[str, tuple[str, ...]],
) -> list[tuple[Where, str]]:
    """Names that nobody in the fleet has, and labels that match nobody. `hosts`, `guests`: labels, by name; `commands`:
    those that are allowed, with their parameters.

    What depends on a parameter that is neither told nor has a default is passed over.
    """
    fleet = {"host": hosts, "guest": guests}
    values = {name: params.get(name, each.default) for name, each in playbook.params.items()}
    found = []
    for name, parameter in playbook.params.items():
        value = values[name]
        if value is not None and parameter.is_ in fleet:
            where: Where = ("params", name) if name in params else ("params", name, "default")
            found += _unknown(value, parameter.is_, where, fleet)
    for said in _sayings(playbook):
        alone = PARAMETER.fullmatch(said.text.removeprefix(ON))
        names = PARAMETER.findall(said.text)
        if said.of not in fleet or alone or any(values.get(name) is None for name in names):
            continue
        word = PARAMETER.sub(lambda match: values[match[1]] or "", said.text)
        found += _unknown(word, said.of, said.where, fleet)
    return found + not_allowed(playbook, commands)


def not_allowed(playbook: Playbook, commands: Map[str, tuple[str, ...]]) -> list[tuple[Where, str]]:
    """Commands of it that are not among these, or have other parameters."""
    found = []
    for where, step, _ in _all_steps(playbook):
        for at, verb in ((where, step.verb), ((*where, "undo"), step.undo)):
            if isinstance(verb, RunCommand):
                found += _not_allowed(verb, at, commands)
    return found


def _not_allowed(
    verb: RunCommand, where: Where, commands: Map[str, tuple[str, ...]]
) -> list[tuple[Where, str]]:
    if verb.run not in commands:
        there = _instead(verb.run, sorted(commands))
        return [((*where, "run"), f"the configuration allows no command named {verb.run}{there}")]
    wanted = commands[verb.run]
    if set(verb.with_) == set(wanted):
        return []
    names = ", ".join(wanted) or "none"
    return [((*where, "with"), f"{verb.run} has other parameters: {names}")]


def _unknown(
    word: str, of: str, where: Where, fleet: Map[str, Map[str, Map[str, str]]]
) -> list[tuple[Where, str]]:
    if word in (ALL, TARGETS):
        return []
    if label := LABEL.fullmatch(word):
        labels = list(fleet[of].values())
        if any(own.get(label[1]) == label[2] for own in labels):
            return []
        has = sorted({f"label:{key}={value}" for own in labels for key, value in own.items()})
        return [(where, f"no {of} has the label {label[1]}={label[2]}{_instead(word, has)}")]
    if word.startswith(ON):
        of, word = "host", word.removeprefix(ON)
    if word in fleet[of]:
        return []
    known = "host" if of == "host" else "protected guest"
    return [(where, f"no {known} is named {word}{_instead(word, sorted(fleet[of]))}")]


def _instead(word: str, words: list[str]) -> str:
    few = f"; there are: {', '.join(words) or 'none'}" if len(words) <= FEW else ""
    return nearest(word, words) or few


# ---- what a playbook says, and where


class Said(NamedTuple):
    """One word that may hold parameters."""

    where: Where
    text: str
    of: str  # "host", "guest": it stands for some; "text": people read it
    loop: str  # "host", "guest": it is in the steps of an each_…; "": it is not


class Placed(NamedTuple):
    """One step, and where it stands."""

    where: Where
    spec: StepSpec
    loop: str


def _placed(entries: Entries, part: str) -> Iterator[Placed]:
    for at, entry in enumerate(entries):
        if isinstance(entry, StepSpec):
            yield Placed((part, at), entry, "")
        else:
            of = "host" if entry.each_host else "guest"
            for inner, step in enumerate(entry.steps):
                yield Placed((part, at, "steps", inner), step, of)


def _all_steps(playbook: Playbook) -> Iterator[Placed]:
    yield from _placed(playbook.steps, "steps")
    yield from _placed(playbook.finally_, "finally")


def _eaches(playbook: Playbook) -> Iterator[tuple[Where, EachSpec]]:
    for part, entries in (("steps", playbook.steps), ("finally", playbook.finally_)):
        for at, entry in enumerate(entries):
            if isinstance(entry, EachSpec):
                yield (part, at), entry


def _sayings(playbook: Playbook) -> Iterator[Said]:
    """Everything that may hold parameters, from top to bottom."""
    yield from _of(playbook.targets, ("targets",), "")
    if playbook.bubble.address:
        yield Said(("bubble", "address"), playbook.bubble.address, "text", "")
    for at, condition in enumerate(playbook.require):
        yield from _of(condition, _one_of(playbook.require, ("require",), at), "")
    for where, each in _eaches(playbook):
        for of, names in (("host", each.each_host), ("guest", each.each_guest)):
            for at, name in enumerate(names):
                yield Said(_one_of(names, (*where, f"each_{of}"), at), name, of, "")
    for where, step, loop in _all_steps(playbook):
        yield from _of(step.verb, where, loop)
        if step.name:
            yield Said((*where, "name"), step.name, "text", loop)
        if isinstance(step.undo, Record):
            yield from _of(step.undo, (*where, "undo"), loop)
        if step.when is not None:
            yield from _of(step.when, (*where, "when"), loop)


def _one_of(values: tuple[object, ...], where: Where, at: int) -> Where:
    """One alone may stand there without a list."""
    return (*where, at) if len(values) > 1 else where


def _of(record: Record, where: Where, loop: str) -> Iterator[Said]:
    """What a verb, a condition or the targets say."""
    for field in fields_of(type(record)):
        value, here = getattr(record, field.name), (*where, field.key)
        kind = field.kind.each if isinstance(field.kind, Many) else field.kind
        if isinstance(kind, OneOf):
            yield from _of(value, here, loop)
        elif isinstance(kind, Mapping):
            for key, text in value.items():
                yield Said((*here, key), text, "text", loop)
        elif isinstance(kind, Chosen | Reference | Text):
            of = "text" if isinstance(kind, Text) else kind.of
            several = value if isinstance(value, tuple) else (value,)
            for at, text in enumerate(several):
                if text:
                    yield Said(_one_of(several, here, at), text, of, loop)


# ---- parameters and targets


def _parameters(playbook: Playbook, problems: Problems) -> None:
    """Names that can be written as ${name}, and defaults that are what they should be."""
    for name, parameter in playbook.params.items():
        where: Where = ("params", name)
        if name in (*LOOPS, TARGETS, ALL):
            problems.add(where, f"{name} means something of its own in the steps: choose another name")
        elif not PARAMETER.fullmatch(f"${{{name}}}"):
            problems.add(
                where,
                "a parameter's name is letters, digits, dashes and underscores, and begins with a letter",
            )
        if parameter.default is not None and (why := why_no_value(parameter, parameter.default)):
            problems.add((*where, "default"), why)


def why_no_value(parameter: Parameter, value: str) -> str:
    """Why a parameter cannot have that value; "" if it can."""
    if parameter.is_ == "text":
        why = _why_not_text(value, several_lines=False)
        return why or ("a value is no expression: `${` has no meaning in it" if "${" in value else "")
    if NAME.fullmatch(value) and value not in (ALL, TARGETS):
        return ""
    return f"must be the name of one {parameter.is_}, not {shown(value)}"


def _said(playbook: Playbook, problems: Problems) -> None:
    """Every ${name} and every `targets` stands for something, of the kind wanted there; and nothing is of no use."""
    used: set[str] = set()
    targets: set[str] = set()
    looped: set[Where] = set()
    for said in _sayings(playbook):
        if said.of != "text" and said.text == TARGETS:
            _targets(playbook, said, problems)
            targets.add(said.of)
        elif said.of != "text" and said.text == ALL:
            _all(said, problems)
        if "${" in PARAMETER.sub("", said.text):
            problems.add(said.where, "`${` begins a parameter, as in ${name}: nothing else can stand there")
            continue
        for name in PARAMETER.findall(said.text):
            used.add(name)
            if name == said.loop:
                looped.add(said.where[:2])
            _parameter(playbook, said, name, problems)
    for name in playbook.params:
        if name not in (*used, *LOOPS):
            problems.add(("params", name), f"nothing uses it: write ${{{name}}} in a step, or take it out")
    for of in LOOPS:
        if getattr(playbook.targets, f"{of}s") and of not in targets:
            problems.add(("targets", f"{of}s"), f"no step that wants {of}s says `targets`")
    for where, each in _eaches(playbook):
        of = "host" if each.each_host else "guest"
        if where not in looped:
            problems.add(
                (*where, f"each_{of}"),
                f"nothing in its steps says ${{{of}}}: they would be the same each time",
            )


def _targets(playbook: Playbook, said: Said, problems: Problems) -> None:
    if said.where[0] == TARGETS:
        problems.add(said.where, "targets cannot be what targets means")
        return
    if said.of == "host" and ALL in playbook.targets.hosts:
        _emptied(said, problems)
    if not getattr(playbook.targets, f"{said.of}s"):
        other = "guests" if said.of == "host" else "hosts"
        named = f", only {other}" if getattr(playbook.targets, other) else ""
        problems.add(said.where, f"the playbook's targets name no {said.of}s{named}: add targets.{said.of}s")


def _all(said: Said, problems: Problems) -> None:
    """A fleet cannot be emptied, and `all` needs nobody beside it."""
    word = said.where[-1] if isinstance(said.where[-1], str) else said.where[-2]
    if isinstance(said.where[-1], int):
        problems.add(said.where, f"`all` stands alone: name {said.of}s, or write {word}: all")
    if said.of == "host":
        _emptied(said, problems)


def _emptied(said: Said, problems: Problems) -> None:
    if {Drain.word(), Fence.word()} & set(said.where[-2:]):
        problems.add(said.where, "all hosts at once: none is left that guests could go to")


def _parameter(playbook: Playbook, said: Said, name: str, problems: Problems) -> None:
    """One ${name}."""
    if name in LOOPS:
        if name != said.loop:
            problems.add(said.where, f"${{{name}}} has a meaning only in the steps of an each_{name}")
            return
        kind = name
    elif name in playbook.params:
        kind = playbook.params[name].is_
    else:
        known = [*playbook.params, *([said.loop] if said.loop else [])]
        declared = f"; params has: {', '.join(known) or 'none'}"
        problems.add(said.where, f"no parameter is named {name}{nearest(name, known) or declared}")
        return
    if said.of == "text":
        return
    on_host = said.text.startswith(ON)
    wanted = "host" if on_host else said.of
    if said.text.removeprefix(ON) == f"${{{name}}}" and kind != wanted:
        hint = "" if name in LOOPS else f"; in params, it would be `{name}: {{is: {wanted}}}`"
        problems.add(said.where, f"${{{name}}} is a {kind}, and the name of a {wanted} belongs here{hint}")


# ---- texts


def _texts(playbook: Playbook, problems: Problems) -> None:
    """What people read can be shown to them."""
    told: list[tuple[Where, str]] = [(("description",), playbook.description)]
    told += [(("params", name, "says"), each.says) for name, each in playbook.params.items()]
    told += [(said.where, said.text) for said in _sayings(playbook) if said.of == "text"]
    for where, text in told:
        several = any(part in SEVERAL_LINES for part in where[-2:])
        if why := _why_not_text(text, several_lines=several):
            problems.add(where, why)
    names: dict[str, Where] = {}
    for where, step, _ in _all_steps(playbook):
        if step.name and step.name in names:
            problems.add(
                (*where, "name"), f"there is a step {shown(step.name)} already; names are told apart"
            )
        names.setdefault(step.name, where)


def _why_not_text(text: str, *, several_lines: bool) -> str:
    if len(text) > TEXT_MAX:
        return f"is longer than {TEXT_MAX} characters"
    if "\n" in text and not several_lines:
        return "must be one line (`>-` makes one of several)"
    odd = next((each for each in text if not each.isprintable() and each not in "\n\t"), "")
    return f"has a character that cannot be shown: U+{ord(odd):04X}" if odd else ""


# ---- steps


def _steps(playbook: Playbook, problems: Problems) -> None:
    """Times fit into each other, and nothing is without bounds."""
    run_s = playbook.limits.timeout
    steps = list(_all_steps(playbook))
    if len(steps) > STEPS_MAX:
        problems.add(("steps",), f"{len(steps)} steps, and at most {STEPS_MAX} are allowed")
    for where, step, _ in steps:
        own_s = step.timeout or type(step.verb).TIMEOUT_S
        if run_s and step.timeout > run_s:
            text = f"{TIME.write(step.timeout)} is longer than the whole run may take: limits.timeout is"
            problems.add((*where, "timeout"), f"{text} {TIME.write(run_s)}")
        if run_s and own_s > run_s:
            own_s = run_s
        if isinstance(step.verb, Wait) and step.verb.wait > own_s:
            problems.add(
                (*where, "wait"), f"would never end: the step, or the run, ends after {TIME.write(own_s)}"
            )
        if isinstance(step.verb, Drain) and step.verb.deadline > own_s:
            text = f"would never come: the step, or the run, ends after {TIME.write(own_s)}"
            problems.add((*where, "deadline"), text)
        for at, verb in ((where, step.verb), ((*where, "undo"), step.undo)):
            if isinstance(verb, RunCommand) and bool(verb.on) is bool(verb.in_):
                problems.add((*at, "run"), "needs `on: HOSTS` or `in: GUESTS`, and not both")
        if step.retry > RETRY_MAX:
            problems.add((*where, "retry"), f"at most {RETRY_MAX}")


def _ways_back(playbook: Playbook, problems: Problems) -> None:
    """Every rollback has something to take back, and every undo takes its step back."""
    begun = False  # whether something that began by then has an undo
    for at, entry in enumerate(playbook.steps):
        placed = list(_placed((entry,), "steps"))
        begun = begun or any(
            step.undo is not None for _, step, _ in placed
        )  # of an each_…: of one before, too
        for inner, (_, step, _) in enumerate(placed):
            where: Where = ("steps", at) if isinstance(entry, StepSpec) else ("steps", at, "steps", inner)
            if step.on_fail == "rollback" and not begun:
                problems.add(
                    (*where, "on_fail"),
                    "neither this step nor one before it has an `undo`: there is nothing to roll back",
                )
            _undo(step, where, problems)
    for where, step, _ in _placed(playbook.finally_, "finally"):
        if step.on_fail == "rollback":
            problems.add((*where, "on_fail"), "there is no way back from `finally`: continue, or stop")
        if step.undo is not None:
            problems.add((*where, "undo"), "what is done in `finally` is never taken back")


def _undo(step: StepSpec, where: Where, problems: Problems) -> None:
    word, undo = step.verb.word(), step.undo
    where = (*where, "undo")
    if isinstance(undo, Verb):
        if isinstance(undo, NO_WAY_BACK):
            problems.add(where, f"{undo.word()} changes nothing, so it takes nothing back")
        elif undo == step.verb:
            problems.add(where, "is what the step itself does")
        return
    good = TAKES_BACK.get(word, ())
    if undo is None or undo in good:
        return
    other = VERBS[undo]
    wants, has = _wants(other), _wants(type(step.verb))
    if issubclass(other, NO_WAY_BACK):
        why = f"{undo} changes nothing, so it takes nothing back"
    elif wants == "text":
        why = f"{undo} needs a text of its own, as in {{{undo}: why}}"
    elif wants != has:
        why = f"{undo} wants {wants}s, and {word} names {'none' if has == 'text' else f'{has}s'}"
    else:
        why = f"{undo} alone does not take {word} back"
    hint = f"; write {good[0]}" if good else f"; write a verb with all that it needs: {{{undo}: …}}"
    problems.add(where, why if wants == "text" else why + hint)


def _drill(playbook: Playbook, problems: Problems) -> None:
    """What only a drill has, and what no drill may do."""
    if playbook.kind != "drill":
        if playbook.bubble != Bubble():
            problems.add(("bubble",), "only a drill has one: add `kind: drill`")
        for where, step, _ in _all_steps(playbook):
            if isinstance(step.verb, MakeClones | Boot):
                word = step.verb.word()
                problems.add((*where, word), "is only for a drill: add `kind: drill`")
        return
    steps = list(_all_steps(playbook))
    if not any(isinstance(step.verb, MakeClones) for _, step, _ in steps):
        problems.add(("steps",), "a drill begins with clones: {clone: targets}")
    for verb, before in ((Boot, MakeClones), (Check, Boot)):
        made = next(
            (at for at, (_, step, _) in enumerate(steps) if isinstance(step.verb, before)), len(steps)
        )
        for where, step, _ in steps[:made]:
            if isinstance(step.verb, verb) and where[0] == "steps":
                text = f"no step before it says {before.word()}: clone, then boot, then check"
                problems.add((*where, verb.word()), text)
    for where, step, _ in steps:
        allowed = AFTER_DRILLS if where[0] == "finally" else IN_DRILLS
        words = ", ".join(each.word() for each in allowed)
        if not isinstance(step.verb, allowed):
            why = "the clones are being removed by then" if isinstance(step.verb, IN_DRILLS) else ""
            why = why or "a drill touches no host and no guest, only clones"
            problems.add((*where, step.verb.word()), f"{why}; what may stand here: {words}")
        if step.undo is not None:
            problems.add((*where, "undo"), "what a drill makes is removed in any case")


def _wants(verb: type[Verb]) -> str:
    """What a verb's own word names: "host", "guest" or "text"."""
    kind = fields_of(verb)[0].kind
    each = kind.each if isinstance(kind, Many) else kind
    return each.of if isinstance(each, Chosen) else "text"
