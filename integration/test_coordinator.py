"""The coordinator's own troubles, with real guests: killed, restored, blind, frozen, without disk, misconfigured.

Not here: what it decides about hosts that fail (test_failover, test_fencing).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import watch
from integration.conftest import Sites
from integration.lab.machine import Machine
from integration.site import CONFIG, DR, ENV, Site
from integration.watch import SETTINGS, Log, Places, configured, run, wait_for

STATE = "/var/lib/dr/coordinator"


@pytest.fixture
def site(sites: Sites) -> Site:
    """The shared site: three hosts, GUESTS running, nothing wrong."""
    return watch.ready(sites)


# ---- killed


STEPS = [
    ("power", "", 0.0),
    ("power", "host.suspect", 0.0),
    ("power", "host.fenced", 0.0),
    ("power", "guest.starting", 0.3),
    ("power", "guest.running", 0.0),
    ("links", "", 0.0),
    ("links", "host.suspect", 0.0),
    ("links", "host.fencing", 0.0),
    ("links", "fence.begin", 0.3),
    ("links", "fence.off", 0.0),
    ("links", "host.fenced", 0.0),
    ("links", "guest.starting", 0.0),
    ("links", "guest.starting", 0.4),
    ("links", "guest.running", 0.0),
]


@pytest.mark.parametrize(("fault", "step", "later_s"), STEPS)
def test_killed_at_any_step_of_a_failover_it_completes_and_nothing_happens_twice(
    site: Site, fault: str, step: str, later_s: float
) -> None:
    """kill -9 at (or shortly after) a decision, restarted: each lost guest boots once, elsewhere; no second fencing."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    boot = site.lab.host(lost).boot_id
    leader = watch.coordinator(site)
    if not step:
        leader.kill()
    if fault == "power":
        site.lab.host(lost).power_off()
    else:
        site.lab.faults.link_down(lost)
    if step:
        log.wait(step)
        time.sleep(later_s)
        leader.kill()
    places.wait_moved(lost)
    site.lab.faults.heal()
    log.wait("host.online", 40, host=lost, count=1)
    site.wait(site.all_online, 30, "its return")
    site.wait(lambda: not site.status()["operations"], 15, "the failover to be closed")
    places.assert_moved_once(lost)
    assert site.lab.host(lost).boot_id != boot
    assert len(log.lines("host.returning", lost)) == 1, "it was switched off twice"


# ---- restored


@contextmanager
def stopped(site: Site) -> Iterator[Path]:
    """The coordinator stands still for a block, which gets its folder."""
    site.lab.ctl.stop_service("coordinator")
    yield site.lab.ctl.path(STATE)
    site.lab.ctl.start_service("coordinator")


def keep(site: Site, to: Path) -> None:
    """A copy of the store, as a backup makes it."""
    with stopped(site) as folder:
        for file in folder.glob("store.db*"):
            shutil.copy2(file, to)
    site.wait(lambda: site.leads() and site.all_online(), 20, "the coordinator")


def restore(site: Site, copy: Path) -> None:
    """The older store in the place of the present one."""
    with stopped(site) as folder:
        for file in folder.glob("store.db*"):
            file.unlink()
        for file in copy.glob("store.db*"):
            shutil.copy2(file, folder)


def test_store_restored_after_a_failover_that_it_does_not_know(site: Site, tmp_path: Path) -> None:
    """An older store believes the guests on their old host: it holds, nothing runs twice, `dr resume` carries on."""
    keep(site, tmp_path)
    before, log = Places(site), Log(site)
    lost = before.fullest()
    site.lab.host(lost).power_off()
    before.wait_moved(lost)
    log.wait("failover.done", 20)
    places, log = Places(site), Log(site)
    restore(site, tmp_path)
    log.wait("store.restored", 20)
    time.sleep(3)
    assert "THE STORE IS A RESTORED COPY" in run(site, "status").stdout
    assert not log.lines("fence.begin")
    assert not log.lines("guest.starting")
    places.assert_unmoved()
    site.lab.host(lost).power_on()  # the host on which the copy believes the guests
    log.wait("host.online", 30, host=lost)
    places.assert_unmoved()
    site.dr("resume", "--reason", "looked it over")
    site.wait(lambda: not site.status()["unsettled"], 20, "every guest to be found")
    places.assert_unmoved()
    again = places.fullest()
    site.lab.host(again).power_off()
    places.wait_moved(again)


