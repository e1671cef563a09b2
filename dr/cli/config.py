"""The coordinator's configuration file: what it may contain, and its translation into settings.

Here: the schema, checks between fields, secrets read from files, errors with file, line, field and what is allowed.
Not here: default figures (they are `dr.model.policy`'s), reading YAML (`yamlfile`), the agent's file (`agent_config`).
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from dr.adapters.fencing.parameters import is_secret
from dr.adapters.fencing.parameters import problem as parameter_problem
from dr.adapters.notify.sinks import CommandSink, Severity, Sink, WebhookSink
from dr.cli.yamlfile import BadFile, Document, Path_, Problem, dotted, read
from dr.model.base import Record
from dr.model.policy import FenceDevice, FenceLevel, GuestPolicy, HostPolicy, Limits, Settings, Timers

DEFAULT_FILE = Path("/etc/dr/coordinator.yaml")
DEFAULT_STATE_DIR = Path("/var/lib/dr/coordinator")
AGENT_PORT = 7311
API_PORT = 7310
MASK = "********"

CLUSTER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

# Tighter than "more than zero", where anything else cannot work.
BOUNDS: dict[str, dict[str, float]] = {
    "heartbeat_s": {"ge": 0.1, "le": 60},
    "settle_s": {"ge": 0, "le": 3600},
    "jitter_factor": {"ge": 0, "le": 100},
    "fence_s": {"ge": 1, "le": 3600},
    "memory_reserve_mib": {"ge": 0},
    "max_restarts": {"ge": 0},
    "max_relocations": {"ge": 0},
    "priority": {"ge": -1_000_000, "le": 1_000_000},
}


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no conversion of one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _section(record: type[Record], name: str) -> type[Section]:
    """A section with exactly the fields and defaults of a policy record."""
    fields: dict[str, Any] = {}
    for known in msgspec.structs.fields(typing.cast(Any, record)):
        if known.type not in (int, float):
            continue
        bounds = BOUNDS.get(known.name) or ({"gt": 0, "le": 864_000} if known.type is float else {"ge": 1})
        fields[known.name] = (known.type, Field(default=known.default, **bounds))  # type: ignore[call-overload]
    return create_model(name, __base__=Section, **fields)


def _host_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("a name is letters, digits, dots, dashes and underscores, at most 63")
    return name


def _cluster_name(name: str) -> str:
    if not CLUSTER.fullmatch(name):
        raise ValueError("a cluster's name is lower case letters, digits and dashes, at most 63")
    return name


def _endpoint(text: str) -> str:
    split_endpoint(text, AGENT_PORT)
    return text


def split_endpoint(text: str, default_port: int) -> tuple[str, int]:
    """`10.0.0.1:7311`, `[fd00::1]:7311`, `host`. Raises ValueError."""
    match = re.fullmatch(r"\[([0-9a-fA-F:.%a-z]+)\](?::(\d+))?|([^:\s/\[\]]+)(?::(\d+))?", text)
    if match is None:
        raise ValueError("must be ADDRESS:PORT, as in 10.0.0.1:7311 or [fd00::1]:7311")
    port = int(match[2] or match[4] or default_port)
    if not 0 < port < 65536:
        raise ValueError("a port is 1 to 65535")
    return match[1] or match[3], port


def _address(text: str) -> str:
    if not text or re.search(r"[\s/]", text):
        raise ValueError("must be an IP address or a host name, without a port")
    return text


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("must be an IP address, not a name") from None


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _parameter(value: Any) -> Any:
    """Fence agents take text; `lanplus: true` is their `lanplus=1`."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and ("\n" in value or "\0" in value):
        raise ValueError("must be one line")
    return value


def _level(value: Any) -> Any:
    """One device alone may stand without `devices:`."""
    if isinstance(value, dict) and "devices" not in value:
        return {"devices": [value]}
    return {"devices": value} if isinstance(value, list) else value


