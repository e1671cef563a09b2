"""A schedule on a real coordinator: its playbook is run by itself, once, also if the coordinator dies just then.

Not here: which times a schedule means, what is missed (tests/core/playbooks, tests/scenarios/schedules).
"""

from __future__ import annotations

import json
from typing import Any

from integration import watch
from integration.site import Site
from integration.test_failover import SITE
from integration.test_playbook import states

__all__ = ["SITE"]  # the same site as that of the failovers

BOOK = """\
playbook: look-long
params: {whom: {is: guest}}
steps:
  - check: ${whom}
  - wait: 30m
"""
MINUTELY = """\
schedules:
  minutely:
    playbook: look-long.yaml
    params: {{whom: {guest}}}
    cron: "* * * * *"
    window: 10m
    reason: to see it
"""


def test_it_is_run_by_itself_once_also_if_the_coordinator_dies(site: Site) -> None:
    """Within a minute it begins; who leads after the killed coordinator goes on with it, and begins no other."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before = site._in_force
    site.lab.ctl.path("/etc/dr/look-long.yaml").write_text(BOOK)
    site.configure(watch.SETTINGS + MINUTELY.format(guest=name))
    try:
        told = json.loads(site.dr("drill", "schedule", "-o", "json"))["items"]
        assert [(row["name"], row["playbook"], row["last"]) for row in told] == [
            ("minutely", "look-long", None)
        ]
        site.wait(lambda: _last(site) is not None, 75, "the next minute")
        watch.coordinator(site).kill()
        site.wait(site.leads, 30, "the next coordinator")
        job = _last(site)
        site.wait(lambda: states(_job(site, str(job)))[1:] == [("wait", "running")], 30, "it to go on")
        document = _job(site, str(job))
        assert (document["asked_by"], document["why"]) == ("schedule minutely", "to see it")
        assert states(document)[0] == ("check", "done")
        assert [each["id"] for each in _runs(site)] == [job]
        assert "schedule/minutely/missed" not in site.alerts()
    finally:
        site.configure(before)
        for each in _runs(site):
            site.dr("job", "cancel", each["id"], check=False)


def _runs(site: Site) -> list[dict[str, str]]:
    return [each for each in site.get("/v1/operations")["items"] if each["subject"] == "look-long"]


def _last(site: Site) -> str | None:
    (row,) = site.get("/v1/schedules")["items"]
    return row["last"]["job"] if row["last"] is not None else None


def _job(site: Site, job: str) -> dict[str, Any]:
    found: dict[str, Any] = site.get(f"/v1/operations/{job}")["item"]
    return found
