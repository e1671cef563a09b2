"""How fast drills are: sweeps on paper at 1,000 hosts and 20,000 guests, isolated boots in the lab; last line JSON.

A sweep runs as it does in the coordinator, in slices on its loop, while that decides the heartbeats and ticks of all
hosts. `--hosts N` for another size, `--pairs` for the sweep of all pairs too, `--only PART`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Generator

from dr.api.slices import in_slices
from dr.core.branch import branched
from dr.core.decide import decide
from dr.core.drills import sweep
from dr.core.drills.paper import Paper
from dr.core.drills.sweep import Progress
from dr.core.state import State
from dr.model.base import changed
from dr.model.drills import DrillReport
from dr.model.events import Heard, Tick
from dr.model.records import HostPhase
from integration.bench.boots import boots
from integration.bench.core import heartbeat_us, site
from integration.bench.site import NOW

BEAT_S, TICK_S = 0.5, 0.1
Drill = Generator[Progress, None, DrillReport]


class Loop:
    """The coordinator's loop, as far as it matters here: every host's heartbeat and each tick is decided in time."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.begun = time.monotonic()
        self.late_s = 0.0  # the most that a tick came too late
        self.slice_s = 0.0  # the longest step of the sweep, of the processor
        self.own_s = self.beats_s = (
            0.0  # of the processor: what the sweep took, and heartbeats and ticks beside it
        )

    def now(self) -> float:
        return NOW + 10 + time.monotonic() - self.begun

    async def beat(self) -> None:
        """A fifth of all hosts with each tick."""
        names = list(self.state.hosts)
        self._hear(names)  # before the first tick: what was heard last was heard before this began
        share = round(BEAT_S / TICK_S)
        turn = 0
        while True:
            turn, due = turn + 1, time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late_s = max(self.late_s, time.monotonic() - due)
            begun = time.thread_time()
            self._hear(names[turn % share :: share])
            self.state.apply(decide(self.state, Tick(), self.now()))
            self.beats_s += time.thread_time() - begun

    def _hear(self, names: list[str]) -> None:
        now = self.now()
        for name in names:
            self.state.apply(decide(self.state, Heard(host=name, session=f"s-{name}", fresh=now), now))

    async def work(self, drill: Drill) -> tuple[DrillReport, float]:
        """The report, and how long it took by the wall clock."""
        self.late_s = self.slice_s = self.own_s = self.beats_s = 0.0
        beats = asyncio.create_task(self.beat())
        begun = time.monotonic()
        try:
            report = await in_slices(self._timed(drill), lambda progress: None)
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
        return report, time.monotonic() - begun

    def _timed(self, drill: Drill) -> Drill:
        """The longest step of it: what a slice may be longer by."""
        while True:
            begun = time.thread_time()
            try:
                progress = next(drill)
            except StopIteration as ended:
                report: DrillReport = ended.value
                return report
            took_s = time.thread_time() - begun
            self.slice_s, self.own_s = max(self.slice_s, took_s), self.own_s + took_s
            yield progress

    def tell(self, took_s: float) -> None:
        print(
            f"  {took_s:.1f} s; of the processor {self.own_s:.1f} s, and {self.beats_s:.1f} s for heartbeats and ticks;"
            f" longest step {self.slice_s * 1e3:.1f} ms, ticks at most {self.late_s * 1e3:.0f} ms late"
        )


def sweeps(options: argparse.Namespace) -> dict[str, float]:
    state = site(options.hosts)
    for name, host in state.hosts.items():
        state.hosts[name] = changed(host, facts=changed(host.facts, hibernation_masked=True))
    heartbeat_us(state, NOW)  # so that what is kept between decisions is there
    loop = Loop(state)
    paper = Paper(branched(state), loop.now())
    report, took_s = asyncio.run(loop.work(sweep.each(paper, 0.0)))
    print(f"{len(state.hosts)} hosts, {len(state.guests)} guests, every host: {report.says}")
    loop.tell(took_s)
    assert {host.phase for host in state.hosts.values()} == {HostPhase.ONLINE}, "the site was not quiet"
    found = {
        "sweep_s": round(took_s, 1),
        "sweep_cpu_s": round(loop.own_s, 1),
        "sweep_step_ms": round(loop.slice_s * 1e3, 1),
        "sweep_late_ms": round(loop.late_s * 1e3, 1),
    }
    if options.pairs:
        report, took_s = asyncio.run(loop.work(sweep.pairs(Paper(branched(state), loop.now()))))
        print(f"every pair: {report.says}; {report.looked}")
        loop.tell(took_s)
        found["pairs_s"] = round(took_s, 1)
    return found


# What there is to measure; each part prints what it found, and gives its figures.
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {"sweep": sweeps, "boot": boots}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--pairs", action="store_true", help="every pair too")
    parser.add_argument("--runs", type=int, default=3, help="isolated boots")
    parser.add_argument("--lab", default="bench")
    parser.add_argument("--only", choices=sorted(PARTS), help="one part")
    options = parser.parse_args()
    found: dict[str, float] = {}
    for name, part in PARTS.items():
        if options.only in (None, name):
            found |= part(options)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
