"""`dr host`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dr.cli.ask import (
    Deadline,
    Reason,
    Timeout,
    Wait,
    Yes,
    confirm,
    labels,
    leave_foretold,
    named,
    seconds,
    send,
)
from dr.cli.failure import tell
from dr.cli.output import Column, Form, Output, age, document, facts, heard, listing, mib

if TYPE_CHECKING:
    from dr.api.schema import DeviceSeen, Host, HostRow, Look

app = typer.Typer(help="KVM hosts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The host's name.")]


def _state(row: HostRow) -> str:
    words = [row.phase, *(condition.replace("_", " ") for condition in row.conditions)]
    return ", ".join(words)


def _fencing(row: HostRow) -> str:
    return row.fencing if row.hook or row.phase == "joining" else f"{row.fencing}, no hook"


COLUMNS: tuple[Column[HostRow], ...] = (
    Column("HOST", lambda row: row.name),
    Column("STATE", _state, styled=True),
    Column("LAST HEARD", lambda row: heard(row.heard_s, row.connected)),
    Column("FENCING", _fencing, styled=True),
    Column("HEALTH", lambda row: row.health, styled=True),
    Column("GUESTS", lambda row: f"{row.guests_running} ({row.guests_protected} protected)"),
    Column(
        "MEMORY",
        lambda row: (
            f"{mib(row.memory_used_mib) or '0 MiB'} of {mib(row.memory_mib)}" if row.memory_mib else ""
        ),
    ),
    Column("FOR", lambda row: age(row.since_s), wide=True),
    Column("LEAVING", lambda row: row.leaving, wide=True),
    Column("AGENT", lambda row: row.agent_version, wide=True),
    Column(
        "LABELS",
        lambda row: ",".join(f"{key}={value}" for key, value in sorted(row.labels.items())),
        wide=True,
    ),
    Column("REASON", lambda row: row.reason if row.phase != "online" else row.cordon or row.reason),
)


@app.command("list")
def list_(
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Only those with KEY=VALUE; repeat for more.")
    ] = None,
    form: Output = Form.TABLE,
) -> None:
    """All hosts, with how long ago each was heard."""
    from dr.api.schema import HostList
    from dr.cli.client import connect

    answer = connect().get("/v1/hosts", HostList)
    wanted = labels(label or [])
    rows = [row for row in answer.items if all(row.labels.get(key) == value for key, value in wanted.items())]
    listing(
        HostList(items=rows), rows, COLUMNS, form, name=lambda row: row.name,
        empty="No hosts. Invite one: dr cluster token HOST",
    )  # fmt: skip


@app.command()
def show(name: Name, form: Output = Form.TABLE) -> None:
    """One host: what it is, its health, and what others see of it."""
    from dr.api.schema import HostDocument
    from dr.cli.client import connect

    answer = connect().get(f"/v1/hosts/{quote(name, safe='')}", HostDocument)
    match form:
        case Form.JSON | Form.YAML:
            document(answer, form)
        case Form.NAME:
            print(answer.item.name)
        case Form.TABLE | Form.WIDE:
            facts(_facts(answer.item, wide=form is Form.WIDE))


def _facts(host: Host, *, wide: bool) -> list[tuple[str, str]]:
    readings = [each for each in host.readings if wide or each.level != "ok"]
    return [
        ("host", host.name),
        ("state", f"{_state(host)} for {age(host.since_s)}"),
        ("reason", host.reason),
        ("cordon", host.cordon),
        ("leaving", host.leaving),
        ("last heard", heard(host.heard_s, host.connected)),
        ("fencing", host.fencing),
        ("fencing now", _fencing_now(host)),
        ("permit hook", "proven" if host.hook else f"not proven: {host.hook_reason}"),
        ("hibernation", "" if host.hibernation_masked else "not masked"),
        ("live migration", _migration(host)),
        ("health", host.health),
        ("readings", "\n".join(_said(each.part, each.level, each.reason) for each in readings)),
        ("seen by others", "\n".join(_look(look) for look in host.looks)),
        ("power", "\n".join(_power(each, host.power_age_s) for each in host.power)),
        ("verdict", host.verdict),
        ("guests", ", ".join(host.guests)),
        ("memory", f"{mib(host.memory_used_mib) or '0 MiB'} of {mib(host.memory_mib)}" if host.memory_mib else ""),
        ("cpu", f"{host.cpus} x {host.cpu_model or 'unknown model'}" if host.cpus else ""),
        ("addresses", ", ".join(f"{interface} {address}" for interface, address in host.addresses.items())),
        ("probed at", ", ".join(host.probed_addresses)),
        ("networks", ", ".join(host.networks)),
        ("storage", "\n".join(host.storage)),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(host.labels.items()))),
        ("boot id", host.boot_id),
        ("proven dead boot", host.dead_boot),
        ("versions", f"agent {host.agent_version}, libvirt {host.libvirt_version}" if host.agent_version else ""),
    ]  # fmt: skip


def _migration(host: Host) -> str:
    if not host.live_migration:
        return "no: migration_uri in its /etc/dr/agent.yaml lets it"
    return f"yes; memory and disks come to {host.migration_address}" if host.migration_address else "yes"


def _fencing_now(host: Host) -> str:
    now = host.fencing_now
    if now is None:
        return ""
    return f"{now.why} (boot {now.boot_id}, level {now.level + 1}, attempt {now.attempt})"


def _said(who: str, what: str, reason: str) -> str:
    return f"{who}: {what} ({reason})" if reason else f"{who}: {what}"


def _power(device: DeviceSeen, age_s: float | None) -> str:
    return f"{_said(device.device, device.power, device.reason)}, read {age(age_s)} ago"


def _look(look: Look) -> str:
    answered = "it answers" if look.answered else "silent"
    if look.answered is None:
        answered = "asked, no answer yet"
    return f"{look.witness or 'coordinator'}: {answered}, {age(look.age_s)} ago"


def _at(name: str, what: str) -> str:
    return f"/v1/hosts/{quote(name, safe='')}/{what}"


@app.command()
def fence(
    *,
    name: Name,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Switch a host off now, whatever the evidence says; its protected guests are then recovered."""
    confirm(name, _bystanders(name), yes=yes)
    send(_at(name, "fence"), {"reason": reason}, wait=wait, timeout_s=timeout, form=form)


