"""Talk to systemd: ready, status, stopping, watchdog. Standard library only; silent where there is no systemd."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1` to the service manager, if one asked. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        ) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        pass  # whoever started us with the variable set does not listen: not worth a failure


def watchdog_s() -> float:
    """How often systemd wants to hear `WATCHDOG=1`, in seconds; 0 = not at all."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
