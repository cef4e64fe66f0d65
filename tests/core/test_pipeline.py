"""The pipeline as a whole: facts in, tables out; laws 2, 3, 5 and 8."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Phase, Pipeline
from bgpd.model import event as ev
from bgpd.model.bfd import BfdStatus
from bgpd.model.drain import Stage
from bgpd.model.forwarding import (
    TUNNEL_DEVICES,
    VXLAN_DEVICE,
    DeviceKey,
    Fdb,
    FdbKey,
    Group,
    KernelRoute,
    Leg,
    Neighbour,
    NeighbourKey,
    RouteKey,
    RouteKind,
)
from bgpd.model.peer import Notification
from bgpd.model.pool import Affinity, AffinityState, Block, Fallback, Mode
from bgpd.model.prefix import Family, Prefix
from bgpd.model.route import Announcement
from tests.core import world as w

pytestmark = pytest.mark.core

NATIVE = (Leg("eth1", w.TOR1), Leg("eth2", w.TOR2))
TUNNEL = (Leg(VXLAN_DEVICE, w.A("10.0.0.2"), onlink=True),)
CEASE = Notification(6, 2, sent=False, text="maintenance")


def legs(pipeline: Pipeline, block: Prefix) -> tuple[Leg, ...]:
    """Follow a route to its legs."""
    route = pipeline.tables.kernel.get(RouteKey(block))
    if not isinstance(route, KernelRoute) or route.group is None:
        return ()
    group = pipeline.tables.kernel.get(route.group)
    assert isinstance(group, Group)
    assert all(leg in pipeline.tables.kernel for leg in group.legs)
    return group.legs


def how(pipeline: Pipeline, block: Prefix) -> How:
    return pipeline.forwarder.reached[block].how


def down(*tors: int) -> list[ev.Event]:
    return [ev.PeerDown((w.TOR1, w.TOR2)[tor - 1], "peer shut down", CEASE) for tor in tors]


def test_remote_blocks_go_over_both_uplinks() -> None:
    """A block announced by both routers gets one route to a group of both legs."""
    pipeline = w.running()

    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert How.NATIVE == how(pipeline, w.BLOCK2)


def test_own_block_is_a_blackhole_and_announced_to_every_peer() -> None:
    """Own confirmed blocks are dropped where no workload is, and announced; nothing else is (law 8)."""
    pipeline = w.running()

    assert KernelRoute(RouteKind.BLACKHOLE) == pipeline.tables.kernel.get(RouteKey(w.OWN_BLOCK))
    expected = {(w.TOR1, w.OWN_BLOCK): Announcement(), (w.TOR2, w.OWN_BLOCK): Announcement()}
    assert expected == pipeline.tables.adj_rib_out.snapshot()


def test_pending_affinity_is_not_announced() -> None:
    """A block whose affinity is pending belongs to nobody yet (calico.md 2.5)."""
    pipeline = w.running()
    pending = Affinity(cidr=w.OWN_BLOCK, node="node1", state=AffinityState.PENDING)

    w.feed(pipeline, [ev.AffinityChanged(pending)])

    assert {} == pipeline.tables.adj_rib_out.snapshot()
    assert RouteKey(w.OWN_BLOCK) not in pipeline.tables.kernel


def test_tunnel_entries_stand_before_they_are_needed() -> None:
    """Device, neighbour, FDB entry and leg of every remote node exist while traffic is native (make before break)."""
    kernel = w.running().tables.kernel

    assert 1450 == kernel.get(DeviceKey(VXLAN_DEVICE)).mtu_bytes  # type: ignore[union-attr]
    assert Neighbour("66:00:00:00:00:02") == kernel.get(NeighbourKey(VXLAN_DEVICE, w.A("10.0.0.2")))
    assert Fdb(w.A("10.0.0.2")) == kernel.get(FdbKey(VXLAN_DEVICE, "66:00:00:00:00:02"))
    assert TUNNEL[0] in kernel


def test_one_lost_router_shrinks_ecmp() -> None:
    """Losing one of two routers is an ECMP change, no fallback."""
    pipeline = w.feed(w.running(), down(1))

    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)
    assert How.NATIVE == how(pipeline, w.BLOCK2)


def test_lost_uplink_shrinks_ecmp_at_once() -> None:
    """Carrier loss takes the leg away though the session still stands."""
    pipeline = w.feed(w.running(), [ev.LinkChanged(name="eth1", index=1, up=False, mtu_bytes=1500)])

    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)


def test_all_native_paths_lost_falls_back_by_changing_the_group_only() -> None:
    """The fallback is a change of one key a node: its group. The route stays as it is."""
    pipeline = w.running()
    pipeline.tables.kernel.take()

    w.feed(pipeline, down(1, 2))

    assert TUNNEL == legs(pipeline, w.BLOCK2)
    changed = pipeline.tables.kernel.take()
    assert [] == [key for key in changed if isinstance(key, RouteKey)]


def test_return_to_native_waits_for_the_quiet_time() -> None:
    """A native path that is back carries traffic only after restore_after_s, by deadline."""
    pipeline = w.feed(w.running(), down(1, 2), now=100.0)
    w.feed(pipeline, w.bgp(), now=101.0)

    assert TUNNEL == legs(pipeline, w.BLOCK2)
    assert 111.0 == pipeline.deadline()
    w.feed(pipeline, [ev.Tick()], now=110.9)
    assert TUNNEL == legs(pipeline, w.BLOCK2)
    w.feed(pipeline, [ev.Tick()], now=111.0)
    assert NATIVE == legs(pipeline, w.BLOCK2)


def test_flapping_path_waits_twice_as_long() -> None:
    """A path lost again soon after its return has its quiet time doubled."""
    pipeline = w.feed(w.running(), down(1, 2), now=100.0)
    w.feed(pipeline, [*w.bgp()], now=101.0)
    w.feed(pipeline, [ev.Tick()], now=111.0)
    w.feed(pipeline, down(1, 2), now=112.0)
    w.feed(pipeline, w.bgp(), now=113.0)

    w.feed(pipeline, [ev.Tick()], now=132.9)
    assert TUNNEL == legs(pipeline, w.BLOCK2)
    w.feed(pipeline, [ev.Tick()], now=133.0)
    assert NATIVE == legs(pipeline, w.BLOCK2)


def test_dead_owner_is_unreachable_not_leaked_to_the_default_route() -> None:
    """Without native path and without the owner's lease the block is unreachable."""
    pipeline = w.feed(w.running(), [*down(1, 2), ev.NodeDead("node2")])

    assert KernelRoute(RouteKind.UNREACHABLE) == pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    assert TUNNEL[0].device == legs(pipeline, w.BLOCK3)[0].device


