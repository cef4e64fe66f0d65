"""The speaker: an ExaBGP that we attach to or start, and keep running.

Theory of operation: ExaBGP runs in a session of its own, so neither a signal to our terminal nor our death reaches it. Our
only link is the shim's socket in the runtime folder. End of file there means that ExaBGP is gone (its shim ends with it),
or that the shim cut us off because we did not read; both end the attachment, and attaching again tells which it was. An
attachment is one task group: the reader, and the tasks that wait for answers which it reads. Nothing of an attachment
outlives it.

Laws: at most one ExaBGP for a runtime folder. SpeakerUp precedes every event of its sessions, SpeakerLost ends them all. A
dying ExaBGP is an event, never an exception.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from bgpd.adapters import children
from bgpd.adapters.exabgp import conf
from bgpd.adapters.exabgp.announce import AdjRibOutTarget
from bgpd.adapters.exabgp.codec import CodecError
from bgpd.adapters.exabgp.commands import ACK_WAIT_S, Commands, SpeakerGone
from bgpd.adapters.exabgp.lines import Answer, Hello, SnapshotEnd, Text, parse
from bgpd.adapters.exabgp.neighbors import NeighborsTarget
from bgpd.adapters.exabgp.notification import ADMIN_RESET, CEASE, command, explain
from bgpd.adapters.exabgp.source import Session, Source
from bgpd.adapters.secrets import DIRECTORY, Passwords
from bgpd.model.event import Event, SpeakerLost, SpeakerUp
from bgpd.model.peer import Notification
from bgpd.model.prefix import Address

READ_BYTES = 1 << 18
"""One read of the shim's socket."""
LINE_BYTES = 4 << 20
"""Longest line: an extended message (RFC 8654, 64 KiB) of 1-byte prefixes in stock JSON is about 2 MiB."""
RUNTIME_BYTES = 90
"""Longest path of the runtime folder: the name of a unix socket has 107 bytes (unix(7))."""
ALIVE_S = 5.0
"""How often the time is written down at which ExaBGP lived: restart times are tens of seconds."""
RESTARTED = "BGPD_RESTARTED"
"""What child/sessions.py reads in the environment: ``1`` if the new ExaBGP follows one whose routes are kept."""
IDLE_S = 5.0
"""How often a silent connection is asked whether a command waits too long."""
HELLO_WAIT_S = 5.0
"""The shim greets at once; one that does not is stopped."""
START_WAIT_S = 60.0
"""ExaBGP starts its shim 0.2 s after its own start; 20 s on an emulated processor of a busy host. One that ends is not waited for."""
START_POLL_S = 0.02
STOP_WAIT_S = 5.0
"""SIGTERM ends ExaBGP within a second; after this comes SIGKILL."""
RESPAWN_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before consecutive starts of an ExaBGP that does not stay; the last one stays."""
STABLE_S = 30.0
"""An attachment that lasted so long clears the back-off."""
SPEAKER_LOST = "ExaBGP is not attached"
"""Answer to what needs it."""
LOG_BYTES = 8 << 20
"""A log larger than this at a start of ExaBGP is renamed to ``.1``."""


class SpeakerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run ExaBGP."""

    runtime_dir: Path
    """Ours alone: configuration, socket, pid file. Its path has at most RUNTIME_BYTES."""
    router_id: Address
    mode: conf.Mode = "raw"
    """``raw``: UPDATEs pass through undecoded; ``json``: ExaBGP as it comes."""
    log_path: Path | None = None
    """Where ExaBGP's errors go; default ``exabgp.log`` in the runtime folder."""
    secrets_dir: Path = DIRECTORY
    """Where the passwords of sessions are."""
    netns: str | None = None
    """Network namespace to run ExaBGP in; default our own."""
    attach: bool = False
    """ExaBGP is kept by another (``become``, in a unit of its own): attach to it, wait for it, never start one or end it in order."""


class _Lost(Exception):  # noqa: N818  the end of an attachment
    pass


