"""The network of a drill: a namespace of its own with one bridge, the taps of its clones, and nothing else.

It has no name and no file: this process holds it open, and when it lets go, or dies, the kernel takes it apart with
all that is in it. A bridge among the host's own interfaces would not do: the host's IP stack listens on it, answers
ARP for every address that the host has, and forwards where the host is a router. Here there is no way out to close.
libvirt makes a clone's taps in the host's namespace, while the clone stands still; they are moved before it runs.
Not here: domains (`clones`), what is asked of clones (`dr.adapters.probe`).
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dr.ports.clones import CloneError

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
IP_S = 10.0
ADDRESSES_MAX = 16
HERE = "/proc/thread-self/ns/net"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# No router, no IPv6 of its own: nothing in here may speak by itself, or pass anything on.
QUIET = {
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}

_libc = ctypes.CDLL(None, use_errno=True)


class Bubble:
    """Made at once, empty. All functions block, each for a bounded time; they raise CloneError."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self._addresses: set[str] = set()
        self._space = -1
        self._space = _apart(_unshare, self._make)

    def _make(self) -> int:
        for name, value in QUIET.items():
            path = Path("/proc/sys", name)  # of the opener's namespace
            if path.exists():
                path.write_text(value)
        name = self.bridge
        _ip(
            "link set lo up",
            f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {name} up",
        )
        return os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)

    def require_address(self, address: str) -> None:
        """What looks into it from here has that address, "10.0.0.1/24"; "": nothing more."""
        if not address or address in self._addresses:
            return
        try:
            wanted = ipaddress.ip_interface(address if "/" in address else "")
        except ValueError:
            raise CloneError(f"{address[:80]!r} is no address with the length of its network") from None
        if len(self._addresses) >= ADDRESSES_MAX:
            raise CloneError(f"the drill has {ADDRESSES_MAX} addresses of its own here, and that is enough")

        def add() -> None:
            if wanted.version == 6:
                Path("/proc/sys/net/ipv6/conf", self.bridge, "disable_ipv6").write_text("0")
            _ip(f"addr add {wanted} dev {self.bridge}" + (" nodad" if wanted.version == 6 else ""))

        self._within(add)
        self._addresses.add(address)

    def take(self, taps: tuple[str, ...]) -> None:
        """Move taps in from the host's namespace, and connect them."""
        if self._space < 0:
            raise CloneError("the drill's network has ended")
        if not taps:
            return
        there = f"/proc/self/fd/{self._space}"
        _ip(*(f"link set {tap} netns {there}" for tap in taps), keep=self._space)
        self._within(lambda: _ip(*(f"link set {tap} master {self.bridge} up" for tap in taps)))

    def links(self) -> tuple[str, ...]:
        """Every network device in it but the loopback and the bridge."""
        told = self._within(lambda: _ip("-json link show"))
        names = {str(link["ifname"]) for link in json.loads(told)}
        return tuple(sorted(names - {"lo", self.bridge}))

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """A socket that lives in it, for use from here. Raises OSError."""
        try:
            return self._within(lambda: socket.socket(family, kind, protocol))
        except CloneError as error:
            raise OSError(errno.ENETDOWN, str(error)) from error

    def close(self) -> None:
        """Let go of it: it ends, with everything that is in it."""
        space, self._space = self._space, -1
        if space >= 0:
            os.close(space)

    def _within(self, work: Callable[[], T]) -> T:
        if self._space < 0:
            raise CloneError("the drill's network has ended")
        return _apart(lambda: _setns(self._space), work)


def _apart(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """Do it on a thread of its own that enters a namespace and ends there: a namespace is a thread's own matter."""
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            result.append(work())
        except BaseException as error:  # handed to the caller, whatever it is
            failed.append(error)

    thread = threading.Thread(target=run, name="network of a drill", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


def _unshare() -> None:
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise CloneError(f"this host gives no network namespace: {os.strerror(ctypes.get_errno())}")


def _setns(space: int) -> None:
    if _libc.setns(space, CLONE_NEWNET) != 0:
        raise CloneError(f"the drill's network cannot be entered: {os.strerror(ctypes.get_errno())}")


def _ip(*lines: str, keep: int = -1) -> str:
    """Run `ip` in this thread's namespace: one line with its own options, or several as one batch."""
    program = shutil.which("ip", path=PATH)
    if program is None:
        raise CloneError("there is no `ip` on this host: apt install iproute2")
    batch = len(lines) > 1 or not lines[0].startswith("-")
    try:
        done = subprocess.run(
            [program, "-batch", "-"] if batch else [program, *lines[0].split()],
            input="\n".join(lines) + "\n" if batch else "",
            capture_output=True,
            text=True,
            timeout=IP_S,
            check=False,
            pass_fds=(keep,) if keep >= 0 else (),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CloneError(f"`ip` did not do its work: {error}") from error
    if done.returncode:
        raise CloneError(f"`ip` failed: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout
