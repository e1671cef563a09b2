"""libvirt's domain events as `DomainEvent`s: hints to look again, never facts.

Callbacks run on libvirt's thread and must not block it: they put a small record into a bounded queue of the asyncio
loop. When that is full, one `overflow` event says that some were lost, so everything should be looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import libvirt

from dr.adapters.libvirt.canary import is_canary
from dr.ports.hypervisor import DomainEvent

QUEUE_MAX = 1000

# virDomainEventType and the names of its details, as libvirt-domain.h numbers them.
LIFECYCLE: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("defined", ("added", "updated", "renamed", "from_snapshot")),
    1: ("undefined", ("removed", "renamed")),
    2: ("started", ("booted", "migrated", "restored", "from_snapshot", "wakeup")),
    3: (
        "suspended",
        ("paused", "migrated", "ioerror", "watchdog", "restored", "from_snapshot", "api_error", "postcopy",
         "postcopy_failed"),
    ),
    4: ("resumed", ("unpaused", "migrated", "from_snapshot", "postcopy", "postcopy_failed")),
    5: ("stopped", ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot")),
    6: ("shutdown", ("finished", "guest", "host")),
    7: ("pmsuspended", ("memory", "disk")),
    8: ("crashed", ("panicked", "crashloaded")),
}  # fmt: skip

WATCHDOG_ACTIONS = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "injectnmi")
MEMORY_FAILURE_ACTIONS = ("ignore", "inject", "fatal", "reset")
IO_ERROR_ACTIONS = ("none", "pause", "report")


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def lifecycle(event: int, detail: int) -> tuple[str, str]:
    """(kind, detail) of a lifecycle event: a stop by crash is `crashed`, a panic is `panicked`."""
    kind, details = LIFECYCLE.get(event, (f"lifecycle_{event}", ()))
    what = _name(details, detail)
    if (kind, what) == ("stopped", "crashed"):
        return "crashed", what
    if kind == "crashed" and what == "panicked":
        return "panicked", what
    return kind, what


class Events:
    """The queue between libvirt's thread and the agent."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.Queue[DomainEvent] = asyncio.Queue(QUEUE_MAX)
        self._lost = False
        self.on_definition: Callable[[str], None] = lambda _guest: (
            None
        )  # a definition changed; on libvirt's thread

    def bind(self) -> None:
        """Remember the running loop; events before that are of no use to anybody."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def tell(self, event: DomainEvent) -> None:
        """From any thread; never blocks."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # the loop has ended
            return

    def _put(self, event: DomainEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._lost = True

    async def __aiter__(self) -> AsyncIterator[DomainEvent]:
        while True:
            event = await self._queue.get()
            if self._lost and self._queue.qsize() < QUEUE_MAX // 2:
                self._lost = False
                yield DomainEvent(
                    guest="", name="", kind="overflow", detail="events were lost: look at everything"
                )
            yield event

    def connected(self) -> None:
        """A new connection: what happened before it was not seen."""
        self.tell(DomainEvent(guest="", name="", kind="reconnected"))

    def register(self, conn: Any) -> None:
        """Register every callback with a fresh connection. Raises libvirtError."""
        callbacks: list[tuple[int, Callable[..., None]]] = [
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._on_watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_CONTROL_ERROR, self._on_control_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE, self._on_memory_failure),
        ]
        for number, callback in callbacks:
            conn.domainEventRegisterAny(None, number, callback, None)

    def _domain(self, domain: Any, kind: str, detail: str = "") -> None:
        name = str(domain.name())
        if not is_canary(name):
            self.tell(DomainEvent(guest=str(domain.UUIDString()), name=name, kind=kind, detail=detail))

    def _on_lifecycle(self, _conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        kind, what = lifecycle(event, detail)
        if kind in ("defined", "undefined"):
            self.on_definition(str(domain.UUIDString()))
        self._domain(domain, kind, what)

    def _on_reboot(self, _conn: Any, domain: Any, _opaque: Any) -> None:
        self._domain(domain, "rebooted")

    def _on_watchdog(self, _conn: Any, domain: Any, action: int, _opaque: Any) -> None:
        self._domain(domain, "watchdog", _name(WATCHDOG_ACTIONS, action))

    def _on_io_error(
        self, _conn: Any, domain: Any, source: str, device: str, action: int, reason: str, _opaque: Any
    ) -> None:
        detail = f"{_name(IO_ERROR_ACTIONS, action)}: {reason or 'unknown'} on {device} ({source})"
        self._domain(domain, "io_error", detail)

    def _on_control_error(self, _conn: Any, domain: Any, _opaque: Any) -> None:
        self._domain(domain, "control_error", "libvirt lost its monitor connection to QEMU")

    def _on_memory_failure(
        self, _conn: Any, domain: Any, _recipient: int, action: int, _flags: int, _opaque: Any
    ) -> None:
        self._domain(domain, "memory_failure", _name(MEMORY_FAILURE_ACTIONS, action))
