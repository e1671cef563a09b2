"""What the API answers: status, refusals with every blocker, the timeline, metrics, the doctor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dr.adapters.libvirt.facts import NO_HIBERNATION
from dr.adapters.pki.credentials import client_context
from dr.adapters.pki.identity import Role
from dr.api import doctor, metrics, schema, summary, timeline, views
from dr.api.snapshot import Snapshot
from dr.core.fleet import fleet_of
from dr.core.state import Draft, State
from dr.core.volatile import Sampled, View
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.effects import Forecast, Foreseen, Reply
from dr.model.events import (
    AskCancelMove,
    AskConfirmDown,
    AskCordon,
    AskDrain,
    AskLabel,
    AskMigrate,
    AskProtect,
    AskRelocate,
    AskSet,
    AskStop,
    AskUncordon,
    AskUndrain,
)
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.facts import DirtyPoint, DomainState, GuestFacts, HookState, Tie, TieKind
from dr.model.policy import After, GuestPolicy, HostRule
from dr.model.preflight import Check, CheckName, Verdict
from dr.model.records import Alert, Desired, Homing, HostPhase, Pause, Place, Rung, Wish
from tests.api.service import DB, DEVICES, LOOSE, NOW, WALL, WEB, Service, fleet


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    context = client_context(service.credentials(Role.ADMIN, "alice"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as client:
        yield client


def snap(state: State) -> Snapshot:
    return Snapshot.of(state, NOW, lambda now: WALL + now, DEVICES)


def test_status_says_what_is_wrong_and_how_old_it_is(http: httpx.Client) -> None:
    status = schema.Status.model_validate_json(http.get("/v1/status").content)
    assert (status.healthy, status.epoch, status.revision, status.leader_time_s) == (False, 3, 40, NOW)
    hosts = {host.name: host for host in status.hosts}
    assert (hosts["h1"].heard_s, hosts["h1"].connected, hosts["h1"].fencing) == (0.2, True, "proven")
    assert (hosts["h2"].heard_s, hosts["h2"].connected, hosts["h2"].fencing) == (12.0, False, "none")
    assert hosts["h3"].heard_s is None
    assert [guest.name for guest in status.unsettled] == ["db"]
    assert (status.guests_total, status.guests_protected, status.guests_running) == (3, 2, 1)
    assert "h2 is suspect: nothing heard for 1.4 s" in status.problems
    assert any(text.startswith("db is recovering") for text in status.problems)
    assert [operation.id for operation in status.operations] == ["failover-3-1"]


@pytest.mark.parametrize(
    ("phase", "session", "said"),
    [
        (HostPhase.SUSPECT, "", "h2 is suspect: silence; it may still run there"),
        (HostPhase.FENCING, "", "h2 is fencing: silence; it may still run there"),
        (HostPhase.FENCED, "", "h2 is fenced: silence; it may still run there"),
        (HostPhase.ONLINE, "", "h2 is not heard: silence; it ran there"),
        (HostPhase.ONLINE, "s2", ""),
    ],
)
def test_a_guest_of_a_silent_host_does_not_count_as_running(
    phase: HostPhase, session: str, said: str
) -> None:
    """Until its host is proven off or answers, nobody knows: it is shown as unknown, with what it waits for."""
    state = well()
    h1 = state.hosts["h1"]
    state.hosts["h2"] = changed(h1, name="h2", phase=phase, reason="silence", boot_id="boot-2")
    place = Place(host="h2", boot_id="boot-2", generation=4)
    state.guests[WEB] = changed(state.guests[WEB], may_run_on=(place,), holder="h2")
    state.views["h2"] = View(session=session, heard=NOW - 1.0)
    status = summary.status(snap(state))
    (row,) = [row for row in views.guests(snap(state)).items if row.name == "web"]
    assert row.reason.startswith(said)
    assert row.phase == ("unknown" if said else "running")
    assert status.guests_running == (0 if said else 1)
    assert [guest.name for guest in status.unsettled] == (["web"] if said else [])
    assert any(text.startswith(f"web is unknown: {said}") for text in status.problems) == bool(said)
    assert status.healthy != bool(said)
    shown = metrics.render(snap(state)).decode()
    assert f'dr_guests{{phase="unknown"}} {1.0 if said else 0.0}' in shown


def well() -> State:
    """One host and one guest, with which all is well."""
    state = fleet()
    del state.hosts["h2"], state.hosts["h3"], state.guests[DB]
    state.operations.clear()
    return state


def test_a_fleet_that_is_well_is_healthy() -> None:
    state = well()
    assert summary.status(snap(state)).problems == []
    paused = changed(state.cluster, pause=Pause(reason="maintenance", by="bob", at=NOW - 60))
    state.cluster = paused
    assert summary.status(snap(state)).problems == ["Automation is paused by bob: maintenance"]


def test_a_running_guest_with_an_alert_is_a_problem() -> None:
    """Its phase is right, yet it stands still: `dr status --check` must not call that healthy."""
    state = well()
    key = f"guest/{WEB}/io-error"
    state.alerts = {key: Alert(key=key, what="web is paused on h1 by an I/O error", why="", todo="")}
    assert summary.status(snap(state)).problems == ["web is paused on h1 by an I/O error"]


def test_guests_include_those_that_nobody_protects(http: httpx.Client) -> None:
    rows = {row["name"]: row for row in http.get("/v1/guests").json()["items"]}
    assert (rows["loose"]["protected"], rows["loose"]["phase"], rows["loose"]["host"]) == (
        False,
        "running",
        "h1",
    )
    assert rows["web"]["may_run_on"] == [{"host": "h1", "boot_id": "boot-1", "generation": 4}]


def test_a_guest_is_found_by_name_and_by_uuid(http: httpx.Client) -> None:
    for name in ("web", WEB, WEB.upper(), "loose"):
        assert http.get(f"/v1/guests/{name}").status_code == 200
    assert http.get("/v1/guests/web").json()["item"]["definition_by"] == "h1"
    missing = http.get("/v1/guests/nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "missing")


def test_a_name_that_two_guests_have_is_refused(http: httpx.Client, service: Service) -> None:
    view = service.coordinator.state.views["h1"]
    twin = GuestFacts(id=LOOSE, name="web", state=DomainState.SHUTOFF)
    service.coordinator.state.views["h1"] = changed(view, guests={**view.guests, LOOSE: twin})
    answer = http.get("/v1/guests/web")
    assert answer.status_code == 409
    assert answer.json()["blockers"] == sorted([WEB, LOOSE])


def test_asks_arrive_as_they_were_meant(http: httpx.Client, service: Service) -> None:
    sent: list[tuple[str, dict[str, Any]]] = [
        ("/v1/guests/protect", {"guests": ["web"], "priority": 7, "reason": "it matters"}),
        ("/v1/guests/stop", {"guests": ["web", "db"], "mode": "destroy"}),
        ("/v1/guests/relocate", {"guests": ["web"], "to": "h2"}),
        ("/v1/guests/migrate", {"guests": ["web"], "to": "h2", "dry_run": True}),
        ("/v1/guests/cancel-move", {"guests": ["web"]}),
        (
            "/v1/guests/set",
            {
                "guests": ["web"],
                "desired": "ignored",
                "failback": True,
                "boot_after": ["db:check"],
                "checks": ["none"],
            },
        ),
        ("/v1/hosts/h2/confirm-down", {"boot_id": "boot-2", "reason": "unplugged"}),
        ("/v1/hosts/h1/labels", {"labels": {"rack": "b", "old": None}}),
    ]
    for path, body in sent:
        assert http.post(path, json=body).status_code == 200
    protect, stop, relocate, migrate, cancel, given, down, label = service.coordinator.asked
    assert isinstance(protect, AskProtect)
    assert (protect.guests, protect.priority, protect.reason, protect.by) == (
        ("web",),
        7,
        "it matters",
        "alice",
    )
    assert isinstance(stop, AskStop)
    assert (stop.guests, stop.mode) == (("web", "db"), "destroy")
    assert isinstance(relocate, AskRelocate)
    assert (relocate.guests, relocate.to, relocate.mode) == (("web",), "h2", "shutdown")
    assert isinstance(migrate, AskMigrate)
    assert (migrate.guests, migrate.to, migrate.dry_run) == (("web",), "h2", True)
    assert isinstance(cancel, AskCancelMove)
    assert cancel.guests == ("web",)
    assert isinstance(given, AskSet)
    assert (given.guests, given.desired, given.by) == (("web",), Desired.IGNORED, "alice")
    after = (After(guest="db", until="check"),)
    assert given.policy.fields() == {"failback": True, "boot_after": after, "checks": ()}
    assert isinstance(down, AskConfirmDown)
    assert (down.host, down.boot_id) == ("h2", "boot-2")
    assert isinstance(label, AskLabel)
    assert (label.kind, label.name, label.labels) == ("host", "h1", {"rack": "b", "old": None})
    assert len({ask.id for ask in service.coordinator.asked}) == len(sent)


def test_a_refusal_lists_every_blocker(http: httpx.Client, service: Service) -> None:
    blockers = ("h2 still answers", "web may be running there")
    service.coordinator.reply = lambda ask: Reply(
        id=ask.id, accepted=False, message="h2 is not removed.", blockers=blockers
    )
    answer = http.post("/v1/hosts/h2/remove", json={})
    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["blockers"]) == ("refused", list(blockers))
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=False, message="no host", missing=True)
    assert http.post("/v1/hosts/x/fence", json={}).status_code == 404


def test_an_ask_without_an_answer_is_unknown(http: httpx.Client, service: Service) -> None:
    def silent(ask: object) -> Reply:
        raise TimeoutError

    service.coordinator.reply = silent
    answer = http.post("/v1/hosts/h2/fence", json={})
    assert (answer.status_code, answer.json()["code"]) == (504, "unknown")


def test_what_does_not_fit_is_told_by_field(http: httpx.Client) -> None:
    answer = http.post("/v1/guests/stop", json={"guests": ["web"], "mode": "freeze"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("mode:")
    assert http.get("/v1/nowhere").json()["code"] == "missing"


def test_notes_newest_then_what_follows(http: httpx.Client, service: Service) -> None:
    for number in range(5):
        service.coordinator.write("host.late", f"line {number}", host=f"h{number % 2}")
    first = http.get("/v1/notes", params={"limit": 2}).json()
    assert [note["text"] for note in first["items"]] == ["line 3", "line 4"]
    begun = time.monotonic()
    later = http.get("/v1/notes", params={"after": first["next"], "wait_s": 0.2}).json()
    assert later["items"] == []
    assert time.monotonic() - begun >= 0.2
    service.coordinator.write("fence.off", "off", host="h1")
    later = http.get("/v1/notes", params={"after": first["next"], "wait_s": 5}).json()
    assert [note["text"] for note in later["items"]] == ["off"]


def test_notes_are_filtered_and_the_cursor_passes_what_did_not_fit(
    http: httpx.Client, service: Service
) -> None:
    service.coordinator.write("guest.start", "web starts", guest=WEB)
    service.coordinator.write("fence.off", "off", host="h2", operation="failover-3-1")
    service.coordinator.write("host.late", "late", host="h1")
    for query, texts in (
        ({"topic": "fence"}, ["off"]),
        ({"host": "h1"}, ["late"]),
        ({"guest": "web"}, ["web starts"]),
        ({"operation": "failover-3-1"}, ["off"]),
    ):
        answer = http.get("/v1/notes", params=query).json()
        assert [note["text"] for note in answer["items"]] == texts
        assert answer["next"] == "note/000000000003"
    answer = http.get("/v1/notes", params={"after": "note/", "topic": "fence"}).json()
    assert ([note["text"] for note in answer["items"]], answer["next"]) == (["off"], "note/000000000003")


def test_a_filter_looks_back_page_by_page(
    http: httpx.Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "NOTES_AT_ONCE", 3)
    for number in range(1, 11):
        service.coordinator.write("fence.off" if number in (2, 5, 9) else "host.late", f"line {number}")
    for limit, texts in ((1, ["line 9"]), (2, ["line 5", "line 9"]), (9, ["line 2", "line 5", "line 9"])):
        answer = http.get("/v1/notes", params={"topic": "fence", "limit": limit}).json()
        assert [note["text"] for note in answer["items"]] == texts
        assert answer["next"] == "note/000000000010"
    answer = http.get("/v1/notes", params={"after": "note/", "limit": 4}).json()
    assert ([note["text"] for note in answer["items"]][-1], answer["next"]) == ("line 4", "note/000000000004")
    monkeypatch.setattr(timeline, "LOOKED_THROUGH_MAX", 6)
    answer = http.get("/v1/notes", params={"topic": "fence", "limit": 9}).json()
    assert [note["text"] for note in answer["items"]] == ["line 5", "line 9"]


def test_operations_with_their_steps(http: httpx.Client) -> None:
    rows = http.get("/v1/operations").json()["items"]
    assert [row["id"] for row in rows] == ["protect-2-9", "failover-3-1"]
    assert rows[0]["duration_s"] == 1.5
    job = http.get("/v1/operations/failover-3-1").json()["item"]
    assert job["guest_names"] == {DB: "db"}
    assert job["steps"] == [{"wall": WALL + 999.5, "after_s": 0.5, "text": "h2 is fenced"}]
    assert http.get("/v1/operations/x").status_code == 404


def test_fencing_is_shown_without_secrets(http: httpx.Client, service: Service) -> None:
    answer = http.get("/v1/fence")
    assert "hunter2" not in answer.text
    rows = {row["host"]: row for row in answer.json()["items"]}
    assert (rows["h1"]["proven"], rows["h1"]["address"], rows["h1"]["proven_wall"]) == (
        True,
        "10.9.0.1",
        WALL + 500,
    )
    assert rows["h2"]["reason"] == "no fencing is configured"
    identities = service.coordinator.state.identities
    identities["h1", "bmc"] = changed(identities["h1", "bmc"], fingerprint="of other parameters")
    row = http.get("/v1/fence").json()["items"][0]
    assert not row["proven"]
    assert "changed since" in row["reason"]


def test_metrics(http: httpx.Client) -> None:
    text = http.get("/metrics").text
    for line in (
        "dr_epoch 3.0",
        'dr_host_phase{host="h2",phase="suspect"} 1.0',
        'dr_host_heard_seconds{host="h2"} 12.0',
        'dr_guests{phase="recovering"} 1.0',
        "dr_guests_unprotected 1.0",
        'dr_host_fencing_proven{host="h1"} 1.0',
    ):
        assert line in text.splitlines()


def test_the_openapi_contract_names_every_path(http: httpx.Client) -> None:
    paths = http.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/status", "/v1/join", "/v1/hosts/{name}/confirm-down", "/v1/notes", "/metrics"} <= set(paths)


def test_notify_test_says_which_sink_failed(http: httpx.Client, service: Service) -> None:
    assert http.post("/v1/notify/test").json()["code"] == "refused"
    service.sinks = [("mail", ""), ("chat", "HTTP 500")]
    answer = http.post("/v1/notify/test")
    assert (answer.status_code, answer.json()["blockers"]) == (502, ["chat: HTTP 500"])
    service.sinks = [("mail", "")]
    assert http.post("/v1/notify/test").status_code == 200


def test_the_doctor_finds_what_would_break_a_failover() -> None:
    state = fleet()
    site = doctor.Site(sinks=0, certificates={"coordinator": 5.0})
    found = {(finding.check, finding.subject): finding for finding in doctor.examine(snap(state), site).items}
    assert found["fencing", "h2"].level == "critical"
    assert found["hosts", "h3"].fix.startswith("dr cluster token h3")
    assert found["certificates", "coordinator"].level == "critical"
    assert found["notifier", ""].level == "warning"
    assert "loose" in found["unprotected", ""].what
    assert ("fencing", "h1") not in found
    assert all(finding.fix for finding in found.values() if finding.level in ("warning", "critical"))


def test_the_doctor_names_what_rules_speak_of_and_is_not_there() -> None:
    state = fleet()
    state.guests[WEB] = changed(state.guests[WEB], labels={"tier": "gold"})
    rules = (
        HostRule(name="good", guests=("web", "label:tier=gold"), hosts={"h1": 1}),
        HostRule(name="odd", guests=("wbe", "label:tier=gld"), hosts={"h1": 1, "h9": 1}),
    )
    state.settings = changed(state.settings, rules=rules)
    (found,) = doctor.rules(snap(state), doctor.Site())
    assert found.subject == "odd"
    assert "guest wbe, any guest with tier=gld, host h9" in found.what


def test_the_doctor_sees_a_lost_n_plus_1() -> None:
    state = fleet()
    del state.hosts["h3"], state.guests[DB]
    two = changed(state.hosts["h1"], name="h2", boot_id="boot-2")
    state.hosts["h2"] = two
    state.views["h2"] = changed(state.views["h1"], session="s2", guests={})
    state.guests[WEB] = changed(
        state.guests[WEB], needs=changed(state.guests[WEB].needs, memory_mib=4096, domain_type="kvm")
    )
    assert list(doctor.spare(snap(state), doctor.Site())) == []
    state.hosts["h2"] = changed(two, facts=changed(two.facts, memory_mib=2048))
    (lost,) = doctor.spare(snap(state), doctor.Site())
    assert lost.subject == "h1"
    assert "web" in lost.what
    assert "MiB" in lost.why


def test_the_doctor_cries_when_a_guest_is_active_twice() -> None:
    state = fleet()
    state.views["h2"] = changed(
        state.views["h2"], guests={WEB: GuestFacts(id=WEB, name="web", state=DomainState.PAUSED)}
    )
    (twice,) = doctor.twice(snap(state), doctor.Site())
    assert (twice.level, twice.subject) == ("critical", "web")


def test_a_backup_is_for_administrators_and_leaves_nothing_behind(
    service: Service, http: httpx.Client
) -> None:
    service.backup = bytes(range(256)) * 4096
    answer = http.get("/v1/backup")
    assert (answer.status_code, answer.content) == (200, service.backup)
    assert not list(service.folder.glob("backup-for-*"))
    context = client_context(service.credentials(Role.AGENT, "h1"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False) as agent:
        assert agent.get("/v1/backup").status_code == 403


def test_power_that_was_read_before_the_host_was_last_heard_is_not_shown() -> None:
    state = well()
    off = PowerReport(level=0, readings=(DeviceReading(device="bmc", power=Power.OFF),))
    for read, shown in ((NOW - 60.0, []), (NOW - 0.1, ["off"])):
        state.views["h1"] = changed(state.views["h1"], power=(off,), power_at=read)
        found = views.host(snap(state), "h1")
        assert found is not None
        assert [device.power for device in found.item.power] == shown
        assert (found.item.power_age_s is None) == (not shown)


def test_the_doctor_masks_what_the_agent_wants_masked() -> None:
    state = well()
    facts = changed(
        state.hosts["h1"].facts, hibernation_masked=False, hook=HookState(proven=False, reason="gone")
    )
    state.hosts["h1"] = changed(state.hosts["h1"], facts=facts)
    fixes = [finding.fix for finding in doctor.hook(snap(state), doctor.Site())]
    (masks,) = [fix for fix in fixes if "mask" in fix]
    assert set(NO_HIBERNATION) <= set(masks.split())
    (hook,) = [fix for fix in fixes if "libvirtd" in fix]
    assert hook.index("dr-agent") < hook.index("libvirtd"), (
        "the agent writes the file that libvirtd looks for"
    )


def test_a_host_that_is_set_aside_is_shown_with_who_wants_it(http: httpx.Client, service: Service) -> None:
    for path, kind in (("cordon", AskCordon), ("uncordon", AskUncordon)):
        assert http.post(f"/v1/hosts/h1/{path}", json={"reason": "new DIMM"}).status_code == 200
        asked = service.coordinator.asked[-1]
        assert isinstance(asked, kind)
        assert (asked.host, asked.reason, asked.by) == ("h1", "new DIMM", "alice")
    hosts = service.coordinator.state.hosts
    wish = Wish(by="alice", reason="new DIMM")
    hosts["h1"] = with_wishes(hosts["h1"], cordon=wish, drain=None)
    hosts["h2"] = changed(
        with_wishes(hosts["h2"], cordon=None, drain=wish), phase=HostPhase.MAINTENANCE, conditions=frozenset()
    )
    h1, h2, _ = http.get("/v1/hosts").json()["items"]
    assert (h1["conditions"], h1["cordon"]) == (["cordoned"], "is cordoned by alice: new DIMM")
    assert (h2["phase"], h2["cordon"]) == ("maintenance", "is being drained by alice: new DIMM")
    status = http.get("/v1/status").json()
    assert not [problem for problem in status["problems"] if problem.startswith(("h1", "h2"))]
    found = http.get("/v1/doctor").json()
    assert [each["level"] for each in found["items"] if "dr host uncordon h1" in each["fix"]] == ["info"]
    assert not [each for each in found["items"] if each["check"] == "hosts" and each["subject"] == "h2"]


def test_a_drain_tells_the_fate_of_each_guest(http: httpx.Client, service: Service) -> None:
    goes = Foreseen(guest=WEB, name="web", fate="live", to="h2")
    backup = Check(name=CheckName.BACKUP, verdict=Verdict.BLOCKED, text="a backup", fix="wait")
    room = Check(name=CheckName.ROOM, verdict=Verdict.UNKNOWN, text="who knows")
    tied = Foreseen(
        guest=DB, name="db", fate="blocked", why=("a", "b"), todo=("dr guest stop db",), checks=(backup, room)
    )
    service.coordinator.reply = lambda ask: Reply(
        id=ask.id, accepted=True, message="Told.", guests=(goes, tied)
    )
    body = {"reason": "new DIMM", "leave_unprotected": True, "dry_run": True}
    answer = http.post("/v1/hosts/h1/drain", json=body)
    assert answer.status_code == 200
    told = schema.Accepted.model_validate_json(answer.content)
    assert (told.message, told.operations) == ("Told.", [])
    assert [(each.id, each.name, each.fate, each.to) for each in told.guests] == [
        (WEB, "web", "live", "h2"),
        (DB, "db", "blocked", ""),
    ]
    assert (told.guests[1].why, told.guests[1].todo) == (["a", "b"], ["dr guest stop db"])
    assert [check.model_dump() for check in told.guests[1].checks] == [
        {"name": "backup", "verdict": "blocked", "text": "a backup", "fix": "wait", "refuses": True},
        {"name": "room", "verdict": "unknown", "text": "who knows", "fix": "", "refuses": False},
    ]
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskDrain)
    assert (asked.host, asked.reason, asked.by) == ("h1", "new DIMM", "alice")
    assert (asked.leave_unprotected, asked.dry_run) == (True, True)
    assert http.post("/v1/hosts/h1/drain", json={}).status_code == 200
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskDrain)
    assert (asked.leave_unprotected, asked.dry_run) == (False, False), "what is not asked for is not done"
    assert http.post("/v1/hosts/h1/drain", json={"dryrun": True}).status_code == 400
    assert http.post("/v1/hosts/h1/undrain", json={"reason": "done"}).status_code == 200
    asked = service.coordinator.asked[-1]
    assert isinstance(asked, AskUndrain)
    assert (asked.host, asked.reason) == ("h1", "done")


def test_an_evacuation_is_planned_and_nothing_is_asked(http: httpx.Client, service: Service) -> None:
    """Of the coordinator's state as it is; it decides nothing."""
    answer = http.get("/v1/hosts/h1/evacuation")
    assert answer.status_code == 200
    told = schema.Evacuation.model_validate_json(answer.content)
    assert (told.kind, told.host, told.forecast) == ("evacuation", "h1", None)
    assert {guest.name: guest.fate for guest in told.guests} == {"web": "blocked", "loose": "blocked"}
    assert "0 of 2 guests would move live" in told.message
    answer = http.get("/v1/hosts/h1/evacuation", params={"leave_unprotected": "true"})
    told = schema.Evacuation.model_validate_json(answer.content)
    assert {guest.name: guest.fate for guest in told.guests} == {"web": "blocked", "loose": "left"}
    assert {guest.late for guest in told.guests} == {""}, "no deadline was given"
    answer = http.get("/v1/hosts/h1/evacuation", params={"deadline_s": 600})
    told = schema.Evacuation.model_validate_json(answer.content)
    assert {guest.name: guest.late for guest in told.guests} == {
        "web": "is stopped after 465 s; no other host could start it",
        "loose": "nobody stops it, nor starts it elsewhere",
    }
    assert http.get("/v1/hosts/h1/evacuation", params={"deadline_s": -1}).status_code == 400
    assert http.get("/v1/hosts/h9/evacuation").status_code == 404
    joining = http.get("/v1/hosts/h3/evacuation")
    assert (joining.status_code, joining.json()["code"]) == (409, "refused")
    assert not service.coordinator.asked


