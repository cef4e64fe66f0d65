"""Calico's keys and values: what we read, and that what we do not know survives."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.adapters.store import keys, records
from bgpd.adapters.store.keys import AffinityKey, AliveKey, BlockKey, Malformed, NodeKey, PoolKey
from bgpd.core.ipam.block import HandleRecord, new_block
from bgpd.model.node import Node
from bgpd.model.pool import Affinity, AffinityState, Block, Fallback, Mode, Pool, Use
from bgpd.model.prefix import Address, Family, Prefix

pytestmark = pytest.mark.core

NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)
V4 = Prefix.parse("10.0.0.0/26")
V6 = Prefix.parse("fd00::/122")


@pytest.mark.parametrize(
    ("key", "text", "about"),
    [
        (keys.block_key(V4), "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26", BlockKey(V4)),
        (keys.block_key(V6), "/calico/ipam/v2/assignment/ipv6/block/fd00::-122", BlockKey(V6)),
        (keys.affinity_key("n", V4), "/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-26", AffinityKey("n", V4)),
        (keys.handle_key("k8s.x"), "/calico/ipam/v2/handle/k8s.x", None),
        (keys.IPAM_CONFIG, "/calico/ipam/v2/config", None),
        (keys.pool_key("p"), "/calico/resources/v3/projectcalico.org/ippools/p", PoolKey("p")),
        (keys.node_key("n"), "/calico/resources/v3/projectcalico.org/nodes/n", NodeKey("n")),
        (keys.alive_key("n"), "/bgpd/v1/nodes/n/alive", AliveKey("n")),
        ("/calico/ipam/v2/virtual/lb/ipv4/block/10.0.0.0-26",) * 2 + (None,),
    ],
)
def test_keys_are_calicos(key, text, about):
    """Each key is written as Calico writes it, and read back as what it is about."""
    assert text == key
    assert about == keys.parse(key)


@pytest.mark.parametrize(
    "key",
    [
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
        "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/10.0.0.0-26",
        "/calico/ipam/v2/host/n/ipv4/block/x-26",
        "/calico/ipam/v2/host//ipv4/block/10.0.0.0-26",
        "/calico/resources/v3/projectcalico.org/ippools/",
        "/calico/resources/v3/projectcalico.org/nodes/a/b",
    ],
)
def test_a_bad_key_in_a_known_place_is_malformed(key):
    """A key that is nothing in its place is Malformed, naming itself."""
    with pytest.raises(Malformed) as raised:
        keys.parse(key)

    assert key == raised.value.key
    assert raised.value.defect


def test_vtep_mac_follows_calicos_rule():
    """A VXLAN device's MAC address is 66: and five bytes of the name's SHA-1: Calico's own test vectors hold."""
    assert records.vtep_mac("remotehostname") == "66:3e:ca:a4:db:65"
    assert records.vtep_mac("remotehostname2") == "66:40:18:59:1f:16"


# ------------------------------------------------------------------ pools


def test_a_pool_is_read_with_its_defaults():
    """Fields that Calico omits have Calico's defaults."""
    assert Pool(name="p", cidr=Prefix.parse("10.0.0.0/16")) == records.pool_from(
        "k", "p", b'{"spec": {"cidr": "10.0.0.0/16"}}'
    )
    assert records.pool_from("k", "p", b'{"spec": {"cidr": "fd00::/64", "vxlanMode": ""}}').block_size == 122


def test_a_pool_is_read_whole():
    """Each field that decisions depend on is read, the annotation of the fallback included."""
    value = (
        b'{"kind":"IPPool","metadata":{"name":"p","annotations":{"bgpd.io/fallback":"None"}},"spec":{"cidr":"10.0.0.0/16",'
        b'"blockSize":28,"vxlanMode":"CrossSubnet","disabled":true,"disableBGPExport":true,"assignmentMode":"Manual",'
        b'"nodeSelector":"has(a)","namespaceSelector":"b == \'c\'","allowedUses":["Workload","Other"]},'
        b'"status":{"conditions":[{"type":"Allocatable","status":"False","reason":"CIDROverlap","message":"overlaps q"}]}}'
    )

    assert records.pool_from("k", "p", value) == Pool(
        name="p",
        cidr=Prefix.parse("10.0.0.0/16"),
        block_size=28,
        vxlan_mode=Mode.CROSS_SUBNET,
        disabled=True,
        automatic=False,
        disable_bgp_export=True,
        fallback=(),
        node_selector="has(a)",
        namespace_selector="b == 'c'",
        allowed_uses=(Use.WORKLOAD,),
        unallocatable="overlaps q",
    )


