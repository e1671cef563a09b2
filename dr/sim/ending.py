"""What must be so at the end, once every fault was repaired and time has passed (promises 3 to 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr.model.operations import OperationState
from dr.model.records import Desired, GuestPhase, HostPhase

if TYPE_CHECKING:
    from dr.sim.truth import Truth
    from dr.sim.world import World

# A device, and a disk, that a person must look at; a site that is too full.
STAY = ("fence-lies", "/resumed-by-hand", "cluster/spare")


def _untested(world: World, key: str) -> bool:
    """Whether some device of the host that this alert is about was never tested, which nobody repairs here."""
    host = key.split("/")[1]
    return any(
        (host, device.name) not in world.store.identities
        for device in world.fencer.devices.values()
        if device.host == host
    )


def unfinished(world: World, truth: Truth) -> list[str]:
    """What should not be so; empty = all is well."""
    store = world.store
    wrong = []
    for guest in sorted(store.guests.values(), key=lambda g: g.id):
        real = truth.where(guest.id)
        if guest.desired is Desired.RUNNING and (len(real) != 1 or guest.phase is not GuestPhase.RUNNING):
            wrong.append(f"{guest.name} is wanted and is {guest.phase} ({guest.reason}); runs on {real}")
        if guest.desired is Desired.STOPPED and (guest.phase is not GuestPhase.STOPPED or real):
            wrong.append(f"{guest.name} is not wanted and is {guest.phase} ({guest.reason}); runs on {real}")
        if real and [place.host for place in guest.may_run_on] != real:
            places = [place.host for place in guest.may_run_on]
            wrong.append(f"{guest.name} runs on {real}, and may_run_on is {places}")
        if guest.move is not None:
            wrong.append(f"{guest.name} is still on its way: {guest.move.stage} ({guest.reason})")
    for name, machine in world.hosts.items():
        left = sorted(g for g, domain in machine.domains.items() if domain.active and not domain.runs)
        if left:
            wrong.append(f"copies that do not run are left on {name}: {left}")
        if machine.agent.lane.forgotten:
            wrong.append(
                f"the agent of {name} waits for the end of {', '.join(machine.agent.lane.forgotten)}"
            )
    for operation in store.operations.values():
        if operation.state is OperationState.OPEN:
            wrong.append(f"operation {operation.id} ({operation.kind} {operation.subject}) is open")
    for name in sorted(truth.operations - set(store.operations)):
        wrong.append(f"operation {name} was accepted and is lost")
    for host in sorted(store.hosts.values(), key=lambda h: h.name):
        aside = host.drain is not None and host.phase is HostPhase.MAINTENANCE  # as somebody wants it
        if world.hosts[host.name].up and host.phase is not HostPhase.ONLINE and not aside:
            wrong.append(f"host {host.name} is {host.phase}: {host.reason}")
    if truth.doubtful and truth.knowing & (set(store.hosts) - world.scrapped):
        wrong.append("the store is an older copy and nobody has noticed")
    return wrong


def alerts_left(world: World) -> list[str]:
    """Alerts that stand although what they tell of was repaired."""
    return [
        f"alert {key} stands: {alert.what}: {alert.why}"
        for key, alert in sorted(world.store.alerts.items())
        if not key.endswith(STAY) and not (key.endswith("/unprotected") and _untested(world, key))
    ]
