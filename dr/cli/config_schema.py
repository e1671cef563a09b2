"""What the coordinator's file may contain: its sections, and what one value must be.

Not here: checks between fields and translation (`config`), what an error says (`config_errors`), default figures
(`dr.model.policy`: sections that mirror a record are made from it).
"""

from __future__ import annotations

import ipaddress
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from dr.adapters.notify.sinks import Severity
from dr.core.rules import LABEL
from dr.model.allowed import TIMEOUT_S_MAX, WORD_MAX, WORDS_MAX, Allowed
from dr.model.base import Record
from dr.model.policy import (
    HEARTBEAT_S_MAX,
    GuestPolicy,
    HostPolicy,
    Isolation,
    Limits,
    OnCritical,
    OnLeave,
    OnUnhealthy,
    Timers,
)
from dr.model.schedules import BLACKOUTS_MAX, SCHEDULES_MAX, Cron, Days, Window, Zone, cron_of, zone_of
from dr.model.settings import Settings
from dr.model.spelling import after_of, check_of, checks_of
from dr.model.words import Kind, Problems

DEFAULT_FILE = Path("/etc/dr/coordinator.yaml")
DEFAULT_STATE_DIR = Path("/var/lib/dr/coordinator")
AGENT_PORT = 7311
API_PORT = 7310

CLUSTER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

# Tighter than "more than zero", where anything else cannot work.
BOUNDS: dict[str, dict[str, float]] = {
    "heartbeat_s": {"ge": 0.1, "le": HEARTBEAT_S_MAX},
    "settle_s": {"ge": 0, "le": 3600},
    "jitter_factor": {"ge": 0, "le": 100},
    "fence_s": {"ge": 1, "le": 3600},
    "memory_reserve_mib": {"ge": 0},
    "memory_overcommit": {"ge": 0.1, "le": 10},
    "cpu_overcommit": {"ge": 0.1, "le": 100},
    "guests_per_host": {"ge": 0},
    "migration_mib_s": {"ge": 0},
    "max_restarts": {"ge": 0},
    "max_relocations": {"ge": 0},
    "move_downtime_s": {"gt": 0, "le": 300},
    "move_mib_s": {"ge": 0},
    "move_streams": {"ge": 1, "le": 64},
    "priority": {"ge": -1_000_000, "le": 1_000_000},
}


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no conversion of one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _section(record: type[Record], name: str, **written: Any) -> type[Section]:
    """A section with exactly the fields and defaults of a policy record.

    `written`: fields that people write in other words than the record does.
    """
    fields: dict[str, Any] = dict(written)
    for known in msgspec.structs.fields(typing.cast(Any, record)):
        if known.name in written:
            continue
        if known.type is bool:
            fields[known.name] = (bool, known.default)
            continue
        assert known.type in (int, float), f"{name}: how is {known.name} written?"
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


def _check(text: str) -> str:
    check_of(text)
    return text


def _checks(texts: list[str]) -> list[str]:
    checks_of(texts)
    return texts


def _after(text: str) -> str:
    after_of(text)
    return text


def _command_word(text: str) -> str:
    if not text or len(text) > WORD_MAX or "\0" in text or "\n" in text:
        raise ValueError(f"a word of a command is one line, at most {WORD_MAX} characters")
    return text


