"""Evidence about hosts: looks by witnesses, power readings, proofs of death."""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import BootId, HostName, Record


class Power(StrEnum):
    """What a fence device says of its outlet or chassis."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"  # unreachable, or it contradicted itself


class DeviceReading(Record):
    """One device, read once."""

    device: str
    power: Power
    guid: str = ""  # identity of the BMC at this reading; empty where the device has none
    fingerprint: str = ""
    reason: str = ""


class PowerReport(Record):
    """All devices of one level, read together. After a fence: read again after the last one went off."""

    level: int
    readings: tuple[DeviceReading, ...] = ()
    reason: str = ""


class ProofKind(StrEnum):
    """What may remove a place from `may_run_on`; see docs/one-copy.md."""

    POWER = "power"
    REBOOT = "reboot"
    SELF = "self"
    OPERATOR = "operator"


class Proof(Record):
    """Why a place cannot be running the guest any longer."""

    kind: ProofKind
    host: HostName
    boot_id: BootId
    text: str  # the evidence, in one sentence
    sealed: int | None = None  # self: generations up to this one are refused by the host
    at: float = 0.0
