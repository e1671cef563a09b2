"""The state as Prometheus metrics. Names are stable within version 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dr import __version__
from dr.api import standing
from dr.api.snapshot import Snapshot
from dr.model.operations import OperationState
from dr.model.records import Condition, GuestPhase, HostPhase

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render(snap: Snapshot) -> bytes:
    """In Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fleet(snap))
    return generate_latest(registry)


class _Fleet(Collector):
    def __init__(self, snap: Snapshot) -> None:
        self.snap = snap

    def collect(self) -> Iterator[Metric]:
        yield from self._cluster()
        yield from self._hosts()
        yield from self._guests()

    def _cluster(self) -> Iterator[Metric]:
        state = self.snap.state
        info = GaugeMetricFamily("dr_info", "Version and cluster.", labels=("version", "cluster"))
        info.add_metric((__version__, state.cluster.id), 1)
        yield info
        yield GaugeMetricFamily("dr_epoch", "Epoch of the leading coordinator.", state.cluster.epoch)
        yield GaugeMetricFamily("dr_store_revision", "Commits to the store.", state.revision)
        paused = state.cluster.pause is not None or bool(state.cluster.restored)
        yield GaugeMetricFamily(
            "dr_automation_paused", "1: nothing is fenced or restarted by itself.", int(paused)
        )
        alerts = GaugeMetricFamily("dr_alerts", "Alerts that stand.", labels=("severity",))
        severities = Counter(alert.severity for alert in state.alerts.values())
        for severity in ("info", "warning", "critical"):
            alerts.add_metric((severity,), severities[severity])
        yield alerts
        open_ = Counter(
            operation.kind
            for operation in state.operations.values()
            if operation.state is OperationState.OPEN
        )
        operations = GaugeMetricFamily("dr_operations_open", "Operations under way.", labels=("kind",))
        for kind, count in sorted(open_.items()):
            operations.add_metric((kind,), count)
        yield operations

    def _hosts(self) -> Iterator[Metric]:
        phase = GaugeMetricFamily(
            "dr_host_phase", "1 for the phase that the host is in.", labels=("host", "phase")
        )
        condition = GaugeMetricFamily(
            "dr_host_condition", "1: the condition stands.", labels=("host", "condition")
        )
        heard = GaugeMetricFamily("dr_host_heard_seconds", "Since the host was last heard.", labels=("host",))
        connected = GaugeMetricFamily("dr_host_connected", "1: its agent is connected.", labels=("host",))
        fencing = GaugeMetricFamily("dr_host_fencing_proven", "1: its fencing is proven.", labels=("host",))
        for name, host in sorted(self.snap.state.hosts.items()):
            for each in HostPhase:
                phase.add_metric((name, each.value), int(host.phase is each))
            for each_condition in Condition:
                condition.add_metric((name, each_condition.value), int(each_condition in host.conditions))
            age = self.snap.heard(name)
            if age is not None:
                heard.add_metric((name,), age)
            connected.add_metric((name,), int(bool(self.snap.view(name).session)))
            fencing.add_metric((name,), int(standing.fencing_of(self.snap, name) == "proven"))
        yield from (phase, condition, heard, connected, fencing)

    def _guests(self) -> Iterator[Metric]:
        guests = GaugeMetricFamily(
            "dr_guests", "Protected guests by phase; unknown: their host is not heard.", labels=("phase",)
        )
        phases = Counter(standing.phase_of(self.snap, guest) for guest in self.snap.state.guests.values())
        for phase in GuestPhase:
            guests.add_metric((phase.value,), phases[phase])
        yield guests
        unsettled = sum(not standing.settled(self.snap, guest) for guest in self.snap.state.guests.values())
        yield GaugeMetricFamily(
            "dr_guests_unsettled", "Protected guests that are not as they should be.", unsettled
        )
        unprotected = len(standing.running_unprotected(self.snap))
        yield GaugeMetricFamily("dr_guests_unprotected", "Running guests that nobody protects.", unprotected)
