"""Probes by a way of one's choice: ICMP echo requests (RFC 792) that leave by a named device, whatever the routes say.

The device is given with each packet (IP_PKTINFO, ip(7)); answers come back by whatever way the other side has chosen, and are told apart
by identifier and sequence number. So a probe says whether a way works *towards* a host. A device that the destination has no route by takes
it as on link: towards a tunnel's other end that is right. Needs CAP_NET_RAW. IPv4 only.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from dataclasses import dataclass, field

from bgpd.model.prefix import Address

WAIT_S = 1.0
"""For the last answer."""
BYTES = 56
"""Of payload, as ping sends."""
_ECHO, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")
_PKTINFO = struct.Struct("=I4s4s")
_IP_PKTINFO = 8
"""ip(7); the module has no name for it."""
_NUMBERS = 1 << 16


@dataclass
class Probed:
    """What became of the probes by one device."""

    device: str
    sent: int = 0
    times_s: list[float] = field(default_factory=list)
    """From each probe that was answered to its answer."""
    error: str = ""
    """Why the last one that could not be sent was not."""


async def probe(
    source: Address, target: Address, devices: list[str], *, count: int, interval_s: float, wait_s: float = WAIT_S
) -> list[Probed]:
    """Send *count* probes by each device at once, *interval_s* apart; takes count * interval_s + *wait_s* at most.

    Raises OSError where no raw socket may be made.
    """
    found = [Probed(device) for device in devices]
    sent: dict[int, tuple[Probed, float]] = {}
    identifier = int.from_bytes(os.urandom(2), "big")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP) as wire:
        listening = asyncio.create_task(_listen(wire, identifier, target, sent))
        try:
            for number in range(count):
                for at, one in enumerate(found):
                    sequence = (number * len(found) + at) % _NUMBERS
                    _send(wire, (source, target), one, (identifier, sequence), sent)
                await asyncio.sleep(interval_s)
            deadline = time.monotonic() + wait_s
            while sent and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    return found


def _send(
    wire: socket.socket,
    ends: tuple[Address, Address],
    one: Probed,
    marks: tuple[int, int],
    sent: dict[int, tuple[Probed, float]],
) -> None:
    source, target = ends
    try:
        index = socket.if_nametoindex(one.device)
        way = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(index, source.packed, bytes(4)))
        at = time.monotonic()
        wire.sendmsg([_request(*marks)], [way], 0, (str(target), 0))
    except OSError as error:
        one.sent += 1
        one.error = error.strerror or str(error)
        return
    one.sent += 1
    sent[marks[1]] = (one, at)


async def _listen(wire: socket.socket, identifier: int, target: Address, sent: dict[int, tuple[Probed, float]]) -> None:
    """Take note of answers until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        packet = await loop.sock_recv(wire, 2048)
        now = time.monotonic()
        start = (packet[0] & 15) * 4 if packet else 0
        if len(packet) < start + _HEADER.size or packet[12:16] != target.packed:
            continue
        kind, _, _, found, sequence = _HEADER.unpack_from(packet, start)
        if kind == _ECHO_REPLY and found == identifier and sequence in sent:
            one, at = sent.pop(sequence)
            one.times_s.append(now - at)


def _request(identifier: int, sequence: int) -> bytes:
    body = bytes(BYTES)
    bare = _HEADER.pack(_ECHO, 0, 0, identifier, sequence) + body
    total = sum(struct.unpack(f"!{len(bare) // 2}H", bare))
    total = (total >> 16) + (total & 0xFFFF)
    return _HEADER.pack(_ECHO, 0, ~(total + (total >> 16)) & 0xFFFF, identifier, sequence) + body
