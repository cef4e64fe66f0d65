"""One command in flight: whose answer is whose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from bgpd.adapters.exabgp.commands import Commands, Reply, SpeakerGone

pytestmark = pytest.mark.netns  # an event loop and a socket: not of the core's tier


def attached(body: Callable[[Commands, asyncio.StreamReader], Awaitable[None]]) -> None:
    """Run *body* with commands attached to one end of a socket pair, and the reader of the other."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        reader, other = await asyncio.open_connection(sock=theirs)
        commands = Commands()
        commands.attach(writer)
        async with asyncio.timeout(5):
            await body(commands, reader)
        for end in (writer, other):
            end.close()
            await end.wait_closed()

    asyncio.run(main())


def test_a_reply_holds_the_text_before_it() -> None:
    """The lines between a command and its answer are its reply's."""

    async def body(commands: Commands, reader: asyncio.StreamReader) -> None:
        task = asyncio.create_task(commands.run("show"))
        assert await reader.readline() == b"show\n"
        commands.text(b"a")
        commands.text(b"b")
        commands.answer(True)
        assert await task == Reply(True, (b"a", b"b"))

    attached(body)


def test_the_answer_to_a_cancelled_command_is_nobodys() -> None:
    """A command is sent only after the one before it was answered, even if nobody waits for that answer any more."""

    async def body(commands: Commands, reader: asyncio.StreamReader) -> None:
        first = asyncio.create_task(commands.run("first"))
        assert await reader.readline() == b"first\n"
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(commands.run("second"))
        commands.answer(False)
        assert await reader.readline() == b"second\n"
        commands.answer(True)
        assert await second == Reply(True)

    attached(body)


def test_a_lost_speaker_answers_nobody() -> None:
    """The command in flight and those behind it end with SpeakerGone."""

    async def body(commands: Commands, reader: asyncio.StreamReader) -> None:
        tasks = [asyncio.create_task(commands.run(word)) for word in ("first", "second")]
        assert await reader.readline() == b"first\n"
        commands.detach()
        for task in tasks:
            with pytest.raises(SpeakerGone):
                await task

    attached(body)
