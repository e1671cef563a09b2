"""The permit hook, run by a real /bin/sh as libvirt would run it."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dr.adapters.libvirt.gate import MARKER, LibvirtGate
from dr.adapters.libvirt.layout import Layout
from dr.model.commands import TicketKind
from tests.adapters.libvirt.conftest import OTHER, G, put

XML = "<domain type='kvm'>\n  <name>web1</name>\n  <uuid>{guest}</uuid>\n  <title>{rest}</title>\n</domain>\n"

GATED = ("prepare", "migrate", "restore")


def ask(gate: LibvirtGate, operation: str, guest: str = G, xml: str = "") -> tuple[bool, str]:
    """(allowed, stderr) of one call, as libvirt makes it."""
    run = subprocess.run(
        [str(gate.hook), "web1", operation, "begin", "-"],
        input=xml or XML.format(guest=guest, rest=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert run.stdout == "", "libvirt takes a migrate hook's output for the guest's new XML"
    return run.returncode == 0, run.stderr


def permit(layout: Layout, line: str) -> None:
    put(layout.root, f"/run/dr/permits/{G}", f"{line}\n")


@pytest.mark.parametrize("operation", GATED)
def test_protected_guest_without_permit_is_refused_in_words(gate: LibvirtGate, operation: str) -> None:
    gate.protect({G: "web1"})
    allowed, said = ask(gate, operation)
    assert not allowed
    assert said.startswith(f"{MARKER}: guest web1 is protected by dr")
    assert "dr guest start web1" in said


@pytest.mark.parametrize("operation", GATED)
def test_other_guests_pass(gate: LibvirtGate, operation: str) -> None:
    gate.protect({G: "web1"})
    assert ask(gate, operation, guest=OTHER) == (True, "")


@pytest.mark.parametrize(
    "operation", ["start", "started", "stopped", "release", "reconnect", "attach", "new-in-2030"]
)
def test_all_else_always_passes(gate: LibvirtGate, layout: Layout, operation: str) -> None:
    gate.protect({G: "web1"})
    assert ask(gate, operation) == (True, "")
    (layout.protected / G).unlink()
    layout.protected.rmdir()
    assert ask(gate, operation, xml="no xml at all") == (True, "")


def test_permit_works_once(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1"})
    gate.permit(G, TicketKind.START, "t-1")
    assert ask(gate, "prepare") == (True, "")
    assert not ask(gate, "prepare")[0]
    assert not (layout.permits / G).exists()


def test_permit_of_another_guest_does_not_count(gate: LibvirtGate) -> None:
    gate.protect({G: "web1", OTHER: "web2"})
    gate.permit(OTHER, TicketKind.START, "t-1")
    assert not ask(gate, "prepare")[0]
    assert ask(gate, "prepare", guest=OTHER)[0]


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_start_permit_neither_receives_nor_restores_and_is_kept(gate: LibvirtGate, operation: str) -> None:
    gate.protect({G: "web1"})
    gate.permit(G, TicketKind.START, "t-1")
    assert not ask(gate, operation)[0]
    assert ask(gate, "prepare")[0]


def test_revoked_permit_is_gone(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1"})
    gate.permit(G, TicketKind.START, "t-1")
    gate.revoke(G)
    gate.revoke(G)
    assert not ask(gate, "prepare")[0]
    assert list(layout.consumed.iterdir()) == []


def test_incoming_permit_allows_the_pair_and_no_more(gate: LibvirtGate) -> None:
    gate.protect({G: "web1"})
    gate.permit(G, TicketKind.RECEIVE, "t-1")
    assert not ask(gate, "prepare")[0], "an incoming permit must not start a guest from cold"
    assert ask(gate, "migrate")[0]
    assert not ask(gate, "migrate")[0]
    assert ask(gate, "prepare")[0]
    assert not ask(gate, "prepare")[0]


def test_revoking_takes_the_rest_of_an_incoming_permit_too(gate: LibvirtGate) -> None:
    gate.protect({G: "web1"})
    gate.permit(G, TicketKind.RECEIVE, "t-1")
    assert ask(gate, "migrate")[0]
    gate.revoke(G)
    assert not ask(gate, "prepare")[0]


def test_rest_of_an_incoming_permit_runs_out(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1"})
    permit(layout, "migrate prepare ticket=t-1")
    assert ask(gate, "migrate")[0]
    put(layout.root, "/proc/uptime", "1010.50 1.00\n")
    assert not ask(gate, "prepare")[0]


@pytest.mark.parametrize("line", ["", "ticket=t-1", "until=9999 ticket=t-1", "until=x prepare", "*"])
def test_garbled_permit_is_none(gate: LibvirtGate, layout: Layout, line: str) -> None:
    gate.protect({G: "web1"})
    permit(layout, line)
    assert not ask(gate, "prepare")[0]


def test_of_racing_hooks_exactly_one_wins(gate: LibvirtGate) -> None:
    gate.protect({G: "web1"})
    for turn in range(10):
        gate.permit(G, TicketKind.START, f"t-{turn}")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(gate, "prepare")[0], range(4)))
        assert answers.count(True) == 1, f"turn {turn}"


def test_missing_list_fails_closed_for_everybody(gate: LibvirtGate, layout: Layout) -> None:
    gate.permit(G, TicketKind.START, "t-1")
    layout.protected.rmdir()
    for operation in GATED:
        allowed, said = ask(gate, operation, guest=OTHER)
        assert not allowed
        assert MARKER in said
        assert "systemctl start dr-agent" in said


def test_missing_run_folders_fail_closed(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1"})
    layout.permits.rmdir()
    layout.consumed.rmdir()
    assert not ask(gate, "prepare")[0]
    assert ask(gate, "prepare", guest=OTHER)[0]
    permit(layout, "prepare")  # but nowhere to consume it
    assert not ask(gate, "prepare")[0]


@pytest.mark.parametrize("xml", ["<domain/>", "<domain><uuid>../../etc</uuid></domain>", f"<uuid>{G}", "\n"])
def test_xml_without_a_uuid_is_refused(gate: LibvirtGate, xml: str) -> None:
    assert not ask(gate, "prepare", xml=xml)[0]


def test_first_uuid_counts(gate: LibvirtGate) -> None:
    """What a user can write into metadata comes later in libvirt's XML."""
    gate.protect({G: "web1"})
    rest = f"</title><metadata><a><uuid>{OTHER}</uuid></a></metadata><title>"
    assert not ask(gate, "prepare", xml=XML.format(guest=G, rest=rest))[0]
    assert not ask(
        gate, "prepare", xml=f"<domain><name>web1</name><uuid>{G}</uuid><uuid>{OTHER}</uuid></domain>"
    )[0]


def test_names_that_mean_something_to_a_shell(gate: LibvirtGate) -> None:
    gate.protect({G: "web1"})
    name = r"$(touch /tmp/x)`id`; \n * 'q'"
    run = subprocess.run(
        [str(gate.hook), name, "prepare", "begin", "-"],
        input=XML.format(guest=G, rest=""), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert name in run.stderr


def test_fast_even_with_a_big_definition(gate: LibvirtGate) -> None:
    gate.protect({G: "web1"})
    xml = XML.format(guest=OTHER, rest="x" * 60_000)
    best_s = 9.0
    for _ in range(5):
        began = time.monotonic()
        assert ask(gate, "prepare", xml=xml)[0]
        best_s = min(best_s, time.monotonic() - began)
    assert best_s < 0.05, "about 3 ms where this was written"
