"""Whom the command talks to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import client_context, server_context
from dr.adapters.pki.identity import Role
from dr.api.schema import Whoami
from dr.cli.client import Api
from dr.cli.failure import Exit, Failure


def test_an_agent_that_poses_as_the_coordinator_hears_no_request(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "c1")
    context = server_context(authority.issue(Role.AGENT, "h1", addresses=["127.0.0.1"]))
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pose() -> None:
            plain, _ = listening.accept()
            with plain, context.wrap_socket(plain, server_side=True) as tls:
                try:
                    heard.append(tls.recv(1000))
                except OSError:
                    heard.append(b"")

        agent = threading.Thread(target=pose)
        agent.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Failure, match="cannot be reached") as caught:
            Api((url,), client_context(authority.issue(Role.ADMIN, "alice"))).get("/v1/whoami", Whoami)
        agent.join()
    assert caught.value.code is Exit.UNREACHABLE
    assert "agent 'h1' is no coordinator" in (caught.value.why or "")
    assert heard == [b""]
