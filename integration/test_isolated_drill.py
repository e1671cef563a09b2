"""Drills of clones on real guests, from the command to the verdict: whatever dies meanwhile, nothing is left.

What a clone is, and that nothing leaves its network, is in test_clones.
"""

from __future__ import annotations

import json
from typing import Any

from integration import watch
from integration.lab.guests import qemu_pids
from integration.lab.proc import wait_for
from integration.site import Site
from integration.test_clones import left
from integration.test_failover import SITE
from integration.test_playbook import job_of
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers


def checked_guests(site: Site, count: int) -> list[str]:
    """Protected guests on h1 whose policy has a check."""
    names = site.fresh(count)
    site.start_guests({"h1": names})
    for name in names:
        site.dr("guest", "set", name, "--check", f"http://{site.lab.guest(name).address}/")
    return names


def drill(site: Site, *words: str) -> tuple[str, ...]:
    """The shipped drill of h1, as it is typed."""
    address = f"{site.lab.guest('g1').address.rpartition('.')[0]}.250/24"
    return ("playbook", "run", "drill-host", "source=h1", f"address={address}", *words)


def ended(site: Site) -> dict[str, Any]:
    """The drill's job, once it has ended."""
    site.wait(lambda: job_of(site, "drill-host")["state"] != "open", 150, "the drill to end")
    return job_of(site, "drill-host")


def booted(site: Site) -> bool:
    """Whether a clone runs on h1."""
    return "dc10ed00-" in site.lab.host("h1").exec(["virsh", "-q", "list", "--uuid"]).stdout


def test_the_shipped_drill_of_a_host(site: Site) -> None:
    """Clones of its guests start and do their work, while the guests do theirs; it passes, and nothing is left."""
    names = checked_guests(site, 2)
    before = {name: qemu_pids(site.lab.host("h1"), name) for name in names}
    done = run(site, *drill(site), timeout_s=150)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    job = job_of(site, "drill-host")
    assert job["state"] == "done", job
    assert left(site, "h1") == []
    assert {name: qemu_pids(site.lab.host("h1"), name) for name in names} == before
    assert not [name for name in site.guests() if name.startswith("drill")]
    site.assert_once(*names)


def test_a_check_that_fails_fails_the_drill(site: Site) -> None:
    """A guest whose policy asks for what it does not serve."""
    (name,) = checked_guests(site, 1)
    site.dr("guest", "set", name, "--check", f"tcp:{site.lab.guest(name).address}:81")
    site.lab.ctl.path("/etc/dr/short.yaml").write_text(
        "playbook: drill-host\nkind: drill\ndescription: short\n"
        f"bubble: {{address: {site.lab.guest(name).address.rpartition('.')[0]}.250/24}}\n"
        f"steps:\n  - clone: {name}\n  - boot: {name}\n  - check: {name}\n    timeout: 25s\n"
    )
    done = run(site, "playbook", "run", "/etc/dr/short.yaml", timeout_s=100)
    assert done.returncode != 0
    job = job_of(site, "drill-host")
    assert "refuses" in json.dumps(job), job
    assert left(site, "h1") == []


def test_the_coordinator_killed_in_the_middle(site: Site) -> None:
    """Its successor takes the drill up where it was, and ends it."""
    names = checked_guests(site, 1)
    site.dr(*drill(site, "--no-wait"))
    wait_for(lambda: booted(site), 60, "a clone to run", interval_s=0.1)
    watch.coordinator(site).kill()
    site.wait(site.leads, 60, "the coordinator to answer")
    job = ended(site)
    assert job["state"] == "done", job
    wait_for(lambda: not left(site, "h1"), 30, "h1 to be clean")
    site.assert_once(*names)


def test_the_agent_killed_in_the_middle(site: Site) -> None:
    """The drill ends with it and has failed; nothing is left, and the guest has not noticed."""
    names = checked_guests(site, 1)
    before = {name: qemu_pids(site.lab.host("h1"), name) for name in names}
    site.dr(*drill(site, "--no-wait"))
    wait_for(lambda: booted(site), 60, "a clone to run", interval_s=0.1)
    site.lab.host("h1").kill_service("agent")
    job = ended(site)
    assert job["state"] != "done", job
    wait_for(lambda: not left(site, "h1"), 30, "h1 to be clean")
    assert {name: qemu_pids(site.lab.host("h1"), name) for name in names} == before
    site.assert_once(*names)
