"""Planned maintenance of real hosts: a host is emptied live, told beforehand, and put back in use; nothing is stopped.

Guests here are as in test_migration.
"""

from __future__ import annotations

import json
from typing import Any

from integration.site import Site
from integration.test_failover import SETTINGS, SITE
from integration.test_migration import assert_runs_on, slow, wait_copying
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers

DEGRADED = 3  # exit code: the host would not get empty
USAGE = 2


def two_on_h1(site: Site) -> dict[str, str]:
    """Protected guests that run on h1, with their boots' ids."""
    names = site.fresh(2)
    site.start_guests({"h1": names}, busy=True)
    return {name: site.lab.guest(name).http().boot for name in names}


def foretold(site: Site) -> tuple[int, dict[str, dict[str, Any]]]:
    """What a dry run says of h1's guests, and its exit code."""
    dry = run(site, "host", "drain", "h1", "--dry-run", "-o", "json")
    return dry.returncode, {each["name"]: each for each in json.loads(dry.stdout)["guests"]}


def test_a_host_is_emptied_live_and_put_back(site: Site) -> None:
    guests = two_on_h1(site)
    code, told = foretold(site)
    assert code == 0
    assert {each["fate"] for each in told.values()} == {"live"}
    assert len({each["to"] for each in told.values()}) == 2, "to two hosts"
    assert site.hosts()["h1"]["phase"] == "online"
    with site.lab.poller(list(guests)) as poller:
        site.dr("host", "drain", "h1", "--reason", "new DIMM", timeout_s=120)
        assert site.hosts()["h1"]["phase"] == "maintenance"
        for name, boot in guests.items():
            assert_runs_on(site, name, boot, told[name]["to"])
        gaps = {name: [gap.length_s for gap in poller.outages()[name]] for name in guests}
    print(f"outages: {gaps}")
    assert all(gap is not None and gap < 5 for each in gaps.values() for gap in each), gaps
    (job,) = [job for job in site.get("/v1/operations")["items"] if job["op"] == "drain"][-1:]
    assert job["state"] == "done"
    assert {job["guest_names"][key]: text for key, text in job["guests"].items()} == {
        name: f"runs on {told[name]['to']}" for name in guests
    }
    print(f"drained in {job['duration_s']:.1f} s")
    assert not site.lab.host("h1").exec(["virsh", "-q", "list", "--all", "--name"]).stdout.split()
    site.dr("host", "undrain", "h1")
    site.wait(site.all_online, 30, "h1 to count again")
    for name, boot in guests.items():
        assert_runs_on(site, name, boot, told[name]["to"])
    assert not site.alerts()


def test_a_drain_whose_destination_is_off(site: Site) -> None:
    """They run on where they are, and it is said why and what would help; when their destination is back they go."""
    guests = two_on_h1(site)
    for host in ("h3", "h4"):
        site.dr("host", "cordon", host)
    site.lab.host("h2").power_off()
    site.wait(lambda: site.hosts()["h2"]["phase"] == "fenced", 60, "h2 to be proven off")
    code, told = foretold(site)
    assert code == DEGRADED
    for each in told.values():
        assert each["fate"] == "blocked"
        assert {"dr host uncordon h3", "dr host uncordon h4", "bring h2 back: dr host show h2"} <= {
            *each["todo"]
        }
    site.dr("host", "drain", "h1", "--no-wait")
    site.wait(lambda: site.hosts()["h1"]["phase"] == "draining", 10, "the drain to begin")
    assert all(name in site.hosts()["h1"]["reason"] for name in guests)
    for name, boot in guests.items():
        assert_runs_on_while_h2_is_off(site, name, boot)
    site.lab.host("h2").power_on()
    site.wait(lambda: site.hosts()["h1"]["phase"] == "maintenance", 120, "h1 to be empty")
    for name, boot in guests.items():
        assert_runs_on(site, name, boot, "h2")


def test_a_drain_whose_destination_dies_in_the_middle(site: Site) -> None:
    """Its move is undone as soon as it is proven off, and the guest goes to a host that is left, still in one piece."""
    guests = two_on_h1(site)
    for name in guests:
        slow(site, name)
    (doomed,) = [name for name, each in foretold(site)[1].items() if each["to"] == "h3"]
    site.dr("host", "drain", "h1", "--no-wait")
    wait_copying(site, doomed)
    site.lab.host("h3").power_off()
    site.wait(lambda: site.hosts()["h1"]["phase"] == "maintenance", 150, "h1 to be empty")
    site.lab.host("h3").power_on()
    site.wait(lambda: site.hosts()["h3"]["phase"] == "online", 90, "h3 to be back")
    site.wait_running(*guests, on=["h2", "h4"])
    for name, boot in guests.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])


def test_a_drain_with_a_deadline_ends_in_time(site: Site) -> None:
    """Who is quick leaves live; who would be late is shut down before the deadline, and starts elsewhere."""
    quick, late = site.fresh(2)
    site.start_guests({"h1": [quick, late]})
    boot, before = site.lab.guest(quick).http().boot, site.lab.guest(late).http().boot
    site.dr("guest", "set", late, "--move-bandwidth", "1")
    refused = run(site, "host", "drain", "h1", "--deadline", "soon")
    assert refused.returncode == USAGE
    site.dr("host", "drain", "h1", "--deadline", "60s", "--yes", "--no-wait")
    site.wait(lambda: site.hosts()["h1"]["phase"] == "maintenance", 60, "h1 to be empty")
    assert not site.lab.host("h1").exec(["virsh", "-q", "list", "--name"]).stdout.split()
    assert_runs_on(site, quick, boot, site.guests()[quick]["host"])
    site.wait_running(late, on=["h2", "h3", "h4"])
    answer = site.lab.guest(late).wait_answering(60)
    assert answer.boot != before
    assert answer.conflicts == 0
    site.assert_once(late)


