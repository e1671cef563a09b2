"""Fixtures of the tests that need a whole site: lab, coordinator, agents, proven fencing.

A module says what it needs in `SITE = Wanted(...)` and its tests take `site`: healed, everything on and online, no
guest, whatever the test before left behind. Making a site takes half a minute, so modules that want the same one share
it. Not here: what a site is (integration.site), the lab's own tests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from integration.lab import Lab, LabError
from integration.site import Site


@dataclass(frozen=True)
class Wanted:
    """What a module's site must be: the name of its lab, how many hosts, and more lines for the configuration."""

    lab: str
    hosts: int = 4
    settings: str = ""
    fence_test: bool = True


class Sites:
    """At most one standing site in this run, and what it was made for."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._made_for: Wanted | None = None

    def get(self, wanted: Wanted) -> Site:
        """The standing site if it fits, else a new one in its place."""
        if self._site is None or wanted != self._made_for:
            self.down()
            lab = Lab(wanted.lab)
            lab.down()
            self._site = Site(lab)
            self._site.up(wanted.hosts, settings=wanted.settings, fence_test=wanted.fence_test)
            self._made_for = wanted  # only now: one that did not come up is made anew
        return self._site

    def down(self) -> None:
        """Tear it down."""
        if self._site is not None:
            self._site.lab.down()
        self._site = self._made_for = None


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
