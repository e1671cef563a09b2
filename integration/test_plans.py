"""Plans on real guests: two hosts emptied by one saved plan, refused when something changed, past a dead coordinator.

Guests here are as in test_migration.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ruamel.yaml import YAML

from integration import watch
from integration.site import Site
from integration.test_failover import SITE
from integration.test_migration import assert_runs_on, slow
from integration.watch import REFUSED, run

__all__ = ["SITE"]  # the same site as that of the failovers

FILE = "/run/plan.yaml"
CHANGES = 4  # exit code: the plan does not hold


def saved(site: Site) -> dict[str, dict[str, Any]]:
    """A fresh plan for h1 and h2, by name of the guest, as it stands in the file."""
    site.dr("plan", "evacuate", "h1", "h2", "--save", FILE, "--replace")
    plan = YAML(typ="safe").load(site.lab.ctl.exec(["cat", FILE]).stdout)
    assert plan["hosts"] == ["h1", "h2"]
    return {each["name"]: each for each in plan["guests"]}


def drains(site: Site, before: Collection[str] = ()) -> dict[str, str]:
    """Id and state of every drain but those that were before."""
    items = site.get("/v1/operations")["items"]
    return {job["id"]: job["state"] for job in items if job["op"] == "drain" and job["id"] not in before}


def set_aside(site: Site) -> bool:
    return all(site.hosts()[name]["phase"] == "maintenance" for name in ("h1", "h2"))


def test_a_saved_plan_empties_two_hosts_though_the_coordinator_dies(site: Site) -> None:
    a, b, c, late = site.fresh(4)
    others = drains(site)
    site.start_guests({"h1": [a, b], "h2": [c]}, busy=True)
    plan = saved(site)
    assert {name: each["fate"] for name, each in plan.items()} == dict.fromkeys((a, b, c), "live")
    # one more guest: nobody approved of what would become of it
    site.start_guests({"h2": [late]}, busy=True)
    refused = run(site, "apply", FILE)
    assert refused.returncode == REFUSED
    assert f"{late}: is on h2 now, and not in the plan" in refused.stderr
    assert run(site, "apply", FILE, "--dry-run").returncode == CHANGES
    assert {site.hosts()[name]["phase"] for name in ("h1", "h2")} == {"online"}
    assert drains(site, others) == {}
    plan = saved(site)
    assert {each["to"] for each in plan.values()} == {"h3", "h4"}, "to those that stay, and to both of them"
    boots = {name: site.lab.guest(name).http().boot for name in plan}
    for name in (a, b):
        slow(site, name)
    site.dr("apply", FILE, "--reason", "new firmware", "--no-wait")
    site.wait(lambda: any(len(site.lab.qemu_hosts(name)) == 2 for name in (a, b)), 30, "one to be on its way")
    watch.coordinator(site).kill()
    site.wait(lambda: site.leads() and set_aside(site), 180, "h1 and h2 to be empty")
    site.wait(lambda: set(drains(site, others).values()) == {"done"}, 30, "their jobs to end")
    for name, boot in boots.items():
        assert_runs_on(site, name, boot, plan[name]["to"])
    again = run(site, "apply", FILE)
    assert again.returncode == 0, again.stderr
    assert "was applied already: h1 is maintenance, h2 is maintenance" in again.stderr
    assert len(drains(site, others)) == 2
