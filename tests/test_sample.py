"""The sample of long tests that `make check` runs: small, and in time all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import chosen

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("count", "keep"), [(180, 20), (29, 3), (3, 1), (7, 5), (4, 9)])
def test_a_sample_is_as_large_as_it_says_and_days_in_a_row_go_through_all(count: int, keep: int) -> None:
    assert {len(chosen(count, keep, number)) for number in range(20261125, 20261140)} == {min(count, keep)}
    days = range(-(-count // keep) + 1)
    assert set().union(*(chosen(count, keep, day) for day in days)) == set(range(count))


def test_none_of_them() -> None:
    assert chosen(5, 0, 3) == set()


def collected(*options: str) -> set[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/sim/test_fuzz.py",
        "--collect-only",
        "-q",
        "-n0",
        *options,
    ]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^tests/sim/test_fuzz.py::test_random_worlds\[(\d+)\]", told, re.MULTILINE))


@pytest.mark.long(keep=0)
def test_the_options_choose() -> None:
    """`make check` runs five random worlds, others each day; `make test` a hundred that nobody has seen."""
    assert len(collected("--sample=1")) == 5
    assert collected("--fresh=77000") == {str(seed) for seed in range(77000, 77100)}
