"""A BGP speaker that sends whatever bytes it is told to: OPEN and KEEPALIVE are its own, UPDATEs are the test's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import Self

from bgpd.model.prefix import Address

CLONE_NEWNET = 0x40000000
OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4


def capability(code: int, value: bytes = b"") -> bytes:
    return bytes((2, len(value) + 2, code, len(value))) + value


IPV4, IPV6 = capability(1, b"\0\1\0\1"), capability(1, b"\0\2\0\1")
REFRESH = capability(2)


def asn4(asn: int) -> bytes:
    return capability(65, asn.to_bytes(4, "big"))


def graceful(restart_s: int, *families: int, flags: int = 0) -> bytes:
    """Restart flags (8 for R, 4 for N), the time, and the F bit for each family."""
    head = (flags << 12 | restart_s).to_bytes(2, "big")
    return capability(64, head + b"".join(bytes((0, afi, 1, 0x80)) for afi in families))


def message(kind: int, body: bytes = b"") -> bytes:
    return b"\xff" * 16 + (19 + len(body)).to_bytes(2, "big") + bytes((kind,)) + body


class RawSpeaker:
    """Owns a listening socket in *netns* and the last connection to it."""

    def __init__(self, netns: str, address: Address, asn: int, *capabilities: bytes) -> None:
        self.asn, self.router_id = asn, address
        self.capabilities = capabilities or (IPV4, REFRESH, asn4(asn))
        self.openings: deque[bytes] = deque()
        """Sent in the place of our OPEN, one a connection."""
        self.received: list[tuple[int, bytes]] = []
        """(kind, body) of each message of all connections but KEEPALIVEs."""
        self.established = 0
        """Sessions so far."""
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._socket = _listen(netns, str(address))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, sock=self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.close()

    def close(self) -> None:
        """End the connection without a NOTIFICATION."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def send(self, body: bytes, kind: int = UPDATE) -> None:
        self.write(message(kind, body))

    def write(self, data: bytes) -> None:
        assert self._writer is not None, "there is no session"
        self._writer.write(data)

    @property
    def is_up(self) -> bool:
        return self._writer is not None

    def notifications(self) -> list[tuple[int, int]]:
        """(code, subcode) of each NOTIFICATION received."""
        return [(body[0], body[1]) for kind, body in self.received if kind == NOTIFICATION]

    def open_body(self, *, version: int = 4, asn: int = 0, hold_time_s: int = 90, router_id: bytes = b"") -> bytes:
        """The body of our OPEN, or of one that differs."""
        parameters = b"".join(self.capabilities)
        short = (asn or (self.asn if self.asn < 65536 else 23456)).to_bytes(2, "big")
        head = bytes((version,)) + short + hold_time_s.to_bytes(2, "big") + (router_id or self.router_id.packed)
        return head + bytes((len(parameters),)) + parameters

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.openings.popleft() if self.openings else message(OPEN, self.open_body()))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(19)
                kind, got = head[18], await reader.readexactly(int.from_bytes(head[16:18], "big") - 19)
                if kind != KEEPALIVE:
                    self.received.append((kind, got))
                elif self._writer is not writer:
                    self._writer = writer
                    self.established += 1
                if kind in (OPEN, KEEPALIVE):
                    writer.write(message(KEEPALIVE))
                if kind == NOTIFICATION:
                    break
        if self._writer is writer:
            self._writer = None
        writer.close()


def _listen(netns: str, address: str) -> socket.socket:
    """Open a listening socket in *netns*: a namespace belongs to a thread, and a socket stays where it was opened."""
    made: list[socket.socket] = []

    def inside() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        assert libc.setns(descriptor, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(descriptor)
        made.append(socket.create_server((address, 179)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return made[0]
