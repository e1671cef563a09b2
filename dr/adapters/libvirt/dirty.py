"""How fast a guest makes memory dirty, measured while it goes on.

Page sampling only: QEMU remembers checksums of 512 pages of each GiB, and compares them after the interval. It takes a
thread of QEMU's some milliseconds at either end, and no lock of libvirt's in between. Never by dirty bitmap nor dirty
ring, which disturb the guest; under TCG the first has killed it (QEMU 7.2).

Runs on call threads, on a connection of its own, as it takes seconds. In a migration libvirt would wait for the job's
end with its answer: it is looked first whether there is one, and the figures are read without waiting.
"""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt import migration
from dr.model.base import GuestId
from dr.model.facts import DirtyPoint, Part
from dr.ports.hypervisor import HypervisorUnknown

# A short one shows how fast it writes, longer ones how much of its memory that is, which is what passes over a slow
# link find. Longer still would tell small guests too coarsely, as QEMU tells whole MiB/s. Of several of one length the
# mean counts: of a small guest few pages are looked at, each time others.
INTERVALS_S = (1, 1, 1, 1, 4, 4, 4, 16)
CUT_OFF = 0.5  # MiB/s, on average, of a rate that is told rounded down
LATE_S = 2.0  # after an interval QEMU has so long to compare
POLL_S = 0.2
MEASURED_BY = "page-sampling"
NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def sample(local: str, guest: GuestId) -> tuple[DirtyPoint, ...]:
    """Empty: not to be told now. Raises HypervisorUnknown."""
    try:
        conn = libvirt.open(local)
    except libvirt.libvirtError as error:
        raise HypervisorUnknown(f"libvirt could not be asked: {api.text(error)}") from error
    try:
        found: dict[int, list[float]] = {}
        for interval_s in INTERVALS_S:
            mib = _measure(conn, guest, interval_s)
            if mib is None:
                return ()
            found.setdefault(interval_s, []).append(mib)
        return tuple(DirtyPoint(interval_s=each, mib=fmean(mibs)) for each, mibs in found.items())
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise HypervisorUnknown(f"libvirt did not tell: {api.text(error)}") from error
        return ()  # gone, stopped, in a migration, or measured by somebody else
    finally:
        conn.close()


def _measure(conn: Any, guest: GuestId, interval_s: int) -> float | None:
    """MiB that it wrote to within so long; None: not to be told now."""
    now = migration.standing(conn, guest)
    if not now.runs or now.part is not Part.NONE:
        return None
    domain = conn.lookupByUUIDString(guest)
    domain.startDirtyRateCalc(interval_s, libvirt.VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING)
    time.sleep(interval_s)
    until = time.monotonic() + LATE_S
    while True:
        found = _told(conn, domain, interval_s)
        if found is not None or time.monotonic() > until:
            return found
        time.sleep(POLL_S)


def _told(conn: Any, domain: Any, interval_s: int) -> float | None:
    """None: not yet, or this is not what was asked for."""
    told = conn.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE, NOWAIT)
    stats = {key.removeprefix("dirtyrate."): value for _, each in told for key, value in each.items()}
    ours = stats.get("calc_period") == interval_s and stats.get("calc_mode", MEASURED_BY) == MEASURED_BY
    if not ours or stats.get("calc_status") != libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
        return None
    rate = int(stats.get("megabytes_per_second", 0))
    return (rate + CUT_OFF) * interval_s if rate else 0.0
