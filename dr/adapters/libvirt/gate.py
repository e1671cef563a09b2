"""The permit hook: the files behind it, and the script's place.

What it promises: on this host libvirt starts, receives or restores a protected guest only with a permit, and each
permit works once. The script is hook.sh beside this module; what it refuses and why is told there.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.commands import TicketKind

MARKER = "DR-PERMIT-REFUSED"  # in every refusal of the script, so that its words are known again in libvirt's error
CANARY = "canary of "  # starts the content of the canary's own file in protected/

# The operations of libvirt that a permit allows, in the order in which libvirt asks for them.
OPERATIONS: Mapping[TicketKind, str] = {
    TicketKind.START: "prepare",
    TicketKind.RECEIVE: "migrate prepare",
}

SCRIPT_MODE = 0o755
SCRIPT = Path(__file__).with_name("hook.sh")
RESTART = "restart libvirtd (guests survive it): systemctl restart libvirtd"


class LibvirtGate:
    """`ports.hypervisor.Gate` for a host whose libvirt runs the scripts in /etc/libvirt/hooks/qemu.d (6.5 and newer).

    A hook of the user's own, /etc/libvirt/hooks/qemu or others in qemu.d, is neither touched nor replaced: libvirt
    runs them all, and one refusal is enough.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        self._layout = layout or Layout()

    @property
    def hook(self) -> Path:
        return self._layout.hooks / "qemu.d" / "50-dr"

    def script(self) -> str:
        """The hook's text with this host's folders in it."""
        text = SCRIPT.read_text(encoding="utf-8")
        for name in ("protected", "permits", "consumed", "proc"):
            text = text.replace(f"@{name}@", str(getattr(self._layout, name)))
        return text.replace("@marker@", MARKER)

    def install(self) -> None:
        """Write the hook if it is not there as it should be, and the folders it looks into. Raises OSError.

        `protected/` is made only by `protect`: a missing one means lost state, and the hook then refuses everything.
        """
        self._make_tmpfs()
        if not self._script_altered():
            return
        self.hook.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Not in qemu.d: libvirt would run the half written file.
        write_durably(self.hook, self.script().encode(), mode=SCRIPT_MODE, temporary=self._layout.hooks)

    def _script_altered(self) -> str:
        """How the script differs from what `install` writes. Raises OSError."""
        try:
            mode = self.hook.lstat().st_mode
            if not stat.S_ISREG(mode) or self.hook.read_bytes() != self.script().encode():
                return f"the permit hook {self.hook} was replaced by something else"
        except (FileNotFoundError, NotADirectoryError):
            return f"the permit hook {self.hook} was removed"
        if stat.S_IMODE(mode) != SCRIPT_MODE:
            return f"the permit hook {self.hook} was given mode {stat.S_IMODE(mode):o}"
        return ""

    def altered(self, guests: Collection[GuestId] | None) -> str:
        """What is not as `install` and `protect` wrote it; empty when all is. Names are compared. Raises OSError.

        What an entry says inside does not matter to the hook, and reading thousands of them would not be cheap.
        """
        if why := self._script_altered():
            return why
        if guests is None:
            return ""
        folder = self._layout.protected
        try:
            gone = set(guests).difference(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return f"the permit hook's list of protected guests ({folder}) was removed"
        if gone:
            return f"{len(gone)} of {len(guests)} guests were removed from the permit hook's list ({folder})"
        return ""

    def protect(self, guests: dict[GuestId, str]) -> None:
        """Make exactly these guests protected: new ones are durable before old ones go. Raises OSError."""
        folder = self._layout.protected
        wanted = {checked(guest): f"{name}\n".encode() for guest, name in guests.items()}
        if not folder.is_dir():
            self._make_protected(wanted)
            return
        have = {path.name: path.read_bytes() for path in folder.iterdir() if is_guest(path.name)}
        for guest, content in wanted.items():
            if have.get(guest) != content:
                write_durably(folder / guest, content, mode=0o600)
        canary = CANARY.encode()
        gone = [guest for guest, said in have.items() if guest not in wanted and not said.startswith(canary)]
        for guest in gone:
            (folder / guest).unlink(missing_ok=True)
        if gone:
            sync_folder(folder)

    def _make_protected(self, wanted: Mapping[GuestId, bytes]) -> None:
        """The folder with all of its entries at once: while it is missing the hook refuses all, while empty nobody."""
        folder = self._layout.protected
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        half.mkdir(mode=0o700)
        try:
            for guest, content in wanted.items():
                write_durably(half / guest, content, mode=0o600)
            half.replace(folder)
        except OSError:
            shutil.rmtree(half, ignore_errors=True)
            raise
        sync_folder(folder.parent)

    def permit(self, guest: GuestId, kind: TicketKind, ticket: str) -> None:
        """Write the single-use permit; it replaces an older one. Raises OSError, ValueError for a kind without one."""
        if kind not in OPERATIONS:
            raise ValueError(f"nothing needs a permit to {kind} a guest")
        self._make_tmpfs()
        line = f"{OPERATIONS[kind]} ticket={''.join(c for c in ticket if c.isalnum() or c in '-_.')}\n"
        target = self._layout.permits / checked(guest)
        temporary = self._layout.permits / f".{target.name}.{uuid.uuid4().hex}"
        temporary.write_text(line, encoding="utf-8")
        temporary.replace(target)

    def revoke(self, guest: GuestId) -> None:
        """After this no permit of the guest can be used. Raises OSError."""
        (self._layout.permits / checked(guest)).unlink(missing_ok=True)
        for used in self._layout.consumed.glob(f"{checked(guest)}.*"):
            used.unlink(missing_ok=True)

    def _make_tmpfs(self) -> None:
        for folder in (self._layout.permits, self._layout.consumed):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_guest(name: str) -> bool:
    """Whether this is a UUID as libvirt writes it."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def checked(guest: GuestId) -> GuestId:
    """A guest's UUID that is safe as a file's name. Raises ValueError."""
    if not is_guest(guest):
        raise ValueError(f"{guest!r} is not a guest's UUID (lower case, with dashes)")
    return guest


def write_durably(path: Path, content: bytes, *, mode: int, temporary: Path | None = None) -> None:
    """Replace a file at once and for good; `temporary` is another folder for the half written one. Raises OSError."""
    half = (temporary or path.parent) / f".{path.name}.{uuid.uuid4().hex}"
    try:
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.fchmod(handle, mode)
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
