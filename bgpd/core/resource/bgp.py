"""BGPPeer, BGPConfiguration and BGPFilter (calico.md 2.1 to 2.3; calico-formats.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bgpd.core.resource import rules
from bgpd.core.resource.annotations import PEER_ANNOTATIONS, peer_cross
from bgpd.core.resource.kind import DEFAULT_OR_NODE, Kind, Spec
from bgpd.core.resource.rules import AS_NUMBER, DURATION, PRIORITY_MAX, SECRET, SELECTOR, given
from bgpd.core.resource.schema import Choice, Fields, Flag, ListOf, Number, Shape, Text
from bgpd.model.prefix import Address, Family

Broken = Iterator[tuple[str, str]]
_PRIORITY: Final = Number(1, PRIORITY_MAX)
_IP: Final = Text(rules.address())
_CIDRS: Final = ListOf(Fields({"cidr": Text(rules.cidr())}, required=("cidr",)))
OPERATIONS_MAX: Final = 10
PREPENDED_MAX: Final = 10

# ------------------------------------------------------------------ BGPPeer


def _whose(spec: Spec) -> Broken:
    if given(spec, "node") and given(spec, "nodeSelector"):
        yield "nodeSelector", "must be absent where node is given"
    named = [name for name in ("peerIP", "peerSelector", "localWorkloadSelector") if given(spec, name)]
    for name in named[1:]:
        yield name, f"must be absent where {named[0]} is given"


def _numbers(spec: Spec) -> Broken:
    if given(spec, "peerSelector"):
        if given(spec, "asNumber"):
            yield "asNumber", "must be absent where peerSelector is given: each selected node has its own"
    elif not given(spec, "asNumber") and (given(spec, "peerIP") or given(spec, "localWorkloadSelector")):
        yield "asNumber", "is required where peerIP or localWorkloadSelector is given"


def _next_hop(spec: Spec) -> Broken:
    if given(spec, "keepOriginalNextHop") and given(spec, "nextHopMode"):
        yield "keepOriginalNextHop", "must be absent where nextHopMode is given"


def _gateway(spec: Spec) -> Broken:
    if not given(spec, "reachableBy"):
        return
    if not given(spec, "peerIP"):
        yield "reachableBy", "needs peerIP"
    elif rules.parse_peer_ip(spec["peerIP"])[0].family is not Address.parse(spec["reachableBy"]).family:
        yield "reachableBy", f"must be of the family of peerIP {spec['peerIP']}"


BGPPEER: Final = Kind(
    kind="BGPPeer",
    plural="bgppeers",
    short=("bgpp", "bgpps", "peer", "peers"),
    spec=Fields(
        {
            "node": Text(rules.node_name, most=253),
            "nodeSelector": SELECTOR,
            "peerIP": Text(rules.peer_ip),
            "peerSelector": SELECTOR,
            "localWorkloadSelector": SELECTOR,
            "asNumber": AS_NUMBER,
            "localASNumber": AS_NUMBER,
            "keepOriginalNextHop": Flag(),
            "nextHopMode": Choice(("Auto", "Self", "Keep")),
            "password": SECRET,
            "sourceAddress": Choice(("UseNodeIP", "None")),
            "maxRestartTime": DURATION,
            "keepaliveTime": DURATION,
            "numAllowedLocalASNumbers": Number(0, 2**31 - 1),
            "ttlSecurity": Number(0, 255),
            "reachableBy": _IP,
            "filters": ListOf(Text(rules.name, most=253), unique=True),
            "reversePeering": Choice(("Auto", "Manual")),
        },
        rules=(_whose, _numbers, _next_hop, _gateway),
    ),
    annotation_tests=PEER_ANNOTATIONS,
    cross=peer_cross,
    defaults=lambda _: {
        "keepOriginalNextHop": False,
        "sourceAddress": "UseNodeIP",
        "numAllowedLocalASNumbers": 0,
        "ttlSecurity": 0,
        "reversePeering": "Auto",
    },
)

# ------------------------------------------------------------------ BGPConfiguration


def _mesh(spec: Spec) -> Broken:
    if spec.get("nodeToNodeMeshEnabled") is False:
        for name in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
            if given(spec, name):
                yield name, "must be absent where nodeToNodeMeshEnabled is false"


def _named_communities(spec: Spec) -> Broken:
    names: set[str] = set()
    for index, one in enumerate(spec.get("communities") or []):
        if one["name"] in names:
            yield f"communities[{index}].name", "must be unique"
        names.add(one["name"])
    for index, advertisement in enumerate(spec.get("prefixAdvertisements") or []):
        for number, text in enumerate(advertisement["communities"]):
            if text not in names and rules.community(text):
                place = f"prefixAdvertisements[{index}].communities[{number}]"
                yield place, "must be the name of one of communities, aa:nn or aa:nn:mm"


def _workload_addresses(spec: Spec) -> Broken:
    for name, family in (("localWorkloadPeeringIPV4", Family.IPV4), ("localWorkloadPeeringIPV6", Family.IPV6)):
        if given(spec, name) and Address.parse(spec[name]).family is not family:
            yield name, f"must be an {family!s} address"


_CLUSTER_WIDE: Final = ("nodeToNodeMeshEnabled", "asNumber", "nodeMeshPassword", "nodeMeshMaxRestartTime")


def _cluster_wide(name: str, spec: Spec, _annotations: Mapping[str, str]) -> list[tuple[str, str]]:
    if name == "default":
        return []
    return [
        (f"spec.{field}", "belongs to BGPConfiguration default only: it is one for the cluster")
        for field in _CLUSTER_WIDE
        if spec.get(field) is not None
    ]


BGPCONFIGURATION: Final = Kind(
    kind="BGPConfiguration",
    plural="bgpconfigurations",
    short=("bgpconfig", "bgpconfigs"),
    spec=Fields(
        {
            "logSeverityScreen": Choice(("Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None")),
            "nodeToNodeMeshEnabled": Flag(),
            "asNumber": AS_NUMBER,
            "serviceLoadBalancerIPs": _CIDRS,
            "serviceExternalIPs": _CIDRS,
            "serviceClusterIPs": _CIDRS,
            "serviceLoadBalancerAggregation": Choice(("Enabled", "Disabled")),
            "communities": ListOf(
                Fields({"name": Text(most=253), "value": Text(rules.community)}, required=("name", "value"))
            ),
            "prefixAdvertisements": ListOf(
                Fields(
                    {"cidr": Text(rules.cidr()), "communities": ListOf(Text(most=253))},
                    required=("cidr", "communities"),
                )
            ),
            "listenPort": Number(1, 65_535),
            "nodeMeshPassword": SECRET,
            "nodeMeshMaxRestartTime": DURATION,
            "bindMode": Choice(("None", "NodeIP")),
            "ignoredInterfaces": ListOf(Text(rules.interface_glob)),
            "localWorkloadPeeringIPV4": _IP,
            "localWorkloadPeeringIPV6": _IP,
            "programClusterRoutes": Choice(("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")),
            "ipv4NormalRoutePriority": _PRIORITY,
            "ipv6NormalRoutePriority": _PRIORITY,
        },
        rules=(_mesh, _named_communities, _workload_addresses),
    ),
    name_test=DEFAULT_OR_NODE,
    defaults=lambda _: {
        "logSeverityScreen": "Info",
        "nodeToNodeMeshEnabled": True,
        "asNumber": 64512,
        "serviceLoadBalancerAggregation": "Enabled",
        "listenPort": 179,
        "nodeMeshMaxRestartTime": "120s",
        "bindMode": "None",
        "programClusterRoutes": "EnabledNoEncapOnly",
        "ipv4NormalRoutePriority": 1024,
        "ipv6NormalRoutePriority": 1024,
    },
    cross=_cluster_wide,
)

# ------------------------------------------------------------------ BGPFilter


def _cidr_and_operator(rule: Spec) -> Broken:
    if given(rule, "cidr") and not given(rule, "matchOperator"):
        yield "matchOperator", "is required where cidr is given"
    if given(rule, "matchOperator") and not given(rule, "cidr"):
        yield "cidr", "is required where matchOperator is given"
    if rule.get("prefixLength") is not None and not given(rule, "cidr"):
        yield "prefixLength", "needs cidr"


def _operations_accept(rule: Spec) -> Broken:
    if given(rule, "operations") and rule["action"] != "Accept":
        yield "operations", "must be absent where action is Reject: what is rejected is not changed"


def _ordered(lengths: Spec) -> Broken:
    low, high = lengths.get("min"), lengths.get("max")
    if low is not None and high is not None and low > high:
        yield "min", f"must not be larger than max ({high})"


_OPERATION: Final = ("addCommunity", "prependASPath", "setPriority")


def _one_member(operation: dict[str, Any]) -> Broken:
    named = [name for name in _OPERATION if operation.get(name) is not None]
    if len(named) != 1:
        yield "", f"must have exactly one of {', '.join(_OPERATION)}, not {', '.join(named) or 'none'}"


_COMMUNITY: Final = Text(rules.community)
_OPERATIONS: Final = ListOf(
    Fields(
        {
            "addCommunity": Fields({"value": _COMMUNITY}, required=("value",)),
            "prependASPath": Fields({"prefix": ListOf(AS_NUMBER, 1, PREPENDED_MAX)}, required=("prefix",)),
            "setPriority": Fields({"value": _PRIORITY}, required=("value",)),
        },
        rules=(_one_member,),
    ),
    most=OPERATIONS_MAX,
)


def _filter_rules(family: Family) -> Shape:
    length = Number(0, family.bits)

    return ListOf(
        Fields(
            {
                "cidr": Text(rules.cidr(family)),
                "matchOperator": Choice(("Equal", "NotEqual", "In", "NotIn")),
                "prefixLength": Fields({"min": length, "max": length}, rules=(_ordered,)),
                "source": Choice(("RemotePeers",)),
                "interface": Text(rules.interface_glob),
                "peerType": Choice(("eBGP", "iBGP")),
                "communities": Fields({"values": ListOf(_COMMUNITY, 1, 1)}, required=("values",)),
                "asPathPrefix": ListOf(AS_NUMBER),
                "priority": _PRIORITY,
                "action": Choice(("Accept", "Reject")),
                "operations": _OPERATIONS,
            },
            required=("action",),
            rules=(_cidr_and_operator, _operations_accept),
        )
    )


BGPFILTER: Final = Kind(
    kind="BGPFilter",
    plural="BGPFilters",
    short=("bgpf", "bgpfs", "filter", "filters"),
    spec=Fields(
        {
            "exportV4": _filter_rules(Family.IPV4),
            "importV4": _filter_rules(Family.IPV4),
            "exportV6": _filter_rules(Family.IPV6),
            "importV6": _filter_rules(Family.IPV6),
        }
    ),
)
