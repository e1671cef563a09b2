"""A random world, drawn from its seed as a scenario: its shape, and when which kind of fault comes.

Here: hosts, guests, limits, times, the character of a world. Not here: what the faults are (`dr.sim.faults`), running
it (`dr.sim.fuzz`). What is drawn is all that there is: a fault looks at the world by `if` only, so the scenario that is
written to a file is the world itself, and an entry that is left out changes no other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from dr.model.base import GuestId, HostName, changed
from dr.model.hooks import Hooks
from dr.model.playbooks import Parameter, Playbook, StepSpec
from dr.model.policy import Limits, OnCritical, OnLeave
from dr.model.schedules import Schedule
from dr.model.verbs import Notify, Wait
from dr.sim.cpus import CpuKind
from dr.sim.drawing import Drawing, Kind
from dr.sim.faults_people import HOSTS_MIN, LABEL, TIERS, policy_part, rule
from dr.sim.scenario.check import problems_of
from dr.sim.scenario.language import Act, Fencing, GuestSpec, HostSpec, Scenario
from dr.sim.scenario.verbs_coordinator import Backup
from dr.sim.scenario.verbs_hosts import Scrap
from dr.sim.scenario.verbs_people import RemoveHost
from dr.sim.world import POLICY, TIMERS

GAPS_S = (0.05, 0.5, 2.0, 6.0, 15.0, 40.0)  # means: faults come in bursts, then there is peace
FAULTS_MIN = 5
LASTS_S = (600.0, 660.0)
BOOT_AFTER_S = 60.0  # less than what people wait for in the end
FIRST_BACKUP = "first"
GUEST_MIB = 1024
DISK_MIB = 256
LOCAL_WORLDS = 0.7
ROOMY_MIB = 16384
WRITING_WORLDS = 0.3
TIMED_WORLDS = 0.3
DIRTY_MIB_S = (0, 0, 5, 50, 200, 400, 2000)

# What the design admits, or what would hide other things, stays apart: a world has one character.
# liars: fence devices that show the right identity and lie. restores: older copies of the store are put back.
CHARACTERS = {"plain": 5, "liars": 3, "restores": 3}


def draw(
    seed: int, kinds: Mapping[str, Kind], *, hosts: int = 0, guests: int = 0, faults: int = 0
) -> Scenario:
    """The world of a seed. `hosts`, `guests`, `faults`: so many; 0 = drawn too."""
    rng = random.Random(seed)
    character = rng.choices(list(CHARACTERS), list(CHARACTERS.values()))[0]
    scenario = _shape(rng, seed, hosts, guests)
    drawing = Drawing(
        rng,
        hosts=tuple(scenario.hosts),
        guests=list(scenario.guests),
        pdu=frozenset(name for name, spec in scenario.hosts.items() if spec.fencing == "bmc_and_pdu"),
        home=next((name for name, spec in scenario.hosts.items() if spec.coordinator_here), ""),
        guest_mib=GUEST_MIB,
        room_mib=_room_mib(scenario),
        backups=[FIRST_BACKUP],
    )
    scenario = _policies(drawing, scenario)
    eligible = [
        kind
        for kind in kinds.values()
        if kind.only in ("", character) and character not in kind.never and kind.weight
    ]
    acts = [Act(verb=Backup(backup=FIRST_BACKUP), at=0.0)] if character == "restores" else []
    for at in _times(rng, scenario.lasts, faults):
        acts += _fault(drawing, eligible, at)
    happen = [act for act in acts if act.at is not None and act.at <= scenario.lasts]
    # With a host its disks would be gone; and who may start on one host only must find room there, whoever came since.
    stays = not any(isinstance(act.verb, Scrap | RemoveHost) for act in happen)
    if stays and all(spec.memory_mib >= ROOMY_MIB for spec in scenario.hosts.values()):
        scenario = _local_disks(random.Random(f"disks {seed}"), scenario)
    scenario = _writers(random.Random(f"writes {seed}"), scenario)
    scenario = _timed(random.Random(f"timed {seed}"), scenario)
    return changed(
        scenario,
        shows=f"Seed {seed} of dr sim fuzz, a world of {character} faults: all is well once they are repaired.",
        do=tuple(sorted(happen, key=lambda act: act.at or 0.0)),
    )


def _shape(rng: random.Random, seed: int, hosts: int, guests: int) -> Scenario:
    names = [f"h{n}" for n in range(1, (hosts or rng.randint(3, 5)) + 1)]
    memory_mib = rng.choice([4096, 8192, 16384])
    home = rng.choice(names) if rng.random() < 0.25 else ""
    power_on = rng.random() < 0.7
    fencing: list[Fencing] = ["bmc", "bmc_and_pdu", "unproven"]
    cpus = _cpus(random.Random(f"cpus {seed}"), names)
    specs = {
        name: HostSpec(
            memory_mib=memory_mib,
            cpu=cpus[name],
            fencing=rng.choices(fencing, [65, 30, 5])[0],
            power_on_after_fence=power_on,
            coordinator_here=name == home,
        )
        for name in names
    }
    free = {name: (memory_mib - Limits().memory_reserve_mib) // GUEST_MIB for name in names}
    placed: dict[GuestId, GuestSpec] = {}
    for number in range(1, (guests or rng.randint(2, 8)) + 1):
        on = rng.choice([name for name in names if free[name] > 0] or names)
        free[on] -= 1
        placed[f"g{number}"] = GuestSpec(on=on, memory_mib=GUEST_MIB)
    return Scenario(
        shows="",
        seed=seed,
        lasts=round(rng.uniform(*LASTS_S), 3),
        hosts=specs,
        guests=placed,
        limits=Limits(
            brake_window_s=rng.choice([30.0, 600.0]),
            starts_per_host=rng.choice([1, 4]),
            fences_per_window=rng.choice([2, 3]),
            memory_overcommit=rng.choice([1.0, 1.0, 1.5]),
        ),
        timers=changed(TIMERS, boot_after_s=BOOT_AFTER_S),
        on_leave=rng.choice(list(OnLeave)),
        on_critical=rng.choice(list(OnCritical)),
        end="repaired",
    )


def _cpus(rng: random.Random, names: list[HostName]) -> dict[HostName, CpuKind]:
    """Mostly all alike. Drawn apart from all else, so that a world is the same otherwise."""
    kinds: list[CpuKind] = ["newer", "older", "other"]
    weights = rng.choice([[1, 0, 0], [1, 0, 0], [2, 1, 0], [2, 1, 1]])
    return {name: rng.choices(kinds, weights)[0] for name in names}


def _local_disks(rng: random.Random, scenario: Scenario) -> Scenario:
    """In some worlds some guests' disks lie on their own hosts. Drawn apart, as processors are."""
    if rng.random() > LOCAL_WORLDS:
        return scenario
    guests = {}
    for name, spec in scenario.guests.items():
        policy = changed(spec.policy or POLICY, local_disks=True, remove_old_disks=rng.random() < 0.5)
        local = rng.random() < 0.5
        guests[name] = changed(spec, disk_mib=DISK_MIB, policy=policy) if local else spec
    return changed(scenario, guests=guests)


