"""CPUs of guests and hosts, from what libvirt 9.0 with QEMU 7.2 said on a host of the lab (`recorded/cpus.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import libvirt
import pytest

from dr.adapters.libvirt import cpus, running
from dr.adapters.libvirt.cpus import Described
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import CpuOffer, RunningCpu
from tests.adapters.libvirt.conftest import put

RECORDED = json.loads((Path(__file__).parent / "recorded/cpus.json").read_text())


class Recorded:
    """libvirt's answers. Without `compares` it is one that can compare no CPUs."""

    def __init__(self, *, compares: bool = True, tells: bool = True) -> None:
        self.compares = compares
        self.tells = tells

    def getDomainCapabilities(self, *asked: Any) -> str:
        if not self.tells:
            raise libvirt.libvirtError("no capabilities")
        return cast(str, RECORDED["domain capabilities"][asked[3]])

    def baselineHypervisorCPU(self, *asked: Any) -> str:
        if not self.compares:
            raise libvirt.libvirtError("this function is not supported by the connection driver")
        _, arch, _, kind, (cpu,), flags = asked
        assert (arch, flags) == ("x86_64", libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
        return cast(str, RECORDED["baseline"][kind][cpu])


def described(name: str, tmp_path: Path) -> Described:
    cpu = running.read(put(tmp_path, "g.xml", RECORDED["status"][name])).cpu
    assert cpu is not None
    return cpu


def test_emulation_and_kvm_offer_different_cpus() -> None:
    kvm, tcg = (cpus.offer(Recorded(), "x86_64", kind) for kind in ("kvm", "qemu"))
    assert (kvm.model, kvm.vendor, tcg.model, tcg.vendor) == ("kvm64", "AMD", "EPYC", "AMD")
    assert tcg.models[:3] == ("Westmere", "Nehalem", "Opteron_G2"), "the one with the most features first"
    assert "Westmere" not in kvm.models, "what only emulation has is not offered to KVM guests"
    assert "EPYC" not in tcg.models, "it lacks something of it"
    assert {"avx2", "sse4.2"} <= set(tcg.features)
    assert "sha-ni" not in tcg.features, "disabled in its host-model"
    assert {"umip", "x2apic"} <= set(kvm.features)
    assert "pni" not in kvm.features


def test_a_host_that_cannot_tell_offers_nothing_it_is_not_sure_of() -> None:
    assert cpus.offer(Recorded(tells=False), "x86_64", "kvm") == CpuOffer()
    offer = cpus.offer(Recorded(compares=False), "x86_64", "kvm")
    assert (offer.features, offer.vendor) == ((), "AMD")
    assert offer.models == ("486", "pentium", "pentium2", "pentium3")


@pytest.mark.parametrize(
    ("name", "has", "lacks", "vendor"),
    [
        ("none", {"hypervisor", "lahf_lm", "svm", "pni"}, {"sse4.1"}, ""),
        ("host-model", {"avx2", "la57", "sse4.2"}, {"sha-ni", "vme"}, "AMD"),
        ("nehalem", {"aes", "sse4.1"}, {"sse4.2", "avx"}, ""),
    ],
)
def test_a_running_guest_has_what_its_live_definition_says_in_full(
    name: str, has: set[str], lacks: set[str], vendor: str, tmp_path: Path
) -> None:
    cpu = cpus.running(Recorded(), described(name, tmp_path))
    assert (cpu.domain_type, cpu.own, cpu.vendor) == ("qemu", False, vendor)
    assert has <= set(cpu.features)
    assert not lacks & set(cpu.features)


def test_a_guest_offers_no_more_than_its_host(tmp_path: Path) -> None:
    """Started with host-model it has all that the host offers, and nothing else: of the same kind, it always fits."""
    cpu = cpus.running(Recorded(), described("host-model", tmp_path))
    assert set(cpu.features) <= set(cpus.offer(Recorded(), "x86_64", "qemu").features)


def test_the_hosts_own_cpu_is_asked_of_nobody(tmp_path: Path) -> None:
    cpu = described("maximum", tmp_path)
    assert cpus.running(Recorded(compares=False), cpu) == RunningCpu(domain_type="qemu", own=True)


def test_a_key_names_a_cpu_and_nothing_beside_it(tmp_path: Path) -> None:
    names = ("none", "host-model", "maximum", "nehalem")
    keys = {described(name, tmp_path).key for name in names}
    assert len(keys) == len(names)
    other = RECORDED["status"]["nehalem"].replace("</cpu>", "<topology sockets='1' cores='4'/></cpu>")
    assert running.read(put(tmp_path, "o.xml", other)).cpu == described("nehalem", tmp_path)
    kvm = RECORDED["status"]["nehalem"].replace('type="qemu"', 'type="kvm"')
    assert running.read(put(tmp_path, "k.xml", kvm)).cpu != described("nehalem", tmp_path)


@pytest.mark.parametrize("cpu", ["", "<cpu><topology sockets='1'/></cpu>", "<cpu mode='host-model'/>"])
def test_what_is_not_said_in_full_is_not_told(cpu: str) -> None:
    domain = ElementTree.fromstring(f"<domain type='kvm'>{cpu}</domain>")
    assert cpus.of_running(domain) is None


def test_what_is_forced_is_asked_of_no_host() -> None:
    cpu = "<cpu><model>M</model><feature policy='force' name='a'/><feature policy='forbid' name='b'/></cpu>"
    found = cpus.of_running(ElementTree.fromstring(f"<domain type='kvm'>{cpu}</domain>"))
    assert found is not None
    assert (found.has, found.lacks) == ((), ("b",))


async def test_facts_and_inventory_tell_it_by_one_name(mock: LibvirtHypervisor, layout: Layout) -> None:
    """The mock driver compares no CPUs: one that would have to be expanded is left out, the host's own is not."""
    path = "/run/libvirt/qemu/test.xml"
    put(layout.root, path, RECORDED["status"]["maximum"])
    (guest,) = await mock.guests()
    assert (await mock.facts()).running_cpus == {guest.cpu: RunningCpu(domain_type="qemu", own=True)}
    put(layout.root, path, RECORDED["status"]["nehalem"])
    (after,) = await mock.guests()
    assert after.cpu
    assert after.cpu != guest.cpu
    assert (await mock.facts()).running_cpus == {}
    (layout.root / path.lstrip("/")).unlink()
    assert (await mock.guests())[0].cpu == ""
