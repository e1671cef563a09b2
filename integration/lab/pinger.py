"""The poller's child: one raw ICMP socket, one echo to each guest at each tick, one line for each change.

    pinger.py SOCKET_FD INTERVAL_S FILE GUEST=ADDRESS...

Imports nothing of the package, so that it starts in milliseconds and stays small.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

ECHO_REQUEST, ECHO_REPLY = 8, 0


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def watch(descriptor: int, interval_s: float, path: str, targets: list[str]) -> None:
    """The child: send one echo to each guest at each tick, note answers, write a line at each change."""
    raw = socket.socket(fileno=descriptor)
    raw.setblocking(False)
    ident = os.getpid() & 0xFFFF
    packet = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, ident, 1)
    packet = struct.pack("!BBHHH", ECHO_REQUEST, 0, _checksum(packet), ident, 1)
    names = {address: guest for guest, address in (target.split("=") for target in targets)}
    addresses = list(names)
    started = time.monotonic()
    heard = dict.fromkeys(addresses, started)
    silent: set[str] = set()
    limit_s = 3 * interval_s
    parent = os.getppid()
    with open(path, "w", buffering=1) as log:

        def say(what: str, guest: str, **times: float) -> None:
            log.write(json.dumps({"what": what, "guest": guest, **times}) + "\n")

        say("start", "", at_s=started)
        tick = started
        while os.getppid() == parent:
            for one in addresses:
                with contextlib.suppress(OSError):
                    raw.sendto(packet, (one, 0))
            tick = max(tick + interval_s, time.monotonic() - interval_s)
            while (left := tick - time.monotonic()) > 0:
                if not select.select([raw], [], [], left)[0]:
                    break
                now = time.monotonic()
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, (sender, _) = raw.recvfrom(256)
                        if data[20] == ECHO_REPLY and data[24:26] == packet[4:6] and sender in heard:
                            heard[sender] = now
                            if sender in silent:
                                silent.discard(sender)
                                say("up", names[sender], at_s=now)
            now = time.monotonic()
            for one in addresses:
                if one not in silent and now - heard[one] > limit_s:
                    silent.add(one)
                    say("down", names[one], last_answer_s=heard[one])


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
