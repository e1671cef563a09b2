"""What goes to an agent, and what may come out of it."""

from __future__ import annotations

import json
import re
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.adapters.fencing.catalogue import NO_PROOF, available_agents
from dr.adapters.fencing.parameters import Redactor, fingerprint, is_secret, problem, render
from dr.model.policy import FenceDevice
from tests.adapters.fencing.conftest import Rack

lines = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=30)


def device(**parameters: str) -> FenceDevice:
    return FenceDevice(name="bmc", agent="fence_ipmilan", parameters=parameters)


def as_fencing_py_reads(text: str) -> dict[str, str]:
    """_parse_input_stdin of fence-agents 4.12, as far as values go."""
    found = {}
    for line in text.split("\n"):
        line = line.strip()
        if line and not line.startswith("#"):
            name, value = (line + "=").split("=", 1)
            found[name] = re.sub('^"(.*)"$', "\\1", value[:-1])
    return found


@given(lines, lines)
def test_every_value_arrives_as_it_is(password: str, user: str) -> None:
    made = device(password=password, username=user)
    if not problem(made):
        expected = {"password": password, "username": user, "action": "off"}
        assert as_fencing_py_reads(render(made, "off")) == expected


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=20))
def test_secrets_are_redacted_however_they_are_written(secret: str) -> None:
    redact = Redactor(device(ip="10.0.0.1", passwd=secret))
    for form in (secret, shlex.quote(secret), quote(secret, safe=""), json.dumps(secret), repr(secret)):
        assert secret not in redact(f"<{form}>").replace("[secret]", "")


def test_secrets_by_name() -> None:
    secret = "password passwd password_script snmp-priv-passwd client_secret token API_KEY community hexadecimal_kg"
    shown = "ip ipaddr username login port plug cipher lanplus identity_file systems_uri power_wait keyboard"
    assert all(map(is_secret, secret.split()))
    assert not any(map(is_secret, shown.split()))


def test_defaults_do_not_override() -> None:
    defaults = {"power_wait": "0"}
    assert "power_wait=0\n" in render(device(), "off", defaults)
    assert render(device(**{"power-wait": "4"}), "off", defaults) == "power-wait=4\naction=off\n"
    assert render(device(ip="::1"), "off").endswith("action=off\n")


def test_fingerprint_changes_with_everything_but_secrets() -> None:
    base = device(ip="10.0.0.1", username="a", password="x")
    assert fingerprint(base) == fingerprint(device(username="a", ip="10.0.0.1", password="y"))
    assert fingerprint(base) == fingerprint(device(username="a", ip="10.0.0.1", password_script="/y"))
    others = [
        device(ip="10.0.0.2", username="a", password="x"),
        device(ip="10.0.0.1", username="b", password="x"),
        device(ip="10.0.0.1", username="a", password="x", unheard_of="1"),
        FenceDevice(name="bmc", agent="fence_idrac", parameters=base.parameters),
    ]
    assert len({fingerprint(d) for d in [base, *others]}) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ""),
        (
            "2026-11-22 15:05:47,719 ERROR: Connection timed out\n\n\nPlease use '-h' for usage\n",
            "Connection timed out",
        ),
        ("a\x1b[31mb\n", "a [31mb"),
        ("x" * 1000, "x" * 240),
    ],
)
def test_sentence(text: str, sentence: str) -> None:
    assert Redactor(device())(text) == text
    assert Redactor(device()).sentence(text) == sentence


def test_available_agents(rack: Rack) -> None:
    rack.agent("fence_ipmilan")
    rack.agent("fence_scsi")
    (rack.folder / "fence_not_executable").write_text("")
    found = {agent.name: agent for agent in available_agents((rack.folder, rack.folder / "absent"))}
    assert set(found) == {"fence_ipmilan", "fence_scsi"}
    assert found["fence_ipmilan"].identifies
    assert not found["fence_ipmilan"].why_not
    assert found["fence_scsi"].why_not == NO_PROOF["fence_scsi"]
