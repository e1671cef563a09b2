"""Bad files name file, line, field and what is allowed; good ones become settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dr.adapters.notify.sinks import CommandSink, WebhookSink
from dr.adapters.ssh.settings import SshSettings
from dr.cli import agent_config
from dr.cli.config import CoordinatorConfig, load, translate
from dr.cli.config_shown import effective
from dr.cli.starter import NOTES, starter
from dr.cli.yamlfile import BadFile, parse
from dr.model.allowed import Allowed
from dr.model.checks import Http, Ping, Running, Tcp
from dr.model.policy import (
    After,
    GuestPolicy,
    GuestRule,
    HostRule,
    Isolation,
    Limits,
    OnLeave,
    Timers,
)
from dr.model.settings import Settings
from tests.cli.conftest import Dr

HEAD = "cluster: lab\naddresses: [10.0.0.1]\n"  # two lines


def problems(text: str) -> list[str]:
    with pytest.raises(BadFile) as caught:
        translate(parse(text, "f.yaml"))
    return [problem.text("f.yaml") for problem in caught.value.problems]


def good(text: str) -> CoordinatorConfig:
    return translate(parse(HEAD + text, "f.yaml"))


BAD = {
    "unknown key": (
        "clutser: x",
        "f.yaml:3: clutser: unknown key; did you mean cluster? Allowed here: cluster, ",
    ),
    "unknown key below": (
        "timers: {heartbeat: 1}",
        "f.yaml:3: timers.heartbeat: unknown key; did you mean heartbeat_s?",
    ),
    "duplicate": (
        "auto_fence: true\nauto_fence: false",
        "f.yaml:4: auto_fence: given twice, first on line 3",
    ),
    "not a number": ("timers:\n  fence_s: soon", 'f.yaml:4: timers.fence_s: must be a number, not "soon"'),
    "negative": ("timers:\n  start_s: -1", "f.yaml:4: timers.start_s: must be more than 0, not -1"),
    "infinite": ("timers:\n  start_s: .inf", "f.yaml:4: timers.start_s: must be a finite number, not inf"),
    "not a boolean": (
        "auto_fence: off",
        'f.yaml:3: auto_fence: must be true or false, not "off"; YAML 1.2 knows',
    ),
    "number for text": (
        "hosts:\n  h1:\n    labels: {rack: 7}",
        "f.yaml:5: hosts.h1.labels.rack: must be text, not 7; put it",
    ),
    "choice": (
        "log: {level: inof}",
        "f.yaml:3: log.level: must be one of 'debug', 'info', 'warning' or 'error', not",
    ),
    "a command for guests by their driver": (
        "commands:\n  x: {where: guest, argv: [/usr/bin/sudo, virsh, list]}",
        "f.yaml:4: commands.x.argv: virsh drives guests, or what they stand on: playbooks have verbs",
    ),
    "a parameter in a line for a shell": (
        'commands:\n  x:\n    where: guest\n    argv: [/bin/sh, -c, "${what}"]',
        "f.yaml:6: commands.x.argv: sh runs what its words say, so none of them can be a parameter",
    ),
    "a program without its path": (
        "commands:\n  x: {where: guest, argv: [dnf, upgrade]}",
        "f.yaml:4: commands.x.argv: the program must be named by its whole path",
    ),
    "a command for no shell": (
        "commands:\n  x: {argv: /bin/true}",
        "f.yaml:4: commands.x.argv: must be a list",
    ),
    "a guest that reboots": (
        "commands:\n  x: {where: guest, argv: [/bin/true], reboots: true}",
        "f.yaml:4: commands.x.reboots: is for commands on hosts",
    ),
    "a command on hosts without ssh": (
        "commands:\n  x: {argv: [/bin/true]}",
        "f.yaml:4: commands.x: runs on hosts, and the file does not say how they are reached: add `ssh:`",
    ),
    "no key": (
        "ssh:\n  key_file: /nowhere/key\n  known_hosts: /etc/passwd",
        "f.yaml:4: ssh.key_file: /nowhere/key cannot be read: No such file or directory",
    ),
    "host name": ("hosts:\n  a b: {}", "f.yaml:4: hosts.a b: a name is letters"),
    "no address": (
        "hosts:\n  h1:\n    addresses: [kvm1.example]",
        "f.yaml:5: hosts.h1.addresses[0]: must be an IP address, not a name",
    ),
    "agent": (
        "hosts:\n  h1:\n    fencing:\n      - agent: ipmi",
        "f.yaml:6: hosts.h1.fencing[0].agent: must be the name of a fence agent",
    ),
    "parameter": (
        "hosts:\n  h1:\n    fencing:\n      - agent: fence_x\n        parameters: {action: off}",
        "f.yaml:7: hosts.h1.fencing[0].parameters: parameter 'action' is dr's own",
    ),
    "empty level": (
        "hosts: {h1: {fencing: [{devices: []}]}}",
        "f.yaml:3: hosts.h1.fencing[0].devices: must not be empty",
    ),
    "no secret": (
        "hosts:\n  h1:\n    fencing:\n      - agent: fence_x\n        parameters:\n          password_file: /none",
        "f.yaml:8: hosts.h1.fencing[0].parameters.password_file: /none cannot be read: No such file",
    ),
    "port": ("listen: {api: '10.0.0.1:99999'}", "f.yaml:3: listen.api: a port is 1 to 65535"),
    "sink": ("notify: [{name: x}]", "f.yaml:3: notify[0]: needs `command` or `webhook`, and not both"),
    "two homes": (
        "hosts:\n  a: {coordinator_here: true}\n  b: {coordinator_here: true}",
        "f.yaml:5: hosts.b.coordinator_here: the coordinator runs on a already",
    ),
    "one lost beat": (
        "timers: {heartbeat_s: 1}",
        "f.yaml:3: timers.heartbeat_s: late_floor_s (1.25 s) must be at least twice",
    ),
    "more than an agent does": (
        "timers: {heartbeat_s: 5.5, late_floor_s: 11, late_ceiling_s: 20}",
        "f.yaml:3: timers.heartbeat_s: must be at most 5, not 5.5",
    ),
    "ceiling": (
        "timers: {late_ceiling_s: 1}",
        "f.yaml:3: timers.late_ceiling_s: late_ceiling_s (1 s) must not be below",
    ),
    "retry": (
        "timers:\n  fence_retry_max_s: 2",
        "f.yaml:4: timers.fence_retry_max_s: fence_retry_max_s (2 s) must not be below",
    ),
    "gap": ("timers: {gap_s: 2}", "f.yaml:3: timers.gap_s: gap_s (2 s) must not exceed late_floor_s"),
    "probe": (
        "timers: {probe_s: 3}",
        "f.yaml:3: timers.probe_s: probe_s (3 s) must not exceed probe_every_s",
    ),
    "bound": ("limits: {starts_per_host: 0}", "f.yaml:3: limits.starts_per_host: must be at least 1, not 0"),
    "no such policy": (
        "guests: {isolation: shutdown}",
        "f.yaml:3: guests.isolation: must be one of 'leave', 'shut_down' or 'fence', not \"shutdown\"; did you mean",
    ),
    "no such choice of a host": (
        "hosts:\n  h1: {on_leave: stay}",
        "f.yaml:4: hosts.h1.on_leave: must be one of 'migrate', 'hold' or 'failover', not \"stay\"",
    ),
    "no such choice": (
        "on_leave: 1",
        "f.yaml:3: on_leave: must be one of 'migrate', 'hold' or 'failover', not 1",
    ),
    "no such check": (
        "guests: {checks: [running, 'ftp://10.0.0.5']}",
        "f.yaml:3: guests.checks[1]: must be running, agent, screenshot, ping:ADDRESS, tcp:ADDRESS:PORT, http://",
    ),
    "a check by name": (
        "guests: {checks: 'tcp:db1:5432'}",
        "f.yaml:3: guests.checks: must be running, agent, screenshot, ping:ADDRESS,",
    ),
    "a check of no port": (
        "guests:\n  checks:\n    - 'tcp:10.0.0.5:0'",
        "f.yaml:5: guests.checks[0]: must be running, agent, screenshot, ping:ADDRESS,",
    ),
    "a certificate that nobody said anything of": (
        "guests: {checks: ['https://10.0.0.5/']}",
        "f.yaml:3: guests.checks[0]: must say verify=yes (this system trusts its certificate, for its address or",
    ),
    "the same check twice": (
        "guests: {checks: ['ping:10.0.0.5', 'ping:10.0.0.5']}",
        "f.yaml:3: guests.checks: must name each check once: ping:10.0.0.5 stands here twice",
    ),
    "more checks than anybody makes": (
        f"guests: {{checks: [{', '.join(f'tcp:10.0.0.5:{port}' for port in range(1, 10))}]}}",
        "f.yaml:3: guests.checks: must be 8 checks at most",
    ),
    "nobody to wait for": (
        "guests: {boot_after: [dns, ':check']}",
        "f.yaml:3: guests.boot_after[1]: must be the name of a guest, or NAME:check",
    ),
    "not a list": ("guests: {boot_after: 7}", "f.yaml:3: guests.boot_after: must be a list, not 7"),
    "no window": (
        "guests: {relocation_window_s: 0}",
        "f.yaml:3: guests.relocation_window_s: must be more than 0, not 0",
    ),
    "neither yes nor no": (
        "guests: {failback: yes}",
        "f.yaml:3: guests.failback: must be true or false, not",
    ),
    "tab": ("timers:\n\tstart_s: 1", "f.yaml:4: found character '\\t' that cannot start any token (a tab"),
    "tag": ("log: !!python/object:os.system {}", "f.yaml:3: log: "),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_says_where_what_and_what_is_allowed(case: str) -> None:
    text, expected = BAD[case]
    found = problems(HEAD + text)
    assert any(line.startswith(expected) for line in found), found
    assert len(found) == 1, found


def test_everything_is_told_at_once_in_the_order_of_the_file() -> None:
    found = problems("clutser: x\ntimers: {start_s: x, heartbeat_s: 4}\nlimits: {starts_per_host: -1}\n")
    assert [line.split(": ")[1] for line in found] == [
        "addresses",
        "cluster",
        "clutser",
        "timers.heartbeat_s",
        "timers.start_s",
        "limits.starts_per_host",
    ]


def test_a_secret_is_never_in_an_error() -> None:
    text = 'hosts:\n  h1:\n    fencing:\n      - agent: fence_x\n        parameters: {password: "hun\\nter2"}'
    (found,) = problems(HEAD + text)
    assert "hun" not in found


def test_empty_and_other_files() -> None:
    assert problems("") == ["f.yaml: is empty; `dr cluster init` writes a documented one"]
    assert "must be a mapping" in problems("- 1")[0]
    assert "nested too deeply" in problems("&a [*a]")[0]
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{name}: &{name} [{','.join(f'*{before}' for _ in range(10))}]"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert problems(bomb)


def test_commands_and_ssh_are_read_and_shown(tmp_path: Path) -> None:
    key, known = tmp_path / "key", tmp_path / "known"
    for file in (key, known):
        file.write_text("x")
        file.chmod(0o600)
    text = f"""\
