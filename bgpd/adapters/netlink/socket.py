"""A raw rtnetlink socket (RFC 3549; include/uapi/linux/netlink.h): requests in batches, dumps, and multicast.

Theory of operation: the kernel handles all messages of one ``send`` in order before ``send`` returns, goes on after an error,
and answers each failed message whether or not it asked for an answer. So only the last message of a batch asks for an ACK: that
ACK is the barrier, errors before it are matched by sequence number, and a success costs no message at all. Nothing ever blocks:
what the kernel has to say is in the receive buffer by the time ``send`` returns.

Laws: a batch is bounded (BATCH_BYTES) and the event loop runs between batches and every DUMP_CHUNKS reads of a dump; a dump that
the kernel calls inconsistent is read again.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import itertools
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

_T = TypeVar("_T")

BATCH_BYTES: Final = 128 * 1024
"""Size of one send: between 60 and 250 KB the kernel takes 190k routes/s; larger ones are slower and hold the event loop longer."""
BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Receive buffer of requests: room for an error with text (about 1 KB of kernel memory) for every message of a batch."""
MONITOR_BUFFER_BYTES: Final = 64 * 1024 * 1024
"""Receive buffer of a multicast socket: about 100,000 route changes while the event loop is busy. The default overflows at 256."""
READ_BYTES: Final = 64 * 1024
"""Room for one datagram; the kernel makes none larger than 32 KB (its dumps) plus one oversized message."""
DUMP_ATTEMPTS: Final = 10
"""How often to read a table that changes under the reader, before the caller is told."""
DUMP_CHUNKS: Final = 16
"""Reads (of up to 32 KB) of a dump between two turns of the event loop: about 10 ms of decoding."""
DRAIN_BYTES: Final = 1024 * 1024
"""Bytes of notifications handled in one turn of the event loop: about 100 ms of decoding."""

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
_NLM_F_DUMP_INTR: Final = 0x10
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_CAPPED: Final = 0x100
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLMSGERR_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_FILTER: Final = 26
_BPF_LD_HALF: Final = 0x28
_BPF_LD_WORD: Final = 0x20
_BPF_JUMP_EQUAL: Final = 0x15
_BPF_RETURN: Final = 0x06

HEADER: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence number, port."""
_FLAGS_OFFSET: Final = 6
_SEQUENCE_OFFSET: Final = 8
_LAST_SEQUENCE: Final = 0xFFFFFFFF
_LOSSES: Final = frozenset({errno.ENOBUFS, errno.EAGAIN})
"""What a reader hears where an answer did not fit the buffer: once ENOBUFS, and then only that there is none."""
_BPF: Final = struct.Struct("=HBBI")  # sock_filter: code, jump if true, jump if false, constant
_ERROR: Final = struct.Struct("=i")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_ATTRIBUTE: Final = struct.Struct("=HH")


class Refusal(msgspec.Struct, frozen=True):
    """Why the kernel refused a message: the error number, and the kernel's own words (extended ACK) where it has any."""

    errno: int
    text: str = ""

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno, str(self.errno))
        return f"{name}: {os.strerror(self.errno)}" + (f" ({self.text})" if self.text else "")


