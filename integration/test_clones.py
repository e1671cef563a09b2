"""Clones of running guests: what an agent makes of them on its host, and that nothing of it is left, or gets out.

The adapter of the agent runs in a process of its own here (clones_door.py), so that it can be asked for one thing at a
time, and be killed; the host's real agent runs beside it, and is the successor that finds what was left.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dr.adapters.clones.bubble import Bubble
from dr.ports.clones import CloneError
from integration.lab import netns, proc
from integration.lab.guests import image_report, qemu_pids
from integration.lab.layout import guest_mac
from integration.lab.proc import wait_for
from integration.site import ENV, Site
from integration.test_failover import SITE

__all__ = ["SITE"]  # the same site as that of the failovers

DOOR = str(Path(__file__).with_name("clones_door.py"))
FOLDER = "/var/lib/dr/clones"
FILLED_MIB = 24  # of a disk, so that copying it over a slow cable takes seconds


class Clones:
    """The adapter, in a process of its own on a host."""

    def __init__(self, site: Site, host: str) -> None:
        self.site, self.host = site, site.lab.host(host)
        pipe = subprocess.PIPE
        self._door = self.host.popen([sys.executable, DOOR, host], env=ENV, stdin=pipe, stdout=pipe)
        assert self._door.stdout is not None
        inner = json.loads(self._door.stdout.readline())
        found = self.host.outer_pid(inner)
        assert found is not None
        self.pid = found
        self._asked: dict[int, Future[Any]] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._door.stdout is not None
        for line in self._door.stdout:
            number, came, why = json.loads(line)
            asked = self._asked.pop(number)
            if why:
                asked.set_exception(Refused(why))
            else:
                asked.set_result(came)

    def begin(self, method: str, **given: Any) -> Future[Any]:
        """Ask, and do not wait."""
        number, future = len(self._asked) + time.monotonic_ns(), Future[Any]()
        self._asked[number] = future
        assert self._door.stdin is not None
        self._door.stdin.write(json.dumps([number, method, given]) + "\n")
        self._door.stdin.flush()
        return future

    def ask(self, method: str, **given: Any) -> Any:
        """What came. Raises Refused."""
        return self.begin(method, **given).result(90)

    def make(self, drill: str, name: str, *, disk_mib: int = 0, life_s: float = 600.0) -> Future[Any]:
        uuid = self.site.lab.guest(name).uuid
        return self.begin("make", drill=drill, guest=uuid, name=name, disk_mib=disk_mib, life_s=life_s)

    def boot(self, drill: str, name: str) -> None:
        guest = self.site.lab.guest(name)
        address = f"{guest.address.rpartition('.')[0]}.250/24"
        self.ask("boot", drill=drill, guest=guest.uuid, address=address)

    def check(self, drill: str, name: str, kind: str, window_s: float = 40.0, **more: Any) -> str:
        guest = self.site.lab.guest(name)
        check = {"type": kind, **({} if kind == "running" else {"address": guest.address}), **more}
        result = self.ask("check", drill=drill, guest=guest.uuid, check=check, window_s=window_s)
        why: str = result.get("why", "")  # what is as by default is not told
        assert result["passed"] is not bool(why), result
        return why

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        self._door.wait(10)

    def close(self) -> None:
        if self._door.poll() is None:
            assert self._door.stdin is not None
            self._door.stdin.close()
            self._door.wait(30)

    # -- what there is of drills

    def spaces(self) -> list[Path]:
        """The network namespaces that the process holds, beside the host's own."""
        own = os.stat(f"/proc/{self.pid}/ns/net")
        found = []
        for file in Path(f"/proc/{self.pid}/fd").iterdir():
            if os.readlink(file).startswith("net:") and file.stat().st_ino != own.st_ino:
                found.append(file)
        return found


class Refused(Exception):
    """The adapter's words."""


def left(site: Site, host: str) -> list[str]:
    """Everything on a host that a drill makes there."""
    machine = site.lab.host(host)
    lines = machine.exec(["virsh", "-q", "list", "--all", "--uuid"]).stdout.split()
    found = [line for line in lines if line.startswith("dc10ed00-")]
    links = machine.exec(["ip", "-br", "link"]).stdout.splitlines()
    found += [line for line in links if line.startswith(("drt", "drb"))]
    found += machine.exec(["ip", "netns", "list"]).stdout.split()
    found += machine.exec(["sh", "-c", f"find {FOLDER} -mindepth 2 2>/dev/null; true"]).stdout.split()
    for pid in machine.cgroup.pids():
        try:
            if b"dc10ed00-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(f"process {pid}")
        except OSError:
            continue
    return found


