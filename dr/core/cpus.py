"""Whether the CPU that a guest runs with can be had on another host, by what agents report of hosts and guests anyway.

A CPU fits where each feature that it has is offered, and the vendor is the same. Compared is only what the host that it
runs on names among its own offers: that list and the one over there are made the same way, so a host of the same kind
is never refused, and what libvirt names of running guests alone counts for nothing. Names of features differ between
libvirt's versions: then what seems to be missing is doubted, not refused. Here: one guest on one host, and which hosts
of all do. Not here: what a definition asks for at a cold start (`placement`).
"""

from __future__ import annotations

from dr.core.state import Draft, State
from dr.core.whereabouts import sole_holder
from dr.model.base import HostName, changed
from dr.model.facts import CpuOffer, HostFacts, RunningCpu
from dr.model.preflight import Check, CheckName, Verdict
from dr.model.records import GuestRecord, HostRecord

NAMED_MAX = 6  # features that a sentence names; the others are counted
INTERNED_MAX = 10_000
NO_OFFER = CpuOffer()


def interned(state: State, facts: HostFacts) -> HostFacts:
    """With CPUs that other hosts report too as the same objects: many hosts and guests have few kinds."""
    known: dict[CpuOffer | RunningCpu, CpuOffer | RunningCpu] = state.memo.setdefault("cpus", {})
    if len(known) > INTERNED_MAX:
        known.clear()
    offers = {kind: known.setdefault(offer, offer) for kind, offer in facts.cpu_offers.items()}
    running = {key: known.setdefault(cpu, cpu) for key, cpu in facts.running_cpus.items()}
    return changed(facts, cpu_offers=offers, running_cpus=running)


def check(draft: Draft, guest: GuestRecord, to: HostRecord) -> Check | None:
    """What stands against that host, or is to be said of it; None where its CPU is sure to do."""
    source = draft.host(sole_holder(draft, guest))
    if source is None:
        return _said(
            Verdict.UNKNOWN, f"which CPU {guest.name} runs with is not known, as nobody says where it runs"
        )
    if source.name == to.name:
        return None
    cpu = _running(draft, guest, source)
    if cpu is None:
        return _said(
            Verdict.UNKNOWN, f"{source.name} cannot tell which CPU {guest.name} runs with; {_looks(to)}"
        )
    return _compared(guest.name, cpu, source, to)


def _running(draft: Draft, guest: GuestRecord, source: HostRecord) -> RunningCpu | None:
    seen = draft.view(source.name).guests.get(guest.id)
    return source.facts.running_cpus.get(seen.cpu) if seen is not None else None


def _offer(host: HostRecord, cpu: RunningCpu) -> CpuOffer:
    return host.facts.cpu_offers.get(cpu.domain_type, NO_OFFER)


def _compared(name: str, cpu: RunningCpu, source: HostRecord, to: HostRecord) -> Check | None:
    here, there = _offer(source, cpu), _offer(to, cpu)
    for host, offer in ((source, here), (to, there)):
        if not offer.features:
            text = f"{host.name} cannot tell which CPUs its {cpu.domain_type} guests may have; {_looks(to)}"
            return _said(Verdict.UNKNOWN, text)
    vendor = here.vendor if cpu.own else cpu.vendor
    if vendor and there.vendor and vendor != there.vendor:
        text = f"{name} runs with a CPU of {vendor}, and that of {to.name} is of {there.vendor}"
        return _said(Verdict.BLOCKED, text, _fix(name, here, there))
    has = set(here.features)
    missing = sorted((has if cpu.own else has.intersection(cpu.features)).difference(there.features))
    if missing:
        return _missing(name, missing, source, to, _fix(name, here, there))
    if cpu.own and here != there:
        text = (
            f"{name} runs with the very CPU of {source.name} (host-passthrough), and that of {to.name} is not quite"
            " the same: few guests bear that"
        )
        return _said(Verdict.WARNING, text, _fix(name, here, there))
    if here.vendor != there.vendor:
        text = f"the CPU of {source.name} is of {here.vendor}, that of {to.name} of {there.vendor}"
        text += ": few guests bear that"
        return _said(Verdict.WARNING, text, _fix(name, here, there))
    return None


def _missing(name: str, missing: list[str], source: HostRecord, to: HostRecord, fix: str) -> Check:
    more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
    text = (
        f"{to.name} does not offer CPU features that {name} runs with: {', '.join(missing[:NAMED_MAX])}{more}"
    )
    ours, theirs = source.facts.libvirt_version, to.facts.libvirt_version
    if ours == theirs:
        return _said(Verdict.BLOCKED, text, fix)
    text += f"; libvirt is {theirs} there, {ours} on {source.name}, so it may only not know their names"
    return _said(Verdict.UNKNOWN, text, fix)


def _said(verdict: Verdict, text: str, fix: str = "") -> Check:
    return Check(name=CheckName.CPU, verdict=verdict, text=text, fix=fix)


def _looks(to: HostRecord) -> str:
    return f"libvirt on {to.name} looks before it lets it in"


def _fix(name: str, here: CpuOffer, there: CpuOffer) -> str:
    """A model with which it could go to either of both, when it is started with it."""
    model = next((each for each in here.models if each in there.models), "")
    if not model:
        return "another host"
    cpu = f"<cpu mode='custom'><model>{model}</model></cpu>"
    return f"another host, or {cpu} in the definition of {name}, which counts from its next start on"


# ---- all hosts


def unfit(draft: Draft, guest: GuestRecord) -> tuple[frozenset[HostName], frozenset[HostName]]:
    """Hosts that cannot take it live for their CPU, and hosts of which that is not sure."""
    source = draft.host(sole_holder(draft, guest))
    cpu = _running(draft, guest, source) if source is not None else None
    if source is None or cpu is None:
        return frozenset(), frozenset()
    known: dict[tuple[RunningCpu, HostName], tuple[frozenset[HostName], frozenset[HostName]]]
    known = draft.memo.setdefault("cpus", {})
    if (cpu, source.name) not in known:
        verdicts: dict[tuple[CpuOffer, str], Verdict] = {}  # few kinds of hosts
        found: dict[Verdict, set[HostName]] = {verdict: set() for verdict in Verdict}
        for host in draft.hosts():
            kind = _offer(host, cpu), host.facts.libvirt_version
            if kind not in verdicts:
                said = _compared(guest.name, cpu, source, host)
                verdicts[kind] = said.verdict if said is not None else Verdict.OK
            found[verdicts[kind]].add(host.name)
        doubtful = frozenset(found[Verdict.WARNING] | found[Verdict.UNKNOWN])
        known[cpu, source.name] = frozenset(found[Verdict.BLOCKED]), doubtful
    return known[cpu, source.name]
