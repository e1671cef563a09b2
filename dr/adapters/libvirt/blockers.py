"""What in a definition ties a guest to this host. Each finding is one sentence that says what to do.

Pure: looks at the XML only. What depends on where a path lies is in storage.py and definition.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from dr.model.facts import Tie, TieKind


def blockers(root: Element) -> list[str]:
    """All findings of a domain's XML, in a steady order."""
    return list(dict.fromkeys(tie.what for tie in findings(root)))


def findings(root: Element) -> list[Tie]:
    """The same, each with its kind; also of a domain as it runs now."""
    return [Tie(kind=kind, what=what) for kind, look in LOOKS.items() for what in look(root)]


def _tpm(root: Element) -> Iterator[str]:
    for tpm in root.findall("./devices/tpm"):
        backend = tpm.find("backend")
        kind = backend.get("type", "") if backend is not None else ""
        if kind == "external":
            yield "it uses a TPM emulator outside libvirt, which no other host has: remove the <tpm> device."
        elif kind == "passthrough":
            yield "it uses this host's own TPM: remove the <tpm> device."
        else:
            yield (
                "it has a virtual TPM whose state is on this host only and is not carried yet: "
                "remove the <tpm> device, or leave the guest unprotected."
            )


def _host_devices(root: Element) -> Iterator[str]:
    for device in root.findall("./devices/hostdev"):
        kind = device.get("type") or device.get("mode") or "host"
        yield f"it uses a {kind} device of this host: detach it with `virsh detach-device`."
    for interface in root.findall("./devices/interface"):
        actual = interface.find("actual")  # of one that runs: what the network gave it
        kind = (actual if actual is not None else interface).get("type", "")
        if kind in ("hostdev", "vdpa", "vhostuser"):
            yield f"a network interface of type {kind} is bound to this host: use a bridge or a network instead."
    for device in root.findall("./devices/input"):
        if device.get("type") in ("evdev", "passthrough"):
            yield "it uses an input device of this host: detach it with `virsh detach-device`."
    for tag in ("serial", "parallel", "console", "channel"):
        for device in root.findall(f"./devices/{tag}"):
            source = device.find("source")
            if device.get("type") in ("dev", "pipe") and source is not None:
                yield f"its {tag} port is {source.get('path')} of this host: remove it, or use type pty."
    for shmem in root.findall("./devices/shmem"):
        yield f"it shares memory ({shmem.get('name')}) with other programs of this host: remove the <shmem> device."
    for memory in root.findall("./devices/memory"):
        if memory.get("model") in ("nvdimm", "virtio-pmem", "sgx-epc"):
            yield f"its {memory.get('model')} memory lies on this host: remove the <memory> device."


def _file_systems(root: Element) -> Iterator[str]:
    for system in root.findall("./devices/filesystem"):
        source = system.find("source")
        what = next(iter(source.attrib.values()), "a folder") if source is not None else "a folder"
        yield (
            f"{what} of this host is passed into the guest (<filesystem>): "
            "mount it in the guest over the network instead, and remove the device."
        )


def _secrets(root: Element) -> Iterator[str]:
    for disk in root.findall("./devices/disk"):
        target = disk.find("target")
        name = target.get("dev") if target is not None else "?"
        for secret in disk.iter("secret"):
            which = secret.get("uuid") or secret.get("usage") or "?"
            yield (
                f"disk {name} needs the libvirt secret {which}, which is not carried to other hosts: "
                "use storage that needs none, or leave the guest unprotected."
            )


def _security(root: Element) -> Iterator[str]:
    for security in root.findall("./launchSecurity"):
        yield f"it is encrypted for this host's processor (launchSecurity {security.get('type')}): remove that."


LOOKS: dict[TieKind, Callable[[Element], Iterator[str]]] = {
    TieKind.VTPM: _tpm,
    TieKind.HOST_DEVICE: _host_devices,
    TieKind.FILE_SYSTEM: _file_systems,
    TieKind.SECRET: _secrets,
    TieKind.ENCRYPTION: _security,
}
