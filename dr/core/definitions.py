"""Definitions of protected guests: asked of the host that runs them, kept in versions, followed when they are edited.

Here: asking, keeping, and what a new version changes: name, needs, blockers. Not here: what its XML asks of a host
(`definition`).
"""

from __future__ import annotations

from dr.core import dependencies, disks, onecopy
from dr.core.definition import needs_of
from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.base import changed
from dr.model.commands import Answer, Describe
from dr.model.effects import Send
from dr.model.facts import Definition, GuestFacts
from dr.model.records import GuestPhase, GuestRecord, HostRecord, StoredDefinition

LOCAL_AGAIN_S = 600.0  # sizes of disks that are copied with a move are asked for anew
BASES_AGAIN_S = 15.0  # while what they lie on is being read where they are


def want(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    view = draft.view(host.name)
    if facts.digest == guest.digest and guest.definition and not _grow(draft, guest, host):
        return
    if not facts.digest or not view.session or draft.find_pending("describe", guest=guest.id):
        return
    digest, asked, _ = view.described.get(guest.id, ("", 0.0, ""))
    if digest == facts.digest and draft.now - asked < draft.config.timers.recovery_retry_s:
        return  # it could not be told just now
    draft.put_view(host.name, described=view.described | {guest.id: (facts.digest, draft.now, "")})
    key = draft.next_id("describe")
    draft.wait_for(
        key,
        Pending(
            kind="describe",
            host=host.name,
            guest=guest.id,
            at=draft.now,
            deadline=draft.now + draft.config.timers.testify_s,
        ),
    )
    draft.effect(Send(id=key, host=host.name, session=view.session, body=Describe(guest=guest.id)))


def _grow(draft: Draft, guest: GuestRecord, host: HostRecord) -> bool:
    """Whether it is time to ask again how large its local disks are, and what they lie on."""
    again_s = BASES_AGAIN_S if disks.unread(guest, host) else LOCAL_AGAIN_S
    _, asked, _ = draft.view(host.name).described.get(guest.id, ("", -LOCAL_AGAIN_S, ""))
    return bool(guest.needs.local) and draft.now - asked >= again_s


def described(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """The newest definition from its holder: kept as a new version; may end a protection that cannot hold."""
    definition = answer.definition
    if definition is None:
        told = draft.view(host.name).described
        digest, asked, _ = told.get(guest.id, ("", draft.now, ""))
        draft.put_view(host.name, described=told | {guest.id: (digest, asked, answer.reason)})
        return
    if definition.digest == guest.digest:
        if host.name == guest.holder:
            _looked_again(draft, guest, definition)
        return
    places = {place.host for place in guest.may_run_on} or {guest.disks_on}
    if host.name not in places:
        return
    needs, blockers = needs_of(definition)
    version = guest.definition + 1
    draft.put_definition(
        StoredDefinition(
            guest=guest.id,
            version=version,
            xml=definition.xml,
            digest=definition.digest,
            nvram=definition.nvram,
            reported_by=host.name,
        )
    )
    watched_before, name_before = guest.needs.watched, guest.name
    guest = changed(
        guest,
        name=definition.name,
        definition=version,
        digest=definition.digest,
        needs=needs,
        blockers=blockers,
    )
    draft.put_guest(guest)
    draft.note(
        "guest.definition",
        f"{guest.name}: definition version {version} from {host.name}",
        host=host.name,
        guest=guest.id,
    )
    if name_before != guest.name:
        draft.note(
            "guest.renamed", f"{name_before} is now named {guest.name}", host=host.name, guest=guest.id
        )
        dependencies.renamed(draft, name_before, guest.name)
    if needs.watched != watched_before or name_before != guest.name:
        draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)
    if guest.tied and guest.phase is GuestPhase.PROTECTING:
        refuse_protection(draft, guest, guest.tied)
    else:
        tell_tied(draft, guest)


def _looked_again(draft: Draft, guest: GuestRecord, definition: Definition) -> None:
    """The same definition: its disks may have grown, or cannot be copied now, which does not make them shared."""
    known, watched = {(disk.target, disk.path, disk.form) for disk in guest.needs.local}, guest.needs.watched
    if {(disk.target, disk.path, disk.form) for disk in definition.local} == known:
        guest = changed(guest, needs=changed(guest.needs, local=definition.local))
    if guest.needs.watched != watched:  # what they lie on was read, or changed
        draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)
    guest = changed(guest, blockers=definition.blockers)
    if guest != draft.guest(guest.id):
        draft.put_guest(guest)
        tell_tied(draft, guest)


def tell_tied(draft: Draft, guest: GuestRecord) -> None:
    """People are told while a protected guest could not be started elsewhere and nobody has agreed to that."""
    key = f"guest/{guest.id}/blocked"
    if guest.tied:
        draft.alert(
            key,
            f"{guest.name} could not be started elsewhere any longer",
            " ".join(guest.tied),
            f"change its definition back, or: dr guest unprotect {guest.name}",
        )
    else:
        draft.clear_alert(key)


def refuse_protection(draft: Draft, guest: GuestRecord, blockers: tuple[str, ...]) -> None:
    """It cannot be protected: it leaves the list, and the operation says why."""
    for operation in draft.open_operations():
        if operation.kind == "protect" and guest.id in operation.guests:
            outcome = f"refused: {' '.join(blockers)}"
            draft.put_operation(changed(operation, guests=operation.guests | {guest.id: outcome}))
    draft.note("guest.refused", f"{guest.name}: not protected: {' '.join(blockers)}", guest=guest.id)
    onecopy.forget(draft, guest)
    draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)
