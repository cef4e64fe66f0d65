"""Every kind of inconsistency is found, named and about the right thing; what is consistent is not."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.ipam.block import HandleRecord
from bgpd.core.ipam.census import Census, StoredAffinity, StoredBlock, StoredHandle, StoredNode
from bgpd.core.ipam.check import Kind, Verdict, check
from bgpd.core.ipam.report import Leak, agreed, report
from bgpd.core.ipam.tunnel import TunnelKind
from bgpd.model.pool import AffinityState
from bgpd.model.prefix import Address, Prefix
from tests.core.ipam.test_census import POOL, block, resting, stored

pytestmark = pytest.mark.core

CIDR = Prefix.parse("10.65.0.0/26")
A0, A1 = Address.parse("10.65.0.0"), Address.parse("10.65.0.1")
NODE = StoredNode(resource=True, alive=True)


def handle(name, **counts: int):
    return StoredHandle(HandleRecord(handle_id=name, block=counts), 7)


def clean(**changes: object):
    """A census in which all fits, with *changes*."""
    record = block("10.65.0.0/26", "a", "b")
    return msgspec.structs.replace(
        Census(
            revision=9,
            pools=(POOL,),
            blocks=(stored(record),),
            affinities=(StoredAffinity(CIDR, "host:n", AffinityState.CONFIRMED),),
            handles={name: StoredHandle(HandleRecord(handle_id=name, block={str(CIDR): 1}), 7) for name in "ab"},
            nodes={"n": NODE},
        ),
        **changes,
    )


def kinds(census):
    return [one.kind for one in check(census).problems]


def test_what_fits_has_no_problem():
    """Blocks, affinities and handles that agree are no problem, though nobody says what is in use; resting ones neither."""
    census = clean(blocks=(stored(resting(block("10.65.0.0/26", "a", "b"), 9)),))

    assert [] == kinds(census)
    assert [Verdict.UNKNOWN] * 2 == [one.verdict for one in check(census).allocations]


def traced(*prefixes: str):
    return {"n": msgspec.structs.replace(NODE, traces=tuple(Prefix.parse(text) for text in prefixes))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nodes": {}}, [(A0, "there is no node n"), (A1, "there is no node n")]),
        ({"nodes": {"n": StoredNode(alive=True)}}, []),
        ({"nodes": traced("10.65.0.0/32", "10.65.0.1/32")}, []),
        ({"nodes": traced("10.65.0.0/26")}, []),
        ({"nodes": traced("10.65.0.1/32")}, [(A0, "node n has no trace of it")]),
        (
            {"endpoints": {A0: "ns/pod"}, "endpoint_nodes": frozenset({"n"})},
            [(A1, "no WorkloadEndpoint of node n has it")],
        ),
        ({"endpoints": {A0: "ns/pod"}, "nodes": traced("10.65.0.1/32")}, []),
    ],
)
def test_unused_only_where_somebody_says_so(changes, expected):
    """An address is unused where its node is gone, has no trace of it, or has endpoints without it; otherwise not judged."""
    found = [one for one in check(clean(**changes)).problems if one.kind is Kind.UNUSED]

    assert expected == [(one.address, one.detail) for one in found]


@pytest.mark.parametrize(
    ("node", "verdict"),
    [
        (StoredNode(resource=True, tunnels={TunnelKind.VXLAN: A0}), Verdict.USED),
        (StoredNode(resource=True, tunnels={TunnelKind.VXLAN: A1}), Verdict.UNUSED),
        (StoredNode(resource=True, traces=()), Verdict.UNUSED),
        (StoredNode(alive=True), Verdict.UNKNOWN),
        (StoredNode(), Verdict.UNUSED),
    ],
)
def test_tunnel_addresses_are_judged_by_the_nodes_resource(node, verdict):
    """A tunnel's address is in use where its node's resource names it, whatever routes there are."""
    record = block("10.65.0.0/26", "vxlan-tunnel-addr-n")
    (attribute,) = record.attributes
    typed = msgspec.structs.replace(attribute, secondary={"node": "n", "type": "vxlanTunnelAddress"})
    record = msgspec.structs.replace(record, attributes=(typed,))

    (found,) = check(clean(blocks=(stored(record),), nodes={"n": node})).allocations
    assert verdict is found.verdict


def test_used_but_not_allocated():
    """An address that a route, an endpoint or a node's resource uses is allocated, else it is a problem, named by where it lies."""
    nodes = {"n": msgspec.structs.replace(traced("10.65.0.5/32", "10.65.0.0/31")["n"], tunnels={TunnelKind.IPIP: A1})}
    census = clean(nodes=nodes, endpoints={Address.parse("192.0.2.9"): "ns/pod", Address.parse("10.65.0.70"): "ns/x"})
    found = [(one.kind, str(one.address), one.detail) for one in check(census).problems]

    assert [
        (Kind.UNALLOCATED, "10.65.0.5", "used by a route of node n"),
        (Kind.UNALLOCATED, "10.65.0.70", "used by WorkloadEndpoint ns/x"),
        (Kind.OUTSIDE, "192.0.2.9", "used by WorkloadEndpoint ns/pod"),
    ] == found


