"""The domain of a clone, made of what is known to be harmless in that of its guest; what is not known is left out.

Nothing is taken over as it stands: each element, attribute and value that may be in a clone is listed here, and no
value with a slash is, so that no file, device or socket of the host's gets in. What the clone boots from are its own
copies, its network cards end in taps of its own (`bubble`), its consoles in terminals that nobody reads.
Not here: copying (`copying`), names (`names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from dr.adapters.clones.names import tap_name
from dr.model.base import GuestId
from dr.ports.clones import CloneError

DISKS_MAX = 32
CARDS_MAX = 16  # network cards
LEFT_OUT_MAX = 32  # told of one clone
SAFE = re.compile(r"[\w.:+,=()@ -]{0,256}")  # of values that are taken over: no slash
TARGET = re.compile(r"[a-z]{1,8}")
AGENT = "org.qemu.guest_agent.0"
LOW_SHARES = 10  # a clone gets this part of the guest's own share of the CPUs


@dataclass(frozen=True)
class Rule:
    """What of an element is taken over."""

    attributes: frozenset[str] = frozenset()
    children: dict[str, Rule] = field(default_factory=dict)
    text: bool = False


def rule(attributes: str = "", /, **children: Rule) -> Rule:
    """An element with these attributes and children; `_` in a child's name stands for `-`."""
    return Rule(
        frozenset(attributes.split()), {name.replace("_", "-"): each for name, each in children.items()}
    )


def words(attributes: str = "", /) -> Rule:
    """An element with these attributes, and text in it."""
    return Rule(frozenset(attributes.split()), text=True)


STATE = rule("state mode retries value name")
ADDRESS = rule(
    "type domain bus slot function multifunction controller target unit port base iobase irq cssid ssid devno reg"
)
COMMON = {"address": ADDRESS, "boot": rule("order loadparm")}

FEATURES = (
    "acpi", "apic", "pae", "hap", "viridian", "privnet", "vmport", "pmu", "pvspinlock", "vmcoreinfo", "ioapic", "smm",
    "kvm", "hyperv", "gic",
)  # fmt: skip

