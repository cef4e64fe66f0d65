"""What happened, numbered and dated: kept for ``bgpd events``, and passed on to the broker with the states that go with it."""

from __future__ import annotations

import asyncio
from collections import deque

from bgpd.adapters import clock
from bgpd.adapters.mqtt.broker import Broker
from bgpd.core.pipeline import Pipeline
from bgpd.model.notice import KINDS, Notice
from bgpd.model.prefix import Address
from bgpd.model.telling import EventView, PeerMessage

RING_EVENTS = 2000
"""Events kept: some 1 MB; a busy day of a node has a few hundred."""
STATES_PAUSE_S = 0.2
"""Between two looks at the states of all peers: they cost a microsecond each."""
STATES_IDLE_S = 5.0
"""A look without a notice: for peers that came or went in silence."""


class Events:
    """Owns the ring and its numbering."""

    def __init__(self) -> None:
        self._ring: deque[EventView] = deque(maxlen=RING_EVENTS)
        self._count = 0
        self._more = asyncio.Event()

    def tell(self, notice: Notice) -> EventView:
        """Number, date and keep *notice*."""
        self._count += 1
        kind = KINDS.get(notice.name)
        event = EventView(
            sequence=self._count,
            at=clock.wall(clock.monotonic()),
            event=notice.name,
            level="info" if kind is not None and kind.good else "warning",
            fields={name: value for name, value in notice.fields.items() if value is not None},
        )
        self._ring.append(event)
        self._more.set()
        return event

    @property
    def overwritten(self) -> int:
        """How many events are not kept any more."""
        return self._count - len(self._ring)

    async def after(self, sequence: int, wait_s: float) -> list[EventView]:
        """Return the events after *sequence* that are still kept; where there is none, wait *wait_s* for one.

        A *sequence* beyond ours is of an earlier life of the daemon: all are returned.
        """
        if sequence > self._count:
            sequence = 0
        if sequence == self._count and wait_s > 0:
            self._more.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._more.wait()
            except TimeoutError:
                return []
        return [event for event in self._ring if event.sequence > sequence]


class Telling:
    """Owns which states of peers the broker was told of."""

    def __init__(self, pipeline: Pipeline, broker: Broker, cluster: str) -> None:
        self._pipeline = pipeline
        self.broker = broker
        self._cluster = cluster
        self._peers: dict[Address, PeerMessage] = {}
        self._wake = asyncio.Event()

    def event(self, event: EventView) -> None:
        """Pass an event on, and the state that changed with it."""
        self.broker.event(event)
        if event.event.startswith(("peer.", "phase.")):
            self._wake.set()

    async def run(self) -> None:
        """Keep the broker told until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.broker.run())
            tasks.create_task(self._states())

    async def _states(self) -> None:
        while True:
            self._wake.clear()
            self._look()
            await asyncio.sleep(STATES_PAUSE_S)
            try:
                async with asyncio.timeout(STATES_IDLE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _look(self) -> None:
        self.broker.status(self._pipeline.phase.value)
        peers = self._pipeline.state.facts.peers
        for address in self._peers.keys() - peers.keys():
            del self._peers[address]
            self.broker.peer(str(address), None)
        for address in peers:
            message = self._message(address)
            if message != self._peers.get(address):
                self._peers[address] = message
                self.broker.peer(str(address), message)

    def _message(self, address: Address) -> PeerMessage:
        facts = self._pipeline.state.facts
        peer, session = facts.peers[address], facts.sessions[address]
        return PeerMessage(
            cluster=self._cluster,
            node=facts.me.name,
            name=peer.name,
            address=str(address),
            asn=peer.asn,
            established=session.up,
            since=round(clock.wall(session.since), 1) if session.since is not None else None,
            reason="" if session.up else peer.policy.hold_reason or session.reason,
        )
