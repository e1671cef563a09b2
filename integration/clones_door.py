"""Asks the agent's own adapter for clones, for as long as its standard input is open: all JSON, one to a line.

A line is [NUMBER, METHOD, {…}], an answer [NUMBER, what came, ""] or [NUMBER, null, why not], in the order in which
they come. Run inside a host by integration/test_clones.py; what the real agent adds to it is in dr.agent.clones.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from dr.adapters.clones.clones import FOLDER, HostClones
from dr.model.checks import Check
from dr.ports.clones import CloneError
from dr.ports.hypervisor import HypervisorUnknown


async def answer(clones: HostClones, number: int, method: str, given: dict[str, Any]) -> None:
    if "check" in given:
        given["check"] = msgspec.convert(given["check"], Check)
    try:
        came, why = await getattr(clones, method)(**given), ""
    except (CloneError, HypervisorUnknown) as error:
        came, why = None, str(error)
    print(json.dumps([number, msgspec.to_builtins(came), why]), flush=True)


async def main(host: str) -> None:
    clones = HostClones(host, folder=Path(FOLDER))
    loop, tasks = asyncio.get_running_loop(), set()
    print(json.dumps(os.getpid()), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.create_task(answer(clones, *json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await clones.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
