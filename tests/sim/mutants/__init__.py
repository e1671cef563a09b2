"""The core with one guard missing: each must be caught by the simulator, which shows that its checks can fail.

Here: the guards, grouped by what of the design they hold; the numbers are those of docs/one-copy.md and of comments in
the code. A guard whose line is no longer found fails with its name: adapt it to the code, do not take it out.
"""

from __future__ import annotations

from tests.sim.mutants import (
    agents,
    drills,
    duties,
    fences,
    hooks,
    ladder,
    local_disks,
    moves,
    one_copy,
    playbooks,
    policies,
    schedules,
)
from tests.sim.mutants.mutant import Mutant, broken

GROUPS: dict[str, tuple[Mutant, ...]] = (
    one_copy.GROUPS
    | agents.GROUPS
    | moves.GROUPS
    | local_disks.GROUPS
    | fences.GROUPS
    | ladder.GROUPS
    | duties.GROUPS
    | policies.GROUPS
    | playbooks.GROUPS
    | drills.GROUPS
    | schedules.GROUPS
    | hooks.GROUPS
)
MUTANTS = tuple(mutant for group in GROUPS.values() for mutant in group)

__all__ = ["GROUPS", "MUTANTS", "Mutant", "broken"]
