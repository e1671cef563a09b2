"""A saved decision: what `decide` was given, so that the same code gives the same answer again, anywhere, later.

Here: which decisions are worth it, and their form: gzip over JSON, one record a line, the event first. Secrets are
left out: parameters of fence devices, passwords and NVRAM in definitions. Not here: where files lie
(`adapters.store.decisions`), who writes them (`coordinator.recorder`), what they mean (`core.explain`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from dr.core.state import State
from dr.model.base import Record, changed
from dr.model.decision import Decision
from dr.model.effects import Effect, Fence, Notify, PowerOn, Reply, Send, SendStart
from dr.model.events import Answered, Event, Reconfigured
from dr.model.policy import HostPolicy
from dr.model.settings import Settings

FORMAT = 1
BYTES_MAX = 1 << 30  # of one decision, unpacked: 20,000 guests take about 20 MiB
LINES_AT_ONCE = 256  # encoded in one go, about half a millisecond: a loop beside it waits no longer than that
GZIP = 31  # zlib's number for it

# What `State` works out from its records by itself.
DERIVED = frozenset({"unsettled", "homing", "looked_after", "open_operations", "at_host", "touched", "memo"})

# Lines of the timeline that somebody may ask about one day: "why did it do that?", "why did it not?"
TOLD = frozenset(
    {
        "fence.abandoned",
        "fence.failed",
        "guest.error",
        "guest.found",
        "guest.migrating",
        "guest.refused",
        "guest.unknown",
        "host.agent_lost",
        "host.fenced",
        "host.fencing",
        "host.held",
        "store.restored",
    }
)

PASSWORD = re.compile(r"""(\bpassw(?:or)?d\s*=\s*)("[^"]*"|'[^']*')""")


class BadDecision(Exception):
    """These bytes are no decision that this version can read; the text says why."""


class Header(Record):
    """The first line of a file."""

    dr_decision: int  # FORMAT
    event: msgspec.Raw
    now: float
    id: str = ""
    wall: float = 0.0  # when it was made, in unix seconds
    version: str = ""  # of the dr that made it


@dataclass(frozen=True)
class Saved:
    """A decision's inputs."""

    state: State
    event: Event
    now: float
    id: str = ""
    wall: float = 0.0
    version: str = ""


def worth_saving(decision: Decision) -> bool:
    """Whether somebody may ask why: power was touched, a ticket given out, an ask refused, people were alerted,
    or the timeline got a line in `TOLD`."""
    return any(_matters(effect) for effect in decision.effects) or any(
        note.kind in TOLD for note in decision.changes.notes
    )


def _matters(effect: Effect) -> bool:
    match effect:
        case Fence() | PowerOn() | SendStart():
            return True
        case Send():
            return hasattr(effect.body, "ticket")
        case Notify():
            return not effect.cleared
        case Reply():
            return not effect.accepted
        case _:
            return False


def frozen(state: State) -> State:
    """The state as it is now, to be encoded. Records never change, so only the dictionaries are copied."""
    mutable = {name: value for name, value in vars(state).items() if isinstance(value, dict | set)}
    copies: dict[str, Any] = {
        name: type(value)() if name in DERIVED else value.copy() for name, value in mutable.items()
    }
    return replace(state, **copies)


def copied(state: State) -> State:
    """A state of its own with the same content, whole: what it derives from its records is derived anew."""
    copy = frozen(state)
    copy.load(
        cluster=copy.cluster,
        hosts=copy.hosts.values(),
        guests=copy.guests.values(),
        identities=copy.identities.values(),
        operations=copy.operations.values(),
        alerts=copy.alerts.values(),
        drills=copy.drills.values(),
        schedules=copy.schedules.values(),
    )
    return copy


