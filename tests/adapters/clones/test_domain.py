"""What of a guest's definition gets into its clone's: what is known to be harmless, and no path of the host's."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.adapters.clones.domain import DEVICES, OS, TOP, Rule, clone_xml, source_of
from dr.adapters.clones.names import clone_id, tap_name
from dr.ports.clones import CloneError

GUEST = "11111111-0000-4000-8000-000000000001"
CLONE = clone_id("d1", GUEST)
WHERE = Path("/clones/h1/d1/g")

HOSTILE = """\
<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <uuid>11111111-0000-4000-8000-000000000001</uuid>
  <genid>22222222-0000-4000-8000-000000000001</genid>
  <metadata><a:b xmlns:a='urn:x'>/secret/metadata</a:b></metadata>
  <memory unit='KiB'>1048576</memory>
  <currentMemory unit='KiB'>524288</currentMemory>
  <memoryBacking><hugepages/><source type='file'/></memoryBacking>
  <vcpu placement='static' cpuset='0-1' current='2'>4</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='0'/></cputune>
  <resource><partition>/secret/partition</partition></resource>
  <sysinfo type='smbios'>
    <system><entry name='serial'>ABC 1</entry><entry name='uuid'>11111111-0000-4000-8000-000000000001</entry></system>
    <bios><entry name='vendor'>/secret/vendor</entry></bios>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
    <nvram template='/secret/template'>/secret/nvram.fd</nvram>
    <kernel>/secret/vmlinuz</kernel><initrd>/secret/initrd</initrd><cmdline>root=/dev/vda1 quiet</cmdline>
    <dtb>/secret/dtb</dtb><acpi><table type='slic'>/secret/slic</table></acpi>
    <boot dev='hd'/><smbios mode='sysinfo'/>
  </os>
  <features><acpi/><hyperv mode='custom'><relaxed state='on'/></hyperv></features>
  <cpu mode='custom' match='exact'><model fallback='forbid'>Haswell</model><feature policy='require' name='vmx'/></cpu>
  <clock offset='timezone' timezone='Europe/Berlin'><timer name='rtc' tickpolicy='catchup'/></clock>
  <on_poweroff>preserve</on_poweroff><on_reboot>preserve</on_reboot><on_crash>preserve</on_crash>
  <launchSecurity type='sev'><dhCert>AAAA</dhCert></launchSecurity>
  <seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' iothread='1'/>
      <auth username='u'><secret type='ceph' uuid='33333333-0000-4000-8000-000000000001'/></auth>
      <source protocol='rbd' name='/secret/pool'><host name='6.6.6.6' port='1'/></source>
      <target dev='vda' bus='virtio'/><serial>S1</serial><boot order='1'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/secret/b.qcow2' index='1'/><backingStore type='file'><source file='/secret/base'/></backingStore>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><source file='/secret/iso'/><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='file' device='disk'><source file='/secret/s'/><target dev='vdc' bus='virtio'/><shareable/></disk>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='scsi' index='0' model='virtio-scsi'><driver iothread='1'/></controller>
    <controller type='xenbus' index='0'/>
    <filesystem type='mount'><source dir='/secret/dir'/><target dir='x'/></filesystem>
    <interface type='bridge'>
      <mac address='52:54:00:11:22:33'/><source bridge='br-secret'/><virtualport type='openvswitch'/>
      <target dev='vnet7'/><model type='virtio'/><driver name='vhost' queues='4'/><filterref filter='f'/>
      <backend tap='/secret/tun'/><rom file='/secret/rom'/><script path='/secret/up'/>
    </interface>
    <interface type='hostdev'><mac address='52:54:00:11:22:34'/><source><address type='pci'/></source></interface>
    <serial type='tcp'><source mode='connect' host='6.6.6.6' service='1'/><target port='0'/></serial>
    <console type='file'><source path='/secret/con'/><log file='/secret/log'/><target type='serial' port='0'/></console>
    <parallel type='dev'><source path='/secret/parport'/><target port='0'/></parallel>
    <channel type='unix'>
      <source mode='bind' path='/secret/ga'/><target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <input type='tablet' bus='usb'/>
    <input type='evdev'><source dev='/secret/event0'/></input>
    <graphics type='vnc' port='5900' listen='0.0.0.0'/>
    <video>
      <model type='virtio' heads='1'><acceleration accel3d='yes' rendernode='/secret/render'/></model>
    </video>
    <hostdev mode='subsystem' type='pci'><source><address bus='1'/></source></hostdev>
    <redirdev bus='usb' type='spicevmc'/>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <vsock model='virtio'><cid auto='yes' address='3'/></vsock>
    <shmem name='shm'><model type='ivshmem-plain'/></shmem>
    <lease><lockspace>x</lockspace><key>y</key><target path='/secret/lease'/></lease>
    <memory model='nvdimm'><source><path>/secret/nvdimm</path></source></memory>
    <rng model='virtio'><backend model='egd' type='tcp'><source host='6.6.6.6'/></backend></rng>
    <watchdog model='i6300esb' action='inject-nmi'/>
    <memballoon model='virtio'><stats period='5'/></memballoon>
  </devices>
  <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='/secret/arg'/></qemu:commandline>
