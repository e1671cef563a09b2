"""Every verb of the scenario language, by name. What is documented, read and written comes from this table."""

from __future__ import annotations

from dr.sim.scenario import (
    verbs_coordinator,
    verbs_fencing,
    verbs_guests,
    verbs_hosts,
    verbs_people,
    verbs_playbooks,
)
from dr.sim.scenario.verb import Verb

GROUPS: dict[str, tuple[type[Verb], ...]] = {
    "Hosts and networks": verbs_hosts.VERBS,
    "Fence devices": verbs_fencing.VERBS,
    "Coordinator and store": verbs_coordinator.VERBS,
    "Guests, and what people do on hosts by hand": verbs_guests.VERBS,
    "What operators ask, and the configuration": verbs_people.VERBS,
    "Playbooks": verbs_playbooks.VERBS,
}
VERBS: dict[str, type[Verb]] = {kind.word(): kind for group in GROUPS.values() for kind in group}
assert len(VERBS) == sum(len(group) for group in GROUPS.values()), "two verbs have one name"
