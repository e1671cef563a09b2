"""A whole site for tests, demo and benchmarks: a lab with `dr` installed on it as a user would do it.

Everything goes through the `dr` command: init, tokens, join, fence tests, protect. Not here: the lab itself
(integration.lab), what is tested (integration/test_*.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dr.model.facts import ACTIVE_STATES
from integration.lab import Lab, LabError
from integration.lab.machine import Machine

DOOR = str(Path(__file__).with_name("door.py"))
DR = str(Path(sys.executable).with_name("dr"))
CONFIG = "/etc/dr/coordinator.yaml"
ENV = {"NO_COLOR": "1"}
if path := os.environ.get(
    "PYTHONPATH"
):  # services get no environment but this: they run the same tree as the tests
    ENV["PYTHONPATH"] = path


class Site:
    """One lab with a coordinator on ctl and an agent on every host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._settings = ""  # of `up`; what `reset` goes back to
        self._in_force = ""
        self._named = 0
        self._mark = 0
        self._door: subprocess.Popen[str] | None = None

    # ---- making it

    def up(self, hosts: int = 3, *, settings: str = "", fence_test: bool = True) -> Site:
        """Lab, cluster, members, proven fencing. Idempotent only on a fresh lab: `down` first."""
        self.lab.up(hosts)
        self._settings = self._in_force = settings
        ctl = self.lab.ctl
        ctl.exec([DR, "cluster", "init", "--name", "lab", "--address", ctl.address("mgmt")])
        self.write_config(settings)
        ctl.install_service("coordinator", [DR, "coordinator"], ENV)
        self.wait(self.leads, 30, "the coordinator to answer")
        for host in self.lab.hosts:
            self.join(host)
        self.wait(self.all_online, 60, "all hosts to be online")
        if fence_test:
            self.prove_fencing()
        return self

    def write_config(self, settings: str = "") -> None:
        """The coordinator's file, with every host's BMC as its one fencing level."""
        hosts = []
        for host in self.lab.hosts:
            bmc = self.lab.bmc(host.name)
            hosts.append(
                f"  {host.name}:\n"
                f"    addresses: [{host.address('mgmt')}, {host.address('stor')}]\n"
                f"    fencing:\n"
                f"      - agent: fence_ipmilan\n"
                f"        parameters:\n"
                f"          ip: {bmc.address}\n"
                f"          username: {bmc.user}\n"
                f'          password: "{bmc.password}"\n'
                f"          lanplus: true\n"
                f"          cipher: 3\n"
            )
        text = (
            "cluster: lab\n"
            "state_dir: /var/lib/dr/coordinator\n"
            f"addresses: [{self.lab.ctl.address('mgmt')}]\n"
            'listen: {agents: "0.0.0.0:7311", api: "0.0.0.0:7310"}\n'
            f"hosts:\n{''.join(hosts)}"
            f"{settings}"
        )
        self.lab.ctl.path(CONFIG).write_text(text)

    def join(self, host: Machine) -> None:
        """Token on the coordinator, join on the host, agent as a service."""
        token = self.lab.ctl.exec([DR, "cluster", "token", host.name], env=ENV).stdout
        way = "qemu+tcp://{address}/system"
        host.exec([DR, "agent", "join", "-", "--migration-uri", way], stdin=token, env=ENV)
        host.install_service("agent", [DR, "agent", "run"], ENV)
        # libvirtd looks for hooks only when it starts: once the agent has installed its own, restart it.
        self.wait(host.path("/etc/libvirt/hooks/qemu.d/50-dr").exists, 10, f"the hook on {host.name}")
        host.stop_service("libvirtd")
        host.start_service("libvirtd")

    def prove_fencing(self) -> None:
        """`dr fence test` for every host, one after the other: each is power-cycled, empty."""
        for host in self.lab.hosts:
            self.dr("fence", "test", host.name, "--yes", "--reason", "lab", timeout_s=120)

    def reset(self) -> None:
        """As new: no fault, everything on and online, the configuration of `up`, no guest. For the next test."""
        lab = self.lab
        lab.faults.heal(power_on=False)
        booted = [host.name for host in lab.hosts if not host.is_on()]
        for machine in lab.machines:
            machine.power_on()
        for machine in lab.machines:
            machine.wait_ready()
        for machine in lab.machines:
            for service in machine.services.names():
                if machine.service_pid(service) is None:
                    machine.start_service(service)
        self.wait(self.leads, 30, "the coordinator to answer")
        if self._in_force != self._settings:
            self.configure(self._settings)
        if self.status()["pause"] is not None:
            self.ask("POST", "/v1/resume", {"reason": "next test"})
        self.wait(lambda: all(self.boot_seen(name) for name in booted), 60, f"{booted} to be back")
        self._put_back_in_use()
        self.wait(self.all_online, 60, "all hosts to be online")
        if any(guest["protected"] for guest in self.guests().values()):
            self.wait(self._unprotect_all, 60, "the guests of the test before to be let go")
        for host in lab.hosts:
            for guest in host.exec(["virsh", "-q", "list", "--all", "--name"]).stdout.split():
                host.exec(["virsh", "-q", "destroy", guest], check=False)
                host.exec(["virsh", "-q", "undefine", "--managed-save", guest])
        for known in lab.guests:
            known.stop_disk_server()
            known.forget()
        self._mark = len(self.timeline())

    def _put_back_in_use(self) -> None:
        """A cordon or a drain of the test before would stand for ever."""
        for name, host in self.hosts().items():
            ends = {
                "undrain": host["phase"] in ("draining", "maintenance"),
                "uncordon": "cordoned" in host["conditions"],
            }
            for end in (end for end, needed in ends.items() if needed):
                self.ask("POST", f"/v1/hosts/{name}/{end}", {"reason": "next test"})

    def _unprotect_all(self) -> bool:
        """Refused while a start, stop or clean-up of one is under way."""
        ids = [guest["id"] for guest in self.guests().values() if guest["protected"]]
        return self.ask("POST", "/v1/guests/unprotect", {"guests": ids, "reason": "next test"})[0] == 200

    def boot_seen(self, host: str) -> bool:
        """Whether the coordinator has met the present boot of that host."""
        seen: str = self.get(f"/v1/hosts/{host}")["item"]["boot_id"]
        return seen == self.lab.host(host).boot_id

    def configure(self, settings: str) -> None:
        """A new configuration: the settings of `up` are replaced by these, and the coordinator reloads."""
        before = self._count("config")
        self.write_config(settings)
        self._in_force = settings
        self.lab.ctl.kill_service("coordinator", signal.SIGHUP)
        self.wait(lambda: self._count("config") > before, 10, "the coordinator to reload")

    def _count(self, topic: str) -> int:
        return sum(line["topic"] == topic for line in self.timeline())

    # ---- using it

    def dr(self, *words: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a dr command on ctl; its stdout."""
        return self.lab.ctl.exec([DR, *words], env=ENV, timeout_s=timeout_s, check=check).stdout

    def dr_json(self, *words: str) -> Any:
        """The same with `-o json`, parsed."""
        return json.loads(self.dr(*words, "-o", "json"))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request to the coordinator's API, from ctl: the status and the answer; status 0 while there is none."""
        try:
            if self._door is None or self._door.poll() is not None:
                pipe = subprocess.PIPE
                self._door = self.lab.ctl.popen([sys.executable, DOOR], stdin=pipe, stdout=pipe)
            assert self._door.stdin is not None
            assert self._door.stdout is not None
            self._door.stdin.write(json.dumps([method, path, body]) + "\n")
            self._door.stdin.flush()
            line = self._door.stdout.readline()
        except (OSError, LabError) as error:
            return 0, {"title": str(error)}
        if not line:
            return 0, {"title": "the door is shut"}
        said = json.loads(line)
        return said["status"], said["body"]

    def get(self, path: str) -> Any:
        """What the API answers to that path. Raises LabError for anything but an answer."""
        status, body = self.ask("GET", path)
        if status != 200:
            raise LabError(f"{status} from {path}: {body.get('title', body)}")
        return body

    def leads(self) -> bool:
        """Whether the coordinator answers."""
        return self.ask("GET", "/v1/status")[0] == 200

    def all_online(self) -> bool:
        hosts = self.hosts()
        ready = (host["phase"] == "online" and host["connected"] for host in hosts.values())
        return len(hosts) == len(self.lab.hosts) and all(ready)

    def status(self) -> dict[str, Any]:
        """What `dr status` shows."""
        shown: dict[str, Any] = self.get("/v1/status")
        return shown

    def hosts(self) -> dict[str, Any]:
        """Hosts by name, as `dr host list` tells them."""
        return {host["name"]: host for host in self.get("/v1/hosts")["items"]}

    def guests(self) -> dict[str, Any]:
        """Guests by name, as `dr guest list` tells them."""
        return {guest["name"]: guest for guest in self.get("/v1/guests")["items"]}

    def fresh(self, count: int) -> list[str]:
        """Names of guests that this lab has not seen yet; after 99 they begin again."""
        names = [f"g{(self._named + index) % 99 + 1}" for index in range(count)]
        self._named += count
        return names

    def start_guests(
        self,
        where: dict[str, Sequence[str]],
        *,
        protect: bool = True,
        answering: bool = True,
        priorities: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        """Define and start guests (host -> names), wait until they answer (if `answering`), protect them."""
        names = [name for group in where.values() for name in group]
        for host, group in where.items():
            for name in group:
                self.lab.define_guest(name, host, start=True, **options)
        for name in names if answering else []:
            self.lab.guest(name).wait_answering(60)
        if protect:
            self.protect(*names, priorities=priorities)

    def protect(self, *names: str, priorities: dict[str, int] | None = None) -> None:
        """Protect guests that run, and wait until they are."""

        def run() -> bool:  # who was just started may have been told of as defined only
            known = self.guests()
            return all(known.get(name, {}).get("phase") in ACTIVE_STATES for name in names)

        self.wait(run, 30, f"{names} to be reported as running")
        ids = {name: guest["id"] for name, guest in self.guests().items()}
        groups: dict[int | None, list[str]] = {}
        for name in names:
            groups.setdefault((priorities or {}).get(name), []).append(ids[name])
        for priority, group in groups.items():
            body = {"guests": group, "priority": priority, "reason": "lab"}
            status, answer = self.ask("POST", "/v1/guests/protect", body)
            if status != 200:
                raise LabError(f"{names} are not protected: {answer}")
        self.wait(lambda: all(self.guests()[name]["phase"] == "running" for name in names), 30, "protection")

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str, every_s: float = 0.2) -> None:
        """Until it holds. Raises TimeoutError naming what was waited for, with the site's own view."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                status = self.lab.ctl.exec([DR, "status"], env=ENV, check=False)
                log = self.lab.ctl.service_log("coordinator")[-3000:]
                raise TimeoutError(f"no {what} after {timeout_s} s\n{status.stdout}{status.stderr}\n{log}")
            time.sleep(every_s)

    def wait_running(self, *names: str, on: Sequence[str] = (), timeout_s: float = 60.0) -> None:
        """Until the product says that they run, on one of these hosts (default: anywhere), and they answer."""

        def runs() -> bool:
            now = self.guests()
            return all(
                now[name]["phase"] == "running" and (not on or now[name]["host"] in on) for name in names
            )

        self.wait(runs, timeout_s, f"{', '.join(names)} to run{f' on {on}' if on else ''}")
        for name in names:
            self.lab.guest(name).wait_answering(60)

    def wait_phase(self, name: str, phase: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Until the guest is in that phase; the guest as `dr guest list` shows it then."""
        self.wait(lambda: self.guests()[name]["phase"] == phase, timeout_s, f"{name} to be {phase}")
        found: dict[str, Any] = self.guests()[name]
        return found

    def alerts(self) -> dict[str, Any]:
        """Alerts by their key, as `dr status` shows them."""
        return {alert["key"]: alert for alert in self.status()["alerts"]}

    def lately(self, *topics: str) -> list[dict[str, Any]]:
        """What the timeline got since the test began, of these topics or of all."""
        return [line for line in self.timeline()[self._mark :] if not topics or line["topic"] in topics]

    def account(self) -> str:
        """The site's own story of this test, for a failure's report."""
        status = self.lab.ctl.exec([DR, "status"], env=ENV, check=False)
        try:
            lines = [f"{line['wall']:.2f} {line['topic']}: {line['text']}" for line in self.lately()]
        except LabError as error:
            lines = [str(error)]
        log = self.lab.ctl.service_log("coordinator").splitlines()[-15:]
        return "\n".join([status.stdout, status.stderr, *lines[-120:], *log])

    def timeline(self) -> list[dict[str, Any]]:
        """Every line of the decision timeline."""
        items: list[dict[str, Any]] = self.get("/v1/notes?limit=5000")["items"]
        return items

    # ---- what must never be

    def assert_once(self, *names: str) -> None:
        """Each guest has exactly one QEMU on all hosts, and its disk shows no second writer."""
        for name in names:
            places = self.lab.qemu_hosts(name)
            assert len(places) == 1, f"{name} runs on {places}"
            self.assert_single_writer(name)

    def assert_single_writer(self, *names: str) -> None:
        """The disk shows that never two QEMUs wrote at once."""
        for name in names:
            report = self.lab.guest(name).disk_report()
            assert not report.second_writer, f"two writers on the disk of {name}: {report}"
