"""Network namespaces, veth pairs and bridges: the wiring of the lab, and sockets opened inside it.

Which links are up and what is dropped is decided in network.py; here is only how it is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from integration.lab import proc
from integration.lab.layout import LabError, Layout, Network, address, mac

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
# No IPv6: its router solicitations are noise. Pings without privilege: as systemd allows them on a real host.
_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ping_group_range": "0 2147483647",
}


def ip_batch(netns: str | None, lines: Iterable[str]) -> None:
    """Run several `ip` commands in one process, inside a namespace (or in none, for `netns` commands)."""
    text = "\n".join(lines)
    if text:
        proc.run(["ip", *(["-n", netns] if netns else []), "-batch", "-"], stdin=text + "\n")


def exists(layout: Layout, role: str) -> bool:
    return layout.netns_path(role).exists()


def names(layout: Layout) -> list[str]:
    """Names of every namespace of this lab, also of a half-made one."""
    root = Path("/run/netns")
    return sorted(entry.name for entry in root.glob(f"{layout.netns_prefix}*")) if root.is_dir() else []


def create(layout: Layout, role: str) -> None:
    """Make a namespace with its loopback up. One that exists is left as it is."""
    if exists(layout, role):
        return
    name = layout.netns(role)
    proc.run(["ip", "netns", "add", name])
    with entered(layout.netns_path(role)):
        # /proc/thread-self/net follows the thread; /proc/sys/net follows the opener's namespace.
        for key, value in _SYSCTLS.items():
            with contextlib.suppress(OSError):
                Path("/proc/sys", key).write_text(value)
    ip_batch(name, ["link set lo up"])


def delete(name: str) -> None:
    """Delete a namespace by its full name; every process in it is killed first. Raises LabError if it stays."""
    path = Path("/run/netns", name)
    for pid in proc.run(["ip", "netns", "pids", name], check=False).stdout.split():
        one = proc.process(int(pid))
        if one is not None:
            one.kill()
    said = ""
    for _ in range(3):  # a mount upon a mount, after an `ip netns add` that was killed half way
        said = proc.run(["ip", "netns", "del", name], check=False).stderr.strip()
        if not path.exists():
            return
    raise LabError(f"cannot delete the network namespace {name}: {said}")


def bridge_lines(name: str, own_mac: str | None = None) -> list[str]:
    """Commands that make a bridge which forwards at once and never floods by multicast snooping."""
    lines = [f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
    return [*lines, *([f"link set {name} address {own_mac}"] if own_mac else []), f"link set {name} up"]


def wire(layout: Layout, role: str, network: Network, name: str) -> None:
    """Connect the namespace `role` to a network of the switch, as `name`: `mgmt0` inside, port `h1-mgmt` (down)."""
    switch, inside = layout.netns("switch"), layout.netns(role)
    port, interface = f"{name}-{network}", f"{network}0"
    peer = f"peer name {interface} address {mac(network, name)} netns {inside}"
    ip_batch(switch, [f"link add {port} type veth {peer}", f"link set {port} master br-{network}"])
    own = [] if network == "guest" else [f"addr add {address(network, name)}/24 dev {interface}"]
    ip_batch(inside, [*own, f"link set {interface} up"])


def ports(layout: Layout) -> set[str]:
    """Names of the devices that exist in the switch now."""
    out = proc.run(["ip", "-n", layout.netns("switch"), "-br", "link"]).stdout
    return {line.split()[0].partition("@")[0] for line in out.splitlines() if line}


@contextlib.contextmanager
def entered(path: Path) -> Iterator[None]:
    """This thread is in the network namespace for as long as the block runs; other threads are not."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _enter(path: Path) -> None:
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(f"no network namespace {path.name}: is the lab up?") from error
    try:
        _setns(there)
    finally:
        os.close(there)


def _setns(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def open_socket(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in another network namespace, usable from this one."""
    with entered(path):
        return socket.socket(family, kind, protocol)
