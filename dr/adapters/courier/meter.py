"""How far a copy is, how fast it goes, and how fast it may go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from dr.adapters.courier.chunks import MIB
from dr.model.base import GuestId
from dr.model.facts import Progress

RATE_OVER_S = 5.0
SAMPLE_S = 0.25


class Meter:
    """Written by the thread that sends, read by the event loop."""

    def __init__(self, guest: GuestId, mib_s: int, pause: Callable[[float], None]) -> None:
        """`mib_s`: no faster than that, 0 for as fast as it goes; `pause` waits so many seconds."""
        self.data_b = 0  # of all files, at the source
        self.passed_b = 0  # of that, sent or found equal
        self.sent_b = 0
        self._guest = guest
        self._cap_b_s = mib_s * MIB
        self._pause = pause
        self._began = self._free_at = monotonic()
        self._samples: deque[tuple[float, int]] = deque(
            [(self._began, 0)], maxlen=round(RATE_OVER_S / SAMPLE_S)
        )
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return monotonic() - self._began

    def pace(self, size_b: int) -> None:
        """So many bytes are about to be sent: waits until they may."""
        now = monotonic()
        if self._cap_b_s:
            self._free_at = max(now, self._free_at) + size_b / self._cap_b_s
        self._pause(max(0.0, self._free_at - now))
        self.sent_b += size_b
        with self._lock:
            if now - self._samples[-1][0] >= SAMPLE_S:
                self._samples.append((now, self.sent_b))

    def progress(self) -> Progress:
        """As of now."""
        now = monotonic()
        with self._lock:
            recent = [sample for sample in self._samples if now - sample[0] <= RATE_OVER_S]
        began, sent_b = recent[0] if recent else (now - RATE_OVER_S, self.sent_b)
        return Progress(
            guest=self._guest,
            elapsed_s=now - self._began,
            total_mib=self.data_b / MIB,
            remaining_mib=max(0, self.data_b - self.passed_b) / MIB,
            rate_mib_s=(self.sent_b - sent_b) / MIB / max(SAMPLE_S, now - began),
        )
