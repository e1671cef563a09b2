"""`dr sim fuzz`: random worlds with every fault there is; one that breaks a promise becomes a small scenario file.

Here: the command and how its findings look. Not here: worlds (`dr.sim.fuzz`), faults (`dr.sim.faults`), making them
small (`dr.sim.shrink`), running the file again (`dr.cli.sim_run`).
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dr.cli import output
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Form


@dataclass(frozen=True)
class Finding:
    """A world that broke a promise. `file`: the small scenario that breaks it too, with so many entries."""

    seed: int
    violation: str
    entries: int
    file: str


@dataclass(frozen=True)
class Size:
    """0 = drawn from the seed."""

    hosts: int
    guests: int
    faults: int


def fuzz(
    *,
    form: output.Output = Form.TABLE,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many worlds.")] = 100,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 1,
    hosts: Annotated[int, typer.Option(min=0, max=20, help="Hosts in each world; 0: 3 to 5.")] = 0,
    guests: Annotated[int, typer.Option(min=0, max=200, help="Guests in each world; 0: 2 to 8.")] = 0,
    faults: Annotated[int, typer.Option(min=0, max=1000, help="Faults in each world; 0: as drawn.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    folder: Annotated[
        Path, typer.Option("--save", metavar="FOLDER", help="Where scenarios of failures are written.")
    ] = Path(),
) -> None:
    """Run random worlds of ten simulated minutes and more, and check every promise after every step.

    A world that breaks one is made small (few faults, guests, hosts) and written as a scenario, for dr sim run.
    Same seed and version: same world, byte for byte. Exit code 0: nothing was found; 1: something was.
    """
    began = time.monotonic()
    size = Size(hosts, guests, faults)
    numbers = range(first, first + seeds)
    if jobs == 1:
        failed = [found for seed in numbers if (found := _one(size, folder, seed))]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            failed = [found for found in pool.map(partial(_one, size, folder), numbers) if found]
    took_s = time.monotonic() - began
    if form in (Form.JSON, Form.YAML):
        per_min = round(60 * seeds / took_s, 1)
        found_plain = [asdict(found) for found in failed]
        output.plain(
            {
                "version": 1,
                "kind": "fuzz",
                "from": first,
                "seeds": seeds,
                "failed": found_plain,
                "seeds_per_min": per_min,
            },
            form,
        )
    else:
        for found in failed:
            print(found.file if form is Form.NAME else _words(found))
        tell(f"{seeds} worlds from seed {first}: {len(failed)} broke a promise, {took_s:.0f} s")
    if failed:
        raise typer.Exit(Exit.FAILED)


def _one(size: Size, folder: Path, seed: int) -> Finding | None:
    from dr.model.base import changed
    from dr.sim.fuzz import scenario_of
    from dr.sim.scenario.language import dump
    from dr.sim.shrink import failure, shrink

    scenario = scenario_of(seed, hosts=size.hosts, guests=size.guests, faults=size.faults)
    violation = failure(scenario)
    if not violation:
        return None
    tell(f"seed {seed}: {violation}; making it small …")
    small = shrink(scenario)
    violation = failure(small)
    file = folder / f"dr-fuzz-{seed}.yaml"
    try:
        file.write_text(dump(changed(small, shows=f"{scenario.shows} Found: {violation}.")))
    except OSError as problem:
        raise Failure(f"{file} cannot be written.", why=str(problem)) from None
    return Finding(seed, violation, len(small.do), str(file))


def _words(found: Finding) -> str:
    text = f"seed {found.seed}: {found.violation}" if "seed" not in found.violation else found.violation
    return f"{text}\n    {found.entries} entries are enough; run it again with: dr sim run {found.file}"
