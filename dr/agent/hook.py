"""The permit hook of this host: installed, given its list, and proven to refuse.

Here: when the hook's files are written and looked after, and when the hook is tried. Not here: the files
(`dr.adapters.libvirt`), permits of single tickets (`dr.agent.tickets`).

The hook is what makes a start that was lost in libvirt harmless: without a permit it is refused. So nothing is started
while the hook is not proven, and nobody is testified absent while the list is not in force.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from dr.agent.journal import Worker
from dr.model.base import GuestId
from dr.model.commands import ProtectedEntry
from dr.model.facts import HookState, Level, Reading
from dr.ports.hypervisor import Gate, Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.hook")

TOLD_S = 600.0  # for so long it is told that the files had to be put back


class Hook:
    """The gate with its proof."""

    def __init__(
        self,
        gate: Gate,
        hypervisor: Hypervisor,
        worker: Worker,
        *,
        write_s: float = 5.0,
        prove_s: float = 8.0,
        retry_s: float = 30.0,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._hypervisor = hypervisor
        self._worker = worker
        self._write_s = write_s
        self._prove_s = prove_s
        self._retry_s = retry_s
        self._changed = changed
        self._clock = clock
        self._proving = asyncio.Lock()
        self._files = asyncio.Lock()  # one at a time writes them or compares them
        self._wanted = asyncio.Event()
        self._fresh = False  # whether `state` was found with this libvirtd and these files
        self._rounds = 0
        self._guarded: frozenset[GuestId] = frozenset()  # what the hook's files surely protect
        self._written: tuple[ProtectedEntry, ...] | None = None  # the list that was surely written last
        self._tried = False
        self._put_back = ("", 0.0)  # what was altered behind our back, and when it was found
        self.state = HookState(proven=False, reason="not tried yet")
        self.trouble = ""  # why the hook or its list is not in force; empty when they are

    async def install(self, entries: tuple[ProtectedEntry, ...] | None, *, revoke: bool = False) -> None:
        """Write the hook and the list. None, a list never received or not readable: the old one stays.

        `revoke`: take back all permits too; those of a process that is gone.
        """

        def write() -> None:
            self._gate.install()
            if entries is not None:
                self._gate.protect(_names(entries))
            if entries is not None and revoke:
                for entry in entries:
                    self._gate.revoke(entry.guest)

        async with self._files:
            await self._in_force(write, entries)

    async def protect(self, entries: tuple[ProtectedEntry, ...]) -> None:
        """Put a list in force. Look at `trouble` afterwards."""
        async with self._files:
            await self._in_force(lambda: self._gate.protect(_names(entries)), entries)

    async def look_after(self) -> None:
        """Compare the files with what was written. If anybody altered them: put them back, and prove the hook anew.

        Asked every second, before a start and before a testimony. libvirt runs the script that lies there at that
        moment, so a hook that is put back holds at once, unless libvirtd was started without it: the trial will tell.
        """
        async with self._files:
            if self.trouble:
                return  # whoever was told so writes them again
            entries = self._written
            guests = None if entries is None else frozenset(_names(entries))
            try:
                altered = await self._worker.call(lambda: self._gate.altered(guests), self._write_s)
            except TimeoutError:
                self._troubled(
                    f"the permit hook could not be read: no answer from the disk for {self._write_s:g} s"
                )
                return
            except OSError as error:
                self._troubled(f"the permit hook could not be read: {error}")
                return
            if not altered:
                return
            log.warning("%s: it is put back and proven anew", altered)
            self._put_back = (altered, self._clock())
            self.state = HookState(proven=False, reason=f"{altered}; it is put back and proven anew")
            self.stale()

            def write() -> None:
                self._gate.install()
                if entries is not None:
                    self._gate.protect(_names(entries))

            await self._in_force(write, entries)

    async def _in_force(self, write: Callable[[], None], entries: tuple[ProtectedEntry, ...] | None) -> None:
        self._guarded &= frozenset(_names(entries or ()))  # while it is written, only what is on both lists
        try:
            await self._worker.call(write, self._write_s)
            trouble = ""
        except TimeoutError:
            trouble = f"the permit hook could not be written: no answer from the disk for {self._write_s:g} s"
        except OSError as error:
            trouble = f"the permit hook could not be written: {error}"
        if not trouble and entries is not None:
            self._guarded, self._written = frozenset(_names(entries)), entries
        self._troubled(trouble)

    def _troubled(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.log(logging.ERROR if trouble else logging.INFO, "%s", trouble or "the hook is written again")
            self.stale()
        self.trouble = trouble
        self._changed()

    def reading(self) -> Reading | None:
        """What is to be told of it; None when there is nothing."""
        if self.trouble:
            return Reading(part="hook", level=Level.CRITICAL, reason=self.trouble)
        if self._tried and not self.state.proven:
            reason = f"the permit hook is not proven: {self.state.reason}"
            return Reading(part="hook", level=Level.CRITICAL, reason=reason)
        altered, at = self._put_back
        if altered and self._clock() - at < TOLD_S:
            reason = (
                f"{altered}; the agent put it back. Find out who did that: without it a guest may run twice."
            )
            return Reading(part="hook", level=Level.WARN, reason=reason)
        return None

    def open_for(self, guest: GuestId) -> str:
        """Why the hook would not hold this guest back; empty if it would."""
        if self.trouble:
            return self.trouble
        return "" if guest in self._guarded else "the permit hook does not know this guest as protected"

    def in_force(self, entries: tuple[ProtectedEntry, ...]) -> bool:
        """Whether exactly this list was written."""
        return not self.trouble and self._guarded == frozenset(_names(entries))

    def stale(self) -> None:
        """libvirtd or the files are new: what was proven before counts for nothing until it is tried again."""
        self._fresh = False
        self._rounds += 1
        self._wanted.set()

    async def run(self) -> None:
        """Prove it at once whenever it became stale, and again and again while it is not proven."""
        while True:
            await self.ensure()
            try:
                async with asyncio.timeout(self._retry_s):
                    await self._wanted.wait()
                await asyncio.sleep(0.1)  # a libvirtd that keeps restarting is not tried without a breath
            except TimeoutError:
                continue

    async def ensure(self) -> HookState:
        """The hook's state; its files looked after, and tried now unless it is known to hold."""
        await self.look_after()
        async with self._proving:
            if not (self._fresh and self.state.proven):
                await self._prove()
        return self.state

    async def prove(self) -> HookState:
        """Try it now, whatever is known."""
        async with self._proving:
            await self._prove()
        return self.state

    async def _prove(self) -> None:
        rounds = self._rounds
        self._wanted.clear()
        if self.trouble:
            state = HookState(proven=False, reason=self.trouble)
        else:
            try:
                async with asyncio.timeout(self._prove_s):
                    state = await self._hypervisor.prove_hook()
            except TimeoutError:
                state = HookState(
                    proven=False, reason=f"libvirt did not answer the trial for {self._prove_s:g} s"
                )
            except (HypervisorError, HypervisorUnknown) as error:
                state = HookState(proven=False, reason=f"the trial could not be made: {error}")
            except Exception as error:
                log.exception("trial of the hook failed")
                state = HookState(proven=False, reason=f"the trial failed: {error}")
        if state != self.state:
            (log.info if state.proven else log.warning)(
                "hook proven" if state.proven else "hook not proven: %s",
                *([] if state.proven else [state.reason]),
            )
        self.state = state
        self._tried = True
        self._fresh = rounds == self._rounds  # libvirtd may have restarted during the trial
        self._changed()

    def revoke(self, guest: GuestId) -> None:
        """Remove any permit of this guest. Raises OSError."""
        self._gate.revoke(guest)


def _names(entries: tuple[ProtectedEntry, ...]) -> dict[GuestId, str]:
    return {entry.guest: entry.name for entry in entries}
