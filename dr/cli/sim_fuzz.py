"""`dr sim fuzz`: random worlds with every fault there is; one that breaks a promise is made small and kept in a file.

Here: the command and how its findings look. Not here: worlds (`dr.sim.fuzz`), faults (`dr.sim.faults`), making them
small (`dr.sim.shrink`).
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
    """A world that broke a promise. `file`: the plan of the small one."""

    seed: int
    violation: str
    faults: int
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
        Path, typer.Option("--save", metavar="FOLDER", help="Where plans of failures are written.")
    ] = Path(),
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Run this plan again, and show its timeline."),
    ] = None,
) -> None:
    """Run random worlds of ten simulated minutes and more, and check every promise after every step.

    A world that breaks one is made small (few faults, guests, hosts) and written to a file, which --plan runs again.
    Same seed and version: same world, byte for byte. Exit code 0: nothing was found; 1: something was.
    """
    if plan is not None:
        _again(plan)
        return
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
    from dr.sim.fuzz import plan_of
    from dr.sim.plan import dump
    from dr.sim.shrink import failure, shrink

    plan = plan_of(seed, hosts=size.hosts, guests=size.guests, faults=size.faults)
    error = failure(plan)
    if error is None:
        return None
    tell(f"seed {seed}: {error}; making it small …")
    small = shrink(plan)
    file = folder / f"dr-fuzz-{seed}.json"
    try:
        file.write_text(dump(small))
    except OSError as problem:
        raise Failure(f"{file} cannot be written.", why=str(problem)) from None
    return Finding(seed, str(failure(small)), len(small.faults), str(file))


def _words(found: Finding) -> str:
    again = f"{found.faults} faults are enough: dr sim fuzz --plan {found.file}"
    return f"seed {found.seed}: {found.violation}\n    {again}"


def _again(file: Path) -> None:
    import msgspec

    from dr.sim.fuzz import run
    from dr.sim.plan import load

    try:
        plan = load(file.read_text())
    except OSError as error:
        raise Failure(f"{file} cannot be read.", why=str(error), code=Exit.BAD_DATA) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{file} is no plan of dr sim fuzz.", why=str(error), code=Exit.BAD_DATA) from None
    try:
        world = run(plan)
    except Exception as error:
        print("\n".join(getattr(error, "world").lines()))  # noqa: B009  # `run` hangs it on whatever it raises
        tell(f"{type(error).__name__}: {error}")
        raise typer.Exit(Exit.FAILED) from None
    print("\n".join(world.lines()))
    tell("no promise was broken")
