"""Requests to the coordinator's API, and what its errors mean for an exit code.

A request that changes something is sent once: when its answer is lost the outcome is unknown, and says so.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from dr.adapters.pki.credentials import client_context
from dr.adapters.pki.identity import PkiError
from dr.api.schema import ProblemDocument, Whoami
from dr.cli import credentials
from dr.cli.failure import Exit, Failure

CONNECT_S = 3.0
READ_S = 60.0
DOWNLOAD_S = 600.0  # a large store is copied before the first byte comes
CODES = {
    "refused": Exit.REFUSED,
    "missing": Exit.MISSING,
    "denied": Exit.DENIED,
    "unknown": Exit.UNKNOWN,
    "invalid": Exit.BAD_DATA,
    "try-again": Exit.TRY_AGAIN,
    "failed": Exit.FAILED,
}

T = TypeVar("T", bound=BaseModel)


class Api:
    """One coordinator, at the first of its addresses that answers."""

    def __init__(self, urls: tuple[str, ...], context: ssl.SSLContext) -> None:
        self._urls = list(urls)
        self._context = context
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        self._http = httpx.Client(verify=context, timeout=timeout, trust_env=False)

    def get(self, path: str, shape: type[T], **query: str | float | Sequence[str]) -> T:
        """Raises Failure."""
        params = {key: value for key, value in query.items() if value not in ("", None)}
        return _read(self._send("GET", path, params=params), shape)

    def post(self, path: str, shape: type[T], body: Mapping[str, Any] | BaseModel | None = None) -> T:
        """Raises Failure."""
        content = body.model_dump() if isinstance(body, BaseModel) else dict(body or {})
        return _read(self._send("POST", path, json=content), shape)

    def download(self, path: str, file: Path) -> None:
        """Save an answer as a private file, durably, replacing one that is there. Raises Failure, OSError."""
        self.get("/v1/whoami", Whoami)  # finds the address that answers
        url = self._urls[0]
        file.unlink(missing_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                with self._http.stream("GET", url + path, timeout=DOWNLOAD_S) as response:
                    if response.status_code >= 400:
                        response.read()
                        raise _failure(response)
                    for part in response.iter_bytes():
                        out.write(part)
                out.flush()
                os.fsync(out.fileno())
        except httpx.TransportError as error:
            raise _lost("GET", url, error) from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        tried = []
        for url in list(self._urls):
            try:
                response = self._http.request(method, url + path, **options)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                tried.append(f"{url}: {_why(error)}")
                continue
            except httpx.TransportError as error:
                if alert := self._refused(url):
                    raise _not_ours(url, alert) from None
                raise _lost(method, url, error) from None
            self._urls.sort(key=lambda each: each != url)  # the one that answers goes first from now on
            return response
        raise Failure(
            "The coordinator cannot be reached.",
            why="; ".join(tried),
            todo="on its machine: systemctl status dr-coordinator",
            code=Exit.UNREACHABLE,
        )

    def _refused(self, url: str) -> str:
        """Why the coordinator refuses our certificate; empty when it does not.

        A TLS 1.3 server looks at it after the client's handshake, and asyncio then closes without an alert. So an idle
        connection is tried: one that is closed at once was refused, one that waits for a request was not.
        """
        target = httpx.URL(url)
        try:
            with (
                socket.create_connection((target.host, target.port or 443), CONNECT_S) as plain,
                self._context.wrap_socket(plain, server_hostname=target.host) as tls,
            ):
                tls.settimeout(1.0)
                return "" if tls.recv(1) else "it closed the connection on seeing the certificate"
        except ssl.SSLError as error:
            return str(error.reason).lower().replace("_", " ") if "ALERT" in str(error.reason) else ""
        except OSError:
            return ""


def connect() -> Api:
    """With the administrator's credential. Raises Failure."""
    client = credentials.load()
    try:
        return Api(client.urls, client_context(client.credentials))
    except PkiError as error:
        raise Failure(
            "The administrator's credential cannot be used.", why=str(error), code=Exit.BAD_CONFIG
        ) from None


def _read(response: httpx.Response, shape: type[T]) -> T:
    if response.status_code >= 400:
        raise _failure(response)
    try:
        return shape.model_validate_json(response.content)
    except ValidationError as error:
        why = f"{error.error_count()} fields do not fit; the coordinator may be of another version"
        raise Failure("The coordinator's answer cannot be read.", why=why, code=Exit.BAD_DATA) from None


def _failure(response: httpx.Response) -> Failure:
    try:
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        return Failure(f"The coordinator answered {response.status_code}.", why=response.text[:200])
    return Failure(
        problem.title,
        why=problem.detail,
        todo=problem.next,
        code=CODES.get(problem.code, Exit.FAILED),
        blockers=problem.blockers,
    )


def _lost(method: str, url: str, error: httpx.TransportError) -> Failure:
    """The connection stood and broke."""
    why = _why(error)
    if method == "GET":
        return Failure("The coordinator did not answer.", why=f"{url}: {why}", code=Exit.UNREACHABLE)
    return Failure(
        "The request was sent and its answer was lost: whether it was decided is unknown.",
        why=f"{url}: {why}",
        todo="see what became of it: dr events",
        code=Exit.UNKNOWN,
    )


def _not_ours(url: str, alert: str) -> Failure:
    why = f"{url}: {alert}"
    todo = "use a credential of this cluster that has not expired, see --client-dir"
    return Failure("The coordinator refused this credential.", why=why, todo=todo, code=Exit.DENIED)


def _why(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {READ_S:g} s"
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"its certificate is not of this cluster, or not for this address ({text.rpartition(': ')[2]})"
    return text.replace("[Errno ", "[errno ")
