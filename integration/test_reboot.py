"""A real host with a real systemd is rebooted under its guests, with the units that the package ships.

Guests here are as in test_migration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dr
from integration.conftest import Wanted
from integration.lab import Machine
from integration.lab.proc import wait_for
from integration.site import DR, ENV, Site
from integration.test_failover import SETTINGS
from integration.test_migration import assert_runs_on

SITE = Wanted(hosts=3, settings=SETTINGS)  # nobody else wants it: systemd stays on h1
UNITS = Path(dr.__file__).parents[1] / "packaging" / "systemd"
ENVIRONMENT = "".join(f"Environment={key}={value}\n" for key, value in ENV.items())


@pytest.fixture
def h1(site: Site) -> Machine:
    """The host with systemd; its agent is the packaged unit."""
    host = site.lab.host("h1")
    if host.boots != "systemd":
        host.remove_service("agent")
        host.boots = "systemd"
        before = host.boot_id
        host.reboot()
        host.wait_ready()
        agent = f"[Service]\nExecStart=\nExecStart={DR} agent\n{ENVIRONMENT}"
        host.install_unit("dr-agent.service", (UNITS / "dr-agent.service").read_text(), agent)
        host.systemctl("start", "dr-agent")
        site.wait(lambda: site.boot_seen("h1") and host.boot_id != before, 60, "h1 to be back with systemd")
        site.wait(site.all_online, 60, "all hosts to be online")
    return host


def enable_leave(host: Machine) -> None:
    leave = f"[Service]\nExecStop=\nExecStop={DR} agent leave\n{ENVIRONMENT}"
    host.install_unit("dr-leave.service", (UNITS / "dr-leave.service").read_text(), leave)
    host.systemctl("start", "dr-leave")


def reading(site: Site) -> tuple[str, str]:
    """What h1 says of its shutdown."""
    health = json.loads(site.dr("host", "show", "h1", "-o", "json"))["item"]["readings"]
    (found,) = [(each["level"], each["reason"]) for each in health if each["part"] == "shutdown"]
    return found


def leave_job(site: Site) -> dict[str, Any]:
    """The newest job of a host that announced its end."""
    found: dict[str, Any] = [job for job in site.get("/v1/operations")["items"] if job["op"] == "leave"][-1]
    return found


def two_slow_ones(site: Site) -> dict[str, str]:
    """Protected guests on h1 that take a while to move, with their boots' ids."""
    names = site.fresh(2)
    site.start_guests({"h1": names}, busy=True)
    for name in names:
        site.dr("guest", "set", name, "--move-bandwidth", "6")
    return {name: site.lab.guest(name).http().boot for name in names}


def test_a_reboot_waits_until_its_guests_have_moved(site: Site, h1: Machine) -> None:
    """Moved live while systemd waits, longer than libvirt-guests would leave them; then the host boots, and is used."""
    level, says = reading(site)
    assert level == "warn"
    assert "systemctl enable --now dr-leave" in says
    enable_leave(h1)
    site.wait(lambda: reading(site) == ("ok", ""), 30, "h1 to say that its shutdown would wait")
    guests = two_slow_ones(site)
    before = h1.boot_id
    with site.lab.poller(list(guests)) as poller:
        h1.systemctl("reboot", check=False)
        wait_leaving(site, *guests)
        assert h1.systemctl("is-system-running", check=False) == "stopping"
        assert h1.systemctl("is-active", "dr-leave", check=False) == "deactivating"
        h1.wait_rebooted(before, 120)
        gaps = {name: [gap.length_s for gap in poller.outages()[name]] for name in guests}
    print(f"outages: {gaps}")
    assert all(gap is not None and gap < 5 for each in gaps.values() for gap in each), gaps
    for name, boot in guests.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])
        assert site.guests()[name]["host"] != "h1"
    site.wait(site.all_online, 60, "h1 to be back")
    job = leave_job(site)
    assert job["state"] == "done", job
    assert all("not held up any longer" not in text or "still there" not in text for text in said(site))
    assert any("h1: its reboot is not held up any longer" in text for text in said(site))


def wait_leaving(site: Site, *names: str) -> None:
    """Until each is on its way: both ends have a QEMU of it."""
    site.wait(
        lambda: all(len(site.lab.qemu_hosts(name)) > 1 for name in names), 60, f"{names} to be on their way"
    )


def said(site: Site) -> list[str]:
    """The timeline of this test."""
    return [line["text"] for line in site.lately()]


def test_nobody_to_ask_and_a_host_goes_down_all_the_same(site: Site, h1: Machine) -> None:
    """It waits for a word for half a minute; then its guest ends with it, and starts when somebody decides again."""
    enable_leave(h1)
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.lab.ctl.stop_service("coordinator")
    before = h1.boot_id
    h1.systemctl("reboot", check=False)
    h1.wait_rebooted(before, 120)
    site.lab.ctl.start_service("coordinator")
    site.wait(site.leads, 30, "the coordinator to answer")
    site.wait_running(name, timeout_s=90)
    site.assert_once(name)


def test_an_agent_that_is_killed_holds_nothing_up(site: Site, h1: Machine) -> None:
    """In the middle of the moves: systemd goes on at once, and each guest runs exactly once in the end."""
    enable_leave(h1)
    guests = two_slow_ones(site)
    before = h1.boot_id
    h1.systemctl("reboot", check=False)
    wait_leaving(site, *guests)
    h1.systemctl("kill", "--signal=KILL", "dr-agent")
    wait_for(
        lambda: not h1.is_on() or h1.systemctl("is-active", "dr-leave", check=False) != "deactivating",
        15,
        "systemd to go on",
        interval_s=0.2,
    )
    h1.wait_rebooted(before, 120)
    site.wait_running(*guests, timeout_s=120)
    site.assert_once(*guests)
