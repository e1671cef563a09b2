"""What operators ask. Each ask is accepted with an operation to watch, or refused with every blocker at once."""

from __future__ import annotations

from dr.core import (
    asks_cluster,
    asks_drills,
    asks_guests,
    asks_hosts,
    asks_moves,
    asks_plans,
    asks_playbooks,
    asks_policies,
    asks_upkeep,
)
from dr.core.state import Draft
from dr.model.effects import Reply
from dr.model.events import (
    Admitted,
    AskAgree,
    AskApply,
    AskCancelMove,
    AskCancelRun,
    AskCheck,
    AskClearQuarantine,
    AskConfirmDown,
    AskCordon,
    AskDrain,
    AskFence,
    AskFenceTest,
    AskKeepDrill,
    AskLabel,
    AskMigrate,
    AskPause,
    AskProtect,
    AskRelocate,
    AskRemoveHost,
    AskResume,
    AskRun,
    AskSet,
    AskStart,
    AskStop,
    AskUncordon,
    AskUndrain,
    AskUnprotect,
    OperatorAsk,
)

ASKED: dict[type[OperatorAsk], str] = {
    AskProtect: "protect",
    AskUnprotect: "unprotect",
    AskStart: "start",
    AskStop: "stop",
    AskFence: "fence",
    AskFenceTest: "fence test",
    AskConfirmDown: "confirm-down",
    AskRemoveHost: "remove host",
    AskLabel: "label",
    AskPause: "pause automation",
    AskResume: "resume automation",
    AskClearQuarantine: "clear quarantine of",
    AskMigrate: "migrate",
    AskRelocate: "relocate",
    AskSet: "set",
    AskCancelMove: "call off the move of",
    AskCheck: "check",
    AskCordon: "cordon",
    AskUncordon: "uncordon",
    AskDrain: "drain",
    AskApply: "apply a plan for",
    AskUndrain: "undrain",
    AskRun: "run playbook",
    AskAgree: "answer",
    AskCancelRun: "cancel",
    AskKeepDrill: "keep the report of drill",
    Admitted: "invite host",
}


def asked(draft: Draft, ask: OperatorAsk) -> None:
    """Decide one ask, and answer it."""
    draft.effect(decided(draft, ask))


def decided(draft: Draft, ask: OperatorAsk) -> Reply:
    """Decide one ask; the audit line is written whatever the outcome."""
    reply = _answer(draft, ask)
    audited(draft, ask, reply)
    return reply


def audited(draft: Draft, ask: OperatorAsk, reply: Reply) -> None:
    """The line of the audit."""
    outcome = "accepted" if reply.accepted else f"refused: {'; '.join(reply.blockers) or reply.message}"
    what = ASKED[type(ask)]
    if isinstance(ask, AskMigrate | AskDrain | AskApply | AskRun) and ask.dry_run:
        what = f"tell what it would be to {what}"
    why = f" because {ask.reason}" if ask.reason else ""
    subject = ", ".join((getattr(ask, "host", ""), *getattr(ask, "also", ()))) or getattr(ask, "name", "")
    if not subject:
        subject = ", ".join(getattr(ask, "hosts", ()) or getattr(ask, "guests", ()))
    if isinstance(ask, AskRun):
        told = ", ".join(f"{key}={value}" for key, value in ask.params.items())
        subject = ask.playbook.playbook + (f" ({told})" if told else "")
    elif isinstance(ask, AskAgree | AskCancelRun):
        subject = f"{ask.job}{': ' + ('yes' if ask.agree else 'no') if isinstance(ask, AskAgree) else ''}"
    elif isinstance(ask, AskKeepDrill):
        subject = f"{ask.report.id} ({ask.report.title}: {ask.report.verdict})"
    if isinstance(ask, AskSet):
        subject += f" {asks_policies.in_words(ask)}"
    draft.note("audit", f"{ask.by} asked to {what} {subject}".rstrip() + f"{why}: {outcome}", by=ask.by)


def _answer(draft: Draft, ask: OperatorAsk) -> Reply:  # noqa: PLR0911, PLR0912  # one line for each ask
    match ask:
        case AskProtect():
            return asks_guests.protect(draft, ask)
        case AskUnprotect():
            return asks_guests.unprotect(draft, ask)
        case AskStart():
            return asks_guests.start(draft, ask)
        case AskStop():
            return asks_guests.stop(draft, ask)
        case AskFence():
            return asks_hosts.fence(draft, ask)
        case AskFenceTest():
            return asks_hosts.fence_test(draft, ask)
        case AskConfirmDown():
            return asks_hosts.confirm_down(draft, ask)
        case AskRemoveHost():
            return asks_hosts.remove(draft, ask)
        case AskClearQuarantine():
            return asks_hosts.clear_quarantine(draft, ask)
        case AskLabel():
            return asks_cluster.label(draft, ask)
        case AskPause() | AskResume():
            return asks_cluster.pause_or_resume(draft, ask)
        case Admitted():
            return asks_hosts.admit(draft, ask)
        case AskSet():
            return asks_policies.set_(draft, ask)
        case AskMigrate():
            return asks_moves.migrate(draft, ask)
        case AskRelocate():
            return asks_moves.relocate(draft, ask)
        case AskCancelMove():
            return asks_moves.cancel(draft, ask)
        case AskCheck():
            return asks_guests.check(draft, ask)
        case AskCordon():
            return asks_upkeep.cordon(draft, ask)
        case AskUncordon():
            return asks_upkeep.uncordon(draft, ask)
        case AskDrain():
            return asks_upkeep.drain(draft, ask)
        case AskApply():
            return asks_plans.apply(draft, ask)
        case AskUndrain():
            return asks_upkeep.undrain(draft, ask)
        case AskRun():
            return asks_playbooks.run(draft, ask)
        case AskAgree():
            return asks_playbooks.agree(draft, ask)
        case AskCancelRun():
            return asks_playbooks.cancel(draft, ask)
        case AskKeepDrill():
            return asks_drills.keep(draft, ask)
