"""When moves that share links begin and end, and what no order of them could beat.

Arithmetic over what is to be sent: those that are under way share each link evenly, as TCP about does, and whenever one
has ended it is asked who begins. Here: times. Not here: what is sent, and how fast hosts are (`links`), who begins when
and where it goes (`rehearsal`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Literal, NamedTuple

from dr.model.base import HostName

REST = 1e-9  # seconds, or MiB: so little is left by rounding only

Link = tuple[Literal["out", "in", "own"], str]
Rate = Callable[[HostName], float]  # MiB/s that a host sends, and receives; more than 0


class Sending(NamedTuple):
    """One guest on its way from host to host."""

    key: str
    source: HostName
    to: HostName
    mib: float  # still to be sent
    alone: bool = False  # it shares its links with nobody, who begins it sees to that
    most_mib_s: float = inf  # of its own, whatever links carry

    @property
    def links(self) -> tuple[Link, Link]:
        return ("out", self.source), ("in", self.to)


Begin = Callable[
    [float, Sequence[Sending]], Iterable[Sending]
]  # when, and what is under way then: who begins


class Span(NamedTuple):
    """In seconds from now."""

    begins_s: float
    ends_s: float


class _Busy:
    """A move that is under way: first its destination is prepared, then it is sent."""

    def __init__(self, sending: Sending, begun_s: float, extra_s: float) -> None:
        self.sending = sending
        self.begun_s = begun_s
        self.extra_s = extra_s
        self.left_mib = sending.mib

    @property
    def left(self) -> Sending:
        return self.sending._replace(mib=max(0.0, self.left_mib))


def spans(under_way: Iterable[Sending], begin: Begin, mib_s: Rate, extra_s: float = 0.0) -> dict[str, Span]:
    """Until nothing is under way and nobody begins. `extra_s`: what each that begins takes beside the sending."""
    busy = [_Busy(each, 0.0, 0.0) for each in under_way]
    now_s, found = 0.0, dict[str, Span]()
    while True:
        busy += [_Busy(each, now_s, extra_s) for each in begin(now_s, [each.left for each in busy])]
        if not busy:
            return found
        now_s += _go_on(busy, mib_s)
        for ended in [each for each in busy if each.extra_s <= REST and each.left_mib <= REST]:
            busy.remove(ended)
            found[ended.sending.key] = Span(ended.begun_s, now_s)


def in_order(waiting: Iterable[Sending], out_max: int) -> Begin:
    """Those wait for nothing but free hands of their sources: so many leave each at once."""
    left = list(waiting)

    def begin(now_s: float, busy: Sequence[Sending]) -> list[Sending]:
        leaving = Counter(each.source for each in busy)
        begun = []
        for each in list(left):
            if leaving[each.source] < out_max:
                leaving[each.source] += 1
                left.remove(each)
                begun.append(each)
        return begun

    return begin


def _go_on(busy: list[_Busy], mib_s: Rate) -> float:
    """To the next moment at which a move ends, or begins to send; returns how long that takes."""
    preparing = [each for each in busy if each.extra_s > REST]
    sending = [each for each in busy if each.extra_s <= REST]
    speeds = shares([each.sending for each in sending], mib_s)
    steps = [each.left_mib / speed for each, speed in zip(sending, speeds, strict=True)]
    step_s = min(steps + [each.extra_s for each in preparing])
    for each in preparing:
        each.extra_s -= step_s
    for each, speed in zip(sending, speeds, strict=True):
        each.left_mib -= speed * step_s
    return step_s


def shares(sendings: Sequence[Sending], mib_s: Rate) -> list[float]:
    """MiB/s of each: every link is shared evenly, and what one cannot use for another link's sake, the others do."""
    left: dict[Link, float] = {}
    users: dict[Link, set[int]] = {}
    for at, each in enumerate(sendings):
        for link in each.links:
            left[link] = mib_s(link[1])
            users.setdefault(link, set()).add(at)
        own: Link = ("own", f"{at:06}")
        left[own], users[own] = each.most_mib_s, {at}
    found = [0.0] * len(sendings)
    while users:
        narrow = min(users, key=lambda link: (left[link] / len(users[link]), link))
        share = left[narrow] / len(users[narrow])
        for at in sorted(users[narrow]):
            found[at] = share
            for link in sendings[at].links:
                users[link].discard(at)
                left[link] -= share
            del users["own", f"{at:06}"]
        users = {link: those for link, those in users.items() if those}
    return found


def bound_s(sendings: Sequence[Sending], mib_s: Rate) -> float:
    """What links carry at best: each link all that goes over it, and each guest over the narrower of its two, as fast
    as it may.
    """
    through: dict[Link, float] = {}
    for each in sendings:
        for link in each.links:
            through[link] = through.get(link, 0.0) + each.mib
    links = [mib / mib_s(name) for (_, name), mib in through.items()]
    longest = [each.mib / min(mib_s(each.source), mib_s(each.to), each.most_mib_s) for each in sendings]
    return max(links + longest, default=0.0)
