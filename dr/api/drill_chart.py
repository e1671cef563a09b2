"""Each guest's way back as a bar, beside the objective: inline SVG, legible without colour.

A part of the way is known by its pattern; how it came about (measured, foretold) is told elsewhere. Not here: the page
around it (`drill_page`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dr.api.drill_schema import DrillReport, GuestRow, mark
from dr.api.markup import Node, node

ROWS = 30  # of one figure: it fits on a page
FIGURES_MAX = 4
WIDTH, LEFT, RIGHT = 760, 178, 62  # of a figure; of its names; of what stands behind a bar
ROW, BAR = 20, 12
HEAD, FOOT = 44, 24
NAME_MAX = 24  # characters
INK, GREY, BLUE, RED = "#16181d", "#5a6070", "#1f4e8c", "#a3180f"

# Of each part: how it is filled, and what the legend says.
FILLS = {
    "detect": ("url(#p-detect)", "noticed"),
    "prove": ("url(#p-prove)", "proven dead"),
    "wait": ("#ffffff", "waits its turn"),
    "start": (BLUE, "starts"),
    "check": ("url(#p-check)", "its check"),
}
OTHER = ("#b9bfca", "other")


def charts(report: DrillReport) -> Iterator[Node]:
    """None where no guest has times."""
    rows = [row for row in report.guests if row.verdict != "left"]
    if not any(row.phases for row in rows):
        return
    shown = rows[: ROWS * FIGURES_MAX]
    ends_s = [each.ends_s for row in shown for each in row.phases]
    top_s, step_s = _scale(max([*ends_s, report.objective_s, 1.0]))
    kinds = list(dict.fromkeys(each.phase for row in shown for each in row.phases))
    for at in range(0, len(shown), ROWS):
        chart = _Chart(shown[at : at + ROWS], top_s, step_s, report.objective_s)
        yield node("figure", chart.drawn(kinds, defs=at == 0))
    if len(rows) > len(shown):
        yield node("p", f"{len(rows) - len(shown):,} more guests are in the table below.", {"class": "more"})


def _scale(most_s: float) -> tuple[float, float]:
    """Where the axis ends, and the step of its ticks: 1, 2 or 5 times a power of ten, eight at most."""
    rough = most_s / 8
    power = 10.0 ** math.floor(math.log10(rough))
    step_s = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return math.ceil(most_s / step_s) * step_s, step_s


class _Chart:
    """One figure of some rows."""

    def __init__(self, rows: Sequence[GuestRow], top_s: float, step_s: float, objective_s: float) -> None:
        self.rows = rows
        self.top_s = top_s
        self.step_s = step_s
        self.objective_s = objective_s
        self.bottom = HEAD + ROW * len(rows)

    def x(self, at_s: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * at_s / self.top_s, 1)

    def drawn(self, kinds: Sequence[str], *, defs: bool) -> Node:
        parts = [*([_patterns()] if defs else []), *_legend(kinds), *self._axis()]
        for number, row in enumerate(self.rows):
            parts += self._row(row, HEAD + ROW * number)
        parts += self._objective()
        height = self.bottom + FOOT
        said = "Time until each guest does its work, part by part, beside the objective"
        return node(
            "svg",
            *parts,
            {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": said},
            xmlns="http://www.w3.org/2000/svg",
        )

    def _axis(self) -> Iterator[Node]:
        for number in range(round(self.top_s / self.step_s) + 1):
            at_s = number * self.step_s
            x = self.x(at_s)
            yield _upright(x, HEAD - 4, self.bottom + 3, "#d9dce2")
            yield _text(x, self.bottom + 16, f"{at_s:g} s" if at_s else "0", anchor="middle", fill=GREY)

    def _objective(self) -> Iterator[Node]:
        if not self.objective_s:
            return
        x = self.x(self.objective_s)
        yield _upright(x, HEAD - 8, self.bottom + 3, RED, width=1.8, dash="6 3")
        near_end = x > WIDTH - RIGHT - 60
        anchor = "end" if near_end else "middle"
        yield _text(x, HEAD - 11, f"objective {self.objective_s:g} s", anchor=anchor, fill=RED, bold=True)

    def _row(self, row: GuestRow, y: float) -> Iterator[Node]:
        text_y = y + ROW / 2 + 4
        bad = row.verdict in ("failed", "unknown")
        name = row.name if len(row.name) <= NAME_MAX else f"{row.name[: NAME_MAX - 1]}…"
        sign = {"failed": "✗ ", "unknown": "? "}.get(row.verdict, "")
        yield node("g", node("title", row.name), _text(LEFT - 8, text_y, sign + name, anchor="end", bold=bad))
        if not row.phases:
            why = "no place" if not row.to and row.verdict == "failed" else "nobody knows when"
            yield _text(LEFT + 6, text_y, why, fill=RED if row.verdict == "failed" else GREY, italic=True)
            return
        top = y + (ROW - BAR) / 2
        for each in row.phases:
            fill, _ = FILLS.get(each.phase, OTHER)
            begins, ends = self.x(each.begins_s), self.x(each.ends_s)
            box = {
                "x": f"{begins}",
                "y": f"{top}",
                "width": f"{max(ends - begins, 0.5):.1f}",
                "height": f"{BAR}",
            }
            style = {"fill": fill, "stroke": INK, "stroke-width": "0.7"}
            if each.phase == "wait":
                style["stroke-dasharray"] = "2 2"
            took = f"{each.phase}: {each.ends_s - each.begins_s:.1f} s, {each.known}"
            yield node("rect", node("title", f"{took}{': ' if each.text else ''}{each.text}"), box | style)
        ends_s = row.phases[-1].ends_s
        late = bool(self.objective_s) and ends_s > self.objective_s
        yield _text(
            self.x(ends_s) + 5,
            text_y,
            f"{mark(row.phases)}{ends_s:.1f} s",
            fill=RED if late else INK,
            bold=late,
        )


def _legend(kinds: Sequence[str]) -> Iterator[Node]:
    x = float(LEFT)
    for kind in kinds:
        fill, said = FILLS.get(kind, (OTHER[0], kind))
        box = {"x": f"{x}", "y": "2", "width": "20", "height": "11", "fill": fill, "stroke": INK}
        yield node(
            "rect", box | {"stroke-width": "0.7"} | ({"stroke-dasharray": "2 2"} if kind == "wait" else {})
        )
        yield _text(x + 25, 12, said, fill=GREY)
        x += 42 + 6.4 * len(said)


def _patterns() -> Node:
    """Fills that are told apart without colour."""
    size = {"width": "6", "height": "6", "patternUnits": "userSpaceOnUse"}
    ground = {"width": "6", "height": "6"}
    stroke = {"stroke": INK, "stroke-width": "1"}
    return node(
        "defs",
        node(
            "pattern",
            node("rect", ground | {"fill": "#f3f4f6"}),
            node("path", {"d": "M0 6 6 0M-1 1 1-1M5 7 7 5"} | stroke | {"stroke-width": "0.6"}),
            size | {"id": "p-detect"},
        ),
        node(
            "pattern",
            node("rect", ground | {"fill": "#c3c8d1"}),
            node("path", {"d": "M0 0 6 6M0 6 6 0"} | stroke | {"stroke-width": "0.7"}),
            size | {"id": "p-prove"},
        ),
        node(
            "pattern",
            node("rect", ground | {"fill": "#dbe7f6"}),
            node("circle", {"cx": "3", "cy": "3", "r": "1.3", "fill": BLUE}),
            size | {"id": "p-check"},
        ),
    )


def _upright(x: float, top: float, bottom: float, stroke: str, *, width: float = 0.8, dash: str = "") -> Node:
    ends = {"x1": f"{x}", "y1": f"{top}", "x2": f"{x}", "y2": f"{bottom}"}
    return node("line", ends | {"stroke": stroke, "stroke-width": f"{width}", "stroke-dasharray": dash})


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "",
    fill: str = INK,
    bold: bool = False,
    italic: bool = False,
) -> Node:
    style = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": "11", "fill": fill, "text-anchor": anchor}
    style |= {"font-weight": "700" if bold else "", "font-style": "italic" if italic else ""}
    return node("text", text, style | {"style": "unicode-bidi: isolate"})
