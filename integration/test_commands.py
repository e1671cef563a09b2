"""Commands of playbooks on real hosts: over SSH, once each, whatever becomes of the coordinator or the connection."""

from __future__ import annotations

import json
from pathlib import Path

from integration import watch
from integration.site import CONFIG, Site
from integration.test_failover import SETTINGS, SITE
from integration.test_migration import assert_runs_on
from integration.test_playbook import BAD_FILE, job_of
from integration.watch import run

__all__ = ["SITE"]  # the same site as that of the failovers

KEYS = "/etc/dr/ssh"
COMMANDS = f"""\
ssh: {{key_file: {KEYS}/key, known_hosts: {KEYS}/known_hosts}}
commands:
  note: {{argv: [/var/lib/dr/note, "${{what}}"], timeout_s: 60}}
  much: {{argv: [/usr/bin/seq, "100000"]}}
  fails: {{argv: [/bin/sh, -c, "echo so far; echo no space left >&2; exit 3"]}}
  hangs: {{argv: [/bin/sh, -c, "trap '' TERM; echo here; sleep 600 & wait; sleep 600"], timeout_s: 2}}
"""
NOTE = """\
#!/bin/sh
printf '%s\\n' "$1" >> /var/lib/dr/notes
while [ ! -e /var/lib/dr/go ]; do sleep 0.1; done
printf '%s words: %s\\n' "$#" "$1"
"""
ODD = "a b; touch /tmp/never $(reboot) 'x' \"y\" `z` \\n *"
BOOK = """\
playbook: {name}
params: {{what: {{default: none}}}}
steps:
  - {step}
finally:
  - notify: over with ${{what}}
"""