ssh: {{key_file: {key}, known_hosts: {known}}}
commands:
  update: {{argv: [/usr/bin/dnf, -y, upgrade], timeout_s: 1800}}
  reboot: {{argv: [/usr/bin/systemctl, reboot], reboots: true}}
  tell: {{where: guest, argv: [/opt/tell, "${{whom}}"], dashes: true}}
"""
    config = good(text)
    assert config.ssh == SshSettings(user="root", key=key, known_hosts=known, port=22)
    assert config.settings.commands == {
        "update": Allowed(name="update", argv=("/usr/bin/dnf", "-y", "upgrade"), timeout_s=1800.0),
        "reboot": Allowed(name="reboot", argv=("/usr/bin/systemctl", "reboot"), reboots=True),
        "tell": Allowed(name="tell", argv=("/opt/tell", "${whom}"), where="guest", dashes=True),
    }
    shown = effective(config)
    assert shown["ssh"] == {"key_file": str(key), "known_hosts": str(known), "user": "root", "port": 22}
    assert shown["commands"]["tell"]["argv"] == ["/opt/tell", "${whom}"]
    key.chmod(0o644)
    known.write_text("")
    told = problems(HEAD + text)
    assert [each.partition(": ")[2] for each in told] == [
        f"ssh.key_file: others can read {key}: chmod 600 {key}",
        f"ssh.known_hosts: {known} is empty",
    ]


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    secret = tmp_path / "bmc"
    secret.write_text("hunter2\n")
    config = good(
        """\
