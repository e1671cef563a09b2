"""Every interruption of every scenario: `python -m tests.sim.soak [FILE...]`, a part of `make soak`.

Each one that comes to another end is printed with the command that shows it.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from dr.cli.scenario_file import load
from dr.sim.interrupt import calm, interrupted

FOLDER = Path(__file__).parent.parent / "scenarios"


def soak(file: Path) -> tuple[int, list[str]]:
    """(points tried, what went wrong)."""
    try:
        plain = calm(load(file))
    except AssertionError as broken:
        return 0, [f"dr sim run {file}\n    {broken}"]
    wrong, tried = [], 0
    for point in plain.points():
        tried += 1
        if unlike := interrupted(plain, point).violations:
            wrong.append(f"dr sim run {file} --crash-at {point}\n    " + "\n    ".join(unlike))
    return tried, wrong


def main() -> int:
    files = [Path(each) for each in sys.argv[1:]] or sorted(FOLDER.glob("*/*.yaml"))
    began, points, failed = time.monotonic(), 0, 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for file, (tried, wrong) in zip(files, pool.map(soak, files), strict=True):
            points, failed = points + tried, failed + len(wrong)
            print(f"{file}: {tried} points, {len(wrong)} come to another end", flush=True)
            for text in wrong:
                print(f"  {text}", flush=True)
    took_s = time.monotonic() - began
    print(f"{len(files)} scenarios, {points} interruptions, {failed} failed, {took_s:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
