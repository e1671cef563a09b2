"""How a guest's policy is written by people: the same words in the file, on the command line and in the API.

Here: text to nouns and back. Not here: where the text came from and how its error is told.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from dr.model.checks import CHECKS_MAX, PATH_MAX, TEXT_MAX, Agent, Check, Http, Ping, Running, Screenshot, Tcp
from dr.model.policy import After

NONE = "none"
CHECK_FORMS = (
    "must be running, agent, screenshot, ping:ADDRESS, tcp:ADDRESS:PORT, http://ADDRESS/PATH or"
    " https://ADDRESS/PATH verify=yes|no (IPv6 in brackets)"
)
ALONE: dict[str, Check] = {"running": Running(), "agent": Agent(), "screenshot": Screenshot()}
OPTIONS = {
    "tcp": ("text",),
    "http": ("host", "status", "text"),
    "https": ("host", "verify", "status", "text"),
}  # that may follow, by kind
URL = re.compile(r"https?://(?P<end>[^/?#@\s]+)(?P<path>/[!$-~]*)?")
END = re.compile(r"(?P<address>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
AFTER_FORMS = "must be the name of a guest, or NAME:check to wait for its check"


def checks_of(texts: Sequence[str]) -> tuple[Check, ...]:
    """Each as `check_of` reads it; `none` alone, or nothing: no check. Raises ValueError: what is allowed."""
    if list(texts) == [NONE]:
        return ()
    if len(texts) > CHECKS_MAX:
        raise ValueError(f"must be {CHECKS_MAX} checks at most")
    found = tuple(check_of(text) for text in texts)
    for at, check in enumerate(found):
        if check in found[:at]:
            raise ValueError(f"must name each check once: {check_text(check)} stands here twice")
    return found


def check_of(text: str) -> Check:
    """`ping:10.0.0.5`, `tcp:[fd00::5]:22`, `https://10.0.0.5/health verify=no text=ready`.

    Raises ValueError: what is allowed. An address and not a name: whether a guest works must not depend on a name
    server. What stands after `text=` is taken as it is, to the end.
    """
    what, _, rest = text.partition(" ")
    kind = what.partition(":")[0]
    options = _options(rest, OPTIONS.get(kind, ()))
    match kind:
        case "running" | "agent" | "screenshot" if what == kind:
            return ALONE[kind]
        case "ping":
            address, port = _end(what.removeprefix("ping:"))
            if port:
                raise ValueError(f"{CHECK_FORMS}; a ping has no port")
            return Ping(address=address)
        case "tcp":
            address, port = _end(what.removeprefix("tcp:"))
            if not port:
                raise ValueError(f"{CHECK_FORMS}; a port is 1 to 65535")
            return Tcp(address=address, port=port, text=options.get("text", ""))
        case "http" | "https" if (url := URL.fullmatch(what)) is not None:
            return _http(kind == "https", url["end"], url["path"] or "/", options)
        case _:
            raise ValueError(CHECK_FORMS)


def _http(tls: bool, end: str, path: str, options: dict[str, str]) -> Http:
    address, port = _end(end)
    host, status, verify = (options.get(name, "") for name in ("host", "status", "verify"))
    if tls and verify not in ("yes", "no"):
        raise ValueError(
            "must say verify=yes (this system trusts its certificate, for its address or host=NAME) or verify=no"
        )
    if host and not HOST.fullmatch(host):
        raise ValueError("must be a host's name after host=, such as www.example.org")
    if status and not (status.isascii() and status.isdigit() and 100 <= int(status) <= 599):
        raise ValueError("must be a status from 100 to 599 after status=")
    if len(path) > PATH_MAX:
        raise ValueError(f"must be a path of {PATH_MAX} characters at most")
    return Http(
        address=address,
        port=port or (443 if tls else 80),
        path=path,
        host=host,
        tls=tls,
        verify=verify != "no",
        status=int(status or 0),
        text=options.get("text", ""),
    )


def _options(text: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """`status=200 text=all that follows`."""
    found: dict[str, str] = {}
    while text := text.lstrip(" "):
        name, is_set, rest = text.partition("=")
        if not is_set or name not in allowed or name in found:
            names = ", ".join(f"{each}=" for each in allowed)
            only = f"only {names} can follow, each once" if allowed else "nothing can follow"
            raise ValueError(f"{CHECK_FORMS}; after a space {only}")
        value, text = (rest, "") if name == "text" else rest.split(" ", 1) if " " in rest else (rest, "")
        if not value or not value.isprintable() or len(value) > TEXT_MAX:
            raise ValueError(f"must have 1 to {TEXT_MAX} printable characters after {name}=")
        found[name] = value
    return found


def _end(text: str) -> tuple[str, int]:
    """Address and port, 0 where none is named: `10.0.0.5:80`, `[fd00::5]:80`, `fd00::5`."""
    port = 0
    if (match := END.fullmatch(text)) is not None:
        text, port = match["address"], int(match["port"] or 0)
        if match["port"] and not 0 < port < 65536:
            raise ValueError(f"{CHECK_FORMS}; a port is 1 to 65535")
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))), port
    except ValueError:
        raise ValueError(f"{CHECK_FORMS}; an address, not a name") from None


def check_text(check: Check) -> str:
    """As `check_of` reads it."""
    match check:
        case Ping():
            return f"ping:{_bracketed(check.address)}"
        case Tcp():
            return f"tcp:{_bracketed(check.address)}:{check.port}" + (
                f" text={check.text}" if check.text else ""
            )
        case Http():
            scheme, usual = ("https", 443) if check.tls else ("http", 80)
            port = "" if check.port == usual else f":{check.port}"
            words = [f"{scheme}://{_bracketed(check.address)}{port}{check.path}"]
            words += [f"host={check.host}"] if check.host else []
            words += [f"verify={'yes' if check.verify else 'no'}"] if check.tls else []
            words += [f"status={check.status}"] if check.status else []
            words += [f"text={check.text}"] if check.text else []
            return " ".join(words)
        case _:
            return next(word for word, alone in ALONE.items() if alone == check)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


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