def split(data: bytes) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (type, flags, sequence, port, start, end) of each message of a datagram; start and end bound the payload."""
    offset, total = 0, len(data)
    while offset + 16 <= total:
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, port, offset + 16, min(offset + length, total)
        offset += length + 3 & ~3


class NetlinkSocket:
    """Owns one rtnetlink socket for requests and its sequence numbers.

    Opened in the network namespace of the calling thread. Raises PermissionError without CAP_NET_ADMIN.
    """

    def __init__(self) -> None:
        self._socket = _open(BUFFER_BYTES)
        self._sequence = 1
        self.port: int = self._socket.getsockname()[0]
        """Our netlink port: notifications of changes that we asked for carry it."""

    async def transact(self, messages: Sequence[bytes]) -> dict[int, Refusal]:
        """Send *messages* in order; return why some were refused, by their index in *messages*.

        Raises OSError (ENOBUFS) if the kernel's answers were lost: the caller reads the tables back.
        """
        refused: dict[int, Refusal] = {}
        start = 0
        while start < len(messages):
            end = _batch_end(messages, start)
            refused.update(self._exchange(messages, start, end))
            start = end
            await asyncio.sleep(0)
        return refused

    async def stream(self, batch: bytearray, size: int) -> dict[int, Refusal]:
        """As ``transact``, for messages of *size* bytes that follow one another in *batch*; they are stamped in place."""
        count = len(batch) // size
        first = self._sequence if self._sequence + count <= _LAST_SEQUENCE else 1
        self._sequence = first + count
        numbers = array("I", range(first, first + count)).tobytes()
        for byte in range(4):
            batch[_SEQUENCE_OFFSET + byte :: size] = numbers[byte::4]
        refused: dict[int, Refusal] = {}
        whole = memoryview(batch)
        for start in range(0, count, BATCH_BYTES // size):
            end = min(start + BATCH_BYTES // size, count)
            _ask_for_ack(batch, (end - 1) * size)
            self._socket.send(whole[start * size : end * size])
            refused.update(self._answers(first + start, end - start, start))
            await asyncio.sleep(0)
        return refused

    def _exchange(self, messages: Sequence[bytes], start: int, end: int) -> dict[int, Refusal]:
        chunk = messages[start:end]
        batch = bytearray(b"".join(chunk))
        first = self._sequence
        offset = last = 0
        stamp = _U32.pack_into
        for sequence, message in enumerate(chunk, first):
            stamp(batch, offset + _SEQUENCE_OFFSET, sequence & _LAST_SEQUENCE)
            last = offset
            offset += len(message)
        self._sequence = (first + len(chunk)) & _LAST_SEQUENCE
        _ask_for_ack(batch, last)
        self._socket.send(batch)
        return self._answers(first, end - start, start)

    def _answers(self, first: int, count: int, base: int) -> dict[int, Refusal]:
        """Collect answers up to the one to the last message of the batch: ACK or error, it gets one."""
        refused: dict[int, Refusal] = {}
        while True:
            data = self._receive()
            for kind, flags, sequence, _, start, end in split(data):
                position = sequence - first & 0xFFFFFFFF
                if kind != _NLMSG_ERROR or position >= count:
                    continue  # left over from an exchange that was given up
                refusal = _refusal(data, flags, start, end)
                if refusal is not None:
                    refused[base + position] = refusal
                if position == count - 1:
                    return refused

    def _receive(self) -> bytes:
        """Return one datagram. Raises OSError (ENOBUFS) if some were lost; the rest is then thrown away, to make room for the next."""
        try:
            return self._socket.recv(READ_BYTES)
        except OSError as error:
            if error.errno not in _LOSSES:
                raise
        while self._waits():
            pass
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def _waits(self) -> bool:
        """Throw one datagram away; returns whether there was one, or a word of more that were lost."""
        try:
            self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _LOSSES:
                raise
        return True

    async def dump(self, request: bytes, decode: Callable[[int, bytes, int, int], _T | None]) -> list[_T]:
        """Read a table: *decode* gets (type, data, start, end) of each message and says what to keep.

        Raises OSError: EINTR if the table changed under each of DUMP_ATTEMPTS readings (read it later), or what the kernel answers.
        """
        for _ in range(DUMP_ATTEMPTS):
            entries = await self._dump_once(request, decode)
            if entries is not None:
                return entries
            await asyncio.sleep(0)
        raise OSError(errno.EINTR, f"the table changed under {DUMP_ATTEMPTS} readings")

    async def _dump_once(self, request: bytes, decode: Callable[[int, bytes, int, int], _T | None]) -> list[_T] | None:
        message = bytearray(request)
        wanted = self._sequence
        self._sequence = wanted + 1 & 0xFFFFFFFF
        _U32.pack_into(message, _SEQUENCE_OFFSET, wanted)
        self._socket.send(message)
        entries: list[_T] = []
        consistent = True
        for chunk in itertools.count(1):
            data = self._receive()
            for kind, flags, sequence, _, start, end in split(data):
                if sequence != wanted:
                    continue
                if flags & _NLM_F_DUMP_INTR:
                    consistent = False
                if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
                    code = -_ERROR.unpack_from(data, start)[0] if end - start >= 4 else 0
                    if code and code != errno.EINTR:
                        raise OSError(code, os.strerror(code))
                    return entries if consistent and not code else None
                entry = decode(kind, data, start, end)
                if entry is not None:
                    entries.append(entry)
            if chunk % DUMP_CHUNKS == 0:
                await asyncio.sleep(0)
        return None

    def close(self) -> None:
        self._socket.close()


class MulticastSocket:
    """Owns one rtnetlink socket that listens to *groups*; opened in the network namespace of the calling thread.

    The kernel keeps back messages of *silenced* types that are echoes of requests from *port*: a filter (BPF) there costs nothing,
    while receiving the echo of a route costs as much as making it.
    """

    def __init__(self, groups: Sequence[int], port: int, silenced: Sequence[int]) -> None:
        self._arrived = asyncio.Event()
        self._socket = _open(MONITOR_BUFFER_BYTES)
        code = _echo_filter(port, silenced)
        program = ctypes.create_string_buffer(code, len(code))
        count = len(code) // _BPF.size
        descriptor = struct.pack(
            "HP", count, ctypes.addressof(program)
        )  # sock_fprog: the kernel copies what it points to
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    async def readable(self) -> None:
        """Wait for notifications, or for :meth:`wake`."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            loop.remove_reader(self._socket.fileno())
            self._arrived.clear()

    def wake(self) -> None:
        """End the present or the next waiting at once."""
        self._arrived.set()

    def drain(self) -> tuple[list[bytes], bool]:
        """Return up to DRAIN_BYTES of what has arrived, and whether some was lost (ENOBUFS: read everything again)."""
        datagrams: list[bytes] = []
        size, lost = 0, False
        while size < DRAIN_BYTES:
            try:
                datagram = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            datagrams.append(datagram)
            size += len(datagram)
        return datagrams, lost

    def close(self) -> None:
        self._socket.close()


