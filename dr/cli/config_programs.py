"""Commands that playbooks may run, and how hosts are reached, in the coordinator's file: from sections to records.

Not here: what no configuration may allow (`dr.model.allowed`), how they are run (`dr.adapters.ssh`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dr.adapters.ssh.settings import SshSettings
from dr.cli.config_errors import at
from dr.cli.config_schema import FileSection
from dr.cli.yamlfile import Document, Problem
from dr.model.allowed import Allowed, ends_host, why_not_allowed


def commands_of(parsed: FileSection, document: Document, problems: list[Problem]) -> dict[str, Allowed]:
    """The allow-list; as problems: what drives guests, words that a value could turn into something else."""
    found: dict[str, Allowed] = {}
    for name, given in parsed.commands.items():
        argv = tuple(given.argv)
        if why := why_not_allowed(argv):
            problems.append(at(document, ("commands", name, "argv"), why))
        for key in ("reboots", "powers_off"):
            if getattr(given, key) and given.where == "guest":
                text = "is for commands on hosts: what becomes of a guest, the verbs start and stop say"
                problems.append(at(document, ("commands", name, key), text))
        ending = ends_host(argv)
        if ending and given.where == "host" and not (given.reboots or given.powers_off):
            text = (
                f"{ending} ends the host that it runs on: say `reboots: true` or `powers_off: true` beside it"
            )
            problems.append(at(document, ("commands", name, "argv"), text))
        if given.reboots and given.powers_off:
            problems.append(
                at(document, ("commands", name, "powers_off"), "one of the two: it reboots already")
            )
        if given.where == "host" and parsed.ssh is None:
            text = "runs on hosts, and the file does not say how they are reached: add `ssh:`"
            problems.append(at(document, ("commands", name), text))
        found[name] = Allowed(
            name=name,
            argv=argv,
            where=given.where,
            timeout_s=given.timeout_s,
            reboots=given.reboots,
            powers_off=given.powers_off,
            dashes=given.dashes,
        )
    return found


def ssh_of(parsed: FileSection, document: Document, problems: list[Problem]) -> SshSettings | None:
    """As problems: files that cannot be read, and a key that others can."""
    given = parsed.ssh
    if given is None:
        return None
    for key in ("key_file", "known_hosts"):
        file = Path(getattr(given, key))
        try:
            text = file.read_bytes()
        except OSError as error:
            problems.append(at(document, ("ssh", key), f"{file} cannot be read: {error.strerror}"))
            continue
        if not text.strip():
            problems.append(at(document, ("ssh", key), f"{file} is empty"))
        if key == "key_file" and file.stat().st_mode & 0o077:
            problems.append(at(document, ("ssh", key), f"others can read {file}: chmod 600 {file}"))
    return SshSettings(
        user=given.user, key=Path(given.key_file), known_hosts=Path(given.known_hosts), port=given.port
    )


def shown_ssh(ssh: SshSettings) -> dict[str, Any]:
    """As the file writes it."""
    return {"key_file": str(ssh.key), "known_hosts": str(ssh.known_hosts), "user": ssh.user, "port": ssh.port}


def shown_command(command: Allowed) -> dict[str, Any]:
    """As the file writes it."""
    return {
        "argv": list(command.argv),
        "where": command.where,
        "timeout_s": command.timeout_s,
        "reboots": command.reboots,
        "powers_off": command.powers_off,
        "dashes": command.dashes,
    }
