"""Guests whose disks only their own hosts have: moved live with them, and started nowhere else.

Each guest keeps its disk log on an image of its host, so what arrived is told by the log itself: every record of the
one boot, in order, also those written while the image was copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from integration.lab import proc
from integration.lab.guests import IMAGES, image_report
from integration.lab.proc import wait_for
from integration.site import DR, ENV, Site
from integration.test_failover import SITE
from integration.test_migration import is_defined, slow, wait_copying
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers

FILLED_MIB = 24  # of each image, so that copying it takes seconds
BASE_MIB = 256  # of which all but the place of the guests' logs is filled


def guest_on_h1(site: Site, form: str = "raw", *, slowly: bool = False) -> tuple[str, str]:
    """A protected guest on h1 with a local disk of that form, half full: its name, and its boot's id."""
    (name,) = site.fresh(1)
    guest = site.lab.define_guest(name, "h1", busy=True, local=form)
    write = f"write -q -P 0x5a 32M {FILLED_MIB}M"
    site.lab.host("h1").exec(["qemu-io", "-f", form, "-c", write, guest.image_path])
    guest.start("h1")
    boot = guest.wait_answering(60).boot
    site.wait(lambda: name in site.guests(), 30, f"{name} to be reported")
    site.dr("guest", "protect", name, "--local-disks")
    if slowly:
        slow(site, name)
    return name, boot


def names_of(site: Site, name: str, host: str) -> list[str]:
    return [file.name for file in site.lab.guest(name).images(host)]


def image_on(site: Site, name: str, host: str) -> Path:
    return site.lab.host(host).directory / f"disk{IMAGES}/{name}.img"


def wait_clean(site: Site, name: str, host: str) -> None:
    """Until nothing of it is left there but old images under other names."""

    def clean() -> bool:
        plain = [file for file in names_of(site, name, host) if ".old-" not in file]
        return not plain and not is_defined(site, name, host) and not site.lab.guest(name).state_on(host)

    site.wait(clean, 60, f"{host} to be clean of {name}")


def wait_taken(site: Site, name: str, host: str) -> None:
    """Until that host would take it: its agent says for some time that it cannot write, after its disk was full."""
    would = ("guest", "migrate", name, "--to", host, "--dry-run")
    site.wait(lambda: run(site, *would).returncode == 0, 90, f"{host} to take {name}")


def assert_runs_with_its_disk(site: Site, name: str, boot: str, host: str, boots: int = 1) -> None:
    """That boot of it answers on that host, and its image there has every record, in order."""
    site.wait_running(name, on=[host])
    guest = site.lab.guest(name)
    wait_for(lambda: site.lab.qemu_hosts(name) == [host], 15, f"one QEMU of {name}, on {host}")
    answer = guest.wait_answering(30)
    assert answer.boot == boot
    assert (answer.conflicts, answer.disk_error) == (0, 0)
    seen = answer.counter
    wait_for(lambda: guest.http().counter > seen + 3, 20, f"{name} to write on")
    report = guest.local_report(host)
    assert not report.evidence, report
    assert len(report.boots) == boots
    assert report.boots[-1].boot == boot
    assert report.records >= seen


def digest(file: Path) -> str:
    """Of what the guest sees of it."""
    raw = file.with_name(f"{file.name}.raw")
    proc.run(["qemu-img", "convert", "-U", "-O", "raw", str(file), str(raw)])
    try:
        return hashlib.sha256(raw.read_bytes()).hexdigest()
    finally:
        raw.unlink()


