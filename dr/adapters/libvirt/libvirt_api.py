"""The thin typed edge to libvirt-python, which has no types: names, error codes, the one event loop."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import libvirt

from dr.adapters.libvirt.gate import MARKER
from dr.model.facts import DomainState

log = logging.getLogger(__name__)

LibvirtError: type[Exception] = libvirt.libvirtError

STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: DomainState.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.BLOCKED,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PMSUSPENDED,
}

# Reasons by number, as libvirt-domain.h names them (VIR_DOMAIN_RUNNING_BOOTED is 1, …).
REASONS: dict[DomainState, tuple[str, ...]] = {
    DomainState.RUNNING: (
        "unknown", "booted", "migrated", "restored", "from_snapshot", "unpaused", "migration_canceled",
        "save_canceled", "wakeup", "crashed", "postcopy", "postcopy_failed",
    ),
    DomainState.PAUSED: (
        "unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from_snapshot", "shutting_down",
        "snapshot", "crashed", "starting_up", "postcopy", "postcopy_failed",
    ),
    DomainState.SHUTDOWN: ("unknown", "user"),
    DomainState.SHUTOFF: (
        "unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot", "daemon",
    ),
    DomainState.CRASHED: ("unknown", "panicked"),
}  # fmt: skip


def state_name(number: int) -> DomainState:
    """A state that this code does not know counts as active."""
    return STATES.get(number, DomainState.NOSTATE)


def reason_name(state: DomainState, number: int) -> str:
    names = REASONS.get(state, ())
    return names[number] if 0 <= number < len(names) else "unknown"


def code(error: BaseException) -> int:
    """libvirt's error code, -1 if there is none."""
    found = error.get_error_code() if isinstance(error, libvirt.libvirtError) else None
    return -1 if found is None else int(found)


def is_missing(error: BaseException) -> bool:
    """Whether libvirt said that there is no such domain."""
    return bool(code(error) == libvirt.VIR_ERR_NO_DOMAIN)


def is_unseen(error: BaseException) -> bool:
    """Whether the call's end was not seen: the error was made on this side of the socket, not in libvirtd."""
    if not isinstance(error, libvirt.libvirtError):
        return True
    return bool(error.get_error_domain() in (None, libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE))


def text(error: BaseException) -> str:
    """libvirt's own words; only the hook's, where it was the hook that refused."""
    said = str(error).strip()
    return said.partition(f"{MARKER}: ")[2] or said


_loop_lock = threading.Lock()
_loop_runs = False


def run_event_loop() -> None:
    """Start libvirt's event loop on a daemon thread, once per process and before any connection is opened.

    Events and the close callback need it. Errors are raised anyway, so libvirt's habit of printing them is turned off.
    """
    global _loop_runs  # noqa: PLW0603  # libvirt's own event loop is one per process
    with _loop_lock:
        if _loop_runs:
            return
        libvirt.registerErrorHandler(_ignore, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_turn, name="libvirt events", daemon=True).start()
        _loop_runs = True


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception:
            log.exception("libvirt's event loop failed; going on")
            time.sleep(0.1)


def _ignore(_context: Any, _error: Any) -> None:
    """Instead of writing to stderr."""
