"""Runs one program under the keeper: input only on stdin, output bounded, an own time limit, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from dr.adapters.fencing.keeper import INPUT_BYTES_MAX, LET_GO

KEEPER = str(Path(__file__).with_name("keeper.py"))
OUTPUT_BYTES_MAX = 64 * 1024  # of each stream; the rest is read and thrown away
END_S = 1.5  # how long the keeper may take to kill what it keeps before its whole group is killed

# Nothing of the coordinator's own environment goes in but its home (ssh's known_hosts).
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C",
    "LC_ALL": "C",
    "HOME": os.environ.get("HOME", "/root"),
    "PYTHONWARNINGS": "ignore",  # fence agents 4.12 warn at each run that their modules are old
}


@dataclass(frozen=True)
class Finished:
    """How a program ended. The output may hold secrets: redact it before it goes anywhere."""

    code: int | None  # None: ended by us, it took too long
    out: str
    err: str


async def run(argv: tuple[str, ...], body: str, timeout_s: float) -> Finished:
    """Run `argv` with `body` as standard input for at most `timeout_s` (+ END_S to end it).

    Raises OSError when no process can be made. A cancelled call ends the program before it returns.
    """
    data = body.encode()
    assert len(data) <= INPUT_BYTES_MAX
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", KEEPER, str(os.getpid()), *argv,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    out = asyncio.create_task(_bounded(process.stdout))
    err = asyncio.create_task(_bounded(process.stderr))
    timed_out = False
    try:
        process.stdin.write(f"{len(data)}\n".encode() + data)
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        timed_out = True
    finally:
        await _end(process)
        await asyncio.wait({out, err}, timeout=END_S)
        out.cancel()
        err.cancel()
    code = None if timed_out or process.returncode == LET_GO else process.returncode
    return Finished(code, _text(out), _text(err))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let go of the leash; kill the group if that does not help. Does not give up on being cancelled."""
    assert process.stdin is not None
    process.stdin.close()
    ending = asyncio.ensure_future(process.wait())
    cancelled: asyncio.CancelledError | None = None
    for last in (False, True):
        try:
            await asyncio.wait({ending}, timeout=END_S)
        except asyncio.CancelledError as error:
            cancelled = error
        if ending.done():
            break
        if not last:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    ending.cancel()
    if cancelled:
        raise cancelled


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, keep the beginning; one byte more than the bound says that something was cut."""
    kept = b""
    while data := await stream.read(65536):
        kept += data[: OUTPUT_BYTES_MAX + 1 - len(kept)]
    return kept


def _text(task: asyncio.Task[bytes]) -> str:
    """The output as text. What was cut ends at a line: half a password would not be redacted."""
    if not task.done() or task.cancelled() or task.exception():
        return ""
    kept = task.result()
    if len(kept) > OUTPUT_BYTES_MAX:
        kept = kept[: kept.rfind(b"\n") + 1]
    return kept.decode(errors="replace")
