"""The gate's files: what is durable, what is kept, what is put back."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dr.adapters.libvirt import gate as gate_module
from dr.adapters.libvirt.gate import CANARY, LibvirtGate
from dr.adapters.libvirt.layout import Layout
from dr.model.commands import TicketKind
from tests.adapters.libvirt.conftest import OTHER, G, put


def test_install_leaves_other_hooks_alone_and_repairs_its_own(layout: Layout) -> None:
    user = put(layout.root, "/etc/libvirt/hooks/qemu", "#!/bin/sh\nexit 0\n")
    other = put(layout.root, "/etc/libvirt/hooks/qemu.d/10-mine", "#!/bin/sh\nexit 0\n")
    gate = LibvirtGate(layout)
    gate.install()
    assert gate.hook.stat().st_mode & 0o777 == 0o755
    assert "@" not in gate.hook.read_text().replace('"$@"', "").replace("$*", "")
    before = gate.hook.stat().st_ino
    gate.install()
    assert gate.hook.stat().st_ino == before, "not rewritten when it is right"
    gate.hook.write_text("#!/bin/sh\nexit 0\n")
    gate.install()
    assert "prepare" in gate.hook.read_text()
    gate.hook.chmod(0o644)
    gate.install()
    assert gate.hook.stat().st_mode & 0o111
    assert user.read_text() == other.read_text() == "#!/bin/sh\nexit 0\n"
    assert sorted(p.name for p in gate.hook.parent.iterdir()) == ["10-mine", "50-dr"]


def test_install_does_not_invent_the_list(layout: Layout) -> None:
    LibvirtGate(layout).install()
    assert not layout.protected.exists()


def test_protect_makes_exactly_these(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1", OTHER: "web2"})
    assert {p.name: p.read_text() for p in layout.protected.iterdir()} == {G: "web1\n", OTHER: "web2\n"}
    gate.protect({OTHER: "renamed"})
    assert {p.name: p.read_text() for p in layout.protected.iterdir()} == {OTHER: "renamed\n"}
    gate.protect({})
    assert list(layout.protected.iterdir()) == []


def test_protect_keeps_a_canary_that_flies(gate: LibvirtGate, layout: Layout) -> None:
    (layout.protected / G).write_text(f"{CANARY}{G}\n")
    gate.protect({OTHER: "web2"})
    assert (layout.protected / G).exists()


def test_protect_adds_before_it_removes(
    gate: LibvirtGate, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.protect({G: "web1"})

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(gate_module, "write_durably", fail)
    with pytest.raises(OSError, match="disk full"):
        gate.protect({OTHER: "web2"})
    assert (layout.protected / G).exists()


def test_write_durably_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = put(tmp_path, "file", "old")

    def fail(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("dr.adapters.libvirt.gate.os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        gate_module.write_durably(target, b"new", mode=0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("kind", sorted(set(TicketKind) - {TicketKind.START, TicketKind.RECEIVE}))
def test_only_what_starts_a_guest_has_permits(gate: LibvirtGate, kind: TicketKind) -> None:
    with pytest.raises(ValueError, match="needs a permit"):
        gate.permit(G, kind, "t-1")


@pytest.mark.parametrize("guest", ["", "../x", G.upper(), f"{G}\n", G.replace("-", "")])
def test_only_a_uuid_becomes_a_file(gate: LibvirtGate, guest: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        gate.protect({guest: "x"})
    with pytest.raises(ValueError, match="UUID"):
        gate.permit(guest, TicketKind.START, "t")
    with pytest.raises(ValueError, match="UUID"):
        gate.revoke(guest)


def test_what_was_altered_is_noticed_and_put_back(gate: LibvirtGate, layout: Layout) -> None:
    gate.protect({G: "web1", OTHER: "web2"})
    guests = (G, OTHER)
    assert gate.altered(guests) == gate.altered(None) == ""
    elsewhere = put(layout.root, "/tmp/true", gate.script())
    elsewhere.chmod(0o755)

    def link() -> None:
        gate.hook.unlink()
        gate.hook.symlink_to(elsewhere)

    for alter, word in (
        (gate.hook.unlink, "removed"),
        (lambda: gate.hook.chmod(0o644), "mode 644"),
        (lambda: put(layout.root, "/etc/libvirt/hooks/qemu.d/50-dr", b"\x7fELF\xff"), "replaced"),
        (link, "replaced"),
        (partial(shutil.rmtree, layout.hooks), "removed"),
        ((layout.protected / G).unlink, "1 of 2 guests"),
        (partial(shutil.rmtree, layout.protected), "list of protected guests"),
    ):
        alter()
        assert word in gate.altered(guests)
        gate.install()
        gate.protect({G: "web1", OTHER: "web2"})
        assert gate.altered(guests) == ""


def test_a_list_that_was_lost_is_never_there_in_part(
    gate: LibvirtGate, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the folder is missing the hook refuses every start; while it is empty it would refuse none."""
    shutil.rmtree(layout.protected)
    write = gate_module.write_durably

    def one_only(path: Path, content: bytes, **options: Any) -> None:
        if path.name == OTHER:
            raise OSError("disk full")
        write(path, content, **options)

    monkeypatch.setattr(gate_module, "write_durably", one_only)
    with pytest.raises(OSError, match="disk full"):
        gate.protect({G: "web1", OTHER: "web2"})
    assert list(layout.protected.parent.iterdir()) == []
