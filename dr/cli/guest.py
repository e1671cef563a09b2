"""`dr guest`. Guests are chosen by name, `--label`, `--host` or `--all`; one request carries them all."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dr.cli import guest_check
from dr.cli.ask import Reason, Timeout, Wait, Yes, confirm, labels, leave_foretold, send
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, Output, age, document, facts, heard, listing, mib

if TYPE_CHECKING:
    from dr.api.schema import Guest, GuestRow, Policy

app = typer.Typer(help="Guests, protected and not.", no_args_is_help=True)
app.command("check")(guest_check.check)

Names = Annotated[list[str] | None, typer.Argument(help="Names or UUIDs.")]
ByLabel = Annotated[
    list[str] | None, typer.Option("--label", "-l", help="Those with KEY=VALUE; repeat for more.")
]
ByHost = Annotated[str, typer.Option("--host", help="Those on this host.")]
All = Annotated[bool, typer.Option("--all", "-a", help="All of them.")]


class Mode(StrEnum):
    SHUTDOWN = "shutdown"
    DESTROY = "destroy"


class Desired(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    IGNORED = "ignored"


class Isolation(StrEnum):
    LEAVE = "leave"
    SHUT_DOWN = "shut_down"
    FENCE = "fence"


class Unhealthy(StrEnum):
    IGNORE = "ignore"
    ALERT = "alert"
    RESTART = "restart"


def _state(row: GuestRow) -> str:
    if row.desired == "ignored":
        return f"{row.phase}, ignored"
    if row.protected and row.desired and row.phase not in (row.desired, "protecting"):
        return f"{row.phase}, should be {row.desired}"
    return row.phase


def _places(row: GuestRow) -> str:
    return ",".join(place.host for place in row.may_run_on)


COLUMNS: tuple[Column[GuestRow], ...] = (
    Column("GUEST", lambda row: row.name),
    Column("STATE", _state, styled=True),
    Column("HOST", lambda row: row.host or _places(row)),
    Column(
        "PROTECTED", lambda row: ("blocked" if row.blockers else "yes") if row.protected else "-", styled=True
    ),
    Column("LAST HEARD", lambda row: heard(row.heard_s, True) if row.host else "-"),
    Column("MEMORY", lambda row: mib(row.memory_mib)),
    Column("PRIORITY", lambda row: str(row.priority) if row.protected else "", wide=True),
    Column("MAY RUN ON", _places, wide=True),
    Column("FOR", lambda row: age(row.since_s) if row.since_s is not None else "", wide=True),
    Column("UUID", lambda row: row.id, wide=True),
    Column(
        "LABELS",
        lambda row: ",".join(f"{key}={value}" for key, value in sorted(row.labels.items())),
        wide=True,
    ),
    Column("REASON", lambda row: "; ".join(part for part in (row.reason, *row.blockers) if part)),
)


@app.command("list")
def list_(
    *,
    label: ByLabel = None,
    host: ByHost = "",
    protected: Annotated[bool | None, typer.Option("--protected/--unprotected", help="Only these.")] = None,
    form: Output = Form.TABLE,
) -> None:
    """All guests, protected and not, with the age of what is shown."""
    from dr.api.schema import GuestList
    from dr.cli.client import connect

    rows = _chosen(connect().get("/v1/guests", GuestList).items, label, host)
    rows = [row for row in rows if protected is None or row.protected is protected]
    listing(
        GuestList(items=rows), rows, COLUMNS, form, name=lambda row: row.name,
        empty="No guests. They appear when a host that has some is online: dr host list",
    )  # fmt: skip


def _chosen(rows: list[GuestRow], label: list[str] | None, host: str) -> list[GuestRow]:
    wanted = labels(label or [])
    return [
        row
        for row in rows
        if all(row.labels.get(key) == value for key, value in wanted.items())
        and (not host or host == row.host or any(place.host == host for place in row.may_run_on))
    ]


def select(
    names: list[str] | None, label: list[str] | None, host: str, everything: bool, *, protected: bool | None
) -> list[GuestRow]:
    """The guests that a bulk command means. Raises Failure: none named, none found, contradiction."""
    from dr.api.schema import GuestList
    from dr.cli.client import connect

    bulk = bool(label or host or everything)
    if bool(names) == bulk:
        why = "name them, or choose with --label, --host or --all" + (", not both" if bulk else "")
        raise Failure("Which guests?", why=why, code=Exit.USAGE)
    rows = connect().get("/v1/guests", GuestList).items
    if not bulk:
        return _named(names or [], rows)
    found = [row for row in _chosen(rows, label, host) if protected is None or row.protected is protected]
    if not found:
        kind = "" if protected is None else "protected " if protected else "unprotected "
        if everything:
            tell(f"There is no {kind}guest: nothing to do.")
            raise typer.Exit(Exit.OK)
        raise Failure(f"No {kind}guest fits.", todo="dr guest list -o wide", code=Exit.MISSING)
    return found


def _named(names: list[str], rows: list[GuestRow]) -> list[GuestRow]:
    found: list[GuestRow] = []
    wrong: list[str] = []
    for name in dict.fromkeys(names):
        fits = [row for row in rows if name in (row.name, row.id)]
        if len(fits) == 1:
            found += fits
        elif fits:
            wrong.append(
                f"{len(fits)} guests are named {name}: {', '.join(row.id for row in fits)}; use the UUID"
            )
        else:
            wrong.append(f"there is no guest {name}")
    if wrong:
        raise Failure(
            "Not all guests were found; nothing was done.",
            blockers=wrong,
            todo="dr guest list",
            code=Exit.MISSING,
        )
    return found


def _many(rows: list[GuestRow], what: str, *, yes: bool) -> None:
    """Confirm by the guest's name, or by the number of guests."""
    names = ", ".join(row.name for row in rows[:20]) + (" …" if len(rows) > 20 else "")
    word = rows[0].name if len(rows) == 1 else str(len(rows))
    confirm(word, f"{what}: {names}", yes=yes)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or UUID.")], form: Output = Form.TABLE) -> None:
    """One guest: where it is, where it may be running, why it waits, what it needs."""
    from dr.api.schema import GuestDocument
    from dr.cli.client import connect

    answer = connect().get(f"/v1/guests/{quote(name, safe='')}", GuestDocument)
    match form:
        case Form.JSON | Form.YAML:
            document(answer, form)
        case Form.NAME:
            print(answer.item.name)
        case Form.TABLE | Form.WIDE:
            facts(_facts(answer.item))


