"""What the API shows: the core's state joined with what the reconcilers know. Answers from memory, never waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from heapq import nsmallest
from typing import Protocol

import msgspec

import bgpd
from bgpd.adapters import clock
from bgpd.adapters.exabgp.process import Speaker
from bgpd.adapters.reconciler import Reconciler
from bgpd.api.protocol import AssignRequest, AssignView, Refused
from bgpd.core.drain import left_behind
from bgpd.core.explain import Explainer, Explanation
from bgpd.core.explain_from import explain_from
from bgpd.core.forward import Reached
from bgpd.core.ipam.usage import Use
from bgpd.core.lookup import Packet
from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.core.snapshot import snapshot
from bgpd.daemon.drain import Drain
from bgpd.daemon.events import Events
from bgpd.daemon.fib import FibViews
from bgpd.daemon.kept import Unkept
from bgpd.daemon.overlay_views import OverlayViews
from bgpd.daemon.peer_views import PeerViews
from bgpd.model.drain import DrainRequest, Stage
from bgpd.model.event import Recorded
from bgpd.model.forwarding import KernelKey, KernelValue, RouteKey
from bgpd.model.node import Node
from bgpd.model.overlay import ForceRequest, OverlayView, ProbeRequest, ProbeView
from bgpd.model.pool import preference_text
from bgpd.model.prefix import Address, Prefix
from bgpd.model.telling import EventView
from bgpd.model.view import (
    BlockView,
    DrainView,
    ExplainView,
    FibPage,
    FibQuery,
    NodeView,
    PacketView,
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
from bgpd.model.wire import encode

SLICE_ROUTES = 2000
"""Routes looked at between two turns of the loop: some 2 ms."""


class Reload(Protocol):
    """Loads the configuration again (daemon/reload.py)."""

    async def __call__(self, *, dry_run: bool) -> ReloadView: ...


class DaemonViews:
    """Reads the pipeline and the kernel's reconciler; owns nothing but the daemon's start time."""

    def __init__(
        self,
        pipeline: Pipeline,
        kernel: Reconciler[KernelKey, KernelValue],
        speaker: Speaker,
        peers: PeerViews,
        assign: Callable[[AssignRequest], Awaitable[AssignView]],
        *,
        lift: Callable[[Address], Awaitable[None]],
        router_id: Address,
        asn: int,
        fib: FibViews,
        events: Events,
        drain: Drain,
        last: Collection[Recorded],
        reload: Reload,
        rotate_key: Callable[[], Awaitable[str]],
        overlay: OverlayViews,
    ) -> None:
        self._overlay = overlay
        self._drain = drain
        self._last = last
        self._reload = reload
        self._rotate_key = rotate_key
        self._events = events
        self._fib = fib
        self._pipeline = pipeline
        self._state = pipeline.state
        self._kernel = kernel
        self._speaker = speaker
        self._peers = peers
        self._assign = assign
        self._lift = lift
        self._router_id = router_id
        self._asn = asn
        self._explainer = Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter)
        self._started = clock.monotonic()

    # -------------------------------------------------------------- status

    def status(self) -> StatusView:
        facts, pipeline = self._state.facts, self._pipeline
        ways = pipeline.forwarder.ways.worst()
        return StatusView(
            node=facts.me.name,
            asn=self._asn,
            router_id=str(self._router_id),
            version=bgpd.__version__,
            pid=os.getpid(),
            started=clock.wall(self._started),
            phase=PhaseView(pipeline.phase.value, clock.wall(pipeline.phase_since), pipeline.waiting_for()),
            store=self._store(),
            store_since=clock.wall_or_none(facts.store.since),
            speaker="attached" if facts.speaker_up else f"lost: {facts.speaker_reason}",
            speaker_since=clock.wall_or_none(facts.speaker_since),
            peers_established=sum(session.up for session in facts.sessions.values()),
            peers_configured=len(facts.peers),
            blocks_own=tuple(str(block) for block in sorted(facts.blocks_of.get(facts.me.name, ()))),
            routes_learned=len(self._state.adj_in),
            routes_desired=sum(isinstance(key, RouteKey) for key, _ in self._pipeline.tables.kernel.items()),
            routes_failed=sum(isinstance(key, RouteKey) for key in self._kernel.failures.keys()),  # noqa: SIM118
            nodes_native=sum(ways[name] in (How.NATIVE, How.DIRECT, How.TUNNEL) for name in ways),
            nodes_fallback=sum(way is How.FALLBACK for way in ways.values()),
            nodes_unreachable=sum(way is How.UNREACHABLE for way in ways.values()),
            drain=self._drained(),
            forced=self._overlay.forced(),
            mtu_workload_bytes=self._state.mtu.workload_bytes,
            mtu_uplink_bytes=self._state.mtu.uplink_bytes,
        )

    # -------------------------------------------------------------- drain

    async def drain(self, asked: DrainRequest) -> None:
        try:
            await self._drain.start(asked)
        except Unkept as error:
            raise Refused(str(error)) from error

    async def reload(self, *, dry_run: bool) -> ReloadView:
        """Load the configuration again; raises Refused."""
        return await self._reload(dry_run=dry_run)

    async def undrain(self) -> None:
        try:
            await self._drain.end()
        except Unkept as error:
            raise Refused(str(error)) from error

    def _drained(self) -> DrainView | None:
        state = self._drain.state
        if state is None:
            return None
        return DrainView(
            stage=state.stage.value,
            since=state.since,
            until=state.until if state.stage is Stage.DRAINING else None,
            traffic_pps=self._drain.traffic_pps,
            below_pps=state.request.below_pps,
            keep_blocks=state.request.keep_blocks,
            reason=state.reason,
            left=() if state.request.keep_blocks else tuple(left_behind(self._state.facts)),
        )

    async def rotate_wireguard_key(self) -> str:
        return await self._rotate_key()

    # -------------------------------------------------------------- overlay

    async def overlay(self, node: str | None) -> list[OverlayView]:
        return await self._overlay.show(node)

    async def overlay_test(self, asked: ProbeRequest) -> list[ProbeView]:
        return await self._overlay.test(asked)

    async def overlay_force(self, asked: ForceRequest) -> None:
        await self._overlay.force(asked)

    async def events(self, after: int, wait_s: float) -> list[EventView]:
        return await self._events.after(after, wait_s)

    def _store(self) -> str:
        store = self._state.facts.store
        if store.lost_reason:
            return f"lost: {store.lost_reason}"
        return "synced" if store.synced_once else "not read yet"

    # -------------------------------------------------------------- peers

    def peers(self, name: str | None) -> list[PeerView]:
        return self._peers.peers(name)

    def peer_routes(self, peer: str | None, which: Which, prefix: Prefix | None) -> Iterator[PeerRouteView]:
        return self._peers.routes(peer, which, prefix)

    async def refresh(self, peer: str) -> None:
        _refuse(await self._speaker.refresh(self._peers.address(peer)))

    async def reset(self, peer: str, *, hard: bool, message: str) -> None:
        address = self._peers.address(peer)
        if address in self._state.facts.limits:
            await self._lift(address)  # there is no session to end: let it be made again
        else:
            _refuse(await self._speaker.reset(address, hard=hard, text=message))

    # -------------------------------------------------------------- routes

    def routes(self, prefix: Prefix | None) -> list[RouteView]:
        if prefix is not None:
            known = prefix in self._pipeline.forwarder.reached or self._state.adj_in.paths(prefix)
            return [self._route(prefix, self._explainer.paths(prefix))] if known else []
        return [self._route(each, ()) for each in sorted(self._pipeline.forwarder.reached)]

    async def route_page(self, query: RouteQuery) -> RoutePage:
        """Return a page of routes. O(all), in slices between which the loop runs."""
        after = None if query.after is None else Prefix.parse(query.after)
        within = None if query.within is None else self._within(query.within)
        narrowed = within is not None or query.kind is not None or query.node is not None
        reached, total = self._pipeline.forwarder.reached, 0
        first: list[Prefix] = []
        every = list(reached)
        for start in range(0, len(every), SLICE_ROUTES):
            fits = every[start : start + SLICE_ROUTES]
            if narrowed:
                fits = [prefix for prefix in fits if self._fits(prefix, within, query)]
            total += len(fits)
            more = fits if after is None else [prefix for prefix in fits if prefix > after]
            first = nsmallest(query.limit + 1, (*first, *more))
            await asyncio.sleep(0)
        rows = tuple(self._route(prefix, ()) for prefix in first[: query.limit])
        return RoutePage(rows=rows, total=total, next=rows[-1].prefix if len(first) > query.limit else None)

    def _within(self, text: str) -> Prefix:
        if "/" in text:
            return Prefix.parse(text)
        address = Address.parse(text)
        found = self._explainer.address(address).prefix
        return found if found is not None else Prefix.of(address, address.family.bits)

    def _fits(self, prefix: Prefix, within: Prefix | None, query: RouteQuery) -> bool:
        reached = self._pipeline.forwarder.reached.get(prefix)
        return (
            reached is not None
            and (within is None or within.covers(prefix))
            and query.kind in {None, reached.how}
            and query.node in {None, reached.node}
        )

    def _route(self, prefix: Prefix, paths: tuple[PathView, ...]) -> RouteView:
        reached = self._pipeline.forwarder.reached.get(prefix)
        return RouteView(
            prefix=str(prefix),
            kind=reached.how.value if reached is not None else "unused",
            node=reached.node if reached is not None else "",
            reason=reached.reason if reached is not None else "no path of it is usable",
            via=tuple(leg.via for leg in reached.legs) if reached is not None else (),
            since=clock.wall_or_none(reached.since) if reached is not None else None,
            status=self._programmed(prefix, reached),
            paths=tuple(_wall_path(path) for path in paths),
        )

    def _programmed(self, prefix: Prefix, reached: Reached | None) -> str:
        """Say whether the kernel holds what is desired: the route, its group, and the group's legs."""
        key = self._pipeline.forwarder.fib.key(prefix)
        if self._kernel.table.get(key) is None:
            held = self._kernel.target.actual.get(key) is not None
            return "kept" if held and reached is not None and reached.how is How.WAITING else "none"
        status, reason = self._fib.status(key)
        return f"failed: {reason}" if reason else status.value

    # -------------------------------------------------------------- nodes

    def nodes(self) -> Iterator[NodeView]:
        facts, ways = self._state.facts, self._pipeline.forwarder.ways
        worst = ways.worst()
        yield self._node(facts.own_node(), "", {})
        for name in sorted(facts.nodes.keys() - {facts.me.name}):
            node = facts.nodes.get(name)
            if node is not None:  # not gone while the list was sent
                way = worst.get(name)
                yield self._node(node, way.value if way is not None else "", ways.of(name))

    def _node(self, node: Node, path: str, paths: Mapping[How, int]) -> NodeView:
        """Show a node by the first of its blocks that goes the worst way. O(its blocks)."""
        facts = self._state.facts
        held = (*facts.blocks_of.get(node.name, ()), *facts.borrowed_of.get(node.name, ()))
        ways = (self._pipeline.forwarder.reached.get(block) for block in held)
        found = next((one for one in ways if one is not None and one.how == path), None)
        return NodeView(
            name=node.name,
            asn=node.asn,
            address=str(node.ipv4_address or node.ipv6_address or ""),
            own=node.name == facts.me.name,
            alive=node.name in facts.alive or node.name == facts.me.name,
            path=path,
            paths={how.value: count for how, count in paths.items()},
            via=tuple(leg.via for leg in found.legs) if found is not None else (),
            reason=found.reason if found is not None else "",
            since=clock.wall_or_none(found.since) if found is not None else None,
        )

    # -------------------------------------------------------------- kernel

    async def fib(self, query: FibQuery) -> FibPage:
        return await self._fib.page(query)

    async def fib_diff(self, limit: int) -> FibPage:
        try:
            return await self._fib.diff(limit)
        except OSError as error:
            raise Refused(f"the kernel cannot be read now: {error.strerror or error}; ask again") from error

    # -------------------------------------------------------------- explain

    def explain(self, query: str, node: str | None = None) -> ExplainView:
        facts = self._state.facts
        there = node if node != facts.me.name else None
        explainer = self._explainer
        found = explainer.query(query) if there is None else explain_from(facts, explainer, query, there)
        steps = [StepView(step.name, step.outcome, step.detail) for step in found.steps]
        if there is None:
            steps.append(self._in_kernel(found))
        changes = tuple(f"{_clock_text(clock.wall(at))} {text}" for at, text in found.changes)
        return ExplainView(
            query=query,
            prefix=str(found.prefix) if found.prefix is not None else None,
            answer=found.answer,
            steps=tuple(steps),
            changes=changes,
            packet=_packet(found.packet) if there is None else None,
        )

    def _in_kernel(self, found: Explanation) -> StepView:
        """Say whether the kernel holds the route of ours that a packet takes, or that of what was asked for."""
        prefix = found.packet.prefix if found.packet.ours else found.prefix
        if prefix is None:
            return StepView("kernel", "nothing of ours is to be there")
        status = self._programmed(prefix, self._pipeline.forwarder.reached.get(prefix))
        if status == "none":
            return StepView("kernel", f"no route of ours to {prefix}, and none is to be there")
        row = self._fib.row(self._pipeline.forwarder.fib.key(prefix))
        details = [f"{prefix}: {row.actual}" if row.actual else f"{prefix} is not there"]
        if row.nexthop_id is not None:
            details.append(f"nexthop group id {row.nexthop_id}")
        if row.retry_at is not None:
            details.append(f"tried again at {_clock_text(row.retry_at)}")
        return StepView("kernel", status, tuple(details))

    # -------------------------------------------------------------- ipam

    def pools(self, blocks: str = "all") -> list[PoolView]:
        """Return every pool. O(blocks) with all of them, O(own blocks) with those of this node."""
        facts = self._state.facts
        if blocks not in {"all", "own"}:
            raise ValueError(f"blocks is all or own, not {blocks!r}")
        shown = sorted(facts.blocks if blocks == "all" else facts.blocks_of.get(facts.me.name, ()))
        views = []
        for pool in sorted(facts.pools.values(), key=lambda pool: pool.cidr):
            use = facts.usage.of.get(pool.name, Use())
            views.append(
                PoolView(
                    name=pool.name,
                    cidr=str(pool.cidr),
                    block_size=pool.block_size,
                    mode=pool.vxlan_mode.value,
                    fallback=preference_text(facts.fallback_of(pool)),
                    size=pool.cidr.size,
                    in_use=use.in_use,
                    free=pool.cidr.size - use.in_use,
                    blocks=tuple(self._block(cidr) for cidr in shown if pool.cidr.covers(cidr)),
                    blocks_count=use.blocks,
                )
            )
        return views

    def _block(self, cidr: Prefix) -> BlockView:
        facts = self._state.facts
        block = facts.blocks[cidr]
        affinity = facts.affinities.get((cidr, block.node)) if block.node is not None else None
        return BlockView(
            cidr=str(cidr),
            node=block.node or "",
            affinity=affinity.state.value if affinity is not None else "none",
            size=cidr.size,
            in_use=block.in_use,
        )

    def recording(self, what: str) -> Iterator[bytes]:
        now = clock.monotonic()
        match what:
            case "state":
                found = [Recorded(now, event) for event in snapshot(self._pipeline)]
            case "last":
                found = list(self._last)
            case _:
                raise ValueError(f"what is state or last, not {what!r}")
        return (encode(one) + b"\n" for one in found)

    async def assign(self, asked: AssignRequest) -> AssignView:
        return await self._assign(asked)


def _packet(packet: Packet) -> PacketView:
    return PacketView(
        fate=packet.fate.value,
        prefix=None if packet.prefix is None else str(packet.prefix),
        via=tuple(leg.via for leg in packet.legs),
        ours=packet.ours,
    )


def _wall_path(path: PathView) -> PathView:
    return msgspec.structs.replace(path, since=clock.wall_or_none(path.since))


def _clock_text(at: float) -> str:
    """Write an instant as ISO 8601 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03}Z"


def _refuse(reason: str) -> None:
    if reason:
        raise Refused(reason)
