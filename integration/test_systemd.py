"""A host of the lab with a real systemd as its PID 1: what its orderly reboot or power-off does to guests and units."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lab import Guest, Lab, Machine, guests
from integration.lab.proc import wait_for
from integration.test_lab import left_over, ping

LAB = "labsystemd"
# What is ordered after is stopped before. Its end takes a while and is told of on the disk.
SLOW_END = """\
[Unit]
After=libvirt-guests.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'sleep 3; virsh list --name > /var/lib/dr/guests-then'

[Install]
WantedBy=multi-user.target
"""
# Ready after a second, with folders of its own; it feeds its watchdog until it is told to hang.
NOTIFIES = """\
[Service]
Type=notify
NotifyAccess=all
WatchdogSec=5
Restart=always
RestartSec=100ms
StateDirectory=dr/agent
RuntimeDirectory=dr
ExecStart=/usr/local/bin/dr agent

[Install]
WantedBy=multi-user.target
"""
FEEDS = """\
[Service]
ExecStart=
ExecStart=/bin/sh -c 'echo start >> $STATE_DIRECTORY/starts; cd $RUNTIME_DIRECTORY; sleep 1; systemd-notify --ready; \\
  while [ ! -e /run/hang ]; do systemd-notify WATCHDOG=1; sleep 0.5; done; sleep 1000'
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab(LAB)
    lab.down()
    before = real_machine()
    lab.up(hosts=1)
    lab.host("h1").boots = "systemd"
    lab.host("h1").reboot()
    yield lab
    lab.down()
    assert left_over(LAB) == []
    assert {
        name: (was, now) for name, now in real_machine().items() if (was := before.get(name)) != now
    } == {}


@pytest.fixture
def host(lab: Lab) -> Iterator[Machine]:
    host = lab.host("h1")
    lab.faults.heal()
    host.wait_ready()
    yield host
    for name in host.systemd.units():
        host.systemd.remove(name)


@pytest.fixture
def guest(lab: Lab, host: Machine) -> Iterator[Guest]:
    guest = lab.define_guest("g1", host.name, start=True)
    guest.wait_answering()
    yield guest
    lab.faults.heal()
    host.wait_ready()
    guest.remove()


def real_machine() -> dict[str, str]:
    """What a careless systemd would change here: sysctls, swap, mounts, folders. Without what changes by itself."""
    seen = {}
    for file in Path("/proc/sys").rglob("*"):
        if file.parts[3] == "net" or file.name.startswith(
            ("dentry-", "file-nr", "inode-", "ns_last", "perf_", "pty")
        ):
            continue
        if not {"random", "quota"} & set(file.parts) and file.is_file():
            try:
                seen[str(file)] = file.read_text()
            except OSError:  # write-only ones
                continue
    seen["swap"] = Path("/proc/swaps").read_text()
    mounts = Path("/proc/mounts").read_text().splitlines()
    seen["mounts"] = "\n".join(line for line in mounts if "/dr-" not in line)
    for folder in ("/etc", "/dev", "/usr/lib/systemd", "/var", "/var/lib", "/var/lib/systemd", "/var/log"):
        files = [file for file in Path(folder).iterdir() if not file.name.startswith("loop")]
        seen[folder] = " ".join(
            sorted(f"{file} {file.lstat().st_ctime_ns}" for file in files if file.is_symlink())
        )
        seen[folder] += " ".join(sorted(map(str, files)))
    seen["/tmp"] = " ".join(map(str, [*Path("/tmp").glob("systemd-*"), *Path("/var/tmp").glob("systemd-*")]))
    return seen


def on_disk(host: Machine, path: str) -> str:
    file = host.directory / "disk" / path
    return file.read_text() if file.exists() else ""


def test_it_boots_and_a_guest_has_a_scope_of_its_own(host: Machine, guest: Guest) -> None:
    assert host.systemctl("is-system-running", "--wait") == "running"
    assert host.exec(["ps", "-o", "comm=", "1"]).stdout.strip() == "systemd"
    assert "systemd-logind" in host.exec(["busctl", "status", "org.freedesktop.login1"]).stdout
    assert f"qemu-1-{guest.name}" in host.exec(["machinectl", "list"]).stdout


