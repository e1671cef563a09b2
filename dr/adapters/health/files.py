"""Reading the kernel's small text files, which may be absent on this kernel or hardware."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str | None:
    """Stripped content; None when the kernel has no such file. Raises OSError when it has and it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def number(path: Path) -> int | None:
    """A decimal or 0x number; None when there is no such file or no number in it. Raises OSError."""
    found = text(path)
    try:
        return int(found, 0) if found else None
    except ValueError:
        return None


def pressure(root: Path, resource: str, kind: str) -> float | None:
    """Share of the last 60 s in which tasks stalled, in percent, from /proc/pressure (PSI); None without PSI."""
    try:
        found = text(root / "proc/pressure" / resource)
    except OSError:
        return None  # compiled in but turned off: reading says EOPNOTSUPP
    for line in (found or "").splitlines():
        words = line.split()
        if words and words[0] == kind:
            for word in words[1:]:
                key, _, value = word.partition("=")
                if key == "avg60":
                    return float(value)
    return None
