"""One connection to libvirtd that comes back by itself.

A single connector thread opens, watches and reopens; it may hang in `open` for as long as libvirtd hangs, nobody
else does. After each open all event callbacks are registered again and one `reconnected` event is told.

No keepalive, on purpose. In libvirt 9.0's client library a keepalive timeout while several threads wait for answers
is a use after free (g_main_loop_quit on a freed loop): seen in the lab, libvirtd under SIGSTOP for 30 s, as SIGSEGV of
the agent. On a local socket it has nothing to give: a dead libvirtd ends the socket at once, and of a hung one the
calls (calls.py) and /proc (sight.py) take care.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.calls import Calls
from dr.ports.hypervisor import HypervisorUnknown

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF_S = 0.2
BACKOFF_MAX_S = 5.0
SLOTS = 8
FIRST_OPEN_S = 5.0  # how long the first calls wait for the connection


class Connection:
    """Keeps one libvirt connection open and runs calls in it."""

    def __init__(self, uri: str, register: Callable[[Any], None], connected: Callable[[], None]) -> None:
        """`register(conn)` installs event callbacks, `connected()` tells of a new connection; both on our thread."""
        self.uri = uri
        self._register = register
        self._connected = connected
        self._calls = Calls("libvirt", SLOTS)
        self._conn: Any = None
        self._serial = 0
        self._why = "libvirt was not connected yet"
        self._first = threading.Event()
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def serial(self) -> int:
        """Counts connections: what was learnt under another number may be out of date."""
        return self._serial

    @property
    def why(self) -> str:
        """Why there is no connection now; empty when there is one."""
        return "" if self._conn is not None else self._why

    def open(self) -> None:
        """Start connecting in the background. Harmless when it runs already."""
        if self._thread is None and not self._closed.is_set():
            api.run_event_loop()
            self._thread = threading.Thread(target=self._keep, name="libvirt connection", daemon=True)
            self._thread.start()

    async def call(self, what: str, function: Callable[[Any], T], timeout_s: float) -> T:
        """Run `function(virConnect)` in a thread.

        Raises libvirt's own error as it is, HypervisorUnknown when there is no connection or no answer in time.
        """
        conn = await self._get(min(timeout_s, FIRST_OPEN_S))
        try:
            return await self._calls.run(what, lambda: function(conn), timeout_s)
        except libvirt.libvirtError as error:
            if api.is_unseen(error) and self._conn is conn and not conn.isAlive():
                self._on_close(
                    conn, libvirt.VIR_CONNECT_CLOSE_REASON_ERROR, None
                )  # its own callback may come late
            raise

    async def _get(self, wait_s: float) -> Any:
        self.open()
        if not self._first.is_set():
            await asyncio.to_thread(self._first.wait, wait_s)
        conn = self._conn
        if conn is None:
            raise HypervisorUnknown(f"no connection to libvirt ({self.uri}): {self._why}")
        return conn

    def close(self) -> None:
        """Stop. Calls under way end by themselves."""
        self._closed.set()
        self._lost.set()

    def _keep(self) -> None:
        backoff_s = BACKOFF_S
        while not self._closed.is_set():
            self._lost.clear()
            try:
                conn = libvirt.open(self.uri)
                self._prepare(conn)
            except libvirt.libvirtError as error:
                self._why = api.text(error)
                self._first.set()
                self._closed.wait(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                continue
            backoff_s = BACKOFF_S
            self._serial += 1
            self._conn = conn
            self._first.set()
            log.info("connected to libvirt at %s", self.uri)
            self._connected()
            self._lost.wait()
            self._conn = None
            _drop(conn)
            del conn

    def _prepare(self, conn: Any) -> None:
        try:
            conn.registerCloseCallback(self._on_close, None)
        except libvirt.libvirtError as error:
            log.debug("no close callback on %s: %s", self.uri, api.text(error))
        self._register(conn)

    def _on_close(self, _conn: Any, reason: int, _opaque: Any) -> None:
        why = {
            libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection broke",
            libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed the connection (stopped or restarting)",
        }.get(reason, "the connection was closed")
        self._why = why
        self._conn = None
        self._lost.set()
        log.warning("lost libvirt at %s: %s", self.uri, why)


def _drop(conn: Any) -> None:
    """Let go of callbacks, so that the connection can be freed; it is closed when its last user is gone."""
    for callback in list(getattr(conn, "domainEventCallbackID", ())):  # none of whom nothing was registered
        try:
            conn.domainEventDeregisterAny(callback)
        except libvirt.libvirtError:
            conn.domainEventCallbackID.pop(callback, None)
    try:
        conn.unregisterCloseCallback()
    except libvirt.libvirtError:
        return
