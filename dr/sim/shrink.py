"""A failing plan made small: the few faults, guests and hosts that are enough to break the same promise.

Here: delta debugging over a plan. Not here: running it (`dr.sim.fuzz`). What counts as the same failure is its sentence
without names and numbers; a plan that fails in another way is another finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dr.model.base import changed
from dr.sim.fuzz import run
from dr.sim.plan import Fault, Plan

RUNS_MAX = 300
_VARIABLE = re.compile(r"\b[a-z]+-?\d[\w-]*\b|\[[^\]]*\]|\([^)]*\)|'[^']*'|[\d.]+")


def failure(plan: Plan) -> Exception | None:
    """How that plan fails; None: it does not."""
    try:
        run(plan)
    except Exception as error:
        return error
    return None


def signature(error: Exception | None) -> str:
    """What two failures of the same kind have in common."""
    if error is None:
        return ""
    text = str(error).partition("s: ")[2] or str(error)
    if "not all well" in str(error):
        text = "not all well"
    return f"{type(error).__name__} {_VARIABLE.sub('#', text)}"[:80]


def shrink(plan: Plan, runs_max: int = RUNS_MAX) -> Plan:
    """The smallest plan found that fails in the same way. `plan` must fail."""
    wanted = signature(failure(plan))
    assert wanted
    runs = 0

    def fails(smaller: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs <= runs_max and signature(failure(smaller)) == wanted

    plan = _fewer_faults(plan, fails)
    for guest in list(plan.guests):
        smaller = changed(plan, guests={key: host for key, host in plan.guests.items() if key != guest})
        if smaller.guests and fails(smaller):
            plan = smaller
    for host in plan.hosts:
        smaller = changed(plan, hosts=tuple(name for name in plan.hosts if name != host))
        if host not in plan.guests.values() and host != plan.home and fails(smaller):
            plan = smaller
    if plan.faults:
        short = changed(plan, seconds=round(plan.faults[-1].at + 1.0, 3))
        plan = short if fails(short) else plan
    return _fewer_faults(plan, fails)


def _fewer_faults(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Delta debugging: ever smaller runs of faults are left out, as long as it still fails."""
    kept: tuple[Fault, ...] = plan.faults
    size = max(len(kept) // 2, 1)
    while kept:
        at, before = 0, len(kept)
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if fails(changed(plan, faults=fewer)):
                kept = fewer
            else:
                at += size
        if size == 1 and len(kept) == before:
            break
        size = max(size // 2, 1)
    return changed(plan, faults=kept)