def test_pool_without_fallback_is_unreachable() -> None:
    """bgpd.io/fallback None on the pool keeps its blocks out of the tunnel."""
    pool = ev.PoolChanged(w.POOL.__class__(name="default", cidr=w.POOL.cidr, fallback=()))
    pipeline = w.feed(w.running(), [pool, *down(1, 2)])

    assert KernelRoute(RouteKind.UNREACHABLE) == pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    w.feed(pipeline, [ev.Tick()], now=100.0)  # others may have sent by it until then
    assert DeviceKey(VXLAN_DEVICE) not in pipeline.tables.kernel


def test_mode_always_uses_the_tunnel_though_bgp_has_a_path() -> None:
    """vxlanMode Always sends through the tunnel."""
    pool = ev.PoolChanged(w.POOL.__class__(name="default", cidr=w.POOL.cidr, vxlan_mode=Mode.ALWAYS))
    pipeline = w.feed(w.running(), [pool])

    assert TUNNEL == legs(pipeline, w.BLOCK2)
    assert How.TUNNEL == how(pipeline, w.BLOCK2)


def test_tunnel_needs_an_address_reachable_outside_of_tunnels() -> None:
    """With the underlay route gone the fallback is not chosen, and the reason says so."""
    gone = ev.ForeignRouteRemoved(prefix=w.P("10.0.0.0/24"), metric=0)
    pipeline = w.feed(w.running(), [gone, *down(1, 2)])

    assert How.UNREACHABLE == how(pipeline, w.BLOCK2)
    assert "10.0.0.2 is not reachable" in pipeline.forwarder.reached[w.BLOCK2].reason


def test_aggregate_of_a_router_counts_as_native_path() -> None:
    """A covering prefix from BGP is a usable path for the blocks below it."""
    pipeline = w.feed(w.running(), [ev.RoutesLearned(peer=tor, withdrawn=(w.BLOCK2,)) for tor in (w.TOR1, w.TOR2)])
    w.feed(pipeline, [w.learned(w.TOR1, w.P("10.65.0.0/16"))])

    w.feed(pipeline, [ev.Tick()], now=1000.0)

    assert NATIVE[:1] == legs(pipeline, w.BLOCK2)


