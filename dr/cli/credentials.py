"""Where an administrator's credential lives, and how to talk to the coordinator with it.

A client folder holds `ca.crt`, `tls.pem` (see `dr.adapters.pki.credentials`) and `client.yaml` (the API's addresses).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dr.adapters.pki.credentials import Credentials, read_credentials, write_credentials
from dr.adapters.pki.identity import PkiError
from dr.adapters.store.atomic import write_atomic
from dr.cli.failure import Exit, Failure
from dr.cli.yamlfile import BadFile, read

DEFAULT_DIR = Path("/etc/dr/client")
FILE = "client.yaml"
ENVIRONMENT = "DR_CLIENT_DIR"

chosen: Path | None = None  # --client-dir


@dataclass(frozen=True)
class Client:
    """A credential and the addresses that it is for."""

    folder: Path
    urls: tuple[str, ...]
    credentials: Credentials


def folder() -> Path:
    return chosen or Path(os.environ.get(ENVIRONMENT) or DEFAULT_DIR)


def load() -> Client:
    """Raises Failure."""
    where = folder()
    todo = (
        "on the coordinator's machine: dr cluster init; elsewhere: copy its /etc/dr/client, see --client-dir"
    )
    if not _exists(where / FILE):
        raise Failure(
            f"There is no administrator's credential in {where}.",
            why=f"{where / FILE} {_missing(where / FILE)}",
            todo=todo,
            code=Exit.DENIED
            if not os.access(where.parent, os.X_OK) or _unreadable(where)
            else Exit.BAD_CONFIG,
        )
    try:
        data = read(where / FILE).data
        urls = data["urls"] if isinstance(data, dict) else None
        if not isinstance(urls, list) or not urls or not all(str(url).startswith("https://") for url in urls):
            raise Failure(
                f"{where / FILE} does not name the coordinator.",
                why='it must hold a list, as in urls: ["https://10.0.0.1:7310"]',
                code=Exit.BAD_CONFIG,
            )
        return Client(where, tuple(str(url).rstrip("/") for url in urls), read_credentials(where))
    except BadFile as error:
        raise Failure(
            "The client folder cannot be used.", why=str(error), todo=todo, code=Exit.BAD_CONFIG
        ) from None
    except KeyError:
        raise Failure(f"{where / FILE} has no `urls`.", todo=todo, code=Exit.BAD_CONFIG) from None
    except PkiError as error:
        code = Exit.DENIED if "Permission denied" in str(error) else Exit.BAD_CONFIG
        raise Failure("The administrator's credential cannot be used.", why=str(error), code=code) from None


def save(where: Path, urls: tuple[str, ...], credentials: Credentials) -> None:
    """Raises OSError."""
    write_credentials(where, credentials)
    quoted = ", ".join(f'"{url}"' for url in urls)
    text = f"# Where the coordinator's API listens; tried in turn.\nurls: [{quoted}]\n"
    write_atomic(where / FILE, text.encode(), 0o644)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def _missing(path: Path) -> str:
    return "cannot be read by this user" if _unreadable(path.parent) else "is missing"


def _unreadable(where: Path) -> bool:
    """Whether another user's (root's) folder is in the way."""
    there = next((each for each in (where, *where.parents) if _exists(each)), where)
    return not os.access(there, os.R_OK | os.X_OK)
