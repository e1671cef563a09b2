"""Commands against the served API: what they print, ask and exit with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dr.adapters.pki.identity import Role
from dr.cli import ask, credentials, main
from dr.cli.failure import Exit
from dr.core.volatile import Sampled
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.checks import Http, Tcp
from dr.model.effects import Forecast, Foreseen, Reply
from dr.model.events import (
    AskCancelMove,
    AskConfirmDown,
    AskDrain,
    AskFence,
    AskLabel,
    AskMigrate,
    AskPause,
    AskProtect,
    AskRelocate,
    AskSet,
    AskStart,
    AskStop,
    AskUndrain,
    OperatorAsk,
)
from dr.model.facts import Base, DirtyPoint, LocalDisk, Progress
from dr.model.operations import OperationState, Step
from dr.model.policy import After, Isolation, PolicyChange
from dr.model.preflight import Check as Finding
from dr.model.preflight import CheckName, Verdict
from dr.model.records import Desired, GuestPhase, HostPhase, Move, MoveStage, Pause, Rung, Wish
from tests.api.service import DB, LOOSE, NOW, WEB, Service
from tests.api.test_running import SAID
from tests.cli.conftest import Dr

LISTS = [
    ("host", "list"),
    ("guest", "list"),
    ("job", "list"),
    ("fence", "list"),
    ("events",),
    ("status",),
    ("host", "show", "h1"),
    ("guest", "show", "web"),
    ("job", "show", "failover-3-1"),
    ("guest", "history", "web"),
    ("fence", "history"),
]


def accept(*operations: str) -> object:
    return lambda asked: Reply(id=asked.id, accepted=True, message="Accepted.", operations=operations)


# ---- reading


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_every_list_in_every_form(command: tuple[str, ...], service: Service, dr: Dr) -> None:
    service.coordinator.write("fence.off", "h2 said off", host="h2", guest=WEB)
    for form in ("table", "wide", "name"):
        ended = dr(*command, "-o", form)
        assert ended.code == 0, ended.err
        assert ended.out.strip()
    data = json.loads(dr(*command, "-o", "json").out)
    assert data["version"] == 1
    assert data["kind"]
    assert YAML(typ="safe", pure=True).load(dr(*command, "-o", "yaml").out) == data


def test_tables_show_how_old_they_are(service: Service, dr: Dr) -> None:
    out = dr("host", "list").out
    assert re.search(r"^h1 +online +now +proven +ok", out, re.MULTILINE)
    assert re.search(r"^h2 +suspect, unprotected +12 s ago +none", out, re.MULTILINE)
    assert re.search(r"^h3 +joining +not heard yet", out, re.MULTILINE)
    out = dr("guest", "list").out
    assert re.search(r"^db +recovering, should be running +h2 +yes +12 s ago", out, re.MULTILINE)
    assert re.search(r"^loose +running +h1 +- +now", out, re.MULTILINE)


def test_names_for_scripts(service: Service, dr: Dr) -> None:
    assert dr("host", "list", "-o", "name").out.split() == ["h1", "h2", "h3"]
    assert dr("host", "list", "-l", "rack=a", "-o", "name").out.split() == ["h1"]
    assert dr("guest", "list", "--unprotected", "-o", "name").out.split() == ["loose"]
    assert dr("guest", "list", "--host", "h2", "-o", "name").out.split() == ["db"]


def test_status_check(service: Service, dr: Dr) -> None:
    assert dr("status").code == 0
    assert dr("status", "--check").code == Exit.DEGRADED
    state = service.coordinator.state
    state.cluster = changed(state.cluster, pause=Pause(reason="moving racks", by="bob", at=900.0))
    assert "AUTOMATION IS PAUSED by bob" in dr("status").out
    del state.hosts["h2"], state.hosts["h3"], state.guests[DB]
    state.cluster = changed(state.cluster, pause=None)
    assert dr("status", "--check").code == 0


def test_no_colour_unless_asked_for(service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\033" not in dr("status").out
    assert "\033[" in dr("--color", "always", "status").out
    assert "\033" not in dr("--color", "never", "status").out


def test_data_goes_to_stdout_and_nothing_else_does(service: Service, dr: Dr) -> None:
    service.coordinator.state.operations.clear()
    ended = dr("job", "list")
    assert (ended.code, ended.out, ended.err) == (0, "", "No jobs.\n")
    assert json.loads(dr("job", "list", "-o", "json").out)["items"] == []
    ended = dr("guest", "protect", "loose")
    assert (ended.out, ended.err) == ("", "Done.\n")


# ---- exit codes


def test_what_is_missing(service: Service, dr: Dr) -> None:
    for command in (
        ("host", "show", "x"),
        ("guest", "show", "x"),
        ("job", "show", "x"),
        ("guest", "start", "x"),
    ):
        ended = dr(*command)
        assert ended.code == Exit.MISSING
        assert "next: " in ended.err
    ended = dr("guest", "start", "x", "y", "web")
    assert "there is no guest x" in ended.err
    assert "there is no guest y" in ended.err
    assert not service.coordinator.asked, "not one of them was started"


def test_a_refusal_shows_every_blocker(service: Service, dr: Dr) -> None:
    service.coordinator.reply = lambda asked: Reply(
        id=asked.id,
        accepted=False,
        message="h2 is not removed.",
        blockers=("it answers", "web may run there"),
    )
    ended = dr("host", "remove", "h2", "--yes")
    assert ended.code == Exit.REFUSED
    assert ended.err == "error: h2 is not removed.\n  because:\n    - it answers\n    - web may run there"


def test_a_lost_answer_is_unknown(service: Service, dr: Dr) -> None:
    def silent(asked: OperatorAsk) -> Reply:
        raise TimeoutError

    service.coordinator.reply = silent
    ended = dr("host", "fence", "h2", "--yes")
    assert ended.code == Exit.UNKNOWN
    assert "dr events" in ended.err


def test_unreachable_denied_and_badly_configured(
    service: Service, dr: Dr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.save(tmp_path / "far", ("https://127.0.0.1:1",), service.credentials(Role.ADMIN, "alice"))
    ended = dr("--client-dir", str(tmp_path / "far"), "status")
    assert ended.code == Exit.UNREACHABLE
    assert "systemctl status dr-coordinator" in ended.err
    assert dr("--client-dir", str(tmp_path / "far"), "doctor").code == Exit.DEGRADED
    credentials.save(tmp_path / "agent", (service.url,), service.credentials(Role.AGENT, "h1"))
    assert dr("--client-dir", str(tmp_path / "agent"), "status").code == Exit.DENIED
    ended = dr("--client-dir", str(tmp_path / "none"), "status")
    assert ended.code == Exit.BAD_CONFIG
    assert "dr cluster init" in ended.err


def test_a_credential_of_another_cluster_is_denied(service: Service, dr: Dr, tmp_path: Path) -> None:
    from dr.adapters.pki.authority import Authority

    foreign = Authority.create(tmp_path / "pki", "lab").issue(Role.ADMIN, "mallory")
    credentials.save(tmp_path / "foreign", (service.url,), changed(foreign, ca=service.authority.ca))
    assert dr("--client-dir", str(tmp_path / "foreign"), "status").code == Exit.DENIED
    credentials.save(tmp_path / "other", (service.url,), foreign)
    ended = dr("--client-dir", str(tmp_path / "other"), "status")
    assert ended.code == Exit.UNREACHABLE
    assert "not of this cluster" in ended.err


def test_usage(dr: Dr) -> None:
    for command in ((), ("host",), ("nope",), ("host", "show"), ("status", "-o", "xml"), ("pause",)):
        assert dr(*command).code == Exit.USAGE
    assert dr("guest", "start").code == Exit.USAGE
    assert dr("guest", "start", "web", "--all").code == Exit.USAGE


# ---- asking


def test_protect_in_bulk(service: Service, dr: Dr) -> None:
    for arguments, ids in (
        (["web", "db"], (WEB, DB)),
        (["--all"], (LOOSE,)),
        (["--host", "h1"], (LOOSE,)),
    ):
        service.coordinator.asked.clear()
        assert dr("guest", "protect", *arguments, "--priority", "9", "--reason", "r").code == 0
        (asked,) = service.coordinator.asked
        assert isinstance(asked, AskProtect)
        assert (asked.guests, asked.priority, asked.reason, asked.by) == (ids, 9, "r", "alice")
    service.coordinator.state.guests.clear()
    assert dr("guest", "unprotect", "--all", "--yes").code == 0, "nothing to do is no failure"
    service.reset()
    assert dr("guest", "protect", "--label", "tier=data").code == Exit.MISSING, "db is protected already"
    assert dr("guest", "stop", "--label", "tier=data", "--mode", "destroy", "--yes").code == 0
    stop = service.coordinator.asked[-1]
    assert isinstance(stop, AskStop)
    assert (stop.guests, stop.mode) == ((DB,), "destroy")
    assert dr("guest", "relocate", "db", "--to", "h2", "--mode", "destroy", "--yes").code == 0
    relocate = service.coordinator.asked[-1]
    assert isinstance(relocate, AskRelocate)
    assert (relocate.guests, relocate.to, relocate.mode) == ((DB,), "h2", "destroy")
    assert dr("guest", "migrate", "db", "--to", "h2", "--dry-run").code == 0, (
        "it is no danger: no yes is wanted"
    )
    migrate = service.coordinator.asked[-1]
    assert isinstance(migrate, AskMigrate)
    assert (migrate.guests, migrate.to, migrate.dry_run) == ((DB,), "h2", True)
    assert dr("guest", "migrate", "db").code == 0
    assert service.coordinator.asked[-1].dry_run is False  # type: ignore[union-attr]
    assert dr("guest", "cancel-move", "db").code == 0
    cancel = service.coordinator.asked[-1]
    assert isinstance(cancel, AskCancelMove)
    assert cancel.guests == (DB,)


def test_guest_set_sends_what_was_named_and_nothing_else(service: Service, dr: Dr) -> None:
    ended = dr(
        "guest", "set", "web", "--desired", "ignored", "--priority", "7", "--max-restarts", "0", "--no-failback",
        "--boot-after", "db:check", "--isolation", "shut_down", "--check", "tcp:10.1.0.5:443",
        "--check", "https://10.1.0.5/health verify=no text=all is well", "--reason", "r",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskSet)
    assert (asked.guests, asked.desired, asked.reason) == ((WEB,), Desired.IGNORED, "r")
    assert asked.policy == PolicyChange(
        priority=7,
        max_restarts=0,
        failback=False,
        boot_after=(After(guest="db", until="check"),),
        isolation=Isolation.SHUT_DOWN,
        checks=(
            Tcp(address="10.1.0.5", port=443),
            Http(address="10.1.0.5", port=443, path="/health", tls=True, verify=False, text="all is well"),
        ),
    )
    service.coordinator.asked.clear()
    assert dr("guest", "set", "web", "--boot-after", "none", "--check", "none").code == 0
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskSet)
    assert asked.policy == PolicyChange(boot_after=(), checks=())
    assert dr("guest", "set", "web").code == Exit.USAGE
    assert "an address, not a name" in dr("guest", "set", "web", "--check", "http://x").err
    assert dr("guest", "set", "web", "--desired", "stopped").code == Exit.USAGE, "stopping wants a yes"


def test_guest_show_tells_the_policy(service: Service, dr: Dr) -> None:
    shown = dr("guest", "show", "web").out
    for words in ("0 of 2 in place, within 3600 s", "failback", "isolation", "check"):
        assert words in shown, words


def test_guest_show_tells_what_was_measured_of_its_memory(service: Service, dr: Dr) -> None:
    assert "not measured yet" in dr("guest", "show", "web").out
    state = service.coordinator.state
    points = (DirtyPoint(interval_s=1, mib=30.5), DirtyPoint(interval_s=4, mib=38))
    holder = state.guests[WEB].holder
    state.views[holder] = changed(state.views[holder], samples={WEB: Sampled(points=points, at=NOW - 300)})
    shown = dr("guest", "show", "web").out
    assert "30 MiB within 1 s, 38 MiB within 4 s; measured 5 min ago" in shown


def test_guest_show_tells_local_disks_and_which_are_the_newest(service: Service, dr: Dr) -> None:
    assert "local disks" not in dr("guest", "show", "web").out
    state = service.coordinator.state
    bases = (
        Base(path="/images/mid.qcow2", form="qcow2"),
        Base(path="/images/golden.raw", form="raw", digest="d"),
    )
    disk = LocalDisk(
        target="vda", path="/vm/web.img", form="qcow2", size_b=20 << 30, used_b=700 << 20, bases=bases
    )
    record = state.guests[WEB]
    for disks_on, said in (
        ("h1", "the newest copy is on h1, and it starts nowhere else"),
        ("", "no host is known to have the newest copy: dr guest start web --disks-on HOST"),
    ):
        needs = changed(record.needs, local=(disk,))
        state.guests[WEB] = changed(record, needs=needs, disks_on=disks_on)
        shown = " ".join(dr("guest", "show", "web").out.split())
        below = "on /images/mid.qcow2 on /images/golden.raw"
        assert f"vda: /vm/web.img (qcow2, 20.0 GiB, 700 MiB in use) {below} {said}" in shown


def test_a_start_from_disks_of_a_named_host_wants_a_yes(service: Service, dr: Dr) -> None:
    """What is newer elsewhere is lost by it."""
    assert dr("guest", "start", "web", "--disks-on", "h1").code == Exit.USAGE
    assert not service.coordinator.asked
    dr("guest", "start", "web", "--disks-on", "h1", "--yes", "--no-wait")
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskStart)
    assert asked.disks_on == "h1"


def test_consent_to_local_disks_is_asked_for_with_the_protection(service: Service, dr: Dr) -> None:
    for word, consent in (("", None), ("--local-disks", True), ("--no-local-disks", False)):
        dr("guest", "protect", "loose", *([word] if word else []), "--no-wait")
        asked = service.coordinator.asked[-1]
        assert isinstance(asked, AskProtect)
        assert asked.local_disks is consent


def test_destructive_verbs_want_the_typed_name(
    service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = dr("host", "fence", "h1")
    assert ended.code == Exit.USAGE
    assert "--yes" in ended.err
    assert "web, loose" in ended.err or "loose, web" in ended.err, "the bystanders are named"
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    for typed, code, count in (("h2", Exit.FAILED, 0), ("h1", Exit.OK, 1)):
        monkeypatch.setattr("typer.prompt", lambda *_, typed=typed, **__: typed)
        assert dr("host", "fence", "h1").code == code
        assert len(service.coordinator.asked) == count
    assert isinstance(service.coordinator.asked[0], AskFence)
    for command in (
        ("host", "remove", "h1"),
        ("guest", "stop", "web"),
        ("guest", "relocate", "web"),
        ("fence", "test", "h1"),
        ("guest", "unprotect", "web"),
    ):
        monkeypatch.setattr("typer.prompt", lambda *_, **__: "no")
        assert dr(*command).code == Exit.FAILED
    assert dr("host", "confirm-down", "h1", "--reason", "r").code == Exit.FAILED
    assert len(service.coordinator.asked) == 1


def test_other_asks(service: Service, dr: Dr) -> None:
    assert dr("host", "confirm-down", "h2", "--reason", "unplugged", "--boot", "boot-2", "--yes").code == 0
    assert dr("host", "label", "h1", "rack=b", "old-").code == 0
    assert dr("pause", "--reason", "moving").code == 0
    down, label, pause = service.coordinator.asked
    assert isinstance(down, AskConfirmDown)
    assert (down.host, down.boot_id, down.reason) == ("h2", "boot-2", "unplugged")
    assert isinstance(label, AskLabel)
    assert label.labels == {"rack": "b", "old": None}
    assert isinstance(pause, AskPause)
    assert dr("host", "confirm-down", "h2", "--yes").code == Exit.USAGE, "a reason is required"
    assert dr("host", "label", "h1", "rack").code == Exit.USAGE
    assert dr("cluster", "token", "h3").out.startswith("drjoin1.")
    assert dr("notify", "test").code == Exit.REFUSED


def test_what_is_refused_only_for_a_moment_is_asked_again(service: Service, dr: Dr) -> None:
    answers = [
        Reply(
            id="", accepted=False, blockers=("it is being looked for now: try again in a moment",), soon=True
        ),
        Reply(id="", accepted=True, message="Accepted."),
    ]
    service.coordinator.reply = lambda asked: changed(answers.pop(0), id=asked.id)
    assert dr("host", "confirm-down", "h2", "--reason", "unplugged", "--yes").code == Exit.OK
    assert len(service.coordinator.asked) == 2


def test_a_job_is_followed_to_its_end(service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch) -> None:
    operations = service.coordinator.state.operations
    job = operations["failover-3-1"]
    service.coordinator.reply = accept(job.id)  # type: ignore[assignment]

    def end(state: OperationState) -> None:
        operations[job.id] = changed(
            job, state=state, closed=999.9, steps=(*job.steps, Step(at=999.8, text="web runs"))
        )

    for state, code in (
        (OperationState.DONE, Exit.OK),
        (OperationState.FAILED, Exit.FAILED),
        (OperationState.UNKNOWN, Exit.UNKNOWN),
    ):
        operations[job.id] = job
        monkeypatch.setattr("time.sleep", lambda _, state=state: end(state))
        ended = dr("host", "fence", "h2", "--yes", "--wait")
        assert ended.code == code
        assert "0.50 s  h2 is fenced" in ended.err
        assert "0.80 s  web runs" in ended.err
        assert ended.out == ""
    operations[job.id] = job
    ended = dr("host", "fence", "h2", "--yes", "--no-wait")
    assert ended.code == 0
    assert "dr job watch failover-3-1" in ended.err


def test_a_job_tells_how_far_its_moves_are(service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch) -> None:
    state = service.coordinator.state
    move = Move(
        stage=MoveStage.COPYING,
        source="h1",
        destination="h2",
        operation="failover-3-1",
        began=NOW - 4,
        job="t",
    )
    state.guests[WEB] = changed(state.guests[WEB], phase=GuestPhase.MIGRATING, move=move)
    state.unsettled.add(WEB)
    assert "web h1 to h2: copying" in dr("job", "show", "failover-3-1").out
    fast = Progress(
        guest=WEB, elapsed_s=3.0, total_mib=2048, remaining_mib=512, rate_mib_s=120, dirty_mib_s=20
    )
    view = state.views["h1"]

    def far(progress: Progress) -> str:
        state.views["h1"] = changed(view, progress={WEB: progress})
        return dr("job", "show", "failover-3-1").out

    assert "web h1 to h2: 75 %, 512 MiB left at 120 MiB/s, about 5 s to go" in far(fast)
    slow = changed(fast, passes=4, dirty_mib_s=130.0, throttle_pct=40)
    assert "pass 4, 130 MiB/s become dirty, slowed down by 40 %; at this rate it never ends" in far(slow)
    harder = changed(move, rung=Rung.STANDSTILL, foreseen=Rung.PLAIN)
    state.guests[WEB] = changed(state.guests[WEB], move=harder)
    (seen,) = json.loads(dr("job", "show", "failover-3-1", "-o", "json").out)["item"]["moves"]
    assert (seen["rung"], seen["foreseen"]) == ("standstill", "plain")
    monkeypatch.setattr("dr.cli.ask.TELL_S", -1.0)
    watched = dr("job", "watch", "failover-3-1", "--timeout", "0.9")
    assert watched.code == Exit.TIMED_OUT
    assert "web h1 to h2: 75 %" in watched.err


def test_ctrl_c_detaches_and_time_runs_out(service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    ended = dr("job", "watch", "failover-3-1")
    assert ended.code == Exit.INTERRUPTED
    assert "Come back with: dr job watch failover-3-1" in ended.err
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert dr("job", "watch", "failover-3-1", "--timeout", "0.01").code == Exit.TIMED_OUT


def test_events_follow_one_object_a_line(service: Service, dr: Dr, monkeypatch: pytest.MonkeyPatch) -> None:
    from dr.cli.client import Api

    service.coordinator.write("host.late", "h2 is late", host="h2")
    asked = 0
    real = Api.get

    def get(self: Api, path: str, shape: object, **query: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            service.coordinator.write("fence.off", "h2 is off", host="h2")
        if asked == 3:
            raise KeyboardInterrupt
        return real(self, path, shape, **query)  # type: ignore[arg-type]

    monkeypatch.setattr(Api, "get", get)
    ended = dr("events", "--follow", "-o", "json")
    assert [json.loads(line)["text"] for line in ended.out.splitlines()] == ["h2 is late", "h2 is off"]
    assert ended.code == 0


def test_the_doctor_exits_with_3_and_says_the_fix(service: Service, dr: Dr) -> None:
    ended = dr("doctor")
    assert ended.code == Exit.DEGRADED
    assert "critical: h2 has no fencing." in ended.out
    assert "fix: add hosts.h2.fencing" in ended.out
    assert "clock" in ended.out, "the fake's clock is years ahead"


# ---- the command itself


def test_help_mentions_everything(dr: Dr) -> None:
    tree = {
        "": "status events pause resume doctor coordinator version host guest fence job notify config cluster agent "
        "sim",
        "plan": "evacuate",
        "playbook": "list show validate schema",
        "host": "list show fence confirm-down remove label cordon uncordon drain undrain clear-quarantine",
        "guest": "list show protect unprotect start stop label history",
        "fence": "list test history",
        "job": "list show watch",
        "config": "check show",
        "cluster": "init token",
        "agent": "join run",
        "notify": "test",
        "sim": "replay",
    }
    for group, commands in tree.items():
        text = dr(*([group] if group else []), "--help").out
        for command in commands.split():
            assert re.search(rf"^  {command} +[A-Z]", text, re.MULTILINE), f"{group} {command}"
            assert dr(*([group] if group else []), command, "--help").code == 0


def test_version_is_quick() -> None:
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "dr.cli.main", "version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("dr ")
    assert time.monotonic() - started < 5, (
        "a guard against a heavy import; the goal is 0.35 s on an idle machine"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", "import dr.cli.app, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"pydantic", "httpx", "fastapi", "uvicorn", "cryptography", "structlog"} & set(loaded)


def test_the_agent_carries_little() -> None:
    code = """