def test_prefix_outside_the_store_is_never_tunnelled() -> None:
    """A prefix known from BGP alone goes when BGP loses it."""
    other = w.P("192.0.2.0/24")
    pipeline = w.feed(w.running(), [w.learned(w.TOR1, other)])
    assert NATIVE[:1] == legs(pipeline, other)

    w.feed(pipeline, down(1))

    assert RouteKey(other) not in pipeline.tables.kernel


def test_nothing_is_concluded_from_a_store_that_was_not_read() -> None:
    """Before the first reading of the store a learned prefix may be a node's block: no route is wanted, and then it is that node's."""
    other = w.P("192.0.2.0/24")
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.bgp(), w.learned(w.TOR1, other)])
    assert [] == [key for key, _ in pipeline.tables.kernel.items() if isinstance(key, RouteKey)]
    assert How.WAITING == how(pipeline, w.BLOCK2)

    w.feed(pipeline, [*w.store(), ev.StoreSynced()])

    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert "node2" == pipeline.forwarder.reached[w.BLOCK2].node
    assert NATIVE[:1] == legs(pipeline, other)


def test_default_route_of_another_wins_over_a_default_from_bgp() -> None:
    """A prefix that the kernel has from DHCP, by hand or as connected is not taken over (law 4), and is ours once that is gone."""
    default = w.P("0.0.0.0/0")
    foreign = ev.ForeignRouteChanged(prefix=default, metric=100, hops=(("eth1", w.TOR1),))
    pipeline = w.feed(w.running(), [foreign, w.learned(w.TOR2, default)])
    assert RouteKey(default) not in pipeline.tables.kernel
    assert How.FOREIGN == how(pipeline, default)

    w.feed(pipeline, [ev.ForeignRouteRemoved(prefix=default, metric=100)])
    assert NATIVE[1:] == legs(pipeline, default)

    w.feed(pipeline, [foreign])
    assert RouteKey(default) not in pipeline.tables.kernel


def test_graceful_restart_keeps_routes_until_its_time_is_over() -> None:
    """A session lost without NOTIFICATION keeps its routes for the restart time (RFC 4724 section 4.2)."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp()])
    w.feed(pipeline, w.session(1, w.learned(w.TOR1, w.BLOCK2), restart_s=120) + w.session(2))
    w.feed(pipeline, [ev.PeerDown(w.TOR1, "connection lost")], now=10.0)

    assert NATIVE[:1] == legs(pipeline, w.BLOCK2)
    assert 130.0 == pipeline.deadline()
    w.feed(pipeline, [ev.Tick()], now=130.0)
    assert TUNNEL == legs(pipeline, w.BLOCK2)


def test_end_of_rib_sweeps_what_was_not_sent_again() -> None:
    """After a restart, stale routes go at End-of-RIB and the others were never touched."""
    pipeline = w.running()
    pipeline.tables.kernel.take()
    w.feed(pipeline, [ev.SpeakerLost("killed"), ev.SpeakerUp()])
    w.feed(pipeline, w.session(2, w.learned(w.TOR2, w.BLOCK2), w.learned(w.TOR2, w.BLOCK3, last=65003)))
    w.feed(pipeline, [ev.PeerUp(w.TOR1, w.opened(1)), w.learned(w.TOR1, w.BLOCK3, last=65003)])
    assert [] == pipeline.tables.kernel.take()

    w.feed(pipeline, [ev.EndOfRib(w.TOR1, Family.IPV4)])

    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)
    assert NATIVE == legs(pipeline, w.BLOCK3)


def test_losing_the_store_freezes_what_was_decided() -> None:
    """A lost store changes no table (law 5)."""
    pipeline = w.running()
    before = w.tables(pipeline)

    w.feed(pipeline, [ev.StoreLost("disk I/O error")])

    assert before == w.tables(pipeline)


def test_phases_wait_for_store_then_peers_then_programming() -> None:
    """Start-up goes forward by what has happened, and says what it waits for (law 3)."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel()])
    assert (Phase.STORE, ("store",)) == (pipeline.phase, pipeline.waiting_for())
    w.feed(pipeline, [*w.store(), ev.StoreSynced()])
    assert (Phase.PEERS, ("tor1", "tor2")) == (pipeline.phase, pipeline.waiting_for())
    w.feed(pipeline, w.session(1, w.learned(w.TOR1, w.BLOCK2)))
    assert (Phase.PEERS, ("tor2",)) == (pipeline.phase, pipeline.waiting_for())
    assert not pipeline.may_remove
    assert How.WAITING == how(pipeline, w.BLOCK3)
    w.feed(pipeline, w.session(2))
    assert Phase.PROGRAMMING == pipeline.phase
    assert pipeline.may_remove
    w.feed(pipeline, [ev.Converged("kernel", pipeline.epoch)])
    assert Phase.READY == pipeline.phase


