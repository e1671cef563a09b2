"""CPUs: which ones guests may have on this host, and which ones those that run here have.

libvirt names a CPU by a model and what differs from it. Hosts are compared by features, so each such name is expanded
here, by libvirt itself (`virConnectBaselineHypervisorCPU` of one CPU): its table of models is its own business. No QEMU
is asked: a live definition lists all by which QEMU's CPU differs from its model (check='full'). Seen with libvirt 9.0.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import libvirt

from dr.model.facts import CpuOffer, RunningCpu

OWN = ("host-passthrough", "maximum")  # modes in which no model is named: all that the host, or its QEMU, has
HAS, LACKS = ("require", "optional"), ("disable", "forbid")  # policies; `force` asks no host for anything


class Described(NamedTuple):
    """A CPU in libvirt's words, as far as it counts for another host."""

    domain_type: str
    arch: str
    mode: str
    model: str
    vendor: str
    has: tuple[str, ...]  # besides what its model has
    lacks: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names it for as long as it is the same, on whatever host."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:12]


def of_running(domain: Element) -> Described | None:
    """What a live definition says of the CPU; None where that is not all."""
    cpu, os_type = domain.find("cpu"), domain.find("./os/type")
    if cpu is None:
        return None
    mode = cpu.get("mode", "custom")
    named = mode == "custom" and bool(cpu.findtext("model"))
    if not named and mode not in OWN:
        return None
    arch = os_type.get("arch", "") if os_type is not None else ""
    return _described(domain.get("type", ""), arch, mode, cpu)


def _described(domain_type: str, arch: str, mode: str, cpu: Element) -> Described:
    if mode in OWN:
        return Described(domain_type, arch, mode, "", "", (), ())
    features = [
        (feature.get("policy", "require"), feature.get("name", "")) for feature in cpu.iter("feature")
    ]
    return Described(
        domain_type=domain_type,
        arch=arch,
        mode=mode,
        model=(cpu.findtext("model") or "").strip(),
        vendor=(cpu.findtext("vendor") or "").strip(),
        has=tuple(sorted(name for policy, name in features if policy in HAS)),
        lacks=tuple(sorted(name for policy, name in features if policy in LACKS)),
    )


def running(conn: Any, cpu: Described) -> RunningCpu:
    """With all of its features. Raises libvirt's error."""
    if cpu.mode in OWN:
        return RunningCpu(domain_type=cpu.domain_type, own=True)
    return RunningCpu(domain_type=cpu.domain_type, vendor=cpu.vendor, features=_features(conn, cpu))


def offer(conn: Any, arch: str, domain_type: str) -> CpuOffer:
    """By its domain capabilities; what it does not tell is empty."""
    try:
        caps = conn.getDomainCapabilities(None, arch or None, None, domain_type or None, 0)
    except libvirt.libvirtError:
        return CpuOffer()
    root = ElementTree.fromstring(caps)
    named = root.findall("./cpu/mode[@name='custom']/model")
    models = [str(model.text) for model in named if model.text and model.get("usable") != "no"]
    best = root.find("./cpu/mode[@name='host-model']")
    if best is None or not best.findtext("model"):
        return CpuOffer(models=tuple(sorted(models)))
    cpu = _described(domain_type, arch, "custom", best)
    try:
        features = _features(conn, cpu)
        sizes = {
            model: len(_features(conn, Described(domain_type, arch, "custom", model, "", (), ())))
            for model in models
        }
    except libvirt.libvirtError:  # of this architecture it compares no CPUs
        return CpuOffer(models=tuple(sorted(models)), model=cpu.model, vendor=cpu.vendor)
    richest = sorted(models, key=lambda model: (-sizes[model], model))
    return CpuOffer(models=tuple(richest), model=cpu.model, vendor=cpu.vendor, features=features)


def _features(conn: Any, cpu: Described) -> tuple[str, ...]:
    """All that it has on this host. Raises libvirt's error."""
    root = Element("cpu", mode="custom", match="exact")
    SubElement(root, "model").text = cpu.model
    if cpu.vendor:
        SubElement(root, "vendor").text = cpu.vendor
    for policy, names in (("require", cpu.has), ("disable", cpu.lacks)):
        for name in names:
            SubElement(root, "feature", policy=policy, name=name)
    expanded = conn.baselineHypervisorCPU(
        None,
        cpu.arch or None,
        None,
        cpu.domain_type or None,
        [ElementTree.tostring(root, encoding="unicode")],
        libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
    )
    found = ElementTree.fromstring(expanded).iter("feature")
    return tuple(sorted(str(each.get("name")) for each in found if each.get("policy", "require") in HAS))