import sys
from dr.cli import agent_process
from dr.cli.lean import import_websockets
import_websockets()
import dr.adapters.libvirt.hypervisor, dr.adapters.link.client, dr.adapters.health.report, dr.agent.process
import dr.adapters.courier.courier
loaded = set(sys.modules)
import urllib.request
assert hasattr(urllib.request, "urlopen"), "the real one, for whoever needs it"
print(*loaded)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"ruamel.yaml", "email.message", "http.client", "importlib.metadata", "pydantic", "typer", "rich"}
    assert not heavy & set(run.stdout.split())


@pytest.mark.parametrize(
    ("line", "light"),
    [
        ("agent", True),
        ("agent run", True),
        ("agent --config /x", True),
        ("agent run --config /x", True),
        ("agent join", False),
        ("agent --help", False),
        ("agent run --help", False),
        ("status", False),
    ],
)
def test_the_agent_takes_the_light_path(line: str, light: bool) -> None:
    assert main._is_agent(line.split()) is light


def foretold(*guests: Foreseen, operations: tuple[str, ...] = ()) -> object:
    return lambda asked: Reply(
        id=asked.id, accepted=True, message="As told.", guests=guests, operations=operations
    )


GOES = Foreseen(guest=WEB, name="web", fate="live", to="h2")
TIED = Foreseen(
    guest=DB, name="db", fate="blocked", why=("it has a host device", "h3 is off"), todo=("dr guest stop db",)
)
LEFT = Foreseen(guest=LOOSE, name="loose", fate="left", why=("it stays, as asked",))