def test_ceiling_ends_the_wait_for_silent_peers() -> None:
    """A peer that never comes up holds the decision up no longer than the ceiling."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.store(), ev.StoreSynced(), *w.session(1)])

    assert 60.0 == pipeline.deadline()
    w.feed(pipeline, [ev.Tick()], now=60.0)

    assert Phase.PROGRAMMING == pipeline.phase
    assert TUNNEL == legs(pipeline, w.BLOCK2)


def test_claims_a_block_where_it_has_none() -> None:
    """A pool that nodes draw from is claimed from until a block of it is ours."""
    events: list[ev.Event] = [w.CONFIGURED, *w.kernel(), ev.PoolChanged(w.POOL)]
    pipeline = w.feed(Pipeline(), events)
    assert 0 == len(pipeline.tables.claims)
    w.feed(pipeline, [ev.StoreSynced()])
    assert ["default"] == [name for name, _ in pipeline.tables.claims.items()]

    w.feed(pipeline, w.owned(w.OWN_BLOCK, "node1"))

    assert 0 == len(pipeline.tables.claims)


def test_block_moves_to_its_new_owner() -> None:
    """A block that changes hands is routed to its new owner, and its old one's group goes."""
    pipeline = w.running()
    moved = [
        ev.AffinityRemoved(w.BLOCK2, "node2"),
        ev.BlockChanged(Block(cidr=w.BLOCK2, node="node3")),
        ev.AffinityChanged(Affinity(cidr=w.BLOCK2, node="node3", state=AffinityState.CONFIRMED)),
    ]

    w.feed(pipeline, moved)

    assert "node3" == pipeline.forwarder.reached[w.BLOCK2].node
    assert NATIVE == legs(pipeline, w.BLOCK2)


def test_a_route_with_our_own_as_is_ineligible() -> None:
    """Our AS in the path is a loop (RFC 4271 section 9.1.2), and the reason is kept."""
    prefix = w.P("192.0.2.0/24")
    pipeline = w.feed(w.running(), [w.learned(w.TOR1, prefix, last=65001)])

    assert RouteKey(prefix) not in pipeline.tables.kernel
    ((_, reason),) = pipeline.state.ineligible[prefix]
    assert "our AS 65001 is in the AS path" == reason


def second_session(data: st.DataObject) -> list[ev.Event]:
    """The second peer: refused at first, or not; up; and perhaps restarted, asked for a refresh, or crashed."""
    second = w.session(2, w.learned(w.TOR2, w.BLOCK2), w.learned(w.TOR2, w.P("192.0.2.0/24")), restart_s=120)
    restarts: list[ev.Event] = [ev.PeerDown(w.TOR2, "connection lost"), *second]
    refreshes: list[ev.Event] = [ev.RefreshBegun(w.TOR2, Family.IPV4), *second[1:]]
    refusal = ev.PeerDown(w.TOR2, "connection refused", unreachable=True)
    crash: list[ev.Event] = [ev.PeerDown(w.TOR2, "connection lost"), refusal]
    before: list[ev.Event] = [refusal] if data.draw(st.booleans()) else []
    return [*before, *second, *data.draw(st.sampled_from([[], restarts, refreshes, crash]))]


def apart(lanes: list[list[ev.Event]], beside: ev.ForeignRouteChanged, *, gone: bool) -> list[list[ev.Event]]:
    """Tell the same where ours are in a table of their own: others' routes take no places, but for one beside ours, which may go."""
    foreign = (ev.ForeignRouteChanged, ev.ForeignRouteRemoved)
    told = [[replace(one, beside=False) if isinstance(one, foreign) else one for one in lane] for lane in lanes]
    removed = ev.ForeignRouteRemoved(prefix=beside.prefix, metric=beside.metric, resolves=False)
    return [*told, [beside, removed] if gone else [beside]]


