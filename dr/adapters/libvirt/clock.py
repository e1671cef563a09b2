"""The clock inside a guest, set through the QEMU guest agent in it.

A guest that was moved live stood still for a moment, and its own clock with it; its RTC follows its new host. Runs on
call threads, on a connection of its own: libvirtd serves few calls of one client at once, and a guest may leave this
one unanswered for ever.
"""

from __future__ import annotations

from xml.etree import ElementTree

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.model.base import GuestId
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown

AGENT = "./devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']"


def set_clock(local: str, guest: GuestId) -> bool:
    """By its RTC; False: no agent is connected. Raises HypervisorError, HypervisorUnknown."""
    try:
        conn = libvirt.open(local)
    except libvirt.libvirtError as error:
        raise HypervisorUnknown(f"libvirt could not be asked: {api.text(error)}") from error
    try:
        domain = conn.lookupByUUIDString(guest)
        if ElementTree.fromstring(domain.XMLDesc(0)).find(AGENT) is None:
            return False
        domain.setTime(flags=libvirt.VIR_DOMAIN_TIME_SYNC)
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise HypervisorUnknown(f"whether its clock was set was not seen: {api.text(error)}") from error
        raise HypervisorError(f"its clock was not set: {api.text(error)}") from error
    finally:
        conn.close()
    return True
