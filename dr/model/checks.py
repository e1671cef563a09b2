"""Checks: how to tell that a guest does its work, beyond that its domain runs, and what one of them found.

Here: the nouns and their bounds. Not here: how people write them (`spelling`), who makes them (`adapters.probe`: over
the network), what follows (`core.checks`).
"""

from __future__ import annotations

from dr.model.base import Record

CHECKS_MAX = 8  # of one guest
TEXT_MAX = 200  # characters that a service is expected to say
PATH_MAX = 500
EVIDENCE_MAX = 500  # characters kept of what came back
PICTURE_MAX = 512 * 1024  # bytes of a PNG


class Running(Record, tag="running"):
    """Its CPUs run, as its host tells."""


class Agent(Record, tag="agent"):
    """The QEMU guest agent in it answers."""


class Screenshot(Record, tag="screenshot"):
    """A picture of its console can be taken, and shows more than one colour. It is kept as evidence, the newest one."""


class Ping(Record, tag="ping"):
    """An ICMP echo comes back."""

    address: str


class Tcp(Record, tag="tcp"):
    """A port accepts; with `text`: and what is said there first has it."""

    address: str
    port: int
    text: str = ""


class Http(Record, tag="http"):
    """A GET is answered: with `status`, and with `text` in the body. Redirections are not followed."""

    address: str
    port: int
    path: str = "/"
    host: str = ""  # the name that is asked for, also in TLS; empty: the address
    tls: bool = False
    verify: bool = True  # with tls: the certificate is one that this system trusts, and names `host`
    status: int = 0  # 0: any from 200 to 299
    text: str = ""


Reached = Ping | Tcp | Http  # by whoever has a way to the guest's network
Inside = Agent | Screenshot  # by the agent of its host
Check = Running | Agent | Screenshot | Ping | Tcp | Http


class CheckResult(Record):
    """What one check found."""

    check: Check
    passed: bool
    made: bool = True  # False: it could not be, so it says nothing of the guest
    why: str = ""  # not passed: in one sentence
    took_s: float = 0.0  # the try that decided
    evidence: str = ""  # what came back, as far as it is text; bounded
    picture: bytes = b""  # PNG; on its way to the store only


def bounded(text: str) -> str:
    """What came back as evidence: one line, printable, cut off."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * EVIDENCE_MAX]).split())
    return line if len(line) <= EVIDENCE_MAX else line[: EVIDENCE_MAX - 1] + "…"
