"""Whether enough of the fleet has told this leader that its store is current; until then, no guest is placed anywhere.

Here: the count, and who counts: hosts that acknowledged the epoch and remember, hosts that were proven dead. Not here:
what an agent remembers that the store does not (`restored`), what stands against one ticket (`onecopy`).
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.records import HostPhase, HostRecord


def hold(draft: Draft) -> str:
    """Why no guest may be placed anywhere now, or "".

    A leader that has just started may hold an older copy of the store, which only agents can tell: it waits
    until more than half of the hosts have acknowledged its epoch or were proven dead since it started. An agent
    that lost its memory cannot tell, and the dead cannot either: at least one must have acknowledged that remembers,
    unless no other host is left to be heard.
    """
    if draft.cluster.restored:
        return f"the store is an older copy ({draft.cluster.restored}): look it over, then dr resume"
    kept: tuple[tuple[int, int], str] | None = draft.memo.get("hold")
    basis = (draft.host_writes, draft.cluster.epoch)
    if kept is None or kept[0] != basis:
        kept = draft.memo["hold"] = (basis, _too_few_know(draft))
    return kept[1]


def _too_few_know(draft: Draft) -> str:
    members = [host for host in draft.hosts() if host.phase is not HostPhase.JOINING]
    known = [
        host
        for host in members
        if draft.view(host.name).acked_epoch == draft.cluster.epoch or proven_over(draft, host)
    ]
    telling = [host for host in known if not host.forgot]
    remembers = any(draft.view(host.name).acked_epoch == draft.cluster.epoch for host in telling)
    if len(known) < len(members) and (2 * len(telling) <= len(members) or not remembers):
        text = (
            f"only {len(known)} of {len(members)} hosts have acknowledged this coordinator since it started"
        )
        if forgot := [host.name for host in known if host.forgot]:
            text += f"; agents that lost their memory cannot vouch for the store: {', '.join(forgot)}"
        away = [h.name for h in members if h.phase is HostPhase.MAINTENANCE and h not in known]
        return f"{text}; if {', '.join(away)} is off for sure: dr host confirm-down" if away else text
    return ""


def proven_over(draft: Draft, host: HostRecord) -> bool:
    """Whether this leader knows by proof that the boot on record is over."""
    off = host.phase is HostPhase.FENCED or (
        host.phase is HostPhase.MAINTENANCE and host.boot_id == host.dead_boot
    )
    return off and host.dead_at >= draft.state.started_at
