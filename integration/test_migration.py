"""Live migration of real guests, by the two-phase commit: the guest runs exactly once, whatever dies in the middle.

The middle is made long by a speed limit on the domain (libvirt keeps it for its next migration): some 75 MiB at
5 MiB/s take fifteen seconds. Guests here write their disk log and dirty little memory beside that (busy ones:
test_converging). All that are sent slowly have memory that QEMU 7.2 under TCG does not lose (`busy=True`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.lab.guests import qemu_pids
from integration.lab.layout import address
from integration.lab.proc import wait_for
from integration.site import DR, ENV, Site
from integration.test_failover import SITE
from integration.watch import boots, run

__all__ = ["SITE"]  # the same site as that of the failovers

STAYS = 3  # exit code of a dry run: a guest would stay
GIVEN_UP_S = 60.0  # libvirt gives a silent peer up after 30 s


def is_defined(site: Site, name: str, host: str) -> bool:
    """Whether libvirt knows it there; also while libvirt does not say."""
    listed = site.lab.host(host).exec(["virsh", "-q", "list", "--all", "--name"], check=False)
    return listed.returncode != 0 or name in listed.stdout.split()


def slow(site: Site, name: str, host: str = "h1") -> None:
    """Its next migration from there takes seconds."""
    site.lab.host(host).exec(["virsh", "-q", "migrate-setspeed", name, "5"])


def guest_on_h1(site: Site) -> tuple[str, str]:
    """A protected guest that runs on h1 and would take long to leave: its name, and its boot's id."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, busy=True)
    slow(site, name)
    return name, site.lab.guest(name).http().boot


def wait_copying(site: Site, name: str) -> None:
    """Until its memory is on its way from h1 to h3: both ends are prepared then, and nothing is switched over yet."""

    def sent() -> bool:
        job = site.lab.host("h1").exec(["virsh", "-q", "domjobinfo", name], check=False).stdout
        found = re.search(r"Data processed:\s+([\d.]+)", job)
        return found is not None and float(found[1]) > 0

    wait_for(sent, 30, f"{name} to be on its way", interval_s=0.05)
    assert sorted(site.lab.qemu_hosts(name)) == ["h1", "h3"]
    assert site.lab.guest(name).state_on("h3") == "paused"


def send_to_h3(site: Site, name: str) -> None:
    """Begin its move and return in the middle of the copying."""
    site.dr("guest", "migrate", name, "--to", "h3", "--no-wait")
    wait_copying(site, name)


def assert_runs_on(site: Site, name: str, boot: str, host: str) -> None:
    """The same boot of it answers there; nowhere else is a QEMU or a definition of it."""
    site.wait_running(name, on=[host])
    wait_for(lambda: site.lab.qemu_hosts(name) == [host], 15, f"one QEMU of {name}, on {host}")
    answer = site.lab.guest(name).wait_answering(30)
    assert answer.boot == boot
    assert answer.conflicts == 0
    assert boots(site, name) == 1
    site.assert_once(name)
    others = [each for each in site.lab.host_names if each != host]
    site.wait(
        lambda: not any(is_defined(site, name, each) for each in others), 30, "leftovers to be cleaned up"
    )
    assert is_defined(site, name, host)
    site.assert_once(name)


# ---- as it should go


def test_dr_guest_migrate(site: Site) -> None:
    """It goes on running all the while, on the host that was named; nothing is left where it was. And back, over three
    connections."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    boot = site.lab.guest(name).http().boot
    with site.lab.poller([name]) as poller:
        site.dr("guest", "migrate", name, "--to", "h3")
        assert_runs_on(site, name, boot, "h3")
        site.dr("guest", "set", name, "--move-streams", "3")
        site.dr("guest", "migrate", name, "--to", "h1")
        assert_runs_on(site, name, boot, "h1")
        gaps = [gap.length_s for gap in poller.outages()[name]]
    print(f"outages: {gaps}")
    assert all(gap is not None and gap < 5 for gap in gaps), gaps
    assert not site.alerts()


def test_after_it_the_clock_is_set_and_the_job_says_that_it_answers(site: Site) -> None:
    """By the RTC of its new host, through the guest agent in it; nothing waits for that. The check is of a host."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, agent=True)
    guest = site.lab.guest(name)
    boot = guest.http("/behind?s=3600").boot
    assert time.time() - guest.http().wall_s > 3000
    site.dr("guest", "set", name, "--check", f"ping:{address('mgmt', 'h3')}")
    moved = run(site, "guest", "migrate", name, "--to", "h3")
    assert "running on h3, and answers after" in moved.stdout + moved.stderr
    assert_runs_on(site, name, boot, "h3")
    wait_for(lambda: guest.http().clock_sets > 0, 20, f"the clock of {name} to be set")
    found = guest.http()
    assert (found.clock_sets, found.boot) == (1, boot)
    assert abs(time.time() - found.wall_s) < 5


