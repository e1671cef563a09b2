"""The prober with real ICMP sockets (root), on 127.0.0.1, ::1 and in a network namespace with a silent neighbour."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from dr.adapters.probe.prober import HostProber

NAMESPACE = f"dr-probe-{os.getpid()}"

# One end of a veth pair has 10.255.0.1; behind the other, nobody. 203.0.113.1 has no route at all.
SET_UP = f"""
ip netns add {NAMESPACE}
ip -n {NAMESPACE} link add up0 type veth peer name up1
ip -n {NAMESPACE} addr add 10.255.0.1/24 dev up0
ip -n {NAMESPACE} addr add fd00:255::1/64 dev up0 nodad
ip -n {NAMESPACE} link set up0 up
ip -n {NAMESPACE} link set up1 up
ip -n {NAMESPACE} link set lo up
"""
PROBE = """
import asyncio, sys, time
from dr.adapters.probe.prober import HostProber
prober = HostProber(tcp_port=9)
began = time.monotonic()
found = asyncio.run(prober.probe(tuple(sys.argv[2:]), float(sys.argv[1])))
print((found, time.monotonic() - began, prober.icmp))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    try:
        for line in SET_UP.strip().splitlines():
            subprocess.run(line.split(), check=True)
        yield NAMESPACE
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)


def probe_in(namespace: str, *arguments: str, uid: int = 0) -> tuple[dict[str, bool], float, bool]:
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    command = ["ip", "netns", "exec", namespace, *become, sys.executable, "-c", PROBE, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: tuple[dict[str, bool], float, bool] = ast.literal_eval(out)
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.1.2.3"])
async def test_icmp_answers(address: str) -> None:
    """TCP answers here too, so count the time: ICMP and TCP both, well below a millisecond each."""
    prober = HostProber()
    began = time.monotonic()
    assert await prober.probe((address,), 2) == {address: True}
    print(f"{address}: {(time.monotonic() - began) * 1000:.1f} ms")
    assert prober.icmp


def test_icmp_alone_answers(namespace: str) -> None:
    """TCP is dropped, as on a host whose firewall lets only ping in."""
    chain = "add table inet t; add chain inet t i { type filter hook input priority 0; }"
    rules = f"{chain}; add rule inet t i tcp dport 9 drop"
    subprocess.run(["ip", "netns", "exec", namespace, "nft", rules], check=True)
    for address in ("10.255.0.1", "fd00:255::1"):
        found, took_s, icmp = probe_in(namespace, "2", address)
        assert (found, icmp) == ({address: True}, True)
        assert took_s < 1
        assert probe_in(namespace, "0.3", address, uid=65534)[0] == {
            address: False
        }  # no ICMP, and TCP is dropped


def test_silence_and_blindness(namespace: str) -> None:
    silent = ("10.255.0.2", "fd00:255::2")
    found, took_s, _ = probe_in(namespace, "0.5", *silent, "203.0.113.1")
    print(f"a silent neighbour, window 0.5 s: {took_s:.3f} s")
    assert found == dict.fromkeys(silent, False)
    assert 0.5 <= took_s < 1.5  # 0.503 on an idle machine


def test_without_privileges_tcp_is_enough(namespace: str) -> None:
    found, took_s, icmp = probe_in(namespace, "2", "10.255.0.1", uid=65534)
    assert found == {"10.255.0.1": True}
    assert took_s < 1
    assert not icmp
