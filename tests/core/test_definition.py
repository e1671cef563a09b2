"""What a definition asks of a host, from several kinds of XML."""

import pytest

from dr.core.definition import needs_of
from dr.model.facts import Definition, Needs

FULL = """
<domain type='kvm'>
  <name>db1</name>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'><model fallback='forbid'>Skylake-Server</model></cpu>
  <devices>
    <interface type='bridge'><source bridge='br0'/></interface>
    <interface type='network'><source network='prod'/></interface>
    <interface type='bridge'><source bridge='br0'/></interface>
    <interface type='user'/>
  </devices>
</domain>"""


def definition(xml: str, **fields: object) -> Definition:
    return Definition(id="i", name="n", xml=xml, digest="d", **fields)  # type: ignore[arg-type]


def test_a_full_definition() -> None:
    needs, blockers = needs_of(
        definition(FULL, storage=("nbd:b", "nbd:a", "nbd:a"), blockers=("It is local.",))
    )
    assert needs == Needs(
        arch="x86_64",
        domain_type="kvm",
        machine="pc-q35-7.2",
        memory_mib=2048,
        vcpus=4,
        cpu_model="Skylake-Server",
        networks=("bridge:br0", "network:prod"),
        storage=("nbd:a", "nbd:b"),
    )
    assert blockers == ("It is local.",)


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='KiB'>1</memory>", 1),
        ("<memory unit='MiB'>300</memory>", 300),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='GB'>2</memory>", 1908),
        ("<memory unit='b'>1073741824</memory>", 1024),
        ("", 0),
    ],
)
def test_units_of_memory(memory: str, mib: int) -> None:
    needs, _ = needs_of(definition(f"<domain type='qemu'>{memory}</domain>"))
    assert abs(needs.memory_mib - mib) <= 1
    assert needs.domain_type == "qemu"


@pytest.mark.parametrize(
    ("cpu", "model"),
    [
        ("", ""),
        ("<cpu mode='host-passthrough'/>", ""),
        ("<cpu mode='host-model'><model>Skylake</model></cpu>", ""),
        ("<cpu><model>Westmere</model></cpu>", "Westmere"),
        ("<cpu mode='custom' check='none'><model>qemu64</model></cpu>", ""),
        ("<cpu><model>Haswell</model><feature policy='disable' name='hle'/></cpu>", ""),
        ("<cpu><model>Haswell</model><feature policy='require' name='pcid'/></cpu>", "Haswell"),
    ],
)
def test_only_a_custom_cpu_that_is_checked_asks_for_a_model(cpu: str, model: str) -> None:
    needs, _ = needs_of(definition(f"<domain type='kvm'>{cpu}</domain>"))
    assert needs.cpu_model == model


def test_unreadable_xml_is_a_blocker_not_an_exception() -> None:
    _, blockers = needs_of(definition("<domain", blockers=("First.",)))
    assert blockers[0] == "First."
    assert "not readable XML" in blockers[1]


def test_entities_are_not_followed() -> None:
    bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain type='kvm'><vcpu>1</vcpu><name>&a;</name></domain>"
    needs, _ = needs_of(definition(bomb))
    assert needs.vcpus == 1


@pytest.mark.parametrize(
    ("backing", "page_kib"),
    [
        ("", None),
        ("<memoryBacking><locked/></memoryBacking>", None),
        ("<memoryBacking><hugepages/></memoryBacking>", 0),
        ("<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>", 2048),
        (
            "<memoryBacking><hugepages><page size='1' unit='G' nodeset='0'/></hugepages></memoryBacking>",
            1048576,
        ),
    ],
)
def test_huge_pages(backing: str, page_kib: int | None) -> None:
    needs, _ = needs_of(definition(f"<domain type='kvm'><memory>1048576</memory>{backing}</domain>"))
    assert needs.page_kib == page_kib
