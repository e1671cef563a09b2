"""Proving the permit hook: a domain without a permit is asked to start, and must be refused in our own words.

That the script lies in its place proves nothing: libvirtd looks for hooks only when it starts.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.gate import CANARY, MARKER, RESTART, is_guest, write_durably
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import HookState

log = logging.getLogger(__name__)

PREFIX = "dr-canary-"

XML = """<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{guest}</uuid>
  <memory unit='MiB'>1</memory>
  <vcpu>1</vcpu>
  <os><type arch='{arch}'>hvm</type></os>
  <devices><controller type='usb' model='none'/><memballoon model='none'/></devices>
</domain>"""


def is_canary(name: str) -> bool:
    return name.startswith(PREFIX)


def prove(conn: Any, layout: Layout, kind: str, arch: str) -> HookState:
    """Ask libvirt to start the canary, paused and tied to this connection. Raises libvirt's error if its end is unseen.

    If it does start it is destroyed at once; its CPUs never ran.
    """
    guest = str(uuid.uuid4())
    mine = layout.protected / guest
    if not layout.protected.is_dir():
        return HookState(proven=False, reason="the agent has not written the list of protected guests yet")
    _sweep(layout)
    try:
        write_durably(mine, f"{CANARY}{guest}\n".encode(), mode=0o600)
    except OSError as error:
        return HookState(proven=False, reason=f"{layout.protected} cannot be written: {error.strerror}")
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    if conn.getType() == "TEST":
        flags = 0
    try:
        domain = conn.createXML(
            XML.format(kind=kind, name=f"{PREFIX}{guest[:8]}", guest=guest, arch=arch), flags
        )
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise
        return _judge(str(error))
    finally:
        mine.unlink(missing_ok=True)
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        log.warning("the canary started and could not be destroyed: %s", api.text(error))
    return HookState(
        proven=False,
        reason=f"libvirt started a protected guest without a permit: it has not loaded the hook, {RESTART}",
    )


def _judge(said: str) -> HookState:
    if MARKER in said:
        return HookState(proven=True)
    return HookState(
        proven=False,
        reason=f"the canary was refused, but not by the permit hook; libvirt said: {said.splitlines()[0]}",
    )


def _sweep(layout: Layout) -> None:
    """Files of canaries whose agent died in the middle."""
    for path in layout.protected.iterdir():
        try:
            if is_guest(path.name) and path.read_text(encoding="utf-8").startswith(CANARY):
                path.unlink(missing_ok=True)
        except OSError:
            continue