""".replace("x-bmc: ignored\n", "")
        + f"""\
timers: {{heartbeat_s: 0.25}}
guests: {{priority: 5}}
hosts:
  h1:
    addresses: 10.1.0.1
    fencing:
      - agent: fence_ipmilan
        parameters: &bmc {{ip: 10.9.0.1, lanplus: true, cipher: 3, password_file: {secret}}}
      - devices:
          - {{agent: fence_apc, parameters: {{plug: "1"}}}}
          - {{agent: fence_apc, parameters: {{plug: "2"}}}}
  h2:
    coordinator_here: true
    fencing:
      - agent: fence_ipmilan
        parameters: {{<<: *bmc, ip: 10.9.0.2}}
notify:
  - {{name: mail, command: [/usr/bin/mail, ops]}}
  - {{name: chat, webhook: "https://chat.example/hooks/s3cret", least: critical}}
"""
    )
    hosts = config.settings.hosts
    assert config.settings.timers == Timers(heartbeat_s=0.25)
    assert config.settings.guests == GuestPolicy(priority=5)
    first, second = hosts["h1"].fencing
    assert [device.name for device in first.devices] == ["fence_ipmilan"]
    assert first.devices[0].parameters == {
        "ip": "10.9.0.1",
        "lanplus": "1",
        "cipher": "3",
        "password": "hunter2",
    }
    assert [device.name for device in second.devices] == ["fence_apc-1-level2", "fence_apc-2-level2"]
    assert hosts["h2"].fencing[0].devices[0].parameters["ip"] == "10.9.0.2"
    assert hosts["h2"].coordinator_here
    mail, chat = config.sinks
    assert isinstance(mail, CommandSink)
    assert isinstance(chat, WebhookSink)
    assert config.agent_urls == ("10.0.0.1:7311",)
    shown = str(effective(config))
    assert "hunter2" not in shown
    assert "s3cret" not in shown


def test_the_policy_of_guests_is_written_in_words() -> None:
    config = good(
        """\
