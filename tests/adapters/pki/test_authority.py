"""Certificates as OpenSSL sees them: each case is a real TLS handshake, in memory."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from dr.adapters.pki.authority import AUTHORITY_FILE, Authority
from dr.adapters.pki.credentials import (
    TLS_FILE,
    Credentials,
    agent_context,
    client_context,
    days_left,
    identity_in,
    peer_identity,
    read_credentials,
    server_context,
    write_credentials,
)
from dr.adapters.pki.identity import Identity, PkiError, Role, identity_of, require
from dr.adapters.pki.request import make_request

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "c1")


@pytest.fixture
def coordinator(authority: Authority) -> Credentials:
    return authority.issue(Role.COORDINATOR, "co1", addresses=["127.0.0.1", "::1", "co1.example"])


def handshake(server: Credentials, client: Credentials, host: str = "127.0.0.1") -> tuple[Identity, Identity]:
    """Shake hands in memory; the client as the server sees it, and the reverse."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server_context(server).wrap_bio(to_server, to_client, server_side=True)
    here = client_context(client).wrap_bio(to_client, to_server, server_hostname=host)
    done = 0
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done >= 4:  # both, twice: an alert that came last was read
            break
    assert there.version() == "TLSv1.3"
    return peer_identity(there), peer_identity(here)


def test_both_sides_learn_who_the_other_is(authority: Authority, coordinator: Credentials) -> None:
    agent = authority.issue(Role.AGENT, "h1.example")
    seen, _ = handshake(coordinator, agent)
    for host in ("127.0.0.1", "::1", "co1.example"):
        again, server = handshake(coordinator, agent, host)
        assert again == seen
        assert (seen.cluster, seen.role, seen.name) == ("c1", Role.AGENT, "h1.example")
        assert (server.role, server.name) == (Role.COORDINATOR, "co1")
    assert identity_in(agent.certificate) == seen
    assert seen.serial


def test_coordinator_is_also_a_client(coordinator: Credentials) -> None:
    seen, _ = handshake(coordinator, coordinator)
    assert seen.role is Role.COORDINATOR


def test_a_host_name_that_is_not_in_the_certificate_is_refused(
    authority: Authority, coordinator: Credentials
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        handshake(coordinator, authority.issue(Role.AGENT, "h1"), "127.0.0.2")


def test_an_agent_cannot_pose_as_the_coordinator(authority: Authority) -> None:
    """Not even with the coordinator's address in its certificate."""
    agent = authority.issue(Role.AGENT, "127.0.0.1", addresses=["127.0.0.1"])
    for dials in (authority.issue(Role.AGENT, "h1"), authority.issue(Role.ADMIN, "alice")):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"agent '127.0.0.1' is no coordinator"):
            handshake(agent, dials)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.JOIN])
def test_administrators_and_invitations_cannot_be_dialled(authority: Authority, role: Role) -> None:
    there = authority.issue(role, "127.0.0.1", addresses=["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(there, authority.issue(Role.AGENT, "h1"))


def test_agents_dial_each_other_by_name_alone(authority: Authority) -> None:
    """Wherever it is: a certificate of an agent holds no address."""
    one, other = authority.issue(Role.AGENT, "h1"), authority.issue(Role.AGENT, "h2")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server_context(other).wrap_bio(to_server, to_client, server_side=True)
    here = agent_context(one).wrap_bio(to_client, to_server)
    for side in (here, there, here, there):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert (peer_identity(here).name, peer_identity(there).name) == ("h2", "h1")


def test_an_agent_of_another_ca_is_no_agent(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "other", "c1").issue(Role.AGENT, "h2")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server_context(stranger).wrap_bio(to_server, to_client, server_side=True)
    here = agent_context(authority.issue(Role.AGENT, "h1")).wrap_bio(to_client, to_server)
    for side in (here, there):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        here.do_handshake()


def test_another_cluster_is_refused_by_both(
    tmp_path: Path, authority: Authority, coordinator: Credentials
) -> None:
    other = Authority.create(tmp_path / "other", "c1")  # even with the same name
    stranger = other.issue(Role.AGENT, "h1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(coordinator, stranger)
    half = Credentials(ca=authority.ca, certificate=stranger.certificate, key=stranger.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(coordinator, half)


def test_no_certificate_no_session(authority: Authority, coordinator: Credentials) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.ca)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server_context(coordinator).wrap_bio(to_server, to_client, server_side=True)
    here = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (here, there):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    here.do_handshake()
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        there.do_handshake()


def test_join_lasts_an_hour_and_a_clock_may_be_a_day_off(
    authority: Authority, coordinator: Credentials
) -> None:
    expired = authority.issue(Role.JOIN, "h1", now=NOW - timedelta(hours=1, seconds=5))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(coordinator, expired)
    ahead = authority.issue(Role.JOIN, "h1", now=NOW + timedelta(hours=23))
    assert handshake(coordinator, ahead)[0].role is Role.JOIN
    assert 1 / 25 < days_left(authority.issue(Role.JOIN, "h1").certificate) <= 1 / 24


def test_days_left(authority: Authority) -> None:
    agent = authority.issue(Role.AGENT, "h1", now=NOW)
    assert days_left(agent.certificate, NOW.timestamp()) == pytest.approx(5 * 365, abs=0.1)
    assert days_left(agent.certificate, NOW.timestamp() + 6 * 365 * 86_400) < -300
    late = authority.issue(Role.AGENT, "h1", now=NOW + timedelta(days=19 * 365))
    assert days_left(late.certificate, NOW.timestamp()) < 20 * 365 + 1  # never longer than the CA
    with pytest.raises(PkiError, match="expired"):
        authority.issue(Role.AGENT, "h1", now=NOW + timedelta(days=21 * 365))


def test_the_key_of_a_request_never_leaves_its_host(authority: Authority, coordinator: Credentials) -> None:
    key, request = make_request("whatever it says")
    certificate = authority.sign(request, Role.AGENT, "h7")
    seen, _ = handshake(coordinator, Credentials(ca=authority.ca, certificate=certificate, key=key))
    assert (seen.role, seen.name) == (Role.AGENT, "h7")


def test_bad_requests_are_refused(authority: Authority) -> None:
    with pytest.raises(PkiError, match="not a certificate request"):
        authority.sign("nonsense", Role.AGENT, "h7")
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP192R1())):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "h7")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        with pytest.raises(PkiError, match="P-256"):
            authority.sign(csr.public_bytes(serialization.Encoding.PEM).decode(), Role.AGENT, "h7")


