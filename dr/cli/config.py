"""The coordinator's configuration: from a file to settings, with every check between fields.

Here: loading, timers that cannot work together, secrets read from files. Not here: the sections (`config_schema`),
error texts (`config_errors`), how it is shown (`config_shown`), reading YAML (`yamlfile`), the agent's file
(`agent_config`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dr.adapters.fencing.parameters import is_secret
from dr.adapters.fencing.parameters import problem as parameter_problem
from dr.adapters.notify.sinks import CommandSink, Sink, WebhookSink
from dr.adapters.ssh.settings import SshSettings
from dr.cli.config_errors import at, explain
from dr.cli.config_programs import commands_of, ssh_of
from dr.cli.config_rules import rule_warnings, rules_of
from dr.cli.config_schedules import hooks_of, schedules_of, sources_of
from dr.cli.config_schema import (
    AGENT_PORT,
    API_PORT,
    DEFAULT_FILE,
    DeviceSection,
    FileSection,
    HostSection,
    ListenSection,
    LogSection,
    SinkSection,
    split_endpoint,
)
from dr.cli.yamlfile import BadFile, Document, Path_, Problem, read
from dr.model.policy import (
    FenceDevice,
    FenceLevel,
    GuestPolicy,
    HostPolicy,
    Limits,
    Timers,
)
from dr.model.settings import Settings
from dr.model.spelling import after_of, checks_of

__all__ = [
    "CoordinatorConfig",
    "DeviceSection",
    "FileSection",
    "HostSection",
    "ListenSection",
    "LogSection",
    "SinkSection",
    "bracketed",
    "load",
    "translate",
]


@dataclass(frozen=True)
class CoordinatorConfig:
    """A configuration that can be used."""

    file: str
    cluster: str
    state_dir: Path
    addresses: tuple[str, ...]  # under which agents and admins reach this machine; all in its certificate
    listen_agents: tuple[tuple[str, int], ...]
    listen_api: tuple[tuple[str, int], ...]
    log_level: str
    log_format: str
    settings: Settings
    sinks: tuple[Sink, ...]
    sources: dict[str, str]  # of each schedule and hook: its playbook's file or name, as it is written
    ssh: SshSettings | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def agent_urls(self) -> tuple[str, ...]:
        return tuple(f"{bracketed(each)}:{self.listen_agents[0][1]}" for each in self.addresses)

    @property
    def api_urls(self) -> tuple[str, ...]:
        return tuple(f"https://{bracketed(each)}:{self.listen_api[0][1]}" for each in self.addresses)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def load(path: Path = DEFAULT_FILE) -> CoordinatorConfig:
    """Raises BadFile with everything that is wrong with it."""
    return translate(read(path))


def translate(document: Document) -> CoordinatorConfig:
    """Raises BadFile."""
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "must be a mapping of keys and values"
        raise BadFile(document.file, [Problem(0, "", f"{what}; `dr cluster init` writes a documented one")])
    try:
        parsed = FileSection.model_validate(document.data)
    except ValidationError as error:
        problems = [explain(document, each) for each in error.errors()]
        raise BadFile(document.file, list(dict.fromkeys([*problems, *_raw_checks(document)]))) from None
    problems = _raw_checks(document)
    settings = _settings(parsed, document, problems)
    sinks = _sinks(parsed, document, problems)
    ssh = ssh_of(parsed, document, problems)
    if problems:
        raise BadFile(document.file, problems)
    return CoordinatorConfig(
        file=document.file,
        cluster=parsed.cluster,
        state_dir=Path(parsed.state_dir),
        addresses=tuple(parsed.addresses),
        listen_agents=tuple(split_endpoint(each, AGENT_PORT) for each in parsed.listen.agents),
        listen_api=tuple(split_endpoint(each, API_PORT) for each in parsed.listen.api),
        log_level=parsed.log.level,
        log_format=parsed.log.format,
        settings=settings,
        sinks=sinks,
        sources=sources_of(parsed),
        ssh=ssh,
        warnings=tuple(_warnings(parsed, document)),
    )


# ---- from sections to settings


def _settings(parsed: FileSection, document: Document, problems: list[Problem]) -> Settings:
    hosts: dict[str, HostPolicy] = {}
    here = [name for name, host in parsed.hosts.items() if host.coordinator_here]
    for name in here[1:]:
        problems.append(
            at(document, ("hosts", name, "coordinator_here"), f"the coordinator runs on {here[0]} already")
        )
    for name, host in parsed.hosts.items():
        levels: list[FenceLevel] = []
        used: set[str] = set()
        for number, level in enumerate(host.fencing):
            devices = []
            for index, device in enumerate(level.devices):
                path: Path_ = ("hosts", name, "fencing", number, "devices", index)
                default = device.agent if len(level.devices) == 1 else f"{device.agent}-{index + 1}"
                label = device.name or (default if number == 0 else f"{default}-level{number + 1}")
                if label in used:
                    problems.append(
                        at(document, path, f"a second device named {label}; give each a `name` of its own")
                    )
                used.add(label)
                parameters = _with_secrets(device.parameters, document, (*path, "parameters"), problems)
                made = FenceDevice(name=label, agent=device.agent, parameters=parameters)
                if why := parameter_problem(made):
                    problems.append(at(document, (*path, "parameters"), why))
                devices.append(made)
            levels.append(FenceLevel(devices=tuple(devices)))
        hosts[name] = HostPolicy(
            name=name,
            addresses=tuple(host.addresses),
            fencing=tuple(levels),
            power_on_after_fence=host.power_on_after_fence,
            memory_reserve_mib=host.memory_reserve_mib,
            memory_overcommit=host.memory_overcommit,
            cpu_overcommit=host.cpu_overcommit,
            guests_max=host.guests_max,
            migration_mib_s=host.migration_mib_s,
            on_leave=host.on_leave,
            on_critical=host.on_critical,
            coordinator_here=host.coordinator_here,
            labels=host.labels,
        )
    commands = commands_of(parsed, document, problems)
    return Settings(
        timers=Timers(**parsed.timers.model_dump()),  # type: ignore[attr-defined]
        limits=Limits(**parsed.limits.model_dump()),  # type: ignore[attr-defined]
        guests=_guest_policy(parsed),
        hosts=hosts,
        commands=commands,
        rules=rules_of(parsed, document, problems),
        auto_fence=parsed.auto_fence,
        schedules=schedules_of(parsed, document, commands, problems),
        hooks=hooks_of(parsed, document, commands, problems),
        on_leave=parsed.on_leave,
        on_critical=parsed.on_critical,
    )


def _guest_policy(parsed: FileSection) -> GuestPolicy:
    given: dict[str, Any] = parsed.guests.model_dump()  # type: ignore[attr-defined]
    written = {
        "boot_after": tuple(after_of(each) for each in given["boot_after"]),
        "checks": checks_of(given["checks"]),
    }
    return GuestPolicy(**given | written)


def _with_secrets(
    parameters: dict[str, str], document: Document, path: Path_, problems: list[Problem]
) -> dict[str, str]:
    """`password_file: PATH` becomes `password`, read now."""
    if "password_file" not in parameters:
        return dict(parameters)
    rest = {key: value for key, value in parameters.items() if key != "password_file"}
    file = Path(parameters["password_file"])
    if "password" in parameters:
        problems.append(at(document, (*path, "password_file"), "give either `password` or `password_file`"))
    try:
        secret = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        problems.append(at(document, (*path, "password_file"), f"{file} cannot be read: {why}"))
        return rest
    if not secret or "\n" in secret:
        problems.append(at(document, (*path, "password_file"), f"{file} must hold the password on one line"))
    return rest | {"password": secret}


def _sinks(parsed: FileSection, document: Document, problems: list[Problem]) -> tuple[Sink, ...]:
    names: set[str] = set()
    sinks: list[Sink] = []
    for index, sink in enumerate(parsed.notify):
        path: Path_ = ("notify", index)
        if (sink.command is None) == (sink.webhook is None):
            problems.append(at(document, path, "needs `command` or `webhook`, and not both"))
        if sink.command is not None and not sink.command[0].startswith("/"):
            problems.append(at(document, (*path, "command"), "the program must be named by its whole path"))
        if sink.name in names:
            problems.append(at(document, (*path, "name"), f"a second sink named {sink.name}"))
        names.add(sink.name)
        if sink.command is not None:
            sinks.append(
                CommandSink(
                    name=sink.name, argv=tuple(sink.command), timeout_s=sink.timeout_s, least=sink.least
                )
            )
        else:
            sinks.append(
                WebhookSink(
                    name=sink.name,
                    url=sink.webhook or "",
                    template=sink.template,
                    headers=sink.headers,
                    timeout_s=sink.timeout_s,
                    least=sink.least,
                )
            )
    return tuple(sinks)


def _warnings(parsed: FileSection, document: Document) -> list[Problem]:
    found = rule_warnings(parsed, document)
    secrets = any(
        is_secret(key) and key != "password_file"
        for host in parsed.hosts.values()
        for level in host.fencing
        for device in level.devices
        for key in device.parameters
    ) or any(sink.headers for sink in parsed.notify)
    if document.world_readable and secrets:
        text = f"holds secrets and every user can read it; chmod 600 {document.file}, or use password_file"
        found.append(Problem(0, "", text))
    return found


def _raw_checks(document: Document) -> list[Problem]:
    """Timers that cannot work together. Read from the raw file, so they are told beside other errors."""
    given = document.data.get("timers")
    given = given if isinstance(given, dict) else {}

    def value(name: str) -> float:
        number = given.get(name, getattr(Timers(), name))
        usable = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        return (
            float(number) if usable else math.nan
        )  # a wrong one is told by the schema; comparisons with nan are False

    def check(wrong: bool, name: str, other: str, message: str) -> None:
        if wrong:
            path = ("timers", name if name in given or other not in given else other)
            found.append(at(document, path, message))

    found: list[Problem] = []
    beat, floor, ceiling = value("heartbeat_s"), value("late_floor_s"), value("late_ceiling_s")
    check(
        floor < 2 * beat,
        "late_floor_s",
        "heartbeat_s",
        f"late_floor_s ({floor:g} s) must be at least twice heartbeat_s ({beat:g} s):"
        " one lost beat would make every host late",
    )
    check(
        ceiling < floor,
        "late_ceiling_s",
        "late_floor_s",
        f"late_ceiling_s ({ceiling:g} s) must not be below late_floor_s ({floor:g} s)",
    )
    gap = value("gap_s")
    check(
        gap > floor,
        "gap_s",
        "late_floor_s",
        f"gap_s ({gap:g} s) must not exceed late_floor_s ({floor:g} s):"
        " a stall of the coordinator itself would make hosts look late",
    )
    probe, every = value("probe_s"), value("probe_every_s")
    check(
        probe > every,
        "probe_s",
        "probe_every_s",
        f"probe_s ({probe:g} s) must not exceed probe_every_s ({every:g} s):"
        " a look at a host must end before the next one",
    )
    retry, retry_max = value("fence_retry_s"), value("fence_retry_max_s")
    check(
        retry_max < retry,
        "fence_retry_max_s",
        "fence_retry_s",
        f"fence_retry_max_s ({retry_max:g} s) must not be below fence_retry_s ({retry:g} s)",
    )
    return found
