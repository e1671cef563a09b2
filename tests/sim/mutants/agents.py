"""Guards of an agent: which leader it follows, which tickets it takes, what it seals and testifies."""

from __future__ import annotations

from dr.core import onecopy, restored, warden
from dr.sim.agent import SimAgent
from tests.sim.mutants.mutant import m

SEALED = "    assert ticket.generation > memory.sealed.get(ticket.guest, 0)\n"
BELOW_THE_SEAL = (
    (warden.admit, "if ticket.generation <= sealed:", "if False:"),
    (warden.begin, SEALED, ""),
)

GROUPS = {
    "epoch, at the agent": (
        m(
            "an agent refuses an older epoch",
            "restore/epoch-below-that-of-its-hosts",
            (
                restored.older_than,
                "    cluster = draft.cluster\n",
                '    return ""\n    cluster = draft.cluster\n',
            ),
            (warden.adopt, "if welcome.epoch < memory.epoch:", "if False:"),
        ),
        m(
            "an agent refuses another leader of its epoch",
            "restore/equal-epoch-of-another-leader",
            (
                restored.older_than,
                "    cluster = draft.cluster\n",
                '    return ""\n    cluster = draft.cluster\n',
            ),
            (warden.adopt, "if welcome.epoch == memory.epoch and", "if False and"),
        ),
        m(
            "an agent takes no command of another leader",
            "one-copy/session-ends-while-a-start-waits",
            (warden._not_led_by, "if (epoch, leader_id) == (memory.epoch, memory.leader_id):", "if True:"),
            (SimAgent.valid, "if link is not self.link:", "if False:"),
            (warden.stale, "if command.session != session:", "if False:"),
            (warden.invalid, "if ticket.session != session:", "if False:"),
        ),
        m(
            "an agent keeps the highest revision",
            "restore/guest-that-only-agents-know",
            (warden.acknowledge, "if revision > memory.revision", "if False"),
        ),
    ),
    "ticket, at the agent": (
        m("a ticket below the seal", "one-copy/start-comes-late", *BELOW_THE_SEAL),
        m(
            "a ticket is run at most once",
            "one-copy/start-comes-twice",
            (warden.admit, "if known.command == command:", "if False:"),
            *BELOW_THE_SEAL,
            (warden.begin, "    assert all(known.command != command for known in memory.tickets)\n", ""),
        ),
        m(
            "a ticket is remembered when it is begun",
            "migration/undefined-at-the-source-before-its-word-is-heard",
            (warden.begin, "(*memory.tickets, Remembered(command=command))", "memory.tickets"),
        ),
        m(
            "a ticket has no force when it is acted on",
            "one-copy/session-ends-while-a-start-waits",
            (SimAgent.valid, "if link is not self.link:", "if False:"),
            (warden.invalid, "    if ticket.host != host:", '    return ""\n    if ticket.host != host:'),
        ),
        m(
            "a ticket is for one boot",
            "operator/stop-and-start",
            (onecopy._ticket, "boot_id=host.boot_id", 'boot_id=""'),
            (warden.invalid, "if ticket.boot_id != boot_id:", "if False:"),
        ),
        m(
            "no list, no ticket",
            "one-copy/no-ticket-without-the-list",
            (warden.invalid, "if ticket.guest not in listed(memory):", "if False:"),
        ),
        m(
            "what was under way when the agent restarted has an end that nobody saw",
            "migration/the-second-try-is-judged-by-itself",
            (warden.wake, "if known.answer is None:", "if False:"),
        ),
        m(
            "a ticket has no force in another session",
            "one-copy/session-ends-while-a-start-waits",
            (SimAgent.valid, "if link is not self.link:", "if False:"),
            (warden.invalid, "if ticket.session != session:", "if False:"),
            (warden.stale, "if command.session != session:", "if False:"),
        ),
    ),
    "seal, at the agent": (
        m(
            "a seal before a testimony",
            "one-copy/answers-of-a-start-are-lost",
            (warden.seal, "if higher else memory", "if not higher else memory"),
        ),
        m(
            "a seal is durable",
            "one-copy/agent-dies-over-a-start",
            (warden.seal, "if higher else memory", "if False else memory"),
        ),
        m(
            "seals come back with the list",
            "detection/agent-lost-its-state",
            (warden.protect, "if guest not in known and entry.generation", "if False and entry.generation"),
        ),
        m(
            "a seal stays when the list comes again",
            "one-copy/agent-dies-over-a-start",
            (
                warden.protect,
                "for guest, generation in memory.sealed.items() if guest in entries",
                "for guest, generation in {}.items()",
            ),
        ),
        m(
            "beginning a ticket seals its generation",
            "one-copy/answers-of-a-start-are-lost",
            (
                warden.begin,
                "acknowledge(seal(begun, {ticket.guest: ticket.generation}), ticket.revision)",
                "acknowledge(begun, ticket.revision)",
            ),
        ),
        m(
            "an older protected list",
            "one-copy/list-comes-late",
            (warden.protect, "if order.version < memory.protected_version:", "if False:"),
        ),
    ),
    "rule 7: what the hook cannot see": (
        m(
            "a copy that was made to run by hand is suspended",
            "migration/copy-resumed-by-hand",
            (
                warden.stray,
                "return Stray.SUSPEND if runs and not arriving else Stray.NONE",
                "return Stray.NONE",
            ),
        ),
        m(
            "what arrives without a ticket is destroyed",
            "one-copy/agent-of-the-destination-loses-its-memory",
            (
                warden.stray,
                "return Stray.DESTROY if arriving and memory.let_in.get(guest) != boot_id else Stray.NONE",
                "return Stray.NONE",
            ),
        ),
        m(
            "a copy that was received whole is not destroyed by its agent",
            "migration/copy-resumed-by-hand",
            (
                warden.stray,
                "return Stray.SUSPEND if runs and not arriving else Stray.NONE",
                "return Stray.DESTROY",
            ),
        ),
        m(
            "a copy is known as one until a ticket lets it run",
            "migration/copy-resumed-by-hand",
            (
                warden._follow,
                "copies[ticket.guest] = Copy(",
                "Copy(",
            ),
        ),
        m(
            "one that was resumed by ticket is no copy any more",
            "migration/coordinator-dies-while-it-copies",
            (
                warden._follow,
                "        case TicketKind.START | TicketKind.RESUME:\n            copies.pop(ticket.guest, None)\n",
                "        case TicketKind.START | TicketKind.RESUME:\n",
            ),
        ),
    ),
    "rule 2: migration's end, at the agent": (
        m(
            "only a job that libvirt says to have migrated took the guest away",
            "migration/last-word-lost-then-guest-crashes",
            (warden.left_by, "return ticket if migrated or ticket in done", "return ticket if True"),
        ),
        m(
            "a ticket's own word that it migrated outlives libvirt's",
            "migration/undefined-at-the-source-before-its-word-is-heard",
            (warden.left_by, "migrated or ticket in done", "migrated"),
        ),
        m(
            "libvirt's word that it migrated counts without the job's",
            "migration/end-not-seen",
            (warden.left_by, "migrated or ticket in done", "ticket in done"),
        ),
        m(
            "a guest that came back has not left",
            "migration/came-back-and-is-sent-again",
            (onecopy.accept_testimony, "testimony.left_by == move.job", "testimony.left_by"),
            (
                warden._follow,
                "            )\n            left.pop(ticket.guest, None)\n",
                "            )\n",
            ),
            (
                warden._follow,
                "            left.pop(ticket.guest, None)\n            disks_left.pop(ticket.guest, None)\n",
                "            disks_left.pop(ticket.guest, None)\n",
            ),
        ),
    ),
    "isolation, at the agent": (
        m(
            "a host is alone only when its peers are silent too",
            "isolation/coordinator-down-isolates-nobody",
            (warden.alone_since, "if linked or heard is not False:", "if linked:"),
        ),
        m(
            "a host that hears its coordinator is not alone",
            "isolation/hears-only-its-coordinator",
            (SimAgent._mind_isolation, "if not linked and self.memory.peers:", "if self.memory.peers:"),
            (warden.alone_since, "if linked or heard is not False:", "if heard is not False:"),
        ),
        m(
            "a host that is alone shuts guests down",
            "isolation/shut-down-then-cable-back",
            (warden.to_shut_down, "entry.isolation is Isolation.SHUT_DOWN", "False"),
        ),
        m(
            "only guests that want it are shut down",
            "isolation/host-cut-off-while-its-peers-are-cut-off-too",
            (warden.to_shut_down, "entry.isolation is Isolation.SHUT_DOWN", "True"),
        ),
        m(
            "a host is alone for a while before it shuts guests down",
            "isolation/alone-for-a-moment",
            (warden.to_shut_down, "now - since < memory.isolation_s", "False"),
        ),
        m(
            "who was shut down by isolation was not shut down by its owner",
            "isolation/shut-down-then-cable-back",
            (warden.isolate, "return changed(memory, isolated=(*memory.isolated, guest))", "return memory"),
        ),
        m(
            "who runs again is isolated no longer",
            "isolation/its-owner-shuts-it-down-later",
            (warden.relieve, "return changed(memory, isolated=left) if left", "return memory if left"),
        ),
    ),
}
