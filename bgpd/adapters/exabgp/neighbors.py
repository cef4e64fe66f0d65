"""Neighbors: ExaBGP's configuration as a target of the reconciler.

A change is rendered beside the file, validated by ExaBGP itself, renamed into place, and ExaBGP is told by SIGUSR1. It
forgets that signal while routes are pending to any neighbor, so the digests that it serves are read back and the signal is
repeated.

A peer's password is read when the peer is configured, when ExaBGP starts, and every PASSWORDS_POLL_S to see a changed one.
Laws: a session whose password cannot be read is not begun, and a peer that was configured otherwise before is taken away; a
session that is up outlives the loss of its file. Whoever is refused for it holds up no other.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bgpd.adapters.exabgp import conf
from bgpd.adapters.exabgp.commands import Commands, SpeakerGone
from bgpd.adapters.exabgp.conf import Neighbor
from bgpd.adapters.secrets import Password, Passwords, Unfit
from bgpd.model.notice import Notice
from bgpd.model.peer import Notification, Peer, SecretRef
from bgpd.model.prefix import Address

VALIDATE_WAIT_S = 30.0
"""``exabgp validate`` takes half a second for a few neighbors, 0.35 ms more for each, several times that on a busy machine."""
RELOAD_TRIES = 40
RELOAD_WAIT_S = 0.25
"""Pause before the digests are read back, and the signal repeated if they are not ours: 10 s in all."""
PASSWORDS_POLL_S = 5.0
"""How often the passwords in use are compared with their files: some 0.1 ms for each file, and soon enough for people."""


class NeighborsTarget:
    """Owns the configuration file, ``actual`` (the peers that are in it), and the right to change it."""

    name = "neighbors"

    def __init__(
        self, runtime: Path, router_id: Address, mode: conf.Mode, commands: Commands, passwords: Passwords
    ) -> None:
        self.actual: dict[Address, Peer] = {}
        self.drifted: Callable[[Iterable[Address]], None] = lambda _addresses: None
        """Told of peers that are no longer in the file without anybody's wish."""
        self.appeared: Callable[[], None] = lambda: None
        """Told that what was refused for want of a password may be tried again."""
        self.notice: Callable[[Notice], None] = lambda _notice: None
        self.file = runtime / "exabgp.conf"
        self.socket = runtime / "shim.sock"
        self.signal: Callable[[], None] = lambda: None
        """Send SIGUSR1 to ExaBGP, if it runs."""
        self.before_removal: Callable[[Address], Awaitable[None]] | None = None
        """Withdraw what is announced to a peer."""
        self.before_end: Callable[[Address, Notification], Awaitable[None]] | None = None
        """End the session with a peer for good."""
        self.stale = False
        """The file is of another mode or router id: a speaker that runs by it has to start anew."""
        self._runtime = runtime
        self._head = conf.Head(mode, router_id)
        self._commands = commands
        self._passwords = passwords
        self._held: dict[Address, Neighbor] = {}
        """The same as ``actual``, with the passwords."""
        self._told: dict[SecretRef, str] = {}
        """Why passwords of sessions in place cannot be read, as told."""
        self._missing: set[SecretRef] = set()
        """Passwords for want of which a peer was refused."""
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Read what a speaker of a former life was told. A file that is not ours counts as none, and as stale.

        Raises OSError where the runtime folder cannot be written.
        """
        try:
            head, held = conf.parse(self.file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            self._hold({})
            self.stale = True
            return
        self._hold(held)
        self.stale = head != self._head

    def reload(self) -> None:
        """Read the file again, which another has written; tells of the peers that it has not as we held them."""
        before = self.actual
        self.load()
        self.drifted([address for address, peer in before.items() if self.actual.get(address) != peer])

    def write(self) -> None:
        """Write the file anew for a speaker about to start; what it holds has been validated before.

        Passwords are read anew, and a peer without one is left out until there is one.
        """
        ready, refused = self._armed(list(self.actual.items()))
        self._hold(_changed({}, ready))
        self._install(self._write_temporary(self._held, ".start"))  # a validation may be under way beside it
        self.stale = False
        self.drifted(refused)

    async def apply(self, changes: Sequence[tuple[Address, Peer | None]]) -> dict[Address, str]:
        """Add, replace or (None) remove neighbors; returns those that ExaBGP refuses, with its reason."""
        async with self._lock:
            ready, refused = self._armed(changes)
            ready += [(address, None) for address in refused if address in self._held]
            if not ready:
                return refused
            accepted = ready
            reason = await self._validate(_changed(self._held, accepted))
            if reason and len(ready) > 1:
                accepted = []
                for change in ready:  # find the one at fault
                    why = await self._validate(_changed(self._held, [*accepted, change]))
                    if why:
                        refused[change[0]] = why
                    else:
                        accepted.append(change)
            elif reason:
                return refused | {ready[0][0]: reason}
            wanted = _changed(self._held, accepted)
            if wanted == self._held:
                return refused
            for address in self._held.keys() - wanted.keys():
                await self._leave(address)
            for address, neighbor in wanted.items():
                if neighbor.peer.ended is not None and neighbor != self._held.get(address):
                    await self._end(address, neighbor.peer.ended)
            self._install(self._write_temporary(wanted))
            self._hold(wanted)
            if not await self._reloaded():
                refused |= dict.fromkeys((address for address, _ in accepted), "ExaBGP does not take its configuration")
            return refused

    async def confirm(self) -> None:
        """Make a running speaker take what we hold; another may have started it, by an older file."""
        async with self._lock:
            if not self.file.exists() or self.file.read_text("utf-8") != self._render(self._held):
                self._install(self._write_temporary(self._held))
            await self._reloaded()

    async def watch_passwords(self) -> None:
        """Take up passwords that changed, until cancelled; their sessions start anew. Tell when a missing one is there."""
        while True:
            await asyncio.sleep(PASSWORDS_POLL_S)
            there = {reference for reference in self._missing if not self._passwords.unfit(reference)}
            self._missing -= there
            if there:
                self.appeared()
            changed = self._outdated()
            if changed:
                for address, _ in changed:
                    self.notice(Notice("password.changed", {"peer": str(address)}))
                await self.apply(changed)
                self.drifted(address for address, _ in changed)

    def _outdated(self) -> list[tuple[Address, Peer]]:
        """Return the peers whose password is another one now; a file that cannot be read is told once."""
        now: dict[SecretRef, Password | None] = {}
        for reference in {
            peer.password for peer in self.actual.values() if peer.password is not None and peer.ended is None
        }:
            try:
                now[reference] = self._passwords.read(reference)
                self._told.pop(reference, None)
            except Unfit as unfit:
                now[reference] = None
                if self._told.get(reference) != str(unfit):
                    self._told[reference] = str(unfit)
                    self.notice(Notice("password.unfit", {"reason": str(unfit), "sessions": "kept as they are"}))
        return [
            (address, neighbor.peer)
            for address, neighbor in self._held.items()
            if neighbor.password is not None
            and neighbor.peer.password is not None
            and (password := now.get(neighbor.peer.password)) is not None
            and password != neighbor.password
        ]

    def _armed(
        self, changes: Sequence[tuple[Address, Peer | None]]
    ) -> tuple[list[tuple[Address, Neighbor | None]], dict[Address, str]]:
        """Give each peer its password; returns those that are ready, and why the others are not."""
        ready: list[tuple[Address, Neighbor | None]] = []
        refused: dict[Address, str] = {}
        for address, peer in changes:
            if address.link and peer is not None and self._head.mode == "json":
                refused[address] = "stock ExaBGP does not tell links apart: a link-local peer needs the mode raw"
                continue
            try:
                ready.append((address, None if peer is None else self._neighbor(peer)))
            except Unfit as unfit:
                refused[address] = str(unfit)
                if peer is not None and peer.password is not None:
                    self._missing.add(peer.password)
        return ready, refused

    def _neighbor(self, peer: Peer) -> Neighbor:
        return Neighbor(
            peer, None if peer.password is None or peer.ended is not None else self._passwords.read(peer.password)
        )

    def _hold(self, held: dict[Address, Neighbor]) -> None:
        self._held = held
        self.actual = {address: neighbor.peer for address, neighbor in held.items()}

    async def _leave(self, address: Address) -> None:
        if self.before_removal is not None:
            with suppress(SpeakerGone):  # then its sessions are down
                await self.before_removal(address)

    async def _end(self, address: Address, notification: Notification) -> None:
        if self.before_end is not None:
            with suppress(SpeakerGone):
                await self.before_end(address, notification)

    async def _reloaded(self) -> bool:
        """Signal until ExaBGP serves what the file says; True also if there is no ExaBGP to signal, the next one reads the file."""
        wanted = {
            str(address): conf.digest(self._head.mode, self._head.router_id, neighbor)
            for address, neighbor in self._held.items()
            if neighbor.peer.ended is None
        }
        show = "bgpd-served" if self._head.mode == "raw" else "show neighbor configuration"
        try:
            for _ in range(RELOAD_TRIES):
                reply = await self._commands.run(show)
                if conf.loaded(reply.lines) == wanted:
                    return True
                self.signal()
                await asyncio.sleep(RELOAD_WAIT_S)
        except SpeakerGone:
            return True
        return False

    # -------------------------------------------------------------- the file

    def _render(self, neighbors: Mapping[Address, Neighbor]) -> str:
        return conf.render(self._head.mode, self._head.router_id, neighbors.values(), self.socket)

    def _write_temporary(self, neighbors: Mapping[Address, Neighbor], suffix: str = ".new") -> Path:
        temporary = self.file.with_suffix(suffix)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._render(neighbors))
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _install(self, temporary: Path) -> None:
        temporary.rename(self.file)

    async def _validate(self, neighbors: Mapping[Address, Neighbor]) -> str:
        """Have ExaBGP read the configuration; returns its complaint, without a password, empty if there is none.

        An invalid file must never be signalled: ExaBGP would end the shim, and fail at the next reconnection.
        """
        module = "bgpd.adapters.exabgp.child.launcher" if self._head.mode == "raw" else "exabgp"
        command = (sys.executable, "-m", module, "validate", str(self._write_temporary(neighbors)))
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
        complaint = " ".join(errors.decode("utf-8", "replace").split())
        for neighbor in neighbors.values():
            if neighbor.password is not None:  # ExaBGP quotes the line that it does not like
                complaint = complaint.replace(conf.encoded(neighbor.password), "…")
        return complaint or f"exabgp validate ended with {process.returncode}"


def _changed(
    held: Mapping[Address, Neighbor], changes: Sequence[tuple[Address, Neighbor | None]]
) -> dict[Address, Neighbor]:
    wanted = dict(held)
    for address, neighbor in changes:
        if neighbor is None:
            wanted.pop(address, None)
        else:
            wanted[address] = neighbor
    return wanted
