"""The BFD process seen from the daemon: a target of the reconciler, and a source of events.

It runs in a session of its own and outlives the daemon: its sessions are what the neighbors judge us by. Attaching to a running one
reads back what it holds. A process that dies takes all its sessions' states with it; that says nothing about any path, so it is told as
"not known" and never as a failure.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import msgspec

from bgpd.adapters import children
from bgpd.adapters.bfd import lines
from bgpd.adapters.secrets import Passwords, Unfit
from bgpd.core.health.bfd import Diagnostic, Settings, State
from bgpd.model.bfd import BfdSession, BfdState, BfdStatus
from bgpd.model.event import BfdChanged, Event
from bgpd.model.notice import Notice
from bgpd.model.peer import Bfd
from bgpd.model.prefix import Address

READ_BYTES = 1 << 16
ANSWER_WAIT_S = 5.0
"""A session is made within milliseconds; a process that says nothing for so long hangs, and is ended."""
START_WAIT_S = 10.0
"""It listens 0.2 s after its start; several times that on a busy machine."""
START_POLL_S = 0.02
RESPAWN_BACKOFF_S = (0.0, 0.2, 1.0, 5.0, 10.0)
"""Pauses before consecutive starts of a process that does not stay; the last one stays."""
STABLE_S = 30.0
"""A connection that lasted so long clears the back-off."""
SOCKET = "bfd.sock"
LOG = "bfd.log"
SECRET_BYTES = 20
"""Longest key of keyed SHA1 (RFC 5880 section 4.4)."""
_UCRED = struct.Struct("3i")
_WORDS = {
    Diagnostic.NONE: "",
    Diagnostic.TIME_EXPIRED: "control detection time expired",
    Diagnostic.ECHO_FAILED: "echo function failed",
    Diagnostic.NEIGHBOR_DOWN: "neighbor signaled session down",
    Diagnostic.FORWARDING_RESET: "forwarding plane reset",
    Diagnostic.PATH_DOWN: "path down",
    Diagnostic.CONCATENATED_DOWN: "concatenated path down",
    Diagnostic.ADMIN_DOWN: "administratively down",
    Diagnostic.REVERSE_CONCATENATED_DOWN: "reverse concatenated path down",
}
_STATES = {
    State.ADMIN_DOWN: BfdState.ADMIN_DOWN,
    State.DOWN: BfdState.DOWN,
    State.INIT: BfdState.INIT,
    State.UP: BfdState.UP,
}


class BfdProcess:
    """Owns the connection to the BFD process and what that process is known to hold."""

    name = "bfd"

    def __init__(
        self,
        runtime_dir: Path,
        deliver: Callable[[Event], Awaitable[None]],
        notice: Callable[[Notice], None],
        passwords: Passwords,
    ) -> None:
        self._socket = runtime_dir / SOCKET
        self._log = runtime_dir / LOG
        self._deliver = deliver
        self._notice = notice
        self._passwords = passwords
        self.drifted: Callable[[Iterable[Address]], None] = lambda _peers: None
        """Called with the peers whose sessions may not be as they were applied."""
        self._actual: dict[Address, BfdSession] = {}
        self._status: dict[Address, BfdStatus] = {}
        self._answers: dict[Address, asyncio.Future[str]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._child: int | None = None
        self._needed = asyncio.Event()
        self._stopping = False

    @property
    def actual(self) -> Mapping[Address, BfdSession]:
        return MappingProxyType(self._actual)

    # -------------------------------------------------------------- target

    async def apply(self, changes: Sequence[tuple[Address, BfdSession | None]]) -> dict[Address, str]:
        """Make, change and end sessions; returns why for each that cannot be."""
        self._needed.set()
        writer = self._writer
        if writer is None:
            return {peer: "the BFD process is not running yet" for peer, session in changes if session is not None}
        waiting: dict[Address, asyncio.Future[str]] = {}
        unfit: dict[Address, str] = {}
        for peer, session in changes:
            if session is None:
                writer.write(lines.encode(lines.Command(remove=peer)))
                self._actual.pop(peer, None)
                await self._forget(peer)
            else:
                try:
                    wanted = _wanted(peer, session, self._secret(session.timers))
                except Unfit as reason:
                    unfit[peer] = str(reason)
                    continue
                waiting[peer] = self._answers[peer] = asyncio.get_running_loop().create_future()
                writer.write(lines.encode(lines.Command(set=wanted)))
        refused = unfit | await self._gather(waiting)
        self._actual.update({peer: one for peer, one in changes if one is not None and peer not in refused})
        return refused

    def _secret(self, timers: Bfd) -> bytes:
        """Read the key of a session; raises Unfit."""
        if timers.password is None:
            return b""
        secret = self._passwords.read(timers.password).reveal()
        if len(secret) > SECRET_BYTES:
            where = f"{timers.password.name}/{timers.password.key}"
            raise Unfit(f"password {where}: a BFD key has at most {SECRET_BYTES} bytes (RFC 5880 section 4.4)")
        return secret

    async def _gather(self, waiting: dict[Address, asyncio.Future[str]]) -> dict[Address, str]:
        refused = {}
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                for peer, answer in waiting.items():
                    reason = await answer
                    if reason:
                        refused[peer] = reason
        except TimeoutError:
            for peer, answer in waiting.items():
                if not answer.done():
                    refused[peer] = f"the BFD process did not answer within {ANSWER_WAIT_S:.0f} s"
            self.kill()
        finally:
            for peer in waiting:
                self._answers.pop(peer, None)
        return refused

    # -------------------------------------------------------------- supervision

    async def run(self) -> None:
        """Attach to a running process, or start one as soon as a session is wanted; start over when it is gone."""
        failures = 0
        await self._wait_for_need()
        while not self._stopping:
            await asyncio.sleep(RESPAWN_BACKOFF_S[min(failures, len(RESPAWN_BACKOFF_S) - 1)])
            began = time.monotonic()
            reason = await self._attachment()
            if not self._stopping:
                self._notice(Notice("bfd.lost", {"reason": reason}))
            failures = 0 if time.monotonic() - began > STABLE_S else failures + 1

    async def stop(self, keep: bool = False) -> None:
        """End the process with AdminDown to every neighbor, unless *keep*."""
        self._stopping = True
        if self._writer is None:
            return
        if not keep:
            self._writer.write(lines.encode(lines.Command(stop=True)))
            with suppress(OSError):
                await self._writer.drain()
        self._close()

    async def _wait_for_need(self) -> None:
        """Where nobody wants BFD and none runs, no process is started."""
        if not self._socket.exists():
            await self._needed.wait()

    async def _attachment(self) -> str:
        """One life of a connection; returns why it ended."""
        opened = await self._reach()
        if opened is None:
            return f"the BFD process does not start; its log is {self._log}"
        reader, self._writer = opened
        try:
            return await self._serve(reader)
        finally:
            self._close()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result("the BFD process is gone")
            held = [*self._actual]
            self._actual.clear()
            for peer in [*self._status]:
                await self._forget(peer)
            self.drifted(held)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        deadline = time.monotonic() + START_WAIT_S
        started = False
        while time.monotonic() < deadline and not self._stopping:
            with suppress(OSError):
                return await asyncio.open_unix_connection(str(self._socket), limit=READ_BYTES)
            self._reap()
            if self._child is None and not started:
                self._spawn()
                started = True
            elif self._child is None:
                return None
            await asyncio.sleep(START_POLL_S)
        return None

    def _spawn(self) -> None:
        self._child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "bgpd.adapters.bfd.child", str(self._socket)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def _reap(self) -> None:
        if self._child is not None and children.has_ended(self._child):
            self._child = None

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    # -------------------------------------------------------------- a connection

    async def _serve(self, reader: asyncio.StreamReader) -> str:
        """Take what comes until the connection ends; returns why it did."""
        while True:
            try:
                raw = await reader.readline()
            except (OSError, ValueError) as error:
                return f"connection: {error}"
            if not raw.endswith(b"\n"):
                self._reap()
                return "it has ended"
            try:
                line = lines.decode_line(raw)
            except msgspec.MsgspecError as error:
                self.kill(signal.SIGTERM)  # it is of another version
                return f"a line that we cannot read: {error}"
            await self._take(line)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process that we are attached to: its socket says which it is."""
        if self._writer is None:
            return
        peer: socket.socket = self._writer.get_extra_info("socket")
        pid, _, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    async def _take(self, line: lines.Line) -> None:
        match line:
            case lines.Greeting(wanted=wanted):
                # A session with a key is applied again: only the process can tell whether the key is still the same.
                self._actual = {one.peer: _session(one) for one in wanted if one.key_id is None}
                self.drifted([one.peer for one in wanted])
            case lines.Refused(peer=peer, reason=reason):
                if peer is not None:
                    self._answer(peer, reason)
            case lines.Told():
                self._answer(line.peer, "")
                await self._tell(line.peer, _status(line))

    def _answer(self, peer: Address, reason: str) -> None:
        answer = self._answers.get(peer)
        if answer is not None and not answer.done():
            answer.set_result(reason)

    async def _tell(self, peer: Address, status: BfdStatus) -> None:
        if self._status.get(peer) != status:
            self._status[peer] = status
            await self._deliver(BfdChanged(peer, status))

    async def _forget(self, peer: Address) -> None:
        if self._status.pop(peer, None) is not None:
            await self._deliver(BfdChanged(peer, None))