def test_a_drain_is_told_before_it_begins(service: Service, dr: Dr) -> None:
    """Each guest's fate on stdout; the exit code says whether the host would get empty."""
    service.coordinator.reply = foretold(GOES, TIED, LEFT)  # type: ignore[assignment]
    ended = dr("host", "drain", "h1", "--dry-run", "--leave-unprotected", "--reason", "new DIMM")
    assert ended.code == Exit.DEGRADED
    assert ended.err == "As told.\n"
    lines = [re.split(r"  +", line.rstrip()) for line in ended.out.splitlines()]
    assert lines == [
        ["GUEST", "FATE", "WHY", "WHAT WOULD HELP"],
        ["web", "live to h2"],
        ["db", "stays", "it has a host device; h3 is off", "dr guest stop db"],
        ["loose", "left there", "it stays, as asked"],
    ]
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskDrain)
    assert (asked.host, asked.dry_run, asked.leave_unprotected) == ("h1", True, True)
    assert (asked.reason, asked.by) == ("new DIMM", "alice")
    told = json.loads(dr("host", "drain", "h1", "--dry-run", "-o", "json").out)
    assert [(each["name"], each["fate"], each["to"]) for each in told["guests"]] == [
        ("web", "live", "h2"),
        ("db", "blocked", ""),
        ("loose", "left", ""),
    ]
    assert told["guests"][1]["why"] == ["it has a host device", "h3 is off"]
    service.coordinator.reply = foretold(GOES, LEFT)  # type: ignore[assignment]
    assert dr("host", "drain", "h1", "--dry-run").code == Exit.OK


