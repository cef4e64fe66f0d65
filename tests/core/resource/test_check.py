"""Documents: right ones pass, and each rule is broken by what it forbids, by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from bgpd.core.resource import check, kinds, rules
from bgpd.core.resource.check import Document
from bgpd.core.resource.merge import completed, created, replaced
from tests.core.resource.examples import EVERY_FIELD, Resource, resource, resources

pytestmark = pytest.mark.core


def wrong(value: Any) -> list[str]:
    """Return path and rule of all that is wrong with a document."""
    return [f"{defect.path}: {defect.rule}" for defect in check.read("doc", value)[1]]


def right(value: Any) -> Document:
    document, defects = check.read("doc", value)
    assert [str(defect) for defect in defects] == []
    assert document is not None
    return document


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_example_has_every_known_field(kind: kinds.Kind) -> None:
    """The example of a kind is right and has every field that the kind knows (but those that exclude each other)."""
    apart = {"BGPPeer": {"node", "peerSelector", "localWorkloadSelector", "keepOriginalNextHop"}}

    document = right(EVERY_FIELD[kind.kind])

    assert kind.spec.shapes.keys() - document.spec.keys() == apart.get(kind.kind, set())
    assert list(check.surplus("doc", document.resource)) == []


@given(resources())
def test_generated_resource_is_right(value: Resource) -> None:
    """Unknown fields, at any depth, are no defect."""
    right(value)


def _peer(**spec: Any) -> Resource:
    return resource("BGPPeer", spec, "p")


def _pool(**spec: Any) -> Resource:
    return resource("IPPool", {"cidr": "10.0.0.0/16", **spec}, "p")


def _rule(**rule: Any) -> Resource:
    return resource("BGPFilter", {"exportV4": [rule]}, "f")


def _config(name: str = "default", **spec: Any) -> Resource:
    return resource("BGPConfiguration", spec, name)


ONE_MEMBER = "spec.exportV4[0].operations[0]: must have exactly one of addCommunity, prependASPath, setPriority"

BROKEN: list[tuple[Resource, list[str]]] = [
    (
        _pool(cidr="10.0.0.1/16"),
        ["spec.cidr: '10.0.0.1/16' has bits set right of its length: the prefix is 10.0.0.0/16"],
    ),
    (_pool(cidr=7), ["spec.cidr: must be text, not a number"]),
    (_pool(cidr=""), ["spec.cidr: is required"]),
    (_pool(cidr="169.254.8.0/24"), ["spec.cidr: must not overlap the link-local ranges 169.254.0.0/16 and fe80::/10"]),
    (_pool(cidr="fe00::/8"), ["spec.cidr: must not overlap the link-local ranges 169.254.0.0/16 and fe80::/10"]),
    (_pool(blockSize=19), ["spec.blockSize: must be 20 to 32 for an ipv4 pool"]),
    (_pool(blockSize=33), ["spec.blockSize: must be 20 to 32 for an ipv4 pool"]),
    (_pool(cidr="fd00::/64", blockSize=26), ["spec.blockSize: must be 116 to 128 for an ipv6 pool"]),
    (_pool(blockSize="26"), ["spec.blockSize: must be a whole number, not text"]),
    (_pool(blockSize=26.5), ["spec.blockSize: must be a whole number, not a fraction"]),
    (
        _pool(cidr="10.0.0.0/28"),
        ["spec.blockSize: a block (/26) must not be larger than its pool 10.0.0.0/28, unless the pool is disabled"],
    ),
    (_pool(vxlanMode="always"), ["spec.vxlanMode: must be one of Never, Always, CrossSubnet"]),
    (
        _pool(vxlanMode="Always", ipipMode="CrossSubnet"),
        ["spec.vxlanMode: must be Never where ipipMode is CrossSubnet: a pool has one encapsulation"],
    ),
    (
        _pool(cidr="fd00::/64", ipipMode="Always"),
        ["spec.ipipMode: must be Never for an IPv6 pool: IPIP carries IPv4"],
    ),
    (
        _pool(nodeSelector="rack ="),
        ["spec.nodeSelector: at character 6: '=' has no meaning here"],
    ),
    (
        _pool(nodeSelector="has(x)" + " " * 1024),
        ["spec.nodeSelector: must have at most 1024 characters, not 1030"],
    ),
    (
        _pool(namespaceSelector="all()"),
        ["spec.namespaceSelector: must be empty where allowedUses has Tunnel: a tunnel's address has no namespace"],
    ),
    (
        _pool(
            allowedUses=["LoadBalancer", "Workload"], nodeSelector="has(x)", vxlanMode="Always", disableBGPExport=True
        ),
        [
            "spec.allowedUses: LoadBalancer excludes Workload and Tunnel",
            "spec.vxlanMode: must be Never for a pool of LoadBalancer addresses",
            "spec.disableBGPExport: must be false for a pool of LoadBalancer addresses",
            "spec.nodeSelector: must be all() for a pool of LoadBalancer addresses",
        ],
    ),
    (_pool(allowedUses=["Tunnel", "Tunnel"]), ["spec.allowedUses[1]: must be named once only"]),
    (_pool(disabled="true"), ["spec.disabled: must be true or false, not text"]),
    (
        resource("IPPool", {"cidr": "10.0.0.0/16"}, "p", annotations={"bgpd.io/fallback": "none"}),
        [
            (
                "metadata.annotations[bgpd.io/fallback]: must be None, or kinds in order of preference such as 'IPIP, VXLAN'"
                ": 'none' is none of VXLAN, IPIP, WireGuard, and None stands alone"
            )
        ],
    ),
    (_peer(), ["spec.peerIP: is required, or peerSelector, or localWorkloadSelector, or annotation bgpd.io/interface"]),
    (
        _peer(peerIP="192.0.2.1"),
        ["spec.asNumber: is required where peerIP or localWorkloadSelector is given"],
    ),
    (
        _peer(peerIP="192.0.2.1", asNumber=1, node="a", nodeSelector="all()"),
        ["spec.nodeSelector: must be absent where node is given"],
    ),
    (
        _peer(peerIP="192.0.2.1", peerSelector="all()", localWorkloadSelector="all()", asNumber=1),
        [
            "spec.peerSelector: must be absent where peerIP is given",
            "spec.localWorkloadSelector: must be absent where peerIP is given",
            "spec.asNumber: must be absent where peerSelector is given: each selected node has its own",
        ],
    ),
    (_peer(peerIP="192.0.2.1:0", asNumber=1), ["spec.peerIP: port '0' must be 1 to 65535"]),
    (
        _peer(peerIP="[192.0.2.1]:179", asNumber=1),
        ["spec.peerIP: must be written ADDRESS:PORT: brackets are for IPv6"],
    ),
    (
        _peer(peerIP="tor", asNumber=1),
        ["spec.peerIP: 'tor' does not appear to be an IPv4 or IPv6 address"],
    ),
    (
        _peer(peerIP="192.0.2.1", asNumber=1, keepOriginalNextHop=True, nextHopMode="Keep"),
        ["spec.keepOriginalNextHop: must be absent where nextHopMode is given"],
    ),
    (
        _peer(peerIP="192.0.2.1", asNumber=1, reachableBy="fd00::1"),
        ["spec.reachableBy: must be of the family of peerIP 192.0.2.1"],
    ),
    (
        _peer(peerSelector="all()", reachableBy="192.0.2.1"),
        ["spec.reachableBy: needs peerIP"],
    ),
    (
        _peer(peerSelector="all()", password={"secretKeyRef": {"name": "a"}}, ttlSecurity=256, maxRestartTime="2 m"),
        [
            "spec.password.secretKeyRef.key: is required",
            "spec.maxRestartTime: must be a duration of zero or more such as 120s, 1h2m or 500ms",
            "spec.ttlSecurity: must be 0 to 255",
        ],
    ),
    (_rule(), ["spec.exportV4[0].action: is required"]),
    (_rule(action="Accept", cidr="10.0.0.0/8"), ["spec.exportV4[0].matchOperator: is required where cidr is given"]),
    (
        _rule(action="Accept", matchOperator="In", prefixLength={"min": 1}),
        [
            "spec.exportV4[0].cidr: is required where matchOperator is given",
            "spec.exportV4[0].prefixLength: needs cidr",
        ],
    ),
    (
        _rule(action="Accept", matchOperator="In", cidr="fd00::/8"),
        ["spec.exportV4[0].cidr: must be an ipv4 prefix"],
    ),
    (
        _rule(action="Accept", matchOperator="In", cidr="10.0.0.0/8", prefixLength={"min": 33}),
        ["spec.exportV4[0].prefixLength.min: must be 0 to 32"],
    ),
    (
        _rule(action="Accept", matchOperator="In", cidr="10.0.0.0/8", prefixLength={"min": 30, "max": 20}),
        ["spec.exportV4[0].prefixLength.min: must not be larger than max (20)"],
    ),
    (
        _rule(action="Reject", operations=[{"setPriority": {"value": 1}}]),
        ["spec.exportV4[0].operations: must be absent where action is Reject: what is rejected is not changed"],
    ),
    (
        _rule(action="Accept", operations=[{"setPriority": {"value": 1}, "addCommunity": {"value": "1:1"}}, {}]),
        [
            f"{ONE_MEMBER}, not addCommunity, setPriority",
            f"{ONE_MEMBER.replace('[0]: ', '[1]: ')}, not none",
        ],
    ),
    (
        _rule(action="Accept", operations=[{"setPriority": {"value": 1}}] * 11),
        ["spec.exportV4[0].operations: must have 0 to 10 entries, not 11"],
    ),
    (
        _rule(action="Accept", operations=[{"prependASPath": {"prefix": []}}]),
        ["spec.exportV4[0].operations[0].prependASPath.prefix: must have 1 to 10 entries, not 0"],
    ),
    (
        _rule(action="Accept", communities={"values": ["1:1", "65536:1"]}, priority=0, interface="a b"),
        [
            "spec.exportV4[0].interface: must be 1 to 15 letters, digits, '_', '.', '-', and '*' for any number of any of them",
            "spec.exportV4[0].communities.values: must have exactly 1 entries, not 2",
            "spec.exportV4[0].communities.values[1]: must be aa:nn with parts to 65535, or aa:nn:mm with parts to 4294967295",
            "spec.exportV4[0].priority: must be 1 to 2147483646",
        ],
    ),
    (_config("mine"), ["metadata.name: must be default, or node.NAME for what differs on one node"]),
    (
        _config("node.a", asNumber=65000),
        ["spec.asNumber: belongs to BGPConfiguration default only: it is one for the cluster"],
    ),
    (
        _config(nodeToNodeMeshEnabled=False, nodeMeshMaxRestartTime="1s"),
        ["spec.nodeMeshMaxRestartTime: must be absent where nodeToNodeMeshEnabled is false"],
    ),
    (
        _config(
            communities=[{"name": "a", "value": "1:1"}, {"name": "a", "value": "1:2"}],
            prefixAdvertisements=[{"cidr": "10.0.0.0/8", "communities": ["a", "b"]}],
        ),
        [
            "spec.communities[1].name: must be unique",
            "spec.prefixAdvertisements[0].communities[1]: must be the name of one of communities, aa:nn or aa:nn:mm",
        ],
    ),
    (_config(localWorkloadPeeringIPV4="fd00::1"), ["spec.localWorkloadPeeringIPV4: must be an ipv4 address"]),
    (
        resource("IPAMConfiguration", {"autoAllocateBlocks": False, "maxBlocksPerHost": 3}),
        [
            "spec.autoAllocateBlocks: must be true where strictAffinity is false: no node could get an address",
            "spec.maxBlocksPerHost: needs strictAffinity: without it a node would borrow beyond its limit",
        ],
    ),
    (
        resource("IPAMConfiguration", {"ipCooldownSeconds": 1201}, "other", labels={"a": "b"}),
        [
            "metadata.name: must be default: there is one only",
            "spec.ipCooldownSeconds: must be 0 to 1200",
            "metadata.labels: cannot be stored: IPAMConfiguration is a view of a key that holds the fields of spec only",
        ],
    ),
    (
        resource("Node", {"bgp": {"asNumber": 1}}, "n"),
        ["spec.bgp.ipv4Address: is required, or ipv6Address: a node without an address has no BGP"],
    ),
    (
        resource("Node", {"vxlanTunnelMACAddr": "66:3e", "bgp": {"ipv4Address": "fd00::1/64"}}, "-n"),
        [
            "metadata.name: must be of letters, digits, '-', '.' and '_', and begin and end with a letter or digit",
            "spec.bgp.ipv4Address: must be an ipv4 address",
            "spec.vxlanTunnelMACAddr: must be a MAC address such as 66:3e:ca:a4:db:65",
        ],
    ),
    (
        resource(
            "FelixConfiguration", {"vxlanVNI": 0, "natPortRange": "9:1", "routeTableRanges": [{"min": 9, "max": 3}]}
        ),
        [
            "spec.vxlanVNI: must be 1 to 16777215",
            "spec.natPortRange: must be a port or a range such as 32768:65535",
            "spec.routeTableRanges[0].min: must not be larger than max (3)",
        ],
    ),
    (
        resource("IPReservation", {"reservedCIDRs": ["10.0.0.1/8"]}, "r"),
        ["spec.reservedCIDRs[0]: '10.0.0.1/8' has bits set right of its length: the prefix is 10.0.0.0/8"],
    ),
    (
        resource("Node", {}, "n", labels={"a b": "c", "d": True}),
        [
            "metadata.labels[a b]: a label's name has 1 to 512 letters, digits, '-', '.', '_' and '/'",
            "metadata.labels[d]: must be text, not true or false",
        ],
    ),
    ({"kind": "Node", "metadata": {"name": "n"}}, ["apiVersion: is required"]),
    (
        {"kind": "Node", "apiVersion": "v1", "metadata": []},
        ["apiVersion: must be one of projectcalico.org/v3", "metadata: must be an object, not a list"],
    ),
    ({"kind": "ippools"}, ["kind: must be written IPPool"]),
]


@pytest.mark.parametrize(("value", "expected"), BROKEN)
def test_broken_rule_is_named(value: Resource, expected: list[str]) -> None:
    """Each thing that is wrong is named, with its path, and nothing else is."""
    assert wrong(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("65001", 65001), ("1.10", 65546), ("0.1", 1), (4294967295, 4294967295), ("65535.65535", 4294967295)],
)
def test_as_number_forms(value: int | str, expected: int) -> None:
    """An AS number is a number, its text, or dotted (RFC 5396)."""
    assert rules.parse_asn(value) == expected


@pytest.mark.parametrize(
    "value", [0, -1, 4294967296, "", "1.", ".1", "1.65536", "65536.1", "1.1.1", "x", 1.1, True, None]
)
def test_no_as_number(value: Any) -> None:
    """Everything else is no AS number, 0 among it (RFC 7607)."""
    with pytest.raises(ValueError, match="must be an AS number"):
        rules.parse_asn(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("120s", 120), ("1h2m", 3720), ("1.5m", 90), ("500ms", 0.5), (".5s", 0.5), ("1m0.5s", 60.5)],
)
def test_duration_forms(text: str, seconds: float) -> None:
    """Durations are read as Go reads them."""
    assert rules.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1d", "-1s", "1 s", "1s ", "1.s2"])
def test_no_duration(text: str) -> None:
    """What Go would refuse, and what is negative, is refused."""
    with pytest.raises(ValueError, match="must be a duration"):
        rules.parse_duration(text)


def test_defect_says_where_what_and_why() -> None:
    """A defect names document, path, value and rule."""
    _, defects = check.read("pools.yaml, document 2", _pool(blockSize=19))

    assert [str(one) for one in defects] == [
        "pools.yaml, document 2 (IPPool p): spec.blockSize: 19: must be 20 to 32 for an ipv4 pool"
    ]


def test_unknown_field_is_told_with_its_likely_name() -> None:
    """A misspelt field is no defect, but it is told, at any depth."""
    value = resource("BGPFilter", {"exportV4": [{"action": "Accept", "matchOperater": "In"}], "x": 1}, "f")

    assert list(check.surplus("doc", value)) == [
        "doc (BGPFilter f): spec.exportV4[0].matchOperater is not known here and is kept as it is; did you mean matchOperator?",
        "doc (BGPFilter f): spec.x is not known here and is kept as it is",
    ]


# ------------------------------------------------------------------ beside others


def _known(*values: Resource) -> dict[tuple[str, str], Resource]:
    return {(value["kind"], value["metadata"]["name"]): value for value in values}


def _named(name: str, cidr: str, **spec: Any) -> Resource:
    return resource("IPPool", {"cidr": cidr, **spec}, name)


def test_new_pool_must_not_overlap() -> None:
    """A pool that overlaps a stored one or another document's is refused, each pair once."""
    documents = [right(_named("b", "10.0.0.0/16")), right(_named("c", "10.0.128.0/17"))]
    stored = _known(_named("a", "10.0.0.0/8"), _named("d", "fd00::/64"))

    found = [f"{one.document}: {one.path}: {one.rule}" for one in check.together(documents, stored)]

    assert found == [
        "doc (IPPool b): spec.cidr: must not overlap IPPool a, 10.0.0.0/8",
        "doc (IPPool b): spec.cidr: must not overlap IPPool c, 10.0.128.0/17",
        "doc (IPPool c): spec.cidr: must not overlap IPPool a, 10.0.0.0/8",
    ]


