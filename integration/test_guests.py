"""What guests do by themselves or at their owner's hand, and what the operator may ask for."""

from __future__ import annotations

import os
import signal
import time

from integration.lab.guests import qemu_pids
from integration.site import DR, ENV, Site
from integration.test_failover import SETTINGS, SITE
from integration.watch import Log, Places, boots, run

__all__ = ["SITE"]  # the same site as that of the failovers


def kill_qemu(site: Site, name: str) -> None:
    """The crash of a QEMU: SIGKILL."""
    (host,) = site.lab.qemu_hosts(name)
    for pid in qemu_pids(site.lab.host(host), name):
        os.kill(pid, signal.SIGKILL)


def test_shutdown_from_inside_is_not_restarted(site: Site) -> None:
    """Its owner switched it off: it stays off, on a dead host too, until `dr guest start`."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.lab.guest(name).http("/poweroff")
    shown = site.wait_phase(name, "stopped")
    assert shown["desired"] == "stopped"
    assert "by its owner" in shown["reason"]
    site.lab.host("h1").power_off()
    site.wait(lambda: site.hosts()["h1"]["phase"] == "fenced", 15, "h1 to be found dead")
    assert site.guests()[name]["phase"] == "stopped"
    assert site.lab.qemu_hosts(name) == []
    site.dr("guest", "start", name)
    site.wait_running(name, on=["h2", "h3", "h4"])
    site.assert_once(name)


def test_virsh_shutdown_is_not_restarted(site: Site) -> None:
    """`virsh shutdown` on its host is the owner's will; `virsh start` there is held back by the hook, and says so."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.lab.guest(name).shutdown("h1")
    assert site.wait_phase(name, "stopped")["desired"] == "stopped"
    assert site.lab.qemu_hosts(name) == []
    started = site.lab.host("h1").exec(["virsh", "-q", "start", name], check=False)
    assert started.returncode != 0
    assert "dr guest start" in started.stderr
    site.dr("guest", "start", name)
    site.wait_running(name)
    site.assert_once(name)


def test_dr_guest_stop_and_start(site: Site) -> None:
    """Stopped by the product: it stays protected and down; started again, its place is found anew."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.dr("guest", "stop", name, "--yes")
    shown = site.guests()[name]
    assert (shown["phase"], shown["may_run_on"]) == ("stopped", [])
    assert site.lab.qemu_hosts(name) == []
    site.dr("guest", "start", name)
    site.wait_running(name)
    site.assert_once(name)


def test_dr_guest_relocate(site: Site) -> None:
    """Stopped where it runs, started on the host that was named; what was left at its old host is cleaned up."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.dr("guest", "relocate", name, "--to", "h3", "--mode", "destroy", "--yes")
    site.wait_running(name, on=["h3"])
    site.assert_once(name)
    assert boots(site, name) == 2
    again = [DR, "guest", "relocate", name, "--to", "h3", "--yes"]
    assert f"{name} runs on h3 already" in site.lab.ctl.exec(again, env=ENV, check=False).stderr

    def defined() -> list[str]:
        return site.lab.host("h1").exec(["virsh", "-q", "list", "--all", "--name"]).stdout.split()

    site.wait(lambda: name not in defined(), 15, "what was left on h1 to be cleaned up")