@pytest.mark.parametrize("name", ["", "../h1", "h1/agent/h2", "h 1", "h1\n", "h1%2f", "-h", "ä", "x" * 254])
def test_names_that_no_certificate_carries(authority: Authority, name: str) -> None:
    with pytest.raises(PkiError):
        authority.issue(Role.AGENT, name)


def test_a_coordinator_without_addresses_is_refused(authority: Authority) -> None:
    with pytest.raises(PkiError, match="addresses"):
        authority.issue(Role.COORDINATOR, "co1")


@pytest.mark.parametrize(
    "names",
    [
        (),
        (("DNS", "h1"),),
        (("URI", "dr://c1/agent/h1"), ("URI", "dr://c1/agent/h2")),
        (("URI", "https://c1/agent/h1"),),
        (("URI", "dr://c1/ca"),),
        (("URI", "dr://c1/root/h1"),),
        (("URI", "dr://c1/agent/"),),
        (("URI", "dr://c1/agent/h1/more"),),
        (("URI", "dr://c1/agent/h1\x00.example"),),
        (("URI", "dr://C1/agent/h1"),),
    ],
)
def test_identities_are_read_strictly(names: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(PkiError):
        identity_of({"subjectAltName": names})
    with pytest.raises(PkiError):
        identity_of(None)


def test_require() -> None:
    identity = Identity(cluster="c1", role=Role.JOIN, name="h1")
    require(identity, "c1", {Role.JOIN})
    with pytest.raises(PkiError, match="belongs to cluster c1"):
        require(identity, "c2", {Role.JOIN})
    with pytest.raises(PkiError, match="needs agent"):
        require(identity, "c1", {Role.AGENT})


def test_the_ca_is_made_once(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "ca" / AUTHORITY_FILE
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError, match="lock out"):
        Authority.create(tmp_path / "ca", "c2")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [AUTHORITY_FILE]
    again = Authority.open(tmp_path / "ca")
    assert (again.cluster, again.ca) == ("c1", authority.ca)


def test_a_ca_that_cannot_be_used_says_why(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "ca" / AUTHORITY_FILE
    with pytest.raises(PkiError, match="dr cluster init"):
        Authority.open(tmp_path)
    path.chmod(0o640)
    with pytest.raises(PkiError, match="chmod 600"):
        Authority.open(path.parent)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PkiError, match="damaged"):
        Authority.open(path.parent)
    with pytest.raises(PkiError, match="cluster id"):
        Authority.create(tmp_path / "x", "Not A Cluster")


def test_credentials_on_disk(tmp_path: Path, authority: Authority) -> None:
    agent = authority.issue(Role.AGENT, "h1")
    write_credentials(tmp_path / "tls", agent)
    assert read_credentials(tmp_path / "tls") == agent
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tls" / TLS_FILE).stat().st_mode & 0o777 == 0o600
    newer = authority.issue(Role.AGENT, "h1")
    write_credentials(tmp_path / "tls", newer)
    assert read_credentials(tmp_path / "tls") == newer
    assert "PRIVATE" not in f"{newer!r}{newer}"
    (tmp_path / "tls" / TLS_FILE).chmod(0o644)
    with pytest.raises(PkiError, match="chmod 600"):
        read_credentials(tmp_path / "tls")
    with pytest.raises(PkiError, match="missing"):
        read_credentials(tmp_path)
    with pytest.raises(PkiError, match="cannot be used by TLS"):
        client_context(Credentials(ca=authority.ca, certificate=agent.certificate, key=newer.key))
