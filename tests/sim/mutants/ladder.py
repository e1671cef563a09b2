"""Guards of what is foretold of moves, and of who shares a link."""

from __future__ import annotations

from dr.core import dirtying, links, members, migration, moves
from tests.sim.mutants.mutant import m

GROUPS = {
    "links of guests that write much": (
        m(
            "who only converges alone does not join others on their link",
            "maintenance/drain-who-writes-much-waits-for-the-link",
            (
                moves._begin,
                "if bounded and not along and links.needs_links_alone(draft, guest):",
                "if False:",
            ),
        ),
        m(
            "nobody joins who only converges alone",
            "maintenance/drain-who-writes-much-goes-alone",
            (links.traffic_of, "each.links if each.alone else ()", "()"),
        ),
        m(
            "what the host measured counts",
            "maintenance/drain-who-writes-much-goes-alone",
            (dirtying.of, "return last.points if last is not None else ()", "return ()"),
        ),
    ),
    "rungs that are foretold": (
        m(
            "what agents tell of samples is kept",
            "migration/sampled-and-told-to-the-next-leader",
            (members.reported, "if event.samples is not None:", "if False:"),
        ),
        m(
            "the rung that a move took is kept beyond its job",
            "migration/foretold-and-so-it-was",
            (migration._note_rung, "if rung is not move.rung:", "if False:"),
        ),
    ),
}
