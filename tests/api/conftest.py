"""One served API for all tests of a worker; each test finds it as new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.service import Service


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()


@pytest.fixture
def service(served: Service) -> Service:
    served.reset()
    return served