def test_store_restored_holds_for_a_host_that_dies_meanwhile(site: Site, tmp_path: Path) -> None:
    """A host dies under a restored store: its guests wait for `dr resume`, and are then started once."""
    keep(site, tmp_path)
    site.dr("host", "label", "h1", "a=b", "--reason", "a revision that the copy does not know")
    places, log = Places(site), Log(site)
    lost = places.fullest()
    restore(site, tmp_path)
    log.wait("store.restored", 20)
    site.wait(lambda: not site.status()["unsettled"], 20, "every guest to be found")
    site.lab.host(lost).power_off()
    log.wait("host.suspect", 20, host=lost)
    time.sleep(4)
    assert not log.lines("guest.starting")
    assert all(not site.lab.qemu_hosts(name) for name in places.on(lost))
    site.dr("resume", "--reason", "looked it over")
    places.wait_moved(lost)


def test_store_copied_to_another_machine_does_not_lead(site: Site) -> None:
    """A store is bound to its machine: elsewhere the coordinator refuses to start and says what to do."""
    places = Places(site)
    ids = site.lab.ctl.path("/etc/machine-id")
    mine = ids.read_text()
    with stopped(site):
        ids.write_text("0123456789abcdef0123456789abcdef\n")
        try:
            done = site.lab.ctl.exec([DR, "coordinator"], env=ENV, check=False, timeout_s=20)
        finally:
            ids.write_text(mine)
    assert done.returncode == watch.REFUSED, done.stderr
    assert "this store belongs to machine" in done.stderr
    assert "dr cluster restore" in done.stderr
    site.wait(lambda: site.leads() and site.all_online(), 20, "the coordinator on its own machine")
    places.assert_unmoved()


# ---- blind, slow, wrong about the time


def test_own_network_cut_fences_nothing(site: Site) -> None:
    """All hosts look dead to a coordinator without a network; it fences none, and after healing all is as before."""
    places, log = Places(site), Log(site)
    site.lab.faults.link_down("ctl", "mgmt")
    for host in site.lab.host_names:
        log.wait("host.held", 20, host=host)
    time.sleep(3)
    assert not log.lines("fence.begin")
    assert not log.lines("host.fenced")
    site.lab.faults.heal()
    site.wait(site.all_online, 30, "all hosts to be online again")
    places.assert_unmoved()


def test_own_network_and_bmc_network_cut_fences_nothing(site: Site) -> None:
    """The same with the fence devices out of reach as well."""
    places, log = Places(site), Log(site)
    site.lab.faults.link_down("ctl")
    for host in site.lab.host_names:
        log.wait("host.held", 20, host=host)
    site.lab.faults.heal()
    site.wait(site.all_online, 30, "all hosts to be online again")
    assert not log.lines("fence.begin")
    places.assert_unmoved()


def test_frozen_for_ten_seconds_suspects_nobody(site: Site) -> None:
    """A coordinator that stood still distrusts itself first."""
    places, log = Places(site), Log(site)
    site.lab.faults.freeze_service("ctl", "coordinator")
    time.sleep(10)
    site.lab.faults.thaw_service("ctl", "coordinator")
    log.wait("coordinator.gap")
    time.sleep(3)
    assert not log.lines("host.suspect")
    places.assert_unmoved()


def test_wall_clock_that_jumps_by_hours_suspects_nobody(site: Site) -> None:
    """Decisions run on the monotonic clock: five hours forward, then ten back, change nothing."""
    places = Places(site)
    ctl = site.lab.ctl
    ctl.install_service("coordinator", [DR, "coordinator"], ENV, faketime=True)
    try:
        site.wait(lambda: site.leads() and site.all_online(), 20, "the coordinator")
        time.sleep(1.5)  # its settling time
        log = Log(site)
        for offset_s in (5 * 3600, -5 * 3600):
            site.lab.faults.clock_jump("ctl", "coordinator", offset_s)
            time.sleep(2.5)
        assert site.all_online()
        assert not log.lines("host.suspect")
        assert not log.lines("fence.begin")
        lost = places.fullest()
        site.lab.host(lost).power_off()  # it can still do its work
        places.wait_moved(lost)
    finally:
        ctl.install_service("coordinator", [DR, "coordinator"], ENV)


