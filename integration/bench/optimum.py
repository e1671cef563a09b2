"""Placement beside the optimum of OR-tools CP-SAT, on small random instances with room, CPUs and strict rules.

Feasible: the optimum places every guest; ours should then too. Imbalance: how far the fullest host is above the mean
(`max - mean` of the hosts' loads, load being the scarcest resource's share), summed over all instances that both place.
Every answer, also the solver's, is checked by `broken`, which shares no code with either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dr.core.fleet import fleet_of
from dr.core.plan import Plan
from dr.core.state import Draft, State
from dr.model.policy import GuestRule, HostRule, Limits, Rule
from dr.model.records import GuestRecord, HostRecord
from dr.model.settings import Settings
from integration.bench.site import guest_record, host_record, state_of

SCALE = 10_000  # loads as whole numbers for the solver


@dataclass(frozen=True)
class Instance:
    hosts: tuple[tuple[str, int, int], ...]  # name, memory in MiB, CPUs
    running: tuple[tuple[str, int, int, str], ...]  # name, memory, vCPUs, host
    waiting: tuple[tuple[str, int, int], ...]
    rules: tuple[Rule, ...]


def instance(seed: int) -> Instance:
    """Tight enough that a careless choice leaves a guest without a host."""
    rng = random.Random(seed)
    hosts = tuple(
        (f"h{n}", rng.choice((16, 24, 32, 48)) * 1024, rng.choice((4, 8))) for n in range(rng.randint(3, 6))
    )
    names = [name for name, _, _ in hosts]
    room = sum(memory for _, memory, _ in hosts)
    fill, used = rng.uniform(0.55, 0.95), 0
    running: list[tuple[str, int, int, str]] = []
    waiting: list[tuple[str, int, int]] = []
    left = {name: memory for name, memory, _ in hosts}
    while used < fill * room and len(running) + len(waiting) < 30:
        memory, vcpus = rng.choice((1, 1, 2, 2, 3, 4, 6, 8, 12)) * 1024, rng.choice((1, 2, 2, 4))
        used += memory
        name = f"g{len(running) + len(waiting)}"
        at = rng.choice(names)
        if rng.random() < 0.4 and memory <= left[at]:
            left[at] -= memory
            running.append((name, memory, vcpus, at))
        else:
            waiting.append((name, memory, vcpus))
    rules: list[Rule] = []
    everyone = [each[0] for each in waiting]
    for number in range(rng.randint(0, 3)):
        kind = rng.choice(("hosts", "apart", "together"))
        size = min(len(everyone), rng.randint(2, 3))
        if size < 2:
            break
        who = tuple(rng.sample(everyone, size))
        if kind == "hosts":
            where = dict.fromkeys(rng.sample(names, rng.randint(2, len(names))), 1)
            rules.append(HostRule(name=f"r{number}", guests=who, hosts=where, strict=True))
        else:
            rules.append(GuestRule(name=f"r{number}", guests=who, kind=kind, strict=True))  # type: ignore[arg-type]
    return Instance(hosts, tuple(running), tuple(waiting), tuple(rules))


def placed(case: Instance) -> dict[str, str]:
    """Ours."""
    limits = Limits(memory_reserve_mib=0, cpu_overcommit=8.0)
    hosts = [host_record(name, memory, cpus) for name, memory, cpus in case.hosts]
    guests: list[GuestRecord] = [
        guest_record(name, memory, vcpus, at) for name, memory, vcpus, at in case.running
    ]
    guests += [guest_record(name, memory, vcpus) for name, memory, vcpus in case.waiting]
    state = state_of(Settings(limits=limits, rules=case.rules), hosts, guests)
    waiting = [state.guests[name] for name, _, _ in case.waiting]
    return Plan(fleet_of(Draft(state, 0.0)), waiting, {}).hosts


def optimum(case: Instance, seconds: float = 10.0) -> dict[str, str] | None:
    """The solver's: every guest placed, the fullest host as empty as can be; None = impossible."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    names = [name for name, _, _ in case.hosts]
    at = {(g, h): model.new_bool_var(f"{g}@{h}") for g, _, _ in case.waiting for h in names}
    peak = model.new_int_var(0, SCALE, "peak")
    for g, _, _ in case.waiting:
        model.add_exactly_one(at[g, h] for h in names)
    for h, memory, cpus in case.hosts:
        for which, room in ((1, memory), (2, cpus * 8)):
            base = sum(each[1] if which == 1 else each[2] for each in case.running if each[3] == h)
            taken = [(g, (mem if which == 1 else cpu)) for g, mem, cpu in case.waiting]
            used: Any = base + sum(amount * at[g, h] for g, amount in taken)
            model.add(used <= room)
            model.add(used * SCALE <= peak * room)
    for rule in case.rules:
        for h in names:
            if isinstance(rule, HostRule):
                if h not in rule.hosts:
                    model.add(sum(at[g, h] for g in rule.guests) == 0)
            elif rule.kind == "apart":
                model.add_at_most_one(at[g, h] for g in rule.guests)
            else:
                for g in rule.guests[1:]:
                    model.add(at[g, h] == at[rule.guests[0], h])
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return {g: h for (g, h), var in at.items() if solver.value(var)}