@pytest.mark.parametrize("before", w.OTHERWISE, ids=["mesh", "fallback", "peers"])
@pytest.mark.parametrize("handled", [0, 20, None])
def test_a_file_loaded_again_gives_the_tables_of_a_fresh_start(before: ev.Configured, handled: int | None) -> None:
    """A reload, whenever it comes, ends where a start with that file ends: mesh, peers, prefixes and options."""
    after = [*w.kernel(), *w.store(), ev.StoreSynced(), *w.bgp()]
    events = [before, *after[:handled], w.WATCHED, *(after[handled:] if handled is not None else [])]

    assert w.tables(w.feed(Pipeline(), [w.WATCHED, *after])) == w.tables(w.feed(Pipeline(), events))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_order_of_the_same_facts_gives_the_same_tables(data: st.DataObject) -> None:
    """Law 2: facts shuffled (keeping a session's own order) and settled with any budget end in the tables of a fresh core."""
    lanes: list[list[ev.Event]] = [[w.WATCHED]]
    lanes += [[event] for event in (*w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp())]
    lanes.append(w.session(1, w.learned(w.TOR1, w.BLOCK2), w.learned(w.TOR1, w.BLOCK3, last=65003)))
    lanes.append(second_session(data))
    lanes.append([ev.PeerDown(w.A("198.51.100.7"), "connection refused", unreachable=True)])
    lanes.append([ev.BfdChanged(w.TOR1, BfdStatus(diagnostic="silence", failed=True)), ev.BfdChanged(w.TOR1, None)])
    lanes.append([ev.BfdChanged(w.TOR2, BfdStatus(diagnostic="silence", failed=True))])
    lending = Block(cidr=w.P("10.65.9.0/26"), node="node3", borrowed=((w.A("10.65.9.1"), "node1"),))
    lent = Block(cidr=lending.cidr, node=None, borrowed=((w.A("10.65.9.1"), "node2"), (w.A("10.65.9.2"), "node1")))
    lanes.append([ev.BlockChanged(lending), ev.BlockChanged(lent)])
    elsewhere = w.P("192.0.2.0/24")
    theirs = ev.ForeignRouteChanged(prefix=elsewhere, metric=5, hops=(("eth1", w.TOR1),))
    lanes.append([theirs, ev.ForeignRouteRemoved(prefix=elsewhere, metric=5)] if data.draw(st.booleans()) else [theirs])
    ours = ("eth1", w.A("10.1.11.1"), w.P("10.1.11.0/31"))
    moved = ("eth2", w.TOR1, w.P("10.1.11.0/31"))
    lanes += [[ev.AddressAdded(*ours)], [ev.AddressAdded(*moved), ev.AddressRemoved(*moved)]]
    again = [ev.NodeChanged(w.node(number)) for number in (1, 2, 3)]  # what begins lanes of the resources
    lanes = [lane for lane in lanes if lane[0] not in again] + w.resources()
    detour: list[ev.Event] = [
        ev.LinkChanged(name="eth1", index=1, up=False, mtu_bytes=1500),
        ev.LinkChanged(name="eth1", index=1, up=True, mtu_bytes=1500),
    ]
    lanes = [lane for lane in lanes if lane[0] != detour[1]] + [detour]
    both = replace(w.POOL, fallback=(Fallback.IPIP, Fallback.VXLAN))
    tunnels = data.draw(st.sets(st.sampled_from(TUNNEL_DEVICES)))
    lanes += [[ev.LinkChanged(name=name, index=9, up=True, mtu_bytes=1480)] for name in sorted(tunnels)]
    lanes = [[*lane, ev.PoolChanged(both)] if lane == [ev.PoolChanged(w.POOL)] else lane for lane in lanes]
    drained = [ev.DrainChanged(data.draw(st.sampled_from(Stage)), keep_blocks=data.draw(st.booleans()))]
    lanes = [[*lane, *drained] if isinstance(lane[0], ev.DrainChanged) else lane for lane in lanes]
    if data.draw(st.booleans()):
        lanes = apart(lanes, replace(theirs, resolves=False), gone=data.draw(st.booleans()))
    configured, rest = lanes[0], lanes[1:]
    order = data.draw(st.permutations([i for i, lane in enumerate(rest) for _ in lane]))
    cursors = [iter(lane) for lane in rest]
    # What the node's file said before it was loaded again.
    events = [data.draw(st.sampled_from([w.WATCHED, *w.OTHERWISE])), *(next(cursors[i]) for i in order)]
    budget = data.draw(st.integers(1, 50))

    shuffled = Pipeline()
    for event in events:
        shuffled.handle(event, 0.0)
        if data.draw(st.booleans()):
            shuffled.settle(budget)
    while shuffled.settle(budget):
        pass
    w.feed(shuffled, [ev.Tick()], now=10_000.0)
    fresh = Pipeline()
    for event in configured + [event for lane in rest for event in lane]:
        fresh.handle(event, 0.0)
    while fresh.settle(1000):
        pass
    w.feed(fresh, [ev.Tick()], now=10_000.0)

    assert w.tables(fresh) == w.tables(shuffled)