TIMED = changed(GOES, send_mib=640, rung=Rung.STANDSTILL, downtime_s=0.66, begins_s=0.0, ends_s=7.9)
FORECAST = Forecast(
    total_s=7.9, bound_s=6.4, rests_on=("h1: 100 MiB/s each way", "what guests write is not counted")
)


def test_a_drain_says_when_each_goes_and_what_that_rests_on(service: Service, dr: Dr) -> None:
    service.coordinator.reply = lambda asked: Reply(
        id=asked.id, accepted=True, message="As told.", guests=(TIMED, LEFT), forecast=FORECAST
    )
    ended = dr("host", "drain", "h1", "--dry-run")
    assert ended.code == Exit.OK
    lines = [re.split(r"  +", line.rstrip()) for line in ended.out.splitlines()]
    assert lines == [
        ["GUEST", "FATE", "TO SEND", "RUNG", "DOWN FOR", "BEGINS IN", "ENDS IN", "WHY", "WHAT WOULD HELP"],
        ["web", "live to h2", "640 MiB", "standstill", "0.7 s", "0.0 s", "7.9 s"],
        ["loose", "left there", "it stays, as asked"],
    ]
    assert ended.err == (
        "As told.\nThe forecast rests on:\n  h1: 100 MiB/s each way\n  what guests write is not counted\n"
    )


