"""`make bench-migrate`: a live migration by `dr guest migrate` beside the same one by bare virsh, pair by pair.

Two guests of 512 MiB, 384 MiB of it filled, go to and fro between two hosts whose storage links carry 48 MiB/s each
way: one is protected and moved by dr, the other by `virsh migrate` with the same flags but for PAUSED. The order within
a pair changes with each pair. Neither guest does more than write its disk log. The last line is one JSON object, with
the medians of the differences between dr and virsh in a pair, and `min` and `max` of the same:

- total_extra_s: of the commands' times, from their start to their end.
- downtime_extra_ms: of the longest gaps in the guest's answers to pings, as seen from outside (every 20 ms).
- two_phase_cost_ms: of those gaps less the downtime that QEMU counts, which ends when the last page is sent. So it is
  what the two-phase commit costs beyond the same virsh without PAUSED, however many pages were left for the end: the
  end of QEMU at the source, its proof, the coordinator's decision, and the ticket that lets the copy run.
- sampling_s: from the moment at which the dirty rate of dr's guest was asked for until it was told. That goes on beside
  the guest, before the first pair; no move waits for it, so nothing of it is in total_s.

`steps_s` says where dr's own time went: `asked` until its operation began, `sent` until the source said that the guest
has left, less the time that QEMU took, `resumed` until the guest ran, `told` until the command ended.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from integration.bench import virsh
from integration.lab import Lab
from integration.site import Site

BY_DR, BY_VIRSH = "g1", "g2"
MEMORY_MIB, FILLED_MIB = 512, 384
LINK_MIB_S = 48
SETTLE_S = 1.0


@dataclass(frozen=True)
class Run:
    """One migration, as its user saw it and as QEMU did."""

    began: float  # wall time
    total_s: float
    gap_ms: float
    job: virsh.Job

    @property
    def beyond_qemu_ms(self) -> float:
        return self.gap_ms - self.job.downtime_ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--lab", default="bench")
    options = parser.parse_args()
    lab = Lab(options.lab)
    lab.down()
    site = Site(lab)
    found: dict[str, list[float]] = {"total_extra_s": [], "downtime_extra_ms": [], "two_phase_cost_ms": []}
    steps: dict[str, list[float]] = {}
    try:
        boots = prepare(site)
        sampling_s = sampled(site)
        here, there = "h1", "h2"
        for number in range(options.pairs):
            runs: dict[str, Run] = {}
            for guest in (BY_DR, BY_VIRSH) if number % 2 == 0 else (BY_VIRSH, BY_DR):
                runs[guest] = by_dr(site, there, steps) if guest == BY_DR else by_virsh(site, here, there)
            ours, bare = runs[BY_DR], runs[BY_VIRSH]
            for guest, boot in boots.items():
                assert lab.guest(guest).http().boot == boot, f"{guest} is not what it was"
            found["total_extra_s"].append(round(ours.total_s - bare.total_s, 3))
            found["downtime_extra_ms"].append(round(ours.gap_ms - bare.gap_ms))
            found["two_phase_cost_ms"].append(round(ours.beyond_qemu_ms - bare.beyond_qemu_ms))
            print(f"pair {number + 1}: dr {in_words(ours)}; virsh {in_words(bare)}", flush=True)
            here, there = there, here
        site.assert_once(*boots)
    finally:
        lab.down()
    print(json.dumps(summary(found, steps, sampling_s)))


def prepare(site: Site) -> dict[str, str]:
    """Two hosts, slow links, two guests whose memory is full; their boots' ids."""
    site.up(2)
    full = f"dr.fill={FILLED_MIB}"
    site.start_guests(
        {"h1": (BY_DR, BY_VIRSH)}, protect=False, mem_mib=MEMORY_MIB, busy=True, kernel_args=full
    )
    site.protect(BY_DR)
    for host in site.lab.host_names:
        site.lab.faults.slow(host, "stor", LINK_MIB_S)
    return {guest: site.lab.guest(guest).http().boot for guest in (BY_DR, BY_VIRSH)}


def sampled(site: Site) -> float:
    """Seconds until it is known how fast it makes memory dirty; the first dry run asks for that."""
    began = time.monotonic()

    def told() -> bool:
        dry = site.dr_json("guest", "migrate", BY_DR, "--dry-run")
        return any("as measured" in each for each in dry["forecast"]["rests_on"])

    site.wait(told, 90, f"{BY_DR} to be measured", every_s=0.5)
    return round(time.monotonic() - began, 2)


def by_dr(site: Site, there: str, steps: dict[str, list[float]]) -> Run:
    """And where its time went."""
    mark = len(site.timeline())
    run = watched(
        site.lab, BY_DR, there, lambda: site.dr("guest", "migrate", BY_DR, "--to", there, timeout_s=300)
    )
    after_s = {line["topic"]: line["wall"] - run.began for line in site.timeline()[mark:]}
    asked_s, left_s, ran_s = (after_s[topic] for topic in ("guest.migrating", "guest.sent", "guest.running"))
    took = {
        "asked": asked_s,
        "sent": left_s - asked_s - run.job.elapsed_s,
        "resumed": ran_s - left_s,
        "told": run.total_s - ran_s,
    }
    for name, value in took.items():
        steps.setdefault(name, []).append(round(value, 3))
    return run


def by_virsh(site: Site, here: str, there: str) -> Run:
    return watched(site.lab, BY_VIRSH, there, lambda: virsh.migrate(site.lab, BY_VIRSH, here, there))


def watched(lab: Lab, guest: str, there: str, move: Callable[[], object]) -> Run:
    """Move it, while somebody outside asks it whether it is there."""
    with lab.poller([guest]) as poller:
        time.sleep(SETTLE_S)
        wall, began = time.time(), time.monotonic()
        move()
        total_s = time.monotonic() - began
        poller.wait_all_answering(30)
        time.sleep(SETTLE_S)
        gaps = [gap.length_s or 0.0 for gap in poller.outages()[guest] if gap.last_answer_s > began]
    return Run(wall, total_s, 1000 * max(gaps, default=0.0), virsh.arrived(lab, guest, there))


def in_words(run: Run) -> str:
    return (
        f"{run.total_s:.2f} s, silent for {run.gap_ms:.0f} ms"
        f" (QEMU: {run.job.sent_mib:.0f} MiB in {run.job.elapsed_s:.2f} s, {run.job.downtime_ms} ms down)"
    )


def summary(
    found: dict[str, list[float]], steps: dict[str, list[float]], sampling_s: float
) -> dict[str, object]:
    return {
        **{name: round(statistics.median(values), 3) for name, values in found.items()},
        "sampling_s": sampling_s,
        "min": {name: min(values) for name, values in found.items()},
        "max": {name: max(values) for name, values in found.items()},
        "steps_s": {name: round(statistics.median(values), 3) for name, values in steps.items()},
        "samples": found,
    }


if __name__ == "__main__":
    main()