def test_it_moves_with_its_disk_and_comes_back(site: Site) -> None:
    """It writes all the while; where it was, its image is out of the way, and nothing of it is defined."""
    name, boot = guest_on_h1(site)
    with site.lab.poller([name]) as poller:
        site.dr("guest", "migrate", name, "--to", "h3")
        assert_runs_with_its_disk(site, name, boot, "h3")
        wait_clean(site, name, "h1")
        site.dr("guest", "migrate", name, "--to", "h1")
        assert_runs_with_its_disk(site, name, boot, "h1")
        wait_clean(site, name, "h3")
        gaps = [gap.length_s for gap in poller.outages()[name]]
    print(f"outages: {gaps}")
    assert all(gap is not None and gap < 5 for gap in gaps), gaps
    assert len(names_of(site, name, "h1")) == 2  # its own, and the old one
    assert len(names_of(site, name, "h3")) == 1
    (old,) = site.lab.guest(name).images("h3")
    assert not image_report(old).evidence


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_arrives_bit_identical(site: Site, form: str) -> None:
    """Of a guest that stands still all the while: what was set aside and what arrived are the same."""
    name, boot = guest_on_h1(site, form)
    site.lab.host("h1").exec(["virsh", "-q", "suspend", name])
    before = digest(image_on(site, name, "h1"))
    site.dr("guest", "migrate", name, "--to", "h3")
    wait_clean(site, name, "h1")
    (old,) = site.lab.guest(name).images("h1")
    assert digest(old) == before
    assert digest(image_on(site, name, "h3")) == before
    compare = ["qemu-img", "compare", "-U", "-f", form, "-F", form, str(old), str(image_on(site, name, "h3"))]
    assert "identical" in proc.run(compare).stdout
    site.lab.host("h3").exec(["virsh", "-q", "resume", name])
    assert_runs_with_its_disk(site, name, boot, "h3")


def test_shared_disks_of_it_are_not_copied(site: Site) -> None:
    """It keeps its log on the storage server, and has one disk of its host's own beside that."""
    (name,) = site.fresh(1)
    guest = site.lab.define_guest(name, "h1", busy=True)
    host = site.lab.host("h1")
    guest.make_image("h1", "raw")
    host.exec(["qemu-io", "-f", "raw", "-c", f"write -q -P 0x5a 0 {FILLED_MIB}M", guest.image_path])
    attach = ["virsh", "-q", "attach-disk", name, guest.image_path, "vdb", "--config"]
    host.exec([*attach, "--driver", "qemu", "--subdriver", "raw", "--cache", "none", "--sourcetype", "file"])
    guest.start("h1")
    boot = guest.wait_answering(60).boot
    site.wait(lambda: name in site.guests(), 30, f"{name} to be reported")
    site.dr("guest", "protect", name, "--local-disks")
    before = digest(image_on(site, name, "h1"))
    site.dr("guest", "migrate", name, "--to", "h3")
    wait_clean(site, name, "h1")
    assert digest(image_on(site, name, "h3")) == before
    site.wait_running(name, on=["h3"])
    assert guest.wait_answering(30).boot == boot
    site.assert_once(name)


def test_an_old_disk_is_removed_only_if_asked(site: Site) -> None:
    name, boot = guest_on_h1(site)
    site.dr("guest", "set", name, "--remove-old-disks")
    site.dr("guest", "migrate", name, "--to", "h3")
    assert_runs_with_its_disk(site, name, boot, "h3")
    wait_clean(site, name, "h1")
    assert names_of(site, name, "h1") == []


def test_it_is_protected_only_if_somebody_agrees(site: Site) -> None:
    (name,) = site.fresh(1)
    guest = site.lab.define_guest(name, "h1", start=True, local="raw")
    guest.wait_answering(60)
    site.wait(lambda: name in site.guests(), 30, f"{name} to be reported")
    refused = run(site, "guest", "protect", name)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert f"disk vda is {IMAGES}/{name}.img, on a file system that only its host has" in said
    assert not site.guests()[name]["protected"]


def test_a_file_of_that_name_at_the_destination_is_not_touched(site: Site) -> None:
    name, boot = guest_on_h1(site)
    image_on(site, name, "h3").parent.mkdir(parents=True, exist_ok=True)
    image_on(site, name, "h3").write_bytes(b"somebody's only copy")
    failed = run(site, "guest", "migrate", name, "--to", "h3")
    assert failed.returncode == 1
    assert f"there is a file {IMAGES}/{name}.img on this host already" in failed.stdout + failed.stderr
    assert_runs_with_its_disk(site, name, boot, "h1")
    assert image_on(site, name, "h3").read_bytes() == b"somebody's only copy"


