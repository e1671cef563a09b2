"""`make demo`: the main job on real guests. A host loses power; its guests run elsewhere, each exactly once.

Prints a timeline with seconds and reasons, and `dr status` before and after. Exits non-zero if any guest is not
running exactly once, or if a disk shows a second writer.
"""

from __future__ import annotations

import sys
import time

from integration.lab import Lab
from integration.site import Site

GUESTS = ("g1", "g2", "g3")


def main() -> int:
    begun = time.monotonic()
    lab = Lab("demo")
    lab.down()
    site = Site(lab)
    try:
        say(
            "Three KVM hosts with libvirtd, QEMU and a BMC each, and a coordinator: making them, joining them"
        )
        site.up(3, fence_test=False)
        say("dr fence test: each BMC must show that it really switches its host")
        site.prove_fencing()
        say("Three guests on h1, their disks on the storage server; dr guest protect")
        site.start_guests({"h1": GUESTS})
        print(site.dr("status"))
        code = failover(site)
    finally:
        lab.down()
    say(
        f"done after {time.monotonic() - begun:.0f} s: {'as it should be' if code == 0 else 'NOT as it should be'}"
    )
    return code


def failover(site: Site) -> int:
    """Cut the power of h1 and watch."""
    say("Cutting the power of h1")
    with site.lab.poller(GUESTS) as poller:
        time.sleep(1.0)
        mark = len(site.timeline())
        cut_wall, cut = time.time(), time.monotonic()
        site.lab.host("h1").power_off()
        site.wait(lambda: moved(site), 120, "failover", every_s=0.5)
        poller.wait_all_answering(60, since_s=cut + 1.0)
        outages = poller.outages()
    print("\nWhat was decided, and why (seconds after the cut):")
    for line in site.timeline()[mark:]:
        print(f"  {line['wall'] - cut_wall:7.2f}  {line['topic']:<18} {line['text']}")
    print("\nWhat the outside saw (a ping every 20 ms):")
    for name in GUESTS:
        for outage in outages[name]:
            back = (outage.first_answer_s or 0) - cut
            print(
                f"  {name} last answered at {outage.last_answer_s - cut:.2f} s, answers again at {back:.2f} s"
            )
    say("h1 gets its power back: it is cleaned before it counts")
    site.lab.host("h1").power_on()
    site.wait(site.all_online, 60, "h1 to be online again")
    print(site.dr("status"))
    return verdict(site)


def moved(site: Site) -> bool:
    guests = site.guests()
    return all(guests[name]["phase"] == "running" and guests[name]["host"] != "h1" for name in GUESTS)


def verdict(site: Site) -> int:
    """The outside truth, not the product's word: QEMU processes counted, disks read."""
    bad = 0
    for name in GUESTS:
        places = site.lab.qemu_hosts(name)
        report = site.lab.guest(name).disk_report()
        good = len(places) == 1 and not report.second_writer
        bad += not good
        writers = "two writers at once!" if report.second_writer else "one writer at a time"
        print(f"  {name}: QEMU on {', '.join(places) or 'no host'}; its disk shows {writers}")
    return 1 if bad else 0


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