def test_pool_that_overlaps_already_may_be_changed() -> None:
    """Pools that overlap already may be mended: disabling one is no new overlap."""
    stored = _known(_named("a", "10.0.0.0/8"), _named("b", "10.0.0.0/16"))
    document = right(_named("b", "10.0.0.0/16", disabled=True))

    assert list(check.together([document], stored)) == []


def test_pool_may_take_the_place_of_a_deleted_one() -> None:
    """A pool that is deleted in the same change is no obstacle."""
    document = right(_named("b", "10.0.0.0/16"))

    assert list(check.together([document], _known(_named("a", "10.0.0.0/8")), [(kinds.IPPOOL, "a")])) == []


def test_range_and_block_size_never_change() -> None:
    """cidr and blockSize of a stored pool cannot be changed; left out, the block size stays."""
    stored = _known(_named("a", "10.0.0.0/16", blockSize=28))

    changed = check.together([right(_named("a", "10.1.0.0/16", blockSize=26))], stored)
    silent = check.together([right(_named("a", "10.0.0.0/16"))], stored)

    assert [one.path for one in changed] == ["spec.cidr", "spec.blockSize"]
    assert list(silent) == []
    assert completed(kinds.IPPOOL, {"cidr": "10.0.0.0/16"}, {"blockSize": 28})["blockSize"] == 28