Address = Annotated[str, AfterValidator(_address)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Parameter = Annotated[str, BeforeValidator(_parameter)]
Name = Annotated[str, AfterValidator(_host_name)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Endpoints = Annotated[list[Endpoint], BeforeValidator(_one_or_many), Field(min_length=1)]


class DeviceSection(Section):
    """One fence agent with its parameters."""

    name: Name | None = None
    agent: Annotated[str, Field(pattern=r"^fence_[a-z0-9_]+$")]
    parameters: dict[str, Parameter] = {}


class LevelSection(Section):
    """Devices that must all be off."""

    devices: Annotated[list[DeviceSection], Field(min_length=1)]


class HostSection(Section):
    """One KVM host. Addresses are not names: a look at a host must not wait for a name server."""

    addresses: Annotated[list[IpAddress], BeforeValidator(_one_or_many)] = []
    fencing: list[Annotated[LevelSection, BeforeValidator(_level)]] = []
    power_on_after_fence: bool = HostPolicy(name="").power_on_after_fence
    memory_reserve_mib: Annotated[int, Field(ge=0)] | None = None
    coordinator_here: bool = False
    labels: dict[str, str] = {}


class SinkSection(Section):
    """Where alerts go: a command (the alert as JSON on stdin) or a webhook (POST of the same JSON)."""

    name: Name
    command: Annotated[list[str], Field(min_length=1)] | None = None
    webhook: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    template: Literal["generic", "text"] = "generic"
    headers: dict[str, str] = {}
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    least: Severity = "info"


class ListenSection(Section):
    agents: Endpoints = [f"0.0.0.0:{AGENT_PORT}"]
    api: Endpoints = [f"0.0.0.0:{API_PORT}"]


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


TimersSection = _section(Timers, "TimersSection")
LimitsSection = _section(Limits, "LimitsSection")
GuestsSection = _section(GuestPolicy, "GuestsSection")


class FileSection(Section):
    """The whole file."""

    cluster: Annotated[str, AfterValidator(_cluster_name)]
    state_dir: Annotated[str, Field(pattern=r"^/")] = str(DEFAULT_STATE_DIR)
    addresses: Annotated[list[Address], BeforeValidator(_one_or_many), Field(min_length=1)]
    listen: ListenSection = ListenSection()
    log: LogSection = LogSection()
    auto_fence: bool = Settings().auto_fence
    timers: TimersSection = TimersSection()  # type: ignore[valid-type]  # made from dr.model.policy
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    guests: GuestsSection = GuestsSection()  # type: ignore[valid-type]
    hosts: dict[Name, HostSection] = {}
    notify: list[SinkSection] = []


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
    warnings: tuple[Problem, ...] = ()

    @property
    def agent_urls(self) -> tuple[str, ...]:
        return tuple(f"{_bracket(each)}:{self.listen_agents[0][1]}" for each in self.addresses)

    @property
    def api_urls(self) -> tuple[str, ...]:
        return tuple(f"https://{_bracket(each)}:{self.listen_api[0][1]}" for each in self.addresses)


def _bracket(address: str) -> str:
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
        problems = [_explain(document, each) for each in error.errors()]
        raise BadFile(document.file, list(dict.fromkeys([*problems, *_raw_checks(document)]))) from None
    problems = _raw_checks(document)
    settings = _settings(parsed, document, problems)
    sinks = _sinks(parsed, document, problems)
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
        warnings=tuple(_warnings(parsed, document)),
    )


# ---- from sections to settings


def _settings(parsed: FileSection, document: Document, problems: list[Problem]) -> Settings:
    hosts: dict[str, HostPolicy] = {}
    here = [name for name, host in parsed.hosts.items() if host.coordinator_here]
    for name in here[1:]:
        problems.append(
            _at(document, ("hosts", name, "coordinator_here"), f"the coordinator runs on {here[0]} already")
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
                        _at(document, path, f"a second device named {label}; give each a `name` of its own")
                    )
                used.add(label)
                parameters = _with_secrets(device.parameters, document, (*path, "parameters"), problems)
                made = FenceDevice(name=label, agent=device.agent, parameters=parameters)
                if why := parameter_problem(made):
                    problems.append(_at(document, (*path, "parameters"), why))
                devices.append(made)
            levels.append(FenceLevel(devices=tuple(devices)))
        hosts[name] = HostPolicy(
            name=name,
            addresses=tuple(host.addresses),
            fencing=tuple(levels),
            power_on_after_fence=host.power_on_after_fence,
            memory_reserve_mib=host.memory_reserve_mib,
            coordinator_here=host.coordinator_here,
            labels=host.labels,
        )
    return Settings(
        timers=Timers(**parsed.timers.model_dump()),  # type: ignore[attr-defined]
        limits=Limits(**parsed.limits.model_dump()),  # type: ignore[attr-defined]
        guests=GuestPolicy(**parsed.guests.model_dump()),  # type: ignore[attr-defined]
        hosts=hosts,
        auto_fence=parsed.auto_fence,
    )


def _with_secrets(
    parameters: dict[str, str], document: Document, path: Path_, problems: list[Problem]
) -> dict[str, str]:
    """`password_file: PATH` becomes `password`, read now."""
    if "password_file" not in parameters:
        return dict(parameters)
    rest = {key: value for key, value in parameters.items() if key != "password_file"}
    file = Path(parameters["password_file"])
    if "password" in parameters:
        problems.append(_at(document, (*path, "password_file"), "give either `password` or `password_file`"))
    try:
        secret = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        problems.append(_at(document, (*path, "password_file"), f"{file} cannot be read: {why}"))
        return rest
    if not secret or "\n" in secret:
        problems.append(_at(document, (*path, "password_file"), f"{file} must hold the password on one line"))
    return rest | {"password": secret}


def _sinks(parsed: FileSection, document: Document, problems: list[Problem]) -> tuple[Sink, ...]:
    names: set[str] = set()
    sinks: list[Sink] = []
    for index, sink in enumerate(parsed.notify):
        path: Path_ = ("notify", index)
        if (sink.command is None) == (sink.webhook is None):
            problems.append(_at(document, path, "needs `command` or `webhook`, and not both"))
        if sink.command is not None and not sink.command[0].startswith("/"):
            problems.append(_at(document, (*path, "command"), "the program must be named by its whole path"))
        if sink.name in names:
            problems.append(_at(document, (*path, "name"), f"a second sink named {sink.name}"))
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
    secrets = any(
        is_secret(key) and key != "password_file"
        for host in parsed.hosts.values()
        for level in host.fencing
        for device in level.devices
        for key in device.parameters
    ) or any(sink.headers for sink in parsed.notify)
    if document.world_readable and secrets:
        text = f"holds secrets and every user can read it; chmod 600 {document.file}, or use password_file"
        return [Problem(0, "", text)]
    return []


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
            found.append(_at(document, path, message))

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


# ---- errors


def _shown(document: Document, path: Path_) -> Path_:
    """The path as its author wrote it: parts that only the schema knows are left out, except the last."""
    found: Path_ = ()
    for part in path:
        if (*found, part) in document.lines:
            found = (*found, part)
    rest = path[-1:] if path and found[-1:] != path[-1:] else ()
    return found + tuple(part for part in rest if isinstance(part, str))


def _at(document: Document, path: Path_, message: str) -> Problem:
    return Problem(document.line(path), dotted(_shown(document, path)), message)


_TYPES = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _explain(document: Document, error: Any) -> Problem:
    """One error of pydantic as a sentence with what is allowed."""
    kind: str = error["type"]
    path: Path_ = tuple(part for part in error["loc"] if part != "[key]")
    given, context = error["input"], error.get("ctx", {})
    shown = "" if path and is_secret(str(path[-1])) else f", not {_quote(given)}"
    match kind:
        case "extra_forbidden":
            keys = _keys_at(path[:-1])
            nearest = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.6)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            message = f"unknown key{hint} Allowed here: {', '.join(keys)}"
            return _at(document, path, message if nearest else message.replace(" Allowed", "; allowed", 1))
        case "missing":
            return _at(document, path, "is required")
        case "literal_error":
            return _at(
                document,
                path,
                f"must be one of {context['expected']}{shown}{_nearest(given, context['expected'])}",
            )
        case "string_pattern_mismatch":
            return _at(document, path, f"{_PATTERNS[context['pattern']]}{shown}")
        case "too_short":
            return _at(document, path, "must not be empty")
        case "value_error":
            return _at(document, path, f"{context['error']}{shown}")
        case _:
            pass
    if kind in _TYPES:
        return _at(document, path, f"must be {_TYPES[kind]}{shown}{_quote_hint(kind, given)}")
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return _at(document, path, f"must be {words} {context[key]:g}{shown}")
    return _at(document, path, f"{error['msg']}{shown}")


