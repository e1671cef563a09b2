"""What the verbs of a scenario act on: the world, backups by name, and people who ask until somebody answers.

Here: what a verb needs beside the world. Not here: the verbs (`verbs_*`), when they happen (`dr.sim.run`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dr.model.base import GuestId, HostName, changed
from dr.model.effects import Reply
from dr.model.events import AskApply, OperatorAsk, Reconfigured
from dr.model.settings import Settings
from dr.model.words import ALL
from dr.sim.store import SimStore
from dr.sim.world import World

SOON_S = 5.0  # as long as `dr` itself asks again what was refused only for what is over in a moment
ASK_AGAIN_S = 0.5

Make = Callable[[str], OperatorAsk]


@dataclass(frozen=True)
class Wish:
    """What somebody asks until it is answered."""

    make: Make
    words: str
    answer: str  # that is expected
    because: str
    since: float
    patience_s: float  # another answer is not taken before
    still: Callable[[], bool]  # whether it is still wanted


class Stage:
    """One scenario under way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.backups: dict[str, SimStore] = {}
        self.plans: dict[str, AskApply] = {}  # that somebody approved
        self.violations: list[str] = []
        self.unanswered: dict[str, str] = {}  # asks that nobody has answered yet, in words
        # For so long after its first asking, somebody who got another answer than wanted asks again: a coordinator
        # that has just started says "try again in a moment".
        self.patience_s = 0.0
        self.still: Callable[[], bool] = lambda: (
            True
        )  # whether what is being done is still wanted: see `Act.if_`

    def hosts(self, names: Iterable[HostName]) -> list[HostName]:
        names = list(names)
        return sorted(self.world.hosts) if names == [ALL] else names

    def guests(self, names: Iterable[GuestId]) -> list[GuestId]:
        names = list(names)
        return sorted(self.world.definitions) if names == [ALL] else names

    # ---- people

    def ask(self, make: Make, answer: str, because: str) -> None:
        """Somebody asks, and again as long as nobody answers; then the answer is compared with what is expected.

        An answer that was lost because the coordinator died over the question is as good as any: what became of it
        shows in what happens next, and a second asking may be refused for that very reason.
        """
        words = _in_words(make(""))
        self.unanswered[words] = words
        wish = Wish(make, words, answer, because, self.world.clock.now, self.patience_s, self.still)
        self._ask(wish, lost=False)

    def _ask(self, wish: Wish, *, lost: bool) -> None:
        world, coordinator = self.world, self.world.coordinator
        reply: Reply | None = None
        if not wish.still():
            self.unanswered.pop(wish.words, None)
            return
        if coordinator.listening:
            key = world.next_ask()
            coordinator.submit(wish.make(key))
            reply = coordinator.replies.pop(key, None)
            lost = lost or reply is None
        if reply is None:
            world.clock.after(ASK_AGAIN_S, lambda: self._ask(wish, lost=lost))
            return
        said = "; ".join(reply.blockers) or reply.message
        unlike = "" if lost else _unlike(wish, _word(reply), said)
        patience_s = max(wish.patience_s, SOON_S if reply.soon else 0.0)
        if unlike and world.clock.now < wish.since + patience_s:
            world.clock.after(ASK_AGAIN_S, lambda: self._ask(wish, lost=False))
            return
        self.unanswered.pop(wish.words, None)
        text = f"{wish.words}: {_word(reply)}{f': {said}' if said else ''}"
        world.say(text, "answer", answer=_word(reply))
        if unlike:
            self.violate(f"{wish.words}: {unlike}{f': {said}' if said else ''}")

    def violate(self, text: str) -> None:
        self.world.say(f"NOT AS EXPECTED {text}", "violation")
        self.violations.append(f"at {self.world.clock.now:.1f} s: {text}")

    # ---- configuration

    def reconfigure(self, change: Callable[[Settings], Settings]) -> None:
        """A new configuration is read; a coordinator that is down meets it when it starts."""
        world = self.world
        world.settings = change(world.settings)
        world.coordinator.receive(lambda: world.coordinator.submit(Reconfigured(settings=world.settings)))

    def set_host_policy(self, name: HostName, **fields: object) -> None:
        self.reconfigure(
            lambda old: changed(old, hosts=old.hosts | {name: changed(old.hosts[name], **fields)})
        )


def _unlike(wish: Wish, found: str, said: str) -> str:
    """What is other than expected in an answer; "" = nothing."""
    if wish.answer == "any":
        return ""
    if found != wish.answer:
        return f"{found}, not {wish.answer}"
    return "" if wish.because.lower() in said.lower() else f'{found}, but not because of "{wish.because}"'


def _word(reply: Reply) -> str:
    return "accepted" if reply.accepted else "refused"


def _in_words(ask: OperatorAsk) -> str:
    named = getattr(ask, "hosts", ()) or getattr(ask, "guests", ())
    subject = getattr(ask, "host", "") or ", ".join(named) or getattr(ask, "name", "")
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(ask).__name__.removeprefix("Ask"))
    return f"{words.strip()} {subject}".strip()