def test_its_host_dies(site: Site) -> None:
    """Nobody else starts it, nobody is fenced for it; when its host is back it starts there, from its own disk."""
    name, boot = guest_on_h1(site)
    site.lab.host("h1").power_off()
    site.wait(lambda: site.guests()[name]["phase"] != "running", 30, "its end to be noticed")
    site.lab.host("h1").power_on()
    site.wait_running(name, on=["h1"], timeout_s=120)
    again = site.lab.guest(name).wait_answering(60)
    assert again.boot != boot
    assert_runs_with_its_disk(site, name, again.boot, "h1", boots=2)
    assert not site.lately("fence")


def test_the_source_dies_over_the_copy(site: Site) -> None:
    """What arrived so far is worth nothing: the guest waits for its host, and the images made for it are removed."""
    name, _ = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.host("h1").power_off()
    site.wait(lambda: names_of(site, name, "h3") == [], 120, "the half copy to be removed")
    assert site.lab.qemu_hosts(name) == []
    site.lab.host("h1").power_on()
    site.wait_running(name, on=["h1"], timeout_s=120)
    again = site.lab.guest(name).wait_answering(60)
    assert_runs_with_its_disk(site, name, again.boot, "h1", boots=2)


def test_the_destination_dies_over_the_copy(site: Site) -> None:
    """The guest goes on; what lies there is removed as soon as that host is back."""
    name, boot = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.host("h3").power_off()
    assert_runs_with_its_disk(site, name, boot, "h1")
    assert names_of(site, name, "h3") == [f"{name}.img"]
    site.lab.host("h3").power_on()
    wait_clean(site, name, "h3")
    assert names_of(site, name, "h3") == []
    assert_runs_with_its_disk(site, name, boot, "h1")


def test_the_disk_of_the_destination_is_full(site: Site) -> None:
    """The copy fails in the middle, the guest goes on, and nothing is left there once its agent can write again."""
    name, boot = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.faults.disk_full("h3")
    site.wait(lambda: any("is undone" in note["text"] for note in site.lately("guest.move")), 60, "its end")
    answer = site.lab.guest(name).wait_answering(30)
    assert (answer.boot, site.lab.guest(name).state_on("h1")) == (boot, "running")
    # Without a free block the agent there has nothing durable to say, so that the copy is gone is proven only now.
    site.lab.faults.disk_free("h3")
    assert_runs_with_its_disk(site, name, boot, "h1")
    wait_clean(site, name, "h3")
    assert names_of(site, name, "h3") == []
    assert_runs_with_its_disk(site, name, boot, "h1")
    wait_taken(site, name, "h3")
    site.dr("guest", "migrate", name, "--to", "h3", timeout_s=120)
    assert_runs_with_its_disk(site, name, boot, "h3")


def test_no_room_is_told_before(site: Site) -> None:
    """A host whose disk is full is refused by the pre-flight, and another one is chosen."""
    name, boot = guest_on_h1(site)
    site.lab.faults.disk_full("h3")
    try:

        def told() -> bool:
            dry = run(site, "guest", "migrate", name, "--to", "h3", "--dry-run", "-o", "json")
            checks = json.loads(dry.stdout)["guests"][0]["checks"] if dry.stdout else []
            return any(c["name"] == "disks" and "MiB free in" in c["text"] for c in checks)

        site.wait(told, 60, "the pre-flight to see that")
    finally:
        site.lab.faults.disk_free("h3")
    wait_taken(site, name, "h3")
    assert_runs_with_its_disk(site, name, boot, "h1")


def test_the_agent_of_the_destination_is_killed_over_the_copy(site: Site) -> None:
    """The job goes on without it, and the guest arrives with its disk."""
    name, boot = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.host("h3").kill_service("agent")
    site.wait(lambda: site.guests()[name]["phase"] == "running", 120, f"{name} to settle")
    (host,) = site.lab.qemu_hosts(name)
    assert_runs_with_its_disk(site, name, boot, host)
    for other in {"h1", "h3"} - {host}:
        wait_clean(site, name, other)


