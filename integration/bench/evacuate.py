"""`make bench-evacuate`: eight guests leave one host for two others, by `dr host drain` and by loops of bare virsh.

Each host's storage link carries 20 MiB/s each way, and dr's configuration says so. The guests differ in how much of
their memory is filled; four of them make memory dirty all the while, two so fast that the link cannot keep up with
them, the others only write their disk logs. First virsh
moves them, one after the other, then two and four at a time, in order of their names and to the two hosts by turns;
after each the guests go back over fast links. Then they are protected, and dr drains the host. The last line is one
JSON object; times are the commands' own, from their start to their end:

- makespan_s: of `dr host drain`, until nothing is left on the host.
- bound_s: what no schedule can beat, max(ΣS / B_out, max_j ΣS_j / B_in, max S / B) for the bytes S that QEMU sent in
  that drain, B being 20 MiB/s with all headers: some 5 % of it are not QEMU's.
- bound_ratio: makespan_s / bound_s.
- virsh_serial_s, virsh_2_s, virsh_4_s: of the loops of virsh, one, two and four at a time.
- forecast_error_median: over the guests, by how much the end of each move was another than `dr plan evacuate` told just
  before, as a share of the time until that end.
- rung_hit_ratio: of the guests, how many moved on the rung that `dr plan evacuate` told (plain, a longer standstill,
  slowed down).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from integration.bench import virsh
from integration.lab import Lab
from integration.site import Site

FILLED_MIB = {"g1": 0, "g2": 64, "g3": 8, "g4": 32, "g5": 0, "g6": 72, "g7": 24, "g8": 16}
EMPTY_MIB = 80  # what a guest needs beside that, and what it writes to
DIRTY_MIB_S = {"g3": 2, "g4": 30, "g6": 30, "g7": 3}  # over and over the same
# MiB. What g4 writes to is sent while it stands still for longer than QEMU would let it; g6 has to be slowed down.
DIRTY_MIB = {"g3": 16, "g4": 16, "g6": 40, "g7": 16}
LINK_MIB_S = 20
SOURCE, DESTINATIONS = "h1", ("h2", "h3")
BY_TURNS = {guest: DESTINATIONS[index % 2] for index, guest in enumerate(FILLED_MIB)}
MEASURED_S = 240.0  # each takes 33 s, twelve at a time, a minute after it began to run at the latest
RUNG = re.compile(r"moved from \S+ to \S+ in [\d.]+ s, (plain|standstill|slowed down)")
AT_ONCE = {"virsh_serial_s": 1, "virsh_2_s": 2, "virsh_4_s": 4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", default="bench")
    options = parser.parse_args()
    lab = Lab(options.lab)
    lab.down()
    site = Site(lab)
    found: dict[str, float | None] = {}
    try:
        site.up(1 + len(DESTINATIONS), settings=f"limits: {{migration_mib_s: {LINK_MIB_S}}}\n")
        boots = start(site)
        for name, count in AT_ONCE.items():
            found[name] = over_slow_links(lab, partial(by_virsh, lab, BY_TURNS, count))
            told(lab, f"virsh, {count} at a time", found[name], BY_TURNS)
            assert_whole(lab, boots)
            by_virsh(lab, dict.fromkeys(FILLED_MIB, SOURCE), 2)
            assert_whole(lab, boots)
        site.protect(*FILLED_MIB)
        found |= drained(site)
        assert_whole(lab, boots)
    finally:
        lab.down()
    print(json.dumps(found))


def start(site: Site) -> dict[str, str]:
    """All on one host, none protected; their boots' ids.

    Also those that only write their disk logs dirty some pages while a slow migration passes over them: all are `busy`.
    """
    for guest, filled in FILLED_MIB.items():
        site.lab.define_guest(
            guest,
            SOURCE,
            start=True,
            mem_mib=EMPTY_MIB + filled + DIRTY_MIB.get(guest, 16),
            busy=True,
            dirty_mib_s=DIRTY_MIB_S.get(guest, 0),
            kernel_args=f"dr.fill={filled} dr.dirtysize={DIRTY_MIB.get(guest, 16)}",
        )
    return {guest: site.lab.guest(guest).wait_answering(60).boot for guest in FILLED_MIB}


def assert_whole(lab: Lab, boots: dict[str, str]) -> None:
    """Every guest runs once, and has not been started anew."""
    for guest, boot in boots.items():
        last = "".join(f"\n{host}: {lab.guest(guest).console(host)[-500:]}" for host in lab.host_names)
        assert len(lab.qemu_hosts(guest)) == 1, f"{guest} runs on {lab.qemu_hosts(guest)}{last}"
        assert lab.guest(guest).wait_answering(10).boot == boot, f"{guest} was started anew{last}"
        assert not lab.double_writer(guest), f"two wrote to the disk of {guest}"


def over_slow_links(lab: Lab, move: Callable[[], object]) -> float:
    """How long that takes, in seconds."""
    for host in lab.host_names:
        lab.faults.slow(host, "stor", LINK_MIB_S)
    began = time.monotonic()
    move()
    took_s = time.monotonic() - began
    for host in lab.host_names:
        lab.faults.fast(host, "stor")
    return round(took_s, 2)


def by_virsh(lab: Lab, to: dict[str, str], count: int) -> None:
    """Move all, so many at a time, from wherever they run."""

    def move(guest: str) -> None:
        (at,) = lab.qemu_hosts(guest)
        virsh.migrate(lab, guest, at, to[guest])

    with ThreadPoolExecutor(count) as workers:
        list(workers.map(move, to))


def drained(site: Site) -> dict[str, float | None]:
    """By dr, and what bounds it."""
    lab = site.lab
    site.wait(lambda: measured(site), MEASURED_S, "every guest to be measured", every_s=2.0)
    plan = site.dr_json("plan", "evacuate", SOURCE)
    makespan_s = over_slow_links(lab, lambda: site.dr("host", "drain", SOURCE, timeout_s=600))
    where = {guest: host for guest in FILLED_MIB for host in lab.qemu_hosts(guest)}
    sent = told(lab, "dr", makespan_s, where)
    into = {host: sum(sent[guest] for guest in sent if where[guest] == host) for host in DESTINATIONS}
    bound_s = max(sum(sent.values()), *into.values(), *sent.values()) / LINK_MIB_S
    return {
        "makespan_s": makespan_s,
        "bound_s": round(bound_s, 2),
        "bound_ratio": round(makespan_s / bound_s, 3),
        "forecast_error_median": forecast_error(site, plan),
        "rung_hit_ratio": rung_hits(site, plan),
    }


def measured(site: Site) -> bool:
    """Whether it is known how fast each makes memory dirty; a dry run has those measured of whom it is not."""
    dry = site.dr_json("host", "drain", SOURCE, "--dry-run")
    return not any("not measured" in each for each in dry["forecast"]["rests_on"])


def arrivals(site: Site) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The drain that has just ended, and what was noted as each of its guests arrived."""
    job = [job for job in site.get("/v1/operations")["items"] if job["op"] == "drain"][-1]
    notes = {
        note["guest_name"]: note
        for note in site.timeline()
        if note["topic"] == "guest.running" and note["wall"] > job["opened_wall"]
    }
    return job, notes


