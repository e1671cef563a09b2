"""What tests of fencing, coordinator and return share: a site with guests, the coordinator's log, the outside truth.

Not here: how a site is built (integration.site), what must hold (integration/test_*.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from integration.conftest import Sites, Wanted
from integration.lab import LabError
from integration.lab.machine import Machine
from integration.lab.proc import Process
from integration.site import DR, ENV, Site

GUESTS = ("g1", "g2", "g3")
# One host after another is lost here within seconds, which on a real site the brake and the flap limit would stop.
SETTINGS = """\
timers: {settle_s: 1.0, fence_s: 4.0, fence_retry_s: 2.0, recovery_retry_s: 2.0}
limits: {brake_window_s: 0.5, fences_per_window: 1000, returns_per_window: 1000}
"""
WANTED = Wanted(hosts=3, settings=SETTINGS)
MOVED_S = 40.0
REFUSED = 107


class Log:
    """The coordinator's log from now on, read from outside: it outlives the coordinator and costs it nothing."""

    def __init__(self, site: Site) -> None:
        self._file = site.lab.ctl.directory / "disk/var/log/dr/coordinator.log"
        self._offset = self._parsed_to = self._file.stat().st_size
        self._parsed: list[dict[str, Any]] = []

    def text(self) -> str:
        """All that was written since this object was made."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode(errors="replace")

    def lines(self, kind: str = "", host: str = "") -> list[dict[str, Any]]:
        """Decisions of that kind (and host); what is no complete JSON line is left out."""
        with self._file.open("rb") as file:  # only what is new: `wait` asks a thousand times a second
            file.seek(self._parsed_to)
            whole = file.read().rpartition(b"\n")
        self._parsed_to += len(whole[0]) + len(whole[1])
        for text in whole[0].splitlines():
            with suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    self._parsed.append(line)
        return [
            line for line in self._parsed if kind in ("", line.get("kind")) and host in ("", line.get("host"))
        ]

    def wait_alert(self, key: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """The alert of that key, as the notifier logged it."""
        end = time.monotonic() + timeout_s
        while not (
            found := [line for line in self.lines() if line.get("key") == key and not line["cleared"]]
        ):
            if time.monotonic() > end:
                raise TimeoutError(f"no alert {key} within {timeout_s} s:\n{self.text()[-4000:]}")
            time.sleep(0.02)
        return found[0]

    def kinds(self) -> list[str]:
        """Kinds of all decisions, in order."""
        return [line["kind"] for line in self.lines() if line.get("kind")]

    def wait(self, kind: str, timeout_s: float = 15.0, *, host: str = "", count: int = 1) -> dict[str, Any]:
        """The decision of that kind, within a millisecond of its being logged."""
        end = time.monotonic() + timeout_s
        while len(found := self.lines(kind, host)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"no {kind} {host} within {timeout_s} s:\n{self.text()[-4000:]}")
            time.sleep(0.001)
        return found[count - 1]


class Places:
    """Where guests ran and how often each had booted, when this was made. From outside: processes and disks."""

    def __init__(self, site: Site, names: tuple[str, ...] = GUESTS) -> None:
        self.site = site
        self.names = names
        self.host = {name: self.only_host(name) for name in names}
        self.boots = {name: boots(site, name) for name in names}

    def only_host(self, name: str) -> str:
        """The one host with a QEMU of it."""
        places = self.site.lab.qemu_hosts(name)
        assert len(places) == 1, f"{name} runs on {places}"
        return places[0]

    def fullest(self) -> str:
        """The host with most of the guests."""
        return Counter(self.host.values()).most_common(1)[0][0]

    def on(self, host: str) -> list[str]:
        """The guests that ran on that host."""
        return [name for name in self.names if self.host[name] == host]

    def assert_unmoved(self) -> None:
        """Every guest still runs where it ran, in the same boot; nobody else wrote to its disk."""
        self.site.assert_once(*self.names)
        for name in self.names:
            assert self.only_host(name) == self.host[name], f"{name} was moved"
            assert boots(self.site, name) == self.boots[name], f"{name} was restarted"

    def assert_moved_once(self, lost: str) -> None:
        """What ran on the lost host was started elsewhere exactly once; nothing else was touched."""
        for name in self.on(lost):
            self.site.lab.guest(name).wait_answering(30)
        self.site.assert_once(*self.names)
        for name in self.names:
            was_lost = self.host[name] == lost
            assert (self.only_host(name) != lost) if was_lost else (self.only_host(name) == self.host[name])
            expected = self.boots[name] + (1 if was_lost else 0)
            seen = boots(self.site, name)
            assert seen == expected, f"{name} booted {seen - self.boots[name]} times"

    def wait_moved(self, lost: str, timeout_s: float = MOVED_S) -> None:
        """Until every guest of the lost host has a QEMU elsewhere, and then `assert_moved_once`."""
        wait_for(
            self.site,
            lambda: all(
                [host for host in self.site.lab.qemu_hosts(name) if host != lost] for name in self.on(lost)
            ),
            timeout_s,
            f"guests of {lost} elsewhere",
        )
        self.assert_moved_once(lost)


def wait_for(site: Site, condition: Any, timeout_s: float, what: str) -> None:
    """`Site.wait`, looking every 20 ms: for conditions that ask nobody."""
    site.wait(condition, timeout_s, what, every_s=0.02)


def boots(site: Site, name: str) -> int:
    """How often a guest has booted, as its disk tells."""
    return len(site.lab.guest(name).disk_report().boots)


def run(site: Site, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A `dr` command on ctl with all that it says, whatever its exit code."""
    return site.lab.ctl.exec([DR, *words], env=ENV, check=False, timeout_s=timeout_s)


