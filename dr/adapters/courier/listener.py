"""Where other agents bring copies to: listens only while one is expected, and lets in nobody but its sender."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from dr.adapters.courier.errand import Expected
from dr.adapters.courier.messages import Hello
from dr.adapters.courier.wire import Broken, Wire, cut, linger, tune
from dr.adapters.pki.credentials import peer_identity, read_credentials, server_context
from dr.adapters.pki.identity import PkiError, Role, require
from dr.ports.courier import CourierError, CourierTrouble

GREETING_S = 10.0
ALERT_S = 1.0  # for one that TLS refused, to read why
GREETINGS_MAX = 16  # connections of whom it is not known yet who they are
BACKLOG = 16

log = logging.getLogger("dr.courier")


class Listener:
    """All copies that are taken here share it."""

    def __init__(self, cluster: str, pki_dir: Path, address: str, port: int, *, patience_s: float) -> None:
        self._cluster = cluster
        self._pki_dir = pki_dir
        self._address = address
        self._port = port
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._expected: dict[str, Expected] = {}
        self._sockets: list[socket.socket] = []
        self._greetings = threading.Semaphore(GREETINGS_MAX)

    def expect(self, errand: Expected) -> None:
        """Listen for its sender from now on. Raises CourierError."""
        try:
            with self._lock:
                if errand.copy in self._expected:
                    raise CourierError(f"copy {errand.copy} is being taken already")
                if not self._sockets:
                    self._listen(self._where())
                self._expected[errand.copy] = errand
        except OSError as error:
            place = f"{self._address or 'any address'} port {self._port}"
            raise CourierError(
                f"this host cannot listen on {place} for copies: {error.strerror or error}"
            ) from error

    def forget(self, errand: Expected) -> None:
        """Expect it no more; safe where it never was."""
        with self._lock:
            if self._expected.get(errand.copy) is errand:
                del self._expected[errand.copy]
            if not self._expected:
                self._deafen()
        errand.end()

    def _where(self) -> list[tuple[socket.AddressFamily, str]]:
        """At that address alone; of a name this host may think otherwise than others do (127.0.1.1), so everywhere."""
        with suppress(socket.gaierror):
            if self._address:
                found = socket.getaddrinfo(
                    self._address, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
                )
                return [(family, str(place[0])) for family, _, _, _, place in found]
        both = socket.has_dualstack_ipv6()
        return [(socket.AF_INET6, "::") if both else (socket.AF_INET, "0.0.0.0")]

    def _listen(self, where: list[tuple[socket.AddressFamily, str]]) -> None:
        try:
            for family, address in where:
                listening = socket.create_server(
                    (address, self._port),
                    family=family,
                    backlog=BACKLOG,
                    dualstack_ipv6=address == "::",
                )
                self._sockets.append(listening)
                threading.Thread(
                    target=self._accept, args=(listening,), name="listens for copies", daemon=True
                ).start()
        except BaseException:
            self._deafen()
            raise

    def _deafen(self) -> None:
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            cut(listening)  # wakes its thread
            listening.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                plain, place = listening.accept()
            except ConnectionAbortedError:
                continue
            except OSError:
                if listening not in self._sockets:  # it was closed
                    return
                sleep(0.1)  # no more file descriptors, say
                continue
            if not self._greetings.acquire(blocking=False):
                plain.close()  # its sender dials again
                continue
            greeting = threading.Thread(
                target=self._greet, args=(plain, str(place[0])), name="greets a sender", daemon=True
            )
            try:
                greeting.start()
            except RuntimeError:  # no more threads on this host
                self._greetings.release()
                plain.close()

    def _greet(self, plain: socket.socket, address: str) -> None:
        """Who is it, and what for?"""
        try:
            wire = self._shaken(plain, address)
            if wire is not None:
                self._dispatch(wire, address)
        finally:
            self._greetings.release()

    def _shaken(self, plain: socket.socket, address: str) -> Wire | None:
        """After the TLS handshake; None where it failed, and is closed."""
        tls: ssl.SSLSocket | None = None
        try:
            context = server_context(read_credentials(self._pki_dir))
            tune(plain, self._patience_s)
            tls = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            tls.settimeout(GREETING_S)
            tls.do_handshake()
            peer = peer_identity(tls)
        except (PkiError, OSError) as error:
            log.warning("a connection from %s for a copy of disks was refused: %s", address, error)
            linger(tls or plain, ALERT_S)
            (tls or plain).close()
            return None
        wire = Wire(tls, peer.name, self._patience_s)
        try:
            require(peer, self._cluster, {Role.AGENT})
        except PkiError as error:
            self._refuse(wire, address, str(error), final=True)
            return None
        return wire

    def _dispatch(self, wire: Wire, address: str) -> None:
        try:
            hello = wire.receive(deadline=monotonic() + GREETING_S)
        except (Broken, CourierTrouble) as error:
            log.warning("a connection from %s for a copy of disks ended: %s", address, error)
            wire.close()
            return
        if not isinstance(hello, Hello):
            self._refuse(wire, address, "it did not say which copy it brings", final=True)
            return
        with self._lock:
            errand = self._expected.get(hello.copy)
        if errand is None:  # maybe not yet
            self._refuse(wire, address, f"copy {hello.copy[:100]} is not expected here", final=False)
        elif errand.source != wire.peer:
            why = f"copy {errand.copy} is expected from host {errand.source}, not from {wire.peer}"
            self._refuse(wire, address, why, final=True)
        elif errand.guest != hello.guest:
            why = f"copy {errand.copy} is one of guest {errand.guest} here, not of {hello.guest[:100]}"
            self._refuse(wire, address, why, final=True)
        elif not errand.bring(wire, hello):
            self._refuse(wire, address, f"copy {errand.copy} is over here", final=False)

    def _refuse(self, wire: Wire, address: str, why: str, *, final: bool) -> None:
        log.warning("host %s at %s brings a copy of disks and was refused: %s", wire.peer, address, why)
        wire.give_up(why, final=final)
        wire.close()
