"""What may be so in a world: the one vocabulary of `when`, `expect` and `never`.

Here: each fact and how it is judged. A fact that names several guests or hosts is several facts. Not here: when it is
judged (`dr.sim.run`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from dr.model.base import Record, changed
from dr.model.operations import OperationState
from dr.model.records import Condition, Desired, GuestPhase, HostPhase
from dr.model.words import ALL, Guests, HostRef, Hosts, Many, Name, Seconds, SomeGuests, Whole, Word
from dr.sim.scenario.observer import Observer

NOT_PROTECTED = "unprotected"
REMOVED = "removed"
GuestPhases = Annotated[tuple[str, ...], Many(Word([*(p.value for p in GuestPhase), NOT_PROTECTED]))]
HostPhases = Annotated[tuple[str, ...], Many(Word([*(p.value for p in HostPhase), REMOVED]))]
Conditions = Annotated[tuple[Condition, ...], Many(Word([c.value for c in Condition], Condition))]
NoHosts = Annotated[tuple[str, ...] | None, Many(Name("host"), least=0)]
Number = Annotated[int | None, Whole(0)]
Automation = Literal["on", "paused", "held"]


class Fact(Record):
    """Something that may be so."""

    needs_more: ClassVar[bool] = False  # its first field alone says nothing

    def why_not(self, seen: Observer) -> str:
        """What is so instead; "" = the fact holds."""
        raise NotImplementedError

    def single(self, seen: Observer) -> list[Fact]:
        """This fact, one for each that it names."""
        return [self]


def _unlike(what: str, found: object, wanted: object) -> str:
    return f"{what} is {found}, not {wanted}"


class GuestIs(Fact):
    """A guest, as the coordinator knows it and as it really is."""

    needs_more = True

    guest: Annotated[Guests, "one or more guests, or all"]
    is_: Annotated[
        GuestPhases, "its phase is (one of) these; `unprotected`: the coordinator does not know it"
    ] = ()
    runs_on: Annotated[Hosts, "it really runs on (one of) these hosts, and nowhere else"] = ()
    runs: Annotated[bool | None, "whether it really runs anywhere"] = None
    not_on: Annotated[Hosts, "it really runs on none of these"] = ()
    placed_on: Annotated[Hosts, "the places where it may be running, as recorded, are exactly these"] = ()
    guarded_on: Annotated[Hosts, "the hook on each of these hosts guards it"] = ()
    disks_on: Annotated[Hosts, "its newest disks are on (one of) these, as recorded"] = ()
    desired: Annotated[Desired | None, "what its owner wants, as recorded"] = None
    reason: Annotated[str, "its reason contains this"] = ""
    failback: Annotated[str, "what is said of its way home contains this"] = ""
    starts: Annotated[Number, "how often it began to run since the scenario began"] = None
    started_on: Annotated[Hosts, "it began to run on (one of) these since the scenario began"] = ()
    down_for: Annotated[Seconds | None, "it has run nowhere for at least this long, until now"] = None
    down_at_most: Annotated[Seconds | None, "it never ran nowhere for longer than this"] = None

    def single(self, seen: Observer) -> list[Fact]:
        names = sorted(seen.world.definitions) if self.guest == (ALL,) else self.guest
        return [changed(self, guest=(name,)) for name in names]

    def why_not(self, seen: Observer) -> str:
        (name,) = self.guest
        return self._recorded(name, seen) or self._really(name, seen) or self._counted(name, seen)

    def _recorded(self, name: str, seen: Observer) -> str:
        record = seen.world.store.guests.get(name)
        phase = record.phase.value if record else NOT_PROTECTED
        why = f" ({record.reason})" if record and record.reason else ""
        if self.is_ and phase not in self.is_:
            return _unlike(name, phase + why, " or ".join(self.is_))
        if self.placed_on:
            places = sorted(place.host for place in record.may_run_on) if record else []
            if places != sorted(self.placed_on):
                return f"{name} may run on {places}, not {sorted(self.placed_on)}"
        if self.disks_on and (record is None or record.disks_on not in self.disks_on):
            return _unlike(
                f"disks of {name}", record.disks_on if record else "unknown", " or ".join(self.disks_on)
            )
        if self.desired is not None and (record is None or record.desired is not self.desired):
            return _unlike(
                f"desired of {name}", record.desired.value if record else "unknown", self.desired.value
            )
        if self.reason and self.reason.lower() not in (record.reason.lower() if record else ""):
            return f'the reason of {name} is "{record.reason if record else ""}", without "{self.reason}"'
        if self.failback:
            said = seen.failback(name)
            if self.failback.lower() not in said.lower():
                return f'of the way home of {name} is said "{said}", without "{self.failback}"'
        return ""

    def _really(self, name: str, seen: Observer) -> str:
        real = seen.world.running(name)
        where = " and ".join(real) if real else "nowhere"
        if self.runs_on and (len(real) != 1 or not ({*real} <= {*self.runs_on} or self.runs_on == (ALL,))):
            return f"{name} runs {where if not real else f'on {where}'}, not on {' or '.join(self.runs_on)}"
        if self.runs is not None and bool(real) != self.runs:
            return f"{name} runs {where if not real else f'on {where}'}"
        if bad := sorted({*real} & {*self.not_on}):
            return f"{name} runs on {' and '.join(bad)}"
        if bare := [host for host in self.guarded_on if name not in seen.world.hosts[host].guarded]:
            return f"the hook on {' and '.join(bare)} does not guard {name}"
        return ""

    def _counted(self, name: str, seen: Observer) -> str:
        if self.starts is not None and seen.starts[name] != self.starts:
            return f"{name} began to run {seen.starts[name]} times, not {self.starts}"
        if self.started_on and not any((name, host) in seen.started_on for host in self.started_on):
            return f"{name} did not begin to run on {' or '.join(self.started_on)}"
        if self.down_for is not None and seen.down_s(name) < self.down_for:
            return f"{name} has been down for {seen.down_s(name):.1f} s, not for {self.down_for:g} s"
        if self.down_at_most is not None:
            longest = max(seen.longest_down_s.get(name, 0.0), seen.down_s(name))
            if longest > self.down_at_most:
                return f"{name} was down for {longest:.1f} s, longer than {self.down_at_most:g} s"
        return ""


class HostIs(Fact):
    """A host, as the coordinator knows it and as it really is."""

    needs_more = True

    host: Annotated[Hosts, "one or more hosts, or all"]
    is_: Annotated[
        HostPhases, "its phase is (one of) these; `removed`: the coordinator does not know it"
    ] = ()
    has: Annotated[Conditions, "these conditions stand beside its phase"] = ()
    lacks: Annotated[Conditions, "these conditions do not"] = ()
    up: Annotated[bool | None, "whether an operating system really runs on it"] = None
    heard: Annotated[bool | None, "whether the coordinator and its agent really hear each other now"] = None
    empty: Annotated[bool | None, "whether no guest really runs on it"] = None
    reason: Annotated[str, "its reason contains this"] = ""
    fenced: Annotated[Number, "how often it was fenced since the scenario began"] = None
    boots: Annotated[Number, "how often it booted, the first time included"] = None

    def single(self, seen: Observer) -> list[Fact]:
        names = sorted(seen.world.hosts) if self.host == (ALL,) else self.host
        return [changed(self, host=(name,)) for name in names]

    def why_not(self, seen: Observer) -> str:
        (name,) = self.host
        record, real = seen.world.store.hosts.get(name), seen.world.hosts.get(name)
        phase, reason = (record.phase.value, record.reason) if record else (REMOVED, "")
        if self.is_ and phase not in self.is_:
            return _unlike(name, f"{phase} ({reason})" if reason else phase, " or ".join(self.is_))
        conditions = record.conditions if record else frozenset[Condition]()
        if missing := sorted({*self.has} - conditions):
            return f"{name} is not {' and '.join(missing)}"
        if extra := sorted({*self.lacks} & conditions):
            return f"{name} is {' and '.join(extra)}"
        if self.reason and self.reason.lower() not in reason.lower():
            return f'the reason of {name} is "{reason}", without "{self.reason}"'
        if self.up is not None and (real is not None and real.up) != self.up:
            return f"{name} is {'down' if self.up else 'up'}"
        if self.heard is not None and (real is not None and real.heard) != self.heard:
            return f"{name} is {'not heard' if self.heard else 'heard'}"
        there = sorted(guest for guest in seen.world.definitions if name in seen.world.running(guest))
        if self.empty is not None and (not there) != self.empty:
            return f"on {name} runs {' and '.join(there) or 'nothing'}"
        if self.fenced is not None and seen.fenced[name] != self.fenced:
            return f"{name} was fenced {seen.fenced[name]} times, not {self.fenced}"
        boots = real.boots if real else 0
        if self.boots is not None and boots != self.boots:
            return f"{name} booted {boots} times, not {self.boots}"
        return ""


class WasFenced(Fact):
    """A host was fenced at least once since the scenario began."""

    was_fenced: Annotated[Hosts, "one or more hosts, or all"]

    def single(self, seen: Observer) -> list[Fact]:
        names = sorted(seen.world.hosts) if self.was_fenced == (ALL,) else self.was_fenced
        return [changed(self, was_fenced=(name,)) for name in names]

    def why_not(self, seen: Observer) -> str:
        (name,) = self.was_fenced
        return "" if seen.fenced[name] else f"{name} was not fenced"


class AlertStands(Fact):
    """An alert stands."""

    alert: Annotated[str, "its key, as in host/h1/fence-failed; * stands for anything"]
    says: Annotated[str, "what, why or what to do contains this"] = ""

    def why_not(self, seen: Observer) -> str:
        standing = seen.world.store.alerts
        found = [key for key in standing if fnmatchcase(key, self.alert)]
        if not found:
            return f"no alert {self.alert} stands, only {sorted(standing) or 'none at all'}"
        texts = [f"{standing[key].what}: {standing[key].why}; {standing[key].todo}" for key in sorted(found)]
        if not any(self.says.lower() in text.lower() for text in texts):
            return f'no alert says "{self.says}": {"; ".join(texts)}'
        return ""


class NoAlert(Fact):
    """No such alert stands."""

    no_alert: Annotated[str, 'its key; "*" for any alert at all']

    def why_not(self, seen: Observer) -> str:
        found = sorted(key for key in seen.world.store.alerts if fnmatchcase(key, self.no_alert))
        return f"stands: {', '.join(found)}" if found else ""


class OperationIs(Fact):
    """There is an operation of that kind."""

    operation: Annotated[str, "its kind, as `dr job list` shows it: failover, fence, guest-stop, …"]
    of: Annotated[str, "its subject contains this host or guest"] = ""
    is_: Annotated[OperationState | None, "its state"] = None
    says: Annotated[str, "a step of its history contains this"] = ""
    count: Annotated[Number, "so many of them, instead of at least one"] = None

    def why_not(self, seen: Observer) -> str:
        found = [
            op
            for op in seen.world.store.operations.values()
            if fnmatchcase(op.kind, self.operation)
            and self.of in op.subject
            and self.is_ in (None, op.state)
            and (not self.says or any(self.says.lower() in step.text.lower() for step in op.steps))
        ]
        if self.count is None and found:
            return ""
        if self.count is not None and len(found) == self.count:
            return ""
        have = [f"{op.kind} of {op.subject} is {op.state}" for op in seen.world.store.operations.values()]
        return f"{len(found)} such operations; there are: {'; '.join(have) or 'none'}"


class Ran(Fact):
    """A command of a playbook was run so often, whatever came of it."""

    ran: Annotated[str, "its name"]
    on: Annotated[str, "the host, or the guest"]
    count: Annotated[int, Whole(0), "so often"] = 1

    def why_not(self, seen: Observer) -> str:
        found = seen.world.truth.commands[self.on, self.ran]
        return "" if found == self.count else f"{self.ran} ran {found} times on {self.on}, not {self.count}"


class Told(Fact):
    """The timeline has said this since the scenario began."""

    told: Annotated[str, "a part of a line, in upper or lower case"]

    def why_not(self, seen: Observer) -> str:
        return "" if seen.told(self.told) else f'no line of the timeline contains "{self.told}"'


class NotTold(Fact):
    """The timeline has not said this since the scenario began."""

    not_told: Annotated[str, "a part of a line, in upper or lower case"]

    def why_not(self, seen: Observer) -> str:
        return f'a line of the timeline contains "{self.not_told}"' if seen.told(self.not_told) else ""


class ImagesLie(Fact):
    """These hosts, and no others, have a file where definitions of a guest look for its local disk."""

    image_of: Annotated[str, Name("guest"), "a guest whose disk only its own host has"]
    on: Annotated[Hosts, "hosts"]
    set_aside: Annotated[NoHosts, "these hosts, and no others, keep an old one under another name"] = None

    def why_not(self, seen: Observer) -> str:
        hosts = seen.world.hosts
        found = sorted(name for name, host in hosts.items() if self.image_of in host.images.files)
        aside = sorted(name for name, host in hosts.items() if self.image_of in dict(host.images.aside))
        if found != sorted(self.on):
            return f"on {found}"
        return (
            f"set aside on {aside}" if self.set_aside is not None and aside != sorted(self.set_aside) else ""
        )


class Together(Fact):
    """These guests really run, all on one host."""

    together: Annotated[SomeGuests, "two or more guests"]

    def why_not(self, seen: Observer) -> str:
        where = {name: seen.world.running(name) for name in self.together}
        return (
            "" if len({tuple(hosts) for hosts in where.values()}) == 1 and all(where.values()) else f"{where}"
        )


class Apart(Fact):
    """No two of these guests really run on one host."""

    apart: Annotated[SomeGuests, "two or more guests"]

    def why_not(self, seen: Observer) -> str:
        where = [host for name in self.apart for host in seen.world.running(name)]
        return (
            ""
            if len(where) == len(set(where))
            else f"{ {name: seen.world.running(name) for name in self.apart} }"
        )


class InOrder(Fact):
    """These guests began to run one after the other since the scenario began, the first named first."""

    in_order: Annotated[SomeGuests, "two or more guests"]

    def why_not(self, seen: Observer) -> str:
        if missing := [name for name in self.in_order if name not in seen.first_start_s]:
            return f"{' and '.join(missing)} did not begin to run"
        order = sorted(self.in_order, key=lambda name: seen.first_start_s[name])
        return "" if order == list(self.in_order) else f"the order was {', '.join(order)}"


class AutomationIs(Fact):
    """Whether automation is on, paused by a person, or held because the store is an older copy."""

    automation: Annotated[Automation, "on, paused or held"]

    def why_not(self, seen: Observer) -> str:
        cluster = seen.world.store.cluster
        state = "held" if cluster.restored else "paused" if cluster.pause else "on"
        return "" if state == self.automation else _unlike("automation", state, self.automation)


class CoordinatorIs(Fact):
    """Whether the coordinator's process runs."""

    coordinator: Annotated[Literal["up", "down"], "up or down"]
    terms: Annotated[Number, "how often it started, the first time included"] = None

    def why_not(self, seen: Observer) -> str:
        coordinator = seen.world.coordinator
        state = "up" if coordinator.alive else "down"
        if state != self.coordinator:
            return _unlike("the coordinator", state, self.coordinator)
        if self.terms not in (None, coordinator.term):
            return f"the coordinator started {coordinator.term} times, not {self.terms}"
        return ""


class LoadIs(Fact):
    """How many guests really run on a host."""

    needs_more = True

    load: Annotated[HostRef, "a host"]
    at_least: Annotated[Number, "so many guests or more"] = None
    at_most: Annotated[Number, "so many guests or fewer"] = None

    def why_not(self, seen: Observer) -> str:
        count = sum(self.load in seen.world.running(guest) for guest in seen.world.definitions)
        low, high = self.at_least or 0, self.at_most
        return (
            "" if low <= count and (high is None or count <= high) else f"{count} guests run on {self.load}"
        )


_ALL: tuple[type[Fact], ...] = (
    GuestIs,
    HostIs,
    WasFenced,
    AlertStands,
    NoAlert,
    OperationIs,
    Told,
    NotTold,
    ImagesLie,
    Together,
    Apart,
    InOrder,
    LoadIs,
    Ran,
    AutomationIs,
    CoordinatorIs,
)
FACTS: dict[str, type[Fact]] = {kind.__struct_fields__[0].rstrip("_"): kind for kind in _ALL}  # type: ignore[attr-defined]
