"""The lab itself: what every other test in this folder relies on. Real machines, guests, BMCs and faults."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.lab import Lab, LabError, MachineFrozen, MachineOff, netns
from integration.lab.proc import Process, process, wait_for

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab("labtest")
    lab.down()
    lab.up(hosts=3)
    yield lab
    lab.down()
    assert left_over("labtest") == []


@pytest.fixture(autouse=True)
def healed(lab: Lab) -> Iterator[None]:
    yield
    lab.faults.heal()
    for machine in lab.machines:
        machine.wait_ready()


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[Callable[[str, str], None]]:
    """Starts guests and removes them afterwards, so that no test begins with another's guests."""
    made: list[str] = []

    def make(name: str, host: str) -> None:
        made.append(name)
        lab.define_guest(name, host, start=True)

    yield make
    lab.faults.heal()
    for machine in lab.hosts:
        machine.wait_ready()
    for name in made:
        lab.guest(name).remove()


def left_over(name: str) -> list[str]:
    """Namespaces, mounts, cgroups, files and processes of a lab that should be gone."""
    found = [entry.name for entry in Path("/run/netns").glob(f"dr-{name}-*")]
    found += [
        line for line in Path("/proc/mounts").read_text().splitlines() if f"/var/tmp/dr-{name}/" in line
    ]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/dr-{name}-*")]
    found += [str(path) for path in [Path(f"/var/tmp/dr-{name}")] if path.exists()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"/var/tmp/dr-{name}/" in words:
            found.append(words)
    return found


def ping(lab: Lab, source: str, address: str) -> bool:
    return lab.exec(source, ["ping", "-c1", "-W1", address], check=False).returncode == 0


def reaches(lab: Lab, source: str, address: str) -> bool:
    """Within the seconds that ARP takes to try again after it had failed, as on any host."""
    return any(ping(lab, source, address) for _ in range(4))


def fence(lab: Lab, host: str, action: str) -> tuple[int, str]:
    bmc = lab.bmc(host)
    stdin = (
        f"ip={bmc.address}\nusername={bmc.user}\npassword={bmc.password}\nlanplus=1\ncipher=3\n"
        f"power_wait=0\naction={action}\n"
    )
    done = lab.exec("ctl", ["fence_ipmilan"], stdin=stdin, check=False)
    return done.returncode, done.stdout.strip()


def guid_seen(lab: Lab, host: str) -> str:
    bmc = lab.bmc(host)
    argv = ["ipmitool", "-I", "lanplus", "-C", "3", "-H", bmc.address, "-U", bmc.user, "-P", bmc.password]
    return lab.exec("ctl", [*argv, "mc", "guid"]).stdout.split()[3]


# -- machines ----------------------------------------------------------------------------------------------


def test_each_machine_is_one_of_its_own(lab: Lab) -> None:
    boots = {machine.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout for machine in lab.machines}
    ids = {machine.exec(["cat", "/etc/machine-id"]).stdout for machine in lab.machines}
    assert len(boots) == len(ids) == 4
    for host in lab.hosts:
        assert host.exec(["hostname"]).stdout.strip() == host.name
        assert str(host.uuid) in host.exec(["virsh", "capabilities"]).stdout
        assert ping(lab, "ctl", host.address("mgmt"))
        assert ping(lab, "ctl", host.address("bmc"))
    assert ping(lab, "h1", "10.82.0.12")
    assert ping(lab, "h1", "10.82.0.3")
    remote = lab.exec("h1", ["virsh", "-c", "qemu+tcp://10.82.0.12/system", "hostname"])
    assert remote.stdout.strip() == "h2"


def test_ssh_with_the_lab_key(lab: Lab, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(lab.known_hosts())
    argv = ["ssh", "-i", str(lab.ssh_key), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
    assert lab.exec("ctl", [*argv, "root@h2", "hostname"]).stdout.strip() == "h2"


def test_up_again_changes_nothing_that_works(lab: Lab) -> None:
    before = {machine.name: (machine.pid1(), machine.boot_id) for machine in lab.machines}
    began = time.monotonic()
    lab.up(hosts=3)
    assert time.monotonic() - began < 5
    assert before == {machine.name: (machine.pid1(), machine.boot_id) for machine in lab.machines}


def test_exec_ends_with_its_caller(lab: Lab) -> None:
    host = lab.host("h1")
    with pytest.raises(subprocess.TimeoutExpired):
        host.exec(["sleep", "777"], timeout_s=0.3)
    wait_for(
        lambda: "sleep 777" not in host.exec(["ps", "ax", "-o", "args"]).stdout, 20, "sleep 777 to be gone"
    )
    with pytest.raises(LabError, match="exit 3 on h1"):
        host.exec(["sh", "-c", "exit 3"])


def test_services(lab: Lab) -> None:
    host = lab.host("h1")
    script = 'echo "boot $(date +%s) $GREETING"; exec sleep 1000'
    began = time.monotonic()
    host.install_service("sleeper", ["/bin/sh", "-c", script], env={"GREETING": "hello"})
    assert time.monotonic() - began < 5
    first = host.service_pid("sleeper")
    assert first is not None
    assert "sleep" in Path(f"/proc/{first}/cmdline").read_text()
    host.kill_service("sleeper")
    began = time.monotonic()
    assert host.service_pid("sleeper") is None
    wait_for(lambda: host.service_pid("sleeper") is not None, 20, "the restart")
    assert 0.8 < time.monotonic() - began < 5
    host.kill_service("sleeper", stay_down=True)
    time.sleep(1.5)
    assert host.service_pid("sleeper") is None
    host.start_service("sleeper")
    time.sleep(1.1)  # runsv starts nothing twice within a second
    began = time.monotonic()
    host.stop_service("sleeper")
    host.start_service("sleeper")
    assert time.monotonic() - began < 3
    host.reboot()
    wait_for(lambda: host.service_pid("sleeper") is not None, 20, "the start at power-on")
    assert "hello" in host.service_log("sleeper")
    host.remove_service("sleeper")
    assert host.service_pid("sleeper") is None
    host.install_service("sleeper", ["sleep", "5"])
    host.remove_service("sleeper")


def test_libvirtd_killed_comes_back_and_its_guests_live(
    lab: Lab, make_guest: Callable[[str, str], None]
) -> None:
    make_guest("g1", "h1")
    lab.guest("g1").wait_answering()
    (qemu,) = lab.running_on("g1")["h1"].qemu_pids
    lab.host("h1").kill_service("libvirtd")
    assert lab.qemu_hosts("g1") == ["h1"]
    wait_for(lambda: lab.host("h1").service_pid("libvirtd") is not None, 20, "libvirtd to be restarted")
    lab.host("h1").wait_ready()
    presence = lab.running_on("g1")["h1"]
    assert (presence.libvirt_state, presence.qemu_pids) == ("running", (qemu,))


# -- power and BMC -----------------------------------------------------------------------------------------


def test_power_off_takes_everything_and_keeps_the_disk(
    lab: Lab, make_guest: Callable[[str, str], None]
) -> None:
    host = lab.host("h1")
    make_guest("g1", "h1")
    lab.guest("g1").wait_answering()
    host.exec(["sh", "-c", "echo kept > /var/lib/dr/note; echo lost > /run/note"])
    old_boot, inside = host.boot_id, [process(pid) for pid in host.cgroup.pids()]
    with lab.poller(["g1"]) as poller:
        time.sleep(0.3)
        cut = time.monotonic()
        host.power_off()
        assert time.monotonic() - cut < 5
        time.sleep(0.3)
        gap = poller.outages()["g1"][-1]
        assert cut - 1 < gap.last_answer_s < cut + 1
    assert not any(one.alive() for one in inside if one)
    assert lab.qemu_hosts("g1") == []
    with pytest.raises(MachineOff, match="power-on h1"):
        host.exec(["true"])
    assert not ping(lab, "h2", host.address("mgmt"))
    assert ping(lab, "ctl", host.address("bmc")), "a BMC has standby power"
    host.power_on()
    host.wait_ready()
    assert host.boot_id != old_boot
    assert host.exec(["cat", "/var/lib/dr/note"]).stdout == "kept\n"
    assert host.exec(["cat", "/run/note"], check=False).returncode != 0
    assert "g1" in host.exec(["virsh", "list", "--all", "--name"]).stdout


def test_fencing_through_the_bmc(lab: Lab) -> None:
    host = lab.host("h2")
    old_boot = host.boot_id
    assert guid_seen(lab, "h2") == lab.bmc("h2").guid != lab.bmc("h1").guid
    assert fence(lab, "h2", "status") == (0, "Status: ON")
    began = time.monotonic()
    assert fence(lab, "h2", "off")[0] == 0
    assert time.monotonic() - began < 10
    assert not host.is_on()
    assert fence(lab, "h2", "status") == (2, "Status: OFF")
    assert fence(lab, "h2", "off")[0] == 0, "already off is a success"
    assert fence(lab, "h2", "on")[0] == 0
    assert host.is_on()
    assert host.boot_id != old_boot


def test_bmc_lies(lab: Lab) -> None:
    lab.faults.bmc_lie("h1", "lie-off")
    assert fence(lab, "h1", "status")[0] == 2
    assert lab.host("h1").is_on()
    lab.faults.bmc_lie("h1", "ignore")
    bmc = lab.bmc("h1")
    ipmitool = ["ipmitool", "-I", "lanplus", "-C", "3", "-H", bmc.address, "-U", bmc.user, "-P", bmc.password]
    assert lab.exec("ctl", [*ipmitool, "chassis", "power", "off"]).returncode == 0
    assert lab.host("h1").is_on()
    assert fence(lab, "h1", "status")[0] == 0
    lab.faults.bmc_swap("h1", "h3")
    assert guid_seen(lab, "h1") == lab.bmc("h3").guid
    assert fence(lab, "h1", "off")[0] == 0
    assert lab.host("h1").is_on()
    assert not lab.host("h3").is_on()
    lab.faults.heal()
    assert guid_seen(lab, "h1") == bmc.guid
    lab.faults.bmc_dead("h1")
    assert not ping(lab, "ctl", bmc.address)
    lab.faults.bmc_alive("h1")
    assert reaches(lab, "ctl", bmc.address)


# -- network, freezing, disk, clock ------------------------------------------------------------------------


def test_links_and_drops(lab: Lab) -> None:
    faults, h2 = lab.faults, "10.81.0.12"
    faults.link_down("h2", "mgmt")
    assert not ping(lab, "ctl", h2)
    assert ping(lab, "h1", "10.82.0.12"), "the storage network still works"
    faults.link_up("h2", "mgmt")
    assert reaches(lab, "ctl", h2)
    faults.drop("h2", "mgmt", "out")
    before = int(lab.exec("h2", ["cat", "/sys/class/net/mgmt0/statistics/rx_packets"]).stdout)
    assert not ping(lab, "ctl", h2)
    after = int(lab.exec("h2", ["cat", "/sys/class/net/mgmt0/statistics/rx_packets"]).stdout)
    assert after > before, "the other direction still works"
    faults.undrop("h2")
    faults.loss("h2", "mgmt", 50)
    out = lab.exec("ctl", ["ping", "-c40", "-i0.02", "-W1", h2], check=False).stdout
    lost = float(out.partition("% packet loss")[0].split()[-1])
    assert 40 < lost < 98, f"half is lost in each direction, so about 75 %: {lost}"
    faults.heal()
    faults.drop("h2", "stor", "both", peer="h1")
    assert not ping(lab, "h1", "10.82.0.12")
    assert ping(lab, "h3", "10.82.0.12")
    faults.storage_cut("h3")
    assert not ping(lab, "h3", "10.82.0.3")
    assert ping(lab, "h3", "10.82.0.12")
    faults.storage_cut()
    assert not ping(lab, "h1", "10.82.0.3")
    faults.storage_restore()
    assert reaches(lab, "h1", "10.82.0.3")


def test_a_slow_link_is_slow_each_way(lab: Lab) -> None:
    """Also after the machine was off, and only until it is healed."""
    slow, whole = pytest.approx(8, abs=4), 16
    lab.faults.slow("h1", "stor", 10)
    assert mib_s(lab, "h1", "h2", whole) == slow
    assert mib_s(lab, "h3", "h1", whole) == slow
    assert mib_s(lab, "h2", "h3", whole) > 15
    lab.host("h1").reboot()
    assert mib_s(lab, "h1", "h2", whole) == slow
    lab.faults.slow("h1", "stor", 40)
    assert mib_s(lab, "h1", "h2", whole) > 15
    lab.faults.slow("h1", "stor", 10)
    lab.faults.heal()
    assert mib_s(lab, "h1", "h2", whole) > 15
    assert mib_s(lab, "h3", "h1", whole) > 15


def mib_s(lab: Lab, source: str, destination: str, mib: int) -> float:
    """How fast one TCP connection is in the storage network, until the last byte is there."""
    kind = socket.AF_INET, socket.SOCK_STREAM
    with (
        netns.open_socket(lab.layout.netns_path(destination), *kind) as listener,
        netns.open_socket(lab.layout.netns_path(source), *kind) as sender,
        ThreadPoolExecutor() as beside,
    ):
        listener.bind((lab.host(destination).address("stor"), 0))
        listener.listen()
        sender.connect(listener.getsockname())
        began = time.monotonic()
        sending = beside.submit(sender.sendall, bytes(mib << 20))
        with listener.accept()[0] as receiver:
            left = mib << 20
            while left:
                left -= len(receiver.recv(1 << 20))
        sending.result()
        return mib / (time.monotonic() - began)


def test_a_rebooted_machine_is_reached_at_once(lab: Lab) -> None:
    """Its MAC addresses are the same, so nobody's ARP entry is wrong."""
    assert ping(lab, "ctl", "10.81.0.13")
    lab.host("h3").reboot()
    assert ping(lab, "ctl", "10.81.0.13")


def test_a_fault_outlives_a_power_cycle_where_it_would(lab: Lab) -> None:
    lab.faults.link_down("h1", "mgmt")
    lab.faults.freeze("h1")
    lab.host("h1").reboot()
    assert not lab.host("h1").is_frozen()
    assert [fault.kind for fault in lab.faults.active("h1")] == ["link"]
    assert not ping(lab, "ctl", "10.81.0.11")
    lab.faults.heal("h1")
    assert reaches(lab, "ctl", "10.81.0.11")


def test_freeze_and_thaw_a_machine(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    make_guest("g1", "h1")
    guest = lab.guest("g1")
    before = guest.wait_answering()
    with lab.poller(["g1"]) as poller:
        lab.faults.freeze("h1")
        frozen = time.monotonic()
        assert not ping(lab, "ctl", "10.81.0.11")
        with pytest.raises(MachineFrozen):
            lab.exec("h1", ["true"])
        assert fence(lab, "h1", "status")[0] == 0, "its power is on"
        records = guest.disk_report().records
        time.sleep(1)
        assert guest.disk_report().records == records
        lab.faults.thaw("h1")
        thawed = time.monotonic()
        poller.wait_all_answering(5)
        gap = poller.outages()["g1"][-1]
        assert gap.last_answer_s < frozen
        assert gap.first_answer_s is not None
        assert gap.first_answer_s > thawed - 0.1
    assert guest.http().boot == before.boot
    assert lab.running_on("g1")["h1"].libvirt_state == "running"


def test_power_off_of_a_frozen_machine(lab: Lab) -> None:
    lab.faults.freeze("h3")
    assert fence(lab, "h3", "off")[0] == 0
    assert not lab.host("h3").is_on()


def test_freeze_a_service(lab: Lab) -> None:
    lab.faults.freeze_service("h1", "libvirtd")
    pid = lab.host("h1").service_pid("libvirtd")
    assert "State:\tT" in Path(f"/proc/{pid}/status").read_text()
    assert ping(lab, "ctl", "10.81.0.11")
    lab.faults.thaw_service("h1", "libvirtd")
    lab.exec("h1", ["virsh", "list"], timeout_s=5)


def test_disk_full_and_free(lab: Lab) -> None:
    write = ["dd", "if=/dev/zero", "of=/var/lib/dr/file", "bs=64k", "count=1"]
    lab.faults.disk_full("h1")
    assert "No space left" in lab.exec("h1", write, check=False).stderr
    lab.faults.disk_free("h1")
    lab.exec("h1", write)


def test_clock_jump_of_one_service(lab: Lab) -> None:
    host = lab.host("h1")
    script = "while :; do date +%s; sleep 0.1; done"
    host.install_service("clock", ["/bin/sh", "-c", script], faketime=True)
    lab.faults.clock_jump("h1", "clock", 86400)

    def offset() -> float:
        lines = host.service_log("clock").split()
        return float(lines[-1]) - time.time() if lines else 0.0

    wait_for(lambda: 86000 < offset() < 87000, 20, "the clock to jump")
    lab.faults.heal("h1")
    wait_for(lambda: abs(offset()) < 100, 20, "the clock to be right again")
    host.remove_service("clock")


# -- guests ------------------------------------------------------------------------------------------------


def test_guests_run_and_end_in_every_way(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    for index in (1, 2, 3):
        make_guest(f"g{index}", f"h{index}")
    answers = [lab.guest(f"g{index}").wait_answering() for index in (1, 2, 3)]
    assert len({answer.boot for answer in answers}) == 3
    counter = lab.guest("g1").http().counter
    wait_for(lambda: lab.guest("g1").http().counter >= counter + 5, 20, "the counter to go on")
    assert lab.guest("g1").http("/dirty?rate=8").dirty_mib_s == 8
    lab.guest("g1").shutdown("h1")
    lab.guest("g2").http("/crash")
    lab.guest("g3").http("/poweroff")
    wait_for(lambda: not any(lab.qemu_hosts(f"g{index}") for index in (1, 2, 3)), 8, "all three to end")
    reasons = [
        lab.exec(f"h{index}", ["virsh", "domstate", f"g{index}", "--reason"]).stdout.strip()
        for index in (1, 2, 3)
    ]
    assert reasons == ["shut off (shutdown)", "shut off (crashed)", "shut off (shutdown)"]


def test_one_writer_after_another_is_innocent(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    make_guest("g1", "h1")
    guest = lab.guest("g1")
    guest.wait_answering()
    lab.host("h1").power_off()
    lab.define_guest("g1", "h2", start=True)
    wait_for(lambda: guest.answers() and guest.http().counter > 20, 20, "the second boot to write")
    report = guest.disk_report()
    assert len(report.boots) == 2
    assert not report.second_writer, report.evidence
    assert list(lab.running_on("g1")) == ["h2"]


def test_a_double_start_is_proven(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    make_guest("g1", "h1")
    guest = lab.guest("g1")
    guest.wait_answering()
    lab.define_guest("g1", "h2", start=True)
    assert lab.qemu_hosts("g1") == ["h1", "h2"]
    wait_for(lambda: lab.double_writer("g1"), 15, "the disk to show the second writer")
    guest.destroy("h1")
    time.sleep(2)
    guest.destroy("h2")
    report = guest.disk_report()
    assert report.second_writer, "the trace stays when both are gone"
    assert len(report.boots) == 2


def test_twins_of_one_boot_are_proven(
    lab: Lab, make_guest: Callable[[str, str], None], tmp_path: Path
) -> None:
    """What a lost Finish reply makes of a migration: the same memory runs on in two places."""
    make_guest("g1", "h1")
    guest = lab.guest("g1")
    guest.wait_answering()
    image = str(tmp_path / "g1.save")
    lab.exec("h1", ["virsh", "save", "g1", image])
    lab.exec("h1", ["virsh", "restore", image])
    time.sleep(1)
    assert not lab.double_writer("g1"), guest.disk_report().evidence
    lab.exec("h2", ["virsh", "restore", image])
    wait_for(lambda: lab.double_writer("g1"), 10, "the disk to show the twin")
    assert len(guest.disk_report().boots) == 1


def test_live_migration_has_one_writer(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    make_guest("g1", "h1")
    guest = lab.guest("g1")
    boot = guest.wait_answering().boot
    with lab.poller(["g1"]) as poller:
        lab.exec("h1", ["virsh", "migrate", "--live", "g1", "qemu+tcp://10.82.0.12/system"])
        time.sleep(0.5)
        gaps = [gap.length_s for gap in poller.outages()["g1"]]
    assert all(gap is not None and gap < 5 for gap in gaps), gaps
    assert lab.qemu_hosts("g1") == ["h2"]
    assert guest.http().boot == boot
    assert not lab.double_writer("g1"), guest.disk_report().evidence


def test_an_io_error_pauses_the_guest(lab: Lab, make_guest: Callable[[str, str], None]) -> None:
    make_guest("g1", "h1")
    lab.guest("g1").wait_answering()
    lab.faults.disk_server_stop("g1")
    wait_for(lambda: lab.guest("g1").state_on("h1") == "paused", 10, "the guest to pause")
    lab.faults.heal()


# -- up and down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_s", [0.15, 0.5, 0.9, 1.5])
def test_up_killed_at_any_moment_comes_up_again(after_s: float) -> None:
    env = {**os.environ, "DR_LAB": "labkill"}
    argv = [sys.executable, "-m", "integration.lab"]
    up = subprocess.Popen([*argv, "up", "--hosts", "1"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    time.sleep(after_s)
    up.send_signal(signal.SIGKILL)
    up.wait()
    try:
        if after_s < 1:
            lab = Lab("labkill").up(hosts=1)
            assert lab.exec("h1", ["virsh", "-q", "list"]).returncode == 0
    finally:
        Lab("labkill").down()
    assert left_over("labkill") == []


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    leader_ends_first = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "print(flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", leader_ends_first], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        stat = Path(f"/proc/{child.pid}/stat")
        wait_for(lambda: ") Z " in stat.read_text(), 20, "its first thread to end")
        one = process(child.pid)
        assert one
        assert one.alive()
        child.stdin.close()
        wait_for(lambda: not one.alive(), 20, "its last thread to end")


def test_a_pid_that_was_reused_is_never_hit(lab: Lab) -> None:
    own = process(os.getpid())
    assert own is not None
    assert not Process(own.pid, own.start_ticks - 1).signal(signal.SIGTERM)
