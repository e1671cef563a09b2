"""The join token: whole or refused, with a sentence that says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import client_context, identity_in
from dr.adapters.pki.identity import Role
from dr.adapters.pki.token import PREFIX, TokenError, parse_token


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"), "c1")


@pytest.fixture(scope="module")
def text(authority: Authority) -> str:
    return authority.invite("h1", api=["https://10.0.0.1:7443"], link=["10.0.0.1:7444", "10.1.0.1:7444"])


def test_a_token_brings_a_host_in(text: str) -> None:
    token = parse_token("\n  " + text[:70] + "\r\n" + text[70:] + "\n")
    assert (token.cluster, token.host) == ("c1", "h1")
    assert token.api == ("https://10.0.0.1:7443",)
    assert token.link == ("10.0.0.1:7444", "10.1.0.1:7444")
    identity = identity_in(token.credentials.certificate)
    assert (identity.cluster, identity.role, identity.name) == ("c1", Role.JOIN, "h1")
    client_context(token.credentials)
    assert len(text) < 3_000
    assert "PRIVATE" not in repr(token)


def test_every_cut_is_called_truncated(text: str) -> None:
    for length in range(len(PREFIX), len(text)):
        with pytest.raises(TokenError, match="truncated"):
            parse_token(text[:length])


def test_every_altered_character_is_noticed(text: str) -> None:
    for at in range(len(PREFIX), len(text) - 1, 7):  # the last one may hold unused bits
        with pytest.raises(TokenError):
            parse_token(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("", "not a join token"),
        ("hello", "not a join token"),
        ("drjoin2.AAAA", "another version"),
        ("drjoin1.äöü", "characters"),
        ("drjoin1." + "A" * 70_000, "longer"),
    ],
)
def test_what_is_no_token(bad: str, says: str) -> None:
    with pytest.raises(TokenError, match=says):
        parse_token(bad)


def test_appended_and_expired(authority: Authority, text: str) -> None:
    with pytest.raises(TokenError, match="appended"):
        parse_token(text + "AAAA")
    old = authority.invite("h1", api=[], link=[], now=datetime.now(UTC) - timedelta(hours=2))
    with pytest.raises(TokenError, match=r"expired at .* clock says .*dr cluster token h1"):
        parse_token(old)


def test_what_the_agent_imports_stays_small() -> None:
    code = (
        "import dr.adapters.pki.credentials, dr.adapters.pki.token, dr.adapters.link.client, "
        "dr.adapters.store.memory, sys; print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"cryptography", "pydantic", "asyncssh", "structlog", "sqlite3"}
