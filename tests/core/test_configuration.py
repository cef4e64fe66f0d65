"""BGPConfiguration's settings of a node as a whole act at once: binding, ignored links, log level, ranges of services."""

from __future__ import annotations

from typing import Any

import pytest

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bgp import BgpConfiguration, BgpPeer
from bgpd.model.prefix import Prefix
from tests.core import world as w

pytestmark = pytest.mark.core

RANGE, ONE = w.P("203.0.113.0/24"), w.P("203.0.114.7/32")


def started(*more: ev.Event) -> Pipeline:
    links = [ev.AddressAdded("eth1", w.A("10.1.11.1"), w.P("10.1.11.0/31"))]
    return w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *links, *w.store(), *more, ev.StoreSynced(), *w.bgp()])


def said(name: str = "default", **settings: Any) -> ev.BgpConfigurationChanged:
    return ev.BgpConfigurationChanged(BgpConfiguration(name=name, mesh=False, **settings))


def announced(pipeline: Pipeline) -> set[Prefix]:
    return {prefix for peer, prefix in dict(pipeline.tables.adj_rib_out.items()) if peer == w.TOR2}


def test_node_ip_binding_hides_sessions_from_other_addresses() -> None:
    """bindMode NodeIP: a session from an address that is not the node's accepts no connection; one from the node's does."""
    on_link, far = w.A("10.1.11.3"), w.A("198.51.100.7")
    by_link = ev.BgpPeerChanged(BgpPeer(name="link", address=on_link, asn=65777, use_node_ip=False))
    by_node = ev.BgpPeerChanged(BgpPeer(name="far", address=far, asn=65778))
    beside = ev.AddressAdded("eth3", w.A("10.1.11.2"), w.P("10.1.11.2/31"))
    pipeline = started(beside, by_link, by_node, said(node_ip_only=True))

    def ports() -> list[int | None]:
        return [peer.listen_port if peer else None for peer in map(pipeline.tables.neighbors.get, (on_link, far))]

    assert [0, 179] == ports()
    w.feed(pipeline, [said()])
    assert [179, 179] == ports()


def test_connected_routes_of_ignored_links_resolve_no_next_hop() -> None:
    """ignoredInterfaces: a path over such a link is unusable, with the reason, until the link is named no longer."""
    pipeline = started()
    before = {one.path.peer for one in pipeline.state.selection(w.BLOCK2).chosen}
    assert w.TOR1 in before

    w.feed(pipeline, [said(name="node.node1", ignored_interfaces=("eth1", "docker*"))])
    assert {w.TOR2} == {one.path.peer for one in pipeline.state.selection(w.BLOCK2).chosen}
    assert "ignoredInterfaces" in pipeline.state.resolver.resolve(w.TOR1).reason

    w.feed(pipeline, [said(name="node.node1", ignored_interfaces=("eth11", "*1x"))])
    assert before == {one.path.peer for one in pipeline.state.selection(w.BLOCK2).chosen}


def test_log_level_is_asked_for_at_once() -> None:
    """logSeverityScreen: the node's own over the cluster's, told when it changes, and given back when nobody says one."""
    pipeline = started()
    pipeline.take_notices()

    def told() -> list[object]:
        return [one.fields["level"] for one in pipeline.take_notices() if one.name == "log.level_changed"]

    w.feed(pipeline, [said(log_level="warning")])
    assert ["warning"] == told()
    w.feed(pipeline, [said(name="node.node1", log_level="debug"), said(name="node.other", log_level="error")])
    assert ["debug"] == told()
    w.feed(pipeline, [ev.BgpConfigurationRemoved("node.node1"), ev.BgpConfigurationRemoved("default")])
    assert ["warning", "auto"] == told()


def test_load_balancer_ranges_are_whole_or_not_announced() -> None:
    """serviceLoadBalancerAggregation Disabled: a range of addresses is withdrawn, one of a single address and other kinds stay."""
    external = w.P("203.0.115.0/24")
    pipeline = started(said(load_balancer=(RANGE, ONE), external=(external,)))
    assert {RANGE, ONE, external} <= announced(pipeline)

    w.feed(pipeline, [said(load_balancer=(RANGE, ONE), external=(external,), aggregate=False)])
    assert {ONE, external} == announced(pipeline) & {RANGE, ONE, external}
    w.feed(pipeline, [said(load_balancer=(RANGE, ONE), external=(external,), aggregate=True)])
    assert {RANGE, ONE, external} <= announced(pipeline)
