"""Starting and stopping a guest. What is sure is told apart from what is not: only libvirt's own no is a no.

All functions run on call threads.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.libvirt import archive
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.digest import digest, nvram_path, read_nvram
from dr.adapters.libvirt.gate import write_durably
from dr.adapters.libvirt.guests import XML_FLAGS
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.facts import Definition
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown

log = logging.getLogger(__name__)


def start(conn: Any, layout: Layout, definition: Definition) -> None:
    """Define and start from cold.

    Raises HypervisorError before anything could have started, libvirt's error from the start itself (the caller looks
    whether it runs), HypervisorUnknown when it ran already.
    """
    _check_xml(definition)
    before = _defined(conn, definition)
    if before is not None and before.isActive():
        raise HypervisorUnknown(f"{definition.name} was running here before it was started")
    try:
        _put_nvram(conn, layout, definition, before)
        domain = conn.defineXML(definition.xml)
        _drop_saved_image(domain, definition.name)
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise
        raise HypervisorError(f"{definition.name} could not be defined here: {api.text(error)}") from error
    except OSError as error:
        raise HypervisorError(f"{definition.name}'s NVRAM could not be written here: {error}") from error
    try:
        domain.createWithFlags(0 if conn.getType() == "TEST" else libvirt.VIR_DOMAIN_START_FORCE_BOOT)
    except libvirt.libvirtError as error:
        if before is None and not api.is_unseen(error):
            _take_back(conn, layout, domain, definition)
        raise


def _check_xml(definition: Definition) -> None:
    """The XML must be this guest's: the permit is for its UUID."""
    try:
        root = ElementTree.fromstring(definition.xml)
    except ElementTree.ParseError as error:
        raise HypervisorError(f"the stored definition of {definition.name} is not XML: {error}") from error
    if (root.findtext("uuid") or "").strip().lower() != definition.id:
        raise HypervisorError(
            f"the stored definition of {definition.name} is of another guest: {root.findtext('uuid')}"
        )


def _defined(conn: Any, definition: Definition) -> Any:
    """The domain as it is defined here, None if it is not. Raises HypervisorError when its name is taken."""
    try:
        other = conn.lookupByName(definition.name)
        if str(other.UUIDString()) != definition.id:
            raise HypervisorError(
                f"another guest here has the name {definition.name} (UUID {other.UUIDString()}): "
                f"rename it with `virsh domrename` on this host"
            )
        return other
    except libvirt.libvirtError as error:
        if not api.is_missing(error):
            raise
    try:
        return conn.lookupByUUIDString(definition.id)
    except libvirt.libvirtError as error:
        if not api.is_missing(error):
            raise
    return None


def _put_nvram(conn: Any, layout: Layout, definition: Definition, before: Any) -> None:
    """Archive what is about to be replaced, then write the NVRAM. Raises OSError, HypervisorError."""
    path = nvram_path(ElementTree.fromstring(definition.xml))
    if before is not None:
        xml = str(before.XMLDesc(XML_FLAGS))
        old = read_nvram(layout, nvram_path(ElementTree.fromstring(xml))) or b""
        if digest(xml, old) != digest(definition.xml, definition.nvram or old) and conn.getType() != "TEST":
            archive.keep(
                layout,
                definition.id,
                str(before.name()),
                xml,
                "replaced by the definition that dr was told to start",
            )
    if definition.nvram and path:
        target: Path = layout.at(path)
        target.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_durably(target, definition.nvram, mode=0o600)  # libvirt gives it to QEMU's user at the start


def _drop_saved_image(domain: Any, name: str) -> None:
    """Its memory is older than the disks."""
    try:
        if domain.hasManagedSaveImage():
            log.warning("%s: its saved image is removed, for its memory is older than its disks", name)
            domain.managedSaveRemove()
    except libvirt.libvirtError as error:
        if api.code(error) != libvirt.VIR_ERR_NO_SUPPORT:
            raise


def _take_back(conn: Any, layout: Layout, domain: Any, definition: Definition) -> None:
    """The start failed: leave no definition that was not here before."""
    try:
        if not domain.isActive():
            archive.undefine(conn, layout, domain, definition.xml)
    except (libvirt.libvirtError, OSError) as error:
        log.warning("%s did not start and could not be undefined again: %s", definition.name, error)


def destroy(conn: Any, guest: GuestId) -> None:
    """End its QEMU. Harmless when it does not run. Raises libvirt's error."""
    domain = _lookup(conn, guest)
    if domain is None:
        return
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if not api.is_missing(error) and api.code(error) != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def ask_shutdown(conn: Any, guest: GuestId) -> None:
    """Ask the guest to shut down (guest agent or power button). Raises libvirt's error, not when it is off already."""
    domain = _lookup(conn, guest)
    if domain is None:
        return
    try:
        domain.shutdown()
    except libvirt.libvirtError as error:
        if not api.is_missing(error) and domain.isActive():
            raise


def is_active(conn: Any, guest: GuestId) -> bool:
    """Raises libvirt's error."""
    domain = _lookup(conn, guest)
    try:
        return domain is not None and bool(domain.isActive())
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return False
        raise


def _lookup(conn: Any, guest: GuestId) -> Any:
    try:
        return conn.lookupByUUIDString(guest)
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return None
        raise