# ---- without disk, misconfigured


def test_full_disk_under_the_store_loses_nothing(site: Site) -> None:
    """With no room for the store nothing is decided, nothing crashes; with room again it goes on where it was."""
    site.dr("host", "label", "h1", "kept=yes", "--reason", "before")
    places, log = Places(site), Log(site)
    leader = watch.coordinator(site)
    lost = places.fullest()
    site.lab.faults.disk_full("ctl")
    site.lab.host(lost).power_off()
    time.sleep(6)
    assert watch.coordinator(site).pid == leader.pid, "it crashed"
    assert all(not site.lab.qemu_hosts(name) for name in places.on(lost)), "started without a record"
    site.lab.faults.disk_free("ctl")
    places.wait_moved(lost)
    assert site.hosts()["h1"]["labels"]["kept"] == "yes"
    site.lab.host(lost).power_on()
    log.wait("host.online", 30, host=lost)
    site.dr("host", "label", "h1", "kept-", "--reason", "after")


def test_bad_configuration_on_reload_keeps_it_running(site: Site) -> None:
    """SIGHUP with a broken file: refused with file and line, the old configuration stays, failover still works."""
    places, log = Places(site), Log(site)
    leader = watch.coordinator(site)
    file = site.lab.ctl.path(CONFIG)
    good = file.read_text()
    try:
        for bad in ("hosts: [unclosed\n", good.replace("heartbeat_s", "x") + "no_such_key: 1\n"):
            file.write_text(bad)
            log = Log(site)
            site.lab.ctl.kill_service("coordinator", 1)
            wait_for(site, partial(_refused, log), 10, "the refusal")
            assert f"{CONFIG}:" in log.text()
        assert watch.coordinator(site).pid == leader.pid
        lost = places.fullest()
        site.lab.host(lost).power_off()
        places.wait_moved(lost)
    finally:
        file.write_text(good)
    site.lab.ctl.kill_service("coordinator", 1)
    log.wait("config", 10)


def _refused(log: Log) -> bool:
    return "reload refused" in log.text()


# ---- telling people


SINK = """
import http.server, sys
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        open(sys.argv[2], "ab").write(body.replace(b"\\n", b" ") + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
"""


@contextmanager
def webhook(ctl: Machine, port: int, file: str) -> Iterator[None]:
    """A server on ctl that keeps what is posted, one JSON object a line."""
    server = ctl.popen([sys.executable, "-c", SINK, str(port), file], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def told(file: Path) -> list[dict[str, Any]]:
    """What a sink received."""
    return (
        [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file.exists() else []
    )


def test_command_and_webhook_receive_what_why_and_what_to_do(site: Site) -> None:
    """An alert reaches a command and a webhook with what, why and todo, and so does its end."""
    places = Places(site)
    ctl = site.lab.ctl
    files = {name: ctl.path(f"/var/lib/dr/told-{name}") for name in ("command", "webhook")}
    sinks = (
        "notify:\n"
        "  - name: script\n"
        '    command: [/bin/sh, -c, "cat >> /var/lib/dr/told-command; echo >> /var/lib/dr/told-command"]\n'
        "  - {name: chat, webhook: 'http://127.0.0.1:8099/hook'}\n"
    )
    with webhook(ctl, 8099, "/var/lib/dr/told-webhook"), configured(site, SETTINGS + sinks):
        assert run(site, "notify", "test").returncode == 0
        host = places.fullest()
        site.lab.host(host).kill_service("agent", stay_down=True)

        def have(cleared: bool) -> bool:
            return all(
                [
                    a
                    for a in told(file)
                    if a.get("key") == f"host/{host}/agent-lost" and a["cleared"] is cleared
                ]
                for file in files.values()
            )

        wait_for(site, lambda: have(False), 15, "the alert at both sinks")
        for file in files.values():
            (alert,) = [a for a in told(file) if a.get("key") == f"host/{host}/agent-lost"]
            assert f"the agent of {host} is lost" in alert["what"]
            assert "the host answers its peers" in alert["why"]
            assert "systemctl status dr-agent" in alert["todo"]
        site.lab.host(host).start_service("agent")
        wait_for(site, lambda: have(True), 15, "the end of the alert at both sinks")
    for file in files.values():
        file.unlink()
    places.assert_unmoved()