def test_eight_guests_of_one_host_go_to_two(site: Site) -> None:
    """And back to the one; and again while one of the two dies in the middle."""
    site.dr("host", "cordon", "h4")
    names = site.fresh(8)
    site.start_guests({"h1": names}, busy=True)
    boots = {name: site.lab.guest(name).http().boot for name in names}
    site.dr("host", "drain", "h1", timeout_s=180)
    on = {name: site.guests()[name]["host"] for name in names}
    assert sorted(on.values()) == ["h2"] * 4 + ["h3"] * 4
    for name, boot in boots.items():
        assert_runs_on(site, name, boot, on[name])
    site.dr("host", "undrain", "h1")
    site.wait(site.all_online, 30, "h1 to count again")
    for host in ("h2", "h3"):
        site.dr("host", "drain", host, timeout_s=180)
    site.wait_running(*names, on=["h1"])
    for host in ("h2", "h3"):
        site.dr("host", "undrain", host)
    site.wait(site.all_online, 30, "h2 and h3 to count again")
    for name in names:
        slow(site, name)
    site.dr("host", "drain", "h1", "--no-wait")
    site.wait(lambda: any("h3" in site.lab.qemu_hosts(name) for name in names), 30, "h3 to receive one")
    site.lab.host("h3").power_off()
    site.wait(lambda: site.hosts()["h1"]["phase"] == "maintenance", 400, "h1 to be empty")
    site.lab.host("h3").power_on()
    site.wait(lambda: site.hosts()["h3"]["phase"] == "online", 90, "h3 to be back")
    site.wait_running(*names, on=["h2", "h3"])
    for name, boot in boots.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])


# What the link of each host carries, and what the guest makes dirty: between a quarter and half of it.
# Well between: QEMU's sampling of a small guest's pages is some 12 % off, and more where they are fewer.
SLOW_MIB_S, DIRTY_MIB_S = 30, 11


def test_a_guest_that_needs_its_link_alone_has_it(site: Site) -> None:
    """With another beside it, it would have to be slowed down, as it was measured; alone it needs no such thing."""
    busy, quiet = site.fresh(2)
    filled = "dr.fill=64 dr.dirtysize=60"
    site.start_guests({"h1": [busy]}, busy=True, mem_mib=224, dirty_mib_s=DIRTY_MIB_S, kernel_args=filled)
    site.start_guests({"h1": [quiet]}, busy=True)
    boots = {name: site.lab.guest(name).http().boot for name in (busy, quiet)}
    site.configure(SETTINGS.replace("limits: {", f"limits: {{migration_mib_s: {SLOW_MIB_S}, "))
    for host in site.lab.host_names:
        site.lab.faults.slow(host, "stor", SLOW_MIB_S)

    def measured() -> bool:
        dry = json.loads(run(site, "host", "drain", "h1", "--dry-run", "-o", "json").stdout)
        return not any("not measured" in each for each in dry["forecast"]["rests_on"])

    site.wait(measured, 120, "both to be measured", every_s=1.0)
    told = foretold(site)[1]
    print({name: (each["rung"], each["begins_s"], each["ends_s"]) for name, each in told.items()})
    assert told[quiet]["begins_s"] == told[busy]["ends_s"]
    site.dr("host", "drain", "h1", timeout_s=180)
    notes = {(note["topic"], note["guest_name"]): note for note in site.timeline()}
    assert notes["guest.migrating", quiet]["wall"] >= notes["guest.running", busy]["wall"]
    assert "plain as foreseen" in notes["guest.running", busy]["text"]
    for host in site.lab.host_names:
        site.lab.faults.fast(host, "stor")
    for name, boot in boots.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])


def assert_runs_on_while_h2_is_off(site: Site, name: str, boot: str) -> None:
    site.wait_running(name, on=["h1"])
    assert site.lab.guest(name).http().boot == boot
    site.assert_once(name)


MACHINE_CHECK = 1 << 4  # of /proc/sys/kernel/tainted: the processor reported a hardware error


def test_a_host_whose_hardware_fails_is_emptied_by_itself(site: Site) -> None:
    """A machine check, as its kernel tells it: nobody asks, and no guest stops."""
    site.configure(f"{SETTINGS}on_critical: evacuate\n")
    guests = two_on_h1(site)
    host, tainted = site.lab.host("h1"), "/proc/sys/kernel/tainted"
    before = int(host.exec(["cat", tainted]).stdout)
    host.exec(
        ["sh", "-c", f"echo {before | MACHINE_CHECK} > /run/tainted; mount --bind /run/tainted {tainted}"]
    )
    try:
        site.wait(lambda: site.hosts()["h1"]["phase"] == "maintenance", 180, "h1 to be empty")
        assert _fails(site, "h1")
        assert "the processor reported a machine check" in site.hosts()["h1"]["reason"]
        for name, boot in guests.items():
            (to,) = site.lab.qemu_hosts(name)
            assert to != "h1"
            assert_runs_on(site, name, boot, to)
    finally:
        host.exec(["umount", tainted])
    site.wait(lambda: not _fails(site, "h1"), 90, "h1 to be well again")
    site.dr("host", "undrain", "h1")
    site.wait(site.all_online, 30, "h1 to count again")


def _fails(site: Site, host: str) -> bool:
    shown = json.loads(site.dr("host", "show", host, "-o", "json"))["item"]
    return any(each["part"] == "kernel" and each["level"] == "critical" for each in shown["readings"])