def encode(saved: Saved) -> Iterator[bytes]:
    """The file, piece by piece; `saved.state` must not change meanwhile: see `frozen`."""
    packer = zlib.compressobj(level=1, wbits=GZIP)
    for piece in _lines(saved):
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _lines(saved: Saved) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    header = Header(
        dr_decision=FORMAT,
        id=saved.id,
        wall=saved.wall,
        version=saved.version,
        now=saved.now,
        event=msgspec.Raw(encoder.encode(_without_secrets(saved.event))),
    )
    yield encoder.encode(header) + b"\n"
    entries = _entries(saved.state)
    while some := list(islice(entries, LINES_AT_ONCE)):
        yield encoder.encode_lines(some)


def _entries(state: State) -> Iterator[tuple[str, object, object]]:
    """(field, key, value) of everything; no key where the field is not a dictionary."""
    for each in fields(State):
        if each.name in DERIVED:
            continue
        value = getattr(state, each.name)
        if each.name == "settings":
            value = _public(value)
        if isinstance(value, dict):
            for key, record in value.items():
                yield each.name, key, record
        else:
            yield each.name, None, value


def _public(settings: Settings) -> Settings:
    """Without what fence devices are given: passwords among it."""
    return changed(settings, hosts={name: _unarmed(policy) for name, policy in settings.hosts.items()})


def _unarmed(policy: HostPolicy) -> HostPolicy:
    levels = tuple(
        changed(level, devices=tuple(changed(device, parameters={}) for device in level.devices))
        for level in policy.fencing
    )
    return changed(policy, fencing=levels)


def _without_secrets(event: Event) -> Event:
    if isinstance(event, Reconfigured):
        return changed(event, settings=_public(event.settings))
    if isinstance(event, Answered) and (definition := event.answer.definition) is not None:
        kept = changed(definition, xml=PASSWORD.sub(r"\1'***'", definition.xml), nvram=b"")
        return changed(event, answer=changed(event.answer, definition=kept))
    if isinstance(event, Answered) and event.answer.checks:  # a console shows what nobody asked it to keep
        blind = tuple(changed(each, picture=b"") for each in event.answer.checks)
        return changed(event, answer=changed(event.answer, checks=blind))
    return event


def decode(data: bytes) -> Saved:
    """The decision in a file. Raises BadDecision with one sentence."""
    first, *rest = _unpacked(data).splitlines()
    header = _header(first)
    if header.dr_decision != FORMAT:
        raise BadDecision(
            f"it was saved in format {header.dr_decision} by dr {header.version or '?'}; this dr reads format {FORMAT}"
        )
    try:
        event = msgspec.json.decode(header.event, type=Event)
        state = _state(rest)
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise BadDecision(f"it cannot be read (saved by dr {header.version or '?'}): {error}") from None
    return Saved(
        state=state, event=event, now=header.now, id=header.id, wall=header.wall, version=header.version
    )


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=GZIP)
    try:
        text = unpacker.decompress(data, BYTES_MAX)
    except zlib.error:
        raise BadDecision("it is not a saved decision (not gzip)") from None
    if unpacker.unconsumed_tail:
        raise BadDecision(f"it is larger than {BYTES_MAX >> 20} MiB, unpacked")
    if not unpacker.eof:
        raise BadDecision("its end is missing")
    if not text:
        raise BadDecision("it is empty")
    return text


def _header(line: bytes) -> Header:
    try:
        return msgspec.json.decode(line, type=Header)
    except msgspec.DecodeError:
        raise BadDecision("it is not a saved decision (its first line is of something else)") from None


def _state(lines: list[bytes]) -> State:
    kinds = {name: hint for name, hint in get_type_hints(State).items() if name not in DERIVED}
    found: dict[str, Any] = {name: {} for name, hint in kinds.items() if get_origin(hint) is dict}
    for line in lines:
        name, key, value = msgspec.json.decode(line, type=tuple[str, msgspec.Raw, msgspec.Raw])
        kind = kinds.get(name)
        if kind is None:
            continue  # of a newer version
        if get_origin(kind) is dict:
            of_key, of_value = get_args(kind)
            record = msgspec.json.decode(value, type=of_value)
            found[name][msgspec.json.decode(key, type=of_key)] = record
        else:
            found[name] = msgspec.json.decode(value, type=kind)
    return copied(State(**found))
