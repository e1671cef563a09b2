"""A coordinator that decides nothing, behind the real API, real TLS and a real authority, in a thread of its own.

Shared by tests/api and tests/cli. What it answers to an ask is set by the test; what it was asked is kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dr.adapters.fencing.parameters import fingerprint
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, server_context
from dr.adapters.pki.identity import Role, identity_of
from dr.api.access import Peer
from dr.api.app import make_app
from dr.api.desk import Desk
from dr.api.server import ApiServer
from dr.api.snapshot import Devices
from dr.cli import credentials
from dr.cli.coordinator_process import spend
from dr.coordinator.journal import StoredNote
from dr.core.state import State
from dr.core.volatile import View
from dr.model.allowed import Output
from dr.model.base import changed
from dr.model.decision import Note
from dr.model.drills import DrillReport
from dr.model.effects import Reply
from dr.model.events import OperatorAsk
from dr.model.facts import DomainState, GuestFacts, HookState, HostFacts, Level, Reading
from dr.model.operations import Operation, OperationState, Step
from dr.model.policy import FenceDevice, FenceLevel, HostPolicy
from dr.model.records import (
    Alert,
    Cluster,
    Condition,
    DeviceIdentity,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Place,
    StoredDefinition,
    StoredPicture,
)
from dr.model.settings import Settings

T = TypeVar("T")

WEB = "0c5b1a2e-1111-4111-8111-000000000001"
DB = "0c5b1a2e-1111-4111-8111-000000000002"
LOOSE = "0c5b1a2e-1111-4111-8111-000000000003"
NOW = 1000.0
WALL = 1_800_000_000.0  # at leader time 0
BMC = FenceDevice(
    name="bmc", agent="fence_ipmilan", parameters={"ip": "10.9.0.1", "username": "dr", "password": "hunter2"}
)

DEVICES = Devices(fingerprint=fingerprint, problem=lambda device: "")


def fleet() -> State:
    """Three hosts: h1 whole, h2 suspect and unfenced, h3 only invited; a guest that runs, one that waits, one loose."""
    facts = HostFacts(
        boot_id="boot-1",
        agent_version="0.1.0",
        arch="x86_64",
        domain_types=("kvm",),
        memory_mib=16384,
        cpus=8,
        hook=HookState(proven=True),
    )
    state = State(
        settings=Settings(hosts={"h1": HostPolicy(name="h1", fencing=(FenceLevel(devices=(BMC,)),))})
    )
    state.load(
        cluster=Cluster(id="lab", epoch=3, leader_id="leader", protected_version=2),
        hosts=[
            HostRecord(
                name="h1",
                phase=HostPhase.ONLINE,
                boot_id="boot-1",
                facts=facts,
                health=(Reading(part="libvirt", level=Level.OK),),
                labels={"rack": "a"},
                protected_version=2,
                since=900.0,
            ),
            HostRecord(
                name="h2",
                phase=HostPhase.SUSPECT,
                boot_id="boot-2",
                facts=changed(facts, boot_id="boot-2"),
                conditions=frozenset({Condition.UNPROTECTED}),
                reason="nothing heard for 1.4 s",
                since=998.0,
            ),
            HostRecord(name="h3"),
        ],
        guests=[
            GuestRecord(
                id=WEB,
                name="web",
                phase=GuestPhase.RUNNING,
                may_run_on=(Place(host="h1", boot_id="boot-1", generation=4),),
                holder="h1",
                generation=4,
                definition=1,
            ),
            GuestRecord(
                id=DB,
                name="db",
                phase=GuestPhase.RECOVERING,
                may_run_on=(Place(host="h2", boot_id="boot-2", generation=2),),
                holder="h2",
                generation=2,
                reason="waits for a proof that h2 does not run it",
                labels={"tier": "data"},
            ),
        ],
        identities=[
            DeviceIdentity(host="h1", device="bmc", guid="g-1", fingerprint=fingerprint(BMC), proven_at=500.0)
        ],
        operations=[
            Operation(
                id="failover-3-1",
                kind="failover",
                subject="h2",
                opened=999.0,
                guests={DB: ""},
                steps=(Step(at=999.5, text="h2 is fenced"),),
            ),
            Operation(
                id="protect-2-9",
                kind="protect",
                subject="web",
                state=OperationState.DONE,
                opened=100.0,
                closed=101.5,
                asked_by="alice",
            ),
        ],
        alerts=[],
    )
    state.revision = 40
    state.views["h1"] = View(
        session="s1",
        heard=NOW - 0.2,
        inventory=True,
        guests={
            WEB: GuestFacts(id=WEB, name="web", state=DomainState.RUNNING, memory_mib=2048),
            LOOSE: GuestFacts(id=LOOSE, name="loose", state=DomainState.RUNNING, memory_mib=512),
        },
    )
    state.views["h2"] = View(heard=NOW - 12.0)
    return state


@dataclass
class FakeCoordinator:
    """`dr.api.snapshot.Deciding`."""

    state: State = field(default_factory=fleet)
    asked: list[OperatorAsk] = field(default_factory=list)
    reply: Callable[[OperatorAsk], Reply] = lambda ask: Reply(id=ask.id, accepted=True, message="Done.")
    lines: list[StoredNote] = field(default_factory=list)
    decisions: dict[str, bytes] = field(default_factory=dict)
    drills: dict[str, DrillReport] = field(default_factory=dict)
    pictures: dict[str, StoredPicture] = field(default_factory=dict)
    outputs_kept: list[Output] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return NOW

    def wall(self, now: float) -> float:
        return WALL + now

    async def ask(self, ask: OperatorAsk) -> Reply:
        self.asked.append(ask)
        return self.reply(ask)

    async def notes(self, *, after: str = "", limit: int = 200, last: bool = False) -> list[StoredNote]:
        if last:
            return self.lines[-limit:]
        return [line for line in self.lines if line.key > after][:limit]

    async def wait_notes(self, after: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.more.wait()
        except TimeoutError:
            return

    async def operations(self, limit: int) -> list[Operation]:
        return sorted(self.state.operations.values(), key=lambda each: each.opened)[-limit:]

    async def drill(self, key: str) -> DrillReport | None:
        return self.drills.get(key)

    async def decision(self, name: str) -> bytes | None:
        return self.decisions.get(name)

    async def picture(self, guest: str) -> StoredPicture | None:
        return self.pictures.get(guest)

    async def outputs(self, operation: str) -> list[Output]:
        return [each for each in self.outputs_kept if each.operation == operation]

    async def definition(self, guest: str) -> StoredDefinition | None:
        return StoredDefinition(guest=guest, version=1, xml="<domain/>", digest="d", reported_by="h1")

    def write(self, kind: str, text: str, *, decision: str = "", **fields: Any) -> None:
        """Add a line to the timeline."""
        number = len(self.lines) + 1
        note = Note(now=NOW + number, kind=kind, text=text, **fields)
        key = f"note/{number:012d}"
        self.lines.append(StoredNote(key=key, wall=WALL + NOW + number, note=note, decision=decision))


class Service:
    """The API on 127.0.0.1, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "pki", "lab")
        self.coordinator = FakeCoordinator()
        self.certificates = {"coordinator": 900.0}
        self.sinks: list[tuple[str, str]] = []
        self.backup = b"no tar"
        self.alerts: tuple[Alert, ...] = ()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        own = self.authority.issue(Role.COORDINATOR, "c1", addresses=["127.0.0.1"])
        self._api = ApiServer(make_app(self._desk()), server_context(own), _identify)
        self.do(self._api.start([("127.0.0.1", 0)]))
        self.port = self._api.ports[0]
        self.url = f"https://127.0.0.1:{self.port}"
        credentials.save(folder / "client", (self.url,), self.authority.issue(Role.ADMIN, "alice"))

    def _desk(self) -> Desk:
        async def spend_(serial: str) -> bool:
            return spend(self.folder / "used", serial)

        async def backup(by: str) -> Path:
            made = self.folder / f"backup-for-{by}"
            made.write_bytes(self.backup)
            return made

        async def notify_test() -> list[tuple[str, str]]:
            return self.sinks

        return Desk(
            coordinator=self.coordinator,
            cluster="lab",
            invite=lambda host: self.authority.invite(host, api=[self.url], link=["127.0.0.1:7311"]),
            certify=lambda request, host: self.authority.sign(request, Role.AGENT, host),
            spend=spend_,
            devices=DEVICES,
            sinks=lambda: len(self.sinks),
            notify_test=notify_test,
            certificates=lambda: self.certificates,
            alerts=lambda: self.alerts,
            backup=backup,
        )

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def credentials(self, role: Role, name: str) -> Credentials:
        return self.authority.issue(role, name)

    def reset(self) -> None:
        """As new, for the next test."""
        fresh = FakeCoordinator()
        for name in ("state", "asked", "reply", "lines", "more"):
            setattr(self.coordinator, name, getattr(fresh, name))
        self.certificates = {"coordinator": 900.0}
        self.sinks = []

    def stop(self) -> None:
        self.do(self._api.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def _identify(certificate: Any) -> Peer:
    identity = identity_of(certificate)
    return Peer(identity.cluster, identity.role.value, identity.name, identity.serial)
