"""`dr plan evacuate --save` and `dr apply`: the file between them, over the served API, decided by the core."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dr.api.plan_schema import EvacuationPlan
from dr.cli import planfile
from dr.cli.failure import Exit
from dr.core.wishes import with_wishes
from dr.model.effects import Reply
from dr.model.events import AskApply, AskDrain, OperatorAsk
from dr.model.records import Wish
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.build import Bench, domain, guest
from tests.core.test_plans import bench


@pytest.fixture
def made(service: Service) -> Bench:
    """Four hosts; two guests on h1 and one on h2, behind the API."""
    made = bench(guest("a", "h1"), guest("b", "h1"), guest("c", "h2"), resident={"a": 640, "b": 320, "c": 64})

    def decided(asked: OperatorAsk) -> Reply:
        return next(each for each in made.send(asked) if isinstance(each, Reply))

    service.coordinator.state = made.state
    service.coordinator.reply = decided
    return made


@pytest.fixture
def saved(made: Bench, dr: Dr, tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    ended = dr("plan", "evacuate", "h1", "h2", "--save", str(file))
    assert ended.code == Exit.OK, ended.err
    return file


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_several_hosts_are_told_together(made: Bench, dr: Dr) -> None:
    ended = dr("plan", "evacuate", "h1", "h2")
    assert ended.code == Exit.OK
    assert ended.err.startswith("2 hosts: 3 of 3 guests would move live, in about ")
    lines = [re.split(r"  +", line.rstrip()) for line in ended.out.splitlines()]
    assert lines[0][:4] == ["HOST", "GUEST", "FATE", "TO SEND"]
    assert [line[:2] for line in lines[1:4]] == [["h1", "a"], ["h1", "b"], ["h2", "c"]]
    told = json.loads(dr("plan", "evacuate", "h1", "h2", "-o", "json").out)
    assert (told["kind"], told["hosts"]) == ("evacuation", ["h1", "h2"])
    assert {each["name"]: each["host"] for each in told["guests"]} == {"a": "h1", "b": "h1", "c": "h2"}
    assert dr("plan", "evacuate", "h1", "h9").code == Exit.MISSING
    one = dr("plan", "evacuate", "h1")
    assert one.out.splitlines()[0].startswith("GUEST "), "of one host as ever"


def test_several_hosts_are_drained_by_one_command(made: Bench, service: Service, dr: Dr) -> None:
    ended = dr("host", "drain", "h1", "h2", "--dry-run")
    assert ended.code == Exit.OK
    assert ended.out.splitlines()[0].startswith("HOST  GUEST  FATE")
    assert made.host("h1").drain is None
    made.see("h2", domain("c", memory_mib=65536, resident_mib=60_000))
    ended = dr("host", "drain", "h1", "h2", "--deadline", "1m")
    assert (ended.code, made.host("h1").drain) == (Exit.USAGE, None)
    assert "These cannot leave live in 1m and are stopped: c" in ended.err
    ended = dr("host", "drain", "h1", "h2", "--reason", "new DIMM", "--no-wait", "-o", "name")
    assert ended.code == Exit.OK
    assert len(ended.out.split()) == 2
    assert "End it with: dr host undrain h1; dr host undrain h2" in ended.err
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskDrain)
    assert (asked.host, asked.also) == ("h1", ("h2",))
    assert {host.name for host in made.state.hosts.values() if host.drain} == {"h1", "h2"}


def test_a_plan_is_written_to_be_read(saved: Path, made: Bench, dr: Dr) -> None:
    text = saved.read_text()
    assert text.startswith("# An evacuation plan, made by `dr plan evacuate`.")
    plan = YAML(typ="safe").load(text)
    assert (plan["kind"], plan["cluster"], plan["by"]) == ("evacuation-plan", "lab", "alice")
    assert (plan["hosts"], plan["deadline_s"], plan["leave_unprotected"]) == (["h1", "h2"], 0, False)
    assert plan["revision"] == made.state.revision
    assert [each["name"] for each in plan["guests"]] == ["a", "b", "c"], "in their turns"
    assert plan["guests"][0]["to"] in ("h3", "h4")
    assert plan["guests"][0]["terms"]["move_downtime_s"] == 1.0
    assert plan["forecast"]["rests_on"]
    assert sorted(each.name for each in saved.parent.iterdir()) == ["plan.yaml"], (
        "nothing half written is left"
    )


def test_a_file_that_is_there_is_left_alone_unless_told(saved: Path, dr: Dr) -> None:
    saved.write_text("mine")
    ended = dr("plan", "evacuate", "h1", "--save", str(saved))
    assert ended.code == Exit.REFUSED
    assert "--replace" in ended.err
    assert saved.read_text() == "mine"
    assert dr("plan", "evacuate", "h1", "--save", str(saved), "--replace").code == Exit.OK
    assert planfile.load(saved).hosts == ["h1"]
    ended = dr("plan", "evacuate", "h1", "--save", str(saved / "no" / "folder"))
    assert ended.code == Exit.FAILED
    assert "cannot be written" in ended.err


def test_a_plan_may_be_json(made: Bench, dr: Dr, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    dr("plan", "evacuate", "h1", "--save", str(file))
    assert json.loads(file.read_text())["kind"] == "evacuation-plan"
    assert dr("apply", str(file), "--no-wait").code == Exit.OK


def test_what_was_approved_is_asked_for(saved: Path, made: Bench, service: Service, dr: Dr) -> None:
    ended = dr("apply", str(saved), "--no-wait", "--reason", "new DIMM")
    assert ended.code == Exit.OK, ended.err
    assert "it is as it was approved" in ended.err
    assert "End it with: dr host undrain h1; dr host undrain h2" in ended.err
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskApply)
    plan = planfile.load(saved)
    assert (asked.hosts, asked.reason, asked.by) == (("h1", "h2"), "new DIMM", "alice")
    assert (asked.plan, asked.revision, asked.anyway, asked.dry_run) == (
        plan.digest,
        plan.revision,
        False,
        False,
    )
    assert [(each.guest, each.to) for each in asked.approved] == [(each.id, each.to) for each in plan.guests]
    assert {host.name for host in made.state.hosts.values() if host.drain} == {"h1", "h2"}
    jobs = {key for key, job in made.state.operations.items() if job.kind == "drain"}
    again = dr("apply", str(saved), "--no-wait", "-o", "name")
    assert set(again.out.split()) == jobs, "twice is once"
    assert len(made.state.operations) == len(jobs)


def test_what_is_different_is_listed_and_nothing_done(saved: Path, made: Bench, dr: Dr) -> None:
    made.put(guest("new", "h2"))
    to = planfile.load(saved).guests[0].to
    made.put(with_wishes(made.host(to), cordon=Wish(by="bob", reason="fan"), drain=None))
    ended = dr("apply", str(saved))
    assert ended.code == Exit.REFUSED
    assert "The plan does not hold any more; nothing was done." in ended.err
    assert f"in the plan it moves live to {to} (now: {to} is cordoned by bob: fan)" in ended.err
    assert "new: is on h2 now, and not in the plan" in ended.err
    assert f"dr plan evacuate h1 h2 --save {saved} --replace; or --anyway" in ended.err
    assert made.host("h1").drain is None
    ended = dr("apply", str(saved), "--dry-run")
    assert ended.code == Exit.CHANGES
    assert "Different from the plan:\n  a: moves live to" in ended.err
    assert made.host("h1").drain is None
    assert dr("apply", str(saved), "--anyway", "--no-wait").code == Exit.OK
    assert made.host("h1").drain is not None


def test_a_dry_run_of_a_plan_that_holds(saved: Path, made: Bench, dr: Dr) -> None:
    ended = dr("apply", str(saved), "--dry-run")
    assert ended.code == Exit.OK
    assert "it is as it was approved" in ended.err
    assert made.host("h1").drain is None


def test_whoever_is_to_be_stopped_is_named_before(made: Bench, dr: Dr, tmp_path: Path) -> None:
    made.see("h1", domain("a", memory_mib=65536, resident_mib=60_000))
    file = tmp_path / "plan.yaml"
    assert dr("plan", "evacuate", "h1", "--deadline", "1m", "--save", str(file)).code == Exit.DEGRADED
    ended = dr("apply", str(file))
    assert ended.code == Exit.USAGE
    assert "These cannot leave live in time and are stopped: a" in ended.err
    assert made.host("h1").drain is None
    assert dr("apply", str(file), "--yes", "--no-wait").code == Exit.OK
    drain = made.host("h1").drain
    assert drain is not None
    assert drain.deadline == made.now + 60


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda file: file.unlink(), "no such file"),
    "not YAML": (lambda file: file.write_text("a: [\n"), ":2: "),
    "a list": (lambda file: file.write_text("- a\n"), "must be a mapping of keys and values"),
    "another file": (lambda file: file.write_text("\nhosts: [h1]\n"), ':1: kind: must be evacuation-plan, not ""'),
    "another kind": (
        lambda file: edit(file, "kind: evacuation-plan", "kind: failover-plan"),
        ':5: kind: must be evacuation-plan, not "failover-plan"',
    ),
    "another version": (lambda file: edit(file, "version: 1", "version: 2"), ":4: version: must be one of 1, not 2"),
    "a word too many": (
        lambda file: edit(file, "revision:", "revison: 3\nrevision:"),
        ":9: revison: unknown key; did you mean revision?",
    ),
    "a word too few": (lambda file: edit(file, "by: alice\n", ""), "by: is required"),
    "a wrong word": (
        lambda file: edit(file, "fate: live", "fate: alive"),
        "guests[0].fate: must be one of 'live', 'blocked' or 'left', not \"alive\"; did you mean live?",
    ),
    "text for a number": (
        lambda file: edit(file, "priority: 100", "priority: high"),
        'guests[0].terms.priority: must be a whole number, not "high"',
    ),
    "to itself": (
        lambda file: edit(file, "to: h3", "to: h2"),
        "guests[0].to: h2 is to be emptied itself",
    ),
    "from elsewhere": (
        lambda file: edit(file, "host: h2", "host: h4"),
        "guests[2].host: h4 is not among the plan's hosts",
    ),
    "to nowhere": (
        lambda file: edit(file, "to: h3", "to: ''"),
        "guests[0].to: a moves live, so it needs a destination",
    ),
    "stays, and goes": (
        lambda file: edit(file, "fate: live", "fate: blocked"),
        "guests[0].to: a does not move, so it has no destination",
    ),
    "twice": (lambda file: edit(file, "id: b\n", "id: a\n"), "guests[1].id: a is there twice"),
    "a host twice": (lambda file: edit(file, "- h2\n", "- h1\n"), "hosts[1]: h1 is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_file_is_told_with_line_and_field(saved: Path, service: Service, dr: Dr, what: str) -> None:
    spoil, said = BAD[what]
    spoil(saved)
    ended = dr("apply", str(saved))
    assert ended.code == Exit.BAD_DATA
    assert said in ended.err
    assert f"    - {saved}:" in ended.err
    assert not service.coordinator.asked


def test_a_plan_of_another_cluster_is_refused(saved: Path, service: Service, dr: Dr) -> None:
    edit(saved, "cluster: lab", "cluster: prod")
    ended = dr("apply", str(saved), "--anyway")
    assert ended.code == Exit.REFUSED
    assert "it is of cluster prod, and this is lab" in ended.err
    assert not service.coordinator.asked


def test_a_plan_of_a_newer_store_is_refused(saved: Path, made: Bench, dr: Dr) -> None:
    edit(saved, f"revision: {made.state.revision}", "revision: 99999")
    ended = dr("apply", str(saved), "--anyway")
    assert ended.code == Exit.REFUSED
    assert "it is an older copy" in ended.err


def test_another_word_is_another_plan(saved: Path) -> None:
    plan = planfile.load(saved)
    assert plan.digest == EvacuationPlan.model_validate(plan.model_dump()).digest
    edit(saved, "priority: 100", "priority: 101")
    assert planfile.load(saved).digest != plan.digest
