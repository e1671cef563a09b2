"""What rules mean: which guests a rule is about, which hosts it allows or likes, who must share a host or keep apart.

Here: rules over records, without places. Not here: whether rules contradict each other (`contradictions`), what
they mean for a place now (`placement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dr.model.base import GuestId, HostName
from dr.model.policy import GuestRule, HostRule, Rule
from dr.model.records import GuestRecord

LABEL = "label:"


def label_of(selector: str) -> tuple[str, str] | None:
    """(key, value) of "label:key=value"; None for a name."""
    if not selector.startswith(LABEL):
        return None
    key, _, value = selector.removeprefix(LABEL).partition("=")
    return key, value


class Members:
    """Which guests each rule is about. Kept guest by guest, since there may be many of them."""

    def __init__(self, rules: tuple[Rule, ...], guests: Iterable[GuestRecord] = ()) -> None:
        self.rules = rules
        self.version = 0  # goes up with every change
        self._by_name: dict[str, list[Rule]] = {}
        self._by_label: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            for selector in dict.fromkeys(rule.guests):
                label = label_of(selector)
                if label is None:
                    self._by_name.setdefault(selector, []).append(rule)
                else:
                    self._by_label.setdefault(label, []).append(rule)
        self._of_rule: dict[str, set[GuestId]] = {rule.name: set() for rule in rules}
        self._of_guest: dict[GuestId, tuple[Rule, ...]] = {}
        if rules:
            for guest in guests:
                self.put(guest)

    def _match(self, guest: GuestRecord) -> tuple[Rule, ...]:
        found = [*self._by_name.get(guest.name, ()), *self._by_name.get(guest.id, ())]
        for label in guest.labels.items() if self._by_label else ():
            found += self._by_label.get(label, ())
        return tuple({rule.name: rule for rule in found}.values())

    def put(self, guest: GuestRecord) -> None:
        """This guest is, or has become, so."""
        if not self.rules:
            return
        rules, before = self._match(guest), self._of_guest.get(guest.id, ())
        if rules == before:
            return
        self.drop(guest.id)
        if rules:
            self._of_guest[guest.id] = rules
        for rule in rules:
            self._of_rule[rule.name].add(guest.id)

    def drop(self, guest_id: GuestId) -> None:
        """This guest is no longer known."""
        self.version += 1
        for rule in self._of_guest.pop(guest_id, ()):
            self._of_rule[rule.name].discard(guest_id)

    def copy(self) -> Members:
        """One that can go its own way."""
        other = Members.__new__(Members)
        other.__dict__ = self.__dict__ | {
            "_of_rule": {name: set(guests) for name, guests in self._of_rule.items()},
            "_of_guest": dict(self._of_guest),
        }
        return other

    # ---- reading

    def about(self, guest_id: GuestId) -> tuple[Rule, ...]:
        """The rules that name this guest."""
        return self._of_guest.get(guest_id, ())

    def host_rules(self, guest_id: GuestId) -> Iterator[HostRule]:
        return (rule for rule in self.about(guest_id) if isinstance(rule, HostRule))

    def guest_rules(self, guest_id: GuestId, kind: str, *, strict: bool) -> Iterator[GuestRule]:
        return (
            rule
            for rule in self.about(guest_id)
            if isinstance(rule, GuestRule) and rule.kind == kind and rule.strict == strict
        )

    def of(self, rule: Rule) -> set[GuestId]:
        """The guests that a rule is about."""
        return self._of_rule[rule.name]

    def group(self, guest_id: GuestId) -> dict[GuestId, str]:
        """Who must share its host over all overlapping strict rules, and by which rule; without itself."""
        found: dict[GuestId, str] = {guest_id: ""}
        todo = [guest_id]
        for each in todo:
            for rule in self.guest_rules(each, "together", strict=True):
                new = sorted(self.of(rule).difference(found))
                found |= dict.fromkeys(new, rule.name)
                todo += new
        del found[guest_id]
        return found

    def liking(self, guest_id: GuestId, host: HostName) -> int:
        """How much its host rules like that host: the sum of the priorities that they give it."""
        return sum(rule.hosts.get(host, 0) for rule in self.host_rules(guest_id))
