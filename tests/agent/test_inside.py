"""What the agent finds of guests on its host: tried again within the window, told whatever it is."""

import pytest

from dr.agent import inside
from dr.model.checks import PICTURE_MAX, Agent, CheckResult, Screenshot
from dr.model.commands import LookInside, Outcome
from dr.model.facts import DomainState
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown, Picture
from tests.agent.fakes import G, Host


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "AGAIN_S", 0.02)


async def looked(host: Host, *checks: Agent | Screenshot, window_s: float = 0.5) -> tuple[CheckResult, ...]:
    host.world.domains[G] = DomainState.RUNNING
    session = await host.linked()
    answer = await session.ask(LookInside(guest=G, name="web", checks=checks, window_s=window_s))
    assert answer.outcome is Outcome.DONE
    assert [each.check for each in answer.checks] == list(checks)
    return answer.checks


async def test_an_agent_that_answers_and_a_console_that_shows_something(host: Host) -> None:
    agent, screen = await looked(host, Agent(), Screenshot())
    assert (agent.passed, screen.passed) == (True, True)
    assert (screen.evidence, screen.picture) == ("a console of 720 x 400", b"PNG")


async def test_it_is_tried_again_within_the_window(host: Host) -> None:
    host.world.silent[G] = [HypervisorError("not connected")] * 3
    (agent,) = await looked(host, Agent(), window_s=5.0)
    assert agent.passed
    assert host.world.silent[G] == []


async def test_one_that_does_not_answer_is_told_with_libvirts_words(host: Host) -> None:
    host.world.silent[G] = [HypervisorError("not connected")] * 999
    (agent,) = await looked(host, Agent(), window_s=0.2)
    assert (agent.passed, agent.made, agent.why) == (False, True, "not connected")


async def test_what_libvirt_cannot_say_is_unknown(host: Host) -> None:
    host.world.silent[G] = [HypervisorUnknown("libvirtd is busy")] * 999
    (agent,) = await looked(host, Agent(), window_s=0.2)
    assert (agent.passed, agent.made, agent.why) == (False, False, "libvirtd is busy")


async def test_a_screen_of_one_colour_does_not_pass_and_is_kept(host: Host) -> None:
    host.world.console = Picture(png=b"PNG", width=720, height=400, plain=True)
    (screen,) = await looked(host, Screenshot(), window_s=0.2)
    assert (screen.passed, screen.why) == (False, "its console has one colour only")
    assert screen.picture == b"PNG"


async def test_a_picture_that_nobody_keeps_is_not_sent(host: Host) -> None:
    host.world.console = Picture(png=bytes(PICTURE_MAX + 1), width=9999, height=9999, plain=False)
    (screen,) = await looked(host, Screenshot(), window_s=0.2)
    assert (screen.passed, screen.picture) == (True, b"")
    assert "too large to be kept" in screen.evidence
