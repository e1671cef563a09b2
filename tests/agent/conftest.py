"""One host with an agent, and its end."""

from collections.abc import AsyncIterator

import pytest

from tests.agent.fakes import Host


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    yield host
    await host.kill()
    for session in host.coordinator.sessions:
        session.pump.cancel()
