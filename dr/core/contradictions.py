"""Which strict rules cannot all hold, and every rule that takes part. Refused in a configuration, alerted at run time.

Found: guests kept together and apart; guests that must share a host, with no host allowed to all of them; more guests
kept apart than there are hosts allowed to them (a matching); and what several overlapping rules of `apart` forbid only
together (`seating`). That last search is exact up to its bound: rules that knot more than that are not refused, and
guests of theirs that find no host wait, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from dr.core import seating
from dr.core.rules import LABEL, Members, label_of
from dr.core.state import Draft
from dr.model.base import GuestId, HostName, Record, changed
from dr.model.policy import GuestRule, HostRule, Rule
from dr.model.records import GuestRecord
from dr.model.settings import Settings

ALERT = "cluster/contradiction/"
MATCHED_MAX = 400  # groups of one rule with few hosts each; beyond that their guests wait, with the reason
PAIRS_MAX = 20  # looked at for each rule of `apart`; each would be a sentence of its own


class Contradiction(Record):
    rules: tuple[str, ...]  # all that take part: without any one of them the others could hold
    text: str


def contradictions(
    rules: Sequence[Rule], guests: Iterable[GuestRecord], hosts: Iterable[HostName] | None = None
) -> list[Contradiction]:
    """Every set of strict rules that cannot all hold for these guests. `hosts` None: more may join."""
    strict = tuple(rule for rule in rules if rule.strict)
    if not strict:
        return []
    guests = list(guests)
    everyone = Members(strict, guests)
    records = [guest for guest in guests if everyone.about(guest.id)]
    known = None if hosts is None else frozenset(hosts)
    told: dict[tuple[str, ...], Contradiction] = {}
    for each in _found(records, known, strict):
        named = [rule for rule in strict if rule.name in each.rules]
        # What one search names may contradict without some of it in another's eyes.
        core = _core(named, partial(_found, records, known))
        for one in [each] if len(core) == len(named) else _found(records, known, tuple(core)):
            told.setdefault(one.rules, one)
    return list(told.values())


def _found(
    guests: list[GuestRecord], hosts: frozenset[HostName] | None, rules: tuple[Rule, ...]
) -> list[Contradiction]:
    """One for each set of rules that one of the searches names."""
    every = [*_torn(rules, guests), *_homeless(rules, guests), *_crowded(rules, guests, hosts)]
    every += _knotted(rules, guests, hosts)
    return list({each.rules: each for each in reversed(every)}.values())[::-1]


def imagined(rules: Sequence[Rule]) -> list[GuestRecord]:
    """Guests as rules speak of them, where none is known yet: one for each name, and for each label some.

    A rule that names nothing but one label speaks of several guests with it.
    """
    names = dict.fromkeys(selector for rule in rules for selector in rule.guests)
    found = []
    for name in names:
        label = label_of(name)
        if label is None:
            found.append(GuestRecord(id=name, name=name))
            continue
        lone = any(isinstance(rule, GuestRule) and rule.guests == (name,) for rule in rules)
        for number in range(2 if lone else 1):
            text = (
                f"a guest with {name.removeprefix(LABEL)}"
                if not number
                else f"another with {name.removeprefix(LABEL)}"
            )
            found.append(GuestRecord(id=f"{name}#{number}", name=text, labels=dict([label])))
    return found


# ---- together and apart


def _torn(rules: tuple[Rule, ...], guests: list[GuestRecord]) -> Iterator[Contradiction]:
    members = Members(rules, guests)
    names = {guest.id: guest.name for guest in guests}
    ties = [rule for rule in rules if isinstance(rule, GuestRule) and rule.kind == "together"]
    for rule in rules:
        if not isinstance(rule, GuestRule) or rule.kind != "apart":
            continue
        pairs = 0
        for one in sorted(members.of(rule)):
            for other in sorted(members.group(one).keys() & members.of(rule)):
                if one < other and (pairs := pairs + 1) <= PAIRS_MAX:
                    core = _core(ties, partial(_tied, guests, one, other))
                    text = (
                        f"{_called([rule])} keeps {names[one]} and {names[other]} apart, "
                        f"{_called(core)} {'keeps' if len(core) == 1 else 'keep'} them together"
                    )
                    yield _contradiction([rule, *core], text)


def _tied(guests: list[GuestRecord], one: GuestId, other: GuestId, rules: tuple[Rule, ...]) -> bool:
    return other in Members(rules, guests).group(one)


# ---- no host for all


def _homeless(rules: tuple[Rule, ...], guests: list[GuestRecord]) -> Iterator[Contradiction]:
    useful = [rule for rule in rules if isinstance(rule, HostRule) or rule.kind == "together"]
    seen: set[GuestId] = set()
    members = Members(tuple(useful), guests)
    for guest in guests:
        if guest.id in seen:
            continue
        group = {guest.id, *members.group(guest.id)}
        seen |= group
        if _allowed(members, group) != frozenset():
            continue
        about = [rule for rule in useful if members.of(rule) & group]
        inside = [each for each in guests if each.id in group]
        core = _core(about, partial(_no_host, inside))
        held = Members(tuple(core), inside)
        who = [each.name for each in inside if held.about(each.id)]
        where = "; ".join(
            f"{rule.name}: {', '.join(rule.hosts)}" for rule in core if isinstance(rule, HostRule)
        )
        share = f" {_listed(who)}, which must share one" if len(who) > 1 else f" {_listed(who)}"
        yield _contradiction(core, f"{_called(core)} leave no host for{share} ({where})")


def _allowed(members: Members, group: Iterable[GuestId]) -> frozenset[HostName] | None:
    """The hosts that strict rules allow to all of them; None = any."""
    sets = [frozenset(rule.hosts) for each in group for rule in members.host_rules(each)]
    return frozenset.intersection(*sets) if sets else None


def _no_host(guests: list[GuestRecord], rules: tuple[Rule, ...]) -> bool:
    members = Members(rules, guests)
    return any(_allowed(members, {guest.id, *members.group(guest.id)}) == frozenset() for guest in guests)


# ---- too many for the hosts


def _crowded(
    rules: tuple[Rule, ...], guests: list[GuestRecord], hosts: frozenset[HostName] | None
) -> Iterator[Contradiction]:
    for rule in rules:
        if not isinstance(rule, GuestRule) or rule.kind != "apart":
            continue
        too_many = _unmatched(rule, guests, hosts, rules)
        if not too_many:
            continue
        inside = [guest for guest in guests if any(guest.id in group for group in too_many)]
        others = [
            each
            for each in rules
            if each is not rule and not (isinstance(each, GuestRule) and each.kind == "apart")
        ]
        core = _core(others, partial(_unmatched, rule, inside, hosts))
        members = Members((rule, *core), inside)
        who = [guest.name for guest in inside if guest.id in members.of(rule)]
        where = frozenset[HostName]().union(*(_allowed(members, group) or hosts or () for group in too_many))
        limits = f"{_called(core)} {'allows' if len(core) == 1 else 'allow'} them" if core else "there are"
        hosts_left = f"only {len(where)} hosts ({', '.join(sorted(where))})"
        text = f"{_called([rule])} keeps {_listed(who)} apart, {limits} {hosts_left}"
        yield _contradiction([rule, *core], text)


def _unmatched(
    apart: GuestRule, guests: list[GuestRecord], hosts: frozenset[HostName] | None, rules: tuple[Rule, ...]
) -> list[frozenset[GuestId]]:
    """Groups kept apart that have fewer hosts between them than there are groups; [] = each can have its own.

    Guests that may go anywhere fit as long as it is not known how many hosts there are.
    """
    members = Members((apart, *(rule for rule in rules if rule is not apart)), guests)
    groups: dict[frozenset[GuestId], frozenset[HostName]] = {}
    for each in sorted(members.of(apart)):
        group = frozenset({each, *members.group(each)})
        if len(group & members.of(apart)) > 1:
            return []  # apart inside a group: told by `_torn`
        allowed = _allowed(members, group)
        if allowed is not None or hosts is not None:
            groups[group] = (allowed if allowed is not None else hosts) or frozenset()
    if len(groups) > len(frozenset[HostName]().union(*groups.values())):
        return list(groups)
    # Who may go to as many hosts as there are groups finds one in any case.
    groups = {group: allowed for group, allowed in groups.items() if len(allowed) < len(groups)}
    if len(groups) > MATCHED_MAX:
        return []
    taken: dict[HostName, frozenset[GuestId]] = {}

    def settle(group: frozenset[GuestId], tried: dict[HostName, None]) -> bool:
        for host in sorted(groups[group]):
            if host not in tried:
                tried[host] = None
                if host not in taken or settle(taken[host], tried):
                    taken[host] = group
                    return True
        return False

    for group in groups:
        tried: dict[HostName, None] = {}
        if groups[group] and not settle(group, tried):
            # Hall: those who hold what was tried, and this one, are one more than these hosts.
            return [group, *(taken[host] for host in tried)]
    return []


# ---- several rules of apart together


def _knotted(
    rules: tuple[Rule, ...], guests: list[GuestRecord], hosts: frozenset[HostName] | None
) -> Iterator[Contradiction]:
    for some in _overlapping(rules, guests):
        if sum(isinstance(rule, GuestRule) and rule.kind == "apart" for rule in some) < 2:
            continue  # alone it is all told by now
        if not _no_seats(guests, hosts, some):
            continue
        core = _core(list(some), partial(_no_seats, guests, hosts))
        members = Members(tuple(core), guests)
        groups = _seats(members, guests, hosts)
        who = [guest.name for guest in guests if any(guest.id in group for group in groups)]
        where = sorted(frozenset[HostName]().union(*groups.values()))
        yield _contradiction(
            core,
            f"{_called(core)} cannot all hold for {_listed(who)}: there is no way to give each its place "
            f"on {_listed(where)}",
        )


def _overlapping(rules: tuple[Rule, ...], guests: list[GuestRecord]) -> list[tuple[Rule, ...]]:
    """Rules that are about the same guests, directly or through others."""
    members = Members(rules, guests)
    found: list[tuple[Rule, ...]] = []
    left = {rule.name: rule for rule in rules}
    while left:
        todo = [next(iter(left))]
        names = dict.fromkeys(todo)
        for name in todo:
            about = {each.name for guest in members.of(left[name]) for each in members.about(guest)}
            todo += sorted(about - names.keys())
            names |= dict.fromkeys(sorted(about))
        found.append(tuple(rule for rule in rules if rule.name in names))
        left = {name: rule for name, rule in left.items() if name not in names}
    return found


def _seats(
    members: Members, guests: list[GuestRecord], hosts: frozenset[HostName] | None
) -> dict[frozenset[GuestId], frozenset[HostName]]:
    """Guests that share a host, and the hosts that they may have; without those that may go anywhere."""
    found: dict[frozenset[GuestId], frozenset[HostName]] = {}
    seen: set[GuestId] = set()
    for guest in guests:
        if guest.id in seen or not members.about(guest.id):
            continue
        group = frozenset({guest.id, *members.group(guest.id)})
        seen |= group
        allowed = _allowed(members, group)
        if allowed is not None or hosts is not None:
            found[group] = (allowed if allowed is not None else hosts) or frozenset()
    return found


def _no_seats(guests: list[GuestRecord], hosts: frozenset[HostName] | None, rules: tuple[Rule, ...]) -> bool:
    """Whether it is certain that these rules cannot all hold."""
    members = Members(rules, guests)
    groups = _seats(members, guests, hosts)
    number = {guest: at for at, group in enumerate(groups) for guest in group}
    apart = []
    for rule in rules:
        if isinstance(rule, GuestRule) and rule.kind == "apart":
            parties = [number[guest] for guest in members.of(rule) if guest in number]
            if len(set(parties)) < len(parties):
                return True
            apart.append(frozenset(parties))
    return seating.possible(list(groups.values()), apart) is False


# ---- all that take part


def _core(rules: list[Rule] | list[GuestRule], fails: Callable[[tuple[Rule, ...]], object]) -> list[Rule]:
    """Rules of which none can be left out without the failure going away."""
    needed: list[Rule] = list(rules)
    for rule in rules:
        without = [each for each in needed if each is not rule]
        if fails(tuple(without)):
            needed = without
    return needed


def _contradiction(rules: Sequence[Rule], text: str) -> Contradiction:
    return Contradiction(rules=tuple(sorted(rule.name for rule in rules)), text=text)


def _called(rules: Sequence[Rule]) -> str:
    return _called_names([rule.name for rule in rules])


def _called_names(names: Sequence[str]) -> str:
    return f"rule{'s' if len(names) > 1 else ''} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


# ---- at run time


def in_force(draft: Draft, settings: Settings) -> Settings:
    """A new configuration as it comes into force: rules that contradict each other now do not, the old ones stay."""
    found = contradictions(settings.rules, draft.guests())
    if not found or settings.rules == draft.config.rules:
        draft.clear_alert("cluster/rules-refused")
        return settings
    text = "; ".join(each.text for each in found)
    draft.note("config.refused", f"the new rules are refused, the rules before stay in force: {text}")
    draft.alert(
        "cluster/rules-refused",
        "the configuration's rules contradict each other; those before it stay in force",
        text,
        "change one of these rules or a label, then: systemctl reload dr-coordinator",
    )
    return changed(settings, rules=draft.config.rules)


def review(draft: Draft) -> None:
    """Alert what has come to contradict at run time (labels, hosts and guests change); clear what no longer does."""
    raised = [key for key in draft.state.alerts if key.startswith(ALERT)]
    if not draft.config.rules and not raised:
        return
    found = {"+".join(each.rules): each for each in _now(draft)}
    for key in raised:
        if key.removeprefix(ALERT) not in found:
            draft.clear_alert(key)
    for rules, each in found.items():
        key = f"cluster/contradiction/{rules}"
        draft.alert(
            key,
            f"{_called_names(each.rules)} cannot all hold",
            f"{each.text}; strict rules hold all the same, so guests of theirs may wait",
            "change one of these rules or a label; dr guest list says who waits",
        )


def _now(draft: Draft) -> list[Contradiction]:
    """Found anew only when rules, their guests or the hosts have changed."""
    state = draft.state
    basis = (state.members.version, tuple(state.hosts))
    kept = state.memo.get("contradictions")
    if kept is None or kept[0] is not state.settings.rules or kept[1] != basis:
        found = contradictions(state.settings.rules, state.guests.values(), state.hosts)
        kept = state.memo["contradictions"] = (state.settings.rules, basis, found)
    result: list[Contradiction] = kept[2]
    return result
