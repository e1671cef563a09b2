"""`dr cluster`: make a cluster on this machine, invite hosts into it, save and restore its coordinator."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dr.cli.ask import Reason
from dr.cli.failure import Exit, Failure, tell

app = typer.Typer(help="Make a cluster, invite hosts, back it up.", no_args_is_help=True)


@app.command()
def init(
    *,
    name: Annotated[
        str, typer.Option("--name", help="The cluster's name: lower case letters, digits, dashes.")
    ] = "main",
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            help="Under which hosts and admins reach this machine; repeat for more. Default: its own addresses.",
        ),
    ] = None,
    config_dir: Annotated[
        Path, typer.Option("--config-dir", help="For coordinator.yaml and client/.")
    ] = Path("/etc/dr"),
    state_dir: Annotated[
        Path, typer.Option("--state-dir", help="For the store, the CA and certificates.")
    ] = Path("/var/lib/dr/coordinator"),
    agent_port: Annotated[
        int, typer.Option("--agent-port", help="Where agents connect to.", min=1, max=65535)
    ] = 7311,
    api_port: Annotated[
        int, typer.Option("--api-port", help="Where commands connect to.", min=1, max=65535)
    ] = 7310,
    admin: Annotated[
        str, typer.Option("--admin", help="Name of the first administrator; it stands in the audit.")
    ] = "",
    renew: Annotated[
        bool, typer.Option("--renew", help="Only make new certificates for coordinator and administrator.")
    ] = False,
) -> None:
    """Make the CA, the coordinator's certificate, the first admin credential and a documented configuration.

    Nothing that exists is ever overwritten; --renew replaces the two certificates and nothing else.
    """
    from dr.adapters.pki.identity import PkiError

    plan = _Plan(
        name,
        tuple(address or _own_addresses()),
        config_dir,
        state_dir,
        agent_port,
        api_port,
        admin or _login(),
    )
    try:
        if renew:
            _renew(plan, bool(address))
        else:
            _create(plan)
    except PkiError as error:
        raise Failure("The cluster was not made.", why=str(error), code=Exit.BAD_DATA) from None
    except PermissionError as error:
        raise Failure(
            f"{error.filename} cannot be written.",
            todo="run it as root: sudo dr cluster init",
            code=Exit.DENIED,
        ) from None
    except OSError as error:
        raise Failure("The cluster was not made.", why=str(error)) from None


@dataclass(frozen=True)
class _Plan:
    name: str
    addresses: tuple[str, ...]
    config_dir: Path
    state_dir: Path
    agent_port: int
    api_port: int
    admin: str

    @property
    def config(self) -> Path:
        return self.config_dir / "coordinator.yaml"

    @property
    def client(self) -> Path:
        return self.config_dir / "client"

    @property
    def pki(self) -> Path:
        return self.state_dir / "pki"


def _create(plan: _Plan) -> None:
    from dr.adapters.pki.authority import AUTHORITY_FILE, Authority
    from dr.adapters.pki.credentials import TLS_FILE, write_credentials
    from dr.adapters.pki.identity import Role
    from dr.adapters.store.atomic import write_new
    from dr.cli import credentials
    from dr.cli.config import translate
    from dr.cli.config_schema import CLUSTER
    from dr.cli.starter import starter
    from dr.cli.yamlfile import BadFile, parse

    if not CLUSTER.fullmatch(plan.name):
        raise Failure(
            f"{plan.name!r} cannot be a cluster's name.",
            why="it is lower case letters, digits and dashes, at most 63",
            code=Exit.USAGE,
        )
    in_the_way = [
        plan.pki / AUTHORITY_FILE,
        plan.pki / TLS_FILE,
        plan.client / TLS_FILE,
        plan.state_dir / "store.db",
    ]
    found = [path for path in in_the_way if path.exists()]
    if found:
        raise Failure(
            "There is a cluster on this machine already; nothing was changed.",
            blockers=[f"{path} exists" for path in found],
            todo="dr status; or, for new certificates: dr cluster init --renew",
            code=Exit.REFUSED,
        )
    text = starter(
        cluster=plan.name,
        state_dir=str(plan.state_dir),
        addresses=plan.addresses,
        agents=f"0.0.0.0:{plan.agent_port}",
        api=f"0.0.0.0:{plan.api_port}",
    )
    keep = plan.config.exists()
    try:
        translate(parse(text, str(plan.config)))  # an impossible address is told before anything is written
    except BadFile as error:
        raise Failure("The cluster cannot be made so.", why=str(error), code=Exit.USAGE) from None
    plan.config_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    plan.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.create(plan.pki, plan.name)
    write_credentials(
        plan.pki, authority.issue(Role.COORDINATOR, _hostname(), addresses=_sans(plan.addresses))
    )
    credentials.save(plan.client, _urls(plan), authority.issue(Role.ADMIN, plan.admin))
    if not keep:
        write_new(plan.config, text.encode(), 0o600)
    tell(f"Cluster {plan.name} was made.")
    tell(f"  {plan.pki}: CA and the coordinator's certificate, for {', '.join(plan.addresses)}. Back it up.")
    tell(f"  {plan.client}: credential of administrator {plan.admin}, good for a year.")
    tell(
        f"  {plan.config}: {'was there already and was left as it is' if keep else 'the configuration, documented'}."
    )
    tell("Next:")
    tell(f"  edit {plan.config} (hosts and their fencing), then: dr config check {plan.config}")
    tell("  systemctl enable --now dr-coordinator")
    tell("  dr cluster token HOST      # for each KVM host; then, on that host: dr agent join")


def _renew(plan: _Plan, addresses_given: bool) -> None:
    """New certificates from the CA that is there."""
    from dr.adapters.pki.authority import Authority
    from dr.adapters.pki.credentials import write_credentials
    from dr.adapters.pki.identity import Role
    from dr.cli import config, credentials
    from dr.cli.yamlfile import BadFile

    authority = Authority.open(plan.pki)
    addresses, urls = plan.addresses, _urls(plan)
    try:
        known = config.load(plan.config)
        addresses = plan.addresses if addresses_given else known.addresses
        urls = (
            known.api_urls
            if not addresses_given
            else tuple(_url(each, known.listen_api[0][1]) for each in addresses)
        )
    except BadFile as error:
        if not addresses_given:
            raise Failure(
                "Which addresses?", why=str(error), todo="name them with --address", code=Exit.BAD_CONFIG
            ) from None
    write_credentials(plan.pki, authority.issue(Role.COORDINATOR, _hostname(), addresses=_sans(addresses)))
    credentials.save(plan.client, urls, authority.issue(Role.ADMIN, plan.admin))
    tell(f"New certificates: coordinator ({', '.join(addresses)}) and administrator {plan.admin}.")
    tell(f"Next: see that `addresses` in {plan.config} are the same, then: systemctl reload dr-coordinator")


@app.command()
def token(
    *,
    host: Annotated[str, typer.Argument(help="The host's name, as it will be called in the cluster.")],
    reason: Reason = "",
) -> None:
    """Invite a host: print its join token, good for an hour and for one use.

    Example: dr cluster token kvm1 | ssh root@kvm1 dr agent join -
    """
    from dr.api.schema import TokenDocument
    from dr.cli.client import connect

    answer = connect().post(f"/v1/hosts/{_quoted(host)}/token", TokenDocument, {"reason": reason})
    print(answer.token)
    if sys.stdout.isatty():
        tell(f"On {host}, as root, within the hour: dr agent join   (it asks for this token)")
    else:
        tell(f"Token for {host}, good for an hour and one use. On {host}: dr agent join FILE")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to put it; an older backup there is replaced.")],
) -> None:
    """Save the coordinator in one file while it runs: store, CA, certificates, configuration.

    Keep it secret and elsewhere: whoever has it can be the coordinator. Files that the configuration names
    (password_file) are not in it.
    """
    from dr.cli.backup import BadBackup, read_manifest
    from dr.cli.client import connect

    if file.is_dir():
        raise Failure(f"{file} is a folder.", todo=f"dr cluster backup {file}/dr-backup.tar", code=Exit.USAGE)
    if file.exists():
        try:
            read_manifest(file)
        except BadBackup:
            raise Failure(
                f"{file} exists and is no backup of dr; it was left as it is.",
                todo="name another file",
                code=Exit.REFUSED,
            ) from None
    half = file.with_name(f".{file.name}.new")
    try:
        connect().download("/v1/backup", half)
        made = read_manifest(half)
        half.replace(file)
    except BadBackup as error:
        raise Failure("The backup did not arrive whole.", why=str(error), code=Exit.BAD_DATA) from None
    except OSError as error:
        raise Failure(f"{file} cannot be written.", why=str(error)) from None
    finally:
        half.unlink(missing_ok=True)
    size_mib = file.stat().st_size / 2**20
    tell(
        f"{file}: {size_mib:.1f} MiB, cluster {made.cluster}, {made.date}. It holds the CA's key: keep it secret."
    )


@app.command()
def restore(
    *,
    file: Annotated[Path | None, typer.Argument(help="What `dr cluster backup` saved.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is shown until dr resume.")],
    here: Annotated[
        bool, typer.Option("--here", help="No FILE: take over the store that was copied to this machine.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if there is a store here; it is kept beside.")
    ] = False,
    config: Annotated[Path, typer.Option("--config", help="The coordinator's configuration.")] = Path(
        "/etc/dr/coordinator.yaml"
    ),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask whether the old coordinator is off: it is.")
    ] = False,
) -> None:
    """Make this machine the coordinator, from a backup; as root, while no coordinator runs anywhere.

    It starts holding: every host is asked for every guest, and nothing is fenced or started until dr resume.
    """
    from dr.cli import restore as restoring

    if here == (file is not None):
        raise Failure(
            "Either a FILE or --here.", todo="dr cluster restore FILE --reason '...'", code=Exit.USAGE
        )
    if not reason.strip():
        raise Failure("A reason is needed.", why="the next person will ask", code=Exit.USAGE)
    wish = restoring.Wish(
        by=_login(), reason=reason, config=config, client=config.parent / "client", yes=yes, replace=replace
    )
    try:
        if file is not None:
            restoring.from_file(file, wish)
        else:
            restoring.here(wish)
    except PermissionError as error:
        raise Failure(
            f"{error.filename} cannot be written.", todo="run it as root", code=Exit.DENIED
        ) from None
    except OSError as error:
        raise Failure("The coordinator was not restored.", why=str(error)) from None


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _sans(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """What the certificate is good for: the addresses, and this machine itself."""
    return tuple(dict.fromkeys([*addresses, "127.0.0.1", "::1", "localhost"]))


def _urls(plan: _Plan) -> tuple[str, ...]:
    return tuple(_url(each, plan.api_port) for each in plan.addresses)


def _url(address: str, port: int) -> str:
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _hostname() -> str:
    return socket.gethostname().partition(".")[0] or "coordinator"


def _login() -> str:
    """Who is at the keyboard, also behind sudo."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"


def _own_addresses() -> list[str]:
    """This machine's address towards the world, and its name."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # chooses a route, sends nothing
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return found or ["127.0.0.1"]