def test_guest_that_panics_is_restarted_in_place(site: Site) -> None:
    """Its kernel crashed: restarted on the host where it was."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    log = Log(site)
    site.lab.guest(name).http("/crash")
    log.wait("guest.recovering")
    site.wait_running(name, on=["h1"])
    site.assert_once(name)
    assert boots(site, name) == 2


def test_guest_that_keeps_crashing(site: Site) -> None:
    """In place, bounded, with growing pauses; then elsewhere; then it is given up, until `dr guest start`."""
    (name,) = site.fresh(1)
    site.configure(SETTINGS + "guests: {max_restarts: 2, max_relocations: 1}\n")
    site.start_guests({"h1": [name]})
    log = Log(site)
    where = []
    for count in range(1, 6):
        kill_qemu(site, name)
        log.wait("guest.running", 20, count=count)
        where += site.lab.qemu_hosts(name)
    assert where[:2] == ["h1", "h1"]
    assert where[2] in ("h2", "h3", "h4")
    assert where[3:] == [where[2]] * 2, "where it was moved to, it has its restarts again"
    said = [line["event"] for line in log.lines("guest.recovering") if "ended unexpectedly" in line["event"]]
    for line, expected in zip(
        said, ("restart 1 of 2", "restart 2 of 2 in place in 1 s", "relocation 1 of 1"), strict=False
    ):
        assert expected in line
    kill_qemu(site, name)
    shown = site.wait_phase(name, "error")
    assert "used up" in shown["reason"]
    assert site.lab.qemu_hosts(name) == []
    assert any(key.endswith("/error") for key in site.alerts())
    site.dr("guest", "start", name)
    site.wait_running(name)
    site.assert_once(name)
    assert not any(key.endswith("/error") for key in site.alerts())


def test_guest_with_a_local_disk_is_refused_protection(site: Site) -> None:
    """Nobody else could start it: the refusal says which disk, and the guest goes on as it was."""
    (name,) = site.fresh(1)
    site.lab.define_guest(name, "h1")
    guest = site.lab.guest(name)
    local = "/var/lib/libvirt/images/local.raw"
    site.lab.host("h1").exec(["sh", "-c", f"mkdir -p /var/lib/libvirt/images; truncate -s 1M {local}"])
    disk = f"<disk type='file'><source file='{local}'/><target dev='vdb' bus='virtio'/></disk>"
    guest.define_xml("h1", guest.xml.replace("<interface", f"{disk}<interface", 1))
    guest.start("h1")
    site.wait(lambda: name in site.guests(), 10, "the guest to be reported")
    refused = run(site, "guest", "protect", name)
    assert refused.returncode != 0
    assert local in refused.stdout + refused.stderr
    assert not site.guests()[name]["protected"]
    assert site.lab.qemu_hosts(name) == ["h1"]


def test_guest_paused_by_an_io_error(site: Site) -> None:
    """Its storage fails: an alert says so and what to do; it is neither lost nor started elsewhere."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    before = Places(site, (name,))
    site.lab.faults.disk_server_stop(name)
    site.wait(lambda: any(key.endswith("/io-error") for key in site.alerts()), 30, "an alert")
    alert = next(alert for key, alert in site.alerts().items() if key.endswith("/io-error"))
    assert f"virsh resume {name}" in alert["todo"]
    assert site.lab.qemu_hosts(name) == ["h1"]
    assert run(site, "status", "--check").returncode == 3
    site.lab.faults.disk_server_start(name)
    while not site.lab.guest(
        name
    ).answers():  # QEMU meets the broken connection once more before it connects anew
        site.lab.host("h1").exec(["virsh", "-q", "resume", name], check=False)
        time.sleep(0.3)
    site.wait(lambda: not any(key.endswith("/io-error") for key in site.alerts()), 15, "the alert to end")
    before.assert_unmoved()


def test_storage_cut_off_for_some_hosts(site: Site) -> None:
    """Hosts that do not reach the guest's storage are not chosen for it, and nothing else changes for them."""
    (name,) = site.fresh(1)
    for host in ("h2", "h3"):
        site.lab.faults.storage_cut(host)
    site.start_guests({"h1": [name]})
    site.lab.host("h1").power_off()
    site.wait_running(name, on=["h4"])
    site.assert_once(name)
    assert site.hosts()["h2"]["phase"] == "online"


def test_pause_and_resume(site: Site) -> None:
    """While automation is paused nothing is restarted, and it says so; resumed, the guest starts."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.dr("pause", "--reason", "storage work")
    site.lab.host("h1").power_off()
    site.wait(lambda: "paused (storage work)" in site.guests()[name]["reason"], 20, "the reason")
    assert site.lab.qemu_hosts(name) == []
    assert "AUTOMATION IS PAUSED" in site.dr("status")
    site.dr("resume")
    site.wait_running(name, on=["h2", "h3", "h4"])
    site.assert_once(name)


def test_labels_choose_guests_and_hosts(site: Site) -> None:
    """Labels are kept, shown, and choose the guests that a bulk command means."""
    web, db = site.fresh(2)
    site.start_guests({"h1": [web], "h2": [db]}, answering=False)
    site.dr("guest", "label", web, "tier=web")
    site.dr("host", "label", "h1", "rack=r1")
    assert site.dr("guest", "list", "-l", "tier=web", "-o", "name").split() == [web]
    assert site.dr("host", "list", "-l", "rack=r1", "-o", "name").split() == ["h1"]
    site.dr("guest", "stop", "-l", "tier=web", "--mode", "destroy", "--yes")
    assert (site.guests()[web]["phase"], site.guests()[db]["phase"]) == ("stopped", "running")
    assert site.lab.qemu_hosts(web) == []
    site.dr("guest", "label", web, "tier-")
    site.dr("host", "label", "h1", "rack-")
    assert site.guests()[web]["labels"] == {}
