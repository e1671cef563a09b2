"""Key, certificate and CA of one process: their files, the TLS contexts made of them, and the days they last.

A folder holds `ca.crt` and `tls.pem` (key and certificate in one file, 0600, so that a renewal is one rename).
Standard library and msgspec only: the agent imports it. TLS 1.3 only, and both sides always show a certificate.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

from dr.adapters.pki.identity import Identity, PkiError, Role, identity_of
from dr.adapters.store.atomic import write_atomic
from dr.model.base import Record

CA_FILE = "ca.crt"
TLS_FILE = "tls.pem"
FILE_BYTES_MAX = 256 * 1024
DAY_S = 86_400


class Credentials(Record):
    """PEM texts. The representation shows no key, so it may end in a log."""

    ca: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return f"Credentials({identity_in(self.certificate).uri})"


def write_credentials(folder: Path, credentials: Credentials) -> None:
    """Put them into `folder` (created 0700), replacing older ones. Durable when it returns. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / CA_FILE, credentials.ca.encode(), 0o644)
    write_atomic(folder / TLS_FILE, (credentials.key + credentials.certificate).encode())


def read_credentials(folder: Path) -> Credentials:
    """Raises PkiError with a sentence: missing, unreadable, readable by others, or not PEM."""
    ca, both = _read(folder / CA_FILE), _read(folder / TLS_FILE, secret=True)
    key, mark, certificate = both.partition("-----BEGIN CERTIFICATE-----")
    if "PRIVATE KEY-----" not in key or not mark:
        raise PkiError(f"{folder / TLS_FILE} does not hold a key and a certificate. Join this host again.")
    return Credentials(ca=ca, certificate=mark + certificate, key=key)


def identity_in(certificate: str) -> Identity:
    """The identity in a certificate of our own (PEM). Raises PkiError."""
    return identity_of(_decoded(certificate))


def days_left(certificate: str, now: float | None = None) -> float:
    """Days until the certificate (PEM) expires, by the wall clock; negative once it has. Raises PkiError."""
    return (
        ssl.cert_time_to_seconds(_decoded(certificate)["notAfter"]) - (time() if now is None else now)
    ) / DAY_S


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """For a listener: every client must show a certificate of the cluster's CA. Raises PkiError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would not show its certificate again
    return load(context, credentials)


class _SocketToCoordinator(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _expect_coordinator(self)


class _ObjectToCoordinator(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _expect_coordinator(self)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """For dialling the coordinator: chain, address and role are checked in the handshake. Raises PkiError.

    Agents listen too (for copies of disks), so a good chain alone does not make a coordinator. The cluster is not
    checked: `require` it of `peer_identity` after the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    context.hostname_checks_common_name = False
    context.sslsocket_class = _SocketToCoordinator
    context.sslobject_class = _ObjectToCoordinator
    return load(context, credentials)


def agent_context(credentials: Credentials) -> ssl.SSLContext:
    """For dialling another host's agent: only its chain is checked. Raises PkiError.

    Agents' certificates hold no addresses: role, cluster and host must be looked at in `peer_identity` afterwards.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the chain is still required
    return load(context, credentials)


def _expect_coordinator(tls: ssl.SSLObject | ssl.SSLSocket) -> None:
    """Raise SSLCertVerificationError, which every TLS client handles, for whoever is none."""
    try:
        peer = peer_identity(tls)
        why = "" if peer.role is Role.COORDINATOR else f"{peer.role} '{peer.name}' is no coordinator"
    except PkiError as error:
        why = str(error)
    if why:
        refusal = ssl.SSLCertVerificationError(1, why)
        refusal.verify_message = why
        raise refusal


def load(context: ssl.SSLContext, credentials: Credentials) -> ssl.SSLContext:
    """Put credentials into a context; on one in use, they hold for the connections to come. Raises PkiError."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=credentials.ca)
        with _as_file(credentials.key + credentials.certificate) as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise PkiError(f"key, certificate or CA cannot be used by TLS: {error}") from error
    return context


def peer_identity(tls: ssl.SSLObject | ssl.SSLSocket) -> Identity:
    """Who is on the other side of a finished handshake. Raises PkiError."""
    return identity_of(tls.getpeercert())


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path for what OpenSSL only reads from files, in memory: a key never touches a disk for it."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _decoded(certificate: str) -> dict[str, Any]:
    # The parser behind getpeercert(); the standard library has no public way to it for a certificate of our own.
    try:
        with _as_file(certificate) as path:
            found: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
    except ssl.SSLError as error:
        raise PkiError(f"this is not a certificate in PEM: {error}") from error
    return found


def _read(path: Path, *, secret: bool = False) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if secret and mode & 0o077:
                raise PkiError(f"{path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
            return file.read(FILE_BYTES_MAX).decode("ascii")
    except FileNotFoundError as error:
        raise PkiError(
            f"{path} is missing. It is written by `dr cluster init` on the coordinator, by `dr agent join` on a host."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PkiError(f"{path} cannot be read: {error}") from error