Word = Field(strict=False)  # a choice: strictly taken, a file's text would never be a member of an enum
Check = Annotated[str, AfterValidator(_check)]
After = Annotated[str, AfterValidator(_after)]
Address = Annotated[str, AfterValidator(_address)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
CommandWord = Annotated[str, AfterValidator(_command_word)]
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
    memory_overcommit: Annotated[float, Field(**BOUNDS["memory_overcommit"])] | None = None
    cpu_overcommit: Annotated[float, Field(**BOUNDS["cpu_overcommit"])] | None = None
    guests_max: Annotated[int, Field(ge=1)] | None = None
    migration_mib_s: Annotated[int, Field(**BOUNDS["migration_mib_s"])] | None = None
    on_leave: Annotated[OnLeave, Word] | None = None
    on_critical: Annotated[OnCritical, Word] | None = None
    coordinator_here: bool = False
    labels: dict[str, str] = {}


def _selector(text: str) -> str:
    if text.startswith(LABEL):
        key, equals, value = text.removeprefix(LABEL).partition("=")
        if not (key and equals and value):
            raise ValueError("a label is chosen with label:KEY=VALUE")
    elif not text or any(mark in text for mark in "\n\t/"):
        raise ValueError("must be the name of a guest, or label:KEY=VALUE")
    return text


def _priorities(value: Any) -> Any:
    """A list of hosts likes them all the same."""
    return (
        dict.fromkeys(value, 1)
        if isinstance(value, list) and all(isinstance(n, str) for n in value)
        else value
    )


Selector = Annotated[str, AfterValidator(_selector)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]


class RuleSection(Section):
    """Where guests run (`hosts`), or who shares a host (`keep`)."""

    name: Name
    guests: Annotated[list[Selector], BeforeValidator(_one_or_many), Field(min_length=1)]
    hosts: Annotated[dict[Name, Priority], BeforeValidator(_priorities), Field(min_length=1)] | None = None
    keep: Literal["together", "apart"] | None = None
    strict: bool = False


class SshSection(Section):
    """How the coordinator reaches hosts to run commands there."""

    key_file: Annotated[str, Field(pattern=r"^/")]
    known_hosts: Annotated[str, Field(pattern=r"^/")]
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "root"
    port: Annotated[int, Field(ge=1, le=65535)] = 22


class CommandSection(Section):
    """A command that playbooks may run: whole words, of which one may be `${name}`."""

    argv: Annotated[list[CommandWord], Field(min_length=1, max_length=WORDS_MAX)]
    where: Literal["host", "guest"] = "host"
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = Allowed(name="", argv=()).timeout_s
    reboots: bool = False
    powers_off: bool = False
    dashes: bool = False


class SinkSection(Section):
    """Where alerts go: a command (the alert as JSON on stdin) or a webhook (POST of the same JSON)."""

    name: Name
    command: Annotated[list[str], Field(min_length=1)] | None = None
    webhook: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    template: Literal["generic", "text"] = "generic"
    headers: dict[str, str] = {}
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    least: Severity = "info"


def _cron(text: str) -> str:
    try:
        return cron_of(text)
    except ValueError as error:
        raise ValueError(f"must be {Cron.means}; {error}") from None


def _zone(text: str) -> str:
    try:
        zone_of(text)
    except ValueError as error:
        raise ValueError(f"must be {Zone.means}; {error}") from None
    return text


def _readable(kind: Kind) -> Any:
    def check(value: Any) -> Any:
        problems = Problems()
        kind.read(value, (), problems)
        if problems:
            raise ValueError(f"must be {kind.means}")
        return value

    return AfterValidator(check)


class ScheduleSection(Section):
    """When which playbook is run by itself."""

    playbook: str
    params: dict[str, str] = {}
    cron: Annotated[str, AfterValidator(_cron)]
    window: Annotated[str | float, _readable(Window())] = "1h"
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    blackouts: Annotated[
        list[Annotated[str, _readable(Days())]],
        BeforeValidator(_one_or_many),
        Field(max_length=BLACKOUTS_MAX),
    ] = []
    reason: Annotated[str, Field(max_length=1000)] = ""


class HooksSection(Section):
    """Playbooks that run beside the built-in failover."""

    failover_begins: str | None = None
    failover_ends: str | None = None


class ListenSection(Section):
    agents: Endpoints = [f"0.0.0.0:{AGENT_PORT}"]
    api: Endpoints = [f"0.0.0.0:{API_PORT}"]


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


TimersSection = _section(Timers, "TimersSection")
LimitsSection = _section(Limits, "LimitsSection")
GuestsSection = _section(
    GuestPolicy,
    "GuestsSection",
    boot_after=(Annotated[list[After], BeforeValidator(_one_or_many)], []),
    isolation=(Annotated[Isolation, Word], GuestPolicy().isolation),
    on_unhealthy=(Annotated[OnUnhealthy, Word], GuestPolicy().on_unhealthy),
    checks=(Annotated[list[Check], BeforeValidator(_one_or_many), AfterValidator(_checks)], []),
)


class FileSection(Section):
    """The whole file."""

    cluster: Annotated[str, AfterValidator(_cluster_name)]
    state_dir: Annotated[str, Field(pattern=r"^/")] = str(DEFAULT_STATE_DIR)
    addresses: Annotated[list[Address], BeforeValidator(_one_or_many), Field(min_length=1)]
    listen: ListenSection = ListenSection()
    log: LogSection = LogSection()
    auto_fence: bool = Settings().auto_fence
    on_leave: Annotated[OnLeave, Word] = Settings().on_leave
    on_critical: Annotated[OnCritical, Word] = Settings().on_critical
    timers: TimersSection = TimersSection()  # type: ignore[valid-type]  # made from dr.model.policy
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    guests: GuestsSection = GuestsSection()  # type: ignore[valid-type]
    hosts: dict[Name, HostSection] = {}
    rules: list[RuleSection] = []
    ssh: SshSection | None = None
    commands: dict[Name, CommandSection] = {}
    notify: list[SinkSection] = []
    hooks: HooksSection = HooksSection()
    schedules: Annotated[dict[Name, ScheduleSection], Field(max_length=SCHEDULES_MAX)] = {}
