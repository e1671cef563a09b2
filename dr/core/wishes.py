"""What people asked of hosts, as records hold it. Not here: what is done about it (`core.upkeep`)."""

from __future__ import annotations

from dr.model.base import changed
from dr.model.records import Condition, HostPhase, HostRecord, Wish


def with_wishes(host: HostRecord, *, cordon: Wish | None, drain: Wish | None) -> HostRecord:
    """The host with these wishes, and the condition that follows from them."""
    conditions = host.conditions - {Condition.CORDONED}
    if cordon is not None or drain is not None:
        conditions |= {Condition.CORDONED}
    return changed(host, cordon=cordon, drain=drain, conditions=conditions)


def why_not_placed(host: HostRecord) -> list[str]:
    """Why a person's wish keeps guests from being placed there."""
    wishes = (("is being drained", host.drain), ("is cordoned", host.cordon))
    return [
        f"{what} by {wish.by}{f': {wish.reason}' if wish.reason else ''}"
        for what, wish in wishes
        if wish is not None
    ]


def standing(host: HostRecord) -> str:
    """Why it stands as it does, for its guests to quote: without what it says of them, or each quotes the other."""
    if host.phase is HostPhase.DRAINING and host.drain is not None:
        return f"is being drained: {in_words(host.drain)}"
    return host.reason


def in_words(wish: Wish) -> str:
    return f"{wish.by} asked{f': {wish.reason}' if wish.reason else ''}"