def test_an_evacuation_is_planned(service: Service, dr: Dr) -> None:
    """As a dry run of the drain, read from the coordinator's state; the exit code says whether all would go."""
    ended = dr("plan", "evacuate", "h1")
    assert ended.code == Exit.DEGRADED
    assert "0 of 2 guests would move live" in ended.err
    assert [line.split()[:2] for line in ended.out.splitlines()[1:3]] == [
        ["web", "stays"],
        ["loose", "stays"],
    ]
    told = json.loads(dr("plan", "evacuate", "h1", "--leave-unprotected", "-o", "json").out)
    assert (told["kind"], told["host"]) == ("evacuation", "h1")
    assert {each["name"]: each["fate"] for each in told["guests"]} == {"web": "blocked", "loose": "left"}
    assert dr("plan", "evacuate", "h1", "-o", "name").out == "web\nloose\n"
    assert dr("plan", "evacuate", "h9").code == Exit.MISSING
    assert not service.coordinator.asked


def test_a_deadline_tells_who_is_late(service: Service, dr: Dr) -> None:
    ended = dr("plan", "evacuate", "h1", "--deadline", "1h30m")
    assert ended.code == Exit.DEGRADED
    assert "TOO LATE" in ended.out
    assert "nobody stops it, nor starts it elsewhere" in ended.out
    assert "TOO LATE" not in dr("plan", "evacuate", "h1").out
    for text in ("soon", "0s", "10 m", "-5s", "1.5h"):
        ended = dr("plan", "evacuate", "h1", f"--deadline={text}")
        assert ended.code == Exit.USAGE, text
        assert "90s, 10m or 1h30m" in ended.err