on_leave: hold
guests:
  failback: true
  relocation_window_s: 60
  boot_after: [dns, "db:check", "odd:check:running"]
  isolation: shut_down
  checks: ["tcp:[fd00::5]:5432", running, "http://10.0.0.5:8080/health status=204"]
hosts:
  h1: {on_leave: failover}
  h2: {}
"""
    )
    assert config.settings.guests == GuestPolicy(
        failback=True,
        relocation_window_s=60,
        boot_after=(After(guest="dns"), After(guest="db", until="check"), After(guest="odd:check")),
        isolation=Isolation.SHUT_DOWN,
        checks=(
            Tcp(address="fd00::5", port=5432),
            Running(),
            Http(address="10.0.0.5", port=8080, path="/health", status=204),
        ),
    )
    assert config.settings.on_leave is OnLeave.HOLD
    assert [config.settings.hosts[name].on_leave for name in ("h1", "h2")] == [OnLeave.FAILOVER, None]
    assert good("guests: {checks: 'ping:10.0.0.5', boot_after: dns}").settings.guests == GuestPolicy(
        checks=(Ping(address="10.0.0.5"),), boot_after=(After(guest="dns"),)
    )
    again = effective(config)
    assert translate(parse(json.dumps(again), "f.yaml")).settings == config.settings, (
        "what is shown can be used"
    )


def test_without_a_word_the_defaults_of_the_policy_hold() -> None:
    assert good("").settings == Settings()


def test_the_starter_is_good_and_shows_every_default() -> None:
    text = starter(
        cluster="lab", state_dir="/s", addresses=("10.0.0.1", "fd00::1"), agents="0.0.0.0:1", api="[::]:2"
    )
    assert translate(parse(text, "f.yaml")).settings == Settings()
    assert translate(parse(text, "f.yaml")).listen_api == (("::", 2),)
    defaults: list[Any] = [Timers(), Limits(), GuestPolicy()]
    known = {name for record in defaults for name in msgspec.structs.asdict(record)}
    head, mark, shown = text.partition("# Defaults for protected guests.\n")
    setting = re.compile(r"# (?=(guests|timers|limits):$|  [a-z_]+: )")
    lines = [setting.sub("", line) for line in shown.splitlines()]
    assert {line.split(":")[0].strip() for line in lines if line.startswith("  ")} == known
    assert translate(parse(head + mark + "\n".join(lines), "f.yaml")).settings == Settings()
    assert set(NOTES) <= known, "a note for a setting that no longer exists"


def test_a_readable_file_with_secrets_is_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(HEAD + "hosts: {h1: {fencing: [{agent: fence_x, parameters: {password: x}}]}}\n")
    file.chmod(0o644)
    assert ["every user can read" in warning.message for warning in load(file).warnings] == [True]
    file.chmod(0o600)
    assert not load(file).warnings
    file.write_text(HEAD)
    file.chmod(0o644)
    assert not load(file).warnings


def test_config_check_and_show(tmp_path: Path, dr: Dr) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(HEAD)
    assert (dr("config", "check", str(file)).code, dr("config", "check", str(file)).out) == (0, "")
    shown = dr("config", "show", str(file))
    assert "heartbeat_s: 0.5" in shown.out
    assert '"kind": "config"' in dr("config", "show", str(file), "-o", "json").out
    file.write_text(HEAD + "x: 1\ny: 2\n")
    bad = dr("config", "check", str(file))
    assert (bad.code, bad.out) == (78, "")
    assert f"{file}:3: x: unknown key" in bad.err
    assert f"{file}:4: y: unknown key" in bad.err
    assert dr("config", "check", str(tmp_path / "none")).code == 78


# ---- the agent's file

AGENT = "host: h1\ncluster: lab\ncoordinators: ['10.0.0.1:7311']\n"


def agent_problems(text: str) -> list[str]:
    with pytest.raises(BadFile) as caught:
        agent_config.translate(parse(text, "a.yaml"))
    return [problem.text("a.yaml") for problem in caught.value.problems]


def test_an_agents_file() -> None:
    config = agent_config.translate(parse(AGENT, "a.yaml"))
    assert (config.host, config.coordinators, config.libvirt_uri) == (
        "h1",
        ["10.0.0.1:7311"],
        "qemu:///system",
    )
    again = agent_config.translate(parse(agent_config.starter(config), "a.yaml"))
    assert again == config
    moving = msgspec.structs.replace(
        config,
        migration_uri="qemu+ssh://{host}/system",
        migration_tls=True,
        migration_address="fd00:9::b",
        copy_port=17312,
    )
    assert agent_config.translate(parse(agent_config.starter(moving), "a.yaml")) == moving


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AGENT + "hots: x", "a.yaml:4: hots: unknown key; did you mean host?"),
        ("host: h1\ncluster: lab", "a.yaml:1: coordinators: is required"),
        (AGENT + "state_dir: x", "a.yaml:4: state_dir: must be a whole path"),
        (
            AGENT + "migration_uri: qemu+tls://h2/system",
            "a.yaml:4: migration_uri: must hold {address} or {host}",
        ),
        (AGENT + "migration_uri: qemu:///{host}", "a.yaml:4: migration_uri: must begin with qemu+tls"),
        (
            AGENT + "migration_address: '10.9.0.1:49152'",
            "a.yaml:4: migration_address: must be an address or a name without a port",
        ),
        (AGENT + "copy_port: 0", "a.yaml:4: copy_port: must be a port from 1 to 65535"),
        (AGENT + "copy_port: 70000", "a.yaml:4: copy_port: must be a port from 1 to 65535"),
        (AGENT + "copy_port: true", "a.yaml:4: copy_port: must be a port from 1 to 65535"),
        (AGENT + "copy_port: '7312'", "a.yaml:4: copy_port: must be a port from 1 to 65535"),
        (AGENT + "migration_tls: please", "a.yaml:4: migration_tls: must be true or false"),
        (AGENT + "log_level: loud", "a.yaml:4: log_level: must be one of debug"),
        (
            "host: h1\ncluster: lab\ncoordinators: [here]",
            'a.yaml:3: coordinators: must be ADDRESS:PORT, not "here"',
        ),
        ("host: 7\ncluster: lab\ncoordinators: ['a:1']", "a.yaml:1: host: must be text"),
        ("", "a.yaml: must be a mapping"),
    ],
)
def test_a_bad_agents_file(text: str, expected: str) -> None:
    found = agent_problems(text)
    assert len(found) == 1
    assert found[0].startswith(expected)


RULED = """\
cluster: site1
addresses: [10.0.0.1]
hosts:
  kvm1: {{}}
  kvm2: {{}}
