"""`ports.world.Prober`: does anything come back from this host? ICMP echoes and a TCP connect, no threads.

An answer is an echo reply with our own token, or TCP saying anything (a refusal is an answer). Silence is only
reported of addresses that could be asked: where no packet could leave this machine, this machine is the blind one,
and the address is left out of the result. Not here: what an answer means (`dr.core`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct

from dr.adapters.probe.connect import NOT_ASKED, Sockets

log = logging.getLogger(__name__)

ECHOES = (0.0, 1 / 3, 2 / 3)  # parts of the window
TCP_PORT = 22
GATHER_S = (
    0.02  # after the first answer, so that a host's other addresses are not called silent by mere order
)
PACKETS_PER_WAKE = 64  # so that a flood of foreign packets cannot keep the loop

_TOKEN_BYTES = 16
_ICMP_FILTER = 1  # level SOL_RAW; a bit set blocks that type
_ICMP6_FILTER = 1  # level IPPROTO_ICMPV6
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # request, reply
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


class HostProber:
    """Looks for hosts. Keeps no sockets between two probes. `tcp_port` 0: by ICMP only."""

    def __init__(self, *, tcp_port: int = TCP_PORT, sockets: Sockets = socket.socket) -> None:
        self._tcp_port = tcp_port
        self._sockets = sockets
        self.icmp = True  # False since an ICMP socket was refused: then only TCP looks

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        """Whether anything came back, for each address that could be asked.

        Returns as soon as one answered, at the latest after `window_s`. Addresses are IPv4 or IPv6 literals:
        ValueError for anything else, as a look-up would block, and would depend on a name server.
        """
        targets = [_Target(address, self._tcp_port) for address in dict.fromkeys(addresses)]
        async with contextlib.AsyncExitStack() as stack:
            look = _Look(targets, window_s, self._sockets, stack, tcp=bool(self._tcp_port))
            refused = look.start()
            if refused and self.icmp:
                how = "looking for hosts by TCP only" if self._tcp_port else "no guest can be pinged"
                log.warning("no ICMP socket (%s): %s", refused, how)
            self.icmp = not refused
            if targets:
                await look.wait()
        return {target.address: target.answered for target in targets if target.answered or target.asked}


class _Target:
    """One address and what is known of it in this probe."""

    def __init__(self, address: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            raise ValueError(f"{address!r} is not an IP address") from None
        self.address = address
        self.family = int(found[0][0])
        self.sockaddr = found[0][4]
        self.token = os.urandom(_TOKEN_BYTES)
        self.identifier = int.from_bytes(os.urandom(2), "big")
        self.asked = False
        self.answered = False


class _Look:
    """One probe: its sockets, timers and the event that ends it. The stack closes all of it."""

    def __init__(
        self,
        targets: list[_Target],
        window_s: float,
        sockets: Sockets,
        stack: contextlib.AsyncExitStack,
        *,
        tcp: bool,
    ) -> None:
        self._targets = targets
        self._tcp = tcp
        self._window_s = window_s
        self._sockets = sockets
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + window_s
        self._icmp: dict[int, socket.socket] = {}
        self._first = asyncio.Event()

    def start(self) -> str:
        """Open everything and send the first packets; why there is no ICMP, if there is none."""
        refused = ""
        for family in sorted({target.family for target in self._targets}):
            try:
                self._icmp[family] = self._open_icmp(family)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    refused = error.strerror or str(error)
                elif error.errno != errno.EAFNOSUPPORT:
                    log.warning("no ICMP socket: %s", error)
        for target in self._targets:
            if self._tcp:
                self._connect(target)
        for number, part in enumerate(ECHOES):
            if part:
                timer = self._loop.call_later(part * self._window_s, self._echo_all, number)
                self._stack.callback(timer.cancel)
            else:
                self._echo_all(number)
        return refused

    async def wait(self) -> None:
        """Until one answered, or the window is over. What came in while this process was not scheduled counts:
        asyncio looks at sockets before it looks at timers.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._until):
                await self._first.wait()
                if not all(target.answered for target in self._targets):
                    await asyncio.sleep(GATHER_S)

    # --- ICMP ---

    def _open_icmp(self, family: int) -> socket.socket:
        """A raw socket where that is allowed, else an unprivileged "ping" socket. Raises OSError."""
        protocol = _PROTOCOL[socket.AddressFamily(family)]
        try:
            icmp = self._sockets(family, socket.SOCK_RAW, protocol)
        except PermissionError:
            icmp = self._sockets(family, socket.SOCK_DGRAM, protocol)
        self._stack.callback(icmp.close)
        icmp.setblocking(False)
        if icmp.type == socket.SOCK_RAW:
            reply = _ECHO[socket.AddressFamily(family)][1]
            if family == socket.AF_INET:
                icmp.setsockopt(255, _ICMP_FILTER, struct.pack("=I", ~(1 << reply) & 0xFFFFFFFF))
            else:
                blocked = [0xFFFFFFFF] * 8
                blocked[reply >> 5] &= ~(1 << (reply & 31))
                icmp.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
        self._loop.add_reader(icmp, self._receive, icmp)
        self._stack.callback(self._loop.remove_reader, icmp)
        return icmp

    def _echo_all(self, number: int) -> None:
        for target in self._targets:
            icmp = self._icmp.get(target.family)
            if icmp is None or target.answered:
                continue
            packet = echo_request(target.family, target.identifier, number, target.token)
            try:
                icmp.sendto(packet, (target.sockaddr[0], 0, *target.sockaddr[2:]))
                target.asked = True
            except OSError as error:
                target.asked |= error.errno not in NOT_ASKED

    def _receive(self, icmp: socket.socket) -> None:
        for _ in range(PACKETS_PER_WAKE):
            try:
                packet, sender = icmp.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error that the kernel queued here: no answer, and read away
            for target in self._targets:
                if target.family == icmp.family and is_reply(icmp, packet, sender, target):
                    self._answer(target)

    # --- TCP ---

    def _connect(self, target: _Target) -> None:
        try:
            tcp = self._sockets(target.family, socket.SOCK_STREAM, 0)
        except OSError:
            return
        self._stack.callback(tcp.close)
        tcp.setblocking(False)
        code = tcp.connect_ex(target.sockaddr)
        if code == errno.EINPROGRESS:
            target.asked = True
            self._loop.add_writer(tcp, self._connected, tcp, target)
            self._stack.callback(self._loop.remove_writer, tcp)
        else:
            self._judge(code, target)

    def _connected(self, tcp: socket.socket, target: _Target) -> None:
        self._loop.remove_writer(tcp)
        self._judge(tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), target)

    def _judge(self, code: int, target: _Target) -> None:
        target.asked |= code not in NOT_ASKED
        if code in (0, errno.ECONNREFUSED, errno.ECONNRESET):
            self._answer(target)

    def _answer(self, target: _Target) -> None:
        target.asked = target.answered = True
        self._first.set()


