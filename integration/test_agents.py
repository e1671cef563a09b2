"""Agents, libvirtd and commands on hosts that live: what fails there costs no guest its life."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from integration.lab.proc import wait_for
from integration.site import Site
from integration.test_failover import SITE, target_of
from integration.watch import Log, Places, run

__all__ = ["SITE"]  # the same site as that of the failovers

NEVER = {"host.fencing", "host.fenced", "guest.starting", "guest.recovering", "guest.unknown"}


def degraded(site: Site, host: str) -> bool:
    """Whether the product says so."""
    return "degraded" in site.hosts()[host]["conditions"]


@pytest.fixture
def guest(site: Site) -> Iterator[str]:
    """A protected guest on h1. At the end it must run there as if nothing had been, and nobody was fenced."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before, log = Places(site, (name,)), Log(site)
    with site.lab.poller([name]) as poller:
        yield name
        site.wait(site.all_online, 20, "all to be well again")
        before.assert_unmoved()
        assert not NEVER & set(log.kinds())
        lost = [gap for gap in poller.outages()[name] if gap.length_s is None or gap.length_s > 5]
        assert not lost, f"the guest stood still: {lost}"


def test_agent_killed_and_staying_down(site: Site, guest: str) -> None:
    """Nothing is fenced, the guest runs on, an alert says which agent is lost, and goes when it is back."""
    site.lab.host("h1").kill_service("agent", stay_down=True)
    site.wait(lambda: "host/h1/agent-lost" in site.alerts(), 15, "an alert")
    host = site.hosts()["h1"]
    assert (host["phase"], host["conditions"]) == ("online", ["agent_lost"])
    time.sleep(3)
    assert "host/h1/agent-lost" in site.alerts()
    site.lab.host("h1").start_service("agent")
    site.wait(lambda: "host/h1/agent-lost" not in site.alerts(), 15, "the alert to end")


def test_agent_killed_and_restarted(site: Site, guest: str) -> None:
    """Killed, and back within a second or two: it takes up its work, and the guest never noticed."""
    before = site.lab.host("h1").service_pid("agent")
    site.lab.host("h1").kill_service("agent")
    wait_for(lambda: site.lab.host("h1").service_pid("agent") not in (None, before), 20, "a new agent")


def test_libvirtd_killed(site: Site, guest: str) -> None:
    """QEMU outlives libvirtd, and the product knows: nothing is fenced or restarted."""
    before = site.lab.host("h1").service_pid("libvirtd")
    site.lab.host("h1").kill_service("libvirtd")
    wait_for(lambda: site.lab.host("h1").service_pid("libvirtd") not in (None, before), 20, "a new libvirtd")
    time.sleep(2)
    assert site.guests()[guest]["phase"] == "running"


def test_libvirtd_killed_and_staying_down(site: Site, guest: str) -> None:
    """The host is degraded and says why; its guest is not declared dead because nobody can list it."""
    site.lab.host("h1").kill_service("libvirtd", stay_down=True)
    site.wait(lambda: degraded(site, "h1"), 25, "h1 to be degraded")
    assert "libvirt" in site.alerts()["host/h1/degraded"]["why"]
    assert site.guests()[guest]["phase"] == "running"
    site.lab.host("h1").start_service("libvirtd")
    site.wait(lambda: not degraded(site, "h1"), 25, "h1 to be well")


@pytest.mark.parametrize("lost", ["/etc/libvirt/hooks/qemu.d/50-dr", "/var/lib/dr/agent/protected"])
def test_a_hook_that_somebody_removed(site: Site, guest: str, lost: str) -> None:
    """It is back within seconds, told, and proven: the host that does not hold the guest still refuses to start it."""
    host = site.lab.host("h2")
    host.exec(["rm", "-r", lost])
    wait_for(host.path(lost).exists, 20, "it to be put back")

    def told() -> str:
        readings = site.get("/v1/hosts/h2")["item"]["readings"]
        return next((each["reason"] for each in readings if each["part"] == "hook"), "")

    site.wait(lambda: "the agent put it back" in told(), 10, "a warning")
    site.wait(lambda: bool(site.hosts()["h2"]["hook"]), 10, "the hook to be proven")
    xml = site.lab.host("h1").exec(["virsh", "dumpxml", "--inactive", guest]).stdout
    refused = host.exec(["virsh", "create", "/dev/stdin"], stdin=xml, check=False)
    assert "has no permit" in refused.stderr
    site.assert_once(guest)