def test_peer_must_not_name_an_unknown_filter() -> None:
    """A filter that a peer names exists, stored or in the same change."""
    peer = right(_peer(peerSelector="all()", filters=["here", "stored", "lost"]))
    here = right(resource("BGPFilter", {}, "here"))

    found = list(check.together([peer, here], _known(resource("BGPFilter", {}, "stored"))))

    assert [(one.path, one.value) for one in found] == [("spec.filters[2]", "lost")]


def test_filter_that_a_peer_names_is_needed() -> None:
    """Deleting a filter is told which peers still name it, unless they go as well."""
    stored = _known(resource("BGPFilter", {}, "f"), _peer(peerSelector="all()", filters=["f"]))
    gone = [(kinds.BGPFILTER, "f")]

    assert list(check.needed([], stored, gone)) == [("f", "p")]
    assert list(check.needed([], stored, [*gone, (kinds.BGPPEER, "p")])) == []
    assert list(check.needed([right(_peer(peerSelector="all()"))], stored, gone)) == []


def test_resource_is_given_once() -> None:
    """Two documents about one resource are refused."""
    first, second = (Document(origin, kinds.IPPOOL, "p", _pool()) for origin in ("one", "two"))

    assert [one.rule for one in check.among([first, second])] == ["must be given once only: one has it too"]


