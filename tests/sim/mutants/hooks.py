"""Guards of hooks: once for each failover, as it begins and when it is over, and nothing waits for them."""

from __future__ import annotations

from dr.core import asks_playbooks
from dr.core.playbooks import hooks
from tests.sim.mutants.mutant import m

GROUPS = {
    "hooks": (
        m(
            "a hook is run once for each failover",
            "hooks/around-a-failover",
            (hooks._run, "or when in operation.hooks", ""),
        ),
        m(
            "a hook is run as a failover begins",
            "hooks/never-delays",
            (hooks.step, "if tick:", "if False:"),
            (hooks.step, '_run(draft, operation.id, "failover_begins")\n            _run', "_run"),
        ),
        m(
            "a hook is run when a failover is over",
            "hooks/around-a-failover",
            (hooks.step, "for operation in draft.just_closed():", "for operation in ():"),
        ),
        m(
            "a hook that cannot begin is told",
            "hooks/cannot-begin",
            (hooks._run, "if not reply.accepted:", "if False:"),
        ),
        m(
            "two failovers have a hook each",
            "hooks/two-hosts-at-once",
            (asks_playbooks.run, "twin is not None and not ask.hook", "twin is not None"),
        ),
    ),
}
