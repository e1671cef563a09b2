"""A whole site for tests, demo and benchmarks: a lab with `dr` installed on it as a user would do it.

Everything goes through the `dr` command: init, tokens, join, fence tests, protect. Not here: the lab itself
(integration.lab), what is tested (integration/test_*.py).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from integration.lab import Lab
from integration.lab.machine import Machine

DR = str(Path(sys.executable).with_name("dr"))
CONFIG = "/etc/dr/coordinator.yaml"
ENV = {"NO_COLOR": "1"}


class Site:
    """One lab with a coordinator on ctl and an agent on every host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    # ---- making it

    def up(self, hosts: int = 3, *, settings: str = "", fence_test: bool = True) -> Site:
        """Lab, cluster, members, proven fencing. Idempotent only on a fresh lab: `down` first."""
        self.lab.up(hosts)
        ctl = self.lab.ctl
        ctl.exec([DR, "cluster", "init", "--name", "lab", "--address", ctl.address("mgmt")])
        self.write_config(settings)
        ctl.install_service("coordinator", [DR, "coordinator"], ENV)
        self.wait(lambda: self.try_dr("status") is not None, 30, "the coordinator to answer")
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
        host.exec([DR, "agent", "join", "-"], stdin=token, env=ENV)
        host.install_service("agent", [DR, "agent", "run"], ENV)
        # libvirtd looks for hooks only when it starts: once the agent has installed its own, restart it.
        self.wait(host.path("/etc/libvirt/hooks/qemu.d/50-dr").exists, 10, f"the hook on {host.name}")
        host.stop_service("libvirtd")
        host.start_service("libvirtd")

    def prove_fencing(self) -> None:
        """`dr fence test` for every host, one after the other: each is power-cycled, empty."""
        for host in self.lab.hosts:
            self.dr("fence", "test", host.name, "--yes", "--reason", "lab", timeout_s=120)

    # ---- using it

    def dr(self, *words: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a dr command on ctl; its stdout."""
        return self.lab.ctl.exec([DR, *words], env=ENV, timeout_s=timeout_s, check=check).stdout

    def dr_json(self, *words: str) -> Any:
        """The same with `-o json`, parsed."""
        return json.loads(self.dr(*words, "-o", "json"))

    def try_dr(self, *words: str) -> Any | None:
        """The parsed answer, or None while the coordinator does not answer."""
        done = self.lab.ctl.exec([DR, *words, "-o", "json"], env=ENV, check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return None

    def all_online(self) -> bool:
        hosts = self.hosts()
        return len(hosts) == len(self.lab.hosts) and all(host["phase"] == "online" for host in hosts.values())

    def hosts(self) -> dict[str, Any]:
        """Hosts by name, as `dr host list` tells them."""
        return {host["name"]: host for host in self.dr_json("host", "list")["items"]}

    def guests(self) -> dict[str, Any]:
        """Guests by name, as `dr guest list` tells them."""
        return {guest["name"]: guest for guest in self.dr_json("guest", "list")["items"]}

    def start_guests(self, where: dict[str, Sequence[str]], *, protect: bool = True, **options: Any) -> None:
        """Define and start guests (host -> names), wait until they answer, protect them."""
        names = [name for group in where.values() for name in group]
        for host, group in where.items():
            for name in group:
                self.lab.define_guest(name, host, start=True, **options)
        for name in names:
            self.lab.guest(name).wait_answering(60)
        if protect:
            self.dr("guest", "protect", *names, "--reason", "lab", timeout_s=60)
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

    def timeline(self) -> list[dict[str, Any]]:
        """Every line of the decision timeline."""
        items: list[dict[str, Any]] = self.dr_json("events", "--lines", "5000")["items"]
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
