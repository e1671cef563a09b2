"""Long work on the coordinator's own loop, in slices, so that heartbeats are not kept waiting.

In a thread it would take the interpreter away from the loop at each of its many short waits, for longer than a slice.
Not here: what the work is (`drilling`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

SLICE_S = 0.01  # so long at most nothing else is done; one step of the work may take longer
PAUSE_S = 0.003  # between two slices

P = TypeVar("P")
R = TypeVar("R")


async def in_slices(
    work: Generator[P, None, R], told: Callable[[P], None], pause_s: Callable[[], float] = lambda: PAUSE_S
) -> R:
    """To its end; `told` is given what it yields."""
    begun = time.monotonic()
    while True:
        try:
            told(next(work))
        except StopIteration as ended:
            result: R = ended.value
            return result
        if time.monotonic() - begun >= SLICE_S:
            await asyncio.sleep(pause_s())
            begun = time.monotonic()
