"""How long each part of a recovery takes: as measured of this very guest or host, else of others here, else at most.

Here: that choice, and what it rests on, in sentences. Not here: how measurements get into records (`core.measured`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from dr.core.looks import LOOK_S
from dr.core.state import State
from dr.model.base import HostName
from dr.model.drills import Known
from dr.model.records import GuestRecord


class Take(NamedTuple):
    seconds: float
    known: Known


class Takes:
    """Of one fleet at one moment. Every answer is counted, so that `rests_on` tells what was really used."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._used: Counter[tuple[str, Known]] = Counter()
        timers = state.settings.timers
        starts = [each for guest in state.guests.values() for each in guest.starts]
        ends = [each for host in state.hosts.values() for each in host.ended]
        self._start = _common((each.start_s for each in starts), timers.start_s)
        self._check = _common((each.check_s for each in starts), timers.check_s)
        # Late at this at the latest, then looked at by others.
        self._detect = _common((each.detect_s for each in ends), timers.late_ceiling_s + LOOK_S)
        self._prove = _common((each.prove_s for each in ends if each.prove_s), timers.fence_s)

    def start(self, guest: GuestRecord) -> Take:
        return self._told("start", _own(each.start_s for each in guest.starts) or self._start)

    def check(self, guest: GuestRecord) -> Take:
        return self._told("check", _own(each.check_s for each in guest.starts) or self._check)

    def detect(self, host: HostName) -> Take:
        own = _own(each.detect_s for each in self._state.hosts[host].ended)
        return self._told("detect", own or self._detect)

    def prove(self, host: HostName) -> Take:
        own = _own(each.prove_s for each in self._state.hosts[host].ended if each.prove_s)
        return self._told("prove", own or self._prove)

    def _told(self, what: str, take: Take) -> Take:
        self._used[what, take.known] += 1
        return take

    def rests_on(self) -> tuple[str, ...]:
        """A sentence for each kind of time that was asked for."""
        said = []
        for (what, known), count in sorted(self._used.items()):
            noun, most, help_ = _WORDS[what]
            if known is Known.MEASURED:
                said.append(f"{noun}: measured, for {count} as the same {_WHOSE[what]} took last")
            elif known is Known.ALIKE:
                said.append(f"{noun}: for {count} the median of others here, {self._commonly(what):.1f} s")
            else:
                said.append(
                    f"{noun}: for {count} never measured here: taken as {self._commonly(what):g} s, {most}; {help_}"
                )
        return tuple(said)

    def _commonly(self, what: str) -> float:
        take: Take = getattr(self, f"_{what}")
        return take.seconds

    @property
    def assumed(self) -> tuple[str, ...]:
        """The kinds of time that nothing here was ever measured of."""
        return tuple(sorted({what for (what, known) in self._used if known is Known.ASSUMED}))


_WHOSE = {"detect": "host", "prove": "host", "start": "guest", "check": "guest"}
_WORDS = {
    "detect": (
        "Noticing that a host is silent",
        "which is when it is late at the latest",
        "the first failover measures it",
    ),
    "prove": (
        "Proving it dead",
        "which is the most that one level of fencing may take",
        "dr fence test measures it",
    ),
    "start": ("Starting a guest", "after which a start counts as unknown", "the first start measures it"),
    "check": (
        "Waiting for its check",
        "for which it is waited at most",
        "the first start that is checked measures it",
    ),
}


def _own(found: Iterable[float | None]) -> Take | None:
    """Of what was measured of the very one."""
    known = [each for each in found if each is not None]
    return Take(median(known), Known.MEASURED) if known else None


def _common(found: Iterable[float | None], most_s: float) -> Take:
    """Of what was measured of all of them; at most so long if nothing was."""
    known = [each for each in found if each is not None]
    return Take(median(known), Known.ALIKE) if known else Take(most_s, Known.ASSUMED)