# ------------------------------------------------------------------ merging


def test_controllers_fields_stay() -> None:
    """What belongs to others stays where a document does not speak of it; spec and labels are the document's."""
    before = resource("IPPool", {"cidr": "10.0.0.0/16", "disabled": True}, "p", uid="u", creationTimestamp="t")
    before["metadata"] |= {"labels": {"a": "b"}, "finalizers": ["x"], "generation": 2}
    before["status"] = {"conditions": []}
    document = resource(
        "IPPool", {"cidr": "10.0.0.0/16"}, "p", uid="other", resourceVersion="7", creationTimestamp=None
    )

    after = replaced(kinds.IPPOOL, document, before)

    assert after["metadata"] == {
        "name": "p",
        "uid": "u",
        "creationTimestamp": "t",
        "finalizers": ["x"],
        "generation": 2,
    }
    assert after["status"] == {"conditions": []}
    assert "disabled" not in after["spec"]


def test_created_pool_has_what_calico_stores() -> None:
    """A new pool gets uid, creation time and the defaults that Calico's readers expect in it."""
    after = created(kinds.IPPOOL, resource("IPPool", {"cidr": "fd00::/64", "disabled": None}, "p"), "u", "t")

    assert after == {
        "kind": "IPPool",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": "t"},
        "spec": {
            "cidr": "fd00::/64",
            "blockSize": 122,
            "ipipMode": "Never",
            "vxlanMode": "Never",
            "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"],
            "assignmentMode": "Automatic",
        },
    }


@given(resources())
def test_replacing_with_what_is_stored_changes_nothing(value: Resource) -> None:
    """A read-modify-write without a modification writes the same object; the document itself is never changed."""
    document = right(value)
    untouched = copy.deepcopy(value)
    stored = created(document.kind, value, "u", "t")

    assert replaced(document.kind, stored, stored) == stored
    assert value == untouched


def test_every_word_for_a_kind_is_understood() -> None:
    """A kind is called by its singular, plural and short names in any case."""
    words = {"ippool": "IPPool", "IPPools": "IPPool", "ipp": "IPPool", "BGPFILTERS": "BGPFilter", "bgpp": "BGPPeer"}
    words |= {
        "node": "Node",
        "felixconfig": "FelixConfiguration",
        "ipamconfig": "IPAMConfiguration",
        "ipr": "IPReservation",
    }

    found = {word: kind.kind for word in words if (kind := kinds.find(word)) is not None}

    assert found == words
    assert kinds.find("gateway") is None
    assert [kind.plural for kind in kinds.KINDS if kind.plural != kind.plural.lower()] == ["BGPFilters"]
