"""A dry run of a real site: a host is taken away on paper, then for real, and guests end up where the paper said."""

from __future__ import annotations

from typing import Any

from integration import watch
from integration.site import Site
from integration.test_failover import SITE
from integration.watch import Places, run

__all__ = ["SITE"]  # the same site as that of the failovers

FAILED = 1


def told(site: Site, *words: str) -> dict[str, Any]:
    found = site.dr_json("drill", "run", *words)
    report: dict[str, Any] = found["report"]
    return report


def test_guests_end_up_where_the_paper_said(site: Site) -> None:
    names = site.fresh(3)
    site.start_guests({"h1": names[:2], "h2": names[2:]})
    report = told(site, "--lose", "h1", "--rto", "10m", "--reason", "before the real one")
    assert (report["verdict"], report["lost"]) == ("passed", ["h1"])
    rows = {row["name"]: row for row in report["guests"]}
    assert rows.keys() == set(names[:2]), "nobody else is lost"
    assert {row["to"] for row in rows.values()} <= {"h2", "h3", "h4"}
    assert sorted(site.lab.qemu_hosts(names[0])) == ["h1"], "nothing was touched"
    before = Places(site, tuple(names))
    site.lab.host("h1").power_off()
    site.wait_running(*names[:2], on=["h2", "h3", "h4"])
    site.assert_once(*names)
    assert {name: before.only_host(name) for name in names[:2]} == {
        name: row["to"] for name, row in rows.items()
    }
    # what that took is measured, and what is told of the next one rests on it
    target = rows[names[0]]["to"]
    site.wait(lambda: site.hosts()["h1"]["phase"] == "fenced" or site.all_online(), 30, "h1 to be done with")
    again = told(site, "--lose", target, "--rto", "10m")
    (start,) = [
        phase
        for row in again["guests"]
        if row["name"] == names[0]
        for phase in row["phases"]
        if phase["phase"] == "start"
    ]
    assert start["known"] == "measured"
    assert 0 < start["ends_s"] - start["begins_s"] < 60
    # both reports are kept, also past the death of the coordinator
    keys = [row["id"] for row in site.get("/v1/drills")["items"]][-2:]
    lose_coordinator(site)
    assert [row["id"] for row in site.get("/v1/drills")["items"]][-2:] == keys
    page = run(site, "drill", "report", keys[0], "--html", "/run/drill.html", "--replace")
    assert page.returncode == 0, page.stderr
    html = site.lab.ctl.exec(["cat", "/run/drill.html"]).stdout
    assert html.startswith("<!DOCTYPE html>")
    assert names[0] in html


def lose_coordinator(site: Site) -> None:
    watch.coordinator(site).kill()
    site.wait(site.leads, 60, "a coordinator that leads")


def test_a_host_that_cannot_be_proven_dead_fails_its_drill(site: Site) -> None:
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    site.dr("pause", "--reason", "a look")
    try:
        ended = run(site, "drill", "run", "--lose", "h1", "--no-save")
    finally:
        site.dr("resume", "--reason", "done")
    assert ended.returncode == FAILED
    assert "automation is paused (a look)" in ended.stderr
    swept = told(site, "--each", "--no-save")
    assert swept["verdict"] == "passed"
    assert {case["lost"][0] for case in swept["cases"]} == {"h1", "h2", "h3", "h4"}
