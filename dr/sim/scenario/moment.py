"""A date and a time, as a scenario writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dr.model.words import Kind, Problems, Where


class Moment(Kind):
    """Of UTC; as unix seconds."""

    means = "a date and a time such as 2026-03-29T00:59:30, of UTC"

    def read(self, value: Any, where: Where, problems: Problems) -> float:
        try:
            if isinstance(value, str):
                return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
        self.wrong(value, where, problems)
        return 0.0

    def write(self, value: float) -> str:
        return datetime.fromtimestamp(value, UTC).replace(tzinfo=None).isoformat()


MONDAY = Moment().read("2026-06-01T00:00:00", (), Problems())
