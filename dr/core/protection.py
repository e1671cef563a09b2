"""The protected list: what every host keeps of the protected guests, in which version, and who has acknowledged it.

Here: when it is sent, to whom, and what is in it. Not here: which guests are protected (`asks_guests`), what the agent
does with it (`warden`), when a guest's protection has begun (`guests`).
"""

from __future__ import annotations

from dr.core import isolation
from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.base import changed
from dr.model.commands import Answer, Protect, ProtectedEntry
from dr.model.effects import Send
from dr.model.records import HostRecord

MOVES_EVERY_S = 10.0  # where guests are is told to all hosts, which remember it, at most this often
TOLD_MAX = 200  # hosts that are told the list in one decision; the others with the next tick
PUSH_AGAIN_S = 1.0  # a host that could not take the protected list is not told again before this


def list_changed(draft: Draft) -> None:
    """A guest was added to or taken off the list: every host must acknowledge it anew."""
    draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)


def owes_list(draft: Draft, host: HostRecord) -> bool:
    """It has not acknowledged this version of the list, and does not have it from us since a moment ago."""
    version, sent = draft.view(host.name).pushed
    just_sent = version == draft.cluster.protected_version and draft.now - sent < PUSH_AGAIN_S
    return host.protected_version != draft.cluster.protected_version and not just_sent


def push_list(draft: Draft, host: HostRecord) -> None:
    """Send the list to a host that has not acknowledged this version, or that does not know who moved since."""
    view = draft.view(host.name)
    current = host.protected_version == draft.cluster.protected_version and host.protected_version
    if current and (view.told_moves == draft.moves or draft.now - view.pushed[1] < MOVES_EVERY_S):
        return
    if not view.session or view.acked_epoch != draft.cluster.epoch:
        return
    if draft.cluster.protected_version == 0:
        list_changed(draft)
    if draft.find_pending("protect", host=host.name):
        return
    version, last = view.pushed
    if version == draft.cluster.protected_version and draft.now - last < PUSH_AGAIN_S:
        return
    told = draft.memo["told the list"] = draft.memo.get("told the list", 0) + 1
    if told > TOLD_MAX:
        return
    draft.put_view(host.name, pushed=(draft.cluster.protected_version, draft.now), told_moves=draft.moves)
    entries, storage = _listed(draft)
    key = draft.next_id("protect")
    draft.wait_for(
        key,
        Pending(
            kind="protect",
            host=host.name,
            at=draft.now,
            deadline=draft.now + draft.config.timers.testify_s,
            generation=draft.cluster.protected_version,
        ),
    )
    timers = draft.config.timers
    body = Protect(
        version=draft.cluster.protected_version,
        entries=entries,
        watch_storage=storage,
        peers=isolation.peers(draft, host.name),
        isolation_s=timers.isolation_s,
        stop_s=timers.stop_s,
    )
    draft.effect(Send(id=key, host=host.name, session=view.session, body=body))


def _listed(draft: Draft) -> tuple[tuple[ProtectedEntry, ...], tuple[str, ...]]:
    """Entries and storage of the list: made once for all hosts that it is sent to in a decision, as it may be long."""
    kept: tuple[int, tuple[ProtectedEntry, ...], tuple[str, ...]] | None = draft.memo.get("listed")
    if kept is None or kept[0] != draft.guest_writes:
        entries = tuple(
            ProtectedEntry(
                guest=g.id,
                name=g.name,
                generation=g.generation,
                holder=g.holder,
                isolation=g.policy.isolation,
            )
            for g in sorted(draft.guests(), key=lambda g: g.id)
        )
        storage = tuple(sorted({identity for g in draft.guests() for identity in g.needs.watched}))
        kept = draft.memo["listed"] = (draft.guest_writes, entries, storage)
    return kept[1], kept[2]


def list_acknowledged(draft: Draft, host: HostRecord, answer: Answer) -> None:
    """A host keeps the list of that version from now on, and says how its hook stands."""
    facts = host.facts if answer.hook is None else changed(host.facts, hook=answer.hook)
    draft.put_host(changed(host, protected_version=answer.protected_version, facts=facts))
