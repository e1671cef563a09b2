"""`dr agent join`: make this machine a host of the cluster.

The key is made here and never leaves; the token's own key only proves that this host was invited.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from dr.cli import agent_config
from dr.cli.agent_settings import AgentConfig
from dr.cli.failure import Exit, Failure, tell

TOKEN_BYTES_MAX = 128 * 1024


def join(
    source: str,
    *,
    config: Path,
    state_dir: Path,
    libvirt_uri: str,
    migration_uri: str | None = None,
    force: bool,
) -> None:
    """`source`: a token, a file that holds one, or `-`. `migration_uri` None: as it was. Raises Failure."""
    from dr.adapters.libvirt import way
    from dr.adapters.pki.credentials import Credentials, write_credentials
    from dr.adapters.pki.request import make_request
    from dr.adapters.pki.token import TokenError, parse_token
    from dr.adapters.store.atomic import write_atomic

    if migration_uri and (why := way.why_not(migration_uri)):
        raise Failure(f"--migration-uri {migration_uri} {why}.", code=Exit.USAGE)
    try:
        token = parse_token(_read(source))
    except TokenError as error:
        raise Failure("The token cannot be used.", why=str(error), code=Exit.BAD_DATA) from None
    known = _known(config)
    wanted = AgentConfig(
        host=token.host,
        cluster=token.cluster,
        coordinators=list(token.link),
        state_dir=str(state_dir),
        libvirt_uri=libvirt_uri,
        migration_uri=known.migration_uri if migration_uri is None else migration_uri,
        migration_tls=known.migration_tls,
        migration_address=known.migration_address,
        copy_port=known.copy_port,
    )
    if config.exists() and not force:
        _same_host(config, token.host, token.cluster)
    _writable(config, state_dir)
    key, request = make_request(token.host)
    certificate = _ask(token.api, token.credentials, request)
    credentials = Credentials(ca=token.credentials.ca, certificate=certificate, key=key)
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_credentials(wanted.pki_dir, credentials)
        config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(config, agent_config.starter(wanted).encode(), 0o644)
    except OSError as error:
        again = f"dr cluster token {token.host} on the coordinator, then join again: this token is used up"
        raise Failure(
            "The host was admitted, but its files could not be written.", why=str(error), todo=again
        ) from None
    tell(f"Joined: this is host {token.host} of cluster {token.cluster}.")
    tell(f"  {config}, {wanted.pki_dir}")
    for trouble in prerequisites(libvirt_uri):
        tell(f"warning: {trouble}")
    tell("Next: systemctl enable --now dr-agent dr-leave   (then, on the coordinator: dr status)")


def _read(source: str) -> str:
    if source.startswith("drjoin"):
        return source
    if source == "-":
        if sys.stdin.isatty():
            tell("Paste the token, then press Enter and Ctrl-D:")
        return sys.stdin.read(TOKEN_BYTES_MAX)
    try:
        with Path(source).open(encoding="ascii") as file:
            return file.read(TOKEN_BYTES_MAX)
    except FileNotFoundError:
        why = "it neither begins with drjoin nor names a file"
        raise Failure(
            f"{source[:60]!r} is not a token.", why=why, todo="dr cluster token HOST", code=Exit.BAD_DATA
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{source} cannot be read.", why=str(error), code=Exit.BAD_DATA) from None


def _known(config: Path) -> AgentConfig:
    """The file that is written anew: a renewed certificate costs nothing of how guests migrate."""
    from dr.cli.yamlfile import BadFile

    try:
        before = agent_config.load(config) if config.exists() else None
    except BadFile:
        before = None
    return before or AgentConfig(host="", cluster="", coordinators=[])


def _same_host(config: Path, host: str, cluster: str) -> None:
    """Joining again (a renewed certificate) is fine; turning one host into another is asked for."""
    from dr.cli.yamlfile import BadFile

    try:
        known = agent_config.load(config)
    except BadFile:
        return
    if (known.host, known.cluster) != (host, cluster):
        raise Failure(
            f"This machine is host {known.host} of cluster {known.cluster} already.",
            why=f"the token is for {host} of {cluster}",
            todo="to make it another host: dr agent join --force",
            code=Exit.REFUSED,
        )


def _writable(config: Path, state_dir: Path) -> None:
    """Before the token is spent."""
    for path in (config.parent, state_dir):
        there = path
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK):
            raise Failure(f"{path} cannot be written.", todo="run it as root", code=Exit.DENIED)


def _ask(urls: tuple[str, ...], invitation: object, request: str) -> str:
    from dr.adapters.pki.credentials import Credentials, client_context
    from dr.api.schema import JoinedDocument
    from dr.cli.client import Api

    assert isinstance(invitation, Credentials)
    return (
        Api(urls, client_context(invitation)).post("/v1/join", JoinedDocument, {"csr": request}).certificate
    )


def prerequisites(libvirt_uri: str) -> list[str]:
    """What this host lacks to be of use: each a sentence with the fix."""
    found = []
    try:
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)
        connection = libvirt.openReadOnly(libvirt_uri)
        connection.close()
    except ImportError:
        found.append("libvirt's Python binding is missing. Run: apt install python3-libvirt")
    except Exception as error:  # libvirtError has no stable base here
        found.append(f"libvirt does not answer at {libvirt_uri} ({error}). Run: systemctl start libvirtd")
    hooks = Path("/etc/libvirt/hooks")
    if not Path("/etc/libvirt").is_dir():
        found.append(
            "/etc/libvirt is missing: without libvirt's hook no guest can be protected. "
            "Run: apt install libvirt-daemon-system"
        )
    elif hooks.exists() and not os.access(hooks, os.W_OK):
        found.append(f"{hooks} cannot be written: the permit hook goes there.")
    if shutil.which("qemu-system-x86_64") is None and not Path("/usr/libexec/qemu-kvm").exists():
        found.append("QEMU was not found. Run: apt install qemu-system-x86")
    if not Path("/dev/kvm").exists():
        found.append(
            "/dev/kvm is missing: guests of type kvm cannot run here (virtualisation off in the BIOS?)."
        )
    return found
