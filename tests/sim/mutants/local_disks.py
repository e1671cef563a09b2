"""Guards of disks that only a guest's own host has: which copy is the newest, and what becomes of the others."""

from __future__ import annotations

from dr.core import definitions, disks, guests, onecopy, placement, transfer, warden
from tests.sim.mutants.mutant import m

GROUPS = {
    "disks that only one host has": (
        m(
            "from cold a guest starts only where its newest disks are",
            "local-disks/destination-dies-after-it-left",
            (disks.why_not_cold, "if not guest.needs.local or guest.disks_on == name:", "if True:"),
        ),
        m(
            "where a guest is seen to run its disks are the newest",
            "local-disks/destination-dies-after-it-left",
            (onecopy.issue_resume, "        guest = changed(guest, disks_on=host.name)", "        pass"),
            (guests.running_on, "        disks_on=host,\n", ""),
        ),
        m(
            "from the moment when a copy may run its disks are the newest",
            "local-disks/copy-never-resumed-and-destination-dies",
            (onecopy.issue_resume, "        guest = changed(guest, disks_on=host.name)", "        pass"),
        ),
        m(
            "an older store does not know which disks are the newest",
            "local-disks/older-store-knows-an-older-place",
            (onecopy.doubt_everything, ', disks_on=""', ""),
        ),
        m(
            "a guest goes where its disks have room",
            "local-disks/no-room-for-its-disk",
            (disks.why_no_room, "if need_mib > free_mib:", "if False:"),
        ),
        m(
            "a guest with local disks may go elsewhere live",
            "local-disks/moves-with-its-disk",
            (placement.Case._against_disks, "if self.with_disks:", "if False:"),
        ),
        m(
            "nobody is protected with local disks without consent",
            "local-disks/not-without-consent",
            (
                definitions.described,
                "if guest.tied and guest.phase is GuestPhase.PROTECTING:",
                "if guest.blockers and guest.phase is GuestPhase.PROTECTING:",
            ),
        ),
        m(
            "images of a move that came to nothing are removed where it went",
            "local-disks/called-off",
            (onecopy.issue_discard, "_worth_nothing(draft, guest, host)", "False"),
            (warden.told, "    if files:", "    if False:"),
        ),
        m(
            "the source of disks that are copied stands in its guest's set",
            "local-disks/relocate-takes-its-disk-along",
            (
                onecopy.issue_copy,
                "    guest = add_place(draft, guest, source, guest.generation + 1)\n",
                "    guest = changed(guest, generation=guest.generation + 1)\n",
            ),
        ),
        m(
            "disks have arrived only where that is said of all",
            "local-disks/relocate-called-off",
            (transfer.ended, "if ours and answer.outcome is Outcome.DONE:", "if ours:"),
        ),
        m(
            "a guest that was off when it was moved stays off",
            "local-disks/relocate-of-a-guest-that-is-off",
            (transfer._wanted, "return guest.desired is Desired.RUNNING", "return True"),
        ),
        m(
            "what does not get on is given up",
            "local-disks/relocate-that-gets-nowhere",
            (transfer._over, "or move.tries >= TRIES_MAX", ""),
            (transfer._watch, "if not why and draft.now - move.at > guest.policy.move_s:", "if False:"),
        ),
        m(
            "disks that left while their guest was off are parted with",
            "local-disks/relocate-takes-its-disk-along",
            (warden.left_by, "return ticket if ticket in done else", "return ticket if False else"),
        ),
        m(
            "images on a host that rebooted over a move are told",
            "local-disks/destination-dies-over-the-copy",
            (warden.told, "    if files:", "    if False:"),
        ),
        m(
            "a whole copy is kept while its source is not seen to run",
            "local-disks/whole-copy-and-its-source-never-comes-back",
            (onecopy._worth_nothing, "return any(", "return True or any("),
        ),
    ),
}