def test_power_off_shuts_guests_down_and_the_host_stays_off(lab: Lab, host: Machine, guest: Guest) -> None:
    host.systemctl("poweroff", check=False)
    host.wait_off()
    assert not ping(lab, "ctl", host.address("mgmt"))
    assert "reason=shutdown" in on_disk(host, f"var/log/libvirt/qemu/{guest.name}.log").splitlines()[-1]
    time.sleep(2)
    assert not host.is_on()


def test_a_host_that_reboots_comes_back_with_another_boot_id(lab: Lab, host: Machine) -> None:
    before = host.boot_id
    host.systemctl("reboot", check=False)
    host.wait_rebooted(before)
    assert host.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip() == host.boot_id != before
    assert any(ping(lab, "ctl", host.address("mgmt")) for _ in range(4))


def test_a_delay_inhibitor_holds_the_shutdown_up(host: Machine) -> None:
    before = host.boot_id
    inhibit = ["systemd-inhibit", "--what=shutdown", "--mode=delay", "--who=lab"]
    with host.popen([*inhibit, "sleep", "1000"]) as held:
        wait_for(
            lambda: "lab" in host.exec([*inhibit[:1], "--list"]).stdout, 10, "the inhibitor", interval_s=0.1
        )
        host.systemctl("reboot", check=False)
        time.sleep(2)  # of the 5 that logind waits at most
        assert host.systemctl("is-system-running", check=False) == "running"
        held.kill()
    host.wait_rebooted(before)


def test_what_is_ordered_after_libvirt_guests_ends_while_guests_run(host: Machine, guest: Guest) -> None:
    host.install_unit("slow-end.service", SLOW_END)
    host.systemctl("start", "slow-end")
    host.systemctl("poweroff", check=False)
    host.wait_off()
    assert on_disk(host, "var/lib/dr/guests-then").split() == [guest.name]


def test_a_unit_that_notifies_is_watched_and_there_at_each_boot(host: Machine) -> None:
    host.install_unit("dr-agent.service", NOTIFIES, FEEDS)
    began = time.monotonic()
    host.systemctl("start", "dr-agent")
    assert time.monotonic() - began >= 1
    assert host.path("/run/dr").is_dir()
    host.exec(["touch", "/run/hang"])
    wait_for(lambda: on_disk(host, "var/lib/dr/agent/starts").count("start") > 1, 15, "the watchdog to bite")
    host.reboot()
    host.wait_ready()
    wait_for(
        lambda: host.systemctl("is-active", "dr-agent", check=False) == "active", 10, "it to start at boot"
    )


def test_a_power_cut_amid_a_shutdown_leaves_nothing_and_it_stays_off(host: Machine, guest: Guest) -> None:
    host.install_unit("slow-end.service", SLOW_END)
    host.systemctl("start", "slow-end")
    host.systemctl("reboot", check=False)
    wait_for(
        lambda: host.systemctl("is-active", "slow-end", check=False) == "deactivating", 20, "the shutdown"
    )
    host.power_off()
    assert host.cgroup.pids() == []
    time.sleep(2)
    assert not host.is_on()


def test_every_process_of_it_freezes_and_dies_with_it(host: Machine, guest: Guest) -> None:
    first = host.pid1()
    assert first
    namespace = Path(f"/proc/{first.pid}/ns/pid").readlink()
    inside = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").readlink() == namespace:
                inside.add(int(entry.name))
        except OSError:
            continue
    assert set(guests.qemu_pids(host, guest.name)) < inside <= set(host.cgroup.pids())


@pytest.mark.parametrize(
    "path", ["/etc/new", "/usr/lib/systemd/new", "/var/lib/new", "/proc/sys/kernel/panic"]
)
def test_it_cannot_write_what_is_the_real_machines(host: Machine, path: str) -> None:
    tried = host.exec(["sh", "-c", f"echo 1 > {path}"], check=False)
    assert "Read-only" in tried.stderr
