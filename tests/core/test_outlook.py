"""What nodes would do with other contents of the store: sessions, announcements, blocks and paths, by the pipeline itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from bgpd.core.outlook import NodePlan, compare, outlook
from bgpd.core.overlay.choose import How
from bgpd.model import event as ev
from bgpd.model.bgp import BgpConfiguration, BgpFilter, BgpPeer, FilterRule
from bgpd.model.node import Node
from bgpd.model.pool import Mode
from tests.core import world as w

pytestmark = pytest.mark.core

MESH = ev.BgpConfigurationChanged(BgpConfiguration(name="default"))
PEER = BgpPeer(name="tor", address=w.TOR1, asn=65101)


def cluster(*more: ev.Event, pool: ev.PoolChanged | None = None) -> list[ev.Event]:
    """Three nodes with a block each, in a mesh."""
    found = [one for one in w.store() if not isinstance(one, ev.PoolChanged)]
    return [pool or ev.PoolChanged(w.POOL), *found, MESH, *more]


def bare(number: int) -> ev.Configured:
    return ev.Configured(node=w.node(number), peers=())


def plan(before: Sequence[ev.Event], after: Sequence[ev.Event], node: Node | None = None) -> NodePlan:
    configured = ev.Configured(node=node or w.node(1), peers=())
    return compare(configured.node.name, outlook(configured, before), outlook(configured, after))


def test_outlook_of_a_mesh() -> None:
    """Every remote block goes natively by its node's session, and by the fallback where all sessions are down."""
    found = outlook(bare(1), cluster())

    assert {w.BLOCK2: How.NATIVE, w.BLOCK3: How.NATIVE} == {prefix: way.how for prefix, way in found.ways.items()}
    assert {How.FALLBACK} == {way.how for way in found.without_bgp.values()}
    assert [w.OWN_BLOCK] == list(found.told)


def test_a_change_without_effect_says_nothing() -> None:
    """The same contents in another order are no change."""
    assert not plan(cluster(), list(reversed(cluster())))


def test_pool_mode_moves_paths() -> None:
    """A pool in mode Always takes each remote block into the tunnel; each owner is told with the number of its blocks."""
    always = ev.PoolChanged(replace(w.POOL, vxlan_mode=Mode.ALWAYS))

    assert (
        "1 block of node2: native -> tunnel (pool mode Always)",
        "1 block of node3: native -> tunnel (pool mode Always)",
        "1 block of node2: fallback -> tunnel (pool mode Always), should BGP be lost",
        "1 block of node3: fallback -> tunnel (pool mode Always), should BGP be lost",
    ) == plan(cluster(), cluster(pool=always)).paths


def test_pool_without_fallback_is_told_before_it_hurts() -> None:
    """Forbidding the fallback changes nothing today, and what happens when BGP is lost is said."""
    none = ev.PoolChanged(replace(w.POOL, fallback=()))

    paths = plan(cluster(), cluster(pool=none)).paths

    assert 2 == len(paths)
    assert all("fallback -> unreachable" in line and line.endswith("should BGP be lost") for line in paths)


def test_an_import_filter_shows_as_paths_and_an_export_filter_as_withdrawals() -> None:
    """What a filter refuses is no native path; what it keeps in is withdrawn, by the rule that does it."""
    before = cluster(ev.BgpPeerChanged(PEER))
    refuse = BgpFilter(name="f", import_v4=(FilterRule(accept=False),), export_v4=(FilterRule(accept=False),))
    after = cluster(ev.BgpPeerChanged(replace(PEER, filters=("f",))), ev.BgpFilterChanged(refuse))

    found = plan(before, after)

    assert (f"{w.OWN_BLOCK} to tor: would be withdrawn (BGPFilter f exportV4[0])",) == found.announcements
    assert () == found.paths
    no_mesh = ev.BgpConfigurationChanged(BgpConfiguration(name="default", mesh=False))
    found = plan([*before, no_mesh], [*after, no_mesh])
    assert all("native -> fallback (BGPFilter f importV4[0]" in line for line in found.paths)


def test_sessions_are_added_reset_held_and_removed() -> None:
    """Each change of a session is told once, with what resets or holds it."""
    with_peer = cluster(ev.BgpPeerChanged(PEER))
    title = f"session with tor {w.TOR1}"

    assert (f"{title}: would be added",) == plan(cluster(), with_peer).sessions
    reset = cluster(ev.BgpPeerChanged(replace(PEER, hold_time_s=9)))
    assert (f"{title}: would be reset (hold time)",) == plan(with_peer, reset).sessions
    dangling = cluster(ev.BgpPeerChanged(replace(PEER, filters=("gone",))))
    assert (f"{title}: would be held (BGPFilter gone does not exist)",) == plan(with_peer, dangling).sessions
    assert (f"{title}: would be removed",) == plan(with_peer, cluster()).sessions


def test_a_pool_that_is_drawn_from_is_claimed_of() -> None:
    """A new pool has nodes claim a block of it."""
    other = ev.PoolChanged(replace(w.POOL, name="other", cidr=w.P("10.77.0.0/16")))

    assert ("would claim a block of pool other",) == plan(cluster(), cluster(other)).blocks
