"""Does it run here: every combination of what libvirt and /proc can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.adapters.libvirt import sight
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.procfs import ProcUnreadable, find_qemu, living_daemons
from dr.adapters.libvirt.sight import LibvirtView, weigh
from dr.model.facts import Sighting
from tests.adapters.libvirt.conftest import OTHER, G, put, put_process, put_thread

QEMU = ("/usr/bin/qemu-system-x86_64", "-name", "guest=web1,debug-threads=on", "-uuid", G)
INACTIVE = LibvirtView(active=False, why="libvirt has it defined, not active", name="web1")
DEAF = LibvirtView(active=None, why="no connection")
KTHREAD = 0x00200000


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "DOUBT_S", 0.0)


def saw(layout: Layout, view: LibvirtView = INACTIVE) -> Sighting:
    sighting, reason = weigh(layout.proc, G, "web1", view)
    assert reason
    assert "\n" not in reason
    return sighting


def test_nothing_anywhere_is_absent(layout: Layout) -> None:
    assert saw(layout) is Sighting.ABSENT


def test_active_in_libvirt_is_present(layout: Layout) -> None:
    assert saw(layout, LibvirtView(active=True, why="active")) is Sighting.PRESENT


@pytest.mark.parametrize("state", ["R", "S", "D", "T", "t", "I"])
@pytest.mark.parametrize("view", [INACTIVE, DEAF])
def test_a_qemu_in_any_living_state_is_present(layout: Layout, state: str, view: LibvirtView) -> None:
    put_process(layout.root, 70, *QEMU, state=state)
    assert saw(layout, view) is Sighting.PRESENT


def test_a_qemu_of_another_guest_is_not_it(layout: Layout) -> None:
    put_process(layout.root, 70, "/usr/bin/qemu-system-x86_64", "-name", "guest=web1", "-uuid", OTHER)
    assert saw(layout) is Sighting.ABSENT


@pytest.mark.parametrize(
    ("option", "is_it"),
    [("guest=web1,debug-threads=on", True), ("guest=web1", True), ("web1", True), ("guest=web12", False),
     ("guest=web1,,x", False), ("guest=xweb1", False)],
)  # fmt: skip
def test_by_name_where_there_is_no_uuid(layout: Layout, option: str, is_it: bool) -> None:
    put_process(layout.root, 70, "/usr/bin/qemu-kvm", "-name", option)
    assert saw(layout) is (Sighting.PRESENT if is_it else Sighting.ABSENT)


def test_a_zombie_is_gone(layout: Layout) -> None:
    put_process(layout.root, 70, state="Z", comm="qemu-system-x86")
    assert saw(layout) is Sighting.ABSENT


def test_a_zombie_with_a_living_thread_runs(layout: Layout) -> None:
    """The first thread ended, another hangs in I/O: the process is not over."""
    put_process(layout.root, 70, state="Z", comm="qemu-system-x86")
    put_thread(layout.root, 70, 71, "D", *QEMU)
    assert saw(layout) is Sighting.PRESENT


def test_killed_qemu_waiting_for_its_io_is_told_by_its_cgroup(layout: Layout) -> None:
    """A process in exit has no command line any more, and its writes may still reach the disk."""
    put_process(layout.root, 70, state="D", comm="qemu-system-x86")
    put(
        layout.root,
        "/proc/70/cgroup",
        "0::/machine.slice/machine-qemu\\x2d3\\x2dweb1.scope/libvirt/emulator\n",
    )
    assert saw(layout) is Sighting.PRESENT
    put(
        layout.root,
        "/proc/70/cgroup",
        "0::/machine.slice/machine-qemu\\x2d3\\x2dweb2.scope/libvirt/emulator\n",
    )
    assert saw(layout) is Sighting.ABSENT
    put(layout.root, "/proc/70/cgroup", "0::/system.slice/libvirtd.service\n")
    assert saw(layout) is Sighting.UNKNOWN


def test_a_name_that_systemd_escapes(layout: Layout) -> None:
    put_process(layout.root, 70, state="D", comm="qemu-system-x86")
    put(layout.root, "/proc/70/cgroup", "0::/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d1.scope\n")
    assert weigh(layout.proc, G, "web-1", INACTIVE)[0] is Sighting.PRESENT


def test_threads_of_the_kernel_are_no_qemu(layout: Layout) -> None:
    put_process(layout.root, 70, comm="kvm-pit/4242", flags=KTHREAD)
    assert saw(layout) is Sighting.ABSENT


def test_libvirtd_dead_leaves_proc_alone_to_decide(layout: Layout) -> None:
    assert saw(layout, DEAF) is Sighting.ABSENT
    assert "dead" in weigh(layout.proc, G, "web1", DEAF)[1]


@pytest.mark.parametrize("state", ["S", "T", "D"])
def test_libvirtd_alive_and_deaf_is_unknown(layout: Layout, state: str) -> None:
    put_process(layout.root, 60, "/usr/sbin/libvirtd", state=state)
    assert saw(layout, DEAF) is Sighting.UNKNOWN
    assert saw(layout, INACTIVE) is Sighting.ABSENT


def test_a_child_of_a_dead_libvirtd_may_become_a_qemu(layout: Layout) -> None:
    """It has the name of the thread that forked it, and the daemon's executable."""
    put_process(layout.root, 61, "libvirtd", comm="rpc-libvirtd", exe="/usr/sbin/libvirtd (deleted)")
    assert saw(layout, DEAF) is Sighting.UNKNOWN


def test_a_dead_libvirtd_not_yet_reaped_is_dead(layout: Layout) -> None:
    put_process(layout.root, 60, state="Z", comm="libvirtd")
    assert saw(layout, DEAF) is Sighting.ABSENT


def test_proc_that_cannot_be_read_is_unknown(layout: Layout, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert weigh(nowhere, G, "web1", INACTIVE)[0] is Sighting.UNKNOWN
    nowhere.mkdir()
    assert weigh(nowhere, G, "web1", DEAF)[0] is Sighting.UNKNOWN
    (layout.proc / "80" / "cmdline").mkdir(parents=True)
    with pytest.raises(ProcUnreadable):
        find_qemu(layout.proc, G)
    (layout.proc / "80" / "comm").mkdir(parents=True)
    with pytest.raises(ProcUnreadable):
        living_daemons(layout.proc)
