"""The host's side of one copy: whatever comes in whatever order, nothing sealed is begun and nothing is begun twice."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dr.core import warden
from dr.model.base import changed
from dr.model.commands import (
    Answer,
    Clean,
    Outcome,
    Protect,
    ProtectedEntry,
    Start,
    Stop,
    Ticket,
    TicketKind,
)
from dr.model.facts import Definition
from dr.model.memory import AgentMemory, Copy, Image
from dr.model.wire import PROTOCOL, Command, Welcome

HOST, BOOT = "h1", "b1"
GUESTS = ["g1", "g2"]
G = GUESTS[0]
SESSION = "s1"
Verdict = warden.Accept | warden.Known | warden.Refuse

epochs = st.integers(1, 3)
leaders = st.sampled_from(["l1", "l2"])
guests = st.sampled_from(GUESTS)
generations = st.integers(1, 8)
kinds = st.sampled_from(list(TicketKind))
ids = st.sampled_from([f"c{number}" for number in range(12)])


def ticket(
    guest: str = "g1",
    generation: int = 1,
    *,
    kind: TicketKind = TicketKind.START,
    epoch: int = 1,
    leader: str = "l1",
    **fields: str,
) -> Ticket:
    made = Ticket(
        id=f"t-{guest}-{generation}",
        kind=kind,
        guest=guest,
        name=guest.upper(),
        generation=generation,
        host=HOST,
        boot_id=BOOT,
        epoch=epoch,
        leader_id=leader,
        session=SESSION,
        revision=1,
    )
    return changed(made, **fields)


def welcome(
    epoch: int = 1, leader: str = "l1", *, cluster: str = "c", revision: int = 1, protocol: int = PROTOCOL
) -> Welcome:
    return Welcome(
        protocol=protocol,
        version="1",
        cluster=cluster,
        epoch=epoch,
        leader_id=leader,
        revision=revision,
        session=SESSION,
        nonce="n",
        heartbeat_s=0.5,
    )


def listing(*names: str, version: int = 1, generation: int = 0) -> Protect:
    return Protect(
        version=version,
        entries=tuple(ProtectedEntry(guest=name, name=name.upper(), generation=generation) for name in names),
    )


def ready(*names: str, generation: int = 0) -> AgentMemory:
    """The memory of a host that follows l1 in epoch 1 and has a list."""
    memory, _ = warden.adopt(AgentMemory(), welcome())
    memory, _ = warden.protect(memory, listing(*(names or GUESTS), generation=generation))
    return memory


def admit(memory: AgentMemory, order: Ticket, command: str = "c1") -> tuple[AgentMemory, Verdict]:
    return warden.admit(memory, command, order, host=HOST, boot_id=BOOT, session=SESSION)


def refusal(memory: AgentMemory, order: Ticket, command: str = "c1") -> str:
    after, verdict = admit(memory, order, command)
    assert isinstance(verdict, warden.Refuse), verdict
    assert after is memory
    return verdict.reason


class Host(RuleBasedStateMachine):
    """Everything that can reach one host's memory, beside the dumbest possible record of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = AgentMemory()
        self.begun: set[str] = set()  # command ids ever accepted
        self.over = dict.fromkeys(GUESTS, 0)  # promised while the guest was on the list: nothing up to here
        self.highest = (0, 0)  # epoch, revision
        self.answers: dict[str, Answer] = {}

    @rule(epoch=epochs, leader=leaders, revision=st.integers(0, 9), cluster=st.sampled_from(["c", "other"]))
    def someone_leads(self, epoch: int, leader: str, revision: int, cluster: str) -> None:
        before = self.memory
        self.memory, verdict = warden.adopt(
            before, welcome(epoch, leader, revision=revision, cluster=cluster)
        )
        if isinstance(verdict, warden.Refuse):
            assert self.memory is before
            assert verdict.reason
        else:
            assert (self.memory.epoch, self.memory.leader_id) == (epoch, leader)
            assert epoch > before.epoch or before.leader_id in {"", leader}
            assert before.cluster in {"", cluster}

    @rule(
        command=ids,
        guest=guests,
        generation=generations,
        kind=kinds,
        led=st.tuples(epochs, leaders),
        odd=st.sampled_from(["", "", "", "host", "boot_id", "session"]),
    )
    def ticket_comes(
        self, *, command: str, guest: str, generation: int, kind: TicketKind, led: tuple[int, str], odd: str
    ) -> None:
        epoch, leader = led
        fields = {odd: "x"} if odd else {}
        order = ticket(guest, generation, kind=kind, epoch=epoch, leader=leader, **fields)
        before = self.memory
        self.memory, verdict = admit(before, order, command)
        if command in self.begun and isinstance(verdict, warden.Known):
            expected = self.answers.get(command, warden.STILL_UNDER_WAY)
            assert verdict.answer == expected
        assert isinstance(verdict, warden.Known) == (command in self.begun)
        if not isinstance(verdict, warden.Accept):
            assert self.memory is before
            return
        assert command not in self.begun
        assert not odd
        assert (epoch, leader) == (before.epoch, before.leader_id)
        assert generation > self.over[guest]
        assert guest in warden.listed(before)
        assert self.memory.revision >= order.revision
        self.begun.add(command)
        self.over[guest] = generation

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def it_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        command = data.draw(st.sampled_from(sorted(self.begun)))
        self.memory = warden.finish(self.memory, command, Answer(outcome=outcome))
        self.answers.setdefault(command, Answer(outcome=outcome))

    @rule(guest=guests, generation=generations)
    def testimony_is_asked(self, guest: str, generation: int) -> None:
        self.memory = warden.seal(self.memory, {guest: generation})
        assert self.memory.sealed[guest] >= generation
        if guest in warden.listed(self.memory):
            self.over[guest] = max(self.over[guest], generation)

    @rule(names=st.sets(guests), step=st.integers(-1, 1), generation=st.integers(0, 8))
    def list_comes(self, names: set[str], step: int, generation: int) -> None:
        before = self.memory
        version = max(0, before.protected_version + step)
        self.memory, verdict = warden.protect(
            before, listing(*sorted(names), version=version, generation=generation)
        )
        assert isinstance(verdict, warden.Refuse) == (version < before.protected_version)
        if isinstance(verdict, warden.Refuse):
            return
        old = {entry.guest: entry.generation for entry in before.entries}
        assert warden.listed(self.memory) == names
        for entry in self.memory.entries:
            assert entry.generation >= old.get(entry.guest, 0)
            if entry.guest not in old:
                assert self.memory.sealed.get(entry.guest, 0) >= generation
        for guest in GUESTS:
            if guest not in names:
                self.over[guest] = 0  # not protected: refused for that, until it is listed anew
            elif guest not in old:
                self.over[guest] = generation

    @rule()
    def agent_restarts(self) -> None:
        self.memory = warden.wake(self.memory, "p2")
        for command in self.begun:
            self.answers.setdefault(command, warden.LOST_IN_RESTART)

    @invariant()
    def nothing_promised_is_taken_back(self) -> None:
        assert (self.memory.epoch, self.memory.revision) >= self.highest
        assert self.memory.revision >= self.highest[1]
        self.highest = (self.memory.epoch, self.memory.revision)
        for guest in warden.listed(self.memory):
            assert self.memory.sealed.get(guest, 0) >= self.over[guest]


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(guests, generations, kinds), max_size=20))
def test_each_generation_is_begun_once_and_only_upwards(tickets: list[tuple[str, int, TicketKind]]) -> None:
    memory = ready()
    begun: list[tuple[str, int]] = []
    for number, (guest, generation, kind) in enumerate(tickets):
        memory, verdict = admit(memory, ticket(guest, generation, kind=kind), f"c{number}")
        if isinstance(verdict, warden.Accept):
            begun.append((guest, generation))
    for guest in GUESTS:
        of_guest = [generation for name, generation in begun if name == guest]
        assert of_guest == sorted(set(of_guest))


