"""A host that goes down is announced before anything that it ends is told."""

from dr.model.commands import Outcome, Stay
from dr.model.facts import DomainState
from dr.ports.hypervisor import DomainEvent
from tests.agent.fakes import G, Host


async def test_it_is_announced_once_and_taken_back(host: Host) -> None:
    session = await host.linked()
    assert session.hello.leaving == ""
    host.goes_down = "reboot"
    await session.until(lambda: session.leaving == ["reboot"])
    beats = len(session.beats)
    await session.until(lambda: len(session.beats) > beats + 5)
    assert session.leaving == ["reboot"]
    host.goes_down = ""
    await session.until(lambda: session.leaving == ["reboot", ""])


async def test_a_hello_says_it(host: Host) -> None:
    host.goes_down = "shutdown"
    assert (await host.linked()).hello.leaving == "shutdown"


async def test_a_guest_that_ends_makes_it_ask_first(host: Host) -> None:
    """Nothing hints at it yet; the end of a guest must not be taken for its owner's will."""
    host.world.domains[G] = DomainState.RUNNING
    host.hinted = False
    session = await host.linked()
    await session.until(lambda: len(session.beats) > 3)
    host.goes_down = "shutdown"
    seen: list[int] = []
    host.world.domains[G] = DomainState.SHUTOFF
    host.world.events.put_nowait(DomainEvent(guest=G, name="vm", kind="stopped"))

    def told() -> bool:
        ended = [r for r in session.reports if r.guests and not r.guests[0].active]
        if ended and not seen:
            seen.append(len(session.leaving))
        return bool(ended)

    await session.until(told)
    assert seen == [1], "the announcement came before the report"


async def test_stopped_with_its_host_it_says_so_before_goodbye(host: Host) -> None:
    host.hinted = False
    session = await host.linked()
    host.goes_down = "shutdown"
    host.stop.set()
    await session.until(lambda: session.goodbye)
    assert session.leaving == ["shutdown"]


async def test_stopped_alone_it_announces_nothing(host: Host) -> None:
    session = await host.linked()
    host.stop.set()
    await session.until(lambda: session.goodbye)
    assert session.leaving == []


async def test_it_is_held_until_the_coordinator_lets_it_go(host: Host) -> None:
    session = await host.linked()
    await session.until(lambda: host.held)  # from the start, so that none begins unnoticed
    host.goes_down = "reboot"
    await session.until(lambda: session.leaving == ["reboot"])
    assert (await session.ask(Stay(for_s=30.0))).outcome is Outcome.DONE
    assert host.held
    await session.ask(Stay(for_s=0.0))
    assert not host.held
    host.goes_down = ""
    await session.until(lambda: host.held)


async def test_a_word_holds_for_its_time_and_no_longer(host: Host) -> None:
    """So a coordinator that dies keeps no host up."""
    session = await host.linked()
    host.goes_down = "reboot"
    await session.until(lambda: session.leaving == ["reboot"])
    await session.ask(Stay(for_s=0.3))
    assert host.held
    await session.end()
    await session.until(lambda: not host.held)


async def test_told_to_wait_a_host_that_stays_does_not(host: Host) -> None:
    """The word was on its way as the shutdown was called off; the next one is held from its start."""
    session = await host.linked()
    await session.ask(Stay(for_s=0.0))
    assert host.held


async def test_systemd_is_told_once_what_it_waits_for_and_that_it_is_over(host: Host) -> None:
    session = await host.linked()
    host.goes_down = "reboot"
    await session.until(lambda: session.leaving == ["reboot"])
    beats = len(session.beats)
    await session.until(lambda: len(session.beats) > beats + 5)
    host.goes_down = ""
    await session.until(lambda: session.leaving == ["reboot", ""])
    assert [word for word in host.told if "this host" in word] == [
        "STATUS=the reboot of this host waits for its guests to be moved away",
        "STATUS=this host stays: its shutdown was called off",
    ]
