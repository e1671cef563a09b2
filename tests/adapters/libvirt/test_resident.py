"""What a live migration would send of a guest, from /proc: rounded, bounded, and not told anew for every page."""

from __future__ import annotations

import pytest

from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.resident import resident_mib
from tests.adapters.libvirt.conftest import put

# As Linux 6.1 writes it, shortened.
STATUS = """Name:	qemu-system-x86
VmRSS:	  {rss} kB
RssAnon:	  {anon} kB
RssFile:	   24436 kB
RssShmem:	  {shmem} kB
VmSwap:	  {swap} kB
HugetlbPages:	  {huge} kB
"""


def qemu(layout: Layout, *, anon: float = 0, shmem: float = 0, swap: float = 0, huge: float = 0) -> None:
    """The QEMU of the guest `g`; all in MiB."""
    kib = {"anon": anon, "shmem": shmem, "swap": swap, "huge": huge}
    text = STATUS.format(rss=1, **{name: int(mib * 1024) for name, mib in kib.items()})
    put(layout.root, "/run/libvirt/qemu/g.pid", "4711")
    put(layout.root, "/proc/4711/status", text)


@pytest.mark.parametrize(
    ("held", "maximum_mib", "told_mib"),
    [
        ({"anon": 100}, 1024, 128),
        ({"anon": 128}, 1024, 128),
        ({"anon": 100, "shmem": 100, "swap": 100, "huge": 100}, 1024, 448),
        ({"anon": 560}, 512, 512),  # with what QEMU itself needs
        ({"anon": 60}, 48, 48),
        ({"anon": 1000}, 65536, 1024),  # a large guest in large steps
        ({"huge": 65536}, 65536, 65536),
    ],
)
def test_what_is_held_is_told_coarsely(
    held: dict[str, float], maximum_mib: int, told_mib: int, layout: Layout
) -> None:
    qemu(layout, **held)
    assert resident_mib(layout, "g", maximum_mib) == told_mib


def test_it_is_told_anew_only_when_it_has_changed_by_much(layout: Layout) -> None:
    told, history = 0, []
    for anon in (200, 190, 200, 129, 193, 127, 128, 129, 257, 255):
        qemu(layout, anon=anon)
        told = resident_mib(layout, "g", 1024, told)
        history.append(told)
    assert history == [256, 256, 256, 256, 256, 128, 128, 192, 320, 320]


def test_what_cannot_be_told_is_not_guessed(layout: Layout) -> None:
    assert resident_mib(layout, "g", 1024) == 0, "libvirt noted no process"
    put(layout.root, "/run/libvirt/qemu/g.pid", "4711")
    assert resident_mib(layout, "g", 1024) == 0, "it has just ended"
    put(layout.root, "/run/libvirt/qemu/g.pid", "")
    put(layout.root, "/proc/status", "RssAnon: 999 kB")
    assert resident_mib(layout, "g", 1024) == 0
    qemu(layout, anon=100)
    assert resident_mib(layout, "g", 0) == 0, "its maximum is not known"


async def test_the_inventory_tells_it(mock: LibvirtHypervisor, layout: Layout) -> None:
    (guest,) = await mock.guests()
    assert (guest.resident_mib, guest.to_send_mib) == (0, guest.memory_mib)
    qemu(layout, anon=100)
    put(layout.root, "/run/libvirt/qemu/test.pid", "4711\n")
    (guest,) = await mock.guests()
    assert guest.memory_mib > 128
    assert (guest.resident_mib, guest.to_send_mib) == (128, 128)
    qemu(layout, anon=70)
    (guest,) = await mock.guests()
    assert guest.resident_mib == 128, "a little less is not told"
