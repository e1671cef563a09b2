"""One TCP connection over a socket from a factory, and why there is none, in words.

Here: also TLS over it. Not here: what is said over it (`checker`, `http`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

Sockets = Callable[[int, int, int], socket.socket]  # family, type, protocol; raises OSError
READ_MAX = 64 * 1024  # bytes that wait to be read; also the longest line

# Nothing left this machine: no route, no such source, filtered here, no socket.
NOT_ASKED = {
    errno.ENETUNREACH, errno.ENETDOWN, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
    errno.EPERM, errno.EACCES, errno.EINVAL, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS,
}  # fmt: skip
_WHY = {
    errno.ECONNREFUSED: "it refuses the connection",
    errno.EHOSTUNREACH: "there is no way to it",
    errno.ENETUNREACH: "there is no way to it",
    errno.ETIMEDOUT: "no answer",
}


class NoWay(Exception):
    """There is no connection, or it broke; the text is for people. Not `tried`: nothing left this machine."""

    def __init__(self, why: str, *, tried: bool = True) -> None:
        super().__init__(why)
        self.tried = tried


async def connected(
    address: str, port: int, sockets: Sockets, tls: ssl.SSLContext | None = None, name: str = ""
) -> tuple[StreamReader, StreamWriter]:
    """Streams over a new connection. `name`: whom the certificate is for. Raises NoWay."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = sockets(family, socket.SOCK_STREAM, 0)
    except OSError as error:
        raise NoWay(f"there is no socket for it here: {error.strerror or error}", tried=False) from None
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        if tls is None:
            return await asyncio.open_connection(sock=sock, limit=READ_MAX)
        return await asyncio.open_connection(
            sock=sock, limit=READ_MAX, ssl=tls, server_hostname=name or address
        )
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise NoWay(f"its certificate is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        sock.close()
        raise NoWay(f"no TLS with it: {error.reason or error}") from None
    except OSError as error:
        sock.close()
        code = error.errno or 0
        why = _WHY.get(code, os.strerror(code) if code else str(error))
        raise NoWay(why, tried=code not in NOT_ASKED) from None
    except BaseException:
        sock.close()
        raise
