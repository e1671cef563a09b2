"""How long an isolated boot of three guests takes in the lab, beside bare `virsh start` of three with the same checks.

Three protected guests run on one host all the while. In turns: their clones are booted by `dr drill run drill-host`,
and three other guests of the same kind on the same host by `virsh start`, all at once; an HTTP check of each is made by
the same code. Cloning is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from integration.lab import Lab
from integration.site import Site

GUESTS = ("g1", "g2", "g3")
BARE = ("g4", "g5", "g6")
CHECK_S = 60.0
CHECKING = """
import asyncio, sys, time
from dr.adapters.probe.checker import GuestChecker
from dr.model.spelling import check_of
checks = tuple(check_of(each) for each in sys.argv[2:])
found = asyncio.run(GuestChecker().check(checks, float(sys.argv[1])))
assert all(each.passed for each in found), found
print(time.monotonic())
"""


def boots(options: argparse.Namespace) -> dict[str, float]:
    lab = Lab(options.lab)
    lab.down()
    site = Site(lab)
    samples: list[dict[str, float]] = []
    try:
        site.up(2)
        site.start_guests({"h1": GUESTS})
        for name in GUESTS:
            site.dr("guest", "set", name, "--check", check_of(site, name))
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


def check_of(site: Site, name: str) -> str:
    return f"http://{site.lab.guest(name).address}/"


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
    checker = site.lab.ctl.popen(
        [sys.executable, "-c", CHECKING, str(CHECK_S), *(check_of(site, name) for name in BARE)],
        stdout=subprocess.PIPE,
    )
    time.sleep(1.0)  # it tries already
    begun = time.monotonic()
    with ThreadPoolExecutor(len(BARE)) as starts:
        list(starts.map(lambda name: site.lab.guest(name).start("h1"), BARE))
    said, _ = checker.communicate(timeout=CHECK_S + 30)
    for name in BARE:
        site.lab.guest(name).destroy("h1")
    return round(float(said) - begun, 2)
