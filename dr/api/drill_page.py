"""A drill's report as one page."""

from __future__ import annotations

from dr.api.drill_schema import DrillReport


def page(report: DrillReport) -> str:
    return report.id
