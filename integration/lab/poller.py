"""The poller: watches from outside when each guest answers a ping, every 20 ms, and when it stops.

The watching is done by a small child process (pinger.py) whose one raw socket lives in the switch's namespace; it
writes a line for each gap. Times are CLOCK_MONOTONIC seconds, the same in every process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from integration.lab import netns, proc
from integration.lab.layout import Layout, address, guest_mac

_PINGER: Final = Path(__file__).with_name("pinger.py")


@dataclass(frozen=True)
class Outage:
    """A time in which a guest did not answer. Times are time.monotonic() seconds."""

    guest: str
    last_answer_s: float
    """When it last answered (the poller's start, if it never had)."""
    first_answer_s: float | None
    """When it answered again; None while it still does not."""

    @property
    def length_s(self) -> float | None:
        return None if self.first_answer_s is None else self.first_answer_s - self.last_answer_s


class Poller:
    """Pings guests for as long as the `with` block runs; its records can be read inside and after it."""

    def __init__(self, layout: Layout, guests: Sequence[str], *, interval_s: float = 0.02) -> None:
        self._layout = layout
        self._guests = list(guests)
        self._interval_s = interval_s
        handle, name = tempfile.mkstemp(prefix=f"dr-{layout.name}-poller-")
        os.close(handle)
        self._file = Path(name)
        self._child: subprocess.Popen[bytes] | None = None
        self._text = ""

    def __enter__(self) -> Poller:
        targets = [f"{guest}={address('guest', guest)}" for guest in self._guests]
        # The fixed neighbour entries: the first ping of a guest that comes back must not wait for ARP.
        netns.ip_batch(
            self._layout.netns("switch"),
            [
                f"neigh replace {address('guest', guest)} lladdr {guest_mac(guest)} dev br-guest nud permanent"
                for guest in self._guests
            ],
        )
        with netns.open_socket(
            self._layout.netns_path("switch"), socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
        ) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-E",
                    str(_PINGER),
                    str(raw.fileno()),
                    str(self._interval_s),
                    str(self._file),
                    *targets,
                ],
                pass_fds=[raw.fileno()],
                stdin=subprocess.DEVNULL,
            )
        proc.wait_for(lambda: bool(self._file.read_text()), 5, "the poller to start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the watching; what was seen stays readable."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(5)
            self._child = None
            self._text = self._file.read_text()
            self._file.unlink()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def outages(self) -> dict[str, list[Outage]]:
        """For each guest every gap so far (longer than three intervals), oldest first."""
        found: dict[str, list[Outage]] = {guest: [] for guest in self._guests}
        for line in (self._text or self._file.read_text()).splitlines():
            event = json.loads(line)
            gaps = found.get(event["guest"], [])
            if event["what"] == "down":
                gaps.append(Outage(event["guest"], event["last_answer_s"], None))
            elif event["what"] == "up":
                gaps[-1] = Outage(event["guest"], gaps[-1].last_answer_s, event["at_s"])
        return found

    def down(self) -> list[str]:
        """Guests that do not answer now."""
        return [guest for guest, gaps in self.outages().items() if gaps and gaps[-1].first_answer_s is None]

    def wait_all_answering(self, timeout_s: float, since_s: float | None = None) -> float:
        """Wait until every guest answers (and, with `since_s`, until each had a gap that began after it).

        Returns the monotonic time at which the last one came back.
        """
        result = [0.0]

        def done() -> bool:
            latest = [gaps[-1] if gaps else None for gaps in self.outages().values()]
            if any(gap is not None and gap.first_answer_s is None for gap in latest):
                return False
            if since_s is not None and any(
                gap is None or (gap.first_answer_s or 0) < since_s for gap in latest
            ):
                return False
            result[0] = max((gap.first_answer_s or 0.0 for gap in latest if gap is not None), default=0.0)
            return True

        proc.wait_for(done, timeout_s, f"{', '.join(self._guests)} to answer", interval_s=0.02)
        return result[0]