rules:
{rules}
"""


def ruled(*lines: str) -> str:
    return RULED.format(rules="\n".join(f"  - {line}" for line in lines))


def test_rules_become_settings_and_are_shown_as_written() -> None:
    text = ruled(
        "{name: fast, guests: label:tier=gold, hosts: {kvm1: 10, kvm2: 5}}",
        "{name: only, guests: [db1], hosts: [kvm1], strict: true}",
        "{name: apart, guests: [db1, db2], keep: apart, strict: true}",
    )
    config = translate(parse(text, "f.yaml"))
    assert config.settings.rules == (
        HostRule(name="fast", guests=("label:tier=gold",), hosts={"kvm1": 10, "kvm2": 5}),
        HostRule(name="only", guests=("db1",), hosts={"kvm1": 1}, strict=True),
        GuestRule(name="apart", guests=("db1", "db2"), kind="apart", strict=True),
    )
    assert not config.warnings
    assert effective(config)["rules"][0] == {
        "name": "fast",
        "guests": ["label:tier=gold"],
        "hosts": {"kvm1": 10, "kvm2": 5},
        "strict": False,
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["{name: a, guests: [x]}"], "f.yaml:7: rules[0]: needs `hosts` or `keep`, and not both"),
        (["{name: a, guests: [x], keep: near}"], "must be one of 'together' or 'apart'"),
        (["{name: a, guests: [x], keep: apart}"], "must name at least two guests to keep apart"),
        (["{name: a, guests: ['label:x'], keep: apart}"], "a label is chosen with label:KEY=VALUE"),
        (["{name: a, guests: [], keep: apart}"], "must not be empty"),
        (["{name: a, guests: [x], hosts: {kvm1: 5000}}"], "must be at most 1000"),
        (["{name: a, guests: [x], hosts: [kvm1]}"] * 2, "f.yaml:8: rules[1].name: a second rule named a"),
        (
            [
                "{name: t, guests: [x, y], keep: together, strict: true}",
                "{name: a, guests: [y, x], keep: apart, strict: true}",
            ],
            "f.yaml:8: rules[1]: these rules cannot all hold: rule a keeps x and y apart, rule t keeps them together",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused_with_their_line(lines: list[str], expected: str) -> None:
    found = problems(ruled(*lines))
    assert any(expected in text for text in found), found


def test_a_host_that_only_a_rule_names_is_a_warning() -> None:
    config = translate(parse(ruled("{name: a, guests: [x], hosts: [kvm1, kvm02]}"), "f.yaml"))
    (warning,) = config.warnings
    assert "rule a names kvm02, which is not among `hosts`; did you mean kvm2?" in warning.text("f.yaml")