def test_whoever_would_be_stopped_for_a_deadline_is_named_first(service: Service, dr: Dr) -> None:
    ended = dr("host", "drain", "h1", "--deadline", "10m")
    assert ended.code == Exit.USAGE
    assert "These cannot leave live in 10m and are stopped: web" in ended.err
    assert not service.coordinator.asked
    dr("host", "drain", "h1", "--deadline", "10m", "--yes", "--no-wait")
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskDrain)
    assert asked.deadline_s == 600


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h5s", 7205)]
)
def test_a_span_of_time(text: str, seconds: float) -> None:
    assert ask.seconds(text) == seconds


def test_a_job_shows_what_was_foretold(service: Service, dr: Dr) -> None:
    assert "forecast" not in dr("job", "show", "protect-2-9").out
    operations = service.coordinator.state.operations
    operations["protect-2-9"] = changed(operations["protect-2-9"], foreseen_s=90.0)
    assert "forecast  90 s" in dr("job", "show", "protect-2-9").out


def test_a_job_shows_what_its_commands_said_and_nothing_that_moves_a_cursor(service: Service, dr: Dr) -> None:
    """The output goes to stdout, all about it to stderr; as JSON it is unchanged."""
    service.coordinator.outputs_kept = [SAID]
    ended = dr("job", "show", "playbook-3-9", "--evidence")
    assert ended.out == "no\ufffd[2J space\n"
    assert "step 2, h1: /usr/bin/dnf -y upgrade: exit code 1" in ended.err
    found = json.loads(dr("job", "show", "playbook-3-9", "--evidence", "-o", "json").out)
    assert found["items"][0]["output"] == "no\x1b[2J space\n"
    assert "has run no command" in dr("job", "show", "playbook-3-8", "--evidence").err


