"""Failover on real guests: whatever dies, and whenever, each guest ends up running exactly once."""

from __future__ import annotations

import signal
import time
from itertools import pairwise

from integration.conftest import Wanted
from integration.site import Site
from integration.watch import Log, Places, wait_for

# Hosts are lost here within seconds of each other, which on a real site the brake and the flap limit would stop.
SETTINGS = """\
timers: {settle_s: 1.5, restart_backoff_s: 1.0, recovery_retry_s: 1.0, fence_s: 4.0, fence_retry_s: 2.0}
limits: {brake_window_s: 0.5, fences_per_window: 1000, returns_per_window: 1000}
"""
SITE = Wanted(hosts=4, settings=SETTINGS)


def target_of(line: dict[str, str]) -> str:
    """The host in a line "g1: starts on h2"."""
    assert line["kind"] == "guest.starting"
    return line["event"].rpartition(" ")[2]


def test_power_cut_of_a_host_with_three_guests(site: Site) -> None:
    """All three run on survivors, each once, and were started once."""
    names = site.fresh(3)
    site.start_guests({"h1": names})
    before = Places(site, tuple(names))
    site.lab.host("h1").power_off()
    before.wait_moved("h1")
    site.wait_running(*names, on=["h2", "h3", "h4"])
    assert len({before.only_host(name) for name in names}) == 3, "the load is not spread"


def test_two_of_four_hosts_at_once(site: Site) -> None:
    """Half of the hosts lose power together; the other half takes their guests."""
    names = site.fresh(3)
    site.start_guests({"h1": names[:1], "h2": names[1:2], "h3": names[2:]})
    before = Places(site, tuple(names))
    site.lab.host("h1").power_off()
    site.lab.host("h2").power_off()
    site.wait_running(*names, on=["h3", "h4"])
    site.assert_once(*names)
    assert before.only_host(names[2]) == "h3", "a guest that nothing had happened to was moved"


def test_a_host_dies_during_the_failover_of_another(site: Site) -> None:
    """The second host's power is cut when the first is declared dead; both hosts' guests run on the rest."""
    names = site.fresh(2)
    site.start_guests({"h1": names[:1], "h2": names[1:]})
    log = Log(site)
    site.lab.host("h1").power_off()
    log.wait("host.fenced", host="h1")
    site.lab.host("h2").power_off()
    site.wait_running(*names, on=["h3", "h4"])
    site.assert_once(*names)


def test_the_target_dies_during_the_start(site: Site) -> None:
    """The host that was just told to start the guest loses power: it starts on a third."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    log = Log(site)
    site.lab.host("h1").power_off()
    target = target_of(log.wait("guest.starting"))
    site.lab.host(target).power_off()
    left = [host.name for host in site.lab.hosts if host.name not in ("h1", target)]
    site.wait_running(name, on=left)
    site.assert_once(name)


def test_a_start_whose_agent_is_killed_under_it(site: Site) -> None:
    """The agent dies while libvirt starts the guest: the answer is lost, the guest runs once, where it was started."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    log = Log(site)
    site.lab.host("h1").power_off()
    target = target_of(log.wait("guest.starting"))
    wait_for(site, lambda: site.lab.qemu_hosts(name) == [target], 10, f"QEMU on {target}")
    site.lab.host(target).kill_service("agent", signal.SIGKILL)
    site.wait_running(name, on=["h2", "h3", "h4"])
    site.assert_once(name)
    assert site.lab.qemu_hosts(name) == [target]


def test_a_start_whose_reply_is_lost_while_libvirt_works_on_it(site: Site) -> None:
    """libvirtd hangs with the start in its hands: nobody else is tried, however long it takes, and then it runs."""
    (name,) = site.fresh(1)
    site.configure(SETTINGS.replace("timers: {", "timers: {start_s: 1.0, testify_s: 2.0, "))
    site.start_guests({"h1": [name]})
    log = Log(site)
    for host in ("h2", "h3", "h4"):
        site.lab.faults.freeze_service(host, "libvirtd")
    site.lab.host("h1").power_off()
    target = target_of(log.wait("guest.starting"))
    log.wait("guest.unknown")
    # The others could start it by now. It may still start on the first, so they are not asked.
    for host in ("h2", "h3", "h4"):
        if host != target:
            site.lab.faults.thaw_service(host, "libvirtd")
    site.wait(lambda: target in site.guests()[name]["reason"], 10, f"a reason that names {target}")
    assert site.guests()[name]["phase"] == "unknown"
    assert site.lab.qemu_hosts(name) == []
    site.lab.faults.thaw_service(target, "libvirtd")
    site.wait_running(name, on=[target])
    site.assert_once(name)
    assert len(log.lines("guest.starting")) == 1, "somebody else was told to start it too"


