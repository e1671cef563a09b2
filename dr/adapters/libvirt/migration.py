"""libvirt's live migration: how it is asked for, and what a domain is in one.

All functions run on call threads. The flags are the point. PAUSED: the copy waits at its end until it is told to run,
so a Finish whose answer was lost doubles nothing (without it libvirt 9.0 leaves both ends running). Never
UNDEFINE_SOURCE: the definition here is the way back, and a domain that stays defined says afterwards why it is off.
Never UNSAFE: libvirt refuses disks that would not survive a change of hosts. PEER2PEER: the job belongs to libvirtd
and survives the agent.
"""

from __future__ import annotations

import json
import re
from typing import Any

import libvirt
import libvirt_qemu

from dr.adapters.libvirt import libvirt_api as api
from dr.model.base import GuestId
from dr.model.facts import ACTIVE_STATES, LocalDisk, Part, Progress
from dr.model.policy import Sending
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown, Standing

FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    | libvirt.VIR_MIGRATE_PAUSED
)

COPY = re.compile(r"migration-.*-(storage|format)")  # libvirt's names of the nodes that disks are copied to


def send(
    local: str,
    guest: GuestId,
    uri: str,
    sending: Sending,
    *,
    disks: tuple[LocalDisk, ...] = (),
    data_address: str = "",
    tls: bool = False,
) -> str:
    """Migrate it, and return when it has left, with what that took in one sentence.

    Of its disks only those are copied: without a list libvirt would copy shared ones too, onto themselves.
    On a connection of its own: libvirtd serves few calls of one client at once, and this one takes long. Raises
    HypervisorError when libvirt says that it failed, HypervisorUnknown when the end was not seen.
    """
    try:
        conn = libvirt.open(local)
    except libvirt.libvirtError as error:
        raise HypervisorError(f"libvirt could not be asked to migrate it: {api.text(error)}") from error
    try:
        domain = conn.lookupByUUIDString(guest)
        domain.migrateToURI3(uri, _params(sending, disks, data_address), _flags(sending, disks, tls=tls))
        return _took(domain)
    except libvirt.libvirtError as error:
        # An error that libvirtd met on its way to the other host looks like one of our own socket's.
        if api.is_unseen(error) and not conn.isAlive():
            raise HypervisorUnknown(f"the end of its migration was not seen: {api.text(error)}") from error
        raise HypervisorError(f"its migration failed: {api.text(error)}") from error
    finally:
        conn.close()


def _flags(sending: Sending, disks: tuple[LocalDisk, ...], *, tls: bool) -> int:
    flags: int = FLAGS
    if any(
        disk.bases for disk in disks
    ):  # of each the topmost layer; of one that lies on nothing that is all
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC
    elif disks:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if tls:
        flags |= libvirt.VIR_MIGRATE_TLS
    if sending.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if sending.streams > 1:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
    return flags


