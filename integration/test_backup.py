"""A coordinator's machine is lost and another takes its place from a backup: nothing runs twice.

Not here: an older copy of the store that only agents unmask (test_coordinator).
"""

from __future__ import annotations

import time

from integration.site import DR, ENV, Site
from integration.watch import WANTED, Log

SITE = WANTED
FILE = "/run/dr-backup.tar"


def test_a_lost_coordinator_is_restored_from_a_backup_that_is_older_than_the_world(site: Site) -> None:
    """A guest has moved since, and its old host comes back during the hold: it is found where it runs."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.dr("cluster", "backup", FILE)
    site.lab.host("h1").power_off()
    site.wait_running(name, on=["h2", "h3"])
    holder = site.guests()[name]["host"]

    ctl = site.lab.ctl
    ctl.kill_service("coordinator", stay_down=True)
    ctl.exec(["find", "/var/lib/dr/coordinator", "/etc/dr", "-mindepth", "1", "-delete"])
    ctl.path("/etc/machine-id").write_text("f" * 32 + "\n")
    site.lab.host("h1").power_on()
    site.lab.host("h1").wait_ready()
    ctl.exec([DR, "cluster", "restore", FILE, "--yes", "--reason", "its machine burnt"], env=ENV)
    log = Log(site)
    ctl.start_service("coordinator")
    site.wait(site.leads, 20, "the coordinator to answer")
    assert "its machine burnt" in site.status()["restored"]
    site.wait(lambda: len(site.hosts()) == 3 and site.all_online(), 30, "all hosts to be online")
    site.wait_running(name, on=[holder])
    time.sleep(2)
    site.assert_once(name)
    assert not {"guest.starting", "host.fencing"} & set(log.kinds())
    assert site.status()["pause"] is not None

    site.dr("resume", "--reason", "looked at every guest")
    site.lab.host(holder).power_off()
    site.wait_running(name, on=[host.name for host in site.lab.hosts if host.name != holder])
    site.assert_once(name)
