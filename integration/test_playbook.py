"""Playbooks on real guests: the one that ships, through the coordinator's death; and one of a team's own.

Guests here are as in test_migration.
"""

from __future__ import annotations

import json
from typing import Any

from integration import watch
from integration.site import Site
from integration.test_failover import SITE
from integration.test_migration import assert_runs_on, slow
from integration.test_plans import drains
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers

BAD_FILE, DEGRADED = 78, 3
OWN = """\
playbook: night-off
description: One guest is off over night, if somebody agrees.
params:
  whom: {is: guest, says: the guest}
steps:
  - approve: switch ${whom} off?
    by: [root]
    timeout: 5m
  - stop: ${whom}
    undo: start
  - until: {host: h1, is: maintenance}
    timeout: 2s
    on_fail: rollback
finally:
  - check: ${whom}
"""


def job_of(site: Site, playbook: str) -> dict[str, Any]:
    """The newest run of that playbook."""
    jobs = [job for job in site.get("/v1/operations")["items"] if job["subject"] == playbook]
    found: dict[str, Any] = site.get(f"/v1/operations/{jobs[-1]['id']}")["item"]
    return found


def states(job: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["text"].partition(":")[0], step["state"]) for step in job["run"]["steps"]]


def test_the_shipped_evacuation_survives_the_coordinator(site: Site) -> None:
    """Killed with a guest on its way: the run goes on where it was, and each step is done once."""
    names, before = site.fresh(2), drains(site)
    site.start_guests({"h1": names}, busy=True)
    boots = {name: site.lab.guest(name).http().boot for name in names}
    dry = run(site, "playbook", "run", "evacuate-host", "source=h1", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "drain: h1" in dry.stdout
    assert site.hosts()["h1"]["phase"] == "online"
    assert "no such host: h9" in run(site, "playbook", "run", "evacuate-host", "source=h9").stderr
    for name in names:
        slow(site, name)
    site.dr("playbook", "run", "evacuate-host", "source=h1", "--reason", "new DIMM", "--no-wait")
    site.wait(lambda: any(len(site.lab.qemu_hosts(name)) == 2 for name in names), 30, "one to be on its way")
    watch.coordinator(site).kill()
    site.wait(lambda: site.leads() and job_of(site, "evacuate-host")["state"] != "open", 180, "its end")
    job = job_of(site, "evacuate-host")
    assert job["state"] == "done", job
    assert states(job) == [(word, "done") for word in ("cordon", "drain", "check", "notify", "notify")]
    assert list(drains(site, before).values()) == ["done"]
    assert site.hosts()["h1"]["phase"] == "maintenance"
    for name, boot in boots.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])


def test_a_step_that_fails_takes_back_what_was_done(site: Site) -> None:
    """Asked first, answered by who may; then the guest is off, and is started again as a later step fails."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.lab.ctl.path("/etc/dr/own.yaml").write_text(OWN.replace("- stop", "- stpo"))
    bad = run(site, "playbook", "validate", "/etc/dr/own.yaml")
    assert bad.returncode == BAD_FILE
    assert "/etc/dr/own.yaml:9: steps[1].stpo: unknown key; did you mean stop?" in bad.stderr
    site.lab.ctl.path("/etc/dr/own.yaml").write_text(OWN)
    site.dr("playbook", "run", "/etc/dr/own.yaml", f"whom={name}", "--no-wait")
    site.wait(lambda: any(key.endswith("/approve") for key in site.alerts()), 20, "somebody to be asked")
    assert site.guests()[name]["phase"] == "running"
    key = job_of(site, "night-off")["id"]
    site.dr("job", "approve", key, "--reason", "it is night")
    ended = run(site, "job", "watch", key)
    assert ended.returncode == 1, "it failed, and says so"
    job = json.loads(site.dr("job", "show", key, "-o", "json"))["item"]
    assert [step["part"] for step in job["run"]["steps"]] == ["steps", "steps", "steps", "undo", "finally"]
    assert [state for _, state in states(job)] == ["done", "done", "failed", "done", "done"]
    assert "not done within 2 s" in job["run"]["failed"]
    site.wait_running(name)
    site.assert_once(name)
    assert not [key for key in site.alerts() if key.startswith("playbook/")]
