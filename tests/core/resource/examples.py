"""Right resources: one of each kind with every field that is known, and any number of generated ones."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from bgpd.core.resource import kinds
from bgpd.core.resource.check import API_VERSION
from bgpd.core.resource.kind import Kind

Resource = dict[str, Any]


def resource(kind: str, spec: dict[str, Any], name: str = "default", **metadata: Any) -> Resource:
    return {"kind": kind, "apiVersion": API_VERSION, "metadata": {"name": name, **metadata}, "spec": spec}


_OPERATIONS = [
    {"addCommunity": {"value": "65000:1"}},
    {"addCommunity": {"value": "65000:1:2"}},
    {"prependASPath": {"prefix": [65000, "65000", "1.10"]}},
    {"setPriority": {"value": 2147483646}},
]


def _rules(cidr: str) -> list[dict[str, Any]]:
    return [
        {
            "cidr": cidr,
            "matchOperator": "NotIn",
            "prefixLength": {"min": 0, "max": 32},
            "source": "RemotePeers",
            "interface": "*.calico",
            "peerType": "eBGP",
            "communities": {"values": ["65000:100"]},
            "asPathPrefix": [65001, "1.10"],
            "priority": 512,
            "action": "Accept",
            "operations": _OPERATIONS,
        },
        {"action": "Reject"},
    ]


EVERY_FIELD: dict[str, Resource] = {
    "IPPool": resource(
        "IPPool",
        {
            "cidr": "10.65.0.0/16",
            "blockSize": 28,
            "ipipMode": "Never",
            "vxlanMode": "CrossSubnet",
            "natOutgoing": True,
            "disabled": True,
            "disableBGPExport": True,
            "nodeSelector": "rack == 'a' || has(b)",
            "namespaceSelector": "team in {'x', 'y'}",
            "allowedUses": ["Workload"],
            "assignmentMode": "Manual",
        },
        "main",
        labels={"a/b": "yes"},
        annotations={"bgpd.io/fallback": "None", "note": "any\ntext: 1.10"},
    )
    | {"status": {"conditions": [{"type": "Allocatable", "status": "True", "reason": "OK"}]}},
    "IPReservation": resource("IPReservation", {"reservedCIDRs": ["10.65.0.0/29", "10.65.1.1", "fd00::/64"]}, "r"),
    "IPAMConfiguration": resource(
        "IPAMConfiguration",
        {
            "strictAffinity": True,
            "autoAllocateBlocks": False,
            "maxBlocksPerHost": 7,
            "kubeVirtVMAddressPersistence": "Enabled",
            "ipCooldownSeconds": 60,
        },
    ),
    "BGPConfiguration": resource(
        "BGPConfiguration",
        {
            "logSeverityScreen": "Warning",
            "nodeToNodeMeshEnabled": True,
            "asNumber": "1.10",
            "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}],
            "serviceExternalIPs": [{"cidr": "198.51.100.0/24"}],
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/108"}],
            "serviceLoadBalancerAggregation": "Disabled",
            "communities": [{"name": "local", "value": "65000:1"}, {"name": "large", "value": "65000:1:2"}],
            "prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["local", "large", "1:2"]}],
            "listenPort": 1790,
            "nodeMeshPassword": {"secretKeyRef": {"name": "mesh", "key": "password"}},
            "nodeMeshMaxRestartTime": "1h2m3.5s",
            "bindMode": "NodeIP",
            "ignoredInterfaces": ["docker0", "veth*"],
            "localWorkloadPeeringIPV4": "169.254.1.1",
            "localWorkloadPeeringIPV6": "fe80::1",
            "programClusterRoutes": "EnabledIPIPOnly",
            "ipv4NormalRoutePriority": 1,
            "ipv6NormalRoutePriority": 2147483646,
        },
    ),
    "BGPPeer": resource(
        "BGPPeer",
        {
            "nodeSelector": "rack == 'a'",
            "peerIP": "[fd00::1]:1790",
            "asNumber": 4294967295,
            "localASNumber": "65010",
            "nextHopMode": "Self",
            "password": {"secretKeyRef": {"name": "tor", "key": "a"}},
            "sourceAddress": "None",
            "maxRestartTime": "120s",
            "keepaliveTime": "500ms",
            "numAllowedLocalASNumbers": 2,
            "ttlSecurity": 1,
            "reachableBy": "fd00::ffff",
            "filters": ["f"],
            "reversePeering": "Manual",
        },
        "tor",
    ),
    "BGPFilter": resource(
        "BGPFilter",
        {
            "exportV4": _rules("10.0.0.0/8"),
            "importV4": _rules("0.0.0.0/0"),
            "exportV6": _rules("fd00::/8"),
            "importV6": _rules("::/0"),
        },
        "f",
    ),
    "Node": resource(
        "Node",
        {
            "bgp": {
                "asNumber": 65000,
                "ipv4Address": "192.0.2.17/24",
                "ipv6Address": "2001:db8::17/64",
                "ipv4IPIPTunnelAddr": "10.65.0.1",
                "routeReflectorClusterID": "244.0.0.1",
            },
            "ipv4VXLANTunnelAddr": "10.65.0.2",
            "vxlanTunnelMACAddr": "66:3e:ca:a4:db:65",
            "ipv6VXLANTunnelAddr": "fd00:65::2",
            "vxlanTunnelMACAddrV6": "66:40:18:59:1F:16",
            "wireguard": {"interfaceIPv4Address": "10.65.0.3", "interfaceIPv6Address": "fd00:65::3"},
            "addresses": [{"address": "192.0.2.17/24", "type": "CalicoNodeIP"}, {"address": "203.0.113.9"}],
            "interfaces": [{"name": "eth0", "addresses": ["192.0.2.17"]}],
            "orchRefs": [{"nodeName": "node-a", "orchestrator": "k8s"}],
        },
        "Node_A",
        labels={"rack": "1.10", "spare": "no", "x": ""},
    )
    | {"status": {"wireguardPublicKey": "a" * 44, "wireguardPublicKeyV6": "b" * 44, "podCIDRs": ["10.1.0.0/24"]}},
    "FelixConfiguration": resource(
        "FelixConfiguration",
        {
            "routeRefreshInterval": "1m30s",
            "ipipEnabled": True,
            "ipipMTU": 1480,
            "vxlanEnabled": True,
            "vxlanMTU": 1450,
            "vxlanMTUV6": 1430,
            "vxlanPort": 4789,
            "vxlanVNI": 4096,
            "mtuIfacePattern": "^(eth|bond).*",
            "wireguardEnabled": True,
            "wireguardEnabledV6": False,
            "wireguardListeningPort": 51820,
            "wireguardListeningPortV6": 51821,
            "wireguardMTU": 0,
            "wireguardMTUV6": 1400,
            "wireguardRoutingRulePriority": 99,
            "wireguardKeepAlive": "25s",
            "wireguardHostEncryptionEnabled": False,
            "natPortRange": "32768:65535",
            "natOutgoingAddress": "192.0.2.1",
            "natOutgoingExclusions": "IPPoolsAndHostIPs",
            "deviceRouteSourceAddress": "192.0.2.1",
            "deviceRouteSourceAddressIPv6": "2001:db8::1",
            "removeExternalRoutes": True,
            "programClusterRoutes": "Enabled",
            "routeTableRanges": [{"min": 1, "max": 250}],
            "prometheusMetricsEnabled": True,
            "prometheusMetricsHost": "localhost",
            "prometheusMetricsPort": 9091,
        },
        "node.Node_A",
    ),
}

# ------------------------------------------------------------------ generated

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
TRICKY = st.sampled_from(
    ["yes", "no", "on", "true", "null", "~", "1.10", "010", "1e3", "0x1F", "1:30", "2026-11-24", "-", "", " a "]
)
FIELD = st.text(string.ascii_letters, min_size=1, max_size=6).map(lambda text: f"x{text}")
"""Names that no kind knows."""
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=6,
)
LABELS = st.dictionaries(
    st.text(string.ascii_letters + "-._/", min_size=1, max_size=8)
    | TRICKY.filter(lambda t: t in {"yes", "no", "1.10", "010", "null"}),
    TEXT | TRICKY,
    max_size=3,
)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True)


def _strewn(value: Any, data: st.DataObject) -> Any:
    """Drop some optional fields of objects, and strew in unknown ones."""
    if isinstance(value, list):
        return [_strewn(item, data) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _strewn(item, data) for name, item in value.items()} | data.draw(
        st.dictionaries(FIELD, ANYTHING, max_size=1)
    )


@st.composite
def resources(draw: st.DrawFn, kind: Kind | None = None) -> Resource:
    """Draw a right resource: some fields of the example of its kind, with unknown fields strewn in everywhere."""
    data = draw(st.data())
    chosen = kind or draw(st.sampled_from(kinds.KINDS))
    whole = EVERY_FIELD[chosen.kind]
    linked = {"strictAffinity", "autoAllocateBlocks", "maxBlocksPerHost"} if chosen.view else _LINKED
    optional = [name for name in whole["spec"] if name not in linked]
    kept = draw(st.sets(st.sampled_from(optional))) if optional else set()
    spec = {name: value for name, value in whole["spec"].items() if name in linked or name in kept}
    found = {**whole, "spec": _strewn(spec, data)}
    if not chosen.view:
        name = whole["metadata"]["name"] if chosen.name_test("x") else draw(NAMES)
        metadata: dict[str, Any] = {"name": name, "labels": draw(LABELS), "annotations": draw(LABELS)}
        found["metadata"] = metadata | draw(st.dictionaries(FIELD, ANYTHING, max_size=1))
        found |= draw(st.dictionaries(FIELD, ANYTHING, max_size=1))
    return found


_LINKED = {"cidr", "peerIP", "asNumber", "communities", "allowedUses", "vxlanMode", "ipipMode", "nextHopMode"}
"""Fields that others need, or that Calico's defaults would add."""