@pytest.mark.parametrize(
    ("handles", "expected"),
    [
        ({"a": handle("a", **{"10.65.0.0/26": 1})}, [(Kind.HANDLE_MISSING, "b")]),
        (
            {"a": handle("a", **{"10.65.0.0/26": 1}), "b": handle("b", **{"10.65.0.0/26": 2})},
            [(Kind.HANDLE_COUNT, "b")],
        ),
        (
            {name: handle(name, **{"10.65.0.0/26": 1}) for name in "abc"},
            [(Kind.HANDLE_EMPTY, "c")],
        ),
        (
            {"a": handle("a", **{"10.65.0.0/26": 1, "10.65.0.64/26": 1}), "b": handle("b", **{"10.65.0.0/26": 1})},
            [(Kind.HANDLE_COUNT, "a")],
        ),
    ],
)
def test_handles_and_blocks_agree(handles, expected):
    """A handle that is missing, empty or counts wrong is a problem."""
    assert expected == [(one.kind, one.handle) for one in check(clean(handles=handles)).problems]


@pytest.mark.parametrize(
    ("affinities", "expected"),
    [
        ((), [Kind.BLOCK_AFFINITYLESS]),
        ((("10.65.0.0/26", "host:n", "pending"),), [Kind.AFFINITY_PENDING]),
        (
            (("10.65.0.0/26", "host:n", "confirmed"), ("10.65.0.0/26", "host:m", "pending")),
            [Kind.AFFINITIES_TWO, Kind.AFFINITY_STALE],
        ),
        (
            (("10.65.0.0/26", "host:n", "confirmed"), ("10.65.0.64/26", "host:m", "pending")),
            [Kind.AFFINITY_BLOCKLESS],
        ),
        ((("10.65.0.0/26", "virtual:n", "confirmed"),), [Kind.BLOCK_AFFINITYLESS, Kind.AFFINITY_STALE]),
    ],
)
def test_affinities_and_blocks_agree(affinities, expected):
    """A block has one affinity, its owner's, confirmed; anything else is a problem with its own name."""
    made = tuple(StoredAffinity(Prefix.parse(cidr), owner, AffinityState(state)) for cidr, owner, state in affinities)

    assert expected == kinds(clean(affinities=made))


def test_malformed_outside_and_overlapping_blocks():
    """Blocks that cannot be read, lie in no pool or within another are problems; a malformed one blames no handle."""
    other = block("10.65.0.0/27", node="n")
    census = clean(
        pools=(),
        blocks=(StoredBlock(CIDR, None, "broken"), stored(other)),
        affinities=(
            StoredAffinity(CIDR, "host:n", AffinityState.CONFIRMED),
            StoredAffinity(other.cidr, "host:n", AffinityState.CONFIRMED),
        ),
        unreadable=(("/k", "not JSON"),),
    )
    found = [(one.kind, str(one.block or one.key)) for one in check(census).problems]

    assert [
        (Kind.BLOCK_MALFORMED, "10.65.0.0/26"),
        (Kind.RECORD_MALFORMED, "/k"),
        (Kind.BLOCK_OUTSIDE, "10.65.0.0/26"),
        (Kind.BLOCK_OUTSIDE, "10.65.0.0/27"),
        (Kind.BLOCKS_OVERLAP, "10.65.0.0/27"),
    ] == found


def test_reports_agree_on_what_both_name():
    """Of several reports counts what all of them name with the same handle and sequence number."""
    nodes = traced("10.65.0.1/32")
    first = clean(nodes=nodes, handles={**clean().handles, "c": handle("c")})
    reused = block("10.65.0.0/26", "z", "b")
    second = clean(nodes=nodes, blocks=(stored(reused),), handles={"b": first.handles["b"]})
    one, two = (report(census, check(census)) for census in (first, second))

    assert [Leak("10.65.0.0", "a", 100)] == list(agreed([one]).addresses) == list(agreed([one, one]).addresses)
    assert (("c", 7),) == agreed([one]).handles
    assert ((), ()) == (agreed([one, two]).addresses, agreed([one, two]).handles)
    assert {"10.65.0.0"} == set(one.allocations)
    assert {"10.65.0.0", "10.65.0.1"} == set(report(first, check(first), every=True).allocations)
