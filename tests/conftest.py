"""What every test here shares: a time limit, Hypothesis settings, and which long tests run. Fixtures of one part live
beside its tests.

Long tests repeat one idea over many cases. Each says how many of them `make check` runs, `@pytest.mark.long(keep=N)`;
the number given with `--sample` chooses which, so that days in a row go through all. Without it everything runs.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
TIMEOUT_S = 60

# Two busy cores make a slow example, or slow drawing of one, and neither is a failure. In CI the examples are the same
# at every run.
settings.register_profile(
    "dr",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("dr")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", type=int, metavar="N", help="of long tests run only some cases, the N-th choice of them"
    )
    parser.addoption(
        "--fresh",
        type=int,
        metavar="SEED",
        help="random worlds from this seed on, not the ones known to pass",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long(keep): with --sample only so many of its cases run; 0 = none")


def pytest_report_header(config: pytest.Config) -> list[str]:
    given = {name: config.getoption(f"--{name}") for name in ("sample", "fresh")}
    return [f"to repeat: --{name}={value}" for name, value in given.items() if value is not None]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test in this folder its time limit, unless it names one itself; leave out what the sample does."""
    number: int | None = config.getoption("--sample")
    if number is not None:
        left_out = unsampled(items, number)
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def unsampled(items: Sequence[pytest.Item], number: int) -> set[pytest.Item]:
    """What does not run: of each long test all cases but those of that number."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("long") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for each in cases.values():
        marker = each[0].get_closest_marker("long")
        assert marker is not None
        kept = chosen(len(each), marker.kwargs["keep"], number)
        left_out.update(item for at, item in enumerate(each) if at not in kept)
    return left_out


def chosen(count: int, keep: int, number: int) -> set[int]:
    """So many out of that many, far from each other; following numbers go through all of them."""
    keep = min(keep, count)
    return {(at * count // keep + number) % count for at in range(keep)}
