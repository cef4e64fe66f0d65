"""Neighbors on links without addresses: found by router advertisements (RFC 4861), and told of ourselves by ours.

A BGPPeer that names a link and no address (annotation ``bgpd.io/interface``) has whoever advertises itself there as its far
end; routers of the data centre find us the same way, so we advertise as well, with a lifetime of 0: nobody takes us for a
default router. One raw ICMPv6 socket a link.

Laws: what does not come from the link itself (hop limit 255) or not from a link-local address is ignored (section 6.1.2); a
neighbor that falls silent is no event, its session knows better; another one takes its place only when the first has been
silent for SILENCE_S. A link that is not there is tried again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from bgpd.adapters import clock
from bgpd.model.event import Event, RouterFound
from bgpd.model.prefix import Address

ADVERTISE_S: Final = 3.0
"""Between our advertisements, and between looks at which links are wanted; FRR's default for BGP is 10 s."""
SILENCE_S: Final = 40.0
"""After so long another router of the link takes over: several advertisements of the slowest usual interval."""
_ALL_NODES: Final = "ff02::1"
_ROUTER_ADVERTISEMENT: Final = 134
_ICMP6_FILTER: Final = 1
_HOP_LIMIT: Final = 255
_MESSAGE: Final = struct.pack("!BBHBBHII", _ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 0, 0, 0)
"""Type, code, checksum (the kernel's), hop limit, flags, lifetime 0, no timers."""


class Unnumbered:
    """Owns a socket for each wanted link, and the router that was found on it."""

    def __init__(self, wanted: Callable[[], set[str]], deliver: Callable[[Event], Awaitable[None]]) -> None:
        self._wanted = wanted
        self._deliver = deliver
        self._sockets: dict[str, socket.socket] = {}
        self._found: dict[str, tuple[Address, float]] = {}
        """(address, when it was heard last) by link."""
        self._untold: dict[str, Address] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Advertise and listen on the wanted links until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._advertise())
                tasks.create_task(self._tell())
        finally:
            for link in list(self._sockets):
                self._close(link)

    async def _advertise(self) -> None:
        while True:
            self._follow()
            for link, one in list(self._sockets.items()):
                try:
                    one.sendto(_MESSAGE, (_ALL_NODES, 0, 0, socket.if_nametoindex(link)))
                except OSError:
                    self._close(link)  # it went down or away: opened again when it is back
            await asyncio.sleep(ADVERTISE_S)

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._untold:
                link, address = self._untold.popitem()
                await self._deliver(RouterFound(link, address))

    def _follow(self) -> None:
        """Have sockets for the links that are wanted now."""
        wanted = self._wanted()
        for link in self._sockets.keys() - wanted:
            self._close(link)
            self._found.pop(link, None)
        for link in wanted - self._sockets.keys():
            with suppress(OSError):  # there is no such link yet
                self._sockets[link] = opened = _open(link)
                asyncio.get_running_loop().add_reader(opened, self._readable, link, opened)

    def _close(self, link: str) -> None:
        one = self._sockets.pop(link)
        asyncio.get_running_loop().remove_reader(one)
        one.close()

    def _readable(self, link: str, one: socket.socket) -> None:
        try:
            data, ancillary, _, source = one.recvmsg(1500, socket.CMSG_SPACE(4))
        except OSError:
            return
        limits = [struct.unpack("i", value)[0] for _, kind, value in ancillary if kind == socket.IPV6_HOPLIMIT]
        address = Address.parse(source[0].partition("%")[0])
        if limits != [_HOP_LIMIT] or not data or data[0] != _ROUTER_ADVERTISEMENT or not address.is_link_local:
            return
        now = clock.monotonic()
        known = self._found.get(link)
        if known is not None and known[0] != address and now < known[1] + SILENCE_S:
            return
        self._found[link] = (address, now)
        if known is None or known[0] != address:
            self._untold[link] = address
            self._news.set()


def _open(link: str) -> socket.socket:
    """Open a raw socket on *link* that hears router advertisements only; raises OSError."""
    one = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        blocked = bytearray(b"\xff" * 32)
        word = _ROUTER_ADVERTISEMENT >> 5
        bits = struct.unpack_from("=I", blocked, 4 * word)[0] & ~(1 << (_ROUTER_ADVERTISEMENT & 31)) & 0xFFFFFFFF
        struct.pack_into("=I", blocked, 4 * word, bits)
        one.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    except OSError:
        one.close()
        raise
    return one
