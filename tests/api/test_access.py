"""Who may do what, over real TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, client_context
from dr.adapters.pki.identity import Role
from dr.adapters.pki.request import make_request
from dr.adapters.pki.token import parse_token
from dr.api.access import Peer, allowed
from dr.model.base import changed
from dr.model.events import Admitted
from tests.api.service import Service


@contextmanager
def client(service: Service, credentials: Credentials | None) -> Iterator[httpx.Client]:
    if credentials is None:
        context = ssl.create_default_context(cadata=service.authority.ca)
    else:
        context = client_context(credentials)
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as http:
        yield http


def ask(
    service: Service, credentials: Credentials | None, method: str, path: str, **options: Any
) -> httpx.Response:
    with client(service, credentials) as http:
        return http.request(method, path, **options)


def test_no_certificate_is_refused_in_the_handshake(service: Service) -> None:
    with pytest.raises(httpx.TransportError):
        ask(service, None, "GET", "/v1/status")


def test_a_certificate_of_another_ca_is_refused_in_the_handshake(service: Service, tmp_path: Path) -> None:
    other = Authority.create(tmp_path, "lab").issue(Role.ADMIN, "mallory")
    forged = changed(other, ca=service.authority.ca)
    with pytest.raises(httpx.TransportError):
        ask(service, forged, "GET", "/v1/status")


@pytest.mark.parametrize("role", [Role.JOIN, Role.AGENT, Role.COORDINATOR])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/status"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/metrics"),
        ("GET", "/v1/join"),
        ("POST", "/v1/join/"),
        ("POST", "/v1/hosts/h1/token"),
        ("POST", "/v1/hosts/h1/fence"),
        ("POST", "/v1/nothing"),
    ],
)
def test_only_an_administrator_may(service: Service, role: Role, method: str, path: str) -> None:
    addresses = ["127.0.0.1"] if role is Role.COORDINATOR else []
    answer = ask(service, service.authority.issue(role, "h1", addresses=addresses), method, path)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "denied"
    assert not service.coordinator.asked


def test_an_agent_may_not_join(service: Service) -> None:
    assert (
        ask(service, service.credentials(Role.AGENT, "h1"), "POST", "/v1/join", json={"csr": "x"}).status_code
        == 403
    )


def test_an_administrator_may(service: Service) -> None:
    admin = service.credentials(Role.ADMIN, "alice")
    assert ask(service, admin, "GET", "/v1/status").json()["cluster"] == "lab"
    assert ask(service, admin, "GET", "/v1/whoami").json()["name"] == "alice"


def test_the_rule_is_closed_by_default() -> None:
    for role in ("agent", "coordinator", "join", "", "Admin"):
        assert not allowed(Peer("lab", role, "h1"), "GET", "/v1/join")
    assert allowed(Peer("lab", "join", "h1"), "POST", "/v1/join")


def test_who_asks_is_the_certificate_not_the_body(service: Service) -> None:
    admin = service.credentials(Role.ADMIN, "bob")
    body = {"reason": "test", "by": "alice"}
    assert ask(service, admin, "POST", "/v1/pause", json=body).status_code == 400
    assert ask(service, admin, "POST", "/v1/pause", json={"reason": "test"}).status_code == 200
    assert [each.by for each in service.coordinator.asked] == ["bob"]


def test_a_body_that_is_too_large_is_refused(service: Service) -> None:
    admin = service.credentials(Role.ADMIN, "bob")
    answer = ask(service, admin, "POST", "/v1/pause", content=b" " * (4 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    chunks = (b"{}" for _ in range(2))
    assert ask(service, admin, "POST", "/v1/pause", content=chunks).status_code == 413


def test_a_token_makes_one_agent_certificate_and_no_second(service: Service) -> None:
    admin = service.credentials(Role.ADMIN, "alice")
    made = ask(service, admin, "POST", "/v1/hosts/h3/token", json={}).json()
    assert [type(each) for each in service.coordinator.asked] == [Admitted]
    token = parse_token(made["token"])
    assert (token.host, token.cluster) == ("h3", "lab")

    _, request = make_request("somebody-else")
    joined = ask(service, token.credentials, "POST", "/v1/join", json={"csr": request})
    assert joined.status_code == 200
    from dr.adapters.pki.credentials import identity_in

    who = identity_in(joined.json()["certificate"])
    assert (who.role, who.name, who.cluster) == (Role.AGENT, "h3", "lab"), (
        "the token's name, not the request's"
    )

    again = ask(service, token.credentials, "POST", "/v1/join", json={"csr": request})
    assert again.status_code == 409
    assert "dr cluster token h3" in again.json()["next"]


def test_a_bad_request_does_not_use_the_token_up(service: Service) -> None:
    token = parse_token(service.authority.invite("h3", api=[service.url], link=["127.0.0.1:1"]))
    assert ask(service, token.credentials, "POST", "/v1/join", json={"csr": "no"}).status_code == 400
    _, request = make_request("h3")
    assert ask(service, token.credentials, "POST", "/v1/join", json={"csr": request}).status_code == 200


def test_a_removed_host_does_not_join_with_an_old_token(service: Service) -> None:
    token = parse_token(service.authority.invite("gone", api=[service.url], link=["127.0.0.1:1"]))
    _, request = make_request("gone")
    answer = ask(service, token.credentials, "POST", "/v1/join", json={"csr": request})
    assert answer.status_code == 409
    assert "removed" in answer.json()["title"]