def test_called_off_in_the_middle(site: Site) -> None:
    name, boot = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.ctl.exec([DR, "guest", "cancel-move", name], env=ENV, check=False)
    assert_runs_with_its_disk(site, name, boot, "h1")
    wait_clean(site, name, "h3")
    assert names_of(site, name, "h3") == []


def test_the_migration_network_is_cut_over_the_copy(site: Site) -> None:
    """Both hosts live, and not a byte gets through: it is given up long before TCP would, and the guest goes on."""
    name, boot = guest_on_h1(site, slowly=True)
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    site.lab.faults.link_down("h3", "stor")
    began = time.monotonic()
    site.wait_running(name, on=["h1"], timeout_s=200)
    print(f"given up after {time.monotonic() - began:.0f} s")
    site.lab.faults.link_up("h3", "stor")
    assert_runs_with_its_disk(site, name, boot, "h1")
    wait_clean(site, name, "h3")
    assert names_of(site, name, "h3") == []


# ---- images on a base that other hosts have


def make_base(site: Site, name: str, *others: str) -> str:
    """An image that is not empty, on h1, and the same on those hosts: its path."""
    path = f"{IMAGES}/golden-{name}.qcow2"
    for each in ("h1", *others):
        site.lab.host(each).exec(["mkdir", "-p", IMAGES])
    make = ["qemu-img", "create", "-q", "-f", "qcow2", path, f"{BASE_MIB}M"]
    site.lab.host("h1").exec(make)
    write = f"write -q -P 0x5a 32M {BASE_MIB - 32}M"
    site.lab.host("h1").exec(["qemu-io", "-f", "qcow2", "-c", write, path])
    for each in others:
        shutil.copyfile(on_host(site, path, "h1"), on_host(site, path, each))
    for each in ("h1", *others):  # what changed just now is not read before it has settled
        os.utime(on_host(site, path, each), (time.time() - 3600,) * 2)
    return path


def on_host(site: Site, path: str, host: str) -> Path:
    return site.lab.host(host).directory / f"disk{path}"


def test_of_an_image_on_a_base_only_what_is_its_own_is_copied(site: Site) -> None:
    """Where the same base is; a host without it is refused. There and back, live and by stop and start."""
    (name,) = site.fresh(1)
    base = make_base(site, name, "h3")
    content = {host: on_host(site, base, host).read_bytes() for host in ("h1", "h3")}
    guest = site.lab.define_guest(name, "h1", busy=True, local="qcow2", base=base)
    guest.start("h1")
    boot = guest.wait_answering(60).boot
    site.wait(lambda: name in site.guests(), 30, f"{name} to be reported")
    site.dr("guest", "protect", name, "--local-disks")
    wait_taken(site, name, "h3")

    refused = run(site, "guest", "migrate", name, "--to", "h2")
    assert refused.returncode != 0
    assert f"h2 has no {base} with the same content as on h1" in refused.stdout + refused.stderr
    assert names_of(site, name, "h2") == []

    site.dr("guest", "migrate", name, "--to", "h3")
    assert_runs_with_its_disk(site, name, boot, "h3")
    wait_clean(site, name, "h1")
    told = site.lab.host("h3").exec(["qemu-img", "info", "-U", "--output=json", guest.image_path])
    info = json.loads(told.stdout)
    assert (info["full-backing-filename"], info["backing-filename-format"]) == (base, "qcow2")
    assert info["actual-size"] < 16 << 20
    (sent,) = [event for event in site.lately("guest.sent") if name in event["text"]]
    sent_mib = re.search(r"(\d+) MiB sent", sent["text"])
    assert sent_mib is not None, sent
    assert int(sent_mib[1]) < BASE_MIB - 64, "its memory and what is its own, not the base"

    wait_taken(site, name, "h1")
    site.dr("guest", "relocate", name, "--to", "h1", "--mode", "destroy", "--yes", timeout_s=120)
    site.wait_running(name, on=["h1"], timeout_s=120)
    again = guest.wait_answering(60)
    assert again.boot != boot
    assert_runs_with_its_disk(site, name, again.boot, "h1", boots=2)
    wait_clean(site, name, "h3")
    for host, before in content.items():
        assert on_host(site, base, host).read_bytes() == before, f"the base on {host} was touched"