def _params(
    sending: Sending, disks: tuple[LocalDisk, ...], data_address: str
) -> dict[str, int | str | list[str]]:
    """Only what differs: without a bandwidth libvirt takes the one that the domain was given by hand."""
    params: dict[str, int | str | list[str]] = {}
    if (
        data_address
    ):  # without a port: libvirt over there picks one, and listens there alone, whatever its qemu.conf says
        host = f"[{data_address}]" if ":" in data_address else data_address
        params[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{host}"
        params[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = data_address
    if disks:
        params[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [disk.target for disk in disks]
    if sending.mib_s:
        params[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = sending.mib_s
    if sending.streams > 1:
        params[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = sending.streams
    return params


def _took(domain: Any) -> str:
    """The figures of the job that has ended; empty where libvirt keeps none."""
    try:
        job = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError:
        return ""
    sent_mib = job.get("data_processed", 0) / 2**20
    elapsed_s = job.get("time_elapsed", 0) / 1000
    return (
        f"{sent_mib:.0f} MiB sent in {elapsed_s:.1f} s; QEMU counts {job.get('downtime', 0)} ms of downtime"
    )


def progress(conn: Any, guest: GuestId) -> Progress | None:
    """Of its outgoing migration. Raises libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        job = domain.jobStats() if domain.isActive() else {}
    except libvirt.libvirtError as error:
        if api.is_missing(error) or api.code(error) in (
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,  # it arrives here
            libvirt.VIR_ERR_OPERATION_INVALID,  # it ended meanwhile
        ):
            return None
        raise
    if not _leaves(job):
        return None
    mib = 2**20
    return Progress(
        guest=guest,
        elapsed_s=job.get("time_elapsed", 0) / 1000,
        total_mib=job.get("data_total", 0) / mib,
        remaining_mib=job.get("data_remaining", 0) / mib,
        rate_mib_s=(job.get("memory_bps", 0) + job.get("disk_bps", 0)) / mib,
        dirty_mib_s=job.get("memory_dirty_rate", 0) * job.get("memory_page_size", 4096) / mib,
        passes=(passes := max(1, job.get("memory_iteration", 1))),
        standstill_s=job.get("downtime", 0) / 1000 if passes > 1 else 0.0,
        throttle_pct=job.get("auto_converge_throttle", 0),
    )


def allow_downtime(conn: Any, guest: GuestId, downtime_s: float) -> None:
    """Of its outgoing migration's switch-over. Raises HypervisorError when there is none, libvirt's error."""
    _require_leaving(conn, guest).migrateSetMaxDowntime(round(downtime_s * 1000))


def cut(conn: Any, guest: GuestId) -> int:
    """Break the connections that its disks are copied over, so that its outgoing migration fails.

    Returns how long that was under way, ms, which tells it from a later one; 0 where no disks are copied. Where the
    other host is silent, libvirt's own abort would have QEMU 7.2 wait for its answer, and the guest stands still with
    it until TCP gives up, a quarter of an hour; QEMU's `yank` is for that. Raises HypervisorError when there is no
    migration, libvirt's error.
    """
    domain = _require_leaving(conn, guest)
    job = domain.jobStats()
    if not job.get(
        "disk_total"
    ):  # QEMU's monitor is asked round libvirt only where it must: that taints the guest
        return 0
    told = json.loads(libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-yank"}', 0))
    copies = [each for each in told.get("return", ()) if COPY.fullmatch(str(each.get("node-name", "")))]
    if not copies:
        return 0
    command = {"execute": "yank", "arguments": {"instances": copies}}
    libvirt_qemu.qemuMonitorCommand(domain, json.dumps(command), 0)
    return max(1, int(job.get("time_elapsed", 0)))


def abort(conn: Any, guest: GuestId, least_ms: int = 0) -> None:
    """Ask its outgoing migration to end, if that is under way for so long already.

    Raises HypervisorError when there is none, libvirt's error.
    """
    domain = _require_leaving(conn, guest)
    if domain.jobStats().get("time_elapsed", 0) < least_ms:
        raise HypervisorError("no migration of it is under way here but a later one")
    domain.abortJob()


def _require_leaving(conn: Any, guest: GuestId) -> Any:
    """The domain that an outgoing migration sends."""
    if standing(conn, guest).part is not Part.LEAVING:
        raise HypervisorError("no migration of it is under way here")
    return conn.lookupByUUIDString(guest)


def standing(conn: Any, guest: GuestId) -> Standing:
    """State and part; the state is not older than the part. Raises libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        part = _part(domain)
        number, reason = domain.state()
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return Standing()
        raise
    state = api.state_name(number)
    active = state in ACTIVE_STATES
    return Standing(state=state, reason=api.reason_name(state, reason), part=part if active else Part.NONE)


def _part(domain: Any) -> Part:
    """libvirt tells a job's figures at the source only, and refuses them with an error of its own at the other end."""
    if not domain.isActive():
        return Part.NONE
    try:
        job = domain.jobStats()
    except libvirt.libvirtError as error:
        if api.code(error) == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return Part.ARRIVING
        if api.code(error) == libvirt.VIR_ERR_OPERATION_INVALID and not domain.isActive():
            return Part.NONE  # it ended meanwhile
        raise
    return Part.LEAVING if _leaves(job) else Part.NONE


def _leaves(job: dict[str, Any]) -> bool:
    """Whether these are the figures of a migration that goes out now."""
    return job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT and bool(job.get("type"))