@given(st.lists(st.integers(0, 9)))
def test_revision_never_goes_down(revisions: list[int]) -> None:
    memory = AgentMemory()
    for revision in revisions:
        memory = warden.acknowledge(memory, revision)
    assert memory.revision == max(revisions, default=0)


def test_who_may_lead() -> None:
    memory, verdict = warden.adopt(AgentMemory(), welcome(epoch=4, leader="l1", revision=7))
    assert isinstance(verdict, warden.Accept)
    assert (memory.cluster, memory.epoch, memory.leader_id, memory.revision) == ("c", 4, "l1", 7)
    for other, word in [
        (welcome(epoch=3, leader="l1"), "already follows epoch 4"),
        (welcome(epoch=4, leader="l2"), "belongs to leader l1"),
        (welcome(epoch=9, leader="l2", cluster="else"), "belongs to c"),
        (welcome(epoch=9, leader="l2", protocol=PROTOCOL + 2), "upgrade dr"),
    ]:
        after, verdict = warden.adopt(memory, other)
        assert after is memory
        assert isinstance(verdict, warden.Refuse)
        assert word in verdict.reason
    again, verdict = warden.adopt(memory, welcome(epoch=4, leader="l1", revision=6))
    assert isinstance(verdict, warden.Accept)
    assert again.revision == 7


def test_a_host_without_memory_takes_nothing_until_it_has_the_list_and_then_nothing_old() -> None:
    memory, _ = warden.adopt(AgentMemory(), welcome())
    assert "send the list first" in refusal(memory, ticket(generation=9))
    memory, _ = warden.protect(memory, listing("g1", version=3, generation=5))
    assert "sealed up to 5" in refusal(memory, ticket(generation=5))
    memory, verdict = admit(memory, ticket(generation=6))
    assert isinstance(verdict, warden.Accept)


def test_a_list_that_is_only_sent_again_does_not_refuse_the_ticket_that_follows_it() -> None:
    memory, _ = warden.protect(ready("g1", generation=5), listing("g1", version=2, generation=6))
    memory, verdict = admit(memory, ticket(generation=6))
    assert isinstance(verdict, warden.Accept)


