"""`make bench-failover`: how long from the power cut of a host until its three guests run and answer elsewhere.

Each run cuts the power of the host that holds the guests, takes the decision's times from the timeline and the
guests' from the poller outside, and powers the host on again. The last line is one JSON object with medians and
all samples; times in seconds from the cut.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from integration.lab import Lab
from integration.site import Site

GUESTS = ("g1", "g2", "g3")
REST_S = 30.0
TICKS_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--lab", default="bench")
    options = parser.parse_args()
    lab = Lab(options.lab)
    lab.down()
    site = Site(lab)
    try:
        site.up(3)
        samples = rest(site)
        site.start_guests({"h1": GUESTS})
        for number in range(options.runs):
            run = one_run(site)
            print(f"run {number + 1}: {json.dumps(run)}", flush=True)
            for name, value in run.items():
                samples.setdefault(name, []).append(value)
    finally:
        lab.down()
    medians = {name: round(statistics.median(values), 3) for name, values in samples.items()}
    print(json.dumps({**medians, "samples": samples}))


def one_run(site: Site) -> dict[str, float]:
    """One power cut of the host on which the guests are, and everything back in its place."""
    victim = gather(site)
    mark = len(site.timeline())
    with site.lab.poller(GUESTS) as poller:
        time.sleep(1.0)
        cut_wall, cut = time.time(), time.monotonic()
        site.lab.host(victim).power_off()
        site.wait(lambda: moved(site, victim), 60, "failover", every_s=0.5)
        answered = poller.wait_all_answering(30, since_s=cut + 1.0)
    site.assert_once(*GUESTS)
    lines = site.timeline()[mark:]

    def first(topic: str) -> float:
        found = (line for line in lines if line["topic"] == topic and line["host"] == victim)
        return float(next(found)["wall"]) - cut_wall

    running = [line["wall"] - cut_wall for line in lines if line["topic"] == "guest.running"]
    assert len(running) == len(GUESTS), running
    site.lab.host(victim).power_on()
    site.wait(site.all_online, 60, "the host's return")
    return {
        "kill_to_detect_s": round(first("host.suspect"), 3),
        "kill_to_fenced_s": round(first("host.fenced"), 3),
        "kill_to_running_s": round(max(running), 3),
        "kill_to_answering_s": round(answered - cut, 3),
    }


def moved(site: Site, victim: str) -> bool:
    """All guests run, and none of them on the victim."""
    guests = site.guests()
    return all(guests[name]["phase"] == "running" and guests[name]["host"] != victim for name in GUESTS)


def gather(site: Site) -> str:
    """All guests onto one host, which is returned: by hand, then protected again."""
    host = site.lab.hosts[0].name
    site.dr("guest", "unprotect", *GUESTS, "--yes", "--reason", "bench")
    for name in GUESTS:
        guest = site.lab.guest(name)
        guest.remove()
    site.start_guests({host: GUESTS})
    return host


def rest(site: Site) -> dict[str, list[float]]:
    """Memory and CPU of agents and coordinator at rest, with ten guests."""
    names = [f"g{number}" for number in range(11, 21)]
    site.start_guests({"h1": names[:4], "h2": names[4:7], "h3": names[7:]})
    time.sleep(5)
    pids = [pid for host in site.lab.hosts if (pid := host.service_pid("agent"))]
    coordinator = site.lab.ctl.service_pid("coordinator")
    assert coordinator
    assert len(pids) == len(site.lab.hosts)
    before = {pid: cpu_s(pid) for pid in (*pids, coordinator)}
    begun = time.monotonic()
    time.sleep(REST_S)
    took = time.monotonic() - begun
    percent = {pid: 100 * (cpu_s(pid) - used) / took for pid, used in before.items()}
    figures = {
        "agent_rss_mib": [rss_mib(pid) for pid in pids],
        "agent_cpu_pct": [round(percent[pid], 2) for pid in pids],
        "coordinator_rss_mib": [rss_mib(coordinator)],
        "coordinator_cpu_pct": [round(percent[coordinator], 2)],
    }
    site.dr("guest", "unprotect", *names, "--yes")
    for name in names:
        site.lab.guest(name).remove()
    return figures


def rss_mib(pid: int) -> float:
    """Resident memory in MiB (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def cpu_s(pid: int) -> float:
    """User and system time used so far, in seconds (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


if __name__ == "__main__":
    main()
