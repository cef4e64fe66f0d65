"""Announcements: the adj-rib-out of each session as a target of the reconciler.

The rule: ``actual`` holds what ExaBGP is known to announce in the sessions that are up, and nothing of other peers.

* On PeerUp ExaBGP is asked what it holds for the peer (it keeps announcements over a lost session and sends them again,
  and a speaker that outlived the daemon holds those of our former life). Then ``actual`` has them, and ``drifted`` is
  called with them, with those of the peer's last session, and with every key asked for since: what is missing gets
  announced, strays are withdrawn, what is unchanged costs no UPDATE.
* Until then, and while the session is down, ``apply`` accepts changes for the peer without sending them; they are not in
  ``actual``. Nothing is sent to a neighbor that is down, because routes pending there make ExaBGP ignore the signal to
  reload.
* ``converged`` sends End-of-RIB to each peer that was read back before the call and has not had it in this session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from bgpd.adapters.exabgp.announcement import held, unfit, words
from bgpd.adapters.exabgp.commands import Commands, SpeakerGone
from bgpd.adapters.exabgp.source import Session
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement

Key = tuple[Address, Prefix]

BATCH_PREFIXES = 400
"""Prefixes of one command: some 16 KiB of text, which ExaBGP reads in one go."""
BATCH_PEERS = 64
"""Peers of one command: ExaBGP searches each among all its peers, so more would cost more than they save."""


class _Out(msgspec.Struct):
    """An established session, seen from what we send."""

    session: Session
    read_back: bool = False
    ended: bool = False
    """End-of-RIB has been sent."""


class _Batch(msgspec.Struct, frozen=True):
    """One command: the same for several peers and prefixes."""

    peers: tuple[Address, ...]
    attributes: str
    value: Announcement | None
    prefixes: tuple[Prefix, ...]

    def command(self) -> str:
        peers = " , ".join(f"neighbor {peer}" for peer in self.peers)
        return f"{peers} {self.attributes} nlri {' '.join(map(str, self.prefixes))}"

    def parts(self) -> Iterator[_Batch]:
        """Yield the batch in smaller ones: a peer each, else a prefix each; nothing if there are none smaller."""
        if len(self.peers) > 1:
            yield from (msgspec.structs.replace(self, peers=(peer,)) for peer in self.peers)
        elif len(self.prefixes) > 1:
            yield from (msgspec.structs.replace(self, prefixes=(prefix,)) for prefix in self.prefixes)


class AdjRibOutTarget:
    """Owns ``actual``, the keys to look at when a peer is back, and what was done in each session."""

    name = "adj-rib-out"

    def __init__(self, commands: Commands) -> None:
        self.actual: dict[Key, Announcement] = {}
        self.drifted: Callable[[Iterable[Key]], None] = lambda _keys: None
        self._commands = commands
        self._asked: dict[Address, dict[Prefix, None]] = {}
        self._sessions: dict[Address, _Out] = {}

    # -------------------------------------------------------------- sessions

    def up(self, session: Session) -> None:
        """Take note of a session; ``read_back`` has to follow."""
        self._forget(session.peer)
        self._sessions[session.peer] = _Out(session)

    def down(self, peer: Address) -> None:
        self._sessions.pop(peer, None)
        self._forget(peer)

    def down_all(self) -> None:
        for peer in list(self._sessions):
            self.down(peer)

    def _forget(self, peer: Address) -> None:
        """Move what is announced to *peer* to what is asked for: a speaker that starts anew knows nothing of it."""
        for key in [key for key in self.actual if key[0] == peer]:
            del self.actual[key]
            self._asked.setdefault(peer, {})[key[1]] = None

    async def read_back(self, peer: Address) -> None:
        """Ask ExaBGP what it announces to *peer*, then report every key of the peer as drifted."""
        out = self._sessions.get(peer)
        try:
            reply = await self._commands.run(f"show adj-rib out {peer} json")
        except SpeakerGone:
            return
        if out is None or self._sessions.get(peer) is not out:
            return
        found = dict(filter(None, (held(line, out.session.configured) for line in reply.lines)))
        self.actual.update({(peer, prefix): announcement for prefix, announcement in found.items()})
        out.read_back = True
        self.drifted([(peer, prefix) for prefix in self._asked.pop(peer, {}) | dict.fromkeys(found)])

    # -------------------------------------------------------------- the reconciler's side

    async def apply(self, changes: Sequence[tuple[Key, Announcement | None]]) -> dict[Key, str]:
        """Announce, or withdraw where the value is None; returns the keys that ExaBGP refused, with the reason."""
        refused: dict[Key, str] = {}
        batches: dict[tuple[Address, Announcement | None, Family], list[Prefix]] = {}
        for (peer, prefix), value in changes:
            out = self._sessions.get(peer)
            if out is None or not out.read_back:
                self._asked.setdefault(peer, {})[prefix] = None
                continue
            reason = _unfit(out.session, prefix, value) if value is not None else ""
            if reason:
                refused[peer, prefix] = reason
            elif value is not None or (peer, prefix) in self.actual:
                batches.setdefault((peer, value, prefix.family), []).append(prefix)
        try:
            for batch in self._joined(batches):
                refused |= await self._send(batch)
        except SpeakerGone:
            pass  # read back at the next PeerUp
        return refused

    def _joined(self, batches: Mapping[tuple[Address, Announcement | None, Family], list[Prefix]]) -> Iterator[_Batch]:
        """Cut batches into commands, and join those of peers that get the same: what a reflector sends is read by ExaBGP once."""
        peers: dict[tuple[str, Announcement | None, tuple[Prefix, ...]], list[Address]] = {}
        for (peer, value, family), prefixes in batches.items():
            attributes = _attributes(self._sessions[peer].session.configured, value, family)
            for at in range(0, len(prefixes), BATCH_PREFIXES):
                peers.setdefault((attributes, value, tuple(prefixes[at : at + BATCH_PREFIXES])), []).append(peer)
        for (attributes, value, chunk), alike in peers.items():
            for at in range(0, len(alike), BATCH_PEERS):
                yield _Batch(tuple(alike[at : at + BATCH_PEERS]), attributes, value, chunk)

    async def converged(self) -> None:
        """End the replay: the reconciler has nothing left to do for what it was told as drifted."""
        due = [out for out in self._sessions.values() if out.read_back and not out.ended]
        for out in due:
            out.ended = True
        try:
            for out in due:
                for family in out.session.families:
                    await self._commands.run(f"neighbor {out.session.peer} announce eor {family} unicast")
        except SpeakerGone:
            pass  # the next session gets its own

    async def withdraw_all(self, peer: Address) -> None:
        """Withdraw everything from *peer*, which is about to be removed; raises SpeakerGone.

        With graceful restart ExaBGP closes without a NOTIFICATION, and the peer would keep our routes for the restart time.
        """
        self._asked.pop(peer, None)
        held = [prefix for address, prefix in self.actual if address == peer]
        batches: dict[tuple[Address, Announcement | None, Family], list[Prefix]] = {}
        for prefix in held:
            batches.setdefault((peer, None, prefix.family), []).append(prefix)
        for batch in self._joined(batches) if peer in self._sessions else ():
            await self._send(batch)

    async def _send(self, batch: _Batch) -> dict[Key, str]:
        before = {peer: self._sessions.get(peer) for peer in batch.peers}
        reply = await self._commands.run(batch.command())
        if reply.done:
            for peer in batch.peers:
                if self._sessions.get(peer) is not before[peer]:
                    continue  # the session changed meanwhile: read back
                for prefix in batch.prefixes:
                    if batch.value is None:
                        self.actual.pop((peer, prefix), None)
                    else:
                        self.actual[peer, prefix] = batch.value
            return {}
        parts = list(batch.parts())
        if not parts:
            ((peer,), (prefix,)) = batch.peers, batch.prefixes
            return {(peer, prefix): "ExaBGP refused it"} if self._sessions.get(peer) is before[peer] else {}
        refused: dict[Key, str] = {}
        for part in parts:  # a command is refused as a whole: find what is at fault
            refused |= await self._send(part)
        return refused


def _unfit(session: Session, prefix: Prefix, value: Announcement) -> str:
    if prefix.family not in session.families:
        return f"the session carries no {prefix.family}"
    hop = value.next_hop or session.configured.local_address
    if prefix.family is not hop.family and not (prefix.family is Family.IPV4 and session.extended_next_hop):
        return f"{hop} cannot be the next hop of {prefix.family} in this session"
    return unfit(value)


def _attributes(peer: Peer, value: Announcement | None, family: Family) -> str:
    return "withdraw attributes next-hop self" if value is None else f"announce attributes {words(value, peer, family)}"
