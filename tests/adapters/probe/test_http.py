"""HTTP checks against servers on this machine that answer well, badly, or with malice."""

import asyncio
import datetime
import ipaddress
import ssl
import time
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dr.adapters.probe.checker import GuestChecker
from dr.adapters.probe.http import BODY_MAX
from dr.model.base import changed
from dr.model.checks import CheckResult, Http

GET = Http(address="127.0.0.1", port=1)
HEAD = b"HTTP/1.1 "
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is ready"


class Server:
    """Says the same to each request, and keeps what was asked. `after_s`: before it hangs up."""

    def __init__(self, answer: bytes, after_s: float = 0.0, tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.after_s, self.tls = answer, after_s, tls
        self.asked: list[bytes] = []

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            await asyncio.sleep(self.after_s)
        except OSError:
            pass  # the check knows enough and is gone
        finally:
            writer.close()

    async def check(self, check: Http = GET, window_s: float = 1.0) -> CheckResult:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls) as server:
            port = server.sockets[0].getsockname()[1]
            (found,) = await GuestChecker().check(
                (changed(check, port=port, tls=self.tls is not None),), window_s
            )
        return found


async def test_a_good_answer_passes_and_is_evidence() -> None:
    server = Server(OK)
    found = await server.check(changed(GET, path="/health?deep=1", text="ready"))
    assert (found.passed, found.evidence) == (True, "200 OK: all is ready")
    lines = server.asked[0].decode().split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    assert [line for line in lines if line.startswith("Host: 127.0.0.1:")]
    assert len(server.asked) == 1


async def test_the_name_that_is_asked_for() -> None:
    server = Server(OK)
    await server.check(changed(GET, host="www.example.org"))
    assert b"\r\nHost: www.example.org:" in server.asked[0]


@pytest.mark.parametrize(
    ("answer", "wanted", "why"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait", {}, "it answered 503 Busy, not 200 to 299"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {"status": 200}, "it answered 204 No Content, not 200"),
        (HEAD + b"302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", {}, "it answered 302 Found, not 200 to 299"),
        (OK, {"text": "perfect"}, 'its answer does not have "perfect"'),
        (b"SSH-2.0-OpenSSH_9.2\r\n", {}, "what answers there does not speak HTTP/1.1"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", {}, "what answers there does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", {}, "the head of its answer is not as HTTP has it, or too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", {}, "its answer does not say how long it is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", {}, "it hung up before its answer was whole"),
        (HEAD + b"200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", {}, "its answer is encoded as gzip, not as it is"),
        (HEAD + b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {}, "its answer is not chunked as HTTP has it"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, {}, "it goes on saying that its answer will come"),
        (b"", {}, "it hung up before its answer was whole"),
    ],
)  # fmt: skip
async def test_a_bad_answer_does_not_pass_and_says_why(
    answer: bytes, wanted: dict[str, object], why: str
) -> None:
    found = await Server(answer).check(changed(GET, **wanted), 0.3)
    assert (found.passed, found.why) == (False, why)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 201 Created\r\n\r\nall is ready",  # until it hangs up
        b"HTTP/1.0 200 OK\nContent-Length: 12\n\nall is ready",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nall i\r\n7\r\ns ready\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\nall is ready" + b"." * (2 * BODY_MAX),
    ],
)
async def test_every_form_of_a_good_answer_passes(answer: bytes) -> None:
    assert (await Server(answer).check(changed(GET, text="is ready"))).why == ""


async def test_a_body_without_end_is_read_to_a_bound_only() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    began = time.monotonic()
    found = await Server(head + b"." * (8 * BODY_MAX), after_s=5).check(changed(GET, text="ready"), 0.9)
    assert found.why == 'its answer does not have "ready" in its first 64 KiB'
    assert time.monotonic() - began < 4
    stream = await Server(head + b"data: 1\n\n", after_s=5).check(GET, 2.0)
    assert stream.passed, "where nothing in it is wanted, its end is not waited for"


async def test_a_head_without_end_is_cut_off() -> None:
    flood = b"HTTP/1.1 200 OK\r\n" + b"X-Flood: 1234567890\r\n" * 50_000
    assert "too long" in (await Server(flood).check(GET, 0.5)).why
    assert "too long" in (await Server(b"HTTP/1.1 200 " + b"x" * 1_000_000).check(GET, 0.5)).why


async def test_a_server_that_only_accepts_is_given_up() -> None:
    began = time.monotonic()
    found = await Server(b"", after_s=5).check(GET, 0.3)
    assert found.why == "no answer within 0.3 s"
    assert time.monotonic() - began < 4


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """Of www.example.org at 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("www.example.org"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "cert.pem"
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem)
    (tmp_path / "both.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return file, context


async def test_a_certificate_is_verified_unless_the_check_says_no(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate
    server = Server(OK, tls=context)
    stranger = await server.check(GET, 0.3)
    assert stranger.why.startswith("its certificate is not trusted: ")
    assert server.asked == [], "nothing is asked of it"
    assert (await server.check(changed(GET, verify=False))).passed
    monkeypatch.setenv("SSL_CERT_FILE", str(file))  # what this system trusts
    assert (await server.check(GET)).passed
    assert (await server.check(changed(GET, host="www.example.org"))).passed
    other = await server.check(changed(GET, host="www.example.com"), 0.3)
    assert "www.example.com" in other.why


async def test_where_no_tls_is_spoken_it_says_so(certificate: tuple[Path, ssl.SSLContext]) -> None:
    _, context = certificate
    found = await Server(OK, tls=context).check(GET, 0.3)
    assert not found.passed
    async with await asyncio.start_server(lambda _, writer: writer.write(OK), "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        (found,) = await GuestChecker().check((changed(GET, port=port, tls=True, verify=False),), 0.3)
    assert found.why.startswith("no TLS with it: ")
