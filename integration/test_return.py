"""An old host that comes back with all that could start its guests again: it is held off, cleaned, and online.

Not here: how its guests were lost and recovered (test_failover).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from integration import watch
from integration.conftest import Sites
from integration.lab.machine import Machine
from integration.site import Site
from integration.watch import GUESTS, Log, Places

GUEST = "g4"
SAVED = "/var/lib/libvirt/typed.save"


@pytest.fixture
def site(sites: Sites) -> Site:
    """The shared site: three hosts, GUESTS running, nothing wrong."""
    return watch.ready(sites)


@dataclass(frozen=True)
class Back:
    """A host that is on again and whose agent reaches nobody yet; its guest runs elsewhere."""

    host: Machine
    places: Places  # where everything runs since the failover
    log: Log

    def assert_held_off(self) -> None:
        """Nothing of the guest runs here, and elsewhere everything goes on as before."""
        self.places.assert_unmoved()
        assert self.host.name not in self.places.host.values()


@pytest.fixture
def back(site: Site) -> Iterator[Back]:
    """Its guest is defined there, autostarting, with a managed-save image, and with a saved image in a file."""
    host = site.lab.host("h1")
    guest = site.lab.define_guest(GUEST, host.name, autostart=True, start=True)
    guest.wait_answering(30)
    host.exec(["virsh", "-q", "save", GUEST, SAVED])
    host.exec(["virsh", "-q", "restore", SAVED])
    guest.wait_answering(30)
    site.dr("guest", "protect", GUEST, "--reason", "test")
    managed = host.path(f"/var/lib/libvirt/qemu/save/{GUEST}.save")
    managed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(host.path(SAVED), managed)
    before = Places(site, (*GUESTS, GUEST))
    host.power_off()
    before.wait_moved(host.name)
    log = Log(site)
    site.lab.faults.link_down(host.name, "mgmt")
    host.power_on()
    host.wait_ready()
    yield Back(host, Places(site, (*GUESTS, GUEST)), log)
    site.lab.faults.heal()
    unprotect = ("guest", "unprotect", GUEST, "--yes", "--reason", "end of the test")
    site.wait(lambda: watch.run(site, *unprotect).returncode == 0, 30, "the end of protection")
    guest.remove()
    host.exec(["rm", "-f", SAVED])


def test_old_host_is_held_off_then_cleaned_and_online(site: Site, back: Back) -> None:
    """Autostart, a managed save, `virsh start` and `virsh restore` are refused with a sentence; then it is cleaned."""
    assert GUEST in back.host.exec(["virsh", "-q", "list", "--all", "--name", "--with-managed-save"]).stdout
    assert GUEST in back.host.exec(["virsh", "-q", "list", "--all", "--name", "--autostart"]).stdout
    for words in (
        ["start", GUEST],
        ["start", "--force-boot", GUEST],
        ["restore", SAVED],
        ["start", "--paused", GUEST],
    ):
        typed = back.host.exec(["virsh", *words], check=False)
        assert typed.returncode != 0, words
        assert "dr guest" in typed.stderr, typed.stderr
        assert GUEST in typed.stderr
        back.assert_held_off()
    site.lab.faults.heal()
    back.log.wait("host.online", 30, host=back.host.name)
    assert back.log.lines("host.cleaned", back.host.name)
    assert GUEST not in back.host.exec(["virsh", "-q", "list", "--all", "--name"]).stdout
    assert not back.host.path(f"/var/lib/libvirt/qemu/save/{GUEST}.save").exists()
    assert not back.host.path(f"/etc/libvirt/qemu/autostart/{GUEST}.xml").exists()
    archived = [
        file for file in back.host.path("/var/lib/dr").rglob("*") if file.is_file() and GUEST in str(file)
    ]
    assert any("<domain" in file.read_text(errors="replace") for file in archived), (
        "its definition was not kept"
    )
    site.wait(site.all_online, 10, "everything to be online")
    time.sleep(1)
    back.assert_held_off()


def test_guests_typed_on_a_host_that_is_online_are_refused_too(site: Site) -> None:
    """A definition copied to a second host cannot be started there, and does not stay there."""
    places, log = Places(site), Log(site)
    name = GUESTS[0]
    other = next(host for host in site.lab.host_names if host != places.host[name])
    site.lab.guest(name).define_xml(other, site.lab.guest(name).xml)
    typed = site.lab.exec(other, ["virsh", "start", name], check=False)
    assert typed.returncode != 0
    log.wait("host.cleaned", 20, host=other)
    assert site.lab.guest(name).state_on(other) is None
    places.assert_unmoved()