def test_a_guest_protected_anew_may_start_its_generations_anew() -> None:
    memory, _ = admit(ready("g1"), ticket(generation=7))
    memory, _ = warden.protect(memory, listing(version=2))
    assert "not on the protected list" in refusal(memory, ticket(generation=8), "c2")
    memory, _ = warden.protect(memory, listing("g1", version=3))
    _, verdict = admit(memory, ticket(generation=1), "c2")
    assert isinstance(verdict, warden.Accept)


def test_begun_and_never_ended_is_unknown_after_a_restart() -> None:
    memory, _ = admit(ready(), ticket())
    _, verdict = admit(memory, ticket())
    assert verdict == warden.Known(answer=warden.STILL_UNDER_WAY)
    memory = warden.wake(memory, "p2")
    _, verdict = admit(memory, ticket())
    assert verdict == warden.Known(answer=warden.LOST_IN_RESTART)
    assert "sealed up to 1" in refusal(memory, ticket(), "another id for the same ticket")


def test_memory_of_tickets_is_bounded_and_keeps_what_has_not_ended() -> None:
    memory = ready()
    for number in range(1, warden.REMEMBERED_MAX + 20):
        memory, _ = admit(memory, ticket(generation=number), f"c{number}")
        if number > 3:
            memory = warden.finish(memory, f"c{number}", Answer(outcome=Outcome.DONE))
    kept = [known.command for known in memory.tickets]
    assert len(kept) == warden.REMEMBERED_MAX + 3
    assert kept[:4] == ["c1", "c2", "c3", "c20"]
    assert "sealed" in refusal(memory, ticket(generation=10), "c10")  # forgotten, and still refused


def test_that_disks_left_is_remembered_however_much_happens_while_they_are_here() -> None:
    memory = ready()
    left = ticket(kind=TicketKind.SEND)
    memory, _ = admit(memory, left, left.id)
    memory = warden.with_sent(memory, G, (Image(path="/vm/g1.img", inode=7, born="1"),))
    memory = warden.finish(memory, left.id, Answer(outcome=Outcome.DONE))
    for number in range(1, warden.REMEMBERED_MAX + 20):
        memory, _ = admit(memory, ticket("g2", number), f"c{number}")
        memory = warden.finish(memory, f"c{number}", Answer(outcome=Outcome.DONE))
    assert warden.left_by(memory, G, migrated=False) == left.id
    assert len(memory.tickets) == warden.REMEMBERED_MAX + 1
    memory = warden.with_sent(memory, G, ())
    memory, _ = admit(memory, ticket("g2", 2 * warden.REMEMBERED_MAX), "more")
    assert len(memory.tickets) == warden.REMEMBERED_MAX + 1, "the last one has not ended"


def test_a_command_counts_in_its_own_session_under_its_own_leader() -> None:
    memory = ready()
    command = Command(id="c", epoch=1, leader_id="l1", session=SESSION, body=listing())
    assert not warden.stale(memory, command, SESSION)
    assert "another session" in warden.stale(memory, command, "s2")
    assert "epoch 0" in warden.stale(memory, changed(command, epoch=0), SESSION)
    assert "leader l2" in warden.stale(memory, changed(command, leader_id="l2"), SESSION)


def test_a_ticket_allows_its_own_kind_of_order_only() -> None:
    definition = Definition(id="g1", name="G1", xml="<domain/>", digest="d")
    assert not warden.mismatch(Start(ticket=ticket(), definition=definition))
    assert not warden.mismatch(Stop(ticket=ticket(kind=TicketKind.DESTROY)))
    assert not warden.mismatch(Clean(ticket=ticket(kind=TicketKind.UNDEFINE)))
    assert "a ticket to start" in warden.mismatch(Clean(ticket=ticket()))
    assert "the ticket of g2" in warden.mismatch(Start(ticket=ticket("g2"), definition=definition))


def test_images_from_which_a_copy_ran_are_nobodys_to_remove() -> None:
    memory = AgentMemory(
        copies={G: Copy(ticket="t", boot_id=BOOT, generation=5)}, images={G: (Image(path="/vm/a", inode=7),)}
    )
    assert warden.seen_running(memory, G, BOOT).images == {}


def test_images_of_a_guest_off_the_list_are_not_told() -> None:
    assert warden.told(AgentMemory(images={G: (Image(path="/vm/a", inode=7),)}), ()) == ()


def test_that_it_was_let_in_ends_when_nothing_of_it_is_there() -> None:
    """Then what arrives without a ticket is a stray again."""
    for copies in ({}, {G: Copy(ticket="t", boot_id=BOOT, generation=5)}):
        memory = AgentMemory(copies=copies, let_in={G: BOOT}, sealed={G: 6})
        assert warden.without_copy(memory, G, 6).let_in == {}
        assert warden.without_copy(memory, G, 5).let_in == {G: BOOT}, "looked for before it was let in"