class Speaker:
    """Owns the attachment to ExaBGP and what happens in it; the targets own what ExaBGP is told."""

    def __init__(self, options: SpeakerOptions, deliver: Callable[[Event], Awaitable[None]]) -> None:
        self._options = options
        self._deliver = deliver
        self._commands = Commands()
        self.adj_rib_out = AdjRibOutTarget(self._commands)
        self.neighbors = NeighborsTarget(
            options.runtime_dir, options.router_id, options.mode, self._commands, Passwords(options.secrets_dir)
        )
        self.neighbors.signal = lambda: self._signal(signal.SIGUSR1)
        self.neighbors.before_removal = self.adj_rib_out.withdraw_all
        self.neighbors.before_end = self._end_for_good
        self._source = Source(self._commands, lambda: self.neighbors.actual, deliver)
        self._source.on_up = self._on_up
        self._source.on_down = self.adj_rib_out.down
        self._source.on_reset = lambda peer, notification: self._start(self._reset(peer, notification))
        self._source.on_refresh = lambda session: self._start(self._source.refresh(session))
        self._log = options.log_path or options.runtime_dir / "exabgp.log"
        self._alive = options.runtime_dir / "exabgp.alive"
        self._pid: int | None = None
        self._child: int | None = None
        """The same, if we started it in this life: then it has to be waited for."""
        self._group: asyncio.TaskGroup | None = None
        self._in_snapshot = False
        self._refreshed: list[Session] = []
        self._stopping = False
        self._up = False
        if len(os.fsencode(options.runtime_dir)) > RUNTIME_BYTES:
            raise ValueError(f"{options.runtime_dir} is longer than {RUNTIME_BYTES} bytes: no socket can be in it")
        options.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.neighbors.load()

    @property
    def pid(self) -> int | None:
        """Process id of the ExaBGP we are attached to."""
        return self._pid

    @property
    def refreshing(self) -> bool:
        """Whether a peer is still sending what it has."""
        return self._source.refreshing

    # -------------------------------------------------------------- supervision

    async def run(self) -> None:
        """Attach to the ExaBGP of the runtime folder, or start one; deliver events, and start over when it is gone.

        Returns after ``stop``; ends by cancellation, which leaves ExaBGP running. Raises OSError only for a runtime folder that
        cannot be used.
        """
        failures = 0
        told = ""
        while not self._stopping:
            await asyncio.sleep(RESPAWN_BACKOFF_S[min(failures, len(RESPAWN_BACKOFF_S) - 1)])
            began = time.monotonic()
            reason = await self._attachment()
            if self._up or reason != told:
                await self._deliver(SpeakerLost(reason))
            self._up = False
            told = reason
            failures = 0 if time.monotonic() - began > STABLE_S else failures + 1

    async def stop(self, keep: bool = False) -> None:
        """End the attachment, and ExaBGP too unless *keep*. ``run`` returns, or has been cancelled before.

        With graceful restart configured ExaBGP closes without a NOTIFICATION, so that peers keep our routes for its time.
        """
        self._stopping = True
        pid, self._pid = self._pid or self._child, None
        if not keep and not self._options.attach and pid is not None:
            await self._end(pid)
        self._commands.close()

    async def refresh(self, peer: Address) -> str:
        """Have *peer* send everything again; returns why not, empty if it was asked."""
        return await self._source.ask_again(peer) if self._group is not None else SPEAKER_LOST

    async def reset(self, peer: Address, *, hard: bool, text: str) -> str:
        """End the session with *peer* with Cease, Administrative Reset and *text* (RFC 9003), to begin a new one.

        With *hard* no route outlives it, where both sides agreed that some would (RFC 8538). A peer without a session is called at
        once. Returns why nothing was done, empty if it was; raises ValueError for a text that is too long.
        """
        session = self._source.sessions.get(peer)
        restart = None if session is None else session.opened.open.graceful_restart
        wrapped = hard and restart is not None and restart.notification
        ending = self._ending(peer, Notification(CEASE, ADMIN_RESET, sent=True, text=text, hard=wrapped))
        if self._group is None or peer not in self.neighbors.actual:
            return SPEAKER_LOST if self._group is None else "it is not configured in ExaBGP"
        try:
            reply = await self._commands.run(ending)
        except SpeakerGone:
            return SPEAKER_LOST
        return "" if reply.done else "ExaBGP refused it"

    async def _attachment(self) -> str:
        """One life of a connection; returns why it ended."""
        try:
            reader, writer, hello, rest = await self._reach()
        except _Lost as lost:
            return str(lost)
        if self._stopping:
            writer.close()
            return "stopped"
        reason = ""
        self._pid = hello.exabgp
        self._commands.attach(writer)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._serve(reader, hello, rest)
        except* _Lost as lost:
            reason = str(lost.exceptions[0])
        finally:
            self._group = None
            self._commands.detach()
            self._source.forget()
            self.adj_rib_out.down_all()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._reap()
        return reason

    # -------------------------------------------------------------- reaching ExaBGP

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Hello, bytes]:
        """Connect to the shim of a running ExaBGP, else of a new one; raises _Lost."""
        running = self._running()
        if running is not None:
            if self._options.attach and self.neighbors.stale:
                self.neighbors.reload()  # its keeper has written the file that it runs by
            found = None if self.neighbors.stale else await self._connect(running)
            if found is not None:
                return found
            await self._end(running)
        if self._options.attach:
            raise _Lost("no speaker runs: it is kept by another (bgpd-speaker.service, or bgpd speaker by hand)")
        pid = self._spawn()
        found = await self._connect(pid)
        if found is None:
            await self._end(pid)
            raise _Lost(f"ExaBGP does not start; its log is {self._log}")
        return found

    def _running(self) -> int | None:
        """Return the process that the pid file names, if it is an ExaBGP with our configuration file."""
        try:
            pid = int((self._options.runtime_dir / "exabgp.pid").read_text("utf-8"))
        except (OSError, ValueError):
            return self._child
        return pid if self._is_ours(pid) else self._child

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.neighbors.file) in words

    async def _connect(self, pid: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Hello, bytes] | None:
        """Connect to the shim of *pid*, waiting for it to start; None if it does not, or is none we can work with."""
        deadline = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline and self._is_alive(pid):
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.neighbors.socket), limit=READ_BYTES)
            except OSError:
                await asyncio.sleep(START_POLL_S)
                continue
            hello, rest = await _greeting(reader)
            if hello is not None and hello.exabgp == pid and not hello.respawned:
                return reader, writer, hello, rest
            writer.close()
            if hello is not None and hello.exabgp == pid:
                return None  # its shim died, and nobody knows its sessions: it has to start anew
            await asyncio.sleep(START_POLL_S)  # the shim of a former one, which is about to end
        return None

    async def become(self) -> NoReturn:
        """End what runs of this runtime folder, and turn this process into ExaBGP: how another than the daemon keeps it.

        Returns never. Its first neighbors are those of the file, if that is ours; others come from the daemon.
        """
        running = self._running()
        if running is not None:
            await self._end(running)
        command, environment = self._prepared()
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted

    def _spawn(self) -> int:
        """Start ExaBGP in a session of its own, so that it outlives us."""
        command, environment = self._prepared()
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.rename(self._log.with_name(self._log.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._child = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        return self._child

    def _prepared(self) -> tuple[list[str], dict[str, str]]:
        """Write what a new ExaBGP reads at its start; returns its command and environment."""
        self.neighbors.write()
        runtime = self._options.runtime_dir
        (runtime / "exabgp.env").touch(0o600)
        (runtime / "exabgp.pid").unlink(missing_ok=True)
        module = ["bgpd.adapters.exabgp.child.launcher"] if self._options.mode == "raw" else ["exabgp", "server"]
        command = [sys.executable, "-m", *module, str(self.neighbors.file)]
        if self._options.netns is not None:
            command = ["ip", "netns", "exec", self._options.netns, *command]
        return command, conf.environment(runtime) | {RESTARTED: "1" if self._follows() else "0"}

    def _follows(self) -> bool:
        """Tell whether peers may still keep the routes of an ExaBGP before: then the next one claims to restart (RFC 4724 section 4.1)."""
        kept_s = max((peer.graceful_restart_s for peer in self.neighbors.actual.values()), default=0)
        try:
            return 0 <= time.time() - self._alive.stat().st_mtime < kept_s
        except FileNotFoundError:
            return False

    async def _stay_alive(self) -> None:
        """Write down now and then that ExaBGP lives."""
        while True:
            self._alive.touch(mode=0o600)
            await asyncio.sleep(ALIVE_S)

    def _is_alive(self, pid: int) -> bool:
        self._reap()
        return Path(f"/proc/{pid}").exists()

    def _reap(self) -> None:
        """Wait for our child without blocking, so that it does not stay as a zombie."""
        if self._child is not None and children.has_ended(self._child):
            self._child = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def _end(self, pid: int) -> None:
        """End an ExaBGP of ours: SIGTERM, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._is_alive(pid):
                return
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + STOP_WAIT_S
            while time.monotonic() < deadline:
                if not self._is_alive(pid):
                    return
                await asyncio.sleep(START_POLL_S)

    # -------------------------------------------------------------- an attachment

    async def _serve(self, reader: asyncio.StreamReader, hello: Hello, rest: bytes) -> None:
        """Deliver what comes until the connection ends; always raises _Lost."""
        await self._deliver(SpeakerUp())
        self._up = True
        self._in_snapshot = not hello.complete
        self._refreshed.clear()
        self._start(self.neighbors.confirm())
        self._start(self._stay_alive())
        *lines, rest = rest.split(b"\n")
        while True:
            for line in lines:
                await self._take(line)
            data = await self._read(reader)
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LINE_BYTES:
                raise _Lost(f"a line of more than {LINE_BYTES} bytes")

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    data = await reader.read(READ_BYTES)
            except TimeoutError:
                if self._commands.waiting_s > ACK_WAIT_S and self._pid is not None:
                    await self._end(self._pid)
                    raise _Lost(f"ExaBGP did not answer a command for {ACK_WAIT_S:.0f} s") from None
                continue
            except OSError as error:
                raise _Lost(f"connection to the shim: {error.strerror}") from error
            if not data:
                raise _Lost("stopped" if self._stopping else "ExaBGP or its shim closed the connection")
            return data

    async def _take(self, raw: bytes) -> None:
        try:
            line = parse(raw)
        except CodecError as error:
            raise _Lost(f"a line that we cannot read: {error}") from error
        match line:
            case Answer(done):
                self._commands.answer(done)
            case Text(text):
                self._commands.text(text)
            case SnapshotEnd():
                self._in_snapshot = False
                for session in self._refreshed:
                    self._start(self._source.refresh(session))
            case None:
                pass
            case _:
                await self._source.take(line)

    def _on_up(self, session: Session) -> None:
        self.adj_rib_out.up(session)
        self._start(self.adj_rib_out.read_back(session.peer))
        if self._in_snapshot:
            self._refreshed.append(session)
        elif session.opened.open.graceful_restart is None:
            self._start(self._source.infer_end(session))

    async def _reset(self, peer: Address, notification: Notification) -> None:
        """Have ExaBGP send *notification* and end the session."""
        with suppress(SpeakerGone):
            await self._commands.run(self._ending(peer, notification))

    async def _end_for_good(self, peer: Address, notification: Notification) -> None:
        """End the session with *peer*, as a hard reset where routes would outlive it (RFC 8538): it does not come back soon."""
        session = self._source.sessions.get(peer)
        if session is None:
            return
        restart = session.opened.open.graceful_restart
        hard = session.configured.graceful_restart_s > 0 and restart is not None and restart.notification
        told = msgspec.structs.replace(notification, hard=hard)
        await self._source.end(peer, explain(told, session.configured, session.opened.open), told)
        await self._commands.run(self._ending(peer, told, stay=True))

    def _ending(self, peer: Address, notification: Notification, *, stay: bool = False) -> str:
        """Write the command that ends a session; stock ExaBGP knows subcodes of Cease, and sends nothing where restart is graceful."""
        if self._options.mode == "raw":
            return command(peer, notification, stay=stay)
        return f"neighbor {peer} teardown {notification.subcode}"

    def _start(self, work: Awaitable[None]) -> None:
        """Run *work* within the attachment."""
        assert self._group is not None
        self._group.create_task(_run(work))


async def _run(work: Awaitable[None]) -> None:
    await work


async def _greeting(reader: asyncio.StreamReader) -> tuple[Hello | None, bytes]:
    """Read the shim's first line; returns it and what was read beyond."""
    data = b""
    try:
        async with asyncio.timeout(HELLO_WAIT_S):
            while b"\n" not in data:
                more = await reader.read(READ_BYTES)
                if not more:
                    return None, b""
                data += more
    except (TimeoutError, OSError):
        return None, b""
    first, _, rest = data.partition(b"\n")
    try:
        hello = parse(first)
    except CodecError:
        return None, b""
    return (hello, rest) if isinstance(hello, Hello) else (None, b"")
