"""Fixtures of the tests that need a whole site: lab, coordinator, agents, proven fencing.

A module says what it needs in `SITE = Wanted(...)` and its tests take `site`: healed, everything on and online, no
guest, whatever the test before left behind. Making a site takes half a minute, so modules that want the same one share
it. Not here: what a site is (integration.site), the lab's own tests.

With `-n2` two workers run side by side, each with a lab of its own: most of a test in the lab is waiting. Whoever is
done takes the next of PARTS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from integration.lab import Lab, LabError
from integration.site import Site

# Modules that stay together, in the order in which they are begun: what is long first. A module that is not told here
# comes last. Of ONE_BY_ONE each test is a part, so that both workers end at the same time.
PARTS = (
    ("test_migration",),
    ("test_lab", "test_systemd"),
    ("test_reboot", "test_coordinator", "test_fencing", "test_return", "test_backup"),
    ("test_local_disks",),
    ("test_drain",),
    ("test_relocate_disks",),
    ("test_converging",),
    ("test_failover", "test_drill_dry"),
    ("test_playbook",),
    ("test_clones", "test_isolated_drill"),
    ("test_commands",),
    ("test_checks",),
    ("test_schedules", "test_hooks"),
    ("test_plans",),
    ("test_fencing_adapter",),
    ("test_prober",),
    ("test_guests",),
    ("test_agents",),
)
ONE_BY_ONE = {"test_guests", "test_agents"}
_PART_OF = {module: part[0] for part in PARTS for module in part}
_RANKS = {module: rank for rank, module in enumerate(_PART_OF)}


@dataclass(frozen=True)
class Wanted:
    """What a module's site must be: how many hosts, and more lines for the configuration."""

    hosts: int = 4
    settings: str = ""


class Sites:
    """At most one standing site in this process, and what it was made for."""

    def __init__(self) -> None:
        self._name = os.environ.get("DR_LAB", "site") + os.environ.get("PYTEST_XDIST_WORKER", "")
        self._site: Site | None = None
        self._made_for: Wanted | None = None

    def get(self, wanted: Wanted) -> Site:
        """The standing site if it fits, else a new one in its place."""
        if self._site is None or wanted != self._made_for:
            self.down()
            lab = Lab(self._name)
            lab.down()
            self._site = Site(lab)
            self._site.up(wanted.hosts, settings=wanted.settings)
            self._made_for = wanted  # only now: one that did not come up is made anew
        return self._site

    def down(self) -> None:
        """Tear it down."""
        if self._site is not None:
            self._site.lab.down()
        self._site = self._made_for = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of PARTS: also one after the other, modules that share a site follow each other."""
    items.sort(key=lambda item: _RANKS.get(item.path.stem, len(_RANKS)))


class _Parts(LoadScopeScheduling):  # type: ignore[misc]
    """Work is handed out by parts."""

    def _split_scope(self, nodeid: str) -> str:
        module = Path(nodeid.partition("::")[0]).stem
        return nodeid if module in ONE_BY_ONE else _PART_OF.get(module, module)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Parts:
    """Instead of xdist's own. Which part has most tests does not say which is longest."""
    config.option.loadscopereorder = False
    return _Parts(config, log)


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """The run's sites; torn down at its end."""
    standing = Sites()
    yield standing
    standing.down()


@pytest.fixture
def site(sites: Sites, request: pytest.FixtureRequest) -> Site:
    """The module's site as new. One that cannot be put right again is made anew."""
    wanted: Wanted = request.module.SITE
    standing = sites.get(wanted)
    try:
        standing.reset()
    except Exception as error:
        print(
            f"the site could not be put right after the test before, so it is made anew: {error}",
            file=sys.stderr,
        )
        sites.down()
        standing = sites.get(wanted)
    return standing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Beside a failure: what the site itself says of that test."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # what a wrapper is sent is not typed
    standing = getattr(item, "funcargs", {}).get("site")
    if call.when == "call" and report.failed and isinstance(standing, Site):
        try:
            account = standing.account()
        except LabError as error:  # no coordinator answers
            account = f"{error}\n{standing.lab.ctl.service_log('coordinator')[-3000:]}"
        report.sections.append(("site", account))
    return report  # type: ignore[return-value]