def _bystanders(name: str) -> str:
    """Who dies with the host."""
    from dr.api.schema import GuestList
    from dr.cli.client import connect

    guests = connect().get("/v1/guests", GuestList).items
    here = [
        guest
        for guest in guests
        if guest.host == name and guest.phase in ("running", "paused", "blocked", "unknown")
    ]
    if not here:
        return f"{name} will be switched off. No guest is known to run on it."
    lost = [guest.name for guest in here if not guest.protected]
    text = f"{name} will be switched off, with what runs on it: {', '.join(guest.name for guest in here)}."
    return text + (f"\nNot protected, so they stay down: {', '.join(lost)}." if lost else "")


@app.command("confirm-down")
def confirm_down(
    *,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="How you know; it goes into the audit.")],
    boot: Annotated[
        str, typer.Option("--boot", help="The boot id that is down; default: the one on record.")
    ] = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Your word that a host is off for sure, where no fence device can say it. Its guests are then restarted elsewhere.

    If it is wrong, guests run twice and destroy their disks: look at the machine, pull its power.
    """
    danger = f"If {name} still runs, its guests will run twice and destroy their disks. Is it off, for sure?"
    confirm(name, danger, yes=yes)
    send(
        _at(name, "confirm-down"),
        {"reason": reason, "boot_id": boot},
        wait=wait,
        timeout_s=timeout,
        form=form,
    )


@app.command()
def remove(name: Name, reason: Reason = "", yes: Yes = False, form: Output = Form.TABLE) -> None:
    """Take a host out of the cluster. Refused while a protected guest may be running on it."""
    confirm(name, f"{name} leaves the cluster; its agent will be refused.", yes=yes)
    send(_at(name, "remove"), {"reason": reason}, form=form)


@app.command()
def label(
    *,
    name: Name,
    changes: Annotated[list[str], typer.Argument(help="KEY=VALUE sets, KEY- removes.")],
    reason: Reason = "",
    form: Output = Form.TABLE,
) -> None:
    """Set or remove labels."""
    send(_at(name, "labels"), {"labels": labels(changes), "reason": reason}, form=form)


@app.command()
def cordon(name: Name, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Give a host no more guests. Those on it stay, and one that crashes there is restarted there."""
    send(_at(name, "cordon"), {"reason": reason}, form=form)
    tell(f"End it with: dr host uncordon {name}")


@app.command()
def uncordon(name: Name, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Let a cordoned host take guests again."""
    send(_at(name, "uncordon"), {"reason": reason}, form=form)


@app.command()
def drain(
    *,
    names: Annotated[
        list[str], typer.Argument(metavar="HOST…", help="The host, or several that are emptied together.")
    ],
    leave_unprotected: Annotated[
        bool,
        typer.Option(
            "--leave-unprotected", help="Guests that nobody protects stay there, and hold nothing up."
        ),
    ] = False,
    deadline: Deadline = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only tell where each guest would go, or all that keeps it and what would help."
        ),
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Move hosts' guests live to other hosts, then set them aside for maintenance.

    No guest is stopped for it, but with a deadline: then those that would be late are, and start elsewhere.
    """
    until_s = seconds(deadline)
    if until_s and not dry_run and (late := _late(names, leave_unprotected, until_s)):
        confirm(
            named(names), f"These cannot leave live in {deadline} and are stopped: {', '.join(late)}", yes=yes
        )
    first, *also = dict.fromkeys(names)
    body = {
        "also": also,
        "leave_unprotected": leave_unprotected,
        "deadline_s": until_s,
        "dry_run": dry_run,
        "reason": reason,
    }
    accepted = send(_at(first, "drain"), body, wait=wait, timeout_s=timeout, form=form)
    if dry_run:
        leave_foretold(accepted.guests)
    tell(f"End it with: {'; '.join(f'dr host undrain {name}' for name in names)}")


def _late(names: list[str], leave_unprotected: bool, until_s: float) -> list[str]:
    """Guests that would be stopped for that deadline."""
    from dr.api.plan_schema import PlanDocument
    from dr.cli.client import connect

    leave = str(leave_unprotected).lower()
    path = "/v1/plans/evacuation"
    found = connect().get(path, PlanDocument, host=names, leave_unprotected=leave, deadline_s=until_s)
    return [guest.name for guest in found.evacuation.guests if guest.stopped]


@app.command()
def undrain(name: Name, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Put a drained host back in use, also in the middle: moves under way end, no others begin."""
    send(_at(name, "undrain"), {"reason": reason}, form=form)
    tell(f"See: dr host show {name}")


@app.command("clear-quarantine")
def clear_quarantine(name: Name, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Let a host that was fenced or rebooted too often take guests again."""
    send(_at(name, "clear-quarantine"), {"reason": reason}, form=form)
    tell(f"See: dr host show {name}")