def copied(site: Site, host: str, name: str) -> bool:
    """Whether libvirt copies its disks now."""
    return site.lab.host(host).exec(["virsh", "backup-dumpxml", name], check=False).returncode == 0


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def h1(site: Site) -> Iterator[Clones]:
    clones = Clones(site, "h1")
    yield clones
    clones.close()
    wait_for(lambda: not left(site, "h1"), 20, "h1 to be clean")


@contextmanager
def watched(spaces: dict[str, Path], mac: str) -> Iterator[dict[str, list[bytes]]]:
    """Every frame that has this address in it as its sender, on every device of these network namespaces."""
    wanted = bytes.fromhex(mac.replace(":", ""))
    seen: dict[str, list[bytes]] = {name: [] for name in spaces}
    sockets = {
        netns.open_socket(path, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)): name
        for name, path in spaces.items()
    }
    end = threading.Event()

    def listen() -> None:
        while not end.is_set():
            for each in select.select(list(sockets), [], [], 0.2)[0]:
                frame = each.recv(2048)
                if frame[6:12] == wanted:
                    seen[sockets[each]].append(frame)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()
        for each in sockets:
            each.close()


def test_a_clone_boots_and_does_its_work(site: Site, h1: Clones) -> None:
    """From the disks of a guest that writes all the while, which notices nothing; at its end all of it is gone."""
    shared, local = site.fresh(2)
    site.start_guests({"h1": [shared]})
    site.start_guests({"h1": [local]}, protect=False, local="qcow2")
    before = {name: qemu_pids(h1.host, name) for name in (shared, local)}
    boots = {name: site.lab.guest(name).http().boot for name in (shared, local)}
    with site.lab.poller([shared, local]) as poller:
        asked = {name: h1.make("d1", name) for name in (shared, local)}
        made = {name: future.result(60) for name, future in asked.items()}
        again = h1.make("d1", shared).result(10)
        assert again == made[shared]
        for name in (shared, local):
            image = h1.host.path(f"{FOLDER}/h1/d1/{site.lab.guest(name).uuid}/vda.qcow2")
            report = image_report(image)
            assert [each.boot for each in report.boots] == [boots[name]]
            assert not report.evidence, report
            h1.boot("d1", name)
            h1.boot("d1", name)
        for name in (shared, local):
            assert h1.check("d1", name, "running") == ""
            assert h1.check("d1", name, "ping") == ""
            assert h1.check("d1", name, "http", port=80, text=name) == ""
            assert "refuses" in h1.check("d1", name, "tcp", 1, port=81)
        known = site.guests()
        assert set(known) >= {shared, local}
        assert not [name for name in known if name.startswith("d1-")]
        end = h1.ask("end", drill="d1")
        gaps = [gap for name in (shared, local) for gap in poller.outages()[name]]
    assert not [gap for gap in gaps if gap.length_s is None or gap.length_s > 5], gaps
    assert left(site, "h1") == []
    assert h1.ask("end", drill="d1") == end
    assert [(each["name"], each["ok"]) for each in end["kept"]] == [(shared, True), (local, True)], end
    assert len(end["bubble"]["ports"]) == 2
    assert "strangers" not in end["bubble"]
    assert {name: qemu_pids(h1.host, name) for name in (shared, local)} == before
    site.assert_single_writer(shared)
    report = site.lab.guest(local).local_report("h1")
    assert not report.second_writer, report
    with pytest.raises(Refused, match="has ended"):
        h1.make("d1", shared).result(10)


def test_a_suspended_guest_has_the_same_disk_before_and_after(site: Site, h1: Clones) -> None:
    """It stands still all the while, bit for bit; and so is its copy, of either kind of disk."""
    shared, local = site.fresh(2)
    site.start_guests({"h1": [shared]})
    site.start_guests({"h1": [local]}, protect=False, local="raw")
    for name in (shared, local):
        h1.host.exec(["virsh", "-q", "suspend", name])
    disks = {
        shared: site.lab.guest(shared).disk,
        local: h1.host.directory / f"disk{site.lab.guest(local).image_path}",
    }
    before = {name: digest(disk) for name, disk in disks.items()}
    for name, disk in disks.items():
        h1.make("d1", name).result(60)
        image = h1.host.path(f"{FOLDER}/h1/d1/{site.lab.guest(name).uuid}/vda.qcow2")
        compare = ["qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", str(disk), str(image)]
        assert "identical" in proc.run(compare).stdout
    for name in disks:
        h1.boot("d1", name)
    for name in disks:
        assert h1.check("d1", name, "tcp", port=80) == ""
    end = h1.ask("end", drill="d1")
    assert all(each["ok"] for each in end["kept"]), end
    assert {name: digest(disk) for name, disk in disks.items()} == before
    for name in (shared, local):
        assert site.lab.guest(name).state_on("h1") == "paused"
        h1.host.exec(["virsh", "-q", "resume", name])
        assert site.lab.guest(name).wait_answering(30).conflicts == 0