@given(
    st.builds(
        Pool,
        name=st.just("p"),
        cidr=st.just(Prefix.parse("10.0.0.0/16")),
        block_size=st.integers(20, 32),
        vxlan_mode=st.sampled_from(Mode),
        disabled=st.booleans(),
        automatic=st.booleans(),
        disable_bgp_export=st.booleans(),
        fallback=st.none() | st.permutations(Fallback).map(tuple) | st.just(()),
        ipip_mode=st.sampled_from(Mode),
        node_selector=st.sampled_from(("all()", "has(a)")),
        namespace_selector=st.sampled_from(("", "has(a)")),
        allowed_uses=st.sampled_from(((Use.WORKLOAD, Use.TUNNEL), (Use.TUNNEL,))),
    )
)
def test_a_written_pool_reads_the_same(pool):
    """What we write as a pool we read as the same pool."""
    assert pool == records.pool_from("k", "p", records.pool_bytes(pool, NOW))


@pytest.mark.parametrize(
    ("value", "defect"),
    [
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`"),
        (b'{"spec": {}}', "missing required field `cidr`"),
        (b'{"spec": {"cidr": "10.0.0.1/16"}}', "has bits set right of its length"),
        (b'{"spec": {"cidr": "10.0.0.0/16", "blockSize": "26"}}', "$.spec.blockSize"),
        (b'{"spec": {"cidr": "10.0.0.0/16", "blockSize": 12}}', "block size 12 does not fit pool 10.0.0.0/16"),
        (b'{"spec": {"cidr": "10.0.0.0/16", "vxlanMode": "Maybe"}}', "vxlanMode 'Maybe' is none of Never"),
        (
            b'{"metadata": {"annotations": {"bgpd.io/fallback": "GRE"}}, "spec": {"cidr": "10.0.0.0/16"}}',
            "bgpd.io/fallback: 'GRE' is none of VXLAN, IPIP",
        ),
        (b'{"spec": {"cidr": "\xff"}}', ""),
    ],
)
def test_a_malformed_pool_names_key_and_defect(value, defect):
    """A pool that cannot be read is Malformed with its key and the place of the defect."""
    with pytest.raises(Malformed) as raised:
        records.pool_from("/the/key", "p", value)

    assert raised.value.key == "/the/key"
    assert defect in raised.value.defect


# ------------------------------------------------------------------ nodes


NODE = Node(
    name="n",
    asn=64512,
    ipv4_address=Address.parse("10.0.0.17"),
    ipv4_subnet=Prefix.parse("10.0.0.0/24"),
    ipv6_address=Address.parse("fd00::1"),
    ipv6_subnet=Prefix.parse("fd00::/64"),
    vtep_mac="66:3e:ca:a4:db:65",
)


def test_a_node_keeps_address_and_subnet_length():
    """A node is written as ADDRESS/LENGTH and read as the same node."""
    value = records.node_bytes("k", NODE, None, NOW)

    assert records.node_from("k", "n", value) == NODE
    assert msgspec.json.decode(value)["spec"]["bgp"] == {
        "asNumber": 64512,
        "ipv4Address": "10.0.0.17/24",
        "ipv6Address": "fd00::1/64",
    }


def test_what_others_keep_in_a_node_survives():
    """Rewriting a node changes our fields alone; fields that we do not know, or have nothing to say about, stay."""
    stored = (
        b'{"kind":"Node","metadata":{"name":"n","labels":{"rack":"1"}},"spec":{"bgp":{"ipv4Address":"10.9.9.9/24",'
        b'"routeReflectorClusterID":"1.1.1.1","ipv6Address":"fd00::9/64"},"ipv4VXLANTunnelAddr":"10.65.0.1"},"status":{"x":1.5}}'
    )
    node = Node(name="n", asn=1, ipv4_address=NODE.ipv4_address, ipv4_subnet=NODE.ipv4_subnet)

    assert msgspec.json.decode(records.node_bytes("k", node, stored, NOW)) == {
        "kind": "Node",
        "metadata": {"name": "n", "labels": {"rack": "1"}},
        "spec": {
            "bgp": {
                "ipv4Address": "10.0.0.17/24",
                "routeReflectorClusterID": "1.1.1.1",
                "ipv6Address": "fd00::9/64",
                "asNumber": 1,
            },
            "ipv4VXLANTunnelAddr": "10.65.0.1",
        },
        "status": {"x": 1.5},
    }


@pytest.mark.parametrize(
    ("written", "asn"), [(b"65001", 65001), (b'"65001"', 65001), (b'"1.10"', 65546), (b"null", None)]
)
def test_an_as_number_may_be_written_in_three_ways(written, asn):
    """An AS number is read as a number, as text and dotted (RFC 5396)."""
    assert asn == records.node_from("k", "n", b'{"spec":{"bgp":{"asNumber":%s}}}' % written).asn


def test_a_node_without_bgp_is_a_node():
    """A node that has no address yet is read as such."""
    assert Node(name="n") == records.node_from("k", "n", b'{"metadata":{"name":"n"}}')


@pytest.mark.parametrize(
    ("spec", "defect"),
    [
        (b'{"bgp":{"ipv4Address":"10.0.0.1/40"}}', "ipv4Address '10.0.0.1/40': prefix length 40"),
        (b'{"bgp":{"ipv4Address":"fd00::1/64"}}', "of the other family"),
        (b'{"bgp":{"asNumber":"x"}}', "asNumber 'x': must be an AS number"),
        (b'{"bgp":{"asNumber":4294967296}}', "asNumber 4294967296: must be an AS number"),
        (b'{"vxlanTunnelMACAddr":"66:zz:00:00:00:00"}', "is not a MAC address"),
    ],
)
def test_a_malformed_node_names_its_defect(spec, defect):
    """A node that cannot be read is Malformed, and is not rewritten where it is no object."""
    with pytest.raises(Malformed, match=defect):
        records.node_from("k", "n", b'{"spec":%s}' % spec)
    with pytest.raises(Malformed):
        records.node_bytes("k", NODE, b'{"spec":[]}', NOW)


# ------------------------------------------------------------------ blocks, affinities, handles


STORED_BLOCK = (
    b'{"cidr":"10.0.0.0/30","affinity":"host:n","affinity_claim_time":"2026-08-22T10:00:00Z","allocations":[0,null,1,null],'
    b'"unallocated":[1,3],"attributes":[{"handle_id":"h","secondary":{"node":"n","pod":"p"},"alternateOwnerAttrs":{"pod":"q"}},'
    b'{"releasedAt":"2026-08-22T10:00:00Z"}],"sequenceNumber":17,"sequenceNumberForAllocation":{"0":16},"deleted":false,'
    b'"future":{"a":[1,2]}}'
)


def test_a_block_is_rewritten_byte_by_byte():
    """A block as Calico stores it is written back the same, with cool-down, alternate owners and fields that we do not know."""
    record = records.block_from("k", Prefix.parse("10.0.0.0/30"), STORED_BLOCK)

    assert records.block_bytes(record) == STORED_BLOCK
    assert Block(cidr=record.cidr, node="n", in_use=1) == records.block_view(record)


def test_a_new_block_has_calicos_fields():
    """A block that we make has each field of Calico's record, and none besides."""
    value = records.block_bytes(new_block(Prefix.parse("10.0.0.0/31"), "n", 5, "2026-08-22T10:00:00Z"))

    assert value == (
        b'{"cidr":"10.0.0.0/31","affinity":"host:n","affinity_claim_time":"2026-08-22T10:00:00Z","allocations":[null,null],'
        b'"unallocated":[0,1],"attributes":[],"sequenceNumber":5,"sequenceNumberForAllocation":{},"deleted":false}'
    )


@pytest.mark.parametrize(
    ("affinity", "node"),
    [
        (b'"affinity":"host:n"', "n"),
        (b'"affinity":"virtual:lb"', None),
        (b'"affinity":null', None),
        (b'"hostAffinity":"n"', "n"),
    ],
)
def test_the_node_of_a_block_is_its_host_affinity(affinity, node):
    """Only an affinity of kind host, or the legacy field, names a node."""
    value = b'{"cidr":"10.0.0.0/32","allocations":[null],"unallocated":[0],"attributes":[],%s}' % affinity

    assert node == records.block_view(records.block_from("k", Prefix.parse("10.0.0.0/32"), value)).node


@pytest.mark.parametrize(
    ("value", "defect"),
    [
        (STORED_BLOCK.replace(b"[1,3]", b"[1,3,3]"), "unallocated more than once"),
        (STORED_BLOCK.replace(b"[0,null,1,null]", b"[7,null,1,null]"), "points to no attribute"),
        (STORED_BLOCK.replace(b"10.0.0.0/30", b"10.0.0.4/30"), "the value is about block 10.0.0.4/30"),
        (STORED_BLOCK.replace(b'"secondary":{', b'"secondary":{"n":1,'), "$.attributes[0].secondary"),
        (STORED_BLOCK.replace(b"[0,null,1,null]", b"null"), "$.allocations"),
        (b"\xff", ""),
    ],
)
def test_a_malformed_block_names_its_defect(value, defect):
    """A block whose invariants are broken is not read."""
    with pytest.raises(Malformed) as raised:
        records.block_from("k", Prefix.parse("10.0.0.0/30"), value)

    assert defect in raised.value.defect


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (b"", AffinityState.CONFIRMED),
        (b"{}", AffinityState.CONFIRMED),
        (b'{"state":""}', AffinityState.CONFIRMED),
        (b'{"state":"pending","deleted":false}', AffinityState.PENDING),
        (b'{"state":"pendingDeletion"}', AffinityState.PENDING_DELETION),
    ],
)
def test_an_empty_affinity_is_confirmed(value, state):
    """An empty value or state is confirmed; others are what they say."""
    assert Affinity(cidr=V4, node="n", state=state) == records.affinity_from("k", "n", V4, value)


def test_an_affinity_is_written_as_calico_does():
    """A confirmed affinity has state and deleted; other fields of a stored one survive."""
    assert records.affinity_bytes("k", AffinityState.CONFIRMED, None) == b'{"state":"confirmed","deleted":false}'
    assert (
        records.affinity_bytes("k", AffinityState.CONFIRMED, b'{"x":1,"state":"pending"}')
        == b'{"state":"confirmed","x":1}'
    )
    with pytest.raises(Malformed, match="state 'new' is none of"):
        records.affinity_from("k", "n", V4, b'{"state":"new"}')


def test_a_handle_keeps_what_it_has():
    """A handle is read and written with its counts and unknown fields."""
    value = b'{"block":{"10.0.0.0/26":2},"deleted":false,"x":1}'
    record = records.handle_from("k", "h", value)

    assert HandleRecord(handle_id="h", block={"10.0.0.0/26": 2}, extra={"x": 1}) == record
    assert value == records.handle_bytes(record)


def test_ipam_settings_have_calicos_defaults():
    """No settings: automatic blocks, 20 per host. In stored settings an omitted field is zero."""
    assert (records.ipam_config_from(None).auto_allocate_blocks, records.ipam_config_from(None).limit) == (True, 20)
    stored = records.ipam_config_from(b'{"strict_affinity":true,"maxBlocksPerHost":4}')
    assert (stored.auto_allocate_blocks, stored.limit) == (False, 4)


@given(st.ip_addresses(), st.integers(0, 128), st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True))
def test_keys_of_any_prefix_read_back(address, length, node):
    """Every prefix of either family has a key that reads back as the same prefix."""
    parsed = Address.parse(str(address))
    cidr = Prefix.of(parsed, min(length, 32 if parsed.family is Family.IPV4 else 128))

    assert BlockKey(cidr) == keys.parse(keys.block_key(cidr))
    assert AffinityKey(node, cidr) == keys.parse(keys.affinity_key(node, cidr))
