"""How fast and how good the core decides at 1,000 hosts and 20,000 guests. No lab, no root; last line JSON.

Times are of this process's CPU: what other processes of the machine take is not the core's.
`--hosts N` for another size. The comparison with the optimum needs OR-tools: pip install 'dr[optimum]'.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import time
from importlib.util import find_spec

from dr.core import starts
from dr.core.decide import decide
from dr.core.state import Draft, State
from dr.model.base import changed
from dr.model.events import AskProtect, Heard, Tick
from dr.model.policy import FenceDevice, FenceLevel, HostPolicy
from dr.model.records import DeviceIdentity, GuestPhase, GuestRecord, HostPhase
from dr.model.settings import Settings
from integration.bench.site import NOW, guest_record, host_record, state_of

GUESTS_A_HOST = 20
MEMORY_MIB, CPUS = 256 * 1024, 64


def site(hosts: int) -> State:
    """Hosts 60 % full, each with a proven BMC; sizes differ so that no two hosts are alike."""
    names = [f"h{number:04d}" for number in range(hosts)]
    policies = {
        name: HostPolicy(
            name=name, fencing=(FenceLevel(devices=(FenceDevice(name="bmc", agent="fence_ipmilan"),)),)
        )
        for name in names
    }
    guests = [
        guest_record(f"{name}-g{number:02d}", (4 + (index + number) % 8) * 1024, 2 + number % 3, name)
        for index, name in enumerate(names)
        for number in range(GUESTS_A_HOST)
    ]
    state = state_of(
        Settings(hosts=policies), [host_record(name, MEMORY_MIB, CPUS) for name in names], guests
    )
    for name in names:
        state.identities[name, "bmc"] = DeviceIdentity(host=name, device="bmc", guid="g", fingerprint="f")
    return state


def heartbeat_us(state: State, now: float) -> tuple[float, float]:
    """Time of one beat and of one tick (ms), each decided and taken over; two simulated seconds."""
    beats: list[float] = []
    ticks: list[float] = []
    gc.collect()
    for turn in range(20):
        now += 0.1
        for name in list(state.hosts)[turn % 5 :: 5]:
            event = Heard(host=name, session=f"s-{name}", fresh=now)
            begun = time.process_time()
            state.apply(decide(state, event, now))
            beats.append(time.process_time() - begun)
        begun = time.process_time()
        state.apply(decide(state, Tick(), now))
        ticks.append(time.process_time() - begun)
    return statistics.mean(beats) * 1e6, statistics.mean(ticks) * 1e3


def lose(state: State, names: list[str], now: float) -> list[GuestRecord]:
    """These hosts are proven dead, their guests wait."""
    draft = Draft(state, now)
    lost = []
    for name in names:
        draft.put_host(changed(state.hosts[name], phase=HostPhase.FENCED, dead_at=now))
        draft.put_view(name, session="", inventory=False, guests={})
        for guest_id in draft.guests_at(name):
            guest = changed(state.guests[guest_id], may_run_on=(), phase=GuestPhase.RECOVERING, since=now)
            draft.put_guest(guest)
            lost.append(guest)
    draft.open_operation("failover", names[0], "benchmark", guests=[guest.id for guest in lost])
    state.apply(draft)
    return lost


def _all_started(state: State, now: float) -> None:
    """Every start that is out ends well, so that its host takes the next ones."""
    draft = Draft(state, now)
    for key in state.pending:
        draft.forget(key)
    for guest_id in sorted(state.unsettled):
        guest = state.guests[guest_id]
        if guest.phase is GuestPhase.STARTING:
            draft.put_guest(changed(guest, phase=GuestPhase.RUNNING, holder=guest.may_run_on[0].host))
    state.apply(draft)


def place_all(state: State, now: float) -> tuple[float, float, int]:
    """Seconds in all and of the longest decision, and how many it took, until no guest waits any longer."""
    took: list[float] = []
    while any(state.guests[each].phase is GuestPhase.RECOVERING for each in state.unsettled):
        begun = time.process_time()
        draft = Draft(state, now)
        starts.place_waiting(draft)
        decided = draft.changes()
        state.apply(draft)
        took.append(time.process_time() - begun)
        assert decided.guests, "nothing more can be placed"
        _all_started(state, now)
        now += 0.1
    return sum(took), max(took), len(took)


def protect(state: State, now: float) -> None:
    """One guest more is protected: every host is told the list, and asked whether the guest runs there."""
    begun = time.process_time()
    state.apply(decide(state, AskProtect(id="ask", by="bench", guests=("new",)), now))
    took = [time.process_time() - begun]
    for turn in range(1, 11):
        begun = time.process_time()
        state.apply(decide(state, Tick(), now + turn / 10))
        took.append(time.process_time() - begun)
    print(f"protecting one guest more: the longest decision took {max(took) * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument(
        "--instances", type=int, default=100, help="small ones that are compared with the optimum"
    )
    options = parser.parse_args()
    state = site(options.hosts)
    print(f"{len(state.hosts)} hosts, {len(state.guests)} guests")
    found: dict[str, float] = {}
    heartbeat_us(state, NOW)  # so that what is kept between decisions is there
    beat_us, tick_ms = heartbeat_us(state, NOW + 2)
    found["heartbeat_us"] = round(beat_us, 1)
    print(f"a tick of a quiet site takes {tick_ms:.1f} ms")
    names = list(state.hosts)
    lose(state, names[:2], NOW + 10)  # 40 guests
    cold, _, _ = place_all(state, NOW + 10)
    lose(state, names[2:4], NOW + 20)
    warm, _, _ = place_all(state, NOW + 20)
    found["place_host_ms"] = round(warm * 1e3, 1)
    print(f"placing the first 40 guests took {cold * 1e3:.1f} ms, with what the next ones find kept")
    protect(state, NOW + 25)
    state = site(options.hosts)
    tenth = names[: len(names) // 10]
    lost = lose(state, tenth, NOW + 30)
    whole, longest, decisions = place_all(state, NOW + 30)
    print(
        f"{len(lost)} guests of {len(tenth)} hosts in {decisions} decisions, the longest {longest * 1e3:.1f} ms"
    )
    found["place_2000_s"] = round(whole, 3)
    found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    if find_spec("ortools") is None:
        print("no comparison with the optimum: OR-tools is not installed (pip install 'dr[optimum]')")
    else:
        from integration.bench.optimum import compare

        found |= compare(range(options.instances))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
