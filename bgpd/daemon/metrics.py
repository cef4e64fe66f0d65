"""What Prometheus scrapes: figures of the daemon's state, gathered when asked for, and counts of what happened.

Law: a scrape costs per peer, node and pool, never per route or block, so that it does not hold the loop up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache

import bgpd
from bgpd.adapters import clock
from bgpd.adapters.mqtt.broker import Broker
from bgpd.adapters.prometheus import Exposition, Histogram, Sample, written
from bgpd.adapters.reconciler import Reconciler
from bgpd.adapters.store.timed import TimedStore
from bgpd.core.facts import Session
from bgpd.core.ipam.usage import Use
from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Phase, Pipeline
from bgpd.daemon.events import Events
from bgpd.flow.inbox import CAPACITY_EVENTS, Inbox
from bgpd.model.bfd import BfdState
from bgpd.model.drain import Stage
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import KINDS, Notice
from bgpd.model.prefix import Address

NODES_MAX = 2000
"""Remote nodes with a series of their own; beyond, the counts by path are all there is."""

PEERS_CACHED = 4096
"""Labels of peers kept as text: more than a node has peers."""


@lru_cache(maxsize=PEERS_CACHED)
def _labels(name: str, address: Address) -> str:
    return written({"peer": name, "address": str(address)})


class Metrics:
    """Owns the counters and histograms; reads everything else."""

    def __init__(
        self,
        pipeline: Pipeline,
        inbox: Inbox,
        *,
        kernel: Reconciler[KernelKey, KernelValue],
        store: TimedStore,
        events: Events,
        broker: Callable[[], Broker | None],
        started: float,
    ) -> None:
        """*started*: monotonic seconds; *broker*: the one that is told, None where none is."""
        self._pipeline = pipeline
        self._inbox = inbox
        self._kernel = kernel
        self._timed = store
        self._events = events
        self._broker = broker
        self._started = started
        self._notices: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self._paths: Counter[tuple[str, str]] = Counter({(How.NATIVE, How.FALLBACK): 0, (How.FALLBACK, How.NATIVE): 0})
        """Changes of paths by what it was and is."""
        self._bfd_downs: Counter[str] = Counter()
        """By the peer's address."""
        self._differed, self._differences, self._compared = 0, 0, 0.0
        """At the last full comparison, in all, and when it was (monotonic seconds; 0: not yet)."""
        self.settle = Histogram()
        """Seconds from taking a batch of events to all of it decided."""
        self.decision = Histogram()
        """Seconds from an event's coming to all of its batch decided."""
        self.program = Histogram()
        """Seconds of each batch of kernel changes."""

    def noticed(self, notice: Notice) -> None:
        """Count *notice* by its name, and some by what they say."""
        self._notices[notice.name] += 1
        if notice.name == "path.changed":
            way = str(notice.fields["was"]), str(notice.fields["now"])
            self._paths[way] += int(notice.fields.get("prefixes") or 1)
        elif notice.name == "bfd.down":
            self._bfd_downs[str(notice.fields["peer"])] += 1

    def settled(self, took_s: float, since_s: float) -> None:
        """Note a batch of events: how long it took to decide, and how long since its first came."""
        self.settle.observe(took_s)
        self.decision.observe(since_s)

    def compared(self, differing: int, _took_s: float) -> None:
        """Note a full comparison with the kernel."""
        self._differed = differing
        self._differences += differing
        self._compared = clock.monotonic()

    def render(self) -> bytes:
        """Return the exposition."""
        out = Exposition()
        self._daemon(out)
        self._peers(out)
        self._bfd(out)
        self._fib(out)
        self._nodes(out)
        self._store(out)
        self._ipam(out)
        self._told(out)
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
        out.gauge("bgpd_inbox_capacity_events", "As many may wait; then producers do.", [({}, CAPACITY_EVENTS)])
        out.counter("bgpd_events_total", "Events handled.", [({}, self._pipeline.epoch)])
        out.histogram("bgpd_settle_seconds", "From taking events to all of them decided.", self.settle)
        out.histogram("bgpd_decision_seconds", "From an event's coming to all of its batch decided.", self.decision)
        out.gauge("bgpd_speaker_up", "1 while attached to ExaBGP.", [({}, facts.speaker_up)])
        lost = self._notices["speaker.lost"]
        out.counter("bgpd_speaker_restarts_total", "Times that ExaBGP ended and was started anew.", [({}, lost)])

    def _peers(self, out: Exposition) -> None:
        state = self._pipeline.state
        facts = state.facts
        rows = [
            (_labels(peer.name, address), address, facts.sessions[address]) for address, peer in facts.peers.items()
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
            (
                (f"{labels},{written({'kind': kind})}", n)
                for labels, _, session in rows
                for kind, n in sorted(session.errors.items())
            ),
        )

    def _routes(self, out: Exposition, rows: list[tuple[str, Address, Session]]) -> None:
        """Routes by peer and family. O(peers)."""
        state = self._pipeline.state
        sent = self._pipeline.exporter.announced
        received: list[Sample] = []
        accepted: list[Sample] = []
        announced: list[Sample] = []
        for labels, address, session in rows:
            for family in state.facts.peers[address].families:
                labelled = f'{labels},family="{family}"'
                received.append((labelled, state.adj_in.count(address, family)))
                accepted.append((labelled, state.accepted(address, family)))
                announced.append((labelled, sent[address, family] if session.up else 0))
        out.gauge("bgpd_peer_routes_received", "Routes in the adj-rib-in.", received)
        out.gauge("bgpd_peer_routes_accepted", "Of these, eligible for the decision.", accepted)
        out.gauge("bgpd_peer_routes_announced", "Routes in the adj-rib-out.", announced)

    def _bfd(self, out: Exposition) -> None:
        facts = self._pipeline.state.facts

        watched = [(address, peer) for address, peer in facts.peers.items() if peer.policy.bfd is not None]

        def states() -> Iterator[Sample]:
            for address, peer in watched:
                told = facts.bfd.get(address)
                yield _labels(peer.name, address), told is not None and told.status.state is BfdState.UP

        out.gauge("bgpd_bfd_up", "1 while the BFD session with the peer is up.", states())
        out.counter(
            "bgpd_bfd_downs_total",
            "Times that the BFD session with the peer went down.",
            ((_labels(peer.name, address), self._bfd_downs[str(address)]) for address, peer in watched),
        )

    def _fib(self, out: Exposition) -> None:
        table, kernel = self._pipeline.tables.kernel, self._kernel
        out.gauge("bgpd_learned_prefixes", "Prefixes in all adj-rib-ins.", [({}, len(self._pipeline.state.adj_in))])
        out.gauge("bgpd_kernel_objects", "Desired routes, nexthops, neighbours and devices.", [({}, len(table))])
        out.gauge("bgpd_kernel_objects_failed", "Of these, refused by the kernel.", [({}, len(kernel.failures))])
        out.gauge("bgpd_kernel_objects_pending", "Of these, waiting to be programmed.", [({}, kernel.pending)])
        out.gauge("bgpd_kernel_objects_differing", "Differing at the last full comparison.", [({}, self._differed)])
        out.counter("bgpd_kernel_differences_total", "Found by full comparisons.", [({}, self._differences)])
        out.gauge(
            "bgpd_kernel_compare_time_seconds",
            "When the last full comparison ended, since the epoch.",
            [({}, clock.wall(self._compared))] if self._compared else [],
        )
        out.histogram("bgpd_program_seconds", "Time of each batch of kernel changes.", self.program)

    def _nodes(self, out: Exposition) -> None:
        ways = self._pipeline.forwarder.ways.worst()
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

        out.counter(
            "bgpd_path_changes_total",
            "Times that a destination went another way.",
            (({"was": was, "now": now}, count) for (was, now), count in sorted(self._paths.items())),
        )
        fallen = sum(count for (_, now), count in self._paths.items() if now == How.FALLBACK)
        out.counter("bgpd_fallbacks_total", "Times that a destination fell back to the tunnel.", [({}, fallen)])

    def _store(self, out: Exposition) -> None:
        facts = self._pipeline.state.facts
        lost = bool(facts.store.lost_reason)
        out.gauge("bgpd_store_up", "1 while the store answers.", [({}, facts.store.synced_once and not lost)])
        outage = clock.monotonic() - facts.store.since if lost and facts.store.since is not None else 0.0
        out.gauge("bgpd_store_outage_seconds", "How long the store has been lost; 0 while it answers.", [({}, outage)])
        out.counter("bgpd_store_outages_total", "Times that the store was lost.", [({}, self._notices["store.lost"])])
        timed = self._timed
        out.histograms(
            "bgpd_store_request_seconds",
            "Time of each request to the store, failed ones too.",
            (({"operation": operation}, histogram) for operation, histogram in timed.seconds.items()),
        )
        out.counter(
            "bgpd_store_request_failures_total",
            "Requests to the store that failed.",
            (({"operation": operation}, timed.failures[operation]) for operation in timed.seconds),
        )

    def _ipam(self, out: Exposition) -> None:
        """Show what is in use of each pool. O(pools), and O(blocks of this node)."""
        facts = self._pipeline.state.facts
        own: Counter[str] = Counter()
        for cidr in facts.blocks_of.get(facts.me.name, ()):
            pool = facts.pool_of(cidr)
            own[pool.name if pool is not None else ""] += 1
        pools = [({"pool": name}, facts.pools[name].cidr.size, facts.usage.of.get(name, Use())) for name in facts.pools]
        out.gauge("bgpd_ipam_pool_addresses", "Addresses of a pool.", ((labels, size) for labels, size, _ in pools))
        out.gauge("bgpd_ipam_addresses_in_use", "Of these, in use.", ((labels, use.in_use) for labels, _, use in pools))
        out.gauge(
            "bgpd_ipam_blocks", "Blocks of a pool, of all nodes.", ((labels, use.blocks) for labels, _, use in pools)
        )
        out.gauge(
            "bgpd_ipam_blocks_own",
            "Blocks of this node by pool.",
            (({"pool": pool}, count) for pool, count in sorted(own.items())),
        )

    def _told(self, out: Exposition) -> None:
        """Show what is told to others, and what was dropped of it."""
        broker = self._broker()
        dropped: list[Sample] = [({"queue": "ring"}, self._events.overwritten)]
        if broker is not None:
            dropped.append(({"queue": "mqtt"}, broker.dropped))
            out.gauge("bgpd_mqtt_up", "1 while connected to the broker.", [({}, broker.connected)])
            out.gauge("bgpd_mqtt_events", "Events that wait for the broker.", [({}, broker.waiting)])
        out.counter("bgpd_events_dropped_total", "Events that a bounded queue let go of, by queue.", dropped)
