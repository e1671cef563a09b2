"""What a run is told: only what may stand for a host, a guest or a text."""

from __future__ import annotations

import pytest

from dr.core.playbooks.compiling import Fleet, Unclear, steps_of
from dr.model.verbs import Cordon, Pause
from tests.core.playbooks.test_check import read

BOOK = read(
    "playbook: x\nparams: {h: {is: host}, why: {default: work}}\n"
    "steps: [{cordon: '${h}'}, {pause: 'because of ${why}'}]"
)
FLEET = Fleet(hosts={"h1": {}, "h2": {}}, guests={})


def test_a_name_stands_for_one_and_a_text_for_itself() -> None:
    cordon, pause = steps_of(BOOK, {"h": "h1", "why": "5 > 4; see `notes` $(1)"}, FLEET)
    assert cordon.spec.verb == Cordon(cordon=("h1",))
    assert pause.spec.verb == Pause(pause="because of 5 > 4; see `notes` $(1)"), (
        "read by people, run by nobody"
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        *[
            ("h", value, "must be the name of one host")
            for value in (
                "", "all", "targets", "h1;reboot", "$(reboot)", "`reboot`", "h1\nh2", "h1\0", "label:a=b", "${why}",
                "../h1", "--all", "on:h1",
            )
        ],
        ("why", "a\nb", "must be one line"),
        ("why", "a\x1b[2J", "cannot be shown: U+001B"),
        ("why", "${h}", "a value is no expression"),
        ("wyh", "x", "no such parameter; did you mean why?"),
    ],
)  # fmt: skip
def test_a_value_that_is_more_than_a_name_or_a_line(name: str, value: str, told: str) -> None:
    with pytest.raises(Unclear) as unclear:
        steps_of(BOOK, {"h": "h1"} | {name: value}, FLEET)
    ((where, text),) = unclear.value.found
    assert where == ("params", name)
    assert told in text
