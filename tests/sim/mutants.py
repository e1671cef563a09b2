"""The core with one guard missing: each must be caught by the simulator, which shows that its checks can fail.

Here: the list of guards, each with the lines that are changed. Not here: the hunt (`tests.sim.test_mutants`). Where two
guards stand one behind the other, a mutant breaks both: alone, neither can be missed.
A mutant whose line is no longer found fails with its name: adapt it to the code, do not take it out.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dr.core import asks_hosts, decide, detector, fencing, fleet, members, onecopy, starts, warden

Function = Callable[..., Any]


@dataclass(frozen=True)
class Edit:
    """In that function, `old` becomes `new`."""

    function: Function
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One guard less. `name`: what is missing. `seed`: a random world that is known to catch it."""

    name: str
    seed: int
    edits: tuple[Edit, ...]


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """The guard is missing within this block."""
    undo: list[tuple[Any, str, Function]] = []
    try:
        for function in dict.fromkeys(edit.function for edit in mutant.edits):
            made = _edited(mutant, function)
            for module in [m for key, m in sys.modules.items() if key.startswith("dr.")]:
                for name, value in list(vars(module).items()):
                    if value is function:
                        undo.append((module, name, value))
                        setattr(module, name, made)
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)


def _edited(mutant: Mutant, function: Function) -> Function:
    source, name = textwrap.dedent(inspect.getsource(function)), function.__name__
    for edit in mutant.edits:
        if edit.function is function:
            assert source.count(edit.old) == 1, f"{mutant.name}: not once in {name}, adapt it: {edit.old!r}"
            source = source.replace(edit.old, edit.new)
    scope: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, name, "exec")
    exec(code, function.__globals__, scope)
    made: Function = scope[name]
    return made


def m(name: str, seed: int, *edits: tuple[Function, str, str]) -> Mutant:
    return Mutant(name, seed, tuple(Edit(*edit) for edit in edits))


ACKED = "view.acked_epoch != draft.cluster.epoch"