def test_times_and_what_they_rest_on_are_passed_on(http: httpx.Client, service: Service) -> None:
    goes = Foreseen(
        guest=WEB, name="web", fate="live", to="h2", send_mib=640, rung=Rung.SLOWED, downtime_s=0.3,
        begins_s=0.0, ends_s=7.9,
    )  # fmt: skip
    forecast = Forecast(total_s=7.9, bound_s=6.4, rests_on=("h1: 100 MiB/s", "what guests write"))
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=True, guests=(goes,), forecast=forecast)
    told = schema.Accepted.model_validate_json(http.post("/v1/hosts/h1/drain", json={}).content)
    (web,) = told.guests
    assert (web.send_mib, web.begins_s, web.ends_s) == (640, 0.0, 7.9)
    assert (web.rung, web.downtime_s) == ("slowed down", 0.3)
    assert told.forecast is not None
    assert told.forecast.model_dump() == {
        "total_s": 7.9,
        "bound_s": 6.4,
        "rests_on": ["h1: 100 MiB/s", "what guests write"],
        "deadline_s": 0.0,
    }


def test_a_job_says_what_was_foretold(http: httpx.Client, service: Service) -> None:
    (key, record), *_ = service.coordinator.state.operations.items()
    assert http.get(f"/v1/operations/{key}").json()["item"]["foreseen_s"] is None
    service.coordinator.state.operations[key] = changed(record, foreseen_s=11.7)
    assert http.get(f"/v1/operations/{key}").json()["item"]["foreseen_s"] == 11.7