def echo_request(family: int, identifier: int, sequence: int, token: bytes) -> bytes:
    """An ICMP echo request. For IPv6 the kernel fills in the checksum, as it alone knows the source address."""
    kind = _ECHO[socket.AddressFamily(family)][0]
    packet = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + token
    if family == socket.AF_INET:
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    return packet


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def is_reply(icmp: socket.socket, packet: bytes, sender: tuple[object, ...], target: _Target) -> bool:
    """Whether this packet is the target's own reply to one of this probe's echoes."""
    if icmp.family == socket.AF_INET and icmp.type == socket.SOCK_RAW:
        if not packet or not 0x45 <= packet[0] <= 0x4F:  # version 4, with a header of its length in words
            return False
        packet = packet[(packet[0] & 0x0F) * 4 :]
    if len(packet) != 8 + _TOKEN_BYTES:
        return False
    kind, code, _, identifier, sequence = struct.unpack("!BBHHH", packet[:8])
    return (
        kind == _ECHO[icmp.family][1]
        and code == 0
        # For a ping socket the kernel puts its own identifier in, and matches it itself.
        and (identifier == target.identifier or icmp.type != socket.SOCK_RAW)
        and sequence < len(ECHOES)
        and packet[8:] == target.token
        and str(sender[0]).partition("%")[0] == str(target.sockaddr[0]).partition("%")[0]
    )
