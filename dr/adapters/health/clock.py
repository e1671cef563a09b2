"""The wall clock: whether the kernel is being synchronised, and how far off it believes to be.

Wall time is data for people, certificates and logs; no decision depends on it, so this is never critical.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from dr.model.facts import Level, Reading

STA_UNSYNC = 0x0040  # linux/timex.h
STA_NANO = 0x2000
TIME_ERROR = 5
OFFSET_MS_MAX = 500.0


@dataclass(frozen=True)
class ClockState:
    """What adjtimex(2) says."""

    synchronised: bool
    offset_ms: float


class _Timex(ctypes.Structure):
    """struct timex; the rest of it is only made room for."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def read_clock() -> ClockState:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = _Timex()
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex failed")
    return ClockState(
        synchronised=state != TIME_ERROR and not timex.status & STA_UNSYNC,
        offset_ms=timex.offset / (1e6 if timex.status & STA_NANO else 1e3),
    )


def clock(read: Callable[[], ClockState] = read_clock) -> tuple[Reading, ...]:
    """Raises OSError."""
    state = read()
    if not state.synchronised:
        reason = "the clock is not synchronised: install chrony, or look at `timedatectl`."
        return (Reading(part="clock", level=Level.WARN, reason=reason),)
    if abs(state.offset_ms) > OFFSET_MS_MAX:
        reason = f"the clock is off by {state.offset_ms:.0f} ms."
        return (Reading(part="clock", level=Level.WARN, reason=reason),)
    return (Reading(part="clock", level=Level.OK),)
