"""Disks that only one host has, of guests that are off: they move by stop, copy and start, or while off anyway.

The agents copy the image files themselves. Each guest keeps its disk log on such an image: what arrived is told by the
log itself, every record of every boot, in order.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from integration.lab.guests import image_report
from integration.lab.proc import wait_for
from integration.site import Site
from integration.test_failover import SITE
from integration.test_local_disks import (
    assert_runs_with_its_disk,
    digest,
    guest_on_h1,
    image_on,
    names_of,
    wait_clean,
    wait_taken,
)
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers


def relocate(site: Site, name: str, to: str = "h3", *more: str) -> None:
    site.dr("guest", "relocate", name, "--to", to, "--mode", "destroy", "--yes", *more, timeout_s=200)


def begin_slowly(site: Site, name: str, to: str = "h3") -> None:
    """So that copying takes some 25 s; returns in the middle."""
    site.dr("guest", "set", name, "--move-bandwidth", "1")
    relocate(site, name, to, "--no-wait")

    def under_way() -> bool:
        moves = [move for job in jobs(site) for move in site.dr_json("job", "show", job)["item"]["moves"]]
        return any(move["stage"] == "sending" and (move["done_pct"] or 0) >= 10 for move in moves)

    wait_for(under_way, 60, f"the disk of {name} to be on its way", interval_s=0.2)


def jobs(site: Site) -> list[str]:
    return [job["id"] for job in site.dr_json("job", "list")["items"] if job["state"] == "open"]


def assert_arrived(site: Site, name: str, host: str = "h3", boots: int = 2) -> None:
    """It started there from all that it had ever written, and nothing but an old image is left on h1."""
    site.wait_running(name, on=[host], timeout_s=120)
    answer = site.lab.guest(name).wait_answering(60)
    assert_runs_with_its_disk(site, name, answer.boot, host, boots=boots)
    wait_clean(site, name, "h1")
    assert len(names_of(site, name, "h1")) == 1


def assert_back_at_home(site: Site, name: str, boots: int = 2) -> None:
    """It runs again where it was, from its own disk; nothing is left where it was to go."""
    site.wait_running(name, on=["h1"], timeout_s=120)
    answer = site.lab.guest(name).wait_answering(60)
    assert_runs_with_its_disk(site, name, answer.boot, "h1", boots=boots)
    wait_clean(site, name, "h3")
    assert names_of(site, name, "h3") == []


def test_it_is_stopped_copied_and_started(site: Site) -> None:
    """And back again."""
    name, _ = guest_on_h1(site, "qcow2")
    dry = site.dr("guest", "relocate", name, "--to", "h3", "--dry-run")
    assert "stopped, then to h3" in dry
    assert f"MiB in {site.lab.guest(name).image_path}) is copied to h3" in dry
    relocate(site, name)
    assert_arrived(site, name)
    relocate(site, name, "h1")
    site.wait_running(name, on=["h1"], timeout_s=120)
    answer = site.lab.guest(name).wait_answering(60)
    assert_runs_with_its_disk(site, name, answer.boot, "h1", boots=3)
    wait_clean(site, name, "h3")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_the_disk_of_a_guest_that_is_off_arrives_bit_identical(site: Site, form: str) -> None:
    """It stays off; what arrives takes no more room than it did; and from it the guest starts."""
    name, _ = guest_on_h1(site, form)
    site.dr("guest", "stop", name, "--mode", "destroy", "--yes")
    here, there = image_on(site, name, "h1"), image_on(site, name, "h3")
    before = digest(here)
    site.dr("guest", "relocate", name, "--to", "h3", "--yes", timeout_s=120)
    item = site.guests()[name]
    assert (item["phase"], site.lab.qemu_hosts(name)) == ("stopped", [])
    assert digest(there) == digest(here) == before
    assert there.read_bytes() == here.read_bytes()
    assert there.stat().st_blocks <= here.stat().st_blocks * 1.1 + 64
    site.dr("guest", "start", name)
    assert_arrived(site, name)
    (old,) = site.lab.guest(name).images("h1")
    assert not image_report(old).evidence


@pytest.mark.parametrize("killed", ["h1", "h3"])
def test_an_agent_is_killed_in_the_middle(site: Site, killed: str) -> None:
    """Either end: the copy goes on where it was, and what had arrived is not sent again."""
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.lab.host(killed).kill_service("agent")
    site.dr("guest", "set", name, "--move-bandwidth", "0")
    assert_arrived(site, name)
    told = [event["text"] for event in site.timeline() if "there already" in event["text"]]
    sent = [text for text in told if text.startswith(f"{name}: ")][-1]
    print(sent)
    assert ", 0 MiB were there already" not in sent


def test_the_coordinator_is_killed_in_the_middle(site: Site) -> None:
    """The agents go on; the next leader asks them, and starts the guest where its disk has arrived.

    Meanwhile the image is locked as QEMU locks it: also without the hook nothing writes to it while it is read.
    """
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    image = site.lab.guest(name).image_path
    write = site.lab.host("h1").exec(["qemu-io", "-f", "raw", "-c", "write 0 512", image], check=False)
    assert "lock" in write.stdout + write.stderr
    site.lab.ctl.kill_service("coordinator")
    site.wait(site.leads, 30, "the next leader")
    assert_arrived(site, name)


def test_the_network_breaks_in_the_middle(site: Site) -> None:
    """For less than both ends wait: the copy goes on over a new connection."""
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.lab.faults.link_down("h3", "stor")
    time.sleep(15)
    site.lab.faults.link_up("h3", "stor")
    assert_arrived(site, name)


def test_the_source_dies_in_the_middle(site: Site) -> None:
    """Nobody starts it from half a disk; when its host is back it starts there."""
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.lab.host("h1").power_off()
    time.sleep(10)
    assert site.lab.qemu_hosts(name) == []
    site.lab.host("h1").power_on()
    assert_back_at_home(site, name)


def test_the_destination_dies_in_the_middle(site: Site) -> None:
    """The guest starts again where its disk is, as soon as that is proven; what lies there is removed later."""
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.lab.host("h3").power_off()
    site.wait_running(name, on=["h1"], timeout_s=40)
    site.lab.host("h3").power_on()
    assert_back_at_home(site, name)


def test_the_disk_of_the_destination_is_full(site: Site) -> None:
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.lab.faults.disk_full("h3")
    try:
        site.wait_running(name, on=["h1"], timeout_s=120)
    finally:
        site.lab.faults.disk_free("h3")
    assert_back_at_home(site, name)
    wait_taken(site, name, "h3")


def test_it_is_called_off_in_the_middle(site: Site) -> None:
    name, _ = guest_on_h1(site)
    begin_slowly(site, name)
    site.dr("guest", "cancel-move", name)
    assert_back_at_home(site, name)


def test_a_file_of_that_name_is_not_touched(site: Site) -> None:
    name, _ = guest_on_h1(site)
    there: Path = image_on(site, name, "h3")
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(b"somebody's only copy")
    failed = run(site, "guest", "relocate", name, "--to", "h3", "--mode", "destroy", "--yes")
    assert failed.returncode == 1
    assert (
        f"there is a file {site.lab.guest(name).image_path} on this host already"
        in failed.stdout + failed.stderr
    )
    site.wait_running(name, on=["h1"], timeout_s=60)
    answer = site.lab.guest(name).wait_answering(60)
    assert_runs_with_its_disk(site, name, answer.boot, "h1", boots=2)
    assert there.read_bytes() == b"somebody's only copy"
    there.unlink()
