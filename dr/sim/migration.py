"""One peer-to-peer migration between two simulated libvirts: Prepare, Perform, switch-over, Finish, Confirm.

Here: what libvirt and QEMU do at both ends, and how each phase can fail, as it was seen with libvirt 9.0. Not here: who
asked for it (`dr.sim.tickets`, or a person).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr.model.base import GuestId
from dr.model.facts import DomainState, Progress
from dr.sim.cpus import refusal
from dr.sim.domain import Domain, Ended

if TYPE_CHECKING:
    from dr.sim.host import SimHost

STEP_S = 0.25
KEEPALIVE_S = 6.0  # a peer that says nothing for so long is given up
MIB_PER_S = 512.0
FAULTS = (
    "fail",  # in the middle of the copying
    "hang",  # it makes no progress; an abort helps
    "deaf",  # the same, and an abort is not obeyed for a while
    "never_converges",  # the guest is faster than the network, also when it is slowed down
    "hot",  # so it is, unless it is slowed down
    "busy",  # passes come to no shorter standstill than 0.7 s
    "slow",
    "full",  # the destination has no memory for it
    "queued",  # Prepare arrives late
    "lost_finish",  # the destination's last word does not arrive: the source goes on, the copy waits
    "stuck",  # the source's libvirtd dies at the switch-over: the guest stands at both ends
    "lost",  # it succeeds, and the caller never hears of it
)


STANDSTILL_S = {
    "never_converges": 30.0,
    "hot": 5.0,
    "busy": 0.7,
}  # that a pass of a guest at full speed leaves
PLAIN_DOWNTIME_S = 0.3  # QEMU's own limit
HELPS_PCT = 70  # slowed down by less, a hot guest is faster than the network still
PASS_S = 0.7  # over what became dirty
HIGH = 0.5  # a pass that leaves more of what it sent left too much


class Migration:
    """`paused`: the copy waits at its end, as dr asks for; by hand it runs at once."""

    def __init__(
        self,
        source: SimHost,
        to: SimHost,
        guest: GuestId,
        fault: str,
        ended: Ended,
        *,
        paused: bool = True,
        auto_converge: bool = False,
    ) -> None:
        self.source, self.to, self.guest = source, to, guest
        self.fault = fault
        self.paused = paused
        self._cpu = source.domains[guest].cpu
        self.auto_converge = auto_converge
        self.downtime_s = PLAIN_DOWNTIME_S  # allowed at the switch-over
        self._passes = 1
        self._throttle_pct = 0
        # Passes since it was last slowed down that left too much; the faults of busy guests begin with one.
        self._too_much = int(guest not in source.world.writes)
        self._began = source.world.clock.now
        self._ended = ended
        self._copies = bool(source.domains[guest].definition.local)
        self._phase = "prepare"
        self._aborted_at: float | None = None
        self._left_s = self._pass_s = self._copying_s()
        self._switched = 0.0
        self._heard = source.world.clock.now  # when the peer was last reached
        self.arrived = False  # Finish was done: the copy is whole

    def _copying_s(self) -> float:
        factor = {"slow": 20.0, "hang": 1e9, "deaf": 1e9}.get(self.fault, 1.0)
        world = self.source.world
        size_mib = world.resident_of(self.guest) + world.disk_of(self.guest)
        return size_mib / MIB_PER_S * self.source.world.rng.uniform(0.8, 1.5) * factor

    @property
    def _now(self) -> float:
        return self.source.world.clock.now

    @property
    def _copy(self) -> Domain | None:
        """The copy as long as it is this job's, and its QEMU lives."""
        domain = self.to.domains.get(self.guest)
        return domain if domain is not None and domain.incoming is self and domain.active else None

    def begin(self) -> None:
        self.source.domains[self.guest].outgoing = self
        rng = self.source.world.rng
        late_s = rng.uniform(2.0, 15.0) if self.fault == "queued" else rng.uniform(0.02, 0.1)
        self.to.later(late_s, self._prepare)
        self.source.later(STEP_S, self._wait)
        self.source.agent.look_again()

    def progress(self) -> Progress | None:
        """As libvirt tells it at the source."""
        if self._phase != "perform":
            return None
        world = self.source.world
        memory_mib = float(self.source.domains[self.guest].memory_mib + world.disk_of(self.guest))
        rest_mib = max(0.0, self._left_s) * MIB_PER_S
        return Progress(
            guest=self.guest,
            elapsed_s=round(self._now - self._began, 2),
            total_mib=memory_mib,
            remaining_mib=min(memory_mib, rest_mib),
            rate_mib_s=MIB_PER_S,
            dirty_mib_s=MIB_PER_S if self._passes > 1 else 0.0,
            passes=self._passes,
            standstill_s=self._standstill_s if self._passes > 1 else 0.0,
            throttle_pct=self._throttle_pct,
        )

    @property
    def _standstill_s(self) -> float:
        """That the end of this pass would leave."""
        writes = self.source.world.writes.get(self.guest)
        if writes is not None and self.fault not in STANDSTILL_S:
            return writes.within(self._pass_s * (1 - self._throttle_pct / 100)) / MIB_PER_S
        helps = self.fault == "hot" and self._throttle_pct >= HELPS_PCT
        return STANDSTILL_S.get(self.fault, 0.0) * (1 - self._throttle_pct / 100 if helps else 1.0)

    def _pass_over(self, domain: Domain) -> None:
        """Switch over, or send once more what became dirty; a guest that is too fast is slowed down more and more."""
        if self._standstill_s <= self.downtime_s:
            self._switch(domain)
            return
        self._passes += 1
        writing = self.source.world.writes.get(self.guest) is not None and self.fault not in STANDSTILL_S
        before_s, self._pass_s = self._pass_s, self._standstill_s if writing else PASS_S
        self._left_s = self._pass_s
        self._too_much += not writing or self._pass_s > HIGH * before_s
        if self.auto_converge and self._too_much == 2 and self.fault != "busy":
            self._too_much = 0
            self._throttle_pct = min(99, self._throttle_pct + (10 if self._throttle_pct else 20))

    def abort(self) -> str:
        """Asked to end; says why not."""
        if self._phase not in ("prepare", "perform"):
            return "it is at its switch-over"
        if self._aborted_at is None:
            self._aborted_at = self._now + (20.0 if self.fault == "deaf" else 0.0)
        return ""

    # ---- at the destination

    def _prepare(self) -> None:
        host = self.to
        if host.libvirtd == "down" or not self._reached():
            return  # the source finds out by itself
        if host.libvirtd == "hung":
            host.later(STEP_S, self._prepare)  # in its queue, whatever becomes of the source
            return
        there = host.domains.get(self.guest)
        if self.guest in host.guarded and not host.take_permit(self.guest, "receive"):
            host.world.say(
                f"{host.name}: the hook lets no {self.guest} in",
                "hook.refused",
                host=host.name,
                guest=self.guest,
            )
            self._fail("refused by the dr hook: no permit")
        elif self.fault == "full":
            self._fail("cannot allocate memory")
        elif self._copies and self.guest not in host.images.files:
            self._fail("cannot precreate storage for disk")
        elif there is not None and there.active:
            self._fail("the domain is active there")
        elif why := refusal(self._cpu, host.cpu):
            self._fail(why)
        else:
            origin = self.source.domains[self.guest]
            host.domains[self.guest] = Domain(
                origin.definition,
                origin.memory_mib,
                DomainState.PAUSED,
                "migration",
                incoming=self,
                cpu=self._cpu,
            )
            host.agent.look_again()
            if self._phase == "prepare":
                self._phase = "perform"
            host.later(STEP_S, self._receive)

    def _receive(self) -> None:
        """Its libvirtd gives a copy up whose source is gone; a new libvirtd gives up what has not arrived."""
        if self._copy is None or self.arrived:
            return
        source_gone = self._phase == "over" or self._now - self._heard > KEEPALIVE_S
        if self.to.libvirtd == "down" or (self.to.libvirtd == "up" and source_gone):
            self._remove_copy()
        else:
            self.to.later(STEP_S, self._receive)

    def _remove_copy(self) -> None:
        copy = self._copy
        if copy is not None and not self.arrived:
            self.to.ended(self.guest, copy, "failed")
            del self.to.domains[self.guest]

    def _finish(self) -> None:
        host, copy = self.to, self._copy
        if host.libvirtd == "down" or copy is None:
            return
        if host.libvirtd == "hung":
            host.later(STEP_S, self._finish)  # in its queue: it runs even if the source went on meanwhile
            return
        self.arrived = True
        copy.incoming, copy.reason = None, "user"
        if not self.paused:
            host.resumed(self.guest, copy, "migrated")
        host.agent.look_again()
        if self.fault != "lost_finish" and self._reached():
            self.source.later(self.source.world.rng.uniform(0.01, 0.1), self._confirm)

    # ---- at the source

    def _reached(self) -> bool:
        if self.source.world.network.migrates(self.source, self.to):
            self._heard = self._now
            return True
        return False

    def _wait(self) -> None:
        """The source's side, until Confirm or an error."""
        domain = self.source.domains.get(self.guest)
        if self._phase == "over" or domain is None or domain.outgoing is not self:
            return
        if self.source.libvirtd == "down":
            self._libvirtd_died(domain)
            return
        self.source.later(STEP_S, self._wait)
        if self.source.libvirtd == "hung":
            return
        if self._reached() and self._phase == "perform" and self._copy is not None:
            self._left_s -= STEP_S
        silent = self._now - self._heard > KEEPALIVE_S
        if self._aborted_at is not None and self._now >= self._aborted_at and self._phase != "finish":
            self._fail("operation aborted")
        elif silent or (self._phase == "prepare" and self.to.libvirtd == "down"):
            self._fail("the connection to the destination is lost")
        elif self._phase == "perform" and self._copy is None:
            self._fail("the destination's QEMU is gone")
        elif self._phase == "perform" and self.fault == "fail" and self._left_s < 1.0:
            self._fail("the migration socket was closed")
        elif self._phase == "perform" and self._left_s <= 0:
            self._pass_over(domain)
        elif self._phase == "finish" and self._now - self._switched > KEEPALIVE_S:
            self._fail(
                "client socket is closed"
            )  # Finish was done or not: libvirt goes on here, whatever it was

    def _switch(self, domain: Domain) -> None:
        self._phase, self._switched = "finish", self._now
        if domain.runs:
            self.source.paused(self.guest, domain, "migration")
        copy = self._copy
        assert copy is not None
        copy.memory_at = domain.memory_at
        if self._copies:
            self.to.images.files[self.guest].version = self.source.images.files[self.guest].version
        if self.fault == "stuck":
            self.source.set_libvirtd("down")
            self.source.later(3.0, lambda: self.source.set_libvirtd("up"))
        self.to.later(self.source.world.rng.uniform(0.01, 0.1), self._finish)

    def _libvirtd_died(self, domain: Domain) -> None:
        """A new libvirtd cancels what was being copied, and leaves alone what stands at its switch-over."""
        if self._phase == "finish":
            self._phase, domain.outgoing = "over", None
            self._ended("", "libvirt is gone")
        else:
            self._fail("", "libvirt is gone")

    def _confirm(self) -> None:
        domain = self.source.domains.get(self.guest)
        if self._phase != "finish" or domain is None or domain.outgoing is not self:
            return
        if self.source.libvirtd == "hung":
            self.source.later(STEP_S, self._confirm)
        elif self.source.libvirtd == "up":
            self._phase = "over"
            self.source.ended(self.guest, domain, "migrated")
            if self.fault != "lost":
                self._ended("", "")

    def _fail(self, why: str, unseen: str = "") -> None:
        if self._phase == "over":
            return
        self._phase = "over"
        self._remove_copy()
        domain = self.source.domains.get(self.guest)
        if domain is not None and domain.outgoing is self:
            domain.outgoing = None
            if domain.state is DomainState.PAUSED and domain.reason == "migration":
                self.source.resumed(self.guest, domain, "migration canceled")
            self.source.agent.look_again()
        self._ended(why, unseen)

    def lost_end(self, host: SimHost) -> None:
        """The domain at one end is gone: its QEMU died, or it was destroyed."""
        if host is self.to or self._phase == "over":
            return  # the source finds out by itself
        self._phase = "over"
        self.to.later(self.source.world.rng.uniform(0.05, 0.5), self._remove_copy)
        self._ended("the guest is gone", "")
