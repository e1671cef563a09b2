"""How what belongs to a drill is named, so that it is known again without any record: ids of clones, names, taps.

A clone's UUID is one of version 8, which libvirt never makes, and begins with MARK: whoever sees it knows what it is,
and of which drill. Not here: folders and files (`folder`).
"""

from __future__ import annotations

import hashlib
import re
import uuid

from dr.adapters.libvirt.gate import is_guest
from dr.model.base import GuestId
from dr.ports.clones import CloneError

MARK = "dc10ed00"
DRILL = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
NAME_CHARS_MAX = 80  # of a domain's: libvirt makes names of files and sockets of it
_CLONE = re.compile(rf"{MARK}-[0-9a-f]{{4}}-8[0-9a-f]{{3}}-8[0-9a-f]{{3}}-[0-9a-f]{{12}}")


def require_drill(drill: str) -> str:
    """A drill's id that is safe in names of files and devices. Raises CloneError."""
    if DRILL.fullmatch(drill) is None:
        raise CloneError(f"{drill[:80]!r} is no id of a drill")
    return drill


def require_guest(guest: GuestId) -> GuestId:
    """Raises CloneError for what is no UUID, and for a clone itself."""
    if not is_guest(guest) or is_clone(guest):
        raise CloneError(f"{guest[:80]!r} is no guest that can be cloned")
    return guest


def clone_id(drill: str, guest: GuestId) -> GuestId:
    """The same for the same drill and guest."""
    of_guest = uuid.uuid5(uuid.NAMESPACE_OID, f"{drill}/{guest}").hex
    return f"{of_drill(drill)}-{of_guest[:12]}"


def of_drill(drill: str) -> str:
    """How the ids of all clones of a drill begin."""
    digest = _digest(drill)
    return f"{MARK}-{digest[:4]}-8{digest[4:7]}-8{digest[7:10]}"


def is_clone(guest: GuestId) -> bool:
    """Whether that is the id of a clone, of whatever drill."""
    return _CLONE.fullmatch(guest) is not None


def domain_name(drill: str, name: str) -> str:
    """A clone's name in libvirt."""
    return f"{drill}-{name}"[:NAME_CHARS_MAX]


def tap_name(clone: GuestId, number: int) -> str:
    """The host's end of a clone's network card: 15 characters at most, and none that libvirt makes up itself."""
    return f"drt{_digest(clone)[:9]}.{number}"


def bridge_name(drill: str) -> str:
    """A drill's bridge, in its own network namespace."""
    return f"drb{_digest(drill)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
