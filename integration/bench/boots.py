"""How long an isolated boot of three guests takes in the lab, beside bare `virsh start` of three with the same checks.

Three protected guests run on one host all the while. In turns: their clones are booted by `dr drill run drill-host`,
and three other guests of the same kind on the same host by `virsh start`, all at once; an HTTP check of each is made by
the same code. Cloning is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dr.adapters.probe.checker import GuestChecker
from dr.model.checks import Http
from integration.lab import Lab, netns
from integration.site import Site

GUESTS = ("g1", "g2", "g3")
BARE = ("g4", "g5", "g6")
CHECK_S = 60.0


def boots(options: argparse.Namespace) -> dict[str, float]:
    lab = Lab(options.lab)
    lab.down()
    site = Site(lab)
    samples: list[dict[str, float]] = []
    try:
        site.up(2)
        site.start_guests({"h1": GUESTS})
        for name in GUESTS:
            site.dr("guest", "set", name, "--check", f"http://{site.lab.guest(name).address}/")
        for name in BARE:
            lab.define_guest(name, "h1")
        for number in range(options.runs):
            found = isolated(site) | {"bare_s": bare(site)}
            print(f"run {number + 1}: {json.dumps(found)}", flush=True)
            samples.append(found)
    finally:
        lab.down()
    median = {name: statistics.median(each[name] for each in samples) for name in samples[0]}
    ratio = median["checked_s"] / median["bare_s"]
    return {name: round(value, 2) for name, value in median.items()} | {"boot_ratio": round(ratio, 2)}


def isolated(site: Site) -> dict[str, float]:
    """One drill. From the first start: until all checks have passed, and until the verdict, when all is removed."""
    address = f"{site.lab.guest(GUESTS[0]).address.rpartition('.')[0]}.250/24"
    begun = time.monotonic()
    report: dict[str, Any] = site.dr_json("drill", "run", "drill-host", "source=h1", f"address={address}")[
        "report"
    ]
    whole_s = time.monotonic() - begun
    assert report["verdict"] == "passed", report["says"]
    zero_s = -min(each["at_s"] for each in report["timeline"])
    return {
        "drill_s": round(whole_s, 2),
        "clone_s": round(zero_s, 2),
        "boot_to_verdict_s": round(report["timeline"][-1]["at_s"], 2),
        "checked_s": report["recovered_s"],
    }


def bare(site: Site) -> float:
    """From `virsh start` of all three at once until all their checks have passed."""
    checks = tuple(Http(address=site.lab.guest(name).address, port=80) for name in BARE)
    with ThreadPoolExecutor(len(BARE) + 1) as threads:
        checked = threads.submit(passed_at, site, checks)
        time.sleep(1.0)  # it tries already
        begun = time.monotonic()
        list(threads.map(lambda name: site.lab.guest(name).start("h1"), BARE))
        took_s = checked.result() - begun
    for name in BARE:
        site.lab.guest(name).destroy("h1")
    return round(took_s, 2)


def passed_at(site: Site, checks: tuple[Http, ...]) -> float:
    """When all have passed, on the clock of time.monotonic(); made in the guests' own network."""
    where = site.lab.layout.netns_path("switch")

    def there(family: int, kind: int, protocol: int) -> socket.socket:
        return netns.open_socket(where, family, kind, protocol)

    results = asyncio.run(GuestChecker(sockets=there).check(checks, CHECK_S))
    assert all(each.passed for each in results), results
    return time.monotonic()
