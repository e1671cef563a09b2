"""What every test here shares: a time limit and Hypothesis settings. Fixtures of one part live beside its tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
TIMEOUT_S = 60

# No deadline: two busy cores make a slow example, not a failing one. In CI the examples are the same at every run.
settings.register_profile("dr", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("dr")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test in this folder its time limit, unless it names one itself."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
