"""The pipeline: events in, tables of desired state out.

``handle(event, now)`` updates facts and marks keys stale; it decides nothing. ``settle(budget)`` recomputes at most *budget*
stale keys, upstream first (peers, prefixes, nodes, announcements), and says whether more remain. ``deadline()`` is the next
instant at which it wants ``handle(Tick(), now)``.

Law 2: what the tables hold is a function of the current facts; in which order the facts came does not matter once quiet times are over.
Law 3: the phases go forward only; reconcilers ask :attr:`may_remove` before they take anything away.
"""

from __future__ import annotations

from enum import StrEnum

from bgpd.core import gate
from bgpd.core.decide import Decider
from bgpd.core.export import Exporter
from bgpd.core.forward import Forwarder
from bgpd.core.ingest import Ingest
from bgpd.core.originate import Originator
from bgpd.core.peers import Peers
from bgpd.core.state import KERNEL_TARGET, State, Tables
from bgpd.model.event import Converged, Event, Tick
from bgpd.model.notice import Notice
from bgpd.model.prefix import Address


class Phase(StrEnum):
    """Start-up (law 3); each phase says what is being waited for."""

    STORE = "store-wait"
    PEERS = "peers-wait"
    DECIDING = "deciding"
    PROGRAMMING = "programming"
    READY = "ready"


class Pipeline:
    """Owns the state and its stages, and the phase."""

    def __init__(self) -> None:
        self.state = State()
        self.phase = Phase.STORE
        self.phase_since = 0.0
        self.epoch = 0
        """Number of events handled."""
        self.hastened = False
        """Whether the last call of settle did nothing but move traffic: it is worth a while before the next."""
        self._started_at: float | None = None
        self._decided_epoch = 0
        self._ingest = Ingest(self.state)
        self._peers = Peers(self.state)
        self._originator = Originator(self.state)
        self._decider = Decider(self.state)
        self.forwarder = Forwarder(self.state)
        self.exporter = Exporter(self.state)

    @property
    def tables(self) -> Tables:
        return self.state.tables

    def handle(self, event: Event, now: float) -> None:
        """Take note of *event*, which happened at *now* (monotonic seconds)."""
        self.epoch += 1
        self.state.now = now
        if self._started_at is None:
            self._started_at = self.phase_since = now
        match event:
            case Tick():
                self._ingest.expire(now)
                self._peers.expire(now)
                self.forwarder.expire(now)
            case Converged(target=target, epoch=epoch):
                self._converged(target, epoch)
            case _:
                self._ingest.event(event)

    def settle(self, budget: int) -> bool:
        """Recompute at most *budget* stale keys; returns whether more remain."""
        state = self.state
        self.hastened = False
        left = self._peers.settle(budget)
        if state.stale.own:
            state.stale.own = False
            self._originator.settle()
            self.forwarder.claim()
        if not state.sessions:
            self._decider.refresh()
            self.hastened = self.forwarder.hasten()
            if self.hastened:
                return True
            left = self._decider.settle(left)
        if not (state.sessions or state.stale.prefixes):
            left = self.forwarder.settle(left)
            self.exporter.settle(left)
        if state.settled:
            self._advance()
        return not state.settled

    def deadline(self) -> float | None:
        """When the next quiet time, sweep or ceiling is over (monotonic seconds); None if none runs."""
        facts = self.state.facts
        sweep = self.state.adj_in.deadline()
        times = [] if sweep is None else [sweep]
        if self.phase is Phase.PEERS and self._started_at is not None:
            times.append(self._started_at + facts.options.peers_learned_ceiling_s)
            times += gate.deadlines(facts, self.state.now)
        times += [time for time in (self.forwarder.deadline(), self._peers.deadline()) if time is not None]
        return min(times, default=None)

    @property
    def may_remove(self) -> bool:
        """Law 3: whether what is desired of the kernel is complete, so that what is not desired may go."""
        return self.phase in (Phase.PROGRAMMING, Phase.READY)

    @property
    def store_known(self) -> bool:
        """Whether the store was read completely once, and settled: neighbors, own blocks, and so End-of-RIB, are complete."""
        return self.phase is not Phase.STORE

    @property
    def announcements_known(self) -> bool:
        """Law 3 for announcements: whether what is not desired may be withdrawn, and End-of-RIB sent (RFC 4724 section 4.1).

        Reflected routes take until all is decided.
        """
        facts = self.state.facts
        checked = all(not one.check or one.check in facts.health for one in facts.announce)
        return self.store_known and checked and (self.may_remove or not self.state.transit)

    def unnumbered(self) -> set[str]:
        """Return the links whose neighbor is to be found. O(BGPPeers)."""
        peers = self.state.facts.world.peers.values()
        return {peer.interface for peer in peers if peer.interface and peer.address is None}

    def waiting_for(self) -> tuple[str, ...]:
        """Say what the present phase waits for."""
        facts = self.state.facts
        if self.phase is Phase.STORE:
            known = {"store": facts.store.synced_once, "kernel": facts.kernel_synced}
            return tuple(name for name, there in known.items() if not there)
        if self.phase is Phase.PEERS:
            awaited = gate.awaited(facts, self.state.now)
            return tuple(peer.name for peer in awaited if not self._waits_for_us(peer.address))
        return ()

    def _waits_for_us(self, address: Address) -> bool:
        """Whether a peer that restarts itself may wait for our End-of-RIB, which waits for all peers where we reflect.

        RFC 4724 section 4.1 leaves such peers out, since each would wait for the other.
        """
        opened = self.state.facts.sessions[address].open
        restart = opened.graceful_restart if opened is not None else None
        return bool(self.state.transit) and restart is not None and restart.restarting

    def take_notices(self) -> list[Notice]:
        """Return the notices since the last call."""
        taken, self.state.notices = self.state.notices, []
        return taken

    def _advance(self) -> None:
        """Go on to the next phase where what it waited for is there; called with nothing stale."""
        if self.phase is Phase.STORE and not self.waiting_for():
            self._enter(Phase.PEERS)
        if self.phase is Phase.PEERS and (not self.waiting_for() or self._ceiling_over()):
            self._enter(Phase.DECIDING)
            self.state.decided = True
            self.state.stale.nodes.update(self.state.facts.holders())
        if self.phase is Phase.DECIDING and self.state.settled:
            self._decided_epoch = self.epoch
            self._enter(Phase.PROGRAMMING)

    def _ceiling_over(self) -> bool:
        assert self._started_at is not None
        return self.state.now >= self._started_at + self.state.facts.options.peers_learned_ceiling_s

    def _converged(self, target: str, epoch: int) -> None:
        if self.phase is Phase.PROGRAMMING and target == KERNEL_TARGET and epoch >= self._decided_epoch:
            self._enter(Phase.READY)

    def _enter(self, phase: Phase) -> None:
        without = " ".join(self.waiting_for()) or None
        after_s = round(self.state.now - self.phase_since, 3)
        self.state.note("phase.entered", phase=phase.value, after_s=after_s, without=without)
        self.phase = phase
        self.phase_since = self.state.now
