"""The disks of a guest that is off go from one simulated host's agent to another's: what each end does of it.

Here: the effects of SEND and TAKE, in the order of `dr.agent.transfers`, where the reasons are; the copying itself dies
with the processes at its ends, and what has arrived stays. Not here: the files (`dr.sim.images`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr.core import warden
from dr.model.base import GuestId, changed
from dr.model.commands import Answer, Outcome, SendDisks, TakeDisks, Testimony
from dr.model.facts import Progress, Sighting
from dr.model.memory import Image
from dr.sim.link import Link

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent

STEP_S = 0.25
PATIENCE_S = 5.0  # an end that hears nothing of the other for so long gives up
MIB_PER_S = 256.0

Done = Callable[[Answer], None]


@dataclass
class Part:
    """What one end has under way."""

    order: SendDisks | TakeDisks
    ended: Done
    heard: float
    image: Image | None = None  # where it is taken to
    version: int = 0  # of the file that is sent
    fault: str = ""
    left_s: float = 0.0
    began: float = 0.0
    called_off: Outcome | None = None  # and how it ends then
    placed: bool = False  # the other end has it under its name
    over: bool = False


class SimCopies:
    """Of one agent's process."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self.taking: dict[GuestId, Part] = {}
        self.sending: dict[GuestId, Part] = {}

    def cancel(self, guest: GuestId, *, again: bool) -> bool:
        """False: nothing of it is under way here."""
        parts = [parts[guest] for parts in (self.taking, self.sending) if guest in parts]
        for part in parts:
            part.called_off = Outcome.UNKNOWN if again else Outcome.FAILED
        return bool(parts)

    def progress(self) -> tuple[Progress, ...]:
        """Of what is sent."""
        now = self._agent.host.world.clock.now
        return tuple(
            Progress(
                guest=guest,
                elapsed_s=round(now - part.began, 2),
                total_mib=float(self._agent.host.world.disk_of(guest)),
                remaining_mib=max(0.0, part.left_s) * MIB_PER_S,
                rate_mib_s=MIB_PER_S,
            )
            for guest, part in sorted(self.sending.items())
        )

    # ---- the destination

    def take(self, link: Link, order: TakeDisks, ended: Done) -> None:
        agent, guest = self._agent, order.ticket.guest
        host = agent.host
        seen = agent.tickets.look(guest, order.ticket.generation)
        if seen.sighting is not Sighting.ABSENT:
            ended(Answer(outcome=Outcome.FAILED, reason=seen.reason, testimony=(seen,)))
            return

        def act() -> None:
            image = self._image(guest)
            if image is None:
                ended(
                    Answer(outcome=Outcome.FAILED, reason="there is such a file already", testimony=(seen,))
                )
            elif reason := agent.valid(link, order):
                ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            else:
                host.world.truth.obeyed(host, order.ticket)
                host.world.truth.ticket_run(host, order.ticket)
                now = host.world.clock.now
                self.taking[guest] = Part(order, ended, now, image=image)
                self._listen(guest, self.taking[guest])

        agent.later(host.world.rng.uniform(0.0, 0.05), act)

    def _image(self, guest: GuestId) -> Image | None:
        """That of an earlier try, if it is there still; else a new one, remembered durably before it has a name."""
        agent, images = self._agent, self._agent.host.images
        known = agent.memory.images.get(guest, ())
        if known and images.is_there(guest, known[0]):
            return known[0]
        images.remove(guest, known)
        made = images.prepare(guest)
        if made is not None:
            agent.memory = warden.with_images(agent.memory, guest, (made,))
            agent.save()
        return made

    def _listen(self, guest: GuestId, part: Part) -> None:
        if part.over:
            return
        if part.called_off is not None:
            self._taken(guest, part, part.called_off, "it was called off")
        elif self._agent.host.world.clock.now - part.heard > PATIENCE_S:
            self._taken(guest, part, Outcome.UNKNOWN, "nothing came from the other end")
        else:
            self._agent.later(STEP_S, lambda: self._listen(guest, part))

    def _taken(self, guest: GuestId, part: Part, outcome: Outcome, reason: str) -> None:
        """What failed for good is removed; what only broke off stays for the next try."""
        agent = self._agent
        part.over = True
        del self.taking[guest]
        if outcome is Outcome.FAILED:
            agent.host.images.remove(guest, agent.memory.images.get(guest, ()))
            agent.memory = warden.with_images(agent.memory, guest, ())
            agent.save()
        seen = agent.tickets.look(guest, part.order.ticket.generation)
        part.ended(Answer(outcome=outcome, reason=reason, testimony=(seen,)))

    def whole(self, guest: GuestId, part: Part, version: int) -> bool:
        """All has arrived and was read again: under its name with it. False: that did not go."""
        image = part.image
        assert image is not None
        images = self._agent.host.images
        if not images.place(guest, image):
            self._taken(guest, part, Outcome.FAILED, "there is such a file already")
            return False
        images.files[guest].version = version
        self._taken(guest, part, Outcome.DONE, "")
        return True

    # ---- the source

    def send(self, link: Link, order: SendDisks, ended: Done) -> None:
        agent, guest = self._agent, order.ticket.guest
        host = agent.host
        seen = agent.tickets.look(guest, order.ticket.generation)
        file = host.images.files.get(guest)
        if seen.sighting is not Sighting.ABSENT or file is None:
            ended(Answer(outcome=Outcome.FAILED, reason=seen.reason or "no such file", testimony=(seen,)))
            return
        agent.memory = warden.with_sent(agent.memory, guest, host.images.identify(guest))
        agent.save()
        if reason := agent.valid(link, order):
            ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        host.world.truth.obeyed(host, order.ticket)
        host.world.truth.ticket_run(host, order.ticket)
        now = host.world.clock.now
        part = Part(order, ended, now, version=file.version, began=now)
        part.fault = host.world.troubles.meet("migrate", guest, host.name, order.to)
        there = host.world.hosts[order.to]
        rest_mib = host.world.disk_of(guest) - there.images.arrived_mib(guest)
        part.left_s = rest_mib / MIB_PER_S * host.world.rng.uniform(0.8, 1.5)
        part.left_s *= 20.0 if part.fault == "slow" else 1.0
        self.sending[guest] = part
        self._copy(guest, part)

    def _other_end(self, guest: GuestId, part: Part) -> Part | None:
        """What takes it over there, if it is reached now."""
        host, order = self._agent.host, part.order
        assert isinstance(order, SendDisks)
        to = host.world.hosts[order.to]
        taking = to.agent.copies.taking.get(guest)
        runs = to.agent.alive and not to.agent.frozen and host.world.network.migrates(host, to)
        return taking if runs and taking is not None and taking.order.ticket.id == order.copy else None

    def _copy(self, guest: GuestId, part: Part) -> None:
        """The source's side, step by step."""
        agent, now = self._agent, self._agent.host.world.clock.now
        other = self._other_end(guest, part) if part.fault not in ("hang", "deaf") else None
        if other is not None:
            part.heard = other.heard = now
        if part.placed:
            self._sent(guest, part, Outcome.DONE, "")
            return
        if part.called_off is not None:
            self._sent(guest, part, part.called_off, "it was called off")
            return
        if now - part.heard > PATIENCE_S:
            self._sent(guest, part, Outcome.UNKNOWN, "nothing came from the other end")
            return
        if other is not None and other.image is not None:
            self._step(guest, part, other)
        if not part.over:
            agent.later(STEP_S, lambda: self._copy(guest, part))

    def _step(self, guest: GuestId, part: Part, other: Part) -> None:
        host = self._agent.host
        assert isinstance(part.order, SendDisks)
        there = host.world.hosts[part.order.to]
        part.left_s -= STEP_S
        arrived = host.world.disk_of(guest) - max(0.0, part.left_s) * MIB_PER_S
        assert other.image is not None
        there.images.arrived(guest, other.image, arrived)
        if part.fault == "full":
            reason = "no space left on device"
            there.agent.run(lambda: there.agent.copies.refuse(guest, other, reason))
            self._sent(guest, part, Outcome.FAILED, reason)
        elif part.fault == "fail" and part.left_s < 1.0:
            part.fault = "hang"
        elif part.left_s <= 0:
            file = host.images.files.get(guest)
            if file is None or file.version != part.version:
                self._sent(guest, part, Outcome.FAILED, "its file was changed meanwhile")
                return
            whole: list[bool] = []
            there.agent.run(lambda: whole.append(there.agent.copies.whole(guest, other, part.version)))
            if not whole:
                part.fault = "hang"  # it died over it
            elif not whole[0]:
                self._sent(guest, part, Outcome.FAILED, "the other end does not take it")
            elif part.fault in ("lost", "lost_finish"):
                part.fault = "hang"
            else:
                part.placed = True

    def refuse(self, guest: GuestId, part: Part, reason: str) -> None:
        """Its disk is full, or the like."""
        if not part.over:
            self._taken(guest, part, Outcome.FAILED, reason)

    def _sent(self, guest: GuestId, part: Part, outcome: Outcome, reason: str) -> None:
        part.over = True
        del self.sending[guest]
        agent = self._agent
        seen = agent.tickets.look(guest, part.order.ticket.generation)
        seen = self._with_ticket(seen, part, outcome)
        if seen.left_by == part.order.ticket.id:  # what was taken here is old now, as any disk that left
            agent.memory = warden.with_images(agent.memory, guest, ())
        part.ended(Answer(outcome=outcome, reason=reason, testimony=(seen,)))

    @staticmethod
    def _with_ticket(seen: Testimony, part: Part, outcome: Outcome) -> Testimony:
        done = outcome is Outcome.DONE and seen.sighting is Sighting.ABSENT
        return changed(seen, left_by=part.order.ticket.id) if done else seen
