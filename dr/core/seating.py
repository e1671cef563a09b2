"""Whether parties that must keep apart can each have a place among those allowed to them: exact, up to a bound.

This is list colouring of a graph, which is hard in general and easy for what people write: whoever has more places
than neighbours never stands in the way and is left out first; the others are searched, tightest first, and of places
that nobody can tell apart only one is tried. Here: numbers and sets. Not here: what rules mean (`contradictions`).
"""

from __future__ import annotations

from collections.abc import Sequence

PARTIES_MAX = 80  # that stand in each other's way; more are not searched
STEPS_MAX = 3000  # of the search, some microseconds each


class _Beyond(Exception):
    """The search has taken its steps."""


def possible(allowed: Sequence[frozenset[str]], apart: Sequence[frozenset[int]]) -> bool | None:
    """`allowed`: the places of each party; `apart`: those of which no two may share one. None: beyond the bound."""
    core = _tight(allowed, apart)
    if any(not allowed[each] for each in core):
        return False
    if len(core) > PARTIES_MAX:
        return None
    sets = [each & core for each in apart]
    neighbours = {each: frozenset().union(*(some for some in sets if each in some)) - {each} for each in core}
    try:
        return _Search({each: allowed[each] for each in core}, neighbours).done()
    except _Beyond:
        return None


def _tight(allowed: Sequence[frozenset[str]], apart: Sequence[frozenset[int]]) -> frozenset[int]:
    """Parties that may stand in each other's way: each has at least as many neighbours left as places."""
    left = set(range(len(allowed)))
    sets = [set(each) for each in apart]
    while True:
        loose = {
            each for each in left if sum(len(some) - 1 for some in sets if each in some) < len(allowed[each])
        }
        if not loose:
            return frozenset(left)
        left -= loose
        for some in sets:
            some -= loose


class _Search:
    def __init__(self, allowed: dict[int, frozenset[str]], neighbours: dict[int, frozenset[int]]) -> None:
        self.allowed = allowed
        self.neighbours = neighbours
        self.at: dict[int, str] = {}
        self.steps = STEPS_MAX
        places = sorted(frozenset[str]().union(*allowed.values()))
        # Places that the same parties may take are alike as long as nobody has one.
        self.kind = {place: frozenset(each for each in allowed if place in allowed[each]) for place in places}

    def done(self) -> bool:
        """Whether all who have no place yet can be given one."""
        if len(self.at) == len(self.allowed):
            return True
        self.steps -= 1
        if self.steps < 0:
            raise _Beyond
        open_to = {each: self._open_to(each) for each in self.allowed if each not in self.at}
        tightest = min(open_to, key=lambda each: (len(open_to[each]), -len(self.neighbours[each]), each))
        taken = set(self.at.values())
        tried: set[frozenset[int]] = set()
        for place in sorted(open_to[tightest]):
            if place not in taken:
                if self.kind[place] in tried:
                    continue
                tried.add(self.kind[place])
            self.at[tightest] = place
            if self.done():
                return True
            del self.at[tightest]
        return False

    def _open_to(self, party: int) -> frozenset[str]:
        return self.allowed[party] - {self.at[each] for each in self.neighbours[party] if each in self.at}
