"""A whole drain over modelled links, by the decisions themselves: what was foretold is about what comes of it."""

from __future__ import annotations

import random

import pytest

from dr.core.links import to_send_mib, traffic_of
from dr.core.schedule import Sending, bound_s, shares
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Answer, Migrate, Outcome, Receive, Resume
from dr.model.effects import Effect, Forecast, Reply, Send
from dr.model.events import Answered, AskApply, AskDrain, Tick
from dr.model.facts import Sighting
from dr.model.operations import Operation, OperationState
from dr.model.policy import GuestRule
from tests.core.build import Bench, domain, guest
from tests.core.test_links import bench

STEP_S = 0.1
TICKET_S = 0.4  # until a ticket is answered; QEMU's start at the destination, the proof at the source
LAST_S = 2000.0


class Net:
    """Agents that do as they are told, and links that are shared evenly."""

    def __init__(self, made: Bench, mib_s: dict[str, int]) -> None:
        self.made = made
        self.mib_s = mib_s
        self.sending: dict[str, tuple[Send, Sending]] = {}
        self.due: list[tuple[float, Send]] = []
        self.sent: list[Sending] = []
        self.most = 0  # at once
        self.most_in = self.most_out = 0  # at once, of one host

    def run(self, ask: AskDrain | AskApply) -> tuple[Forecast, list[Operation]]:
        """Until its jobs have ended."""
        effects = self.made.send(ask)
        reply = next(each for each in effects if isinstance(each, Reply))
        assert reply.forecast is not None, reply.blockers
        jobs = self.made.state.operations
        self._take(effects)
        until = self.made.now + LAST_S
        while any(jobs[key].state is OperationState.OPEN for key in reply.operations):
            assert self.made.now < until, [host.reason for host in self.made.state.hosts.values()]
            self.made.now += STEP_S
            self.made.hear()
            self._flow()
            for order in [order for at, order in self.due if at <= self.made.now]:
                self._answer(order, Answer(outcome=Outcome.DONE))
            self.due = [each for each in self.due if each[0] > self.made.now]
            self._take(self.made.send(Tick()))
        return reply.forecast, [jobs[key] for key in reply.operations]

    def rate(self, name: str) -> float:
        return float(self.mib_s[name])

    def bound_s(self) -> float:
        return bound_s(self.sent, self.rate)

    def _take(self, effects: list[Effect]) -> None:
        for each in effects:
            if not isinstance(each, Send):
                continue
            if isinstance(each.body, Receive | Resume):
                self.due.append((self.made.now + TICKET_S, each))
            elif isinstance(each.body, Migrate):
                record = self.made.guest(each.body.ticket.guest)
                mib = to_send_mib(self.made.draft(), record)
                self.sent.append(Sending(each.id, each.host, each.body.to, mib))
                self.sending[each.id] = (each, self.sent[-1])
        self.most = max(self.most, len(self.sending))
        now = traffic_of(each for _, each in self.sending.values())
        self.most_in = max([self.most_in, *now.coming.values()])
        self.most_out = max([self.most_out, *now.leaving.values()])

    def _flow(self) -> None:
        busy = list(self.sending.values())
        speeds = shares([each for _, each in busy], self.rate)
        for (order, each), speed in zip(busy, speeds, strict=True):
            left = each._replace(mib=each.mib - speed * STEP_S)
            self.sending[order.id] = (order, left)
            if left.mib <= 0:
                del self.sending[order.id]
                self._left(order)

    def _left(self, order: Send) -> None:
        assert isinstance(order.body, Migrate)
        name = order.body.ticket.guest
        record = self.made.guest(name)
        seen = self.made.state.views[order.host].guests[name]
        here = {key: each for key, each in self.made.state.views[order.host].guests.items() if key != name}
        self.made.look(order.host, guests=here)
        self.made.see(order.body.to, changed(seen, id=name))
        gone = commands.Testimony(
            guest=name, sighting=Sighting.ABSENT, sealed=record.generation, left_by=order.id
        )
        self._answer(order, Answer(outcome=Outcome.DONE, testimony=(gone,)))

    def _answer(self, order: Send, answer: Answer) -> None:
        self._take(
            self.made.send(Answered(host=order.host, session=order.session, effect=order.id, answer=answer))
        )


def drained(made: Bench, mib_s: dict[str, int]) -> tuple[Forecast, float, Net]:
    net = Net(made, mib_s)
    forecast, (operation,) = net.run(AskDrain(id="d", by="ops", host="h1"))
    assert operation.state is OperationState.DONE, operation.steps[-1].text
    return forecast, operation.closed - operation.opened, net


RATES = {
    "alike": {"h1": 40, "h2": 40, "h3": 40},
    "slow destinations": {"h1": 200, "h2": 40, "h3": 40},
    "one slow": {"h1": 200, "h2": 200, "h3": 20},
    "slow source": {"h1": 40, "h2": 200, "h3": 200},
}


@pytest.mark.parametrize("mib_s", RATES.values(), ids=RATES)
@pytest.mark.parametrize("seed", range(2))
def test_what_was_foretold_comes_true(mib_s: dict[str, int], seed: int) -> None:
    rng = random.Random(seed)
    sizes = {f"g{at}": 64 * rng.randint(1, 16) for at in range(8)}
    made = bench(*(guest(name, "h1") for name in sizes), resident=sizes, mib_s=mib_s)
    forecast, took_s, net = drained(made, mib_s)
    assert took_s == pytest.approx(forecast.total_s, rel=0.15)
    assert net.bound_s() <= took_s <= 1.3 * net.bound_s() + 3.0, "the links were kept full"
    assert net.most == made.state.settings.limits.moves_out_per_host


def test_who_must_go_together_does_and_it_was_foretold() -> None:
    mib_s = RATES["alike"]
    sizes = {f"g{at}": 64 * (at + 1) for at in range(6)}
    made = bench(*(guest(name, "h1") for name in sizes), resident=sizes, mib_s=mib_s)
    rule = GuestRule(name="trio", guests=("g0", "g1", "g2"), kind="together", strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    forecast, took_s, net = drained(made, mib_s)
    assert took_s == pytest.approx(forecast.total_s, rel=0.15)
    assert net.most == 3, "the three count as one"
    assert len({made.guest(name).holder for name in ("g0", "g1", "g2")}) == 1


def test_the_longest_first_beats_the_order_of_names() -> None:
    """One large guest whose name comes last: behind all others it would go alone, over a link that is wider than its
    destination's."""
    mib_s = {"h1": 100, "h2": 50, "h3": 50}
    sizes = {"a": 512, "b": 512, "c": 512, "d": 512, "z": 2048}
    made = bench(*(guest(name, "h1") for name in sizes), resident=sizes, mib_s=mib_s)
    forecast, took_s, _ = drained(made, mib_s)
    by_name_s = 1024 / 50 + 2048 / 50
    assert took_s < by_name_s - 10
    assert took_s == pytest.approx(forecast.total_s, rel=0.15)
    assert domain("z").runs
