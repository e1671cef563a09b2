"""Playbooks that ship, in simulated sites: as a whole, through trouble, and through the death of the coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dr.cli.playbook_file import load
from dr.model.base import changed
from dr.model.words import Problems, write_fields
from dr.sim.interrupt import calm, interrupted
from dr.sim.run import Result, run
from dr.sim.scenario.language import Scenario, from_plain

FOLDER = Path(__file__).parent.parent.parent / "playbooks"
HOSTS = ["h1", "h2", "h3"]


def site(
    name: str,
    *,
    expect: Sequence[Any],
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
    hosts: Any = HOSTS,
    lasts: str = "400s",
    end: str = "all well",
    **params: str,
) -> Scenario:
    """Three hosts with guests, on which that playbook is run."""
    book = write_fields(load(FOLDER / f"{name}.yaml"))
    found = from_plain(
        {
            "shows": name,
            "hosts": hosts,
            "guests": {"g1": "h1", "g2": "h1", "g3": "h2"},
            "do": [*before, {"at": "4s", "run_playbook": book, "params": params}, *after],
            "expect": list(expect),
            "never": [{"was_fenced": "all"}],
            "lasts": lasts,
            "end": end,
        },
        problems := Problems(),
    )
    assert not problems.found
    assert found is not None
    return found


def as_expected(scenario: Scenario) -> Result:
    result = run(scenario)
    assert result.violations == [], "\n".join(result.world.lines())
    return result


ALL_DONE = [
    {"operation": "playbook", "is": "done"},
    *({"ran": command, "on": host} for command in ("update", "reboot") for host in HOSTS),
    {"host": HOSTS, "is": "online"},
    {"guest": ["g1", "g2", "g3"], "is": "running"},
    {"no_alert": "host/*"},
]


def test_rolling_maintenance_of_all_hosts() -> None:
    """Each is empty as it reboots, one at a time; no guest is stopped."""
    result = as_expected(site("rolling-maintenance", expect=ALL_DONE))
    starts = result.world.truth.starts
    assert [starts[guest] for guest in ("g1", "g2", "g3")] == [1, 1, 1], (
        "each was started once, as the world began"
    )


def test_rolling_maintenance_also_of_the_host_that_the_coordinator_runs_on() -> None:
    hosts = {"h1": None, "h2": {"coordinator_here": True}, "h3": None}
    as_expected(site("rolling-maintenance", expect=ALL_DONE, hosts=hosts))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("fails", "run: update, on: h2: h2: exit code 1"),
        ("is killed", "h2: unknown: the process that ran it"),
    ],
)
def test_rolling_maintenance_stops_where_a_command_does_not_end_well(fault: str, why: str) -> None:
    """The host stays set aside, and the next one is not touched."""
    expect = [
        {"operation": "playbook", "is": "failed", "says": why},
        {"ran": "reboot", "on": "h1"},
        {"ran": "reboot", "on": "h2", "count": 0},
        {"ran": "update", "on": "h3", "count": 0},
        {"host": "h2", "is": "maintenance"},
        {"host": ["h1", "h3"], "is": "online"},
        {"guest": ["g1", "g2", "g3"], "is": "running"},
    ]
    as_expected(
        site(
            "rolling-maintenance",
            before=[{"at": "2s", "next_command": fault, "on": "h2"}],
            expect=expect,
            end="as expected",
        )
    )


def test_rolling_maintenance_waits_for_a_host_that_has_died_and_then_stops() -> None:
    expect = [
        {"operation": "playbook", "is": "failed", "says": "all is well"},
        {"ran": "update", "on": "h3", "count": 0},
        {"ran": "reboot", "on": "h2", "count": 0},
        {"guest": ["g1", "g2", "g3"], "is": "running"},
    ]
    scenario = site(
        "rolling-maintenance",
        after=[{"when": {"ran": "reboot", "on": "h1"}, "scrap": "h3"}],
        expect=expect,
        lasts="700s",
        end="as expected",
    )
    as_expected(changed(scenario, never=()))


@pytest.mark.long(keep=2)
@pytest.mark.parametrize("part", range(8))
def test_rolling_maintenance_interrupted(part: int) -> None:
    """Killed at some points, the coordinator or an agent: it comes to the same end."""
    plain = calm(site("rolling-maintenance", expect=ALL_DONE))
    for point in plain.sample(16)[part::8]:
        assert interrupted(plain, point).violations == [], point


OFF = [
    *({"ran": "power-off", "on": host} for host in HOSTS),
    {"host": HOSTS, "is": "maintenance"},
    {"guest": ["g1", "g2", "g3"], "is": "stopped"},
    {"no_alert": "host/*"},
]
AGREED = {"after": "2s", "answer_playbook": "site-power-down"}


def test_site_power_down() -> None:
    """Who starts last is stopped first; then the hosts are off, and nobody is alarmed."""
    expect = [{"operation": "playbook", "is": "done"}, *OFF]
    result = as_expected(
        site("site-power-down", after=[AGREED], expect=expect, lasts="120s", end="as expected")
    )
    assert not any(host.up for host in result.world.hosts.values())


def test_site_power_down_that_nobody_agrees_to() -> None:
    expect = [
        {"operation": "playbook", "is": "failed"},
        {"guest": ["g1", "g2", "g3"], "is": "running"},
        {"ran": "power-off", "on": "h1", "count": 0},
    ]
    as_expected(
        site("site-power-down", after=[AGREED | {"say": "no"}], expect=expect, lasts="60s", end="as expected")
    )


def test_site_power_down_leaves_the_host_that_the_coordinator_runs_on() -> None:
    expect = [
        {"operation": "playbook", "is": "failed", "says": "the coordinator runs on h2: switch that off last"},
        *({"ran": "power-off", "on": host} for host in ("h1", "h3")),
        {"ran": "power-off", "on": "h2", "count": 0},
        {"guest": ["g1", "g2", "g3"], "is": "stopped"},
    ]
    hosts = {"h1": None, "h2": {"coordinator_here": True}, "h3": None}
    result = as_expected(
        site("site-power-down", after=[AGREED], hosts=hosts, expect=expect, lasts="160s", end="as expected")
    )
    assert [name for name, host in result.world.hosts.items() if host.up] == ["h2"]


def test_site_power_up_again() -> None:
    """In one world: down, a while without power, up; the coordinator was off as well."""
    up = {"run_playbook": write_fields(load(FOLDER / "site-power-up.yaml"))}
    after = [
        AGREED,
        {"after": "60s", "coordinator": "crash", "for": "30s"},
        {"after": "40s", **up},
        {"after": "20s", "power_on": HOSTS},
    ]
    expect = [
        {"operation": "playbook", "is": "done", "count": 2},
        {"host": HOSTS, "is": "online"},
        {"guest": ["g1", "g2", "g3"], "is": "running"},
    ]
    as_expected(site("site-power-down", after=after, expect=expect, lasts="240s"))
