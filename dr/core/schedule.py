"""When each guest of a host that is emptied would begin and end its move, and what no order could beat.

Arithmetic over what is to be sent: in turn, as many at once as hosts may send and receive, as a drain does it
(`upkeep`); those that are under way share each link evenly, as TCP about does. Here: times. Not here: what is sent, and
how fast hosts are (`links`), who goes first (`upkeep`), where each goes and what is told of it (`forecast`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from dr.model.base import HostName

REST = 1e-9  # seconds, or MiB: so little is left by rounding only

Link = tuple[Literal["out", "in"], HostName]


class Sending(NamedTuple):
    """One guest on its way from host to host, now or when its turn comes."""

    key: str
    source: HostName
    to: HostName
    mib: float  # still to be sent
    company: str = ""  # those of one company begin together, and count as one against the bounds
    under_way: bool = False

    @property
    def links(self) -> tuple[Link, Link]:
        return ("out", self.source), ("in", self.to)


class Ways(NamedTuple):
    """What the network and the settings allow."""

    mib_s: Callable[[HostName], float]  # that a host sends, and receives; more than 0
    out_max: int
    in_max: int
    extra_s: float  # that each move takes beside the sending


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


def spans(sendings: Iterable[Sending], ways: Ways) -> dict[str, Span]:
    """Those under way, then the others in turn: who cannot begin yet lets those behind go ahead."""
    waiting = list(sendings)
    busy = [_Busy(each, 0.0, 0.0) for each in waiting if each.under_way]
    waiting = [each for each in waiting if not each.under_way]
    now_s, found = 0.0, dict[str, Span]()
    while waiting or busy:
        begin = _that_begin(waiting, [each.sending for each in busy], ways)
        waiting = [each for each in waiting if each.key not in begin]
        busy += (_Busy(each, now_s, ways.extra_s) for each in begin.values())
        now_s += _go_on(busy, ways)
        for ended in [each for each in busy if each.extra_s <= REST and each.left_mib <= REST]:
            busy.remove(ended)
            found[ended.sending.key] = Span(ended.begun_s, now_s)
    return found


def _that_begin(waiting: Sequence[Sending], busy: Sequence[Sending], ways: Ways) -> dict[str, Sending]:
    count: dict[Link, int] = {}
    companies: set[str] = set()
    begin: dict[str, Sending] = {}

    def take(sending: Sending) -> None:
        for link in sending.links:
            count[link] = count.get(link, 0) + 1

    for each in busy:
        take(each)
    for each in waiting:
        out, into = each.links
        free = count.get(out, 0) < ways.out_max and count.get(into, 0) < ways.in_max
        if free or each.company in companies:
            take(each)
            begin[each.key] = each
            companies |= {each.company} - {""}
    return begin


def _go_on(busy: Sequence[_Busy], ways: Ways) -> float:
    """To the next moment at which a move ends, or begins to send; returns how long that takes."""
    preparing = [each for each in busy if each.extra_s > REST]
    sending = [each for each in busy if each.extra_s <= REST]
    speeds = shares([each.sending for each in sending], ways.mib_s)
    steps = [each.left_mib / speed for each, speed in zip(sending, speeds, strict=True)]
    step_s = min(steps + [each.extra_s for each in preparing])
    for each in preparing:
        each.extra_s -= step_s
    for each, speed in zip(sending, speeds, strict=True):
        each.left_mib -= speed * step_s
    return step_s


def shares(sendings: Sequence[Sending], mib_s: Callable[[HostName], float]) -> list[float]:
    """MiB/s of each: every link is shared evenly, and what one cannot use for another link's sake, the others do."""
    left: dict[Link, float] = {}
    users: dict[Link, set[int]] = {}
    for at, each in enumerate(sendings):
        for link in each.links:
            left[link] = mib_s(link[1])
            users.setdefault(link, set()).add(at)
    found = [0.0] * len(sendings)
    while users:
        narrow = min(users, key=lambda link: (left[link] / len(users[link]), link))
        share = left[narrow] / len(users[narrow])
        for at in sorted(users[narrow]):
            found[at] = share
            for link in sendings[at].links:
                users[link].discard(at)
                left[link] -= share
        users = {link: those for link, those in users.items() if those}
    return found


def bound_s(sendings: Sequence[Sending], mib_s: Callable[[HostName], float]) -> float:
    """What links carry at best: each link all that goes over it, and each guest over the narrower of its two."""
    through: dict[Link, float] = {}
    for each in sendings:
        for link in each.links:
            through[link] = through.get(link, 0.0) + each.mib
    links = [mib / mib_s(name) for (_, name), mib in through.items()]
    longest = [each.mib / min(mib_s(each.source), mib_s(each.to)) for each in sendings]
    return max(links + longest, default=0.0)
