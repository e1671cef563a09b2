"""One GET over HTTP/1.1, small and strict, with bounds: status, head and the beginning of the body.

Here: the request, the answer's form, whether it is what the check wants. Redirections are not followed, nothing is
unpacked, nothing is kept between two requests. Not here: the connection (`connect`), trying again (`checker`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from asyncio import StreamReader

from dr import __version__
from dr.adapters.probe.connect import NoWay, Sockets, connected
from dr.model.checks import Http

BODY_MAX = 64 * 1024  # bytes that are read of it in search of what is wanted
HEAD_MAX = 16 * 1024
INTERIM_MAX = 4  # answers of 100 and on before the one that counts
SHOWN_MAX = 300  # bytes of the body that are kept as evidence
SHOWN_S = 0.5  # and waited for, where nothing in it is wanted: a stream may have no end

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


class _Bad(NoWay):
    """What came is no HTTP answer."""


async def get(check: Http, sockets: Sockets) -> tuple[str, str]:
    """What came back, and why it is not what is wanted (empty: it is). Raises NoWay."""
    tls = await asyncio.to_thread(_context, check.verify) if check.tls else None
    reader, writer = await connected(check.address, check.port, sockets, tls, check.host)
    try:
        writer.write(_request(check))
        status, reason, head = await _head(reader)
        wanted = check.text.encode()
        body = b""
        if wanted:
            body = await _body(reader, status, head, wanted, BODY_MAX)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHOWN_S):
                    body = await _body(reader, status, head, wanted, SHOWN_MAX)
    except (OSError, ssl.SSLError) as error:
        raise NoWay(f"the connection broke: {error.strerror or error}") from None
    except (asyncio.IncompleteReadError, EOFError):
        raise _Bad("it hung up before its answer was whole") from None
    finally:
        writer.transport.abort()
    first = f"{status} {reason}".strip()
    shown = f"{first}: {body[:SHOWN_MAX].decode(errors='replace')}" if body else first
    if check.status and status != check.status:
        return shown, f"it answered {first}, not {check.status}"
    if not check.status and not 200 <= status <= 299:
        return shown, f"it answered {first}, not 200 to 299"
    if wanted not in body:
        within = f" in its first {BODY_MAX >> 10} KiB" if len(body) >= BODY_MAX else ""
        return shown, f'its answer does not have "{check.text}"{within}'
    return shown, ""


def _context(verify: bool) -> ssl.SSLContext:
    """What this system trusts, read anew: it may have changed. Or anybody at all, where the check says so."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _request(check: Http) -> bytes:
    address = f"[{check.address}]" if ":" in check.address else check.address
    usual = check.port == (443 if check.tls else 80)
    host = (check.host or address) + ("" if usual else f":{check.port}")
    lines = [
        f"GET {check.path} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: dr/{__version__}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


async def _head(reader: StreamReader) -> tuple[int, str, dict[str, str]]:
    """Status, its words, fields by their names in lower case."""
    for _ in range(INTERIM_MAX):
        match = _STATUS.fullmatch(await _line(reader))
        if match is None:
            raise _Bad("what answers there does not speak HTTP/1.1")
        status, reason = int(match[1]), (match[2] or b"").decode("latin-1").strip()
        fields: dict[str, str] = {}
        size = 0
        while (line := await _line(reader)) not in (b"\r\n", b"\n"):
            size += len(line)
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not name or name != name.strip() or size > HEAD_MAX:
                raise _Bad("the head of its answer is not as HTTP has it, or too long")
            key = name.lower()
            fields[key] = f"{fields[key]}, {value.strip()}" if key in fields else value.strip()
        if status >= 200:
            return status, reason[:100], fields
    raise _Bad("it goes on saying that its answer will come")


async def _line(reader: StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError:  # longer than the reader's bound
        raise _Bad("a line of its answer is too long") from None
    if not line.endswith(b"\n"):
        raise EOFError
    return line


async def _body(reader: StreamReader, status: int, head: dict[str, str], wanted: bytes, most: int) -> bytes:
    """What it begins with; read no further than to what is wanted, nor beyond `most` bytes."""
    if status in (204, 304):
        return b""
    coding = head.get("transfer-encoding", "").lower()
    if coding and coding != "chunked":
        raise _Bad(f"its answer is encoded as {coding[:40]}, not as it is")
    if coding:
        return await _chunks(reader, wanted, most)
    length = head.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        raise _Bad("its answer does not say how long it is")
    return await _some(reader, b"", int(length) if length is not None else None, wanted, most)


async def _some(reader: StreamReader, body: bytes, length: int | None, wanted: bytes, most: int) -> bytes:
    """`body`, and so many bytes more; None: until it hangs up."""
    left = most - len(body) if length is None else min(length, most - len(body))
    short = length is not None and length <= left
    while left > 0:
        more = await reader.read(left)
        if not more:
            if short:
                raise EOFError
            break
        body, left = body + more, left - len(more)
        if wanted and wanted in body:
            break
    return body


async def _chunks(reader: StreamReader, wanted: bytes, most: int) -> bytes:
    body = b""
    while len(body) < most and not (wanted and wanted in body):
        match = _CHUNK.fullmatch(await _line(reader))
        if match is None:
            raise _Bad("its answer is not chunked as HTTP has it")
        size = int(match[1], 16)
        if not size:
            break
        before = len(body)
        body = await _some(reader, body, size, wanted, most)
        if len(body) - before == size and await _line(reader) not in (b"\r\n", b"\n"):
            raise _Bad("its answer is not chunked as HTTP has it")
    return body