def _writes(guest: Guest) -> str:
    """What a live move of it would have to send again, roughly."""
    if not guest.writes:
        return "not measured yet"
    points = ", ".join(f"{each.mib:.0f} MiB within {each.interval_s:.0f} s" for each in guest.writes)
    return f"{points}; measured {age(guest.writes_age_s)} ago"


def _facts(guest: Guest) -> list[tuple[str, str]]:
    seen = "\n".join(f"{each.host}: {each.state} (heard {heard(each.heard_s, True)})" for each in guest.seen)
    places = "\n".join(
        f"{place.host}, boot {place.boot_id}, generation {place.generation}" for place in guest.may_run_on
    )
    pairs = [
        ("guest", guest.name),
        ("uuid", guest.id),
        ("state", _state(guest) + (f" for {age(guest.since_s)}" if guest.since_s is not None else "")),
        ("reason", guest.reason),
        ("protected", "yes" if guest.protected else f"no; protect it: dr guest protect {guest.name}"),
        ("cannot move", "\n".join(guest.blockers)),
        ("host", guest.host),
        ("seen on", seen),
        ("memory", mib(guest.memory_mib)),
        ("vcpus", str(guest.vcpus or "")),
    ]
    if guest.protected:
        pairs += [
            ("may run on", places or "nowhere: proven to run on no host"),
            ("generation", str(guest.generation)),
            ("desired", guest.desired),
            *_policy(guest),
            ("definition", f"version {guest.definition} from {guest.definition_by}" if guest.definition else "none"),
            ("writes to memory", _writes(guest)),
            ("needs", "\n".join(f"{key}: {value}" for key, value in guest.needs.items())),
            ("local disks", _local_disks(guest)),
            ("not again on", ", ".join(guest.avoid)),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(guest.labels.items()))),
        ]  # fmt: skip
    return pairs