def _open(receive_bytes: int) -> socket.socket:
    raw = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * BATCH_BYTES)
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            raw.setsockopt(_SOL_NETLINK, option, 1)
        raw.bind((0, 0))
    except OSError:
        raw.close()
        raise
    return raw


def _echo_filter(port: int, silenced: Sequence[int]) -> bytes:
    """Classic BPF: drop a message whose type is one of *silenced* and whose port is *port* (linux/filter.h).

    BPF loads in network order while netlink is in the host's, so the constants are swapped where the host's differs.
    """
    program = [_BPF.pack(_BPF_LD_HALF, 0, 0, 4)]
    for position, kind in enumerate(silenced):
        swapped = struct.unpack("!H", struct.pack("=H", kind))[0]
        program.append(_BPF.pack(_BPF_JUMP_EQUAL, len(silenced) - position, 0, swapped))
    program.append(_BPF.pack(_BPF_RETURN, 0, 0, 0xFFFFFFFF))
    program.append(_BPF.pack(_BPF_LD_WORD, 0, 0, 12))
    program.append(_BPF.pack(_BPF_JUMP_EQUAL, 0, 1, struct.unpack("!I", struct.pack("=I", port))[0]))
    program.append(_BPF.pack(_BPF_RETURN, 0, 0, 0))
    program.append(_BPF.pack(_BPF_RETURN, 0, 0, 0xFFFFFFFF))
    return b"".join(program)


def _ask_for_ack(batch: bytearray, offset: int) -> None:
    flags = _U16.unpack_from(batch, offset + _FLAGS_OFFSET)[0]
    _U16.pack_into(batch, offset + _FLAGS_OFFSET, flags | NLM_F_ACK)


def _batch_end(messages: Sequence[bytes], start: int) -> int:
    size = 0
    for end in range(start, len(messages)):
        size += len(messages[end])
        if size > BATCH_BYTES and end > start:
            return end
    return len(messages)


def _refusal(data: bytes, flags: int, start: int, end: int) -> Refusal | None:
    """Read an nlmsgerr; None if it says success."""
    code = -_ERROR.unpack_from(data, start)[0]
    if not code:
        return None
    text = ""
    if flags & _NLM_F_ACK_TLVS:
        # the request follows: its header alone if capped, else the whole of it
        length = 16 if flags & _NLM_F_CAPPED else HEADER.unpack_from(data, start + 4)[0] + 3 & ~3
        offset = start + 4 + length
        while offset + 4 <= end:
            size, kind = _ATTRIBUTE.unpack_from(data, offset)
            if size < 4:
                break
            if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
                text = data[offset + 4 : offset + size].rstrip(b"\0").decode("utf-8", "replace")
            offset += size + 3 & ~3
    return Refusal(code, text)
