"""The identity in a certificate: one SAN URI `dr://<cluster>/<role>/<name>`.

Standard library and msgspec only: the agent imports it. The certificate's chain, dates and purpose were checked
by OpenSSL in the handshake; here is only what OpenSSL cannot know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from dr.model.base import Record


class PkiError(ValueError):
    """A certificate, key or token that cannot be used; the sentence says why and what to do."""


class Role(StrEnum):
    """What the holder of a certificate is to the cluster."""

    COORDINATOR = "coordinator"
    AGENT = "agent"  # its name is the host's
    ADMIN = "admin"
    JOIN = "join"  # a host that was invited: good for an hour, and for nothing but asking for its agent certificate


class Identity(Record):
    """Who showed a certificate."""

    cluster: str
    role: Role
    name: str
    serial: str = ""  # of the certificate, upper case hex; "" where none was issued yet

    @property
    def uri(self) -> str:
        """As it stands in the certificate."""
        return f"dr://{self.cluster}/{self.role}/{self.name}"


CLUSTER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,252}")
_URI = re.compile(rf"dr://({CLUSTER.pattern})/({'|'.join(Role)})/({NAME.pattern})")


def new_identity(cluster: str, role: Role, name: str) -> Identity:
    """Build an identity to be certified. Raises PkiError for names that a certificate cannot carry."""
    if not CLUSTER.fullmatch(cluster):
        raise PkiError(
            f"'{cluster}' cannot be a cluster id: lower case letters, digits and dashes, at most 63"
        )
    if not NAME.fullmatch(name):
        raise PkiError(f"'{name}' cannot be the name in a certificate: letters, digits and . _ @ - only")
    return Identity(cluster=cluster, role=role, name=name)


def identity_of(certificate: Mapping[str, Any] | None) -> Identity:
    """Read the identity from what `SSLObject.getpeercert()` returned. Raises PkiError unless it is exactly one."""
    if not certificate:
        raise PkiError("the peer showed no certificate")
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise PkiError(f"the peer's certificate names {len(uris)} identities where a dr certificate has one")
    match = _URI.fullmatch(uris[0])
    if match is None:
        raise PkiError(f"the peer's certificate says '{uris[0][:100]}', which is not a dr identity")
    cluster, role, name = match.groups()
    return Identity(
        cluster=cluster, role=Role(role), name=name, serial=str(certificate.get("serialNumber", ""))
    )


def require(identity: Identity, cluster: str, roles: Collection[Role]) -> None:
    """Raise PkiError unless the identity is of this cluster and has one of these roles."""
    if identity.cluster != cluster:
        raise PkiError(
            f"{identity.role} '{identity.name}' belongs to cluster {identity.cluster}, this is {cluster}"
        )
    if identity.role not in roles:
        raise PkiError(f"{identity.role} '{identity.name}' has no business here: needs {' or '.join(roles)}")
