"""Checks of real guests: over the network, through the guest agent in them, by what their console shows."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

from dr.adapters.probe.checker import GuestChecker
from dr.model.checks import CheckResult, Http, Ping, Reached, Tcp
from integration.conftest import Wanted
from integration.lab import netns
from integration.site import Site
from integration.watch import run

SITE = Wanted(hosts=2)
PASSED = ["passed"] * 3


def made(site: Site, *checks: Reached, window_s: float = 5.0) -> tuple[CheckResult, ...]:
    """By sockets of the guests' own network, as a drill makes them."""
    where = site.lab.layout.netns_path("switch")

    def there(family: int, kind: int, protocol: int) -> socket.socket:
        return netns.open_socket(where, family, kind, protocol)

    return asyncio.run(GuestChecker(sockets=there).check(checks, window_s))


def test_a_guest_is_reached_from_its_own_network(site: Site) -> None:
    """Ping, TCP and HTTP against a guest, where this process is not; and what a dead one looks like."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    address = site.lab.guest(name).address
    page = Http(address=address, port=80, text=f'"name": "{name}"')
    other = Http(address=address, port=80, status=404)
    ping, tcp, good, bad = made(site, Ping(address=address), Tcp(address=address, port=80), page, other)
    assert (ping.passed, tcp.passed, good.passed) == (True, True, True), (ping, tcp, good)
    assert good.evidence.startswith("200 OK: {")
    assert bad.why == "it answered 200 OK, not 404"
    closed, *_ = made(site, Tcp(address=address, port=81), window_s=1.0)
    assert closed.why == "it refuses the connection"
    site.lab.guest(name).destroy("h1")
    gone = made(site, Ping(address=address), page, window_s=1.0)
    assert [each.passed for each in gone] == [False, False], gone


def check(site: Site, name: str, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """`dr guest check`: its exit code, and what each check found."""
    done = run(site, "guest", "check", name, "-o", "json", *words)
    return done.returncode, json.loads(done.stdout)["items"][name]


def test_its_agent_answers_and_its_console_shows_something(site: Site, tmp_path: Path) -> None:
    """Until somebody suspends it: then it neither runs nor answers, and what it last showed is still there."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, agent=True, screen=True)
    site.dr("guest", "set", name, "--check", "running", "--check", "agent", "--check", "screenshot")
    file = tmp_path / "console.png"
    code, found = check(site, name, "--screenshot", str(file))
    assert ([each["result"] for each in found], code) == (PASSED, 0), found
    picture = file.read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(points(picture)) > 1, "a BIOS has written there"
    host = site.lab.host("h1")
    host.exec(["virsh", "-q", "suspend", name])
    site.wait(lambda: site.guests()[name]["phase"] != "", 5, "the site to answer")
    code, found = check(site, name)
    assert code == 1
    agent = next(each for each in found if each["check"] == "agent")
    assert agent["result"] != "passed"
    assert agent["why"]
    host.exec(["virsh", "-q", "resume", name])
    site.wait(lambda: check(site, name)[0] == 0, 30, f"{name} to do its work again")


def test_a_guest_without_agent_and_screen_says_so(site: Site) -> None:
    (name,) = site.fresh(1)
    site.start_guests({"h2": [name]})
    site.dr("guest", "set", name, "--check", "agent", "--check", "screenshot")
    code, found = check(site, name)
    assert code == 1
    assert [each["result"] for each in found] == ["failed", "failed"], found
    assert "its guest agent does not answer" in found[0]["why"]
    assert "there is no picture of its console" in found[1]["why"]
    assert site.guests()[name]["phase"] == "running"
    assert not site.alerts(), "who asks is told, and nobody else"


def points(png: bytes) -> set[bytes]:
    """The colours in an unfiltered RGB PNG."""
    width, height = struct.unpack_from("!II", png, 16)
    (size,) = struct.unpack_from("!I", png, 33)
    raw = zlib.decompress(png[41 : 41 + size])
    rows = [raw[at * (1 + 3 * width) + 1 : (at + 1) * (1 + 3 * width)] for at in range(height)]
    return {row[at : at + 3] for row in rows for at in range(0, 3 * width, 3)}
