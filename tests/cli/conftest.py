"""The command against the served API of tests/api."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dr.cli import output
from dr.cli.app import run
from dr.cli.failure import Failure
from tests.api.conftest import served  # noqa: F401  # a fixture
from tests.api.service import Service


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Dr = Callable[..., Ended]


@pytest.fixture
def service(served: Service, monkeypatch: pytest.MonkeyPatch) -> Service:  # noqa: F811
    served.reset()
    monkeypatch.setenv("DR_CLIENT_DIR", str(served.folder / "client"))
    return served


@pytest.fixture
def dr(capsys: pytest.CaptureFixture[str]) -> Iterator[Dr]:
    """Run one command line in this process, as `main` does."""

    def run_(*arguments: str) -> Ended:
        capsys.readouterr()
        try:
            code = run(list(arguments))
            told = ""
        except Failure as failure:
            code, told = int(failure.code), failure.text()
        said = capsys.readouterr()
        return Ended(code, said.out, said.err + told)

    yield run_
    output.color = output.Color.AUTO