def test_dry_run_and_what_stands_against_it(site: Site) -> None:
    """Nothing is done; every reason is told at once."""
    name, boot = guest_on_h1(site)
    dry = json.loads(site.dr("guest", "migrate", name, "--dry-run", "-o", "json"))
    assert dry["message"].startswith(f"{name} would move live from h1 to h")
    assert dry["operations"] == []
    code, checks = preflight(site, name)
    assert code == 0
    warned = {check for check, each in checks.items() if each["verdict"] != "ok"}
    assert warned <= {"health", "clock"}, "those are the real machine's"
    shown = json.loads(site.dr("host", "show", "h2", "-o", "json"))["item"]
    assert [each["level"] for each in shown["readings"] if each["part"] == "migration"] == ["ok"]
    there = site.lab.ctl.exec([DR, "guest", "migrate", name, "--to", "h1", "--dry-run"], env=ENV, check=False)
    assert f"{name} runs on h1 already" in there.stdout
    assert there.returncode == STAYS
    assert_runs_on(site, name, boot, "h1")


def preflight(site: Site, name: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code of a dry run, and its checks by name."""
    dry = run(site, "guest", "migrate", name, "--dry-run", "-o", "json")
    (guest,) = json.loads(dry.stdout)["guests"]
    return dry.returncode, {each["name"]: each for each in guest["checks"]}


QEMU = "/usr/bin/qemu-system-x86_64"
REAL = f"/run/real{QEMU}"  # by the same name, so that its processes look alike
OLDER = f"""#!/bin/sh
exec {REAL} -global x86_64-cpu.avx2=off "$@"
"""


@contextmanager
def older_cpu(site: Site, name: str) -> Iterator[None]:
    """On that host QEMU offers no AVX2, as on a machine that has none; libvirtd there looks again at its start."""
    host = site.lab.host(name)

    def restart_libvirtd() -> None:
        before = host.service_pid("libvirtd")
        host.kill_service("libvirtd")
        wait_for(lambda: host.service_pid("libvirtd") not in (None, before), 20, "a new libvirtd")
        host.wait_ready()

    # It looks for its modules and firmware beside itself.
    beside = "ln -sfn /usr/lib /run/real/usr/lib && ln -sfn /usr/share /run/real/usr/share"
    host.exec(["sh", "-c", f"mkdir -p /run/real/usr/bin && {beside} && touch {REAL}"])
    host.exec(["mount", "--bind", QEMU, REAL])
    host.exec(["sh", "-c", "cat > /run/older && chmod 755 /run/older"], stdin=OLDER)
    host.exec(["mount", "--bind", "/run/older", QEMU])
    try:
        restart_libvirtd()
        yield
    finally:
        host.exec(["umount", QEMU])
        restart_libvirtd()


def test_a_host_without_the_cpu_of_a_guest_is_refused_by_name(site: Site) -> None:
    """What bare virsh is refused in the middle is told before; where no host is named another is taken."""
    (name,) = site.fresh(1)
    guest = site.lab.define_guest(name, "h1")
    guest.define_xml("h1", guest.xml.replace("<features>", "<cpu mode='host-model'/><features>"))
    guest.start("h1")
    boot = guest.wait_answering(60).boot
    h1 = site.lab.host("h1")
    with older_cpu(site, "h2"):
        bare = [
            "virsh",
            "-q",
            "migrate",
            "--live",
            "--p2p",
            name,
            f"qemu+tcp://{address('mgmt', 'h2')}/system",
        ]
        failed = h1.exec(bare, check=False)
        assert "missing features: avx2" in failed.stderr
        site.protect(name)
        said = f"h2 does not offer CPU features that {name} runs with: avx2"

        def told() -> bool:
            return said in run(site, "guest", "migrate", name, "--to", "h2", "--dry-run").stdout

        site.wait(told, 60, "the older CPU to be told")
        refused = run(site, "guest", "migrate", name, "--to", "h2")
        assert refused.returncode != 0
        assert said in refused.stderr
        assert site.lab.qemu_hosts(name) == ["h1"]
        dry = json.loads(site.dr("guest", "migrate", name, "--dry-run", "-o", "json"))
        assert dry["guests"][0]["to"] in ("h3", "h4")
        site.dr("guest", "migrate", name)
        wait_for(lambda: site.lab.qemu_hosts(name) in (["h3"], ["h4"]), 60, f"{name} to be elsewhere")
        (to,) = site.lab.qemu_hosts(name)
        assert_runs_on(site, name, boot, to)


BACKUP = (
    '<domainbackup mode="pull"><server transport="unix" socket="/run/{0}.nbd"/><disks>'
    '<disk name="vda" type="file"><scratch file="/var/lib/libvirt/{0}.scratch"/></disk></disks></domainbackup>'
)


def test_what_ties_a_running_guest_is_told_before_libvirt_refuses(site: Site) -> None:
    """A backup that waits for its reader, and a snapshot: told by name, and the move is refused. Then it goes."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    boot = site.lab.guest(name).http().boot
    h1 = site.lab.host("h1")

    def blocked() -> set[str]:
        return {check for check, each in preflight(site, name)[1].items() if each["verdict"] == "blocked"}

    def refused(because: str) -> None:
        ended = run(site, "guest", "migrate", name)
        assert because in ended.stderr
        assert ended.returncode != 0

    h1.exec(["sh", "-c", f"echo '{BACKUP.format(name)}' > /run/{name}.xml"])
    h1.exec(["virsh", "-q", "backup-begin", name, f"/run/{name}.xml"])
    site.wait(lambda: blocked() == {"backup"}, 20, "the backup to be told")
    refused(f"a backup of {name} is under way on h1")
    h1.exec(["virsh", "-q", "domjobabort", name])
    site.wait(lambda: not blocked(), 20, "the end of the backup to be told")
    of = h1.exec(["virsh", "-q", "dumpxml", "--inactive", name]).stdout
    snapshot = "<name>s1</name><state>shutoff</state><creationTime>1</creationTime>"
    h1.exec(
        ["sh", "-c", f"cat > /run/{name}.xml <<'END'\n<domainsnapshot>{snapshot}{of}</domainsnapshot>\nEND"]
    )
    h1.exec(["virsh", "-q", "snapshot-create", name, f"/run/{name}.xml", "--redefine"])
    site.wait(lambda: blocked() == {"snapshots"}, 20, "the snapshot to be told")
    refused(f"{name} has snapshots that only h1 knows of")
    h1.exec(["virsh", "-q", "snapshot-delete", name, "s1", "--metadata"])
    site.wait(lambda: not blocked(), 20, "the end of the snapshot to be told")
    site.dr("guest", "migrate", name, "--to", "h2")
    assert_runs_on(site, name, boot, "h2")


def test_the_memory_is_encrypted_where_the_host_says_so(site: Site, tmp_path: Path) -> None:
    """Without certificates libvirt refuses and the guest stays; with them QEMU encrypts."""
    name, boot = guest_on_h1(site)
    config = site.lab.host("h1").path("/etc/dr/agent.yaml")
    before = config.read_text()
    folders = [site.lab.host(host).path("/etc/pki/qemu") for host in ("h1", "h3")]
    try:
        config.write_text(before + "migration_tls: true\n")
        site.lab.host("h1").kill_service("agent")
        site.wait(site.all_online, 30, "h1 to be back")
        refused = site.lab.ctl.exec([DR, "guest", "migrate", name, "--to", "h3"], env=ENV, check=False)
        assert refused.returncode == 1
        assert "access credentials" in refused.stdout + refused.stderr
        assert_runs_on(site, name, boot, "h1")
        for host, folder in zip(("h1", "h3"), folders, strict=True):
            certify(tmp_path, folder, site.lab.host(host).address("stor"))
        send_to_h3(site, name)
        told = (
            site.lab.host("h1")
            .exec(["virsh", "-q", "qemu-monitor-command", "--hmp", name, "info migrate_parameters"])
            .stdout
        )
        assert re.search(r"tls-creds: '.+'", told), told
        assert_runs_on(site, name, boot, "h3")
    finally:
        for folder in folders:
            for file in folder.glob("*.pem"):
                file.unlink()
        config.write_text(before)
        site.lab.host("h1").kill_service("agent")
        site.wait(site.all_online, 30, "h1 to be back")


def test_the_memory_goes_over_the_network_that_the_destination_names(site: Site) -> None:
    name, boot = guest_on_h1(site)
    h3 = site.lab.host("h3")
    config, address = h3.path("/etc/dr/agent.yaml"), h3.address("mgmt")
    before = config.read_text()
    try:
        config.write_text(f"{before}migration_address: {address}\n")
        h3.kill_service("agent")
        site.wait(site.all_online, 30, "h3 to be back")
        send_to_h3(site, name)
        connections = site.lab.host("h1").exec(["ss", "-Htn", "state", "established"]).stdout
        assert re.search(rf"{re.escape(address)}:49[12]\d\d\b", connections), connections
        assert_runs_on(site, name, boot, "h3")
    finally:
        config.write_text(before)
        h3.kill_service("agent")
        site.wait(site.all_online, 30, "h3 to be back")


def certify(ca: Path, folder: Path, address: str) -> None:
    """A certificate of that host for QEMU at both ends of a migration; `ca`: where the authority is, or is made."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=ca)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    if not (ca / "ca-cert.pem").exists():
        openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=lab",
                "-addext", "keyUsage=critical,keyCertSign", "-days", "2")  # fmt: skip
    openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", f"/CN={address}")
    (ca / "names").write_text(f"subjectAltName=IP:{address}\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
            "-out", "cert.pem", "-days", "2", "-extfile", "names")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ca / "ca-cert.pem", folder)
    for end in ("server", "client"):
        shutil.copy(ca / "cert.pem", folder / f"{end}-cert.pem")
        shutil.copy(ca / "key.pem", folder / f"{end}-key.pem")
        (folder / f"{end}-key.pem").chmod(0o644)


def test_a_suspended_guest_moves_as_it_is(site: Site) -> None:
    """It stays suspended, also when the agent that lets it in is killed at the end; then it goes on there."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]})
    boot = site.lab.guest(name).http().boot
    site.lab.host("h1").exec(["virsh", "-q", "suspend", name])
    site.dr("guest", "migrate", name, "--to", "h3")
    site.lab.host("h3").kill_service("agent")
    site.wait(lambda: not is_defined(site, name, "h1"), 30, "the source to be cleaned up")
    time.sleep(2)
    assert site.lab.guest(name).state_on("h3") == "paused"
    site.lab.host("h3").exec(["virsh", "-q", "resume", name])
    assert_runs_on(site, name, boot, "h3")


def test_called_off(site: Site) -> None:
    """It stays where it is, and its copy goes."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.dr("guest", "cancel-move", name)
    assert_runs_on(site, name, boot, "h1")
    refused = run(site, "guest", "cancel-move", name)
    assert "is not being moved" in refused.stderr


def test_how_far_it_is_can_be_watched(site: Site) -> None:
    """As libvirt counts it, also after the agent was restarted in the middle; and no longer when it has ended."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    (job,) = [row["id"] for row in json.loads(site.dr("job", "list", "--open", "-o", "json"))["items"]]

    def seen() -> dict[str, float]:
        moves = json.loads(site.dr("job", "show", job, "-o", "json"))["item"]["moves"]
        return moves[0] if moves and moves[0]["done_pct"] is not None else {}

    site.wait(lambda: 3 < seen().get("rate_mib_s", 0) < 8, 10, "the rate to be told")
    before = seen()["remaining_mib"]
    site.lab.host("h1").kill_service("agent")
    site.wait(lambda: 0 < seen().get("remaining_mib", 0) < before, 10, "the next agent to tell")
    assert_runs_on(site, name, boot, "h3")
    assert not seen()


# ---- the lost Finish reply


@contextmanager
def finish_reply_lost(site: Site, name: str) -> Iterator[None]:
    """libvirtd on h3 does its Finish, and its answer never arrives. For a guest that is being copied there.

    It is stopped until the request lies in its socket; then it goes on, and what it says is dropped. Dropped from the
    beginning, its acknowledgements would be missed, and the request never be sent.
    """
    h3 = site.lab.host("h3")
    site.lab.faults.freeze_service("h3", "libvirtd")
    wait_for(lambda: site.lab.guest(name).state_on("h1") == "paused", 25, "the switch-over", interval_s=0.1)
    time.sleep(1)
    h3.exec(
        [
            "nft",
            "table inet lost { chain out { type filter hook output priority 0; tcp sport 16509 drop; }; }",
        ]
    )
    site.lab.faults.thaw_service("h3", "libvirtd")
    try:
        yield
    finally:
        h3.exec(["nft", "delete table inet lost"])


def test_bare_libvirt_doubles_a_guest_when_the_finish_reply_is_lost(site: Site) -> None:
    """What dr is there to prevent: without PAUSED both ends run, and both write to the disk."""
    (name,) = site.fresh(1)
    site.start_guests({"h1": [name]}, protect=False)
    slow(site, name)
    to = f"qemu+tcp://{site.lab.host('h3').address('mgmt')}/system"
    moving = site.lab.popen("h1", ["virsh", "migrate", "--live", "--p2p", "--persistent", name, to])
    wait_copying(site, name)
    with finish_reply_lost(site, name):
        wait_for(
            lambda: moving.poll() is not None, GIVEN_UP_S, "the source to give its peer up", interval_s=0.2
        )
    assert moving.returncode != 0
    assert [site.lab.guest(name).state_on(host) for host in ("h1", "h3")] == ["running", "running"]
    wait_for(lambda: site.lab.double_writer(name), 20, "the disk to show two writers")


def test_dr_does_not_double_a_guest_when_the_finish_reply_is_lost(site: Site) -> None:
    """The same loss: the guest goes on at its source, and the copy that waits is destroyed."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    with finish_reply_lost(site, name):
        site.wait(lambda: site.guests()[name]["phase"] == "running", GIVEN_UP_S, "the move to be undone")
    assert_runs_on(site, name, boot, "h1")


def test_dr_does_not_double_a_guest_when_the_destinations_libvirtd_hangs(site: Site) -> None:
    """It comes to itself with the Finish in its queue, when the source has long gone on."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    h1 = site.lab.host("h1")

    def given_up() -> bool:
        job = h1.exec(["virsh", "-q", "domjobinfo", name], check=False).stdout
        return "None" in job and site.lab.guest(name).state_on("h1") == "running"

    site.lab.faults.freeze_service("h3", "libvirtd")
    wait_for(given_up, GIVEN_UP_S, "the source to give its peer up", interval_s=0.2)
    site.lab.faults.thaw_service("h3", "libvirtd")
    assert_runs_on(site, name, boot, "h1")


# ---- what dies in the middle


@pytest.mark.parametrize("host", ["h1", "h3"])
def test_an_agent_is_killed_in_the_middle(site: Site, host: str) -> None:
    """libvirt goes on, and the new agent finds the job or its end: the guest arrives."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.host(host).kill_service("agent")
    assert_runs_on(site, name, boot, "h3")


def test_the_coordinator_is_killed_in_the_middle(site: Site) -> None:
    """The next leader asks the source how it ended, and finishes it."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.ctl.kill_service("coordinator")
    site.wait(site.leads, 30, "the coordinator to lead again")
    assert_runs_on(site, name, boot, "h3")


@pytest.mark.parametrize("host", ["h1", "h3"])
def test_libvirtd_is_killed_in_the_middle(site: Site, host: str) -> None:
    """libvirt gives the job up; the guest goes on at its source, and nothing is left at the other end."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.host(host).kill_service("libvirtd")
    assert_runs_on(site, name, boot, "h1")


def test_power_cut_of_the_destination_in_the_middle(site: Site) -> None:
    """The guest goes on at its source, and may be moved again afterwards."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.host("h3").power_off()
    site.wait(lambda: site.guests()[name]["phase"] == "running", 90, "the move to be undone")
    assert site.guests()[name]["host"] == "h1"
    site.lab.host("h3").power_on()
    site.wait(site.all_online, 90, "h3 to be back")
    assert_runs_on(site, name, boot, "h1")


def test_power_cut_of_the_source_in_the_middle(site: Site) -> None:
    """The half copy is destroyed, and the guest starts cold, once."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.host("h1").power_off()
    site.wait(lambda: boots(site, name) == 2, 120, "the guest to start anew")
    site.wait_running(name, on=["h2", "h3", "h4"], timeout_s=90)
    assert site.lab.guest(name).wait_answering(60).boot != boot
    site.assert_once(name)
    assert boots(site, name) == 2


def test_the_migration_network_is_cut_in_the_middle(site: Site) -> None:
    """The copying stands still; called off, the guest goes on where it was."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.faults.link_down("h3", "stor")
    time.sleep(2)
    assert site.guests()[name]["phase"] == "migrating"
    site.dr("guest", "cancel-move", name)
    site.wait(lambda: site.guests()[name]["phase"] == "running", 60, "the move to be undone")
    site.lab.faults.link_up("h3", "stor")
    assert_runs_on(site, name, boot, "h1")


def test_a_guest_that_is_shut_down_in_the_middle_stays_down(site: Site) -> None:
    """Its owner's will, wherever it was just then."""
    name, _ = guest_on_h1(site)
    send_to_h3(site, name)
    site.lab.guest(name).http("/poweroff")
    site.wait_phase(name, "stopped", 60)
    wait_for(lambda: site.lab.qemu_hosts(name) == [], 20, "no QEMU of it")
    time.sleep(3)
    assert site.lab.qemu_hosts(name) == []
    assert boots(site, name) == 1
    site.assert_single_writer(name)


@pytest.mark.parametrize("how", ["panics", "loses its QEMU"])
def test_a_guest_that_crashes_in_the_middle_is_started_anew(site: Site, how: str) -> None:
    """Once, and nothing is left where it was to go; its job says so."""
    name, boot = guest_on_h1(site)
    send_to_h3(site, name)
    if how == "panics":
        site.lab.guest(name).http("/crash")
    else:
        for pid in qemu_pids(site.lab.host("h1"), name):
            os.kill(pid, signal.SIGKILL)
    site.wait(lambda: boots(site, name) == 2, 90, f"{name} to start anew")
    site.wait_running(name, timeout_s=90)
    assert site.lab.guest(name).wait_answering(60).boot != boot
    (host,) = site.lab.qemu_hosts(name)
    others = [each for each in site.lab.host_names if each != host]
    site.wait(
        lambda: not any(is_defined(site, name, each) for each in others), 30, "leftovers to be cleaned up"
    )
    assert boots(site, name) == 2
    site.assert_once(name)


# ---- nobody leads while the copy waits


def left_without_a_leader(site: Site, name: str) -> None:
    """It has left h1, its copy waits on h3, and the coordinator was down all the while."""
    send_to_h3(site, name)
    site.lab.ctl.kill_service("coordinator", stay_down=True)
    wait_for(lambda: site.lab.qemu_hosts(name) == ["h3"], 40, "it to leave h1")
    time.sleep(1)
    assert site.lab.guest(name).state_on("h3") == "paused"


def test_a_copy_waits_for_a_leader(site: Site) -> None:
    """Not made to run by anybody: `virsh resume` is undone. The next leader has it run."""
    name, boot = guest_on_h1(site)
    left_without_a_leader(site, name)
    site.lab.host("h3").exec(["virsh", "-q", "resume", name])
    wait_for(lambda: site.lab.guest(name).state_on("h3") == "paused", 20, "its copy to be suspended again")
    site.lab.ctl.start_service("coordinator")
    site.wait(site.leads, 30, "the coordinator to lead again")
    assert_runs_on(site, name, boot, "h3")


def test_a_copy_whose_source_was_lost_untold_is_never_resumed(site: Site) -> None:
    """Nobody heard the source say that it left: the copy may be older than the disk, so the guest starts cold."""
    name, boot = guest_on_h1(site)
    left_without_a_leader(site, name)
    site.lab.host("h1").power_off()
    site.lab.ctl.start_service("coordinator")
    site.wait(lambda: boots(site, name) == 2, 120, "the guest to start anew")
    site.wait_running(name, on=["h2", "h3", "h4"], timeout_s=90)
    assert site.lab.guest(name).wait_answering(60).boot != boot
    site.assert_once(name)
