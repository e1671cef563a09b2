"""Live migration of real guests, by the two-phase commit: the guest runs exactly once, whatever dies in the middle.

The middle is made long by a speed limit on the domain (libvirt keeps it for its next migration): 96 MiB at 20 MiB/s
take some four seconds. Guests here write their disk log and dirty no memory beside that: QEMU 7.2 under TCG loses dirty
pages when it passes over busy memory more than once, with bare virsh too, and the guest panics after it has arrived.
"""

from __future__ import annotations

import os

from integration.conftest import Wanted
from integration.site import Site
from integration.test_failover import SETTINGS
from integration.watch import boots

SITE = Wanted(lab=os.environ.get("DR_LAB", "move"), hosts=3, settings=SETTINGS)


def defined(site: Site, host: str) -> list[str]:
    """Names of all domains that libvirt knows there."""
    return site.lab.host(host).exec(["virsh", "-q", "list", "--all", "--name"]).stdout.split()


def slow(site: Site, name: str, mib_s: int = 20) -> None:
    """Its next migration takes seconds."""
    host = site.lab.qemu_hosts(name)[0]
    site.lab.host(host).exec(["virsh", "-q", "migrate-setspeed", name, str(mib_s)])


def assert_ran_on(site: Site, name: str, boot: str) -> None:
    """The same boot of it answers, counts on, and one QEMU of it exists."""
    answer = site.lab.guest(name).wait_answering(30)
    assert answer.boot == boot
    assert boots(site, name) == 1
    site.assert_once(name)


def test_dr_guest_migrate(site: Site) -> None:
    """It goes on running all the while, on the host that was named; nothing is left where it was."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    guest = site.lab.guest(name)
    boot = guest.http().boot
    with site.lab.poller([name]) as poller:
        site.dr("guest", "migrate", name, "--to", "h3", timeout_s=60)
        site.wait_running(name, on=["h3"])
        gaps = [gap.length_s for gap in poller.outages()[name]]
    print(f"outages: {gaps}")
    assert all(gap is not None and gap < 3 for gap in gaps), gaps
    assert_ran_on(site, name, boot)
    assert site.lab.qemu_hosts(name) == ["h3"]
    site.wait(lambda: name not in defined(site, "h1"), 15, "what was left on h1 to be cleaned up")
    assert not site.alerts()