def set_up(site: Site, commands: str = COMMANDS) -> None:
    """Keys for the coordinator, a program for hosts, and the commands allowed."""
    folder = site.lab.ctl.path(KEYS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_bytes(site.lab.ssh_key.read_bytes())
    (folder / "key").chmod(0o600)
    (folder / "known_hosts").write_text(site.lab.known_hosts())
    for host in site.lab.hosts:
        program = host.path("/var/lib/dr/note")
        program.write_text(NOTE)
        program.chmod(0o755)
        for left in ("/var/lib/dr/notes", "/var/lib/dr/go"):
            host.path(left).unlink(missing_ok=True)
    site.configure(SETTINGS + commands)


def begin(site: Site, name: str, step: str, *words: str) -> str:
    """A playbook of that one step is run; its job."""
    file = f"/etc/dr/{name}.yaml"
    site.lab.ctl.path(file).write_text(BOOK.format(name=name, step=step))
    said = run(site, "playbook", "run", file, *words, "--no-wait")
    assert said.returncode == 0, said.stderr
    return said.stdout.split()[0]


def ended(site: Site, name: str) -> list[dict[str, object]]:
    """Wait for its end; its one step's commands."""
    site.wait(lambda: site.leads() and job_of(site, name)["state"] != "open", 90, f"the end of {name}")
    commands: list[dict[str, object]] = job_of(site, name)["run"]["steps"][0]["commands"]
    return commands


def notes(site: Site, host: str) -> list[str]:
    file: Path = site.lab.host(host).path("/var/lib/dr/notes")
    return file.read_text().splitlines() if file.exists() else []


def test_a_command_outlives_the_coordinator_and_runs_once(site: Site) -> None:
    """Killed while it runs on the first of two: the next term hears of its end, and goes on with the second."""
    set_up(site)
    job = begin(site, "notes", "{run: note, on: [h1, h2], with: {what: '${what}'}}", f"what={ODD}")
    site.wait(lambda: notes(site, "h1") == [ODD], 30, "it to run on h1")
    watch.coordinator(site).kill()
    site.lab.host("h2").path("/var/lib/dr/go").touch()
    site.wait(site.leads, 30, "a coordinator")
    site.lab.host("h1").path("/var/lib/dr/go").touch()
    commands = ended(site, "notes")
    assert [(each["on"], each["state"], each["code"]) for each in commands] == [
        ("h1", "done", 0),
        ("h2", "done", 0),
    ]
    assert (notes(site, "h1"), notes(site, "h2")) == ([ODD], [ODD])
    said = json.loads(site.dr("job", "show", job, "--evidence", "-o", "json"))["items"]
    assert [each["output"] for each in said] == [f"1 words: {ODD}\n"] * 2
    assert said[0]["argv"] == ["/var/lib/dr/note", ODD]


def test_what_fails_hangs_or_says_much(site: Site) -> None:
    """The exit code fails its step, and no other host is asked; what takes too long is ended; all of it is kept."""
    set_up(site)
    begin(site, "fails", "{run: fails, on: [h2, h3]}")
    (only,) = ended(site, "fails")
    assert (only["on"], only["state"], only["code"], only["last"]) == ("h2", "failed", 3, "no space left")
    job = begin(site, "much", "{run: much, on: h1}")
    (much,) = ended(site, "much")
    assert (much["state"], much["last"], much["output_bytes"]) == ("done", "100000", 588895)
    output = json.loads(site.dr("job", "show", job, "--evidence", "-o", "json"))["items"][0]["output"]
    assert output.startswith("1\n2\n")
    assert output.endswith("\n100000\n")
    assert len(output) < 70_000
    begin(site, "hangs", "{run: hangs, on: h1}")
    (late,) = ended(site, "hangs")
    assert (late["state"], late["code"], late["last"]) == ("failed", -9, "here")
    assert "took longer than 2 s" in str(late["says"])


def test_what_is_not_allowed_never_reaches_a_host(site: Site) -> None:
    """Programs that drive guests, values that look like options, hosts with another key, names that nobody allows."""
    set_up(site)
    file = site.lab.ctl.path(CONFIG)
    good = file.read_text()
    file.write_text(good + '  drives: {argv: [/usr/bin/env, virsh, start, "${guest}"]}\n')
    bad = run(site, "config", "check")
    assert bad.returncode == BAD_FILE
    assert "commands.drives.argv: virsh drives guests" in bad.stderr
    file.write_text(good)
    own = "/etc/dr/own.yaml"
    site.lab.ctl.path(own).write_text(
        BOOK.format(name="own", step="{run: note, on: h1, with: {what: '${what}'}}")
    )
    assert "begins with a dash" in run(site, "playbook", "run", own, "what=--help").stderr
    site.lab.ctl.path(own).write_text(BOOK.format(name="own", step="{run: nothing, on: h1}"))
    refused = run(site, "playbook", "run", own, "what=h1")
    assert "allows no command named nothing" in refused.stderr
    known = site.lab.ctl.path(f"{KEYS}/known_hosts")
    known.write_text(known.read_text().replace("h1,", "h9,").replace("10.81.0.11 ", "10.81.0.99 "))
    begin(site, "stranger", "{run: much, on: h1, timeout: 15s}")
    (stranger,) = ended(site, "stranger")
    assert (stranger["state"], "its key is not that of h1" in str(stranger["says"])) == ("failed", True)


ROLLING = f"""\
ssh: {{key_file: {KEYS}/key, known_hosts: {KEYS}/known_hosts}}
commands:
  update: {{argv: [/var/lib/dr/note, updated], timeout_s: 60}}
  reboot: {{argv: [/usr/bin/systemctl, reboot, --force, --force], reboots: true, timeout_s: 120}}
"""


OFF = f"""\
ssh: {{key_file: {KEYS}/key, known_hosts: {KEYS}/known_hosts}}
commands:
  power-off: {{argv: [/usr/bin/systemctl, poweroff, --force, --force], powers_off: true, timeout_s: 60}}
"""


def test_rolling_maintenance(site: Site) -> None:
    """Every host boots anew, empty, after its update; guests run on, and nobody is fenced or alarmed."""
    names = site.fresh(2)
    site.start_guests({"h1": names})
    guests = {name: site.lab.guest(name).http().boot for name in names}
    set_up(site, ROLLING)
    for host in site.lab.hosts:
        host.path("/var/lib/dr/go").touch()
    before = {host.name: host.boot_id for host in site.lab.hosts}
    site.dr("playbook", "run", "rolling-maintenance", "--reason", "new kernel", "--no-wait")
    site.wait(lambda: job_of(site, "rolling-maintenance")["state"] != "open", 180, "its end")
    job = job_of(site, "rolling-maintenance")
    assert job["state"] == "done", job["run"]["failed"]
    for host in site.lab.hosts:
        assert host.boot_id != before[host.name]
        assert notes(site, host.name) == ["updated"]
    assert site.all_online()
    for name, boot in guests.items():
        assert_runs_on(site, name, boot, site.guests()[name]["host"])
    assert site.lately("host.fencing", "host.held", "guest.starting") == []


def test_a_site_is_switched_off_and_on_again(site: Site) -> None:
    """Guests end first, the one that starts last before the other; hosts follow; all of it comes back in order."""
    first, last = site.fresh(2)
    site.start_guests({"h1": [first], "h2": [last]})
    site.dr("guest", "set", last, "--boot-after", first)
    set_up(site, OFF)
    job = site.dr("playbook", "run", "site-power-down", "--no-wait").split()[0]
    site.wait(lambda: any(key.endswith("/approve") for key in site.alerts()), 20, "somebody to be asked")
    site.dr("job", "approve", job)
    site.wait(lambda: job_of(site, "site-power-down")["state"] != "open", 150, "its end")
    down = job_of(site, "site-power-down")
    assert down["state"] == "done", down["run"]["failed"]
    assert not any(host.is_on() for host in site.lab.hosts)
    stopped = [line["text"].partition(":")[0] for line in site.lately("guest.stopped")]
    assert stopped == [last, first]
    assert site.lately("host.fencing", "host.held", "host.suspect") == []
    site.dr("playbook", "run", "site-power-up", "--no-wait")
    for host in site.lab.hosts:
        host.power_on()
    site.wait(lambda: job_of(site, "site-power-up")["state"] != "open", 120, "its end")
    up = job_of(site, "site-power-up")
    assert up["state"] == "done", up["run"]["failed"]
    started = [line["text"].partition(":")[0] for line in site.lately("guest.starting")]
    assert started == [first, last]
    site.assert_once(first, last)


def test_rolling_maintenance_stops_at_the_first_sign_of_trouble(site: Site) -> None:
    """The update of the second host fails: that one stays set aside, and the others are not touched."""
    set_up(site, ROLLING)
    for host in site.lab.hosts:
        host.path("/var/lib/dr/go").touch()
    site.lab.host("h2").path("/var/lib/dr/note").write_text("#!/bin/sh\necho no space left\nexit 1\n")
    before = {host.name: host.boot_id for host in site.lab.hosts}
    site.dr("playbook", "run", "rolling-maintenance", "--no-wait")
    site.wait(lambda: job_of(site, "rolling-maintenance")["state"] != "open", 90, "its end")
    job = job_of(site, "rolling-maintenance")
    assert (job["state"], "exit code 1" in job["run"]["failed"]) == ("failed", True)
    again = {host.name for host in site.lab.hosts if host.boot_id != before[host.name]}
    assert again == {"h1"}
    assert site.hosts()["h2"]["phase"] == "maintenance"
    assert (notes(site, "h3"), site.hosts()["h3"]["phase"]) == ([], "online")


INSIDE = 'commands: {flush: {where: guest, argv: [/opt/flush, now, "${what}"], timeout_s: 30}}\n'


def test_a_command_runs_in_a_guest_once_whoever_dies(site: Site) -> None:
    """By its guest agent: the coordinator dies while it runs. Where the agent of the host dies, its end is unknown."""
    first, second = site.fresh(2)
    site.start_guests({"h1": [first], "h2": [second]}, agent=True)
    set_up(site, INSIDE)
    step = f"{{run: flush, in: {first}, with: {{what: '${{what}}'}}}}"
    job = begin(site, "flush", step, f"what={ODD}")
    site.wait(lambda: site.lab.guest(first).http().commands == 1, 20, "it to be begun")
    watch.coordinator(site).kill()
    (done,) = ended(site, "flush")
    assert (done["state"], done["code"]) == ("done", 0), done
    (said,) = json.loads(site.dr("job", "show", job, "--evidence", "-o", "json"))["items"]
    assert json.loads(said["output"]) == ["now", ODD]
    begin(site, "again", step.replace(first, second), "what=x")
    site.wait(lambda: site.lab.guest(second).http().commands == 1, 20, "it to be begun")
    site.lab.host("h2").kill_service("agent")
    (lost,) = ended(site, "again")
    assert (lost["state"], "has restarted" in str(lost["says"])) == ("unknown", True), lost
    assert [site.lab.guest(name).http().commands for name in (first, second)] == [1, 1]
