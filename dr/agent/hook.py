"""The permit hook of this host: installed, given its list, and proven to refuse.

Here: when the hook's files are written and when it is tried. Not here: the files (`dr.adapters.libvirt`),
permits of single tickets (`dr.agent.tickets`).

The hook is what makes a start that was lost in libvirt harmless: without a permit it is refused. So nothing is started
while the hook is not proven, and nobody is testified absent while the list is not in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dr.agent.journal import Worker
from dr.model.base import GuestId
from dr.model.commands import ProtectedEntry
from dr.model.facts import HookState
from dr.ports.hypervisor import Gate, Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.hook")


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
    ) -> None:
        self._gate = gate
        self._hypervisor = hypervisor
        self._worker = worker
        self._write_s = write_s
        self._prove_s = prove_s
        self._retry_s = retry_s
        self._changed = changed
        self._proving = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._fresh = False  # whether `state` was found with this libvirtd and these files
        self._rounds = 0
        self._guarded: frozenset[GuestId] = frozenset()  # what the hook's files surely protect
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

        await self._in_force(write, entries)

    async def protect(self, entries: tuple[ProtectedEntry, ...]) -> None:
        """Put a list in force. Look at `trouble` afterwards."""
        await self._in_force(lambda: self._gate.protect(_names(entries)), entries)

    async def _in_force(self, write: Callable[[], None], entries: tuple[ProtectedEntry, ...] | None) -> None:
        self._guarded &= frozenset(_names(entries or ()))  # while it is written, only what is on both lists
        try:
            await self._worker.call(write, self._write_s)
            trouble = ""
        except TimeoutError:
            trouble = f"the permit hook could not be written: no answer from the disk for {self._write_s:g} s"
        except OSError as error:
            trouble = f"the permit hook could not be written: {error}"
        if trouble != self.trouble:
            log.log(logging.ERROR if trouble else logging.INFO, "%s", trouble or "the hook is written again")
            self.stale()
        self.trouble = trouble
        if not trouble and entries is not None:
            self._guarded = frozenset(_names(entries))
        self._changed()

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
        """The hook's state; tried now unless it is known to hold."""
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
        self._fresh = rounds == self._rounds  # libvirtd may have restarted during the trial
        self._changed()

    def revoke(self, guest: GuestId) -> None:
        """Remove any permit of this guest. Raises OSError."""
        self._gate.revoke(guest)


def _names(entries: tuple[ProtectedEntry, ...]) -> dict[GuestId, str]:
    return {entry.guest: entry.name for entry in entries}
