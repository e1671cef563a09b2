"""What runs on a host: once for an id, whoever asks and how often; bounded in time and size; unknown where it is."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dr.adapters.ssh import remote
from dr.adapters.ssh.runner import LINE, PYTHON

PROGRAM = Path(remote.__file__).read_text()


class Asked:
    """One connection: what it is told after its hello."""

    def __init__(self, folder: Path, words: list[str], **request: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", PROGRAM, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        hello = json.loads(self.process.stdout.readline())
        whole = {
            "id": "c-1-1",
            "boot_id": hello["boot_id"],
            "argv": words,
            "timeout_s": 20.0,
            "window_s": 20.0,
        }
        self.process.stdin.write(json.dumps(whole | request) + "\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert self.process.wait(5) == 0
        return found


def until(so: Callable[[], bool]) -> None:
    by = time.monotonic() + 10
    while not so():
        assert time.monotonic() < by
        time.sleep(0.02)


def noting(file: Path, then: str = "") -> list[str]:
    """A command that leaves a line there each time it runs."""
    return ["/bin/sh", "-c", f"echo ran >> {file}; {then}"]


def test_it_runs_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    words = noting(tmp_path / "ran", "sleep 0.5; echo done; exit 3")
    asked = [Asked(tmp_path / "c", words) for _ in range(4)]
    told = [each.told() for each in asked] + [Asked(tmp_path / "c", words).told()]
    assert [(each["state"], each["code"], each["output"]) for each in told] == [("ended", 3, "done\n")] * 5
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_who_asks_may_be_killed(tmp_path: Path) -> None:
    words = noting(tmp_path / "ran", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo done")
    first = Asked(tmp_path / "c", words)
    until((tmp_path / "ran").exists)
    first.process.kill()
    second = Asked(tmp_path / "c", words, window_s=0.2)
    assert second.told() == {"state": "lost", "reason": "it is under way"}
    (tmp_path / "go").touch()
    assert Asked(tmp_path / "c", words).told()["output"] == "done\n"
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_who_hangs_up_leaves_nobody_waiting(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "c", ["/bin/sleep", "12"])
    assert asked.process.stdin is not None
    asked.process.stdin.close()
    assert asked.process.wait(10) == 0
    again = Asked(tmp_path / "c", ["/bin/sleep", "12"], window_s=0.1)
    assert again.told()["reason"] == "it is under way"


def test_what_ran_it_is_killed_and_nobody_runs_it_again(tmp_path: Path) -> None:
    words = noting(tmp_path / "ran", f"echo $PPID > {tmp_path}/parent; sleep 2")
    asked = Asked(tmp_path / "c", words)
    until(lambda: (tmp_path / "parent").exists() and bool((tmp_path / "parent").read_text().strip()))
    os.kill(int((tmp_path / "parent").read_text()), signal.SIGKILL)
    assert asked.told()["state"] == "unknown"
    assert Asked(tmp_path / "c", words).told()["state"] == "unknown"
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_another_boot_and_another_command_run_nothing(tmp_path: Path) -> None:
    words = noting(tmp_path / "ran")
    assert Asked(tmp_path / "c", words, boot_id="older").told() == {"state": "other_boot"}
    assert not (tmp_path / "ran").exists()
    assert Asked(tmp_path / "c", ["/bin/true"]).told()["code"] == 0
    assert "under the same id" in Asked(tmp_path / "c", words).told()["reason"]
    assert not (tmp_path / "ran").exists()


def test_what_is_asked_for_late_is_not_begun(tmp_path: Path) -> None:
    """A host that stood still may be given up already."""
    late = PROGRAM.replace("LATE_S = 30.0", "LATE_S = -1.0")
    said = subprocess.run(
        [sys.executable, "-I", "-c", late, str(tmp_path / "c")],
        input=json.dumps(
            {
                "id": "c",
                "boot_id": remote.boot_id(),
                "argv": noting(tmp_path / "ran"),
                "timeout_s": 1,
                "window_s": 1,
            }
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(said.stdout.splitlines()[1])["state"] == "unreached"
    assert not (tmp_path / "ran").exists()


def test_what_takes_too_long_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    """Asked first; what does not heed that is killed. What left its session goes on, and nobody waits for it."""
    words = ["/bin/sh", "-c", "trap 'echo asked' TERM; echo here; sleep 77.25 & wait; wait; echo after"]
    told = Asked(tmp_path / "c", words, timeout_s=0.5).told()
    assert (told["code"], told["timed_out"], told["output"].split()[:2]) == (0, True, ["here", "asked"])
    assert (
        "77.25"
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    )


def test_much_output_is_kept_at_both_ends(tmp_path: Path) -> None:
    told = Asked(tmp_path / "c", ["/usr/bin/seq", "1000000"]).told()
    assert told["bytes"] == 6888896
    assert told["output"].startswith("1\n2\n")
    assert told["output"].endswith("999999\n1000000\n")
    assert 64 * 1024 <= len(told["output"]) < 65 * 1024
    assert "bytes are left out" in told["output"]


def test_who_stays_behind_and_talks_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", "(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo still; sleep 1; done) & exit 0"]
    began = time.monotonic()
    told = Asked(tmp_path / "c", words).told()
    assert told["code"] == 0
    assert time.monotonic() - began < 10


def test_what_is_not_there_is_refused_and_what_cannot_be_kept_is_not_begun(tmp_path: Path) -> None:
    told = Asked(tmp_path / "c", ["/nowhere/program"]).told()
    assert told["state"] == "refused"
    assert "No such file" in told["reason"]
    (tmp_path / "file").touch()
    assert Asked(tmp_path / "file", noting(tmp_path / "ran")).told()["state"] == "refused"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "word", ["$(touch /tmp/x)", "a b", "'", '"', "`x`", "\\", "*", "ü\u2028", "--", "-n"]
)
def test_a_word_arrives_as_it_is(word: str, tmp_path: Path) -> None:
    assert Asked(tmp_path / "c", ["/usr/bin/printf", "%s|", word]).told()["output"] == f"{word}|"


def test_what_a_hosts_shell_is_told_is_always_the_same() -> None:
    assert shlex.split(LINE) == [PYTHON, "-I", "-c", PROGRAM]
    assert len(LINE) < 100_000