def test_what_is_derived_from_a_snapshot_stays_with_it() -> None:
    """A thread that plans on an older moment must not leave its view of hosts to the decisions that follow."""
    state = fleet()
    looked = snap(state)
    fleet_of(Draft(looked.state, NOW))
    assert state.memo == {}
    before = looked.state.touched
    state.touched["h1"] = state.touched.get("h1", 0) + 1
    state.named["new"] = "id"
    state.homing.add("id")
    assert looked.state.touched == before != state.touched
    assert "new" not in looked.state.named
    assert "id" not in looked.state.homing


def test_the_drain_is_in_the_description_of_the_api(http: httpx.Client) -> None:
    described = http.get("/v1/openapi.json").json()
    for verb, body in (("drain", "DrainBody"), ("undrain", "Body")):
        told = described["paths"][f"/v1/hosts/{{name}}/{verb}"]["post"]
        assert told["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{body}")
    fields = described["components"]["schemas"]["DrainBody"]["properties"]
    assert {"leave_unprotected", "dry_run", "reason"} <= fields.keys()


def test_a_host_that_announced_its_shutdown_says_so() -> None:
    state = fleet()
    state.hosts["h2"] = changed(state.hosts["h2"], leaving="reboot")
    rows = {row.name: row.leaving for row in views.hosts(snap(state)).items}
    assert (rows["h1"], rows["h2"]) == ("", "reboot")


