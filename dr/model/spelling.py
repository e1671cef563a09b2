"""How a guest's policy is written by people: the same words in the file, on the command line and in the API.

Here: text to nouns and back. Not here: where the text came from and how its error is told.
"""

from __future__ import annotations

import ipaddress

from dr.model.policy import After, Check

NONE = "none"
CHECK_FORMS = "must be ping:ADDRESS, tcp:ADDRESS:PORT (IPv6 in brackets) or none"
AFTER_FORMS = "must be the name of a guest, or NAME:check to wait for its check"


def check_of(text: str) -> Check | None:
    """`ping:10.0.0.5`, `tcp:10.0.0.5:5432`, `tcp:[fd00::5]:5432`, `none`. Raises ValueError: what is allowed.

    An address and not a name: whether a guest works must not depend on a name server.
    """
    if text == NONE:
        return None
    kind, _, rest = text.partition(":")
    if kind == "ping":
        return Check(kind="ping", address=_address(rest.removeprefix("[").removesuffix("]")))
    if kind == "tcp":
        where, _, port = rest.rpartition(":")
        if ":" in where and not (where.startswith("[") and where.endswith("]")):
            raise ValueError(CHECK_FORMS)
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{CHECK_FORMS}; a port is 1 to 65535")
        return Check(kind="tcp", address=_address(where.removeprefix("[").removesuffix("]")), port=int(port))
    raise ValueError(CHECK_FORMS)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{CHECK_FORMS}; an address, not a name") from None


def check_text(check: Check | None) -> str:
    """As `check_of` reads it."""
    if check is None:
        return NONE
    where = f"[{check.address}]" if ":" in check.address else check.address
    return f"tcp:{where}:{check.port}" if check.kind == "tcp" else f"ping:{where}"


def after_of(text: str) -> After:
    """`db`, `db:check`; `NAME:running` for a name that itself ends so. Raises ValueError: what is allowed."""
    checked = text.endswith(":check")
    name = text.removesuffix(":check") if checked else text.removesuffix(":running")
    if not name:
        raise ValueError(AFTER_FORMS)
    return After(guest=name, until="check" if checked else "running")


def after_text(after: After) -> str:
    """As `after_of` reads it."""
    if after.until == "check" or after.guest.endswith((":check", ":running")):
        return f"{after.guest}:{after.until}"
    return after.guest