def _size(size_b: int) -> str:
    return mib(size_b >> 20) or "less than 1 MiB"


def _local_disks(guest: Guest) -> str:
    """Each, and where the newest copy is."""
    if not guest.local_disks:
        return ""
    disks = [
        f"{disk.target}: {disk.path} ({disk.form}, {_size(disk.size_b)}, {_size(disk.used_b)} in use)"
        + "".join(f"\n  on {base}" for base in disk.bases)
        for disk in guest.local_disks
    ]
    newest = (
        f"the newest copy is on {guest.disks_on}, and it starts nowhere else"
        if guest.disks_on
        else f"no host is known to have the newest copy: dr guest start {guest.name} --disks-on HOST"
    )
    return "\n".join([*disks, newest])


def _policy(guest: Guest) -> list[tuple[str, str]]:
    policy = guest.policy
    if policy is None:
        return []  # of an older coordinator
    restarts = f"{guest.restarts} of {policy.max_restarts} in place, within {policy.restart_window_s:g} s"
    moved = f"{guest.relocations} of {policy.max_relocations}, within {policy.relocation_window_s:g} s"
    return [
        ("priority", str(policy.priority)),
        ("starts after", ", ".join(policy.boot_after)),
        ("checks", _checks(guest, policy)),
        ("restarts", restarts),
        ("moved", moved),
        ("failback", guest.failback or ("yes" if policy.failback else "no")),
        ("unhealthy", policy.on_unhealthy),
        ("isolation", policy.isolation),
        ("live move", _how_it_moves(policy)),
    ]


def _checks(guest: Guest, policy: Policy) -> str:
    """Each, with what it found last."""
    if not policy.checks:
        return "none"
    found = {each.check: each for each in guest.checks}
    lines = []
    for text in policy.checks:
        last = found.get(text)
        said = f": {last.why}" if last is not None and last.why else ""
        lines.append(f"{text} ({last.result} {age(last.age_s)} ago{said})" if last is not None else text)
    passed = f"passed {age(guest.check_age_s)} ago" if guest.check_age_s is not None else "have not passed"
    return "\n".join([*lines, f"all of them: {passed} since it runs as it does now"])


def _how_it_moves(policy: Policy) -> str:
    words = [
        f"called off after {policy.move_s:g} s",
        f"stands still for {policy.move_downtime_s:g} s at most",
    ]
    words.append("slowed down if need be" if policy.move_auto_converge else "never slowed down")
    if policy.move_mib_s:
        words.append(f"at {policy.move_mib_s} MiB/s")
    if policy.move_streams > 1:
        words.append(f"over {policy.move_streams} connections")
    if policy.local_disks:
        old = "removed" if policy.remove_old_disks else "set aside"
        words.append(f"with disks that only its host has (those left behind are {old})")
    return ", ".join(words)


@app.command()
def protect(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    priority: Annotated[
        int | None, typer.Option("--priority", help="Higher starts first; default: the configuration's.")
    ] = None,
    local_disks: Annotated[
        bool | None,
        typer.Option(
            "--local-disks/--no-local-disks",
            help="Also if only its host has its disks: it moves with them, and starts nowhere else.",
        ),
    ] = None,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = 60.0,
    form: Output = Form.TABLE,
) -> None:
    """Keep guests running: from now on they are restarted, elsewhere when their host fails."""
    rows = select(names, label, host, everything, protected=False)
    body = {
        "guests": [row.id for row in rows], "priority": priority, "local_disks": local_disks, "reason": reason,
    }  # fmt: skip
    send("/v1/guests/protect", body, wait=wait, timeout_s=timeout, form=form)


@app.command()
def unprotect(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    reason: Reason = "",
    yes: Yes = False,
    form: Output = Form.TABLE,
) -> None:
    """Stop caring for guests. They go on running; nothing restarts them."""
    rows = select(names, label, host, everything, protected=True)
    _many(rows, "They will not be restarted when their host fails", yes=yes)
    send("/v1/guests/unprotect", {"guests": [row.id for row in rows], "reason": reason}, form=form)


