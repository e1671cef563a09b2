"""From the sender to the host that takes: TCP, TLS, and proof that it is that very host's agent."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr.adapters.courier.errand import Errand
from dr.adapters.courier.wire import Broken, Wire, tune
from dr.adapters.pki.credentials import agent_context, peer_identity, read_credentials
from dr.adapters.pki.identity import PkiError, Role, require
from dr.model.base import HostName
from dr.ports.courier import CourierError

CONNECT_S = 5.0
HANDSHAKE_S = 10.0


class Dialler:
    """To one host at several addresses, with this host's own credentials, which are read for each try."""

    def __init__(
        self,
        cluster: str,
        pki_dir: Path,
        to: HostName,
        addresses: tuple[str, ...],
        port: int,
        *,
        patience_s: float,
    ) -> None:
        self._cluster = cluster
        self._pki_dir = pki_dir
        self._to = to
        self._addresses = addresses
        self._port = port
        self._patience_s = patience_s

    @contextmanager
    def dial(self, errand: Errand) -> Iterator[Wire]:
        """A connection to the first address where that host answers, until the end of the block.

        Raises Broken when none does now, CourierError when none ever will.
        """
        tls = self._first(errand)
        try:
            with errand.on(tls):
                yield Wire(tls, self._to, self._patience_s, errand.check)
        finally:
            tls.close()

    def _first(self, errand: Errand) -> ssl.SSLSocket:
        if not self._addresses:
            raise CourierError(f"no address of host {self._to} is known")
        try:
            context = agent_context(read_credentials(self._pki_dir))
        except PkiError as error:
            raise CourierError(str(error)) from error
        refusals: list[str] = []
        final = True
        for address in self._addresses:
            where = f"{address} port {self._port}"
            try:
                return self._connected(errand, context, address)
            except PkiError as error:
                refusals.append(f"{where}: {error}")
            except ssl.SSLCertVerificationError as error:
                why = f"its certificate cannot be trusted ({error.verify_message})"
                if "purpose" in error.verify_message:
                    why = f"its certificate is too old for that: on {self._to} run dr agent join, with a new token"
                refusals.append(f"{where}: {why}")
            except OSError as error:
                final = False
                timed_out = isinstance(error, TimeoutError) and not error.errno
                refusals.append(f"{where}: {'no answer in time' if timed_out else error.strerror or error}")
        sentence = f"host {self._to} was not reached at {'; '.join(refusals)}"
        raise CourierError(sentence) if final else Broken(sentence)

    def _connected(self, errand: Errand, context: ssl.SSLContext, address: str) -> ssl.SSLSocket:
        """Raises PkiError, OSError, CourierError."""
        plain = self._tcp(errand, address)
        try:
            tls = context.wrap_socket(plain, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        try:
            with errand.on(tls):
                tls.settimeout(min(HANDSHAKE_S, self._patience_s))
                tls.do_handshake()
            peer = peer_identity(tls)
            require(peer, self._cluster, {Role.AGENT})
            if peer.name != self._to:
                raise PkiError(f"there is {peer.role} '{peer.name}', not '{self._to}'")
        except BaseException:
            tls.close()
            raise
        return tls

    def _tcp(self, errand: Errand, address: str) -> socket.socket:
        failure: OSError = OSError("it means no address")
        for family, kind, protocol, _, target in socket.getaddrinfo(
            address, self._port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                tune(sock, self._patience_s)
                sock.settimeout(min(CONNECT_S, self._patience_s))
                with errand.on(sock):
                    sock.connect(target)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure
