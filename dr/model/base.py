"""The base of every noun: a frozen, typed, serialisable record.

Unknown fields are ignored when decoding, so a record or a message one version newer can still be read;
a field added after the first release therefore needs a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, dataclass_transform

import msgspec

# Plain aliases: they say which name is meant where, and cost nothing.
HostName = str
GuestId = str  # libvirt domain UUID, lower case with dashes
BootId = str  # /proc/sys/kernel/random/boot_id of one boot of one host


if TYPE_CHECKING:
    # What a type checker may know of the metaclass below: every field is keyword-only, every record is frozen.
    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
    class Record:
        """A frozen value; `changed` makes the altered copy."""

        def __init_subclass__(cls, *, tag: str = "") -> None: ...

else:

    class _RecordMeta(type(msgspec.Struct)):
        """Makes every subclass frozen and keyword-only: msgspec does not inherit `kw_only`."""

        def __new__(mcs, name, bases, namespace, **options):
            options = {"frozen": True, "kw_only": True, "omit_defaults": True} | options
            return super().__new__(mcs, name, bases, namespace, **options)

    class Record(msgspec.Struct, metaclass=_RecordMeta):
        """A frozen value; `changed` makes the altered copy."""


R = TypeVar("R", bound=Record)


def changed(record: R, **fields: object) -> R:
    """A copy of `record` with `fields` replaced. Raises TypeError for a field that it does not have."""
    return msgspec.structs.replace(record, **fields)  # type: ignore[type-var]  # a Struct, see above
