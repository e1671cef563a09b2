"""The cluster's certificate authority: it says who is who, and nothing else does.

One file, `ca.pem`, holds its key and certificate: it is whole or not there, and never overwritten. Whoever has it
can be any host, the coordinator or an administrator. Who may ask for which certificate is the caller's to decide.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dr.adapters.pki.credentials import Credentials
from dr.adapters.pki.identity import PkiError, Role, new_identity
from dr.adapters.pki.request import key_pem, new_key
from dr.adapters.pki.token import JoinToken, format_token
from dr.adapters.store.atomic import write_new

AUTHORITY_FILE = "ca.pem"
BACKDATED = timedelta(days=1)  # so that a host whose clock is behind can join
AUTHORITY_LIFE = timedelta(days=20 * 365)
LIFE = {
    Role.COORDINATOR: timedelta(days=5 * 365),
    Role.AGENT: timedelta(days=5 * 365),
    Role.ADMIN: timedelta(days=365),
    Role.JOIN: timedelta(hours=1),
}
_SIGNING = {"key_cert_sign": True, "crl_sign": True}


class Authority:
    """A loaded CA. Issuing is pure: it writes no file and remembers nothing."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.cluster = _cluster_of(certificate)
        self.ca = _pem(certificate)

    @classmethod
    def create(cls, folder: Path, cluster: str, now: datetime | None = None) -> Authority:
        """Make the CA of a new cluster in `folder` (created 0700).

        Raises FileExistsError when there is one already, PkiError for an impossible cluster id, OSError.
        """
        new_identity(cluster, Role.COORDINATOR, "check")
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dr cluster {cluster}"[:64])])
        begin = (now or datetime.now(UTC)) - BACKDATED
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + BACKDATED + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(**_SIGNING), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([_ca_uri(cluster)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_new(folder / AUTHORITY_FILE, (key_pem(key) + _pem(certificate)).encode())
        except FileExistsError as error:
            raise FileExistsError(
                f"{folder / AUTHORITY_FILE} exists: this cluster has a CA, and a new one would lock out its hosts"
            ) from error
        return cls(certificate, key)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Load the CA from `folder`. Raises PkiError with a sentence."""
        path = folder / AUTHORITY_FILE
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise PkiError(f"{path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise PkiError(f"{path} is missing: the cluster's CA is made by `dr cluster init`.") from error
        except OSError as error:
            raise PkiError(f"{path} cannot be read: {error}") from error
        try:
            key = serialization.load_pem_private_key(data, password=None)
            certificate = x509.load_pem_x509_certificate(data)
        except (ValueError, TypeError) as error:
            raise PkiError(f"{path} is damaged ({error}). Restore it from a backup.") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise PkiError(f"{path} holds a key and a certificate that do not belong together.")
        return cls(certificate, key)

    def issue(
        self,
        role: Role,
        name: str,
        *,
        addresses: Sequence[str] = (),
        life: timedelta | None = None,
        now: datetime | None = None,
    ) -> Credentials:
        """Make a key and its certificate. `addresses`: host names and IPs that the holder listens on."""
        key = new_key()
        certificate = self._certify(key.public_key(), role, name, addresses=addresses, life=life, now=now)
        return Credentials(ca=self.ca, certificate=certificate, key=key_pem(key))

    def sign(
        self,
        request: str,
        role: Role,
        name: str,
        *,
        addresses: Sequence[str] = (),
        life: timedelta | None = None,
        now: datetime | None = None,
    ) -> str:
        """Certify the key of a request (PEM); nothing else that it asks for counts. Raises PkiError."""
        try:
            csr = x509.load_pem_x509_csr(request.encode())
            key = csr.public_key()
            sound = csr.is_signature_valid
        except (ValueError, TypeError, InvalidSignature) as error:
            raise PkiError(f"this is not a certificate request in PEM: {error}") from error
        if not sound:
            raise PkiError("the certificate request was not signed with its own key")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise PkiError("the certificate request is for a key that is not EC P-256")
        return self._certify(key, role, name, addresses=addresses, life=life, now=now)

    def invite(
        self,
        host: str,
        *,
        api: Sequence[str],
        link: Sequence[str],
        life: timedelta = LIFE[Role.JOIN],
        now: datetime | None = None,
    ) -> str:
        """Make the join token of one host. `api`: URLs, `link`: host:port. Raises PkiError."""
        now = now or datetime.now(UTC)
        credentials = self.issue(Role.JOIN, host, life=life, now=now)
        return format_token(
            JoinToken(
                cluster=self.cluster,
                host=host,
                api=tuple(api),
                link=tuple(link),
                credentials=credentials,
                expires_wall=(now + life).timestamp(),
            )
        )

    def _certify(
        self,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        *,
        addresses: Sequence[str],
        life: timedelta | None,
        now: datetime | None,
    ) -> str:
        identity = new_identity(self.cluster, role, name)
        if role is Role.COORDINATOR and not addresses:
            raise PkiError("a coordinator's certificate needs the addresses that agents dial")
        now = now or datetime.now(UTC)
        if now >= self._certificate.not_valid_after_utc:
            raise PkiError(f"the cluster's CA expired on {self._certificate.not_valid_after_utc:%Y-%m-%d}")
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role in (Role.COORDINATOR, Role.AGENT):  # agents are dialled by each other
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(identity.uri), *map(_general_name, addresses)]
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{role} {name}"[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, self._certificate.not_valid_before_utc))
            .not_valid_after(min(now + (life or LIFE[role]), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _ca_uri(cluster: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"dr://{cluster}/ca")  # two parts: never taken for an identity


def _cluster_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        scheme, _, rest = uri.partition("://")
        cluster, _, last = rest.partition("/")
        if scheme == "dr" and last == "ca":
            return cluster
    raise PkiError("this CA was not made by dr: its certificate names no cluster")


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    try:
        return x509.DNSName(address)
    except ValueError as error:
        raise PkiError(f"'{address}' is neither an IP address nor a host name") from error


def _usage(**granted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: granted.get(name, False) for name in names.split()})
