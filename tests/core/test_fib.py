"""How the core writes routes: table, metric, source and MTU, as configured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import KernelRoute, RouteKey, RouteKind, RouteSettings, RuleKey
from bgpd.model.prefix import Family
from tests.core import world as w

pytestmark = pytest.mark.core


def test_routes_are_written_as_configured() -> None:
    """Every route is in the table and at the metric of the options; unicast ones have the source and the MTU, others neither."""
    routes = RouteSettings(table=1000, metric=32, source_ipv4=w.A("10.0.0.1"), mtu_bytes=1400)
    configured = replace(w.CONFIGURED, options=replace(w.OPTIONS, routes=routes))
    pipeline = w.feed(Pipeline(), [configured, *w.kernel(), *w.store(), ev.StoreSynced(), *w.bgp()])

    written = {key: value for key, value in pipeline.tables.kernel.items() if isinstance(key, RouteKey)}

    assert {(1000, 32)} == {(key.table, key.metric) for key in written}
    assert KernelRoute(RouteKind.BLACKHOLE) == written[RouteKey(w.OWN_BLOCK, 1000, 32)]
    native = written[RouteKey(w.BLOCK2, 1000, 32)]
    assert isinstance(native, KernelRoute)
    assert (w.A("10.0.0.1"), 1400) == (native.source, native.mtu_bytes)


def test_rules_lead_to_a_table_of_our_own() -> None:
    """With a priority there is a rule of each family to the table, whatever else is known; without, none."""
    held: dict[int, set[RuleKey]] = {}
    for priority in (0, 900):
        options = replace(w.OPTIONS, routes=RouteSettings(table=1000, rule_priority=priority))
        pipeline = w.feed(Pipeline(), [replace(w.CONFIGURED, options=options)])
        held[priority] = {key for key, _ in pipeline.tables.kernel.items() if isinstance(key, RuleKey)}

    assert {0: set(), 900: {RuleKey(family, 900, 1000) for family in Family}} == held


def test_a_table_of_our_own_gives_way_to_what_others_have_in_it() -> None:
    """What BGP alone knows is written beside another's route of the main table, and not where the table of ours has another's."""
    prefix = w.P("192.0.2.0/24")
    options = replace(w.OPTIONS, routes=RouteSettings(table=1000))
    main = [replace(one, beside=False) if isinstance(one, ev.ForeignRouteChanged) else one for one in w.kernel()]
    theirs = ev.ForeignRouteChanged(prefix=prefix, metric=0, hops=(("eth1", w.TOR1),), beside=False)
    there = replace(theirs, resolves=False, beside=True)
    pipeline = w.feed(Pipeline(), [replace(w.CONFIGURED, options=options), *main, *w.store(), ev.StoreSynced()])

    w.feed(pipeline, [theirs, *w.session(1, w.learned(w.TOR1, prefix))])
    assert RouteKey(prefix, 1000) in pipeline.tables.kernel

    w.feed(pipeline, [there])
    assert RouteKey(prefix, 1000) not in pipeline.tables.kernel

    w.feed(pipeline, [ev.ForeignRouteRemoved(prefix=prefix, metric=0, resolves=False)])
    assert RouteKey(prefix, 1000) in pipeline.tables.kernel


def test_the_kernels_default_metric_is_no_metric() -> None:
    """A metric that the kernel gives anyway is the same key as none, so that a restart finds its routes."""
    settings = RouteSettings(metric=1024)

    assert RouteKey(w.P("fd65::/64")) == settings.key(w.P("fd65::/64"))
    assert RouteKey(w.BLOCK2, metric=1024) == settings.key(w.BLOCK2)
