"""Rule 5 against every order of faults: off is reported only where a reading after the last switching said so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from dr.adapters.fencing import agents as agents_module
from dr.adapters.fencing import catalogue, process
from dr.adapters.fencing.agents import FenceAgents
from dr.adapters.fencing.process import Finished
from dr.model.evidence import Power
from dr.model.policy import FenceDevice, FenceLevel

OFF, ON = Finished(2, "Status: OFF\n", ""), Finished(0, "Status: ON\n", "")
ODD = (
    Finished(2, "", ""),
    Finished(0, "Status: OFF\n", ""),
    Finished(1, "", "Connection lost"),
    Finished(None, "", ""),
)
statuses = st.sampled_from((OFF, ON, *ODD))
switchings = st.sampled_from((Finished(0, "", ""), *ODD[2:]))
scripts = st.tuples(st.lists(statuses, min_size=1, max_size=6), st.lists(switchings, min_size=1, max_size=4))


class Scripted:
    """Agents without processes: each device answers from its lists (the last answer again and again)."""

    def __init__(self, devices: list[tuple[list[Finished], list[Finished]]]) -> None:
        self.answers = [{"status": list(status), "off": list(off)} for status, off in devices]
        self.journal: list[tuple[int, str, str, Finished | None]] = []  # device, action, begin or end, answer

    async def run(self, _argv: tuple[str, ...], body: str, _timeout_s: float) -> Finished:
        device = int(re.findall(r"^ip=(\d+)$", body, re.MULTILINE)[0])
        action = re.findall(r"^action=(\w+)$", body, re.MULTILINE)[0]
        self.journal.append((device, action, "begin", None))
        for _ in range(device):  # so that the devices are not in step
            await asyncio.sleep(0)
        left = self.answers[device][action]
        answer = left.pop(0) if len(left) > 1 else left[0]
        self.journal.append((device, action, "end", answer))
        return answer


@settings(max_examples=150)
@given(st.lists(scripts, min_size=1, max_size=3))
def test_off_is_said_by_a_reading_after_the_last_switching(
    devices: list[tuple[list[Finished], list[Finished]]],
) -> None:
    world = Scripted(devices)
    found = [
        FenceDevice(name=f"d{n}", agent="fence_x", parameters={"ip": str(n)}) for n in range(len(devices))
    ]
    with (
        patch.object(process, "run", world.run),
        patch.object(catalogue, "find", lambda *_: Path("/bin/true")),
        patch.object(agents_module, "RETRY_WAIT_S", 0.0),
        patch.object(agents_module, "ROUND_WAIT_S", 0.0),
        patch.object(agents_module.log, "info"),
        patch.object(agents_module.log, "debug"),
    ):
        report = asyncio.run(FenceAgents().off(0, FenceLevel(devices=tuple(found)), 30))

    journal = world.journal
    last_switched = max((i for i, (_, action, _, _) in enumerate(journal) if action == "off"), default=-1)
    for number, reading in enumerate(report.readings):
        mine = [(i, *entry[2:]) for i, entry in enumerate(journal) if entry[:2] == (number, "status")]
        begins = [i for i, what, _ in mine if what == "begin"]
        last_answer = next(answer for _, what, answer in reversed(mine) if what == "end")
        assert (reading.power is Power.OFF) == (last_answer == OFF)
        assert begins[-1] > last_switched, "read again after the last device was switched"
        first = next(answer for _, what, answer in mine if what == "end")
        if first == OFF:
            assert (number, "off", "begin", None) not in journal, "what was off is left alone"
    assert sum(action == "off" and what == "begin" for _, action, what, _ in journal) <= 3 * len(devices)
    # All devices of the report were read in the same round.
    rounds = journal[last_switched + 1 :]
    assert {d for d, action, what, _ in rounds if what == "begin"} == set(range(len(devices)))
