"""Virtual time: events run in the order of their times, those of one time in the order in which they were made.

Here: the queue of what will happen. Not here: what happens, or any randomness.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class Clock:
    """Seconds since the beginning of the world."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._queue: list[tuple[float, int, Action]] = []
        self._made = 0

    def at(self, when: float, action: Action) -> None:
        """Run `action` then; at once, but after what is already due, if that time has passed."""
        self._made += 1
        heapq.heappush(self._queue, (max(when, self.now), self._made, action))

    def after(self, delay_s: float, action: Action) -> None:
        self.at(self.now + delay_s, action)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Run everything up to that time, or until `done` says so after some step; whether it did."""
        while self._queue and self._queue[0][0] <= until:
            when, _, action = heapq.heappop(self._queue)
            self.now = when
            self.steps += 1
            action()
            if done is not None and done():
                return True
        self.now = max(self.now, until)
        return False