def test_agent_frozen_for_ten_seconds(site: Site, guest: str) -> None:
    """The host still answers its peers, so only the agent is called lost."""
    site.lab.faults.freeze_service("h1", "agent")
    site.wait(lambda: "host/h1/agent-lost" in site.alerts(), 10, "an alert")
    time.sleep(8)
    site.lab.faults.thaw_service("h1", "agent")
    site.wait(lambda: "host/h1/agent-lost" not in site.alerts(), 10, "the alert to end")


def test_agent_upgrade_causes_no_suspicion(site: Site, guest: str) -> None:
    """An agent that is stopped says goodbye: nobody is suspected or alarmed while it is away."""
    log = Log(site)
    site.lab.host("h1").stop_service("agent")
    time.sleep(4)
    alerts = site.alerts()
    site.lab.host("h1").start_service("agent")
    site.wait(lambda: site.hosts()["h1"]["connected"], 15, "the agent to be back")
    kinds = log.kinds()
    assert "host.goodbye" in kinds
    assert not {"host.suspect", "host.agent_lost"} & set(kinds)
    assert not [key for key in alerts if key.startswith("host/h1/")]


def test_host_dies_while_its_agent_is_being_upgraded(site: Site) -> None:
    """A goodbye is no licence to die unseen: the power cut behind it is found out and the guest restarted."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before = Places(site, (name,))
    site.lab.host("h1").stop_service("agent")
    site.lab.host("h1").power_off()
    before.wait_moved("h1")


def test_agents_memory_disk_full(site: Site) -> None:
    """A host whose agent cannot write down a ticket says so and gets none; the guest starts on another one."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    for host in ("h2", "h3"):
        site.lab.faults.disk_full(host)
    site.dr("guest", "label", name, "disk=full")  # a new revision of the store, which they cannot write down
    site.wait(lambda: all(degraded(site, host) for host in ("h2", "h3")), 20, "h2 and h3 to say so")
    assert "cannot write its memory" in site.alerts()["host/h2/degraded"]["why"]
    site.lab.host("h1").power_off()
    site.wait_running(name, on=["h4"])
    site.assert_once(name)
    for host in ("h2", "h3"):
        site.lab.faults.disk_free(host)
    site.wait(lambda: not degraded(site, "h2") and not degraded(site, "h3"), 30, "h2 and h3 to be well")


def test_hanging_libvirtd_is_no_target(site: Site) -> None:
    """A host whose libvirtd has hung for long enough to be known gets no start while a healthy one is there."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    for host in ("h2", "h3"):
        site.lab.faults.freeze_service(host, "libvirtd")
    site.wait(lambda: all(degraded(site, host) for host in ("h2", "h3")), 30, "h2 and h3 to be degraded")
    log = Log(site)
    site.lab.host("h1").power_off()
    assert target_of(log.wait("guest.starting")) == "h4"
    site.wait_running(name, on=["h4"])
    site.assert_once(name)


def test_removed_host(site: Site) -> None:
    """Refused while a guest may run there; then its agent is refused, and with a new token it is a member again."""
    (name,) = site.fresh(1)
    site.start_guests({"h4": [name]})
    refused = run(site, "host", "remove", "h4", "--yes")
    assert refused.returncode == 107
    assert name in refused.stderr
    site.ask("POST", "/v1/guests/unprotect", {"guests": [site.guests()[name]["id"]], "reason": "test"})
    try:
        site.dr("host", "remove", "h4", "--yes", "--reason", "test")
        assert "h4" not in site.hosts()
        time.sleep(2)
        assert "h4" not in site.hosts(), "its agent brought it back"
        assert len(site.lab.qemu_hosts(name)) == 1, "a guest went with it"
        assert "is not in this cluster" in site.lab.host("h4").service_log("agent")[-2000:]
    finally:
        site.join(site.lab.host("h4"))
        site.wait(site.all_online, 30, "h4 to be a member again")
    assert site.hosts()["h4"]["fencing"] == "proven"


def test_status_check_exit_codes(site: Site) -> None:
    """`dr status --check`: 0 when all is well, 3 when a person is needed, 69 without a coordinator."""
    # The hosts whose libvirtd hung in a test before this one are degraded until all was read of them again: 30 s.
    site.wait(lambda: run(site, "status", "--check").returncode == 0, 90, "all to be well")
    site.lab.host("h1").kill_service("agent", stay_down=True)
    site.wait(lambda: "host/h1/agent-lost" in site.alerts(), 15, "an alert")
    assert run(site, "status", "--check").returncode == 3
    site.lab.ctl.stop_service("coordinator")
    assert run(site, "status", "--check").returncode == 69
