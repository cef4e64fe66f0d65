"""Commands to ExaBGP, one in flight at a time.

ExaBGP answers each command with ``done`` or ``error``, without saying which command it means. Answers do not even come in order: a command
that is refused at once (an End-of-RIB for a session that just went down) overtakes one that was scheduled before. With one command in
flight there is nothing to mistake, and the batch form makes up for the window: a command carries hundreds of routes.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

ACK_WINDOW = 1
"""Commands in flight; see above. Unpaced commands would also cost ExaBGP a scan of its whole queue for each."""
ACK_WAIT_S = 30.0
"""A speaker that is silent for so long while a command waits for its answer does not work: it is replaced."""


class SpeakerGone(Exception):  # noqa: N818  what happened, not what is wrong
    """No answer will come. Do nothing: after the next attachment everything is read back and reconciled."""


class Reply(msgspec.Struct, frozen=True):
    done: bool
    lines: tuple[bytes, ...] = ()
    """What ``show`` printed."""


class Commands:
    """Owns the writing half of the connection, the command in flight, and the queue of those behind it (the lock's)."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._idle = asyncio.Event()
        self._lines: list[bytes] = []
        self._sent = 0.0

    def attach(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._reply = None
        self._idle.set()

    def detach(self) -> None:
        """Fail the command in flight and those behind it with SpeakerGone."""
        self._writer = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(SpeakerGone())
            self._reply.exception()  # seen: its caller may have been cancelled
        self._reply = None
        self._idle.set()

    def close(self) -> None:
        """Close the connection; its reader then sees the end of it."""
        if self._writer is not None:
            self._writer.close()

    @property
    def attached(self) -> bool:
        return self._writer is not None

    @property
    def waiting_s(self) -> float:
        """How long the command in flight has been there; 0 without one."""
        return time.monotonic() - self._sent if self._reply is not None else 0.0

    async def run(self, command: str) -> Reply:
        """Send *command* and wait for its answer; raises SpeakerGone."""
        async with self._lock:
            await self._idle.wait()  # the answer to a command whose caller was cancelled is still to come
            if self._writer is None:
                raise SpeakerGone
            reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._reply = reply
            self._idle.clear()
            self._lines = []
            self._sent = time.monotonic()
            self._writer.write(command.encode() + b"\n")
            return await reply

    def text(self, line: bytes) -> None:
        """Take a line of the answer."""
        self._lines.append(line)

    def answer(self, done: bool) -> None:
        """Take the answer; one that nobody waits for is ignored."""
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_result(Reply(done, tuple(self._lines)))
        self._idle.set()