def test_nothing_leaves_the_bubble(site: Site, h1: Clones) -> None:
    """A clone asks its whole network for a guest that runs beside it: that is heard in the bubble, and nowhere else."""
    name, neighbour = site.fresh(2)
    site.start_guests({"h1": [neighbour]})
    there = site.lab.guest(neighbour).address
    guest = site.lab.define_guest(name, "h1")
    words = guest.xml.split()
    xml = " ".join(
        f"dr.gw={there}" if word.startswith("dr.gw=") else word for word in words if "dr.gwmac=" not in word
    )
    guest.define_xml("h1", xml)
    guest.start("h1")
    layout = site.lab.layout
    spaces = {each: layout.netns_path(each) for each in ("h1", "h2", "switch")}
    with watched(spaces, guest_mac(name)) as heard:
        guest.wait_answering(30)
    assert heard["h1"], "the ears are deaf"
    assert heard["switch"], "the ears are deaf"
    h1.host.exec(["virsh", "-q", "suspend", name])  # from now on a frame of that sender is its clone's
    h1.make("d1", name).result(60)
    with watched(spaces, guest_mac(name)) as outside:
        h1.boot("d1", name)
        (bubble,) = h1.spaces()
        with watched({"bubble": bubble}, guest_mac(name)) as inside:
            assert h1.check("d1", name, "tcp", port=80) == ""
            with netns.open_socket(bubble, socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect((guest.address, 80))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.0 200")
    assert inside["bubble"]
    asked = [frame for frame in inside["bubble"] if frame[12:14] == b"\x08\x06" and frame[:6] == b"\xff" * 6]
    assert any(frame[38:42] == socket.inet_aton(there) for frame in asked), "it did not ask for its neighbour"
    assert {where: len(frames) for where, frames in outside.items()} == {"h1": 0, "h2": 0, "switch": 0}
    end = h1.ask("end", drill="d1")
    assert "strangers" not in end["bubble"]
    assert left(site, "h1") == []


def test_addresses_in_a_bubble() -> None:
    """Either family; none that `ip` could take for more than an address; and nothing works once it has ended."""
    bubble = Bubble("drbtest")
    try:
        for address in ("10.0.0.1/24", "fd00:1::1/64", ""):
            bubble.require_address(address)
        for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00:1::1")):
            with bubble.socket(family, socket.SOCK_STREAM, 0) as sock:
                sock.bind((address, 0))
        for bad in ("x", "10.0.0.1", "10.0.0.1/33", "10.0.0.2/24\nlink del lo", "10.0.0.2/24 dev lo"):
            with pytest.raises(CloneError, match="no address with the length"):
                bubble.require_address(bad)
        assert bubble.links() == ()
    finally:
        bubble.close()
    with pytest.raises(CloneError, match="has ended"):
        bubble.links()
    with pytest.raises(OSError, match="has ended"):
        bubble.socket(socket.AF_INET, socket.SOCK_STREAM, 0)


def filled(site: Site, **options: Any) -> str:
    """A guest on h1 whose disk holds some data, over a cable so slow that copying it takes seconds."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, **options)
    with site.lab.guest(name).disk.open("r+b") as disk:  # where the guest itself never writes
        disk.seek(32 << 20)
        disk.write(os.urandom(1 << 20) * FILLED_MIB)
    site.lab.faults.slow("h1", "stor", 2)
    return name


def successor(site: Site) -> None:
    """The real agent of h1, started anew: what it finds of drills is of nobody any more."""
    site.lab.host("h1").kill_service("agent")


def test_killed_while_it_copies(site: Site) -> None:
    """libvirt's job goes on without it; the next agent ends it, removes the images, and the guest runs on as it was."""
    name = filled(site)
    before = qemu_pids(site.lab.host("h1"), name)
    clones = Clones(site, "h1")
    clones.make("d1", name)
    wait_for(lambda: copied(site, "h1", name), 20, "the copy to be under way")
    clones.kill()
    assert copied(site, "h1", name)
    assert left(site, "h1")
    successor(site)
    wait_for(lambda: not copied(site, "h1", name) and not left(site, "h1"), 30, "the successor to clean up")
    assert qemu_pids(site.lab.host("h1"), name) == before
    site.lab.faults.heal()
    assert site.lab.guest(name).wait_answering(30).conflicts == 0
    site.assert_once(name)


def test_killed_with_clones_that_run(site: Site) -> None:
    """They end with it, network and all; the next agent removes their images."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    clones = Clones(site, "h1")
    clones.make("d1", name).result(60)
    clones.boot("d1", name)
    clones.kill()
    wait_for(
        lambda: all(each.startswith(FOLDER) for each in left(site, "h1")), 20, "the clone to end by itself"
    )
    assert left(site, "h1")
    successor(site)
    wait_for(lambda: not left(site, "h1"), 30, "the successor to clean up")
    site.assert_once(name)


def test_libvirtd_killed_with_clones_that_run(site: Site, h1: Clones) -> None:
    """The new libvirtd knows nothing of their tie to the agent; the drill's end removes them all the same."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    h1.make("d1", name).result(60)
    h1.boot("d1", name)
    h1.host.kill_service("libvirtd")

    def ended() -> bool:
        try:
            return all(each["ok"] for each in h1.ask("end", drill="d1")["kept"])
        except Refused:  # while there is no libvirtd
            return False

    wait_for(ended, 40, "the drill to end", interval_s=0.5)
    assert left(site, "h1") == []
    site.assert_once(name)


def test_a_copy_gives_way(site: Site, h1: Clones) -> None:
    """Somebody needs the guest itself: its copy ends at once, and it moves."""
    name = filled(site, busy=True)
    asked = h1.make("d1", name)
    wait_for(lambda: copied(site, "h1", name), 20, "the copy to be under way")
    h1.ask("give_way", guest=site.lab.guest(name).uuid)
    assert not copied(site, "h1", name)
    with pytest.raises(Refused, match="gave way"):
        asked.result(5)
    assert left(site, "h1") == [f"{FOLDER}/h1/d1"]  # the drill itself goes on
    site.lab.faults.heal()
    site.dr("guest", "migrate", name, "--to", "h2")
    site.wait_running(name, on=["h2"])
    assert h1.ask("end", drill="d1")["kept"][0]["why"] == "it is not on this host any more"


def test_what_somebody_else_copies_is_left_alone(site: Site, h1: Clones) -> None:
    """A backup of a person's own goes on: no clone is made meanwhile, and no sweep ends it."""
    name = filled(site)
    target = "/var/lib/libvirt/images/own-backup.qcow2"
    xml = (
        "<domainbackup mode='push'><disks><disk name='vda' backup='yes' type='file'>"
        f"<driver type='qcow2'/><target file='{target}'/></disk></disks></domainbackup>"
    )
    h1.host.exec(["sh", "-c", "mkdir -p /var/lib/libvirt/images"])
    h1.host.exec(["virsh", "-q", "backup-begin", name, "/dev/stdin"], stdin=xml)
    with pytest.raises(Refused, match="another backup of it is under way"):
        h1.make("d1", name).result(20)
    h1.ask("end", drill="d1")
    assert copied(site, "h1", name)
    h1.host.exec(["virsh", "-q", "domjobabort", name])
    h1.host.exec(["rm", target])


def test_a_drill_whose_time_is_over(site: Site, h1: Clones) -> None:
    """It ends without anybody's word; one that may use little of the disk is not begun."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, protect=False, local="raw")
    with pytest.raises(Refused, match="may use 1 MiB of disk"):
        h1.make("d1", name, disk_mib=1).result(20)
    h1.make("d2", name, life_s=3.0).result(20)
    h1.boot("d2", name)

    def over() -> bool:
        h1.ask("sweep")
        return not left(site, "h1")

    wait_for(over, 30, "the drill to end", interval_s=0.5)
    with pytest.raises(Refused, match="has ended"):
        h1.boot("d2", name)


def test_a_copy_ends_before_its_file_system_is_full(site: Site, h1: Clones) -> None:
    """What a disk on network storage takes is not known before; the guest writes on as if nothing had been."""
    name = filled(site)
    h1.host.exec(["sh", "-c", f"mkdir -p {FOLDER}; mount -t tmpfs -o size=36m tmpfs {FOLDER}"])
    try:
        with pytest.raises(Refused, match="has room for"):
            h1.make("d1", name).result(60)
        assert left(site, "h1") == [f"{FOLDER}/h1/d1"]
        assert not copied(site, "h1", name)
        h1.ask("end", drill="d1")
        site.lab.faults.heal()
        seen = site.lab.guest(name).wait_answering(30)
        wait_for(lambda: site.lab.guest(name).http().counter > seen.counter, 20, "it to write on")
        assert (seen.disk_error, site.lab.guest(name).http().disk_error) == (0, 0)
    finally:
        h1.host.exec(["umount", FOLDER])