TOP: dict[str, Rule] = {
    "memory": words("unit"),
    "currentMemory": words("unit"),
    "vcpu": words("current"),
    "features": rule(
        **dict.fromkeys(
            FEATURES,
            rule(
                "state eoi mode driver version",
                tseg=words("unit"),
                hidden=STATE,
                hint_dedicated=STATE,
                poll_control=STATE,
                pv_ipi=STATE,
                relaxed=STATE,
                vapic=STATE,
                spinlocks=STATE,
                vpindex=STATE,
                runtime=STATE,
                synic=STATE,
                stimer=rule("state", direct=STATE),
                reset=STATE,
                vendor_id=STATE,
                frequencies=STATE,
                reenlightenment=STATE,
                tlbflush=STATE,
                ipi=STATE,
                evmcs=STATE,
                avic=STATE,
            ),
        )
    ),
    "cpu": rule(
        "mode match check migratable",
        model=words("fallback vendor_id"),
        vendor=words(),
        topology=rule("sockets dies cores threads"),
        feature=rule("policy name"),
        cache=rule("level mode"),
        maxphysaddr=rule("mode bits"),
        numa=rule(
            cell=rule("id cpus memory unit discard", distances=rule(sibling=rule("id value"))),
        ),
    ),
    "clock": rule(
        "offset basis adjustment start",
        timer=rule("name tickpolicy track present frequency mode", catchup=rule("threshold slew limit")),
    ),
    "pm": rule(suspend_to_mem=rule("enabled"), suspend_to_disk=rule("enabled")),
    "sysinfo": rule(
        "type",
        **dict.fromkeys(("bios", "system", "baseBoard", "chassis", "oemStrings"), rule(entry=words("name"))),
    ),
}
OS = rule(
    type=words("arch machine"),
    boot=rule("dev"),
    bootmenu=rule("enable timeout"),
    smbios=rule("mode"),
    bios=rule("useserial rebootTimeout"),
)
DISK = rule(
    **COMMON,
    target=rule("dev bus rotation_rate"),
    serial=words(),
    wwn=words(),
    vendor=words(),
    product=words(),
    geometry=rule("cyls heads secs trans"),
    blockio=rule("logical_block_size physical_block_size"),
)
CARD = rule(**COMMON, mac=rule("address"), model=rule("type"), mtu=rule("size"), link=rule("state"))
TERMINAL = rule(address=ADDRESS, target=rule("type port", model=rule("name")))
DEVICES: dict[str, Rule] = {
    "controller": rule(
        "type index model ports vectors",
        address=ADDRESS,
        model=rule("name"),
        master=rule("startport"),
        target=rule("chassisNr chassis port busNr index hotplug"),
    ),
    "input": rule("type bus model", address=ADDRESS),
    "video": rule(
        address=ADDRESS, model=rule("type ram vram vram64 vgamem heads primary", resolution=rule("x y"))
    ),
    "memballoon": rule("model autodeflate freePageReporting", address=ADDRESS),
    "panic": rule("model", address=ADDRESS),
    "watchdog": rule("model", address=ADDRESS),
    "rng": rule("model", address=ADDRESS),
}
CONTROLLERS = ("pci", "usb", "scsi", "sata", "ide", "fdc", "virtio-serial", "ccid")
INPUTS = ("tablet", "mouse", "keyboard")
CARDS = (
    "network",
    "bridge",
    "direct",
    "ethernet",
    "user",
    "internal",
    "vdpa",
    "vhostuser",
    "udp",
    "server",
    "client",
)
BOOTED = {"loader", "nvram", "kernel", "initrd", "cmdline", "firmware"}
OWN = {"disk", "serial", "console", "emulator", "graphics", "audio"}  # told apart, or made anew
# Of the host, not of the guest: nobody misses it in a clone, or it is made anew.
QUIET = {
    "name", "uuid", "genid", "title", "description", "metadata", "devices", "os", "on_poweroff", "on_reboot",
    "on_crash", "on_lockfailure", "seclabel", "resource", "cputune", "numatune", "memtune", "blkiotune", "iothreads",
    "iothreadids", "defaultiothread", "maxMemory", "vcpus", "perf", "bootloader", "id", "memoryBacking",
}  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """A disk that is copied."""

    target: str
    kind: str  # libvirt's: file, block, network, …
    layered: bool  # it lies on other images


@dataclass(frozen=True)
class Source:
    """What the clone of a guest is made of."""

    disks: tuple[Disk, ...]
    files: tuple[tuple[str, str], ...]  # small ones: its name in the clone's folder, its path
    left_out: tuple[str, ...]


def source_of(root: Element) -> Source:
    """Of a guest's live definition. Raises CloneError with what cannot be copied."""
    left_out: list[str] = []
    disks = [disk for each in root.iterfind("./devices/disk") if (disk := _disk(each, left_out))]
    if len(disks) > DISKS_MAX:
        raise CloneError(f"it has {len(disks)} disks, and {DISKS_MAX} at most are copied")
    loader = root.find("./os/loader")
    if loader is not None and loader.get("type") == "pflash" and loader.get("readonly") != "yes":
        raise CloneError("its firmware is one writable image, which cannot be copied while it runs")
    files = []
    for name in ("nvram", "kernel", "initrd"):
        found = root.find(f"./os/{name}")
        if found is None:
            continue
        inner = found.find("source")
        path = (inner.get("file") if inner is not None else found.text) or ""
        if not path.startswith("/"):
            raise CloneError(f"its {name} is no file of this host's own")
        files.append((name, path.strip()))
    left_out += [_words(each) for each in root if each.tag not in TOP and each.tag not in QUIET]
    left_out += [
        _words(each)
        for each in root.iterfind("./os/*")
        if each.tag not in OS.children and each.tag not in BOOTED
    ]
    left_out += [_words(each) for each in root.iterfind("./devices/*") if not _fits(each)]
    cards = [each for each in root.iterfind("./devices/interface") if each.get("type") in CARDS]
    left_out += [_words(each) for each in cards[CARDS_MAX:]]
    return Source(tuple(disks), tuple(files), tuple(dict.fromkeys(left_out))[:LEFT_OUT_MAX])


