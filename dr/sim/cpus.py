"""CPUs of simulated hosts: what libvirt there lets guests have. Guests run with all of it (host-model)."""

from __future__ import annotations

from typing import Literal

from dr.model.facts import CpuOffer, RunningCpu

CpuKind = Literal["newer", "older", "other"]

OLDER = ("aes", "sse4.2")
NEWER = ("aes", "avx2", "avx512f", "sse4.2")
CPUS: dict[str, CpuOffer] = {
    "newer": CpuOffer(
        models=("Skylake-Server", "Nehalem"), model="Skylake-Server", vendor="Intel", features=NEWER
    ),
    "older": CpuOffer(models=("Nehalem",), model="Nehalem", vendor="Intel", features=OLDER),
    "other": CpuOffer(models=("EPYC", "Nehalem"), model="EPYC", vendor="AMD", features=NEWER),
}
RUNNING = {
    kind: RunningCpu(domain_type="kvm", vendor=offer.vendor, features=offer.features)
    for kind, offer in CPUS.items()
}


def refusal(kind: str, host: str) -> str:
    """What libvirt on a host with that CPU says of an incoming guest that runs with another; "" = it lets it in."""
    guest, offer = RUNNING[kind], CPUS[host]
    missing = [feature for feature in guest.features if feature not in offer.features]
    if guest.vendor != offer.vendor:
        return "the CPU is incompatible with host CPU: Host CPU vendor does not match required CPU vendor"
    if missing:
        return f"guest CPU doesn't match specification: missing features: {','.join(missing)}"
    return ""
