"""From lines to events: the state of each session, and the refresh after an attachment.

Laws: events of a peer keep the order in which ExaBGP saw them; PeerUp precedes every route of its session, PeerDown
follows them. Routes of a session that is not up are not delivered. EndOfRib after an attachment means that a refresh has
ended: at the peer's EoRR (RFC 7313), or, where it does not speak that, after REFRESH_QUIET_S without an UPDATE from it.
The same silence stands for the End-of-RIB of a peer without graceful restart, which does not have to send one (RFC 4724).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from bgpd.adapters.exabgp.codec import DecodeContext, Learned, Opened, SessionReset, decode
from bgpd.adapters.exabgp.commands import Commands, SpeakerGone
from bgpd.adapters.exabgp.lines import (
    BodyReceived,
    Line,
    NotificationSeen,
    OpenReceived,
    RefreshReceived,
    State,
    Trouble,
    UpdateReceived,
)
from bgpd.adapters.exabgp.notification import CEASE, HARD_RESET, explain
from bgpd.model.event import EndOfRib, Event, PeerDown, PeerUp, RefreshBegun, Treatment, UpdateMalformed
from bgpd.model.peer import Notification, Peer, SessionOpen
from bgpd.model.prefix import Address, Family

REFRESH_QUIET_S = 2.0
"""Silence that ends a refresh of a peer without enhanced refresh: routers send a table without pauses of seconds."""
REFRESH_CEILING_S = 60.0
"""Silence that ends a refresh of a peer that promised an EoRR and does not send it."""
RESET_CODE = 4
"""Cease subcode Administrative Reset (RFC 4486) of sessions that we restart."""

_CLOSED = re.compile(r"notification (sent|received) \((\d+),(\d+)\)")


UNREACHABLE = ("connection refused", "unreachable")
"""How the reasons begin that say that nobody is there (child/sessions.py: _named); silence is none of them."""


class Session(msgspec.Struct):
    """An established session."""

    peer: Address
    configured: Peer
    opened: Opened
    context: DecodeContext
    families: tuple[Family, ...]
    """Offered by both."""
    extended_next_hop: bool
    """IPv4 routes may have IPv6 next hops, offered by both (RFC 8950)."""
    heard: float
    """When the last UPDATE came (monotonic seconds)."""


class Source:
    """Owns what is known of each session between its OPEN and its end, and the refreshes under way."""

    def __init__(
        self,
        commands: Commands,
        peers: Callable[[], Mapping[Address, Peer]],
        deliver: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.sessions: dict[Address, Session] = {}
        self.on_up: Callable[[Session], None] = lambda _session: None
        """Called before PeerUp is delivered."""
        self.on_down: Callable[[Address], None] = lambda _peer: None
        """Called before PeerDown is delivered."""
        self.on_reset: Callable[[Address, Notification], None] = lambda _peer, _notification: None
        """Called to have ExaBGP end a session with a NOTIFICATION; must not wait, it is called by the task that reads the answers."""
        self.on_refresh: Callable[[Session], None] = lambda _session: None
        """Called to have a refresh run in a task of its own."""
        self._commands = commands
        self._peers = peers
        self._deliver = deliver
        self._opened: dict[Address, Opened] = {}
        self._notifications: dict[Address, Notification] = {}
        self._refused: dict[Address, str] = {}
        self._refreshing: set[tuple[Address, Family]] = set()
        self._ended: set[Address] = set()
        """Peers whose end we have told, while ExaBGP has yet to say ``down``."""

    @property
    def refreshing(self) -> bool:
        """Whether a peer is still to end what it sends: a refresh, or what it has in a new session without graceful restart."""
        return bool(self._refreshing)

    def forget(self) -> None:
        """Forget all sessions: the speaker is gone, or will tell again."""
        for kept in (self.sessions, self._opened, self._notifications, self._refused, self._refreshing, self._ended):
            kept.clear()

    async def take(self, line: Line) -> None:
        """Deliver the events of one line; does nothing for lines that are not of a session."""
        match line:
            case BodyReceived(peer, body):
                await self._body(peer, body)
            case UpdateReceived(peer, events):
                await self._learned(peer, events)
            case State(peer, "up", _):
                await self._up(peer)
            case State(peer, "down", reason):
                await self._down(peer, reason)
            case OpenReceived(peer, opened):
                self._opened[peer] = opened
            case NotificationSeen(peer, notification):
                self._notifications[peer] = notification
            case Trouble(peer, reason, hint):
                if not hint or peer not in self._refused:
                    await self._trouble(peer, reason)
            case RefreshReceived(peer, family, 1) if family is not None and peer in self.sessions:
                self._refreshing.add((peer, family))
                await self._deliver(RefreshBegun(peer, family))
            case RefreshReceived(peer, family, 2) if family is not None and (peer, family) in self._refreshing:
                self._refreshing.discard((peer, family))
                await self._deliver(EndOfRib(peer, family))
            case _:
                pass

    # -------------------------------------------------------------- routes

    async def _body(self, peer: Address, body: bytes) -> None:
        session = self.sessions.get(peer)
        if session is None:
            return
        session.heard = time.monotonic()
        try:
            events = decode(body, peer, session.context)
        except SessionReset as reset:
            if reset.family is not None and any(family is not reset.family for family in session.families):
                await self._disable(session, reset.family, reset)
                await self._body(peer, body)  # once for each family at most: what is disabled raises no more
                return
            await self._deliver(UpdateMalformed(peer, Treatment.RESET, str(reset), reset.attribute))
            await self.reset(peer, f"malformed UPDATE: {reset}", Notification(reset.code, reset.subcode, sent=True))
            return
        await self._deliver_all(events)

    async def _disable(self, session: Session, family: Family, reset: SessionReset) -> None:
        """Go on without *family*, whose routes cannot be told (RFC 4760 section 7): nothing more is to be heard of it."""
        session.context = msgspec.structs.replace(session.context, disabled=(*session.context.disabled, family))
        await self._deliver(
            UpdateMalformed(session.peer, Treatment.DISABLE, str(reset), reset.attribute, family=family)
        )
        await self._deliver_all([EndOfRib(session.peer, family)])

    async def _learned(self, peer: Address, events: tuple[Learned, ...]) -> None:
        session = self.sessions.get(peer)
        if session is None:
            return
        session.heard = time.monotonic()
        await self._deliver_all(events)

    async def _deliver_all(self, events: Iterable[Learned]) -> None:
        for event in events:
            if isinstance(event, EndOfRib):
                self._refreshing.discard((event.peer, event.family))
            await self._deliver(event)

    # -------------------------------------------------------------- sessions

    async def _up(self, peer: Address) -> None:
        opened = self._opened.get(peer)
        configured = self._peers().get(peer)
        if opened is None or configured is None:
            return  # of a neighbor that we are taking away
        self._notifications.pop(peer, None)
        self._refused.pop(peer, None)
        self._ended.discard(peer)
        families = tuple(family for family in configured.families if family in opened.open.families)
        context = DecodeContext(
            asn4=opened.asn4,
            add_path=opened.open.add_path if configured.add_path_receive else (),
            external=configured.is_external,
            disabled=tuple(family for family in Family if family not in families),
        )
        session = self.sessions[peer] = Session(
            peer=peer,
            configured=configured,
            opened=opened,
            context=context,
            families=families,
            extended_next_hop=configured.extended_next_hop and opened.open.extended_next_hop,
            heard=time.monotonic(),
        )
        self.on_up(session)
        await self._deliver(PeerUp(peer, _agreed(configured, opened.open)))

    async def _trouble(self, peer: Address, reason: str) -> None:
        """Deliver why there is no session, once for each new reason."""
        if peer not in self.sessions and self._refused.get(peer) != reason and peer in self._peers():
            self._refused[peer] = reason
            await self._deliver(PeerDown(peer, reason, unreachable=reason.startswith(UNREACHABLE)))

    async def _down(self, peer: Address, reason: str) -> None:
        """Deliver PeerDown for a session that was up, and once for each new reason why one does not come up.

        ExaBGP says ``down`` after each attempt to connect, too.
        """
        opened = self._opened.pop(peer, None)
        notification = self._closing(peer, reason)
        if notification is not None:
            reason = explain(notification, self._peers().get(peer), None if opened is None else opened.open)
        elif reason == "closing connection":
            reason = "the connection was closed without a NOTIFICATION"
        self._refreshing = {key for key in self._refreshing if key[0] != peer}
        if self.sessions.pop(peer, None) is not None:
            self._refused[peer] = reason
            self.on_down(peer)
        elif peer in self._ended:
            self._ended.discard(peer)
            return
        elif notification is None or self._refused.get(peer) == reason:
            return
        else:
            self._refused[peer] = reason
        await self._deliver(PeerDown(peer, reason, notification))

    def _closing(self, peer: Address, reason: str) -> Notification | None:
        """Return the NOTIFICATION that ended the session; ExaBGP's reason names its codes, an earlier line holds its text."""
        seen = self._notifications.pop(peer, None)
        told = _CLOSED.search(reason)
        if told is None:
            return seen
        kind, sent = (int(told[2]), int(told[3])), told[1] == "sent"
        if seen is None or seen.sent != sent:
            return Notification(*kind, sent)
        as_sent = (CEASE, HARD_RESET) if seen.hard else (seen.code, seen.subcode)
        return seen if as_sent == kind else Notification(*kind, sent)

    async def reset(self, peer: Address, reason: str, notification: Notification) -> None:
        """End the session with *peer* with *reason* by sending *notification*; what it still sends is ignored."""
        await self.end(peer, reason, notification)
        self.on_reset(peer, notification)

    async def end(self, peer: Address, reason: str, notification: Notification) -> None:
        """Tell that the session with *peer* has ended, which the caller is about to see to."""
        self.sessions.pop(peer, None)
        self._ended.add(peer)
        self.on_down(peer)
        self._refreshing = {key for key in self._refreshing if key[0] != peer}
        await self._deliver(PeerDown(peer, reason, notification))

    # -------------------------------------------------------------- refresh after an attachment

    async def ask_again(self, peer: Address) -> str:
        """Have *peer* send everything again, and say that it was asked; returns why that cannot be, empty if it can."""
        session = self.sessions.get(peer)
        if session is None:
            return "there is no session with it"
        if not session.opened.open.route_refresh:
            return "it does not speak route refresh (RFC 2918); `bgpd reset` makes it send everything again"
        if any(key[0] == peer for key in self._refreshing):
            return "it is sending everything already"
        if not session.opened.open.enhanced_refresh:  # one that speaks RFC 7313 says itself where it begins
            for family in session.families:
                await self._deliver(RefreshBegun(peer, family))
        self.on_refresh(session)
        return ""

    async def refresh(self, session: Session) -> None:
        """Have the peer send everything again; a peer without route refresh (RFC 2918) gets its session restarted."""
        peer = session.peer
        try:
            if not session.opened.open.route_refresh:
                await self._commands.run(f"neighbor {peer} teardown {RESET_CODE}")
                return
            for family in session.families:
                self._refreshing.add((peer, family))
                await self._commands.run(f"neighbor {peer} announce route-refresh {family} unicast")
        except SpeakerGone:
            return
        session.heard = time.monotonic()
        await self._await_silence(
            session, REFRESH_CEILING_S if session.opened.open.enhanced_refresh else REFRESH_QUIET_S
        )

    async def infer_end(self, session: Session) -> None:
        """Deliver the EndOfRib that a peer without graceful restart does not send."""
        self._refreshing |= {(session.peer, family) for family in session.families}
        await self._await_silence(session, REFRESH_QUIET_S)

    async def _await_silence(self, session: Session, limit: float) -> None:
        """Deliver EndOfRib for what is still refreshing after *limit* seconds without an UPDATE."""
        peer = session.peer
        while self.sessions.get(peer) is session and any(key[0] == peer for key in self._refreshing):
            left = session.heard + limit - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, REFRESH_QUIET_S))
                continue
            for family in session.families:
                if (peer, family) in self._refreshing:
                    self._refreshing.discard((peer, family))
                    await self._deliver(EndOfRib(peer, family))


def _agreed(configured: Peer, told: SessionOpen) -> SessionOpen:
    """Take away the N bit of a neighbor to which we offer no graceful restart: RFC 8538 needs it of both."""
    restart = told.graceful_restart
    if configured.graceful_restart_s or restart is None:
        return told
    return msgspec.structs.replace(told, graceful_restart=msgspec.structs.replace(restart, notification=False))