def _disk(element: Element, left_out: list[str]) -> Disk | None:
    target = element.find("target")
    name = (target.get("dev") if target is not None else None) or "?"
    source, device = element.find("source"), element.get("device", "disk")
    if source is None and device != "disk":
        return None  # an empty drive
    for why in ("readonly", "shareable"):
        if element.find(why) is not None:
            left_out.append(f"disk {name} ({device}, {why})")
            return None
    if device != "disk":
        what = (
            "a device that is passed through whole" if device == "lun" else f"a {device} that it can write to"
        )
        raise CloneError(f"its disk {name} is {what}, which libvirt cannot copy while it runs")
    if element.find("encryption") is not None or (
        source is not None and source.find("encryption") is not None
    ):
        raise CloneError(f"its disk {name} is encrypted by libvirt, and the copy would not be")
    if TARGET.fullmatch(name) is None:
        raise CloneError(f"its disk {name[:40]!r} has no name that a file could have")
    backing = element.find("backingStore")
    return Disk(name, element.get("type", ""), layered=backing is not None and len(backing) > 0)


def _fits(element: Element) -> bool:
    """Whether a clone may have such a device."""
    match element.tag:
        case "channel":
            return _is_agent(element)
        case "interface":
            return element.get("type") in CARDS
        case "controller":
            return element.get("type") in CONTROLLERS
        case "input":
            return element.get("type") in INPUTS
        case tag:
            return tag in DEVICES or tag in OWN


def _is_agent(channel: Element) -> bool:
    target = channel.find("target")
    return target is not None and target.get("name") == AGENT and target.get("type") == "virtio"


def _words(element: Element) -> str:
    tag = element.tag.removeprefix("{http://libvirt.org/schemas/domain/qemu/1.0}")
    if tag != element.tag:
        tag = f"qemu:{tag}"
    kind = element.get("type") or element.get("model") or ""
    text = f"{tag} ({kind})" if kind and SAFE.fullmatch(kind) else tag
    return text[:80]


