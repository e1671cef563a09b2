"""`dr sim`: the decisions of `dr` without a fleet. Needs no coordinator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dr.cli import sim_fuzz, sim_run
from dr.cli.failure import Exit, Failure
from dr.cli.output import Form, Output, clock, plain

if TYPE_CHECKING:
    from dr.core.explain import Explanation, GuestWhy, HostWhy

app = typer.Typer(help="Decisions without a fleet: simulated, or made again.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Decisions without a fleet: simulated, or made again."""


app.command("run")(sim_run.run_)
app.command("fuzz")(sim_fuzz.fuzz)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A saved decision: see dr events --save.")],
    form: Output = Form.TABLE,
) -> None:
    """Make a saved decision again, and say why it fell so: evidence, verdicts, sets, placement.

    Hosts and guests that it was not about are left out, except with -o wide and in JSON and YAML.
    """
    from dr import __version__
    from dr.core.explain import explain
    from dr.core.saved import BadDecision, decode

    try:
        saved = decode(file.read_bytes())
    except OSError as error:
        raise Failure(
            f"{file} cannot be read.", why=error.strerror or str(error), code=Exit.BAD_DATA
        ) from None
    except BadDecision as error:
        raise Failure(f"{file} cannot be replayed: {error}.", code=Exit.BAD_DATA) from None
    try:
        found = explain(saved)
    except Exception as error:
        raise Failure(
            f"{file}: deciding again ended in {type(error).__name__}: {error}.",
            why=f"saved by dr {saved.version or '?'}, replayed by dr {__version__}",
            todo="if the versions are the same, this is a bug of dr: keep the file and report it",
        ) from error
    match form:
        case Form.JSON | Form.YAML:
            import msgspec

            plain({"version": 1, "kind": "replay", **msgspec.to_builtins(found)}, form)
        case Form.NAME:
            print(found.id)
        case Form.TABLE | Form.WIDE:
            if saved.version and saved.version != __version__:
                print(
                    f"note: saved by dr {saved.version}; this is dr {__version__}, which may decide otherwise\n"
                )
            print("\n".join(_lines(found, wide=form is Form.WIDE)))


def _lines(found: Explanation, *, wide: bool) -> Iterable[str]:
    made = f", {clock(found.wall)}" if found.wall else ""
    yield f"decision {found.id or '(no id)'}{made}, epoch {found.epoch}, leader time {found.now:.3f}"
    yield from ("", "EVENT", f"  {found.event_text}", "", "DECIDED")
    for word, lines in (("note", found.notes), ("change", found.changes), ("effect", found.effects)):
        yield from (f"  {word:<6}  {line}" for line in lines)
    if not (found.notes or found.changes or found.effects):
        yield "  nothing"
    yield from ("", "HOSTS")
    quiet = [host.name for host in found.hosts if not host.concerned]
    for host in found.hosts:
        if host.concerned or wide:
            yield from _host(host)
    if quiet and not wide:
        yield f"  {len(quiet)} more, online and heard: {', '.join(quiet[:10])}{', …' if len(quiet) > 10 else ''}"
    if found.guests:
        yield from ("", "GUESTS")
    for guest in found.guests:
        yield from _guest(guest)


def _moved(before: str, after: str) -> str:
    if before == after:
        return after
    return f"{before or 'not there'} → {after or 'gone'}"


def _host(host: HostWhy) -> Iterable[str]:
    beside = f" ({', '.join(host.conditions)})" if host.conditions else ""
    yield f"  {host.name}: {_moved(host.before, host.after)}{beside}{': ' if host.reason else ''}{host.reason}"
    for word, text in (("link", host.link), ("evidence", host.evidence), ("verdict", host.verdict)):
        if text:
            yield f"      {word:<12} {text}"
    for why in host.not_fenced:
        yield f"      {'not fenced':<12} {why}"
    if host.verdict and not host.not_fenced:
        yield f"      {'fencing':<12} nothing stands against it"


def _guest(guest: GuestWhy) -> Iterable[str]:
    wanted = f", wanted {guest.desired}" if guest.desired else ""
    yield f"  {guest.name}: {_moved(guest.before, guest.after)}{wanted}{': ' if guest.reason else ''}{guest.reason}"
    before, after = "; ".join(guest.set_before) or "nowhere", "; ".join(guest.set_after) or "nowhere"
    yield f"      {'may run on':<12} {before if before == after else f'{before} → {after}'}"
    if guest.waits:
        yield f"      {'waits for':<12} {guest.waits}"
    for option in guest.options:
        if option.score is None:
            yield f"      {'not on':<12} {option.host}: {', '.join(option.why_not)}"
        else:
            chosen = ": chosen" if option.host == guest.starts_on else ""
            yield f"      {'could run on':<12} {option.host}, score {option.score:.3f} (lower is better){chosen}"
