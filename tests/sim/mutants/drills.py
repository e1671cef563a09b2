"""Guards of drills: they give way, leave nothing behind, and do not pass where a clone did not."""

from __future__ import annotations

from dr.core import asks_playbooks
from dr.core.drills import isolated
from dr.core.playbooks import runner
from tests.sim.mutants.mutant import m

GROUPS = {
    "drills": (
        m(
            "a drill gives way to a failover",
            "drills/gives-way-to-a-failover",
            (isolated.trouble, "    if failover is not None:", "    if False:"),
            (isolated.trouble, "if fenced is not None else", "if False else"),
        ),
        m(
            "a drill ends where its host is in trouble",
            "drills/gives-way-to-a-drain",
            (isolated.gives_way, "if host is None or host.phase is not HostPhase.ONLINE:", "if False:"),
        ),
        m(
            "a drill is over when all of it is removed",
            "drills/troubles-of-its-own",
            (runner._next_part, "    if isolated.not_ended(draft, operation):\n", "    if False:\n"),
            (isolated.left_behind, "        if end is None:\n", "        if end is None and False:\n"),
        ),
        m(
            "what a drill came to is ended there",
            "drills/a-drill-that-passes",
            (isolated._ask, "        _put_end(draft, key, clone.host, Ended())\n", ""),
        ),
        m(
            "a clone that failed is not waited for",
            "drills/a-clone-that-does-not-start",
            (runner._look, "    if bad_clones := isolated.failures(run, step):", "    if bad_clones := []:"),
        ),
        m(
            "a clone answers before its drill passes",
            "drills/a-check-that-fails",
            (isolated._answers, "clone.passed_at >= step.began > 0", "True"),
        ),
        m(
            "what failed is made anew by the next try",
            "drills/troubles-of-its-own",
            (runner._begin, "    isolated.forget_failures(draft, key, step)\n", ""),
        ),
        m(
            "no drill begins that does not fit",
            "drills/refused",
            (asks_playbooks.run, "    if why or keeps:", "    if why:"),
        ),
    ),
}