def _writers(rng: random.Random, scenario: Scenario) -> Scenario:
    """In some worlds some guests write to their memory, from hardly to faster than any link. Drawn apart too."""
    if rng.random() > WRITING_WORLDS:
        return scenario
    guests = {
        name: changed(spec, dirty_mib_s=rng.choice(DIRTY_MIB_S), working_set_mib=rng.choice([100, 400, 900]))
        for name, spec in scenario.guests.items()
    }
    limits = changed(scenario.limits, migration_mib_s=rng.choice([0, 100, 512]))
    return changed(scenario, guests=guests, limits=limits)


def _timed(rng: random.Random, scenario: Scenario) -> Scenario:
    """In some worlds playbooks are run by themselves: by the clock, and beside failovers. Drawn apart too."""
    if rng.random() > TIMED_WORLDS:
        return scenario
    look = Playbook(playbook="look", steps=(StepSpec(verb=Notify(notify="all is looked at")),))
    often = Schedule(
        playbook=look, cron=rng.choice(["* * * * *", "*/2 * * * *"]), window=rng.choice([60.0, 600.0])
    )
    hook = Playbook(
        playbook="hook",
        params={"failed_host": Parameter(is_="host"), "job": Parameter()},
        steps=(
            StepSpec(verb=Notify(notify="${failed_host} is lost: ${job}")),
            StepSpec(verb=Wait(wait=rng.choice([1.0, 20.0]))),
        ),
    )
    hooks = Hooks(failover_begins=hook, failover_ends=changed(hook, playbook="other-hook"))
    return changed(scenario, schedules={"often": often}, hooks=hooks)


def _room_mib(scenario: Scenario) -> int:
    """What more guests may take, so that one always fits: however the others lie, on all hosts that surely stay."""
    free = min(spec.memory_mib for spec in scenario.hosts.values()) - scenario.limits.memory_reserve_mib
    hosts = min(HOSTS_MIN, len(scenario.hosts))
    return hosts * (free - GUEST_MIB) + GUEST_MIB - GUEST_MIB * len(scenario.guests)


def _policies(drawing: Drawing, scenario: Scenario) -> Scenario:
    """Labels, policies and rules from the beginning; rules that contradict each other would be refused."""
    rng = drawing.rng
    guests = dict(scenario.guests)
    for name, spec in guests.items():
        labels = {LABEL: rng.choice(TIERS)} if rng.random() < 0.5 else {}
        policy = changed(POLICY, **policy_part(drawing, name)) if rng.random() < 0.3 else None
        guests[name] = changed(spec, labels=labels, policy=policy)
    scenario = changed(scenario, guests=guests)
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        drawing.rules_made += 1
        more = changed(scenario, rules=(*scenario.rules, rule(drawing, f"r{drawing.rules_made}")))
        if not problems_of(more):
            scenario = more
    drawing.rules += [each.name for each in scenario.rules]
    return scenario


def _times(rng: random.Random, seconds: float, wanted: int) -> list[float]:
    if wanted:
        return sorted(rng.uniform(0.0, seconds) for _ in range(wanted))
    times: list[float] = []
    while len(times) < FAULTS_MIN:
        times, at = [], rng.uniform(0.0, 3.0)
        while at < seconds:
            times.append(at)
            at += rng.expovariate(1 / rng.choice(GAPS_S))
    return times


def _fault(drawing: Drawing, kinds: Sequence[Kind], at: float) -> list[Act]:
    """One fault that is possible as things stand."""
    weights = [kind.weight for kind in kinds]
    while True:
        kind = drawing.rng.choices(kinds, weights)[0]
        if thens := list(kind.draw(drawing)):
            return [Act(verb=each.verb, at=round(at + each.after_s, 3), if_=each.only) for each in thens]