</domain>
"""


def cloned(root: Element) -> tuple[Element, tuple[str, ...], tuple[str, ...]]:
    """The clone's definition, its taps, what it was left without."""
    source = source_of(root)
    xml, taps = clone_xml(root, source, clone=CLONE, name="d1-web", where=WHERE, shares=1000)
    return ElementTree.fromstring(xml), taps, source.left_out


def words(element: Element) -> list[tuple[str, str]]:
    """Every value in it, with where it stands."""
    found = [(element.tag, (element.text or "").strip())]
    found += [(f"{element.tag}@{name}", value) for name, value in element.items()]
    return found + [word for child in element for word in words(child)]


def assert_harmless(clone: Element) -> None:
    """Whatever the source was."""
    for where, value in words(clone):
        if "/" in value and where != "cmdline":
            ours = value.startswith(f"{WHERE}/") or value == "/dev/urandom"
            assert ours or where in ("emulator", "loader"), (where, value)
    for card in clone.iterfind("./devices/interface"):
        assert card.get("type") == "ethernet"
        assert card.find("source") is None
        assert card.find("script") is None
    for source in clone.iter("source"):
        assert list(source.attrib) == ["file"]
        assert len(source) == 0
    kinds = {"serial": "pty", "console": "pty", "channel": "unix", "disk": "file", "interface": "ethernet"}
    for device in clone.iterfind("./devices/*"):
        assert device.tag in {*DEVICES, *kinds, "emulator"}
        assert kinds.get(device.tag) in (None, device.get("type"))
    assert clone.findtext("uuid") == CLONE


def test_a_hostile_definition() -> None:
    """Everything of the host is gone or replaced, what the guest needs is there, what it lacks is told."""
    clone, taps, left_out = cloned(ElementTree.fromstring(HOSTILE))
    text = ElementTree.tostring(clone, encoding="unicode")
    assert "secret" not in text
    assert "6.6.6.6" not in text
    assert_harmless(clone)
    assert [source.get("file") for source in clone.iter("source")] == [
        f"{WHERE}/vda.qcow2", f"{WHERE}/vdb.qcow2",
    ]  # fmt: skip
    assert (clone.findtext("./os/nvram"), clone.findtext("./os/kernel")) == (
        f"{WHERE}/nvram",
        f"{WHERE}/kernel",
    )
    assert clone.findtext("./os/cmdline") == "root=/dev/vda1 quiet"
    assert clone.find("./os/loader[@readonly='yes'][@secure='yes']") is not None
    assert clone.findtext("genid") is None or clone.findtext("genid") == ""
    assert clone.findtext("./cputune/shares") == "100"
    assert [clone.findtext(f"on_{event}") for event in ("poweroff", "reboot", "crash")] == [
        "destroy", "restart", "destroy",
    ]  # fmt: skip
    (card,) = clone.findall("./devices/interface")
    assert taps == (tap_name(CLONE, 0),)
    assert [card.find(tag) is not None for tag in ("mac", "model", "target")] == [True, True, True]
    assert card.find("mac[@address='52:54:00:11:22:33']") is not None
    assert card.find(f"target[@dev='{taps[0]}']") is not None
    assert clone.find("./devices/channel/target[@name='org.qemu.guest_agent.0']") is not None
    assert left_out == (
        "disk sda (cdrom, readonly)",
        "disk vdc (disk, shareable)",
        "launchSecurity (sev)",
        "qemu:commandline",
        "dtb",
        "acpi",
        "controller (xenbus)",
        "filesystem (mount)",
        "interface (hostdev)",
        "parallel (dev)",
        "channel (spicevmc)",
        "input (evdev)",
        "hostdev (pci)",
        "redirdev (spicevmc)",
        "tpm (tpm-crb)",
        "vsock (virtio)",
        "shmem",
        "lease",
        "memory (nvdimm)",
    )


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        ("<disk device='lun'><source dev='/dev/x'/><target dev='sda'/></disk>", "passed through"),
        ("<disk device='floppy'><source file='/x'/><target dev='fda'/></disk>", "a floppy"),
        (
            "<disk><source file='/x'><encryption format='luks'/></source><target dev='vda'/></disk>",
            "encrypted",
        ),
        ("<disk><source file='/x'/><target dev='../../etc'/></disk>", "no name that a file could have"),
        ("<disk><source file='/x'/></disk>", "no name that a file could have"),
    ],
)
def test_disks_that_cannot_be_copied(disk: str, why: str) -> None:
    root = ElementTree.fromstring(f"<domain><os/><devices>{disk}</devices></domain>")
    with pytest.raises(CloneError, match=why):
        source_of(root)


