"""The coordinator's configuration as it is in force: defaults filled in, secrets masked. For people."""

from __future__ import annotations

import re
import typing
from typing import Any

import msgspec

from dr.adapters.fencing.parameters import is_secret
from dr.adapters.notify.sinks import CommandSink, Sink
from dr.cli.config import CoordinatorConfig, bracketed
from dr.cli.config_programs import shown_command, shown_ssh
from dr.cli.config_rules import shown_rule
from dr.cli.config_schedules import shown_hooks, shown_schedule
from dr.model.policy import GuestPolicy, HostPolicy
from dr.model.spelling import after_text, check_text

MASK = "********"


def effective(config: CoordinatorConfig) -> dict[str, Any]:
    """What is in force, defaults filled in and secrets masked; the same shape as the file."""
    settings = config.settings
    return {
        "cluster": config.cluster,
        "state_dir": str(config.state_dir),
        "addresses": list(config.addresses),
        "listen": {
            "agents": [f"{bracketed(host)}:{port}" for host, port in config.listen_agents],
            "api": [f"{bracketed(host)}:{port}" for host, port in config.listen_api],
        },
        "log": {"level": config.log_level, "format": config.log_format},
        "auto_fence": settings.auto_fence,
        "on_leave": settings.on_leave.value,
        "on_critical": settings.on_critical.value,
        "timers": msgspec.structs.asdict(typing.cast(Any, settings.timers)),
        "limits": msgspec.structs.asdict(typing.cast(Any, settings.limits)),
        "guests": shown_policy(settings.guests),
        "hosts": {name: _effective_host(host) for name, host in settings.hosts.items()},
        "rules": [shown_rule(rule) for rule in settings.rules],
        **({"ssh": shown_ssh(config.ssh)} if config.ssh is not None else {}),
        "commands": {name: shown_command(each) for name, each in settings.commands.items()},
        "hooks": shown_hooks(settings.hooks, config.sources),
        "schedules": {
            name: shown_schedule(each, config.sources[f"schedules.{name}"])
            for name, each in settings.schedules.items()
        },
        "notify": [_effective_sink(sink) for sink in config.sinks],
    }


def shown_policy(policy: GuestPolicy) -> dict[str, Any]:
    """As the file writes it."""
    values: dict[str, Any] = msgspec.structs.asdict(typing.cast(Any, policy))
    return values | {
        "boot_after": [after_text(each) for each in policy.boot_after],
        "isolation": policy.isolation.value,
        "on_unhealthy": policy.on_unhealthy.value,
        "checks": [check_text(each) for each in policy.checks],
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
    own = ("memory_reserve_mib", "memory_overcommit", "cpu_overcommit", "guests_max", "migration_mib_s")
    for key in own:
        if getattr(host, key) is not None:
            shown[key] = getattr(host, key)
    if host.on_leave is not None:
        shown["on_leave"] = host.on_leave.value
    if host.on_critical is not None:
        shown["on_critical"] = host.on_critical.value
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