MUTANTS = (
    # may_run_on
    m(
        "a start while another place may run it",
        2,
        (onecopy.issue_start, "if guest.may_run_on:", "if False:"),
        (starts.place_waiting, "and not guest.may_run_on and", "and"),
    ),
    m(
        "a place leaves its set when a start was not answered",
        1,
        (
            onecopy.ask_testimony,
            "    view = draft.view(host.name)\n",
            "    view = draft.view(host.name)\n"
            "    for guest in guests:\n"
            "        draft.put_guest(changed(guest, may_run_on=()))\n",
        ),
    ),
    m(
        "a place is not in its set before its ticket is sent",
        1,
        (
            onecopy.issue_start,
            "guest = add_place(draft, guest, host, generation)",
            "guest = changed(guest, generation=generation)",
        ),
    ),
    m(
        "a ticket carries a new generation",
        2,
        (onecopy.issue_start, "generation = guest.generation + 1", "generation = guest.generation"),
    ),
    # testimony (proof 4)
    m(
        "a testimony that is not sealed",
        1,
        (onecopy.accept_testimony, " or place.generation > testimony.sealed", ""),
        (warden.seal, "if higher else memory", "if False else memory"),
    ),
    m(
        "`present` and `unknown` taken for `absent`",
        4,
        (
            onecopy.accept_testimony,
            "guest is None or testimony.sighting is not Sighting.ABSENT",
            "guest is None",
        ),
        (onecopy.accept_testimony, " or place.generation > testimony.sealed", ""),
    ),
    m("a seal before a testimony", 1, (warden.seal, "if higher else memory", "if not higher else memory")),
    # reboot (proof 2)
    m(
        "a newer boot stands in for one of which nothing is known",
        7,
        (onecopy.prove_boot_over, "if now is not None and unsure:", "if False:"),
    ),
    m(
        "only another boot proves that one is over",
        1,
        (members.connected, "bool(host.boot_id) and host.boot_id != hello.boot_id", "bool(host.boot_id)"),
    ),
    # power (proof 1), fencing (rule 5)
    m("a last look after a fence", 3, (fencing._last_look, "said = peers_say(view)", "said = Peers.SILENT")),
    m(
        "the GUID of a BMC",
        32,
        (detector.why_not_identical, "if reading.guid != identity.guid:", "if False:"),
        (fencing._aimed_elsewhere, 'owner not in ("", host.name)', "False"),
    ),
    m(
        "every device of a level must be off",
        11,
        (
            detector.why_not_off,
            "for device in levels[report.level].devices:",
            "for device in levels[report.level].devices[:1]:",
        ),
    ),
    m(
        "only devices that were tested",
        13,
        (fencing.provable, "return any(", "return True or any("),
        (
            detector.why_not_identical,
            'if identity is None:\n        return [f"{reading.device} was never proven: run dr fence test"]',
            "if identity is None:\n        return []",
        ),
        (fencing._aimed_elsewhere, "elif not fencing.operator and not fencing.test:", "elif False:"),
    ),
    m(
        "a fence rests on fresh evidence",
        11,
        (
            fencing._still_silent,
            "    if draft.now - draft.view",
            "    return True\n    if draft.now - draft.view",
        ),
    ),
    m("the brake", 4, (detector.brake, "if 2 * len(troubled) > len(members):", "if False:")),
    # detection
    m(
        "silence counts only from a live witness",
        16,
        (detector.peers_say, "look.answered is False and look.witness", "look.answered is False"),
    ),
    m(
        "after a start or a gap, unheard is not late",
        1,
        (detector.is_late, "    if draft.now < draft.quiet_until:\n        return False\n", ""),
        (detector.is_late, "max(view.heard, draft.quiet_until - timers.settle_s)", "view.heard"),
    ),
    # a person's word (proof 5), pause
    m(
        "a person's word is refused while the host lives",
        2,
        (asks_hosts.confirm_down, "    if why:\n        return no(ask, *why)\n", ""),
    ),
    m(
        "automation that is paused starts nothing",
        2,
        (
            starts.place_waiting,
            "if draft.cluster.pause is not None and not asked_to_start(draft, guest):",
            "if False:",
        ),
    ),
    # epoch, leaders, stores (rule 1)
    m(
        "hello is no acknowledgement of the epoch",
        2,
        (members.connected, "acked_epoch=0,", "acked_epoch=draft.cluster.epoch,"),
    ),
    m(
        "a store that is older than its agents",
        5,
        (members._older_than, "    cluster = draft.cluster\n", '    return ""\n'),
    ),
    m(
        "an older store doubts every place",
        6,
        (onecopy.doubt_everything, "guest = add_every_place(draft, guest)", "pass"),
    ),
    m(
        "a restored store starts nothing before it was looked over",
        1,
        (onecopy.hold, "if draft.cluster.restored:", "if False:"),
        (
            starts.place_waiting,
            "if draft.cluster.pause is not None and not asked_to_start(draft, guest):",
            "if False:",
        ),
    ),
    m(
        "a store is bound to its machine",
        1,
        (decide._started, "if cluster.machine != event.machine:", "if False:"),
    ),
    # tickets at the agent
    m(
        "seals come back with the list",
        3,
        (warden.protect, "if guest not in known and entry.generation", "if False and entry.generation"),
    ),
    # members (rules 4 and 6)
    m(
        "protection begins with every host",
        1,
        (
            onecopy.begin_protection,
            "add_every_place(draft, guest)",
            "add_place(draft, guest, next(iter(draft.hosts())), guest.generation)",
        ),
    ),
    m(
        "a host that hello again acknowledges the list again",
        3,
        (members.connected, "protected_version=0", "protected_version=host.protected_version"),
    ),
    m(
        "a host counts only when it is clean",
        1,
        (members._maybe_online, "    if waits:\n", "    if False:\n"),
    ),
    # nothing lost
    m(
        "leftovers are removed only where the guest runs elsewhere",
        1,
        (
            onecopy.issue_clean,
            'if guest.phase is not GuestPhase.RUNNING or holder in ("", host.name):',
            "if False:",
        ),
        (
            members._clean,
            'sole_holder(draft, guest) not in ("", host.name)',
            "sole_holder(draft, guest) != host.name",
        ),
        (members._clean, "guest is None or guest.phase is not GuestPhase.RUNNING", "guest is None"),
    ),
)

