"""What a guest's definition asks of a host, and what would stop it from starting elsewhere. Pure: XML in, facts out."""

from __future__ import annotations

from lxml import etree

from dr.model.facts import Definition, Needs, folder_identity

_UNITS_KIB = {
    "b": 1 / 1024,
    "bytes": 1 / 1024,
    "KB": 1000 / 1024,
    "k": 1,
    "KiB": 1,
    "MB": 1000**2 / 1024,
    "M": 1024,
}
_UNITS_KIB |= {
    "MiB": 1024,
    "GB": 1000**3 / 1024,
    "G": 1024**2,
    "GiB": 1024**2,
    "TB": 1000**4 / 1024,
    "T": 1024**3,
}
_UNITS_KIB |= {"TiB": 1024**3}


def needs_of(definition: Definition) -> tuple[Needs, tuple[str, ...]]:
    """(needs, blockers): each blocker a sentence why this guest could not be started on another host.

    What only its host can know (local storage, backing files, NVRAM) arrives in `definition.blockers`.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(definition.xml.encode(), parser)
    except etree.XMLSyntaxError as error:
        return Needs(), (*definition.blockers, f"Its definition is not readable XML: {error}.")
    os_type = root.find("os/type")
    cpu_model = ""
    cpu = root.find("cpu")
    # With check='none', which libvirt also writes for a guest without <cpu>, no host is asked for the model. A model
    # that some of its features are taken from fits more hosts than the model itself: which, only libvirt can tell.
    if cpu is not None and cpu.get("mode", "custom") == "custom" and cpu.get("check") != "none":
        less = any(feature.get("policy") in ("disable", "forbid") for feature in cpu.iterfind("feature"))
        cpu_model = "" if less else (cpu.findtext("model") or "").strip()
    networks = []
    for interface in root.iterfind("devices/interface"):
        source = interface.find("source")
        kind = interface.get("type", "")
        if source is not None and kind in ("bridge", "network"):
            networks.append(f"{kind}:{source.get(kind, '')}")
    memory = root.find("memory")
    needs = Needs(
        arch=os_type.get("arch", "x86_64") if os_type is not None else "x86_64",
        domain_type=root.get("type", "kvm"),
        machine=os_type.get("machine", "") if os_type is not None else "",
        memory_mib=_memory_mib(memory),
        vcpus=int((root.findtext("vcpu") or "1").strip()),
        page_kib=_page_kib(root),
        cpu_model=cpu_model,
        networks=tuple(sorted(set(networks))),
        storage=tuple(
            sorted(
                {
                    *definition.storage,
                    *(folder_identity(disk.folder, disk.mount) for disk in definition.local),
                }
            )
        ),
        local=definition.local,
    )
    return needs, definition.blockers


def _page_kib(root: etree._Element) -> int | None:
    """Size of the huge pages under its memory: None = ordinary memory, 0 = the host's default size.

    Where NUMA nodes have sizes of their own, the first counts for all memory: a guest with several is rare.
    """
    asked = root.find("memoryBacking/hugepages")
    if asked is None:
        return None
    page = asked.find("page")
    if page is None:
        return 0
    return int(int(page.get("size", "0")) * _UNITS_KIB.get(page.get("unit", "KiB"), 1))


def _memory_mib(element: etree._Element | None) -> int:
    if element is None or not element.text:
        return 0
    kib = int(element.text.strip()) * _UNITS_KIB.get(element.get("unit", "KiB"), 1)
    return -(-int(kib) // 1024)
