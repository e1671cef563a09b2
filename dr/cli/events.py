"""`dr events`: the timeline of decisions, each line with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Form, Output, clock, document, plain

if TYPE_CHECKING:
    from dr.api.schema import NoteSeen

WAIT_S = 25.0


def events(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="Begin with so many, the newest.", min=1, max=5000)
    ] = 50,
    topic: Annotated[
        str, typer.Option("--topic", help="Only those whose topic begins so, as in fence or host.")
    ] = "",
    host: Annotated[str, typer.Option("--host", help="Only of this host.")] = "",
    guest: Annotated[str, typer.Option("--guest", help="Only of this guest.")] = "",
    job: Annotated[str, typer.Option("--job", help="Only of this job.")] = "",
    save: Annotated[
        str,
        typer.Option(
            "--save",
            metavar="ID",
            help="Save the decision of that id (last column of -o wide) to a file for dr sim replay.",
        ),
    ] = "",
    form: Output = Form.TABLE,
) -> None:
    """What was seen and decided, and why."""
    if save:
        _save(save)
        return
    show(form, lines=lines, follow=follow, topic=topic, host=host, guest=guest, operation=job)


def show(
    form: Form,
    *,
    lines: int,
    follow: bool = False,
    topic: str = "",
    host: str = "",
    guest: str = "",
    operation: str = "",
) -> int:
    """Print the newest lines, and go on if asked to; how many there were. Raises Failure."""
    from dr.api.schema import NoteList
    from dr.cli.client import connect

    api = connect()
    wanted = {"topic": topic, "host": host, "guest": guest, "operation": operation}
    answer = api.get("/v1/notes", NoteList, limit=lines, **wanted)
    if not follow and form in (Form.JSON, Form.YAML):
        document(answer, form)
        return len(answer.items)
    for note in answer.items:
        _print(note, form)
    if not follow:
        return len(answer.items)
    after = answer.next
    lost = False
    try:
        while True:
            try:
                # "note/" comes before every line: the way to wait for the first one of an empty timeline.
                answer = api.get(
                    "/v1/notes", NoteList, after=after or "note/", limit=1000, wait_s=WAIT_S, **wanted
                )
            except Failure as failure:
                if failure.code is not Exit.UNREACHABLE:
                    raise
                lost = _wait(failure, lost)
                continue
            lost = False
            for note in answer.items:
                _print(note, form)
            after = answer.next or after
    except KeyboardInterrupt:
        return 0


def _wait(failure: Failure, told: bool) -> bool:
    """A coordinator that restarts is waited for."""
    import time

    if not told:
        tell(f"{failure.what} Waiting for it.")
    time.sleep(1.0)
    return True


def _print(note: NoteSeen, form: Form) -> None:
    if form in (Form.JSON, Form.YAML):
        plain({"version": 1, "kind": "event", **note.model_dump(mode="json")}, form, one_line=True)
    elif form is Form.NAME:
        print(note.key)
    else:
        print(_text(note, wide=form is Form.WIDE), flush=True)


def _text(note: NoteSeen, *, wide: bool) -> str:
    by = f" (by {note.by})" if note.by else ""
    job = f"  [{note.operation}]" if wide and note.operation else ""
    decision = f"  [{note.decision}]" if wide and note.decision else ""
    return f"{clock(note.wall)}  {note.topic:<18} {note.text}{by}{job}{decision}"


def _save(decision: str) -> None:
    """Fetch a saved decision into this folder. Raises Failure."""
    from urllib.parse import quote

    from dr.cli.client import connect

    file = Path(f"dr-decision-{decision}.gz")
    if "/" in decision or file.exists():
        why = "it is no id of a decision" if "/" in decision else f"{file} is here already"
        raise Failure(f"The decision {decision} was not saved.", why=why, code=Exit.REFUSED)
    half = file.with_name(f".{file.name}.new")
    try:
        connect().download(f"/v1/decisions/{quote(decision, safe='')}", half)
        half.replace(file)
    except OSError as error:
        raise Failure(f"{file} cannot be written.", why=str(error)) from None
    finally:
        half.unlink(missing_ok=True)
    print(file)
    tell(f"then: dr sim replay {file}")
