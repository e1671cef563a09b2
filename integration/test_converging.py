"""Guests that write to their memory while they move: which rung each needs, foretold from what its agent measured.

Rates are such that links of 15 MiB/s, a cap of the guests' own, are too slow for some. As in test_migration, all have
memory that QEMU 7.2 under TCG does not lose.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import dr
from integration.site import DR, ENV, Site
from integration.test_failover import SITE
from integration.test_migration import assert_runs_on, wait_copying
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers

SAMPLED_S = 90.0  # one takes 33 s, and may have to wait for another


def busy_guest(site: Site, mib_s: int, *policy: str) -> tuple[str, str]:
    """A protected guest on h1 that makes so much of 32 MiB dirty, under that policy: its name, and its boot's id."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, busy=True, dirty_mib_s=mib_s)
    site.dr("guest", "set", name, "--move-bandwidth", "15", *policy)
    return name, site.lab.guest(name).http().boot


def steps(site: Site, job: str) -> str:
    """What its record says, in one text."""
    return " ".join(
        step["text"] for step in json.loads(site.dr("job", "show", job, "-o", "json"))["item"]["steps"]
    )


def move_of(site: Site, name: str) -> str:
    """The id of its newest job."""
    listed = json.loads(site.dr("job", "list", "-o", "json"))["items"]
    mine = [row for row in listed if (row["op"], row["subject"]) == ("guest-migrate", name)]
    return str(max(mine, key=lambda row: row["opened_wall"])["id"])


def foretold(site: Site, name: str) -> dict[str, Any]:
    """What a dry run says of it, from the first moment on at which it was measured."""
    found: dict[str, Any] = {}

    def measured() -> bool:
        found.update(json.loads(run(site, "guest", "migrate", name, "--dry-run", "-o", "json").stdout))
        return any("as measured at most" in each for each in found["forecast"]["rests_on"])

    site.wait(measured, SAMPLED_S, f"{name} to be measured", every_s=1.0)
    (guest,) = found["guests"]
    print(
        f"{name}: {guest['rung']}, {guest['send_mib']} MiB, {guest['ends_s']} s, {guest['downtime_s']} s down"
    )
    told: dict[str, Any] = guest
    return told


def test_a_quiet_guest_is_foretold_to_move_plainly_and_does(site: Site) -> None:
    """Measuring it is not noticed from outside; what was foretold is in the record of its move."""
    name, boot = busy_guest(site, 0)
    with site.lab.poller([name]) as poller:
        told = foretold(site, name)
        gaps = [gap.length_s for gap in poller.outages()[name]]
    assert all(gap is not None and gap < 5 for gap in gaps), f"it went on as it did: {gaps}"
    assert (told["rung"], told["fate"]) == ("plain", "live")
    site.dr("guest", "migrate", name, "--to", "h3")
    assert_runs_on(site, name, boot, "h3")
    assert "plain as foreseen" in steps(site, move_of(site, name))


def test_a_busy_guest_may_stand_still_for_longer(site: Site) -> None:
    """Of 32 MiB more become dirty in each pass than go in 0.3 s, and less than its policy allows."""
    name, boot = busy_guest(site, 20, "--move-downtime", "5", "--no-move-auto-converge")
    told = foretold(site, name)
    assert told["rung"] == "standstill"
    assert 0.5 < told["downtime_s"] <= 5
    assert told["send_mib"] > 1.3 * 32
    with site.lab.poller([name]) as poller:
        site.dr("guest", "migrate", name, "--to", "h3")
        assert_runs_on(site, name, boot, "h3")
        gaps = [gap.length_s for gap in poller.outages()[name]]
    print(f"outages: {gaps}")
    said = steps(site, move_of(site, name))
    assert "it may stand still for" in said
    assert "standstill as foreseen" in said
    assert all(gap is not None and gap < 8 for gap in gaps), gaps


def test_a_guest_faster_than_the_network_is_slowed_down(site: Site) -> None:
    """It dirties 40 MiB/s, and 15 MiB/s get through: only slowed down by QEMU it can leave; then it is fast again."""
    name, boot = busy_guest(site, 40, "--move-downtime", "1")
    assert foretold(site, name)["rung"] == "slowed down"
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    job = move_of(site, name)

    def slowed() -> bool:
        moves = json.loads(site.dr("job", "show", job, "-o", "json"))["item"]["moves"]
        return any(move["throttle_pct"] and move["rung"] == "slowed down" for move in moves)

    site.wait(slowed, 60, "QEMU to slow it down")
    site.dr("job", "watch", job, "--timeout", "300", timeout_s=310)
    assert_runs_on(site, name, boot, "h3")
    assert "slowed down as foreseen" in steps(site, job)


def test_a_guest_that_does_not_converge_is_called_off(site: Site) -> None:
    """Neither a longer standstill nor slowing down is allowed: it goes on where it was, and the job says why."""
    name, boot = busy_guest(site, 40, "--move-downtime", "0.5", "--no-move-auto-converge")
    told = foretold(site, name)
    assert told["rung"] == "called off"
    assert "it does not converge" in told["why"][0]
    assert told["todo"][0] == f"dr guest set {name} --move-auto-converge"
    failed = site.lab.ctl.exec([DR, "guest", "migrate", name, "--to", "h3"], env=ENV, check=False)
    assert failed.returncode == 1
    assert re.search(
        r"it does not converge: \d+ MiB/s become dirty and 1\d MiB/s get through",
        failed.stdout + failed.stderr,
    )
    assert_runs_on(site, name, boot, "h1")
    site.dr("guest", "set", name, "--move-auto-converge")
    site.dr("guest", "migrate", name, "--to", "h3", timeout_s=300)
    assert_runs_on(site, name, boot, "h3")


SAMPLE = """
import sys, time
from dr.adapters.libvirt import dirty
began = time.monotonic()
print(dirty.sample("qemu:///system", sys.argv[1]) == (), time.monotonic() - began < 2)
"""


def test_a_guest_in_a_migration_is_not_measured(site: Site) -> None:
    """libvirt would wait with its answer for the end of the migration. Not asked, its move is called off at once."""
    name, boot = busy_guest(site, 0, "--move-bandwidth", "2")
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)
    words = [sys.executable, "-c", SAMPLE, site.lab.guest(name).uuid]
    asked = site.lab.host("h1").exec(words, env={"PYTHONPATH": str(Path(dr.__file__).parents[1])})
    assert asked.stdout.split() == ["True", "True"], "nothing was told, and at once"
    site.dr("guest", "cancel-move", name)
    assert_runs_on(site, name, boot, "h1")