def loads(case: Instance, where: dict[str, str]) -> list[float]:
    found = []
    for host, memory, cpus in case.hosts:
        there = [each for each in case.running if each[3] == host]
        there += [(*each, host) for each in case.waiting if where.get(each[0]) == host]
        found.append(max(sum(e[1] for e in there) / memory, sum(e[2] for e in there) / (cpus * 8)))
    return found


def broken(case: Instance, where: dict[str, str]) -> str:
    """What is wrong with a set of places; "" = nothing."""
    for (host, _, _), load in zip(case.hosts, loads(case, where), strict=True):
        if load > 1 + 1e-9:
            return f"{host} is overfull"
    for rule in case.rules:
        at = [where[guest] for guest in rule.guests if guest in where]
        if isinstance(rule, HostRule):
            if any(host not in rule.hosts for host in at):
                return f"{rule.name} is broken"
        elif (rule.kind == "apart" and len(set(at)) < len(at)) or (
            rule.kind == "together" and len(set(at)) > 1
        ):
            return f"{rule.name} is broken"
    return ""


def imbalance(case: Instance, where: dict[str, str]) -> float:
    found = loads(case, where)
    return max(found) - sum(found) / len(found)


def compare(seeds: Sequence[int]) -> dict[str, float]:
    """feasible_ratio: of those that the optimum places whole, ours does; imbalance_ratio: ours over the optimum's."""
    possible = both = 0
    ours_sum = best_sum = 0.0
    peaks: list[float] = []
    for seed in seeds:
        case = instance(seed)
        best = optimum(case)
        ours = placed(case)
        assert not broken(case, ours), (seed, broken(case, ours))
        if best is None:
            assert len(ours) < len(case.waiting), f"seed {seed}: placed what the solver calls impossible"
            continue
        assert not broken(case, best), (seed, broken(case, best))
        possible += 1
        if len(ours) < len(case.waiting):
            print(f"  seed {seed}: the optimum places all {len(case.waiting)} guests, we {len(ours)}")
            continue
        both += 1
        ours_sum += imbalance(case, ours)
        best_sum += imbalance(case, best)
        peaks.append(max(loads(case, ours)) / max(loads(case, best)))
    print(
        f"  {possible} of {len(seeds)} instances can be placed; peak load over the optimum's: "
        f"{sum(peaks) / len(peaks):.4f}"
    )
    return {"feasible_ratio": round(both / possible, 4), "imbalance_ratio": round(ours_sum / best_sum, 4)}


__all__ = ["HostRecord", "State", "broken", "compare", "instance", "optimum", "placed"]
