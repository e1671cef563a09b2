"""An older copy of the store: how an agent's memory gives it away, and what follows (rule 1).

Here: what an agent knows that the store does not; then every host joins every set, and generations, epoch and revision
jump. Not here: sessions (`members`), how the set and generations are written (`onecopy`), whether enough agents were
heard (`quorum`).
"""

from __future__ import annotations

from dr.core import onecopy
from dr.core.onecopy import UNKNOWN_BOOT
from dr.core.state import Draft
from dr.model.base import HostName, changed
from dr.model.records import Cluster, HostRecord, Pause, Term
from dr.model.wire import Memory

LOST_HOST = "known to other agents, not to this older store; it has not said hello"
TERMS_KEPT = 64  # an agent that slept through more of them is still judged by the oldest


def new_term(draft: Draft, epoch: int, leader_id: str) -> None:
    """From here on this epoch is this leader's. What earlier ones wrote is bounded by what the store holds now."""
    term = Term(
        epoch=epoch,
        leader_id=leader_id,
        revision=draft.state.revision + draft.cluster.revision_offset,
    )
    terms = (*draft.cluster.terms, term)[-TERMS_KEPT:]
    draft.cluster = changed(draft.cluster, epoch=epoch, leader_id=leader_id, terms=terms)


def older_than(draft: Draft, memory: Memory) -> str:
    """What this agent's memory knows that our store should know and does not; "" = our store is current."""
    cluster = draft.cluster
    revision = draft.state.revision + cluster.revision_offset
    if memory.epoch > cluster.epoch:
        return f"it knows epoch {memory.epoch}, ours is {cluster.epoch}"
    leader_id = next((term.leader_id for term in cluster.terms if term.epoch == memory.epoch), "")
    if memory.leader_id and leader_id not in ("", memory.leader_id):
        return f"it followed another leader of epoch {memory.epoch}"
    known = min((term.revision for term in cluster.terms if term.epoch > memory.epoch), default=revision)
    if memory.revision > known:
        return f"it knows store revision {memory.revision}, ours was {known} at its epoch {memory.epoch} or later"
    for guest_id, sealed in memory.sealed.items():
        guest = draft.guest(guest_id)
        if guest is not None and sealed > guest.generation:
            return f"it has sealed generation {sealed} of {guest.name}, ours is {guest.generation}"
    return ""


def found_older(draft: Draft, name: HostName, memory: Memory, why: str) -> None:
    """Rule 1: hold, add every host to every set, jump generations and epoch; then clear place by place."""
    cluster: Cluster = draft.cluster
    reason = f"{name}: {why}"
    draft.cluster = changed(
        cluster,
        revision_offset=cluster.revision_offset
        + max(0, memory.revision - draft.state.revision - cluster.revision_offset)
        + 1_000_000,
        terms=(),  # what the lost records knew is behind the jump
        restored=cluster.restored or reason,
        pause=cluster.pause or Pause(reason="the store is an older copy", by="dr", at=draft.now),
    )
    new_term(draft, max(cluster.epoch, memory.epoch) + 1, cluster.leader_id)
    draft.note("store.restored", f"the store is an older copy: {reason}", host=name)
    draft.alert(
        "cluster/restored",
        "the coordinator's store is an older copy; nothing is started or fenced by itself",
        reason,
        "see that guests are where dr guest list says, then: dr resume --reason …",
        severity="critical",
    )
    for guest in list(draft.guests()):
        onecopy.doubt_everything(draft, guest, memory.sealed.get(guest.id, 0))
    merge(draft, memory)
    for host in draft.hosts():
        view = draft.view(host.name)
        if view.session:
            draft.drop_session(host.name, view.session, "new epoch")
            draft.put_view(host.name, session="", inventory=False)
        draft.put_host(changed(host, hearsay=True))  # hibernation may have been allowed there since: rule 5
        draft.forget_session(host.name)


def merge(draft: Draft, memory: Memory) -> None:
    """What an agent remembers of the protected list joins ours; nothing that anyone protected is lost."""
    added = False
    for entry in memory.entries:
        if entry.holder and draft.host(entry.holder) is None:
            # It joined after the copy was made: it may run anything, and is asked when it says hello.
            lost = HostRecord(name=entry.holder, boot_id=UNKNOWN_BOOT, since=draft.now, reason=LOST_HOST)
            draft.put_host(lost)
            for known in list(draft.guests()):
                onecopy.add_place(draft, known, lost, known.generation)
        guest = draft.guest(entry.guest)
        if guest is None:
            onecopy.adopt_unknown(draft, entry.guest, entry.name, entry.generation)
            added = True
        elif max(entry.generation, memory.sealed.get(entry.guest, 0)) > guest.generation:
            onecopy.doubt_everything(draft, guest, max(entry.generation, memory.sealed.get(entry.guest, 0)))
    if added or memory.protected_version >= draft.cluster.protected_version:
        version = max(memory.protected_version, draft.cluster.protected_version) + 1
        draft.cluster = changed(draft.cluster, protected_version=version)