def rung_hits(site: Site, plan: dict[str, Any]) -> float:
    """Over its guests."""
    _, notes = arrivals(site)
    took = {name: found[1] for name, note in notes.items() if (found := RUNG.search(note["text"]))}
    foretold = {guest["name"]: guest["rung"] for guest in plan["guests"]}
    each = ", ".join(f"{name} {foretold[name]} and {took.get(name)}" for name in foretold)
    print(f"rungs foretold and taken: {each}", flush=True)
    hits = [name for name in foretold if foretold[name] == took.get(name)]
    return round(len(hits) / len(foretold), 3)


def forecast_error(site: Site, plan: dict[str, Any]) -> float:
    """The median over its guests."""
    job, notes = arrivals(site)
    ended_s = {name: note["wall"] - job["opened_wall"] for name, note in notes.items()}
    foretold_s = {guest["name"]: guest["ends_s"] for guest in plan["guests"]}
    each = ", ".join(f"{name} {foretold_s[name]:.1f} and {ended_s[name]:.1f} s" for name in foretold_s)
    print(f"foretold {plan['forecast']['total_s']} s in all; ends foretold and come true: {each}", flush=True)
    errors: list[float] = [abs(foretold_s[name] - ended_s[name]) / ended_s[name] for name in foretold_s]
    return round(statistics.median(errors), 3)


def told(lab: Lab, how: str, took_s: float | None, where: dict[str, str]) -> dict[str, float]:
    """Say what was sent; MiB by guest."""
    jobs = {guest: virsh.arrived(lab, guest, host) for guest, host in where.items()}
    each = ", ".join(
        f"{guest} {job.sent_mib:.0f} MiB in {job.elapsed_s:.1f} s to {where[guest]}"
        for guest, job in jobs.items()
    )
    print(f"{how}: {took_s} s, {sum(job.sent_mib for job in jobs.values()):.0f} MiB: {each}", flush=True)
    return {guest: job.sent_mib for guest, job in jobs.items()}


if __name__ == "__main__":
    main()
