"""What Prometheus scrapes: figures of the daemon's state, gathered when asked for, and counts of what happened.

Law: a scrape costs per peer, node and pool, never per route, so that it does not hold the loop up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import bgpd
from bgpd.adapters import clock
from bgpd.adapters.prometheus import Exposition, Histogram
from bgpd.adapters.reconciler import Reconciler
from bgpd.core.facts import Session
from bgpd.core.pipeline import Phase, Pipeline
from bgpd.daemon.views import ways_of_nodes
from bgpd.flow.inbox import Inbox
from bgpd.model.bfd import BfdState
from bgpd.model.drain import Stage
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import Notice
from bgpd.model.prefix import Address

NODES_MAX = 2000
"""Remote nodes with a series of their own; beyond, the counts by path are all there is."""

Sample = tuple[Mapping[str, str], float]


class Metrics:
    """Owns the counters and histograms; reads everything else."""

    def __init__(
        self, pipeline: Pipeline, inbox: Inbox, kernel: Reconciler[KernelKey, KernelValue], started: float
    ) -> None:
        """*started*: monotonic seconds."""
        self._pipeline = pipeline
        self._inbox = inbox
        self._kernel = kernel
        self._started = started
        self._notices: Counter[str] = Counter()
        self.settle = Histogram()
        """Seconds from taking a batch of events to all of it decided."""
        self.program = Histogram()
        """Seconds of each batch of kernel changes."""

    def noticed(self, notice: Notice) -> None:
        """Count *notice* by its name."""
        self._notices[notice.name] += 1

    def render(self) -> bytes:
        """Return the exposition."""
        out = Exposition()
        self._daemon(out)
        self._peers(out)
        self._bfd(out)
        self._fib(out)
        self._nodes(out)
        self._store(out)
        out.counter(
            "bgpd_notices_total",
            "Transitions that were told, by name of the log event.",
            (({"event": name}, count) for name, count in sorted(self._notices.items())),
        )
        return out.render()

    # -------------------------------------------------------------- families

    def _daemon(self, out: Exposition) -> None:
        facts, phase = self._pipeline.state.facts, self._pipeline.phase
        out.gauge(
            "bgpd_info", "Version and node; always 1.", [({"version": bgpd.__version__, "node": facts.me.name}, 1)]
        )
        out.gauge("bgpd_start_time_seconds", "Start of the daemon, since the epoch.", [({}, clock.wall(self._started))])
        out.gauge("bgpd_phase", "1 for the present phase.", (({"phase": one.value}, one is phase) for one in Phase))
        out.gauge(
            "bgpd_drain", "1 for the present stage.", (({"stage": one.value}, one is facts.drain) for one in Stage)
        )
        out.gauge("bgpd_inbox_events", "Events that wait to be handled.", [({}, len(self._inbox))])
        out.counter("bgpd_events_total", "Events handled.", [({}, self._pipeline.epoch)])
        out.histogram("bgpd_settle_seconds", "From taking events to all of them decided.", self.settle)
        out.gauge("bgpd_speaker_up", "1 while attached to ExaBGP.", [({}, facts.speaker_up)])

    def _peers(self, out: Exposition) -> None:
        state = self._pipeline.state
        facts = state.facts
        rows = [
            ({"peer": peer.name, "address": str(address)}, address, facts.sessions[address])
            for address, peer in facts.peers.items()
        ]
        out.gauge("bgpd_peer_up", "1 while the session is established.", ((row[0], row[2].up) for row in rows))
        out.counter(
            "bgpd_peer_transitions_total",
            "Times that the session came up or went down.",
            ((row[0], row[2].transitions) for row in rows),
        )
        out.gauge(
            "bgpd_peer_state_change_time_seconds",
            "When the session last came up or went down, since the epoch.",
            ((row[0], clock.wall(row[2].since)) for row in rows if row[2].since is not None),
        )
        self._routes(out, rows)
        out.counter(
            "bgpd_peer_malformed_updates_total",
            "Malformed UPDATEs by treatment and attribute (RFC 7606).",
            ((labels | {"kind": kind}, n) for labels, _, session in rows for kind, n in sorted(session.errors.items())),
        )

    def _routes(self, out: Exposition, rows: list[tuple[dict[str, str], Address, Session]]) -> None:
        """Routes by peer and family. O(peers), and O(announcements) for those to the peers."""
        state = self._pipeline.state
        sent = Counter((key[0], key[1].family) for key, _ in self._pipeline.tables.adj_rib_out.items())
        received: list[Sample] = []
        accepted: list[Sample] = []
        announced: list[Sample] = []
        for labels, address, session in rows:
            for family in state.facts.peers[address].families:
                labelled = {**labels, "family": str(family)}
                received.append((labelled, state.adj_in.count(address, family)))
                accepted.append((labelled, state.accepted(address, family)))
                announced.append((labelled, sent[address, family] if session.up else 0))
        out.gauge("bgpd_peer_routes_received", "Routes in the adj-rib-in.", received)
        out.gauge("bgpd_peer_routes_accepted", "Of these, eligible for the decision.", accepted)
        out.gauge("bgpd_peer_routes_announced", "Routes in the adj-rib-out.", announced)

    def _bfd(self, out: Exposition) -> None:
        facts = self._pipeline.state.facts

        def samples() -> Iterator[Sample]:
            for address, peer in facts.peers.items():
                if peer.policy.bfd is not None:
                    told = facts.bfd.get(address)
                    up = told is not None and told.status.state is BfdState.UP
                    yield {"peer": peer.name, "address": str(address)}, up

        out.gauge("bgpd_bfd_up", "1 while the BFD session with the peer is up.", samples())

    def _fib(self, out: Exposition) -> None:
        table, kernel = self._pipeline.tables.kernel, self._kernel
        out.gauge("bgpd_learned_prefixes", "Prefixes in all adj-rib-ins.", [({}, len(self._pipeline.state.adj_in))])
        out.gauge("bgpd_kernel_objects", "Desired routes, nexthops, neighbours and devices.", [({}, len(table))])
        out.gauge("bgpd_kernel_objects_failed", "Of these, refused by the kernel.", [({}, len(kernel.failures))])
        out.gauge("bgpd_kernel_objects_pending", "Of these, waiting to be programmed.", [({}, kernel.pending)])
        out.histogram("bgpd_program_seconds", "Time of each batch of kernel changes.", self.program)

    def _nodes(self, out: Exposition) -> None:
        ways = ways_of_nodes(self._pipeline)
        counts = Counter(way.value for way in ways.values())
        out.gauge(
            "bgpd_nodes",
            "Remote nodes by the worst path of their blocks.",
            (({"path": way}, counts[way]) for way in ("native", "direct", "tunnel", "fallback", "unreachable")),
        )
        if len(ways) <= NODES_MAX:
            out.gauge(
                "bgpd_node_path",
                "1 for the present worst path of a remote node's blocks.",
                (({"node": name, "path": way.value}, 1) for name, way in sorted(ways.items())),
            )

    def _store(self, out: Exposition) -> None:
        facts = self._pipeline.state.facts
        lost = bool(facts.store.lost_reason)
        out.gauge("bgpd_store_up", "1 while the store answers.", [({}, facts.store.synced_once and not lost)])
        outage = clock.monotonic() - facts.store.since if lost and facts.store.since is not None else 0.0
        out.gauge("bgpd_store_outage_seconds", "How long the store has been lost; 0 while it answers.", [({}, outage)])
        own: Counter[str] = Counter()
        for cidr in facts.blocks_of.get(facts.me.name, ()):
            pool = facts.pool_of(cidr)
            own[pool.name if pool is not None else ""] += 1
        out.gauge(
            "bgpd_ipam_blocks_own",
            "Blocks of this node by pool.",
            (({"pool": pool}, count) for pool, count in sorted(own.items())),
        )