@pytest.mark.parametrize(
    ("os", "why"),
    [
        ("<loader type='pflash'>/var/one.fd</loader>", "one writable image"),
        ("<nvram type='network'><source protocol='iscsi' name='x'/></nvram>", "nvram is no file"),
        ("<kernel>relative</kernel>", "kernel is no file"),
    ],
)
def test_firmware_that_cannot_be_copied(os: str, why: str) -> None:
    root = ElementTree.fromstring(f"<domain><os>{os}</os><devices/></domain>")
    with pytest.raises(CloneError, match=why):
        source_of(root)


def _tags(rule: Rule) -> set[str]:
    return set(rule.children).union(*map(_tags, rule.children.values())) if rule.children else set()


EVIL = (
    "source",
    "backend",
    "script",
    "rom",
    "log",
    "teaming",
    "hostdev",
    "filesystem",
    "shmem",
    "arg",
    "driver",
)
KNOWN = sorted(
    {*TOP, *DEVICES, *_tags(OS), "disk", "interface", "serial", "console", "channel", "target", "model"}
)
NAMES = (
    "type",
    "model",
    "file",
    "dev",
    "path",
    "name",
    "bus",
    "address",
    "host",
    "mode",
    "index",
    "action",
    "value",
)
VALUES = st.sampled_from(
    (
        "/etc/shadow",
        "../x",
        "unix:/run/s",
        "tcp",
        "pty",
        "virtio",
        "bridge",
        "vda",
        "usb",
        "pci",
        "tablet",
        "disk",
        "1",
    )
)


def elements(tags: tuple[str, ...] | list[str], depth: int) -> st.SearchStrategy[Element]:
    """Any elements in any elements."""
    below = elements([*KNOWN, *EVIL], depth - 1) if depth else st.nothing()

    def build(tag: str, attributes: dict[str, str], text: str, children: list[Element]) -> Element:
        element = Element(tag, attributes)
        element.text = text
        element.extend(children)
        return element

    return st.builds(
        build,
        st.sampled_from(tags),
        st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
        VALUES,
        st.lists(below, max_size=4) if depth else st.just([]),
    )


@given(st.lists(elements([*KNOWN, *EVIL], 2), max_size=6), st.lists(elements(sorted(TOP), 2), max_size=4))
def test_no_definition_gets_a_path_of_the_hosts_in(devices: list[Element], top: list[Element]) -> None:
    root = Element("domain", type="kvm")
    root.append(Element("os"))
    root.extend(top)
    holder = Element("devices")
    holder.extend(devices)
    root.append(holder)
    try:
        clone, taps, left_out = cloned(root)
    except CloneError:
        return
    assert_harmless(clone)
    assert len(set(taps)) == len(taps)
    assert all("/" not in word and len(word) <= 80 for word in left_out)


def test_names_of_taps_fit_a_network_device() -> None:
    names = {tap_name(clone_id("d1", f"guest {number}"), 15) for number in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"[a-z0-9.]{1,15}", name) for name in names)