_PATTERNS = {
    r"^fence_[a-z0-9_]+$": "must be the name of a fence agent, as in fence_ipmilan",
    r"^https?://\S+$": "must be an http:// or https:// address",
    r"^/": "must be a whole path that starts with /",
}


def _nearest(given: object, expected: str) -> str:
    words = re.findall(r"'([^']*)'", expected)
    nearest = difflib.get_close_matches(str(given).lower(), words, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _quote_hint(kind: str, given: object) -> str:
    if kind == "string_type" and isinstance(given, int | float):
        return "; put it in quotes"
    if kind == "bool_type" and str(given).lower() in ("yes", "on", "off", "no"):
        return "; YAML 1.2 knows true and false only"
    return ""


def _quote(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value[:60]}"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def _keys_at(path: Path_) -> list[str]:
    """Keys that the schema allows in the mapping at `path`."""
    here: Any = FileSection
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            if part not in here.model_fields:
                return []
            here = here.model_fields[str(part)].annotation
        else:
            here = typing.get_args(here)[-1]
        while typing.get_origin(here) in (Annotated, typing.Union, types.UnionType):
            here = typing.get_args(here)[0]
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


# ---- the effective configuration, for people


def effective(config: CoordinatorConfig) -> dict[str, Any]:
    """What is in force, defaults filled in and secrets masked; the same shape as the file."""
    settings = config.settings
    return {
        "cluster": config.cluster,
        "state_dir": str(config.state_dir),
        "addresses": list(config.addresses),
        "listen": {
            "agents": [f"{_bracket(host)}:{port}" for host, port in config.listen_agents],
            "api": [f"{_bracket(host)}:{port}" for host, port in config.listen_api],
        },
        "log": {"level": config.log_level, "format": config.log_format},
        "auto_fence": settings.auto_fence,
        "timers": msgspec.structs.asdict(typing.cast(Any, settings.timers)),
        "limits": msgspec.structs.asdict(typing.cast(Any, settings.limits)),
        "guests": msgspec.structs.asdict(typing.cast(Any, settings.guests)),
        "hosts": {name: _effective_host(host) for name, host in settings.hosts.items()},
        "notify": [_effective_sink(sink) for sink in config.sinks],
    }


def _effective_host(host: HostPolicy) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "addresses": list(host.addresses),
        "fencing": [
            {
                "devices": [
                    {
                        "name": device.name,
                        "agent": device.agent,
                        "parameters": {
                            key: MASK if is_secret(key) else value for key, value in device.parameters.items()
                        },
                    }
                    for device in level.devices
                ]
            }
            for level in host.fencing
        ],
        "power_on_after_fence": host.power_on_after_fence,
        "coordinator_here": host.coordinator_here,
        "labels": dict(host.labels),
    }
    if host.memory_reserve_mib is not None:
        shown["memory_reserve_mib"] = host.memory_reserve_mib
    return shown


def _effective_sink(sink: Sink) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": sink.name, "timeout_s": sink.timeout_s, "least": sink.least}
    if isinstance(sink, CommandSink):
        return shown | {"command": list(sink.argv)}
    shown |= {"webhook": _mask_url(sink.url), "template": sink.template}
    return shown | ({"headers": dict.fromkeys(sink.headers, MASK)} if sink.headers else {})


def _mask_url(url: str) -> str:
    """Webhook addresses carry their secret in the path or the query."""
    match = re.match(r"(https?://)(?:[^/@]*@)?([^/?]+)(.*)", url)
    return url if match is None else match[1] + match[2] + (f"/{MASK}" if len(match[3]) > 1 else match[3])