def test_the_doctor_lists_what_a_drain_would_meet() -> None:
    def found() -> dict[str, schema.Finding]:
        items = doctor.examine(snap(state), doctor.Site()).items
        return {each.subject: each for each in items if each.check == "moves"}

    state = fleet()
    assert not found(), "nobody moves guests live there"
    h2 = state.hosts["h2"]
    state.hosts["h2"] = changed(h2, facts=changed(h2.facts, live_migration=True))
    assert found()["h1"].fix == "migration_uri in /etc/dr/agent.yaml of h1"
    assert "web" not in found()
    view = state.views["h1"]
    tied = changed(view.guests[WEB], ties=(Tie(kind=TieKind.SNAPSHOT),))
    state.views["h1"] = changed(view, guests=view.guests | {WEB: tied})
    assert found()["web"].what == "web could not be moved live now."
    assert "virsh snapshot-list web" in found()["web"].fix
    state.hosts["h1"] = changed(
        state.hosts["h1"], phase=HostPhase.DRAINING, reason="still there: web", since=-1e4
    )
    assert found()["h1"].level == "warning"
    assert found()["h1"].why == "still there: web"


def test_the_doctor_lists_who_would_not_converge() -> None:
    """Only by what was measured and a rate that is known, not by one that is assumed."""

    def found() -> list[schema.Finding]:
        return [each for each in doctor.examine(snap(state), doctor.Site()).items if each.subject == "web"]

    state = fleet()
    for name in ("h1", "h2"):
        record = state.hosts[name]
        state.hosts[name] = changed(record, facts=changed(record.facts, live_migration=True))
    stubborn = GuestPolicy(move_auto_converge=False)
    state.guests[WEB] = changed(state.guests[WEB], policy=stubborn)
    points = (DirtyPoint(interval_s=1, mib=900), DirtyPoint(interval_s=4, mib=900))
    state.views["h1"] = changed(state.views["h1"], samples={WEB: Sampled(points=points, at=NOW)})
    assert not found()
    limits = changed(state.settings.limits, migration_mib_s=100)
    state.settings = changed(state.settings, limits=limits)
    (finding,) = found()
    assert finding.what == "A live move of web would be called off, as it was measured last."
    assert "it does not converge" in finding.why
    assert finding.fix == "dr guest set web --move-auto-converge; dr guest relocate web"


def test_a_guest_away_from_home_says_why_and_the_doctor_lists_it() -> None:
    state = fleet()
    web = changed(state.guests[WEB], policy=GuestPolicy(failback=True), homing=Homing(left="h3"))
    state.guests[WEB] = web
    state.homing = {WEB}
    shown = views.guest(snap(state), WEB, None)
    assert shown is not None
    assert shown.item.failback.startswith("away from h3: ")
    assert "h1: its agent cannot migrate guests live" in shown.item.failback
    found = [each for each in doctor.examine(snap(state), doctor.Site()).items if each.check == "homes"]
    assert [(each.subject, each.what) for each in found] == [("web", "web is away from its home h3.")]
    assert "cannot migrate guests live" in found[0].why
    state.guests[WEB] = changed(web, homing=Homing(left="h3", stays="h1"))
    assert not [each for each in doctor.examine(snap(state), doctor.Site()).items if each.check == "homes"]
