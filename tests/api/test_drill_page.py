"""The page of a drill: one file, nothing in it runs or is fetched, whatever guests are called."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html

from dr.api import drill_schema
from dr.api.drill_page import POLICY, page
from dr.api.drill_schema import shown
from dr.model.base import changed
from dr.model.drills import (
    Case,
    CheckSeen,
    DrillReport,
    Evidence,
    Finding,
    GuestRow,
    Looked,
    PhaseTook,
    TimelineEntry,
    Verdict,
)
from tests.core.test_drills import report_of

PNG = b"\x89PNG\r\n\x1a\n and so on"
EVIL = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\u202e\ud800"
PHASES = (
    PhaseTook(phase="detect", begins_s=0.0, ends_s=1.5),
    PhaseTook(phase="prove", begins_s=1.5, ends_s=4.5),
    PhaseTook(phase="start", begins_s=4.5, ends_s=9.5),
)


def whole(text: str, png: bytes = PNG) -> DrillReport:
    """With that text wherever there is some."""
    row = GuestRow(
        guest=text,
        name=text,
        host=text,
        to=text,
        verdict=Verdict.FAILED,
        why=text,
        todo=f"dr {text}",
        phases=(*PHASES, PhaseTook(phase=text, begins_s=9.5, ends_s=10.5, text=text)),
        recovered_s=10.5,
        objective_s=10.0,
        checks=(CheckSeen(check=text, passed=False, text=text),),
        evidence=(Evidence(title=text, text=text, png=png),),
    )
    return report_of(
        "drill-1",
        title=text,
        asked_by=text,
        says=text,
        reason=text,
        cluster=text,
        lost=(text,),
        objective_s=10.0,
        guests=(row, changed(row, phases=(), to="")),
        cases=(Case(lost=(text, text), verdict=Verdict.UNKNOWN, guests=1, why=text),),
        looked=Looked(of=3, worked=1, proven=1, shown=1),
        timeline=(TimelineEntry(at_s=1.0, text=text),),
        findings=(Finding(severity="critical", text=text, todo=text),),
        evidence=(Evidence(title=text, png=b"<svg onload=alert(1)>"),),
        rests_on=(text,),
    )


def paged(report: DrillReport) -> str:
    return page(shown(report, drill_schema.DrillReport))


def tree_of(text: str) -> Any:
    return html.document_fromstring(text)


def harmless(text: str) -> None:
    """Nothing in it runs, loads or leaves its place."""
    tree = tree_of(text)
    tags = {each.tag for each in tree.iter() if isinstance(each.tag, str)}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "a"}
    attributes = [(name, value) for each in tree.iter() for name, value in each.attrib.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    sources = [value for name, value in attributes if name in ("src", "href", "data", "xlink:href")]
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert len(tree.findall(".//style")) == 1
    assert not re.search(r"@import|url\((?!#)", tree.findtext(".//style"))


def test_hostile_text_stays_text() -> None:
    text = paged(whole(EVIL))
    harmless(text)
    assert "<script" not in text
    assert "\x00" not in text
    text.encode()
    assert EVIL.replace("\x00", "\ufffd").replace("\ud800", "\ufffd") in tree_of(text).text_content()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_any_text_stays_text(text: str) -> None:
    harmless(paged(whole(text)))


def test_a_policy_in_the_page_lets_nothing_run_or_be_fetched() -> None:
    (policy,) = tree_of(paged(report_of("drill-1"))).xpath("//meta[@http-equiv]")
    assert policy.get("content") == POLICY == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.FAILED, Verdict.UNKNOWN])
def test_the_verdict_comes_first_and_is_a_word(verdict: Verdict) -> None:
    tree = tree_of(paged(changed(whole("web"), verdict=verdict)))
    body = tree.find("body").text_content()
    assert body.index(verdict.value.upper()) < body.index("What was found")
    titles = [each.text_content() for each in tree.iter("h2")]
    assert titles == [
        "What was found, and what to do",
        "Objective and recovery, guest by guest",
        "Guests",
        "Cases",
        "Timeline",
        "Evidence",
        "What this rests on",
    ]


def test_a_picture_is_shown_only_if_it_is_one() -> None:
    tree = tree_of(paged(whole("web")))
    sources = [each.get("src") for each in tree.iter("img")]
    assert sources == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"] * 2
    assert "Its picture is not a PNG" in tree.text_content()


def test_the_chart_has_a_bar_for_each_part_and_the_objective() -> None:
    tree = tree_of(paged(whole("web")))
    (chart,) = tree.iter("svg")
    bars = [each for each in chart.iter("rect") if each.find("title") is not None]
    assert len(bars) == 4
    widths = [float(bar.get("width")) for bar in bars]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(5 / 1.5 * widths[0], abs=0.4)
    words = [each.text for each in chart.iter("text")]
    assert "objective 10 s" in words
    assert "nobody knows when" in words or "no place" in words


def test_a_long_chart_is_drawn_in_pieces_that_fit_on_a_page() -> None:
    row = GuestRow(guest="g", name="g", host="h1", to="h2", phases=PHASES, recovered_s=9.5)
    rows = tuple(changed(row, name=f"g{number}") for number in range(200))
    tree = tree_of(paged(report_of("d", guests=rows)))
    assert len(list(tree.iter("svg"))) == 4
    assert "80 more guests are in the table below" in tree.text_content()
    ids = [each.get("id") for each in tree.iter() if each.get("id")]
    assert len(ids) == len(set(ids))


def test_names_are_never_changed() -> None:
    tree = tree_of(paged(whole("db-1 is so")))
    assert "Db-1 is so" not in "".join(tree.xpath("//tbody//text()"))


def test_what_the_api_tells_is_what_was_kept() -> None:
    told = shown(whole("web"), drill_schema.DrillReport)
    again = drill_schema.DrillReport.model_validate_json(told.model_dump_json())
    assert again == told
    assert again.guests[0].evidence[0].png == PNG
    assert page(again) == page(told)


def test_every_field_of_a_report_is_in_the_api() -> None:
    for name in (
        "DrillReport",
        "GuestRow",
        "Case",
        "Looked",
        "Finding",
        "PhaseTook",
        "CheckSeen",
        "Evidence",
    ):
        from dr.model import drills

        assert set(getattr(drills, name).__struct_fields__) == set(
            getattr(drill_schema, name).model_fields
        ), name
