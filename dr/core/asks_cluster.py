"""What operators ask of the cluster as a whole: labels, automation off and on."""

from __future__ import annotations

from dr.core.asks import no, no_such, protected, yes
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import AskLabel, AskPause, AskResume
from dr.model.records import Pause


def label(draft: Draft, ask: AskLabel) -> Reply:
    if ask.kind == "host":
        host = draft.host(ask.name)
        if host is None:
            return no_such(ask, "host", [ask.name])
        draft.put_host(changed(host, labels=_merged(host.labels, ask.labels)))
        return yes(ask)
    have, missing = protected(draft, (ask.name,))
    if missing:
        return no_such(ask, "protected guest", missing)
    draft.put_guest(changed(have[0], labels=_merged(have[0].labels, ask.labels)))
    return yes(ask)


def _merged(labels: dict[str, str], asked_for: dict[str, str | None]) -> dict[str, str]:
    kept = {key: value for key, value in labels.items() if key not in asked_for}
    return kept | {key: value for key, value in asked_for.items() if value is not None}


def pause_or_resume(draft: Draft, ask: AskPause | AskResume) -> Reply:
    if isinstance(ask, AskPause):
        if not ask.reason:
            return no(ask, "a reason is needed: the next person will ask")
        draft.cluster = changed(draft.cluster, pause=Pause(reason=ask.reason, by=ask.by, at=draft.now))
        draft.alert(
            "cluster/paused",
            "automation is paused: nothing is fenced or restarted by itself",
            f"{ask.by}: {ask.reason}",
            "when that is over: dr resume",
        )
        return yes(ask, "automation is off: nothing is fenced or restarted by itself until dr resume")
    if draft.cluster.pause is None:
        return no(ask, "automation is not paused")
    draft.cluster = changed(draft.cluster, pause=None, restored="")
    draft.clear_alert("cluster/restored")
    draft.clear_alert("cluster/paused")
    return yes(ask, "automation is on")
