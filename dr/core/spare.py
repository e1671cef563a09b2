"""N+1: what would not fit if a host died now. Kept current one host at a time, so that no decision takes long.

Every quarter of a second the host that was asked about longest ago is imagined dead, and its guests are planned on
the others: some milliseconds at 1,000 hosts, which are all through in five minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

from dr.core.fleet import fleet_of
from dr.core.plan import Plan
from dr.core.state import Draft
from dr.core.volatile import View
from dr.model.base import GuestId, HostName
from dr.model.records import Desired, HostPhase

AGAIN_S = 30.0  # a host is asked about at most this often
GAP_S = 0.25  # between two of them: other decisions come first
LOST_FOR_S = (
    60.0  # N+1 that is lost for longer is an alert: a guest that starts, or a host that reboots, is none
)
IMAGINED_MAX = 16  # hosts whose death is imagined with guests elsewhere
NOBODY: Mapping[GuestId, HostName] = {}
NAMED_MAX = 5  # guests that are kept with their reasons


def stranded(
    draft: Draft, name: HostName, moved: Mapping[GuestId, HostName] = NOBODY
) -> list[tuple[str, str]]:
    """Guests that would find no place if that host died now, each with the reason.

    `moved`: guests that are imagined to run elsewhere by then.
    """
    fleet = fleet_of(draft).copy()
    fleet.lose(fleet.index[name])
    for guest_id, to in moved.items():
        guest = draft.guest(guest_id)
        assert guest is not None
        fleet.lift(guest)
        if to != name:
            fleet.place(guest, fleet.index[to])
    leaving = []
    for guest_id in sorted({*draft.guests_at(name), *moved}):
        guest = draft.guest(guest_id)
        if guest is None or guest.desired is not Desired.RUNNING or not guest.definition or guest.tied:
            continue
        if guest.needs.local:  # nobody else could start it, spare room or not
            continue
        if guest_id in moved:
            leaving += [guest] * (moved[guest_id] == name)
        elif {place.host for place in guest.may_run_on} == {name}:
            fleet.lift(guest)
            leaving.append(guest)
    plan = Plan(fleet, leaving, {}, level=False)
    return [(guest.name, plan.nowhere[guest.id].sentence()) for guest in leaving if guest.id in plan.nowhere]


def worse_if(draft: Draft, moved: Mapping[GuestId, HostName], to: HostName) -> str:
    """What a host's death would leave without a place that has one now, if these guests ran there; "" = nothing.

    On large sites not every host is asked about: `to`, and those that are fullest.
    """
    fleet = fleet_of(draft)
    load = fleet.load()
    fullest = sorted(range(len(fleet)), key=lambda at: (-load[at], fleet.names[at]))[:IMAGINED_MAX]
    for name in (to, *(fleet.names[at] for at in fullest if fleet.names[at] != to)):
        if draft.require_host(name).phase is not HostPhase.ONLINE:
            continue
        then = stranded(draft, name, moved)
        if then and len(then) > len(stranded(draft, name)):
            guest, why = then[0]
            return f"N+1 would be worse: if {name} died then, {guest} would not fit ({why})"
    return ""


def step(draft: Draft) -> None:
    """Ask about one host, if one is due; raise or clear the alert."""
    asked = {name: draft.view(name).spare_at for name in draft.host_names()}
    if not asked or draft.now - max(asked.values()) < GAP_S:
        return
    oldest = min(asked, key=asked.__getitem__)
    if draft.now - asked[oldest] < AGAIN_S:
        return
    host = draft.require_host(oldest)
    view = draft.view(oldest)
    found = stranded(draft, oldest) if host.phase is HostPhase.ONLINE and len(draft.state.hosts) > 1 else []
    draft.put_view(
        oldest,
        spare_at=draft.now,
        stranded=len(found),
        stranded_why=tuple(f"{guest} ({why})" for guest, why in found[:NAMED_MAX]),
        stranded_since=(view.stranded_since or draft.now) if found else 0.0,
    )
    _tell(draft)


def in_words(name: HostName, view: View) -> str:
    """What would not fit, in one sentence; "" = everything would."""
    if not view.stranded:
        return ""
    count = f"{view.stranded} guests" if view.stranded > 1 else "1 guest"
    more = (
        f"; and {view.stranded - len(view.stranded_why)} more"
        if view.stranded > len(view.stranded_why)
        else ""
    )
    return f"if {name} died now, {count} would not fit: {'; '.join(view.stranded_why)}{more}"


def why_not(draft: Draft) -> str:
    """Why N+1 cannot be relied on, as far as it was looked at in this term; "" = it can."""
    for host in draft.hosts():
        view = draft.view(host.name)
        if told := in_words(host.name, view):
            return told
        if not view.spare_at and host.phase is HostPhase.ONLINE:
            return f"what would fit if {host.name} died was not looked at yet"
    return ""


def _tell(draft: Draft) -> None:
    views = {name: draft.view(name) for name in draft.host_names()}
    lost = {name: view for name, view in views.items() if view.stranded}
    if not lost:
        draft.clear_alert("cluster/spare")
    elif any(draft.now - view.stranded_since >= LOST_FOR_S for view in lost.values()):
        worst = max(lost, key=lambda name: (lost[name].stranded, name))
        others = f", and some if one of {len(lost) - 1} others did" if len(lost) > 1 else ""
        draft.alert(
            "cluster/spare",
            f"N+1 is lost: {lost[worst].stranded} guests would not start again if {worst} died now{others}",
            in_words(worst, lost[worst]),
            "add memory or a host, or stop what is not needed; dr status shows it as it is now",
        )