# Met by few random worlds: hunted by `python -m tests.sim.test_mutants`, not with every test.
RARE = (
    m(
        "a hibernated host is not over",
        31,
        (detector.why_not_off, "not record.facts.hibernation_masked", "False"),
        (fencing.why_not_fence, "not host.facts.hibernation_masked", "False"),
    ),
    m(
        "a host that may run guests is not removed",
        3,
        (asks_hosts.remove, "if names:  # rule 6", "if False:"),
    ),
    m(
        "automation that is paused fences nobody",
        17,
        (fencing.why_not_fence, "if draft.cluster.pause is not None:", "if False:"),
    ),
    m(
        "no witness and power off is no death",
        17,
        (
            decide._judge,
            "    evidence = looks.in_words(",
            "    if verdict is Verdict.HOLD and power_says(draft, host) == 'off':\n"
            "        verdict = Verdict.DEAD if peers_say(draft.view(host.name)) == 'none' else verdict\n"
            "    evidence = looks.in_words(",
        ),
    ),
    m(
        "whose machine a device would switch, asked before it does",
        32,
        (fencing._aimed_elsewhere, "why += why_not_identical(identity, reading)", "pass"),
    ),
    m(
        "a new leader waits for more than half",
        10,
        (onecopy._too_few_know, "if 2 * len(telling)", "if False and 2 * len(telling)"),
    ),
    m(
        "no fencing that saves nobody",
        4,
        (fencing.why_not_fence, "if not why and next(recoverable(draft, host), None) is None:", "if False:"),
    ),
    m(
        "one operation for each guest",
        1,
        (onecopy._refuse_ticket, "if busy is not None:", "if False:"),
    ),
    m(
        "a fence is for one boot",
        1,
        (fencing.ended, " or fencing.boot_id != boot_id", ""),
    ),
    m(
        "a fencing is judged anew by a later leader",
        1,
        (decide._started, "if host.phase is HostPhase.FENCING:", "if False:"),
    ),
    m(
        "the coordinator never fences its own host",
        1,
        (
            asks_hosts._why_not_switch,
            "draft.policy(host.name).coordinator_here or host.boot_id == draft.state.own_boot",
            "False",
        ),
        (
            fencing.why_not_fence,
            "draft.policy(host.name).coordinator_here or host.boot_id == draft.state.own_boot",
            "False",
        ),
    ),
    m(
        "an agent that lost its memory cannot vouch for the store",
        1,
        (onecopy._too_few_know, "if not draft.view(host.name).forgot", ""),
    ),
    m("an agent refuses an older epoch", 1, (warden.adopt, "if welcome.epoch < memory.epoch:", "if False:")),
    m(
        "an agent refuses another leader of its epoch",
        1,
        (warden.adopt, "if welcome.epoch == memory.epoch and", "if False and"),
    ),
    m(
        "a ticket below the seal",
        1,
        (warden.admit, "if ticket.generation <= sealed:", "if False:"),
        (warden.begin, "    assert ticket.generation > memory.sealed.get(ticket.guest, 0)\n", ""),
    ),
    m(
        "a ticket is run at most once",
        1,
        (warden.admit, "if known.command == command:", "if False:"),
        (warden.admit, "if ticket.generation <= sealed:", "if False:"),
        (warden.begin, "    assert ticket.generation > memory.sealed.get(ticket.guest, 0)\n", ""),
        (warden.begin, "    assert all(known.command != command for known in memory.tickets)\n", ""),
    ),
    m(
        "a ticket has no force when it is acted on",
        1,
        (warden.invalid, "    if ticket.host != host:", '    return ""\n    if ticket.host != host:'),
    ),
    m(
        "an older protected list",
        1,
        (warden.protect, "if order.version < memory.protected_version:", "if False:"),
    ),
    m(
        "a host that joins stands in every set",
        1,
        (members.connected, "onecopy.add_place(draft, guest, host, guest.generation)", "pass"),
    ),
    m(
        "a start where the hook is proven and the list is known",
        1,
        (
            onecopy._refuse_host,
            "if not host.facts.hook.proven or host.protected_version != draft.cluster.protected_version:",
            "if False:",
        ),
        (fleet._blockers, "if not host.facts.hook.proven:", "if False:"),
    ),
    m(
        "a quarantined host takes no guests",
        1,
        (fleet._blockers, "if Condition.QUARANTINED in host.conditions:", "if False:"),
    ),
    m(
        "guests that are unprotected leave their generations behind",
        1,
        (onecopy.forget, "max(draft.cluster.generation_floor, guest.generation)", "0"),
    ),
)
