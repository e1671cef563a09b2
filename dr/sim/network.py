"""Who reaches whom: a management and a storage network, single cables, blocked pairs, the coordinator's own cable.

Here: reachability. Not here: messages (`dr.sim.link`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr.model.base import HostName

if TYPE_CHECKING:
    from dr.sim.coordinator import SimCoordinator
    from dr.sim.host import SimHost
    from dr.sim.world import World

COORDINATOR = ""
NETWORKS = ("management", "storage", "migration")


class Network:
    """Cables and blocks. A block of (a, b) stops what a sends to b."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.coordinator_up = True
        self.management_down: set[HostName] = set()
        self.storage_down: set[HostName] = set()
        self.migration_down: set[HostName] = set()
        self.blocked: set[tuple[HostName, HostName]] = set()

    def changed(self) -> None:
        """Cables were plugged or pulled: what waited may arrive."""
        for link in list(self._world.links):
            link.flush()

    def _cable(self, host: SimHost) -> bool:
        """Whether the coordinator's machine is on the management network, as seen from that host."""
        home = self._world.home
        if not home:
            return self.coordinator_up
        return host.name == home or (self.coordinator_up and home not in self.management_down)

    def coordinator_reaches(self, host: SimHost, coordinator: SimCoordinator) -> bool:
        """Both ways, as TCP needs it; a frozen host takes packets later, which its agent's queue shows."""
        if host.name == self._world.home and coordinator is self._world.coordinator:
            return host.up
        return (
            self._cable(host)
            and host.up
            and host.name not in self.management_down
            and (host.name, COORDINATOR) not in self.blocked
            and (COORDINATOR, host.name) not in self.blocked
        )

    def migrates(self, source: SimHost, to: SimHost) -> bool:
        """Whether one libvirt talks to another over the migration network."""
        if not (source.up and to.up) or source.frozen or to.frozen:
            return False
        if {source.name, to.name} & self.migration_down:
            return False
        return (source.name, to.name) not in self.blocked and (to.name, source.name) not in self.blocked

    def hears(self, witness: HostName, host: SimHost, address: str) -> bool:
        """Whether an echo from `witness` ("" = the coordinator) to that address of the host comes back."""
        if not host.up or host.frozen:
            return False
        if (witness, host.name) in self.blocked or (host.name, witness) in self.blocked:
            return False
        if address.startswith("storage:"):
            storage = witness != COORDINATOR and witness not in self.storage_down
            return storage and host.name not in self.storage_down
        mine = self._cable(host) if witness == COORDINATOR else witness not in self.management_down
        return mine and host.name not in self.management_down
