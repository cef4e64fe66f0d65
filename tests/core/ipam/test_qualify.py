"""Which pools serve, and why the others do not."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.ipam.qualify import Qualified, Wanted, draws_from, no_pool, qualify, selects
from bgpd.model.pool import Mode, Pool, Use
from bgpd.model.prefix import Family, Prefix

pytestmark = pytest.mark.core

POOL = Pool(name="p", cidr=Prefix.parse("10.0.0.0/16"))
RACK_A = {"rack": "a"}


def pool(**changes: object) -> Pool:
    return msgspec.structs.replace(POOL, **changes)


def wanted(**changes: object) -> Wanted:
    return Wanted(family=Family.IPV4, node_labels=RACK_A, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cidr": Prefix.parse("fd00::/64"), "block_size": 122}, "is ipv6"),
        ({"disabled": True}, "is disabled"),
        ({"unallocatable": "overlaps q"}, "is not allocatable: overlaps q"),
        ({"allowed_uses": (Use.TUNNEL, Use.LOAD_BALANCER)}, "allows Tunnel, LoadBalancer, not Workload"),
        ({"block_size": 12}, "is smaller than one of its blocks (/12)"),
        ({"automatic": False}, "has assignmentMode Manual and was not asked for"),
        ({"node_selector": "rack == 'b'"}, "does not select the node: rack == 'b'"),
        ({"namespace_selector": "team == 'x'"}, "selects namespaces (team == 'x'), and none is given"),
        ({"node_selector": "rack =="}, "has a selector that cannot be read: "),
    ],
)
def test_a_pool_that_does_not_serve_says_why(changes: dict[str, object], why: str) -> None:
    """Each condition that a pool does not meet is its reason, and all reasons make the refusal."""
    found = qualify([pool(**changes)], wanted())

    assert () == found.pools
    assert why in no_pool(wanted(), found)
    assert no_pool(wanted(), found).startswith("no ipv4 pool qualifies for Workload: pool p (")


def test_pools_serve_in_order_of_names() -> None:
    """Pools that select the node and the namespace serve, in order of their names."""
    pools = [
        pool(name="b", node_selector="rack == 'a'"),
        pool(name="a", namespace_selector="team == 'x'"),
        pool(name="c", namespace_selector="team == 'y'"),
    ]

    found = qualify(pools, wanted(namespace_labels={"team": "x"}))

    assert ["a", "b"] == [pool.name for pool in found.pools]
    assert ("pool c (10.0.0.0/16) does not select the namespace: team == 'y'",) == found.others


def test_a_pool_asked_for_serves_whatever_it_selects() -> None:
    """Pools asked for, by name or CIDR, serve in the order of asking, whatever their selectors; not disabled ones."""
    pools = [
        pool(name="a", node_selector="rack == 'b'", automatic=False),
        pool(name="b", cidr=Prefix.parse("10.1.0.0/16")),
        pool(name="c", disabled=True),
    ]

    found = qualify(pools, wanted(asked=("10.1.0.0/16", "a", "c", "d")))

    assert ["b", "a"] == [pool.name for pool in found.pools]
    assert ("pool c (10.0.0.0/16) is disabled", "there is no pool d") == found.others


def test_without_a_pool_there_is_none() -> None:
    """A cluster without pools says that there is none."""
    assert "no ipv4 pool qualifies for Workload: there is no pool" == no_pool(wanted(), Qualified((), ()))


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({}, True),
        ({"node_selector": "rack == 'a'"}, True),
        ({"node_selector": "rack == 'b'"}, False),
        ({"namespace_selector": "team == 'x'"}, False),
        ({"allowed_uses": (Use.TUNNEL,)}, False),
        ({"ipip_mode": Mode.ALWAYS}, True),
        ({"automatic": False}, False),
        ({"disabled": True}, False),
    ],
)
def test_a_node_draws_by_itself_from_what_serves_any_workload(changes: dict[str, object], drawn: bool) -> None:
    """A node takes a block beforehand of those pools that any workload of it may draw from."""
    assert drawn == draws_from(pool(**changes), RACK_A)


def test_a_broken_selector_selects_nobody() -> None:
    """A selector that cannot be read holds for no node."""
    assert (True, False, False) == (
        selects(POOL, {}),
        selects(pool(node_selector="has("), RACK_A),
        selects(pool(node_selector="!has(rack)"), RACK_A),
    )
