"""Health checks of services: a command, a TCP port or a URL, each in a task of its own; verdicts go into the inbox.

Laws: a probe ends within its time-out, whatever it talks to; a probe that cannot be made is a failure of the service, never of
the daemon; the first probe is made at once, so that a restart finds out before anything is withdrawn.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import aiohttp

from bgpd.core.health.rise import Verdict
from bgpd.model.event import Event, HealthChanged
from bgpd.model.health import HealthCheck

REASON_LENGTH: Final = 200
"""Characters of a reason that are told."""


class Health:
    """Owns the tasks of all checks."""

    def __init__(self, checks: Iterable[HealthCheck], deliver: Callable[[Event], Awaitable[None]]) -> None:
        self._checks = tuple(checks)
        self._deliver = deliver

    async def run(self) -> None:
        """Probe until cancelled; ends at once where there is nothing to probe."""
        async with asyncio.TaskGroup() as tasks:
            for check in self._checks:
                tasks.create_task(self._watch(check))

    async def _watch(self, check: HealthCheck) -> None:
        verdict = Verdict(check.rise, check.fall)
        while True:
            reason = await probe(check)
            if verdict.take(not reason):
                await self._deliver(HealthChanged(check.name, not reason, reason[:REASON_LENGTH]))
            await asyncio.sleep(check.interval_s)


async def probe(check: HealthCheck) -> str:
    """Make one probe; returns why it failed, empty if it passed."""
    kind = _command if check.command else _tcp if check.tcp is not None else _http
    try:
        async with asyncio.timeout(check.timeout_s):
            return await kind(check)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"


async def _command(check: HealthCheck) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *check.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # so that its children end with it
        )
    except OSError as error:
        return f"{check.command[0]} cannot be run: {error.strerror}"
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return "" if status == 0 else f"{check.command[0]} ended with status {status}"


async def _tcp(check: HealthCheck) -> str:
    assert check.tcp is not None
    address, port = check.tcp
    try:
        _, writer = await asyncio.open_connection(str(address), port)
    except OSError as error:
        return f"{address} port {port}: {os.strerror(error.errno) if error.errno else error}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


async def _http(check: HealthCheck) -> str:
    try:
        async with aiohttp.ClientSession() as session, session.get(check.url, allow_redirects=False) as answer:
            return "" if answer.status < 400 else f"{check.url} answers {answer.status} {answer.reason}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{check.url}: {error or type(error).__name__}"
