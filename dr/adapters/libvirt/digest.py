"""What a definition says, in one hash: it changes when the definition or its NVRAM does, not when spacing does."""

from __future__ import annotations

import hashlib
from xml.etree import ElementTree

from dr.adapters.libvirt.layout import Layout


def digest(xml: str, nvram: bytes) -> str:
    """sha256 over the canonical form of the inactive XML and the NVRAM's content."""
    total = hashlib.sha256(ElementTree.canonicalize(xml, strip_text=True).encode())
    total.update(b"\0nvram\0")
    total.update(nvram)
    return total.hexdigest()


def nvram_path(root: ElementTree.Element) -> str:
    """The NVRAM's file in a domain's XML; empty when it has none, or it is no file."""
    nvram = root.find("./os/nvram")
    if nvram is None:
        return ""
    if nvram.get("type", "file") != "file":
        return ""
    source = nvram.find("source")
    return (source.get("file", "") if source is not None else nvram.text or "").strip()


def read_nvram(layout: Layout, path: str) -> bytes | None:
    """None when there is no such file. Raises OSError for one that cannot be read."""
    if not path:
        return None
    try:
        return layout.at(path).read_bytes()
    except FileNotFoundError:
        return None