def clone_xml(
    root: Element, source: Source, *, clone: GuestId, name: str, where: Path, shares: int | None
) -> tuple[str, tuple[str, ...]]:
    """The clone's definition, and the names of its taps. `shares`: of the CPUs; None where libvirt cannot say."""
    kind = root.get("type", "")
    domain = Element("domain", type=kind if kind in ("kvm", "qemu", "hvf") else "kvm")
    SubElement(domain, "name").text = name
    SubElement(domain, "uuid").text = clone
    SubElement(domain, "title").text = "a clone for a drill of dr: it ends with the drill"
    if root.find("genid") is not None:
        SubElement(domain, "genid")  # a new one: it tells the guest that it is a copy
    for element in root:
        if element.tag in TOP:
            domain.append(_taken(element, TOP[element.tag]))
    _adjust(domain)
    _boot(domain, root, source, where)
    if shares is not None:
        tune = SubElement(domain, "cputune")
        SubElement(tune, "shares").text = str(max(2, shares // LOW_SHARES))
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        SubElement(domain, event).text = action
    taps = _devices(SubElement(domain, "devices"), root, source, clone, where)
    return ElementTree.tostring(domain, encoding="unicode"), taps


def _taken(element: Element, allowed: Rule) -> Element:
    """What a rule allows of it."""
    copy = Element(element.tag)
    for name, value in element.items():
        if name in allowed.attributes and SAFE.fullmatch(value):
            copy.set(name, value)
    text = (element.text or "").strip()
    if allowed.text and SAFE.fullmatch(text):
        copy.text = text
    for child in element:
        if child.tag in allowed.children:
            copy.append(_taken(child, allowed.children[child.tag]))
    return copy


def _adjust(domain: Element) -> None:
    """What would not be valid without something that was left out."""
    clock = domain.find("clock")
    if clock is not None and clock.get("offset") == "timezone":
        clock.set("offset", "localtime")
    sysinfo = domain.find("sysinfo")
    if sysinfo is not None and sysinfo.get("type") != "smbios":
        domain.remove(sysinfo)
    for part in domain.iterfind("./sysinfo/*"):
        for entry in list(part):  # a UUID must be the domain's own
            if not entry.text or entry.get("name") == "uuid":
                part.remove(entry)


def _boot(domain: Element, root: Element, source: Source, where: Path) -> None:
    there = root.find("os")
    if there is None:
        raise CloneError("its definition does not say what it boots")
    here = _taken(there, OS)
    domain.append(here)
    smbios = here.find("smbios")
    if smbios is not None and smbios.get("mode") == "sysinfo" and domain.find("sysinfo") is None:
        here.remove(smbios)
    loader = there.find("loader")
    if loader is not None and (loader.text or "").strip():
        copy = SubElement(here, "loader")
        copy.text = (loader.text or "").strip()  # read only (see `source_of`), and the host's own
        for name in ("secure", "type", "format"):
            value = loader.get(name)
            if value and SAFE.fullmatch(value):
                copy.set(name, value)
        copy.set("readonly", "yes")
    for name, _ in source.files:
        SubElement(here, name).text = str(where / name)
    words = there.findtext("cmdline")
    if words and any(name == "kernel" for name, _ in source.files):
        SubElement(here, "cmdline").text = words  # read by the guest's own kernel


def _devices(devices: Element, root: Element, source: Source, clone: GuestId, where: Path) -> tuple[str, ...]:
    emulator = root.findtext("./devices/emulator")
    if emulator:
        SubElement(devices, "emulator").text = emulator.strip()
    copied = {disk.target for disk in source.disks}
    taps: list[str] = []
    for element in root.iterfind("./devices/*"):
        tag = element.tag
        if tag == "disk":
            target = element.find("target")
            if target is not None and target.get("dev") in copied and element.get("device", "disk") == "disk":
                devices.append(_copied(element, where / f"{target.get('dev')}.qcow2"))
        elif tag == "interface" and element.get("type") in CARDS and len(taps) < CARDS_MAX:
            taps.append(tap_name(clone, len(taps)))
            devices.append(_card(element, taps[-1]))
        elif tag in ("serial", "console"):
            terminal = _taken(element, TERMINAL)
            terminal.set("type", "pty")
            devices.append(terminal)
        elif tag == "channel" and _is_agent(element):
            channel = SubElement(devices, "channel", type="unix")
            SubElement(channel, "target", type="virtio", name=AGENT)
            _address(channel, element)
        elif tag in DEVICES and _fits(element):
            taken = _taken(element, DEVICES[tag])
            devices.append(taken)
            if tag == "rng":
                SubElement(taken, "backend", model="random").text = "/dev/urandom"
            if tag == "watchdog":
                taken.set("action", "reset")
    return tuple(taps)


def _copied(element: Element, image: Path) -> Element:
    disk = _taken(element, DISK)
    disk.set("type", "file")
    disk.set("device", "disk")
    disk.insert(0, Element("driver", name="qemu", type="qcow2", cache="writeback", discard="unmap"))
    disk.insert(1, Element("source", file=str(image)))
    return disk


def _card(element: Element, tap: str) -> Element:
    card = _taken(element, CARD)
    card.set("type", "ethernet")
    SubElement(card, "target", dev=tap)
    model = card.find("model")
    if model is not None and (model.get("type") or "").startswith("virtio"):
        SubElement(card, "driver", name="qemu")  # not the kernel's: it is a test, and its tap changes places
    return card


def _address(copy: Element, element: Element) -> None:
    address = element.find("address")
    if address is not None:
        copy.append(_taken(address, ADDRESS))
