"""What runs on a host for one allowed command: this file's text, given to its `python3 -I -c`, always the same.

It says hello, reads one request (JSON, one line) and runs the words in it, at most once for their id in this boot: a
process of its own does, which outlives the connection, ends what takes too long and keeps what it says. Whoever asks
with the same id again is told what came of it. Standard library only, Python 3.8 or newer; imports nothing of `dr`.
Not here: what may be run (`dr.model.allowed`), how it is reached (`runner`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

FOLDER = "/run/dr/commands"  # gone with the boot, as is the right to be told of it
LATE_S = 30.0  # what was asked for longer after our hello than this may be given up already: it is not begun
KEEP = 32 * 1024  # bytes of its output, at each end
KEPT_S = 20 * 86400.0
ENDS_S = 10.0  # between asking it to end and ending it
SILENT_S = 2.0  # after its end, what it left behind may say something for so long


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def now() -> float:
    """Goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(folder: str = FOLDER) -> None:
    hello = now()
    say(hello=1, boot_id=boot_id())
    line = sys.stdin.buffer.readline(1 << 20)
    if not line:
        return
    request = json.loads(line.decode())
    path = os.path.join(folder, request["id"])
    if request["boot_id"] != boot_id():
        say(state="other_boot")
        return
    try:
        if not os.path.isdir(path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            tidy(folder)
            begin(folder, path, request, hello + LATE_S)
        if read(path, "request")["argv"] != request["argv"]:
            say(state="unknown", reason="another command was run there under the same id")
            return
        tell(path, request["window_s"])
    except TimeoutError:
        say(state="unreached", reason="it was asked for so late that it was not begun")
    except OSError as error:
        say(state="lost" if os.path.isdir(path) else "refused", reason=f"{folder}: {error}")


def tidy(folder: str) -> None:
    """What ended long ago is forgotten."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if time.time() - os.stat(path).st_mtime > KEPT_S and not held(path):
            shutil.rmtree(path, ignore_errors=True)


def write(path: str, name: str, value: dict[str, Any]) -> None:
    """Whole, or not at all."""
    with open(os.path.join(path, name + ".new"), "w") as file:
        json.dump(value, file)
    os.rename(os.path.join(path, name + ".new"), os.path.join(path, name))


def read(path: str, name: str) -> dict[str, Any]:
    with open(os.path.join(path, name)) as file:
        found: dict[str, Any] = json.load(file)
    return found


def held(path: str) -> bool:
    """Whether the process that runs it lives."""
    with open(os.path.join(path, "lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def begin(folder: str, path: str, request: dict[str, Any], by: float) -> None:
    """Fork the process that runs it; return when its folder is there, whosever it is. Raises OSError, TimeoutError."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(readable)
            own(folder, path, request, by, writable)
        os._exit(0)
    os.close(writable)
    os.wait()
    said = os.read(readable, 4096).decode()  # nothing, once it is there; nor from a process that died
    os.close(readable)
    if os.path.isdir(path):
        return
    if said == "late":
        raise TimeoutError
    raise OSError(said or "the process that was to run it has ended")


def own(folder: str, path: str, request: dict[str, Any], by: float, writable: int) -> None:
    """Take the id: a folder that is complete, and locked, gets its name in one step. Then, and only then, run it."""
    new = os.path.join(folder, f".new-{request['id']}-{os.getpid()}")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    try:
        os.mkdir(new, 0o700)
        lock = open(os.path.join(new, "lock"), "a")  # noqa: SIM115  # held until this process ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        write(new, "request", request)
        if now() > by:
            raise OSError("late")
        os.rename(new, path)  # fails where one is: then that one's owner runs it, or has
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        os.write(writable, str(error).encode()[:4096])
        return
    os.close(writable)
    write(path, "result", run(request))
    lock.close()


def run(request: dict[str, Any]) -> dict[str, Any]:
    os.chdir("/")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HOME": os.path.expanduser("~"), "LANG": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return {"state": "refused", "reason": f"{request['argv'][0]}: {error}"}
    output = Output()
    timed_out = follow(process, output, request["timeout_s"])
    return dict(output.told(), state="ended", code=process.wait(), timed_out=timed_out)


def follow(process: subprocess.Popen[bytes], output: Output, timeout_s: float) -> bool:
    """Take what it says until it has ended; True if it was ended, as it took too long."""
    assert process.stdout is not None
    stream, ends, late, ended = process.stdout.fileno(), now() + timeout_s, False, 0.0
    os.set_blocking(stream, False)
    while True:
        if not ended and process.poll() is not None:
            ended = now()
        ready, _, _ = select.select([stream], [], [], 0.0 if ended else 0.2)
        chunk = os.read(stream, 65536) if ready else b""
        output.take(chunk)
        if ended and (not chunk or now() > ended + SILENT_S):
            return late
        if ready and not chunk:  # it has closed its output, and runs on
            time.sleep(0.2)
        if not ended and now() > ends:
            late = True
            os.killpg(process.pid, signal.SIGKILL if now() > ends + ENDS_S else signal.SIGTERM)


class Output:
    """The first and the last of what it says, and the digest of all."""

    def __init__(self) -> None:
        self.head, self.tail, self.bytes, self.sum = b"", b"", 0, hashlib.sha256()

    def take(self, chunk: bytes) -> None:
        self.sum.update(chunk)
        self.bytes += len(chunk)
        room = KEEP - len(self.head)
        self.head += chunk[:room]
        self.tail = (self.tail + chunk[room:])[-KEEP:]

    def told(self) -> dict[str, Any]:
        gap = self.bytes - len(self.head) - len(self.tail)
        between = f"\n[... {gap} bytes are left out ...]\n".encode() if gap else b""
        text = (self.head + between + self.tail).decode("utf-8", "replace")
        return {"output": text, "bytes": self.bytes, "digest": self.sum.hexdigest()}


def tell(path: str, window_s: float) -> None:
    """What came of it; waits for its end, but not for ever, and not for somebody who has hung up."""
    until = now() + window_s
    while True:
        lives = held(path)  # first: who ends between the two has written its result
        if os.path.exists(os.path.join(path, "result")):
            say(**read(path, "result"))
            return
        if not lives:
            say(state="unknown", reason="the process that ran it was killed")
            return
        if now() > until:
            say(state="lost", reason="it is under way")
            return
        ready, _, _ = select.select([0], [], [], 0.1)
        if ready and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
