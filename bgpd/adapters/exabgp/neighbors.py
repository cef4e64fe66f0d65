"""Neighbors: ExaBGP's configuration as a target of the reconciler.

A change is rendered beside the file, validated by ExaBGP itself, renamed into place, and ExaBGP is told by SIGUSR1. It
forgets that signal while routes are pending to any neighbor, so the digests that it serves are read back and the signal is
repeated.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bgpd.adapters.exabgp import conf
from bgpd.adapters.exabgp.commands import Commands, SpeakerGone
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address

VALIDATE_WAIT_S = 30.0
"""``exabgp validate`` takes half a second for a few neighbors, 0.35 ms more for each, several times that on a busy machine."""
RELOAD_TRIES = 40
RELOAD_WAIT_S = 0.25
"""Pause before the digests are read back, and the signal repeated if they are not ours: 10 s in all."""


class NeighborsTarget:
    """Owns the configuration file, ``actual`` (what is in it), and the right to change it."""

    name = "neighbors"

    def __init__(self, runtime: Path, router_id: Address, mode: conf.Mode, commands: Commands) -> None:
        self.actual: dict[Address, Peer] = {}
        self.file = runtime / "exabgp.conf"
        self.socket = runtime / "shim.sock"
        self.signal: Callable[[], None] = lambda: None
        """Send SIGUSR1 to ExaBGP, if it runs."""
        self.before_removal: Callable[[Address], Awaitable[None]] | None = None
        """Withdraw what is announced to a peer."""
        self.stale = False
        """The file is of another mode or router id: a speaker that runs by it has to start anew."""
        self._runtime = runtime
        self._head = conf.Head(mode, router_id)
        self._commands = commands
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Read what a speaker of a former life was told. A file that is not ours counts as none, and as stale.

        Raises OSError where the runtime folder cannot be written.
        """
        try:
            head, self.actual = conf.parse(self.file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            self.actual, self.stale = {}, True
            return
        self.stale = head != self._head

    def write(self) -> None:
        """Write the file anew for a speaker about to start; what it holds has been validated before."""
        self._install(self._write_temporary(self.actual, ".start"))  # a validation may be under way beside it
        self.stale = False

    async def apply(self, changes: Sequence[tuple[Address, Peer | None]]) -> dict[Address, str]:
        """Add, replace or (None) remove neighbors; returns those that ExaBGP refuses, with its reason."""
        async with self._lock:
            refused: dict[Address, str] = {}
            accepted = list(changes)
            reason = await self._validate(_changed(self.actual, accepted))
            if reason and len(changes) > 1:
                accepted = []
                for change in changes:  # find the one at fault
                    why = await self._validate(_changed(self.actual, [*accepted, change]))
                    if why:
                        refused[change[0]] = why
                    else:
                        accepted.append(change)
            elif reason:
                return {changes[0][0]: reason}
            wanted = _changed(self.actual, accepted)
            if wanted == self.actual:
                return refused
            for address in self.actual.keys() - wanted.keys():
                await self._leave(address)
            self._install(self._write_temporary(wanted))
            self.actual = wanted
            if not await self._reloaded():
                refused |= dict.fromkeys((address for address, _ in accepted), "ExaBGP does not take its configuration")
            return refused

    async def confirm(self) -> None:
        """Make a running speaker take the file as it is."""
        async with self._lock:
            await self._reloaded()

    async def _leave(self, address: Address) -> None:
        if self.before_removal is not None:
            with suppress(SpeakerGone):  # then its sessions are down
                await self.before_removal(address)

    async def _reloaded(self) -> bool:
        """Signal until ExaBGP serves what the file says; True also if there is no ExaBGP to signal, the next one reads the file."""
        wanted = {
            str(address): conf.digest(self._head.mode, self._head.router_id, peer)
            for address, peer in self.actual.items()
        }
        try:
            for _ in range(RELOAD_TRIES):
                reply = await self._commands.run("show neighbor configuration")
                if conf.loaded(reply.lines) == wanted:
                    return True
                self.signal()
                await asyncio.sleep(RELOAD_WAIT_S)
        except SpeakerGone:
            return True
        return False

    # -------------------------------------------------------------- the file

    def _render(self, peers: Mapping[Address, Peer]) -> str:
        return conf.render(self._head.mode, self._head.router_id, peers.values(), self.socket)

    def _write_temporary(self, peers: Mapping[Address, Peer], suffix: str = ".new") -> Path:
        temporary = self.file.with_suffix(suffix)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._render(peers))
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _install(self, temporary: Path) -> None:
        temporary.rename(self.file)

    async def _validate(self, peers: Mapping[Address, Peer]) -> str:
        """Have ExaBGP read the configuration; returns its complaint, empty if there is none.

        An invalid file must never be signalled: ExaBGP would end the shim, and fail at the next reconnection.
        """
        command = (sys.executable, "-m", "exabgp", "validate", str(self._write_temporary(peers)))
        environment = conf.environment(self._runtime) | {"exabgp_log_enable": "false"}
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(VALIDATE_WAIT_S):
                _, errors = await process.communicate()
        except TimeoutError:
            return f"exabgp validate took more than {VALIDATE_WAIT_S:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return ""
        return " ".join(errors.decode("utf-8", "replace").split()) or f"exabgp validate ended with {process.returncode}"


def _changed(actual: Mapping[Address, Peer], changes: Sequence[tuple[Address, Peer | None]]) -> dict[Address, Peer]:
    wanted = dict(actual)
    for address, peer in changes:
        if peer is None:
            wanted.pop(address, None)
        else:
            wanted[address] = peer
    return wanted
