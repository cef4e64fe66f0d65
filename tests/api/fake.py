"""A daemon's views without a daemon: fixed answers of every kind, served over a real socket."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bgpd.api.protocol import AssignRequest, AssignView, Refused
from bgpd.api.server import Server
from bgpd.model.drain import DrainRequest
from bgpd.model.overlay import CandidateView, CounterView, ForceRequest, OverlayView, ProbeRequest, ProbeView
from bgpd.model.overlay import Path as Way
from bgpd.model.prefix import Address, Prefix
from bgpd.model.telling import EventView
from bgpd.model.view import (
    BlockView,
    ChangeView,
    ExplainView,
    FibPage,
    FibQuery,
    FibRow,
    FibStatus,
    NodeView,
    PathView,
    PeerRouteView,
    PeerView,
    PhaseView,
    PoolView,
    ReloadView,
    RoutePage,
    RouteQuery,
    RouteView,
    StatusView,
    StepView,
    Which,
)

SINCE = time.time() - (3 * 86400 + 4 * 3600 + 600)
"""Three days, four hours and some minutes ago: shown as 3d04h for as long as a test runs."""

START_LIMIT_S = 10.0

STATUS = StatusView(
    node="node1",
    asn=65101,
    router_id="192.0.2.1",
    version="0.1.0",
    pid=4242,
    started=SINCE,
    phase=PhaseView("ready", SINCE),
    store="synced",
    store_since=SINCE,
    speaker="attached",
    speaker_since=SINCE,
    peers_established=1,
    peers_configured=2,
    blocks_own=("10.42.0.0/26", "10.42.9.64/26"),
    routes_learned=4,
    routes_desired=3,
    routes_failed=0,
    nodes_native=1,
    nodes_fallback=1,
    nodes_unreachable=0,
)

NODES = [
    NodeView(
        name="node1",
        asn=65101,
        address="10.0.0.1",
        own=True,
        alive=True,
        path="",
        paths={},
        via=(),
        reason="",
        since=None,
    ),
    *(
        NodeView(
            name=f"node{number}",
            asn=65100 + number,
            address=f"10.0.0.{number}",
            own=False,
            alive=path != "unreachable",
            path=path,
            paths={path: number},
            via=via,
            reason=reason,
            since=SINCE,
        )
        for number, path, via, reason in (
            (2, "native", ("10.1.1.1 dev eth1",), "BGP has a usable path"),
            (3, "fallback", ("10.0.0.3 dev vxlan.bgpd",), "no usable BGP path <b>here</b>"),
            (4, "unreachable", (), "its lease has ended"),
        )
    ),
]

OVERLAY = [
    OverlayView(
        node="node2",
        address="10.0.0.2",
        alive=True,
        path="fallback",
        reason="no BGP peer announces it",
        via=("10.0.0.2 dev vxlan.bgpd",),
        since=SINCE,
        blocks={"fallback": 2},
        mtu_bytes=1450,
        candidates=(
            CandidateView(path="native", usable=False, in_use=False, reason="no BGP peer announces it"),
            CandidateView(path="vxlan", usable=True, in_use=True, via=("10.0.0.2 dev vxlan.bgpd",), mtu_bytes=1450),
        ),
        forced="vxlan",
        counters=(
            CounterView(
                of="device",
                name="vxlan.bgpd",
                sent_packets=7,
                sent_bytes=700,
                received_packets=6,
                received_bytes=600,
                errors=0,
            ),
        ),
    )
]

PEERS = [
    PeerView(
        name="tor1",
        address="10.1.1.1",
        asn=65001,
        local_address="10.1.1.2",
        local_asn=65101,
        state="Established",
        since=SINCE,
        received=3,
        accepted=2,
        stale=1,
        announced=1,
        reason="",
        transitions=1,
        hold_time_s=9,
        router_id="192.0.2.11",
        capabilities=("4-octet AS", "route refresh"),
    ),
    PeerView(
        name="tor2",
        address="2001:db8:2::1",
        asn=4200000002,
        local_address="2001:db8:2::2",
        local_asn=65101,
        state="Idle (shut down by the neighbor)",
        since=None,
        received=0,
        accepted=0,
        stale=0,
        announced=0,
        reason="Cease/Administrative Shutdown: \x1b[31mmaintenance",
        transitions=0,
        hold_time_s=None,
        router_id="",
        capabilities=(),
    ),
]

PATHS = (
    PathView(
        peer="10.1.3.1",
        next_hop="10.1.3.1",
        as_path="65003 65009 65102",
        origin="incomplete",
        med=50,
        local_pref=None,
        communities=("65003:1", "65535:0"),
        best=False,
        equal=False,
        why_not="AS path is longer",
        stale=True,
        since=SINCE,
    ),
    PathView(
        peer="10.1.1.1",
        next_hop="10.1.1.1",
        as_path="65001 65102",
        origin="igp",
        med=None,
        local_pref=None,
        communities=(),
        best=True,
        equal=False,
        why_not="",
        stale=False,
        since=SINCE,
    ),
    PathView(
        peer="10.1.2.1",
        next_hop="10.1.2.1",
        as_path="65002 65102",
        origin="igp",
        med=0,
        local_pref=200,
        communities=(),
        best=False,
        equal=True,
        why_not="",
        stale=False,
        since=SINCE,
    ),
)


def route(prefix: str, kind: str, node: str = "", via: tuple[str, ...] = (), status: str = "programmed") -> RouteView:
    """A route without paths."""
    return RouteView(prefix=prefix, kind=kind, node=node, reason="", via=via, since=SINCE, status=status)


NATIVE = RouteView(
    prefix="10.42.0.64/26",
    kind="native",
    node="node2",
    reason="BGP has 2 equal paths",
    via=("10.1.1.1 dev eth1", "10.1.2.1 dev eth2"),
    since=SINCE,
    status="programmed",
    paths=PATHS,
)

ROUTES = [
    route("10.42.0.0/26", "own", "node1", ("blackhole",)),
    NATIVE,
    route("10.42.0.128/26", "fallback", "node3", ("10.42.0.128 dev vxlan.bgpd",), "pending"),
    route("10.42.0.192/26", "unreachable", "node4", (), "failed: EINVAL"),
    RouteView(
        prefix="0.0.0.0/0", kind="bgp", node="", reason="", via=("10.1.1.1 dev eth1",), since=None, status="programmed"
    ),
]

POOLS = [
    PoolView(
        name="main",
        cidr="10.42.0.0/16",
        block_size=26,
        mode="CrossSubnet",
        fallback="VXLAN",
        size=65536,
        in_use=65,
        free=65471,
        blocks=(
            BlockView(cidr="10.42.0.0/26", node="node1", affinity="confirmed", size=64, in_use=64),
            BlockView(cidr="10.42.0.64/26", node="node2", affinity="pending", size=64, in_use=1),
            BlockView(cidr="10.42.0.128/26", node="", affinity="", size=64, in_use=0),
        ),
    ),
    PoolView(
        name="six",
        cidr="2001:db8:42::/64",
        block_size=122,
        mode="Never",
        fallback="None",
        size=1 << 64,
        in_use=0,
        free=1 << 64,
        blocks=(),
    ),
]

EXPLAIN = ExplainView(
    query="10.42.0.65",
    prefix="10.42.0.64/26",
    answer="10.42.0.65 is reached natively over two uplinks: it is in node2's block 10.42.0.64/26.",
    steps=(
        StepView("store", "block 10.42.0.64/26 of node2", ("pool main 10.42.0.0/16, CrossSubnet, fallback VXLAN",)),
        StepView("adj-in", "3 routes", ("10.1.1.1: 65001 65102", "10.1.2.1: 65002 65102")),
        StepView("kernel", "programmed"),
    ),
    changes=("05:44:10 native: BGP has 2 equal paths", "05:44:00 fallback: no session has a path"),
)


PEER_ROUTES = [
    PeerRouteView(prefix="10.42.0.64/26", path=PATHS[1], status="accepted"),
    PeerRouteView(prefix="10.66.0.0/16", path=PATHS[0], path_id=7, status="rejected: our AS 65101 is in the AS path"),
]
FIB = FibPage(
    rows=(
        FibRow(
            object="route",
            key="10.42.0.64/26",
            desired="via 10.1.1.1 dev eth1, via 10.1.2.1 dev eth2",
            actual="via 10.1.1.1 dev eth1, via 10.1.2.1 dev eth2",
            status=FibStatus.PROGRAMMED,
            reason="",
            since=None,
            retry_at=None,
            path="native",
            nexthop_id=1650917376,
        ),
        FibRow(
            object="route",
            key="10.42.0.128/26 metric 5",
            desired="via 10.0.0.3 dev vxlan.bgpd onlink",
            actual="",
            status=FibStatus.FAILED,
            reason="EEXIST: File exists",
            since=SINCE,
            retry_at=SINCE,
            path="tunnel",
            nexthop_id=None,
        ),
    ),
    total=3,
    next="10.42.0.128/26 metric 5",
)


EVENTS = [
    EventView(sequence=1, at=1_700_000_000.5, event="peer.established", level="info", fields={"peer": "192.0.2.1"}),
    EventView(
        sequence=2, at=1_700_000_001.0, event="peer.lost", level="warning", fields={"reason": "hold timer expired"}
    ),
]


class FakeViews:
    """Views with the answers above. *routes_held* and *hold* may be set before a test asks."""

    def __init__(self, routes_held: list[RouteView] | None = None) -> None:
        """Hold *routes_held*, or those above."""
        self.routes_held = ROUTES if routes_held is None else routes_held
        self.peers_held = PEERS
        self.nodes_held = NODES
        self.pools_held = POOLS
        self.hold: asyncio.Event | None = None
        """Assignments wait for it."""
        self.peer_routes_held = PEER_ROUTES
        self.asked: list[tuple[str | None, Which, Prefix | None]] = []
        self.done: list[tuple[object, ...]] = []
        self.fib_asked: FibQuery | None = None
        self.assigned: list[tuple[str, str | None]] = []
        self.requests: list[AssignRequest] = []
        self.reloads: list[bool] = []
        self.bad_configuration = ""

    def status(self) -> StatusView:
        """Answer with the status above."""
        return STATUS

    async def events(self, after: int, wait_s: float) -> list[EventView]:
        """Answer with the events held after that number, or wait until the time is over."""
        found = [event for event in EVENTS if event.sequence > after]
        if not found:
            await asyncio.sleep(wait_s)
        return found

    def peers(self, name: str | None) -> list[PeerView]:
        """Answer with the peers held, or the one of *name*."""
        found = [view for view in self.peers_held if name in {None, view.name, view.address}]
        if name is not None and not found:
            raise ValueError(f"there is no peer {name}")
        return found

    def peer_routes(self, peer: str | None, which: Which, prefix: Prefix | None) -> Iterator[PeerRouteView]:
        """Answer with the peer routes held, each *which* it is asked for."""
        if peer is not None:
            self.peers(peer)
        self.asked.append((peer, which, prefix))
        return iter(self.peer_routes_held)

    async def refresh(self, peer: str) -> None:
        """Refuse for a peer that is not established."""
        (found,) = self.peers(peer)
        if found.state != "Established":
            raise Refused("there is no session with it")
        self.done.append(("refresh", peer))

    async def reset(self, peer: str, *, hard: bool, message: str) -> None:
        """Take note of the reset."""
        self.peers(peer)
        if len(message) > 255:
            raise ValueError("the message has 256 bytes")
        self.done.append(("reset", peer, hard, message))

    async def drain(self, asked: DrainRequest) -> None:
        """Take note of the order."""
        self.done.append(("drain", asked))

    async def reload(self, *, dry_run: bool) -> ReloadView:
        self.reloads.append(dry_run)
        if self.bad_configuration:
            raise Refused(self.bad_configuration)
        changed = (ChangeView("peer[tor1].asn", 65001, 65009),)
        waiting = (ChangeView("node.asn", 65101, 65102),)
        return ReloadView(done=not dry_run, path="/etc/bgpd/bgpd.toml", changed=changed, waiting=waiting)

    async def undrain(self) -> None:
        """Take note of the order."""
        self.done.append(("undrain",))

    async def overlay(self, node: str | None) -> list[OverlayView]:
        """Answer with the nodes above."""
        found = [view for view in OVERLAY if node is None or view.node == node]
        if not found:
            raise ValueError(f"there is no node {node!r} in the store; others are: node2")
        return found

    async def overlay_test(self, asked: ProbeRequest) -> list[ProbeView]:
        """Answer with probes of which some are lost."""
        await self.overlay(asked.node)
        lost = ProbeView(
            path="vxlan",
            device="vxlan.bgpd",
            sent=asked.count,
            received=asked.count - 1,
            min_ms=0.5,
            avg_ms=0.75,
            max_ms=1.0,
        )
        return [lost, ProbeView(path="native", device="", sent=0, received=0, reason="no BGP peer announces it")]

    async def overlay_force(self, asked: ForceRequest) -> None:
        """Take note of the order; one kind is refused."""
        await self.overlay(asked.node)
        if asked.path is Way.WIREGUARD:
            raise Refused("node2 cannot be reached by wireguard now: there are no tunnels by wireguard here")
        self.done.append(("force", asked))

    def routes(self, prefix: Prefix | None) -> list[RouteView]:
        """Answer with the routes held."""
        return [view for view in self.routes_held if prefix is None or view.prefix == str(prefix)]

    def explain(self, query: str, node: str | None = None) -> ExplainView:
        """Answer with the explanation above."""
        if node not in {None, "node2"}:
            raise ValueError(f"the store has no node {node}")
        try:
            _ = Prefix.parse(query) if "/" in query else Address.parse(query)
        except ValueError as defect:
            raise ValueError(f"{query!r} is neither an address nor a prefix") from defect
        return EXPLAIN

    def pools(self, blocks: str = "all") -> list[PoolView]:
        """Answer with the pools held."""
        if blocks not in {"all", "own"}:
            raise ValueError(f"blocks is all or own, not {blocks!r}")
        return self.pools_held

    def nodes(self) -> Iterator[NodeView]:
        """Yield the nodes held."""
        return iter(self.nodes_held)

    async def route_page(self, query: RouteQuery) -> RoutePage:
        """Answer with the routes held, in order, as many as asked for after the one asked for."""
        rows = self.routes(None)
        at = 0 if query.after is None else next(n for n, row in enumerate(rows, 1) if row.prefix == query.after)
        page = rows[at : at + query.limit]
        more = at + query.limit < len(rows)
        return RoutePage(rows=tuple(page), total=len(rows), next=page[-1].prefix if more else None)

    async def fib(self, query: FibQuery) -> FibPage:
        """Answer with the page above; the query is kept."""
        self.fib_asked = query
        if query.after == "nonsense":
            raise ValueError("'nonsense' is no place of a route")
        return FIB

    async def fib_diff(self, limit: int) -> FibPage:
        """Answer with the rows that are not programmed, or with none for a limit of 1."""
        rows = tuple(row for row in FIB.rows if row.status is not FibStatus.PROGRAMMED) if limit > 1 else ()
        return FibPage(rows=rows, total=len(rows), next=None)

    async def rotate_wireguard_key(self) -> str:
        raise Refused("no pool uses WireGuard, so this node has no key to change")

    def recording(self, what: str) -> Iterator[bytes]:
        """Answer with two lines."""
        if what not in {"state", "last"}:
            raise ValueError("what is state or last")
        return iter([b"one\n", b"two\n"])

    async def assign(self, asked: AssignRequest) -> AssignView:
        """Give the same address each time, and never more than one; there is no pool but main."""
        self.assigned.append((asked.handle, asked.pool))
        self.requests.append(asked)
        if self.hold is not None:
            await self.hold.wait()
        if asked.pool not in (None, "main"):
            raise Refused(f"there is no pool {asked.pool}")
        if asked.address is not None:
            Prefix.parse(f"{asked.address}/32")
        short = ("1 of 2 ipv4 addresses: no more",) if asked.ipv4 > 1 else ()
        return AssignView("10.42.0.7", ("10.42.0.7",), short)


class BrokenViews(FakeViews):
    """Views with a defect."""

    def status(self) -> StatusView:
        """Fail."""
        raise KeyError("a defect")


@contextmanager
def serving(views: FakeViews, path: Path) -> Iterator[None]:
    """Serve *views* on *path* from a thread with an event loop of its own, for synchronous clients."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        """Serve until *end*."""
        server = Server(views, path)
        await server.start()
        started.set()
        await end.wait()
        await server.stop()

    def run() -> None:
        """Be the thread."""
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="api-server")
    thread.start()
    try:
        assert started.wait(START_LIMIT_S), "the API server did not start"
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(START_LIMIT_S)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user without rights (uid and gid 65534, no other groups), as root may."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