def _wanted(peer: Address, session: BfdSession, secret: bytes) -> lines.Wanted:
    return lines.Wanted(
        peer=peer,
        local=session.local,
        multihop=session.multihop,
        interface=session.interface,
        settings=Settings(
            desired_min_tx_us=session.timers.min_tx_ms * 1000,
            required_min_rx_us=session.timers.min_rx_ms * 1000,
            multiplier=session.timers.multiplier,
        ),
        key_id=session.timers.key_id if session.timers.password is not None else None,
        meticulous=session.timers.meticulous,
        secret=secret,
    )


def _session(wanted: lines.Wanted) -> BfdSession:
    return BfdSession(
        local=wanted.local,
        multihop=wanted.multihop,
        interface=wanted.interface,
        timers=Bfd(
            min_tx_ms=wanted.settings.desired_min_tx_us // 1000,
            min_rx_ms=wanted.settings.required_min_rx_us // 1000,
            multiplier=wanted.settings.multiplier,
        ),
    )


def _status(told: lines.Told) -> BfdStatus:
    by_order = State.ADMIN_DOWN in (told.state, told.remote_state) or told.remote_diagnostic == Diagnostic.ADMIN_DOWN
    known = told.diagnostic in list(map(int, Diagnostic))
    return BfdStatus(
        state=_STATES[told.state],
        diagnostic=_WORDS[Diagnostic(told.diagnostic)] if known else f"diagnostic {told.diagnostic}",
        failed=told.state is not State.UP and told.diagnostic != Diagnostic.NONE and not by_order,
        independent=told.independent,
        detection_time_ms=told.detection_time_ms,
        problem=told.problem,
    )