def test_the_preflight_of_a_move(service: Service, dr: Dr) -> None:
    """Of one guest every check, of several what is not ok; the exit code says whether all would go."""
    room = Finding(name=CheckName.ROOM, verdict=Verdict.OK, text="h2 has room for it")
    backup = Finding(name=CheckName.BACKUP, verdict=Verdict.BLOCKED, text="a backup of db", fix="wait")
    clock = Finding(name=CheckName.CLOCK, verdict=Verdict.WARNING, text="h2 is late")
    db = changed(TIED, checks=(backup, room))
    service.coordinator.reply = foretold(db)  # type: ignore[assignment]
    ended = dr("guest", "migrate", "db", "--dry-run")
    assert ended.code == Exit.DEGRADED
    lines = [re.split(r"  +", line.rstrip()) for line in ended.out.splitlines()]
    assert lines[2:] == [
        ["GUEST", "CHECK", "VERDICT", "SENTENCE", "FIX"],
        ["db", "backup", "blocked", "a backup of db", "wait"],
        ["db", "room", "ok", "h2 has room for it"],
    ]
    service.coordinator.reply = foretold(db, changed(GOES, checks=(room, clock)))  # type: ignore[assignment]
    ended = dr("guest", "migrate", "db", "web", "--dry-run")
    assert ended.code == Exit.DEGRADED
    assert [line.split()[:2] for line in ended.out.splitlines()[4:]] == [["db", "backup"], ["web", "clock"]]
    assert "2 checks are ok; -o wide shows them too." in ended.err
    wide = dr("guest", "migrate", "db", "web", "--dry-run", "-o", "wide").out
    assert [line.split()[1] for line in wide.splitlines()[4:]] == ["backup", "room", "room", "clock"]
    service.coordinator.reply = foretold(changed(GOES, checks=(room, clock)))  # type: ignore[assignment]
    assert dr("guest", "migrate", "web", "--dry-run").code == Exit.OK


