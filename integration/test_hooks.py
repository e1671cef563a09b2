"""Hooks beside a real failover: both are run, once, and the guest does not wait for the one that takes its time.

Not here: what a hook is told, who may be one (tests/core/playbooks, tests/cli).
"""

from __future__ import annotations

from integration.site import Site
from integration.test_failover import SITE

__all__ = ["SITE"]  # the same site as that of the failovers

BEGINS = """\
playbook: hook-begins
params: {failed_host: {is: host}, job: {}}
steps:
  - notify: ${failed_host} is lost, see ${job}
  - wait: 30m
"""
ENDS = """\
playbook: hook-ends
params: {outcome: {}}
steps:
  - notify: it is ${outcome}
"""


def test_a_failover_runs_its_hooks_and_waits_for_none(site: Site) -> None:
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before = site._in_force
    for file, text in (("hook-begins.yaml", BEGINS), ("hook-ends.yaml", ENDS)):
        site.lab.ctl.path(f"/etc/dr/{file}").write_text(text)
    known = {job["id"] for job in site.get("/v1/operations")["items"]}
    site.configure(f"{before}hooks: {{failover_begins: hook-begins.yaml, failover_ends: hook-ends.yaml}}\n")
    try:
        assert "hook failover_ends: hook-ends" in site.dr("playbook", "show", "failover")
        site.lab.host("h1").power_off()
        site.wait_running(name, on=["h2", "h3", "h4"])
        jobs = {job["subject"]: job for job in site.get("/v1/operations")["items"] if job["id"] not in known}
        site.wait(
            lambda: site.get(f"/v1/operations/{jobs['h1']['id']}")["item"]["state"] == "done", 20, "its end"
        )
        failover = site.get(f"/v1/operations/{jobs['h1']['id']}")["item"]
        assert failover["op"] == "failover"
        begins, ends = failover["hooks"]["failover_begins"], failover["hooks"]["failover_ends"]
        run = site.get(f"/v1/operations/{begins}")["item"]
        assert (run["state"], run["run"]["params"]) == ("open", {"failed_host": "h1", "job": failover["id"]})
        site.wait(lambda: site.get(f"/v1/operations/{ends}")["item"]["state"] == "done", 20, "the other hook")
        assert site.get(f"/v1/operations/{ends}")["item"]["run"]["params"] == {"outcome": "done"}
        site.assert_once(name)
    finally:
        site.configure(before)
        for job in site.get("/v1/operations")["items"]:
            if job["subject"] == "hook-begins" and job["state"] == "open":
                site.dr("job", "cancel", job["id"])