def test_whole_host_frozen_for_a_second(site: Site) -> None:
    """A host that stands still for a second is not fenced, and its guest goes on as if nothing had been."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before, log = Places(site, (name,)), Log(site)
    site.lab.faults.freeze("h1")
    time.sleep(1.0)
    site.lab.faults.thaw("h1")
    time.sleep(3.0)
    site.wait(site.all_online, 10, "h1 to be online")
    before.assert_unmoved()
    assert not {"host.fencing", "host.fenced"} & set(log.kinds())


def test_whole_host_frozen_for_long(site: Site) -> None:
    """A host that stands still is fenced, its guest restarted elsewhere, and nothing is doubled when it is back."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before, boot, log = Places(site, (name,)), site.lab.host("h1").boot_id, Log(site)
    site.lab.faults.freeze("h1")
    before.wait_moved("h1")
    assert log.lines("fence.off", "h1"), "it was restarted without a fencing"
    # The policy is to switch a fenced host on again.
    wait_for(site, lambda: site.lab.host("h1").boot_id != boot, 20, "h1 to be switched on")
    site.wait(site.all_online, 30, "h1 to be back")
    before.assert_moved_once("h1")
    assert site.lab.guest(name).state_on("h1") is None, "what h1 had of it was not cleaned"


def test_frozen_host_that_cannot_be_fenced_thaws(site: Site) -> None:
    """Frozen, and its BMC dead: nothing is restarted, and after the thaw the guest just goes on."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before, log = Places(site, (name,)), Log(site)
    site.lab.faults.bmc_dead("h1")
    site.lab.faults.freeze("h1")
    log.wait("fence.failed", 30, host="h1")
    assert not log.lines("guest.starting")
    site.lab.faults.thaw("h1")
    site.wait(site.all_online, 40, "h1 to be believed alive")
    before.assert_unmoved()


def test_guest_that_fits_nowhere_waits_and_starts_when_its_host_returns(site: Site) -> None:
    """No survivor has the memory: the guest list says so, host by host; when the dead host is back, it starts there."""
    name, *fillers = site.fresh(4)
    total = site.hosts()["h1"]["memory_mib"]
    mem_mib = int(total * 0.6)  # of which QEMU touches next to nothing: the guest's kernel uses 96 MiB
    for filler, host in zip(fillers, ("h2", "h3", "h4"), strict=True):
        site.lab.define_guest(filler, host, mem_mib=mem_mib)
        site.lab.host(host).exec(["virsh", "-q", "start", "--paused", filler])
    site.start_guests({"h1": [name]}, mem_mib=mem_mib, kernel_args="mem=96M")
    site.lab.host("h1").power_off()
    site.wait(lambda: "fits nowhere" in site.guests()[name]["reason"], 20, "the reason why it waits")
    shown = site.dr("guest", "list")
    for host in ("h2", "h3", "h4"):
        assert f"{host}: has" in shown, shown
    assert "MiB free above the reserve" in shown
    assert site.lab.qemu_hosts(name) == []
    assert any(alert["key"].endswith("/waiting") for alert in site.status()["alerts"])
    site.lab.host("h1").power_on()
    site.wait_running(name, on=["h1"])
    site.assert_once(name)
    assert not any(alert["key"].endswith("/waiting") for alert in site.status()["alerts"])


def test_starts_are_bounded_and_in_order_of_priority(site: Site) -> None:
    """One start at a time on each host, the most important first."""
    names = site.fresh(5)
    site.configure(SETTINGS.replace("limits: {", "limits: {starts_per_host: 1, "))
    priorities = {name: 10 * place for place, name in enumerate(names, 1)}
    site.start_guests({"h1": names}, answering=False, priorities=priorities)
    log = Log(site)
    site.lab.host("h1").power_off()
    site.wait_running(*names, on=["h2", "h3", "h4"])
    site.assert_once(*names)
    starts = [line["event"].split(":")[0] for line in log.lines("guest.starting")]
    assert starts == names[::-1]
    busy: dict[str, str] = {}
    for line in log.lines():
        name, _, words = line.get("event", "").partition(": ")
        if line.get("kind") == "guest.starting":
            assert target_of(line) not in busy.values(), f"two starts at once on {target_of(line)}"
            busy[name] = target_of(line)
        elif line.get("kind") == "guest.running":
            busy.pop(name, None)
            assert words


def test_black_start_of_the_whole_site(site: Site) -> None:
    """Everything loses power at once, the coordinator too; when it is back, guests start in order of priority."""
    names = site.fresh(3)
    priorities = dict(zip(names, (10, 30, 20), strict=True))
    site.start_guests({"h1": names}, answering=False, priorities=priorities)
    for machine in site.lab.machines:
        machine.power_off()
    log = Log(site)
    for machine in site.lab.machines:
        machine.power_on()
    site.wait(site.leads, 30, "the coordinator")
    site.wait_running(*names, timeout_s=90)
    site.assert_once(*names)
    starts = [line["event"].split(":")[0] for line in log.lines("guest.starting")]
    order = [priorities[name] for name in starts]
    assert len(starts) == 3
    assert all(first > second for first, second in pairwise(order)), order


def test_unprotected_guest_is_left_alone(site: Site) -> None:
    """A guest that nobody protected is not started elsewhere when its host dies."""
    ours, other = site.fresh(2)
    site.start_guests({"h1": [ours]})
    site.start_guests({"h1": [other]}, protect=False, answering=False)
    site.dr("host", "fence", "h1", "--yes", "--reason", "test")
    site.wait_running(ours, on=["h2", "h3", "h4"])
    site.assert_once(ours)
    assert [host for host in site.lab.qemu_hosts(other) if host != "h1"] == []
