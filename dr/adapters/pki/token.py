"""The join token: all that an invited host needs to reach the coordinator and prove that it was invited.

`drjoin1.` and base64url of: length (4 bytes), SHA-256 of the body (first 8 bytes), body (JSON, deflated).
It holds a private key that is good for one hour: shown once, pasted once, kept nowhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from datetime import UTC, datetime
from time import time

import msgspec

from dr.adapters.pki.credentials import Credentials
from dr.adapters.pki.identity import PkiError
from dr.model.base import Record

PREFIX = "drjoin1."
TOKEN_CHARS_MAX = 64 * 1024
BODY_BYTES_MAX = 256 * 1024
_HEAD_BYTES = 12


class TokenError(PkiError):
    """A token that cannot be used; the sentence says why and what to type next."""


class JoinToken(Record):
    """What is in it. `credentials` are those of role join/<host>."""

    cluster: str
    host: str
    api: tuple[str, ...]  # URLs of the coordinator's API
    link: tuple[str, ...]  # host:port of the agent link
    credentials: Credentials
    expires_wall: float

    def __repr__(self) -> str:
        return f"JoinToken({self.host} into {self.cluster})"


def format_token(token: JoinToken) -> str:
    """As one line of text."""
    body = zlib.compress(msgspec.json.encode(token), 9)
    head = len(body).to_bytes(4) + hashlib.sha256(body).digest()[:8]
    return PREFIX + base64.urlsafe_b64encode(head + body).decode().rstrip("=")


def parse_token(text: str, now: float | None = None) -> JoinToken:
    """Read a token; blanks and line breaks from a mail or terminal are ignored. Raises TokenError."""
    text = "".join(text[: 2 * TOKEN_CHARS_MAX].split())
    if not text.startswith(PREFIX):
        if text.startswith("drjoin"):
            raise TokenError(
                "This join token is of another version of dr. Update dr on this host and try again."
            )
        raise TokenError(
            f"This is not a join token: one begins with '{PREFIX}'. Get one with `dr cluster token`."
        )
    if len(text) > TOKEN_CHARS_MAX:
        raise TokenError(f"This is not a join token: it is longer than {TOKEN_CHARS_MAX} characters.")
    code = text.removeprefix(PREFIX)
    try:
        code = code[
            : len(code) - (len(code) % 4 == 1)
        ]  # no base64 is that long: one character is left of a cut
        data = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenError(
            "This join token holds characters that no token has. Copy it again, whole."
        ) from error
    head, body = data[:_HEAD_BYTES], data[_HEAD_BYTES:]
    length = int.from_bytes(head[:4])
    if len(head) < _HEAD_BYTES or len(body) < length:
        raise TokenError(
            f"This join token is truncated: {len(text)} characters are not all. Copy it again, whole."
        )
    if len(body) > length:
        raise TokenError("This join token has something appended to it. Copy it again, alone.")
    if hashlib.sha256(body).digest()[:8] != head[4:]:
        raise TokenError("This join token was altered on its way: its checksum differs. Copy it again.")
    try:
        token = msgspec.json.decode(_inflate(body), type=JoinToken)
    except (zlib.error, msgspec.DecodeError) as error:
        raise TokenError(f"This join token cannot be read by this version of dr: {error}") from error
    now = time() if now is None else now
    if now >= token.expires_wall:
        raise TokenError(
            f"This join token expired at {_clock(token.expires_wall)}; this host's clock says {_clock(now)}. "
            f"If the clock is right, get a new token with `dr cluster token {token.host}`."
        )
    return token


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(body, BODY_BYTES_MAX)
    if not inflater.eof:
        raise zlib.error("it is longer than any token")
    return data


def _clock(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%S} UTC"