@app.command()
def start(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    disks_on: Annotated[
        str,
        typer.Option(
            "--disks-on",
            help="HOST has the newest copy of their local disks, by your word: what is newer elsewhere is lost.",
        ),
    ] = "",
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Start protected guests, wherever there is room and their disks are."""
    rows = select(names, label, host, everything, protected=True)
    if disks_on:
        _many(rows, f"They will start from the disks on {disks_on}, whatever other hosts have", yes=yes)
    body = {"guests": [row.id for row in rows], "disks_on": disks_on, "reason": reason}
    send("/v1/guests/start", body, wait=wait, timeout_s=timeout, form=form)


@app.command()
def stop(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    mode: Annotated[
        Mode, typer.Option("--mode", help="shutdown asks the guest; destroy pulls its plug.")
    ] = Mode.SHUTDOWN,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Stop protected guests. They stay protected, and stay down until `dr guest start`."""
    rows = select(names, label, host, everything, protected=True)
    _many(rows, "They will be stopped" if mode is Mode.SHUTDOWN else "Their plug will be pulled", yes=yes)
    body = {"guests": [row.id for row in rows], "mode": mode.value, "reason": reason}
    send("/v1/guests/stop", body, wait=wait, timeout_s=timeout, form=form)


@app.command()
def migrate(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    to: Annotated[
        str, typer.Option("--to", help="The host to move to. Default: wherever they fit best.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell what would be done, with every check and what would help."),
    ] = False,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Move protected guests live to another host: they go on running. One that cannot be moved stays as it is."""
    rows = select(names, label, host, everything, protected=True)
    body = {"guests": [row.id for row in rows], "to": to, "dry_run": dry_run, "reason": reason}
    accepted = send("/v1/guests/migrate", body, wait=wait, timeout_s=timeout, form=form)
    if dry_run:
        leave_foretold(accepted.guests)


@app.command("cancel-move")
def cancel_move(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    reason: Reason = "",
    form: Output = Form.TABLE,
) -> None:
    """Call off the moves of guests. They stay where they run, or start there again, unless they have left already."""
    rows = select(names, label, host, everything, protected=True)
    body = {"guests": [row.id for row in rows], "reason": reason}
    send("/v1/guests/cancel-move", body, form=form)


@app.command()
def relocate(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    to: Annotated[
        str, typer.Option("--to", help="The host to start on. Default: wherever they fit best.")
    ] = "",
    mode: Annotated[
        Mode, typer.Option("--mode", help="shutdown asks the guest; destroy pulls its plug.")
    ] = Mode.SHUTDOWN,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell what would be done, with every check and what would help."),
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Stop protected guests where they run and start them on another host. One that does not stop stays.

    Disks that only their host has are copied meanwhile. A guest that is off moves with such disks, and stays off.
    """
    rows = select(names, label, host, everything, protected=True)
    body = {
        "guests": [row.id for row in rows],
        "to": to,
        "mode": mode.value,
        "dry_run": dry_run,
        "reason": reason,
    }
    if not dry_run:
        _many(rows, "They will be stopped, and started on another host", yes=yes)
    accepted = send("/v1/guests/relocate", body, wait=wait, timeout_s=timeout, form=form)
    if dry_run:
        leave_foretold(accepted.guests)


@app.command("set")
def set_(
    *,
    names: Names = None,
    label: ByLabel = None,
    host: ByHost = "",
    everything: All = False,
    desired: Annotated[
        Desired | None,
        typer.Option("--desired", help="ignored: one copy is kept, nothing is started, stopped or moved."),
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher starts first.")] = None,
    max_restarts: Annotated[
        int | None, typer.Option("--max-restarts", help="In place, after a crash or a failed start.", min=0)
    ] = None,
    restart_window: Annotated[
        float | None, typer.Option("--restart-window", help="Seconds in which they count.", min=1)
    ] = None,
    max_relocations: Annotated[
        int | None, typer.Option("--max-relocations", help="To other hosts; then a person decides.", min=0)
    ] = None,
    relocation_window: Annotated[
        float | None, typer.Option("--relocation-window", help="Seconds in which they count.", min=1)
    ] = None,
    failback: Annotated[
        bool | None, typer.Option("--failback/--no-failback", help="Go back to the host liked best.")
    ] = None,
    boot_after: Annotated[
        list[str] | None,
        typer.Option("--boot-after", help="Start after NAME runs, or NAME:check passed; repeat; none."),
    ] = None,
    isolation: Annotated[
        Isolation | None, typer.Option("--isolation", help="When nobody hears its host though it is on.")
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            help="How it shows that it works: running, ping:ADDRESS, tcp:ADDRESS:PORT, http://ADDRESS/…; repeat; none.",
        ),
    ] = None,
    on_unhealthy: Annotated[
        Unhealthy | None, typer.Option("--on-unhealthy", help="When its checks fail after they had passed.")
    ] = None,
    move: Annotated[
        float | None,
        typer.Option("--move-time", help="Seconds; then its live migration is called off.", min=1),
    ] = None,
    move_downtime: Annotated[
        float | None,
        typer.Option("--move-downtime", help="Seconds it may stand still at the switch-over.", min=0.01),
    ] = None,
    move_auto_converge: Annotated[
        bool | None,
        typer.Option(
            "--move-auto-converge/--no-move-auto-converge", help="QEMU slows it down where it must."
        ),
    ] = None,
    move_bandwidth: Annotated[
        int | None, typer.Option("--move-bandwidth", help="MiB/s; 0: as libvirt has it.", min=0)
    ] = None,
    move_streams: Annotated[
        int | None, typer.Option("--move-streams", help="Connections its memory is sent over.", min=1)
    ] = None,
    local_disks: Annotated[
        bool | None,
        typer.Option("--local-disks/--no-local-disks", help="Protected also if only its host has its disks."),
    ] = None,
    remove_old_disks: Annotated[
        bool | None,
        typer.Option("--remove-old-disks/--keep-old-disks", help="Those that a move left behind."),
    ] = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Set what is wanted of protected guests, and how they are treated. What is not named stays."""
    wanted: dict[str, object] = {
        "desired": desired, "priority": priority, "max_restarts": max_restarts, "restart_window_s": restart_window,
        "max_relocations": max_relocations, "relocation_window_s": relocation_window, "failback": failback,
        "boot_after": boot_after or None, "isolation": isolation, "checks": check or None,
        "on_unhealthy": on_unhealthy,
        "move_s": move, "move_downtime_s": move_downtime, "move_auto_converge": move_auto_converge,
        "move_mib_s": move_bandwidth, "move_streams": move_streams,
        "local_disks": local_disks, "remove_old_disks": remove_old_disks,
    }  # fmt: skip
    body: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    if not body:
        raise Failure("What is to be set?", todo="dr guest set --help", code=Exit.USAGE)
    rows = select(names, label, host, everything, protected=True)
    if desired is Desired.STOPPED:
        _many(rows, "They will be stopped", yes=yes)
    body |= {"guests": [row.id for row in rows], "reason": reason}
    send("/v1/guests/set", body, wait=wait, timeout_s=timeout, form=form)


@app.command("label")
def label_(
    *,
    name: Annotated[str, typer.Argument(help="Name or UUID.")],
    changes: Annotated[list[str], typer.Argument(help="KEY=VALUE sets, KEY- removes.")],
    reason: Reason = "",
    form: Output = Form.TABLE,
) -> None:
    """Set or remove labels of a protected guest."""
    body = {"labels": labels(changes), "reason": reason}
    send(f"/v1/guests/{quote(name, safe='')}/labels", body, form=form)


@app.command()
def history(
    *,
    name: Annotated[str, typer.Argument(help="Name or UUID.")],
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="At most so many, the newest.", min=1, max=5000)
    ] = 100,
    form: Output = Form.TABLE,
) -> None:
    """What happened to a guest, and why."""
    from dr.cli.events import show as show_events

    if not show_events(form, lines=lines, guest=name):
        tell(f"Nothing is recorded of {name}.")