def test_a_drain_is_watched_to_its_end_and_taken_back(service: Service, dr: Dr) -> None:
    service.coordinator.reply = foretold(GOES, operations=("protect-2-9",))  # type: ignore[assignment]
    ended = dr("host", "drain", "h1")
    assert ended.code == 0
    assert "live to h2" in ended.out
    assert "protect web: done" in ended.err, "it stayed until the job had ended"
    assert "dr host undrain h1" in ended.err
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskDrain)
    assert (asked.dry_run, asked.leave_unprotected) == (False, False)
    ended = dr("host", "drain", "h1", "--no-wait")
    assert "dr job watch protect-2-9" in ended.err
    service.coordinator.reply = accept()  # type: ignore[assignment]
    assert dr("host", "undrain", "h1", "--reason", "DIMM is in").code == 0
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskUndrain)
    assert (asked.host, asked.reason) == ("h1", "DIMM is in")


def test_a_drain_that_is_refused(service: Service, dr: Dr) -> None:
    service.coordinator.reply = lambda asked: Reply(
        id=asked.id, accepted=False, blockers=("no such host: h9",), missing=True
    )
    for verb in ("drain", "undrain"):
        ended = dr("host", verb, "h9")
        assert ended.code == Exit.MISSING
        assert "no such host: h9" in ended.err
        assert "next: dr host list" in ended.err


def test_a_cordoned_host_is_shown_with_its_reason(service: Service, dr: Dr) -> None:
    ended = dr("host", "cordon", "h1", "--reason", "new DIMM")
    assert ended.code == 0
    assert "dr host uncordon h1" in ended.err
    hosts = service.coordinator.state.hosts
    hosts["h1"] = with_wishes(hosts["h1"], cordon=Wish(by="alice", reason="new DIMM"), drain=None)
    for words in (("host", "list"), ("host", "show", "h1"), ("status",)):
        shown = dr(*words).out
        assert "online, cordoned" in shown
        assert "is cordoned by alice: new DIMM" in shown
    hosts["h1"] = changed(hosts["h1"], phase=HostPhase.MAINTENANCE)
    assert "0 of 3 hosts online (1 set aside)" in dr("status").out
