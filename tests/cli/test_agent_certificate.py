"""What an agent says of its own certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import write_credentials
from dr.adapters.pki.identity import Role
from dr.cli.agent_process import _certificate
from dr.cli.agent_settings import AgentConfig
from dr.model.facts import Level


def test_one_that_is_old_says_what_to_do(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "ca", "c1")
    config = AgentConfig(host="h1", cluster="c1", coordinators=["127.0.0.1:1"], state_dir=str(tmp_path))
    fresh, old = authority.issue(Role.AGENT, "h1"), datetime.now(UTC) - timedelta(days=5 * 365 - 10)
    write_credentials(config.pki_dir, fresh)
    assert _certificate(config).level is Level.OK
    write_credentials(config.pki_dir, authority.issue(Role.AGENT, "h1", now=old))
    assert "It expires in 10 days" in _certificate(config).reason
    assert "dr cluster token h1" in _certificate(config).reason