def command_lines(machine: Machine) -> list[str]:
    """Command lines of everything that runs on a machine now."""
    found = []
    for pid in machine.cgroup.pids():
        with suppress(OSError):
            found.append(
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
    return found


def coordinator(site: Site) -> Process:
    """The coordinator's process now."""
    process = site.lab.ctl.services.process("coordinator")
    assert process is not None, "the coordinator does not run"
    return process


def reload(site: Site, settings: str = SETTINGS, *, replace: tuple[str, str] = ("", "")) -> None:
    """Write another configuration and have the running coordinator take it. `replace`: old and new text of it."""
    log = Log(site)
    site.write_config(settings)
    if replace[0]:
        file = site.lab.ctl.path("/etc/dr/coordinator.yaml")
        assert replace[0] in file.read_text()
        file.write_text(file.read_text().replace(*replace))
    site.lab.ctl.kill_service("coordinator", 1)  # SIGHUP
    log.wait("config", 10)


@contextmanager
def configured(site: Site, settings: str, *, replace: tuple[str, str] = ("", "")) -> Iterator[None]:
    """Other settings for the length of a block."""
    reload(site, settings, replace=replace)
    try:
        yield
    finally:
        reload(site)


def ready(sites: Sites) -> Site:
    """The shared site with no fault, all hosts online and GUESTS running once each; made anew if it cannot be."""
    try:
        site = sites.get(WANTED)
        _ready(site)
    except (TimeoutError, LabError, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"the site cannot be put right, so it is made anew: {error}", file=sys.stderr)
        sites.down()
        site = sites.get(WANTED)
        _ready(site)
    return site


def _ready(site: Site) -> None:
    site.lab.faults.heal()
    if site.lab.ctl.service_pid("coordinator") is None:
        site.lab.ctl.start_service("coordinator")
    for host in site.lab.hosts:
        host.wait_ready()
        if host.service_pid("agent") is None:
            with suppress(LabError):  # a host that boots right now starts it by itself
                host.start_service("agent")
    site.wait(lambda: _calm(site), 60, "a calm site", every_s=0.3)
    if not site.lab.guests:
        site.start_guests({site.lab.host_names[0]: GUESTS})
    protected = {name for name, guest in site.guests().items() if guest["protected"]}
    assert protected == set(GUESTS), f"protected are {sorted(protected)}"
    for name in GUESTS:
        site.lab.guest(name).wait_answering(30)
    site.assert_once(*GUESTS)


def _calm(site: Site) -> bool:
    found, status = site.ask("GET", "/v1/status")
    return (
        found == 200
        and all(host["phase"] == "online" and host["connected"] for host in status["hosts"])
        and not any(host["conditions"] for host in status["hosts"])
        and not any(status[what] for what in ("unsettled", "pause", "settling_s"))
        # A fence device that lied stays told until its host has booted anew.
        and all("is not believed" in alert["what"] for alert in status["alerts"])
    )
