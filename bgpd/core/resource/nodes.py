"""Node and FelixConfiguration (calico.md 2.4, 3; calico-formats.md). Of the latter, what bgpd honours is judged; the rest is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bgpd.core.resource import rules
from bgpd.core.resource.kind import DEFAULT_OR_NODE, Kind, Spec
from bgpd.core.resource.rules import AS_NUMBER, DURATION, given
from bgpd.core.resource.schema import Choice, Fields, Flag, ListOf, Number, Tested, Text
from bgpd.model.prefix import Address, Family

Broken = Iterator[tuple[str, str]]
_V4: Final = Text(rules.address(Family.IPV4))
_V6: Final = Text(rules.address(Family.IPV6))
_PORT: Final = Number(1, 65_535)
_MTU: Final = Number(0, 65_535)
"""0: worked out from the interfaces."""


def _some_address(bgp: Spec) -> Broken:
    if not given(bgp, "ipv4Address") and not given(bgp, "ipv6Address"):
        yield "ipv4Address", "is required, or ipv6Address: a node without an address has no BGP"


def _host(text: Any) -> str:
    """An address, with or without the length of its subnet."""
    return rules.address()(text.partition("/")[0])


NODE: Final = Kind(
    kind="Node",
    plural="nodes",
    short=("no", "nos"),
    name_test=rules.node_name,
    spec=Fields(
        {
            "bgp": Fields(
                {
                    "asNumber": AS_NUMBER,
                    "ipv4Address": Text(rules.interface(Family.IPV4)),
                    "ipv6Address": Text(rules.interface(Family.IPV6)),
                    "ipv4IPIPTunnelAddr": _V4,
                    "routeReflectorClusterID": _V4,
                },
                rules=(_some_address,),
            ),
            "ipv4VXLANTunnelAddr": _V4,
            "vxlanTunnelMACAddr": Text(rules.mac),
            "ipv6VXLANTunnelAddr": _V6,
            "vxlanTunnelMACAddrV6": Text(rules.mac),
            "wireguard": Fields({"interfaceIPv4Address": _V4, "interfaceIPv6Address": _V6}),
            "addresses": ListOf(
                Fields(
                    {"address": Text(_host), "type": Choice(("CalicoNodeIP", "InternalIP", "ExternalIP"))},
                    required=("address",),
                )
            ),
            "interfaces": ListOf(
                Fields({"name": Text(most=15), "addresses": ListOf(Text(_host))}, required=("name",)),
            ),
            "orchRefs": ListOf(Fields({"nodeName": Text(), "orchestrator": Text()}, required=("orchestrator",))),
        }
    ),
    status=Fields(
        {
            "wireguardPublicKey": Text(most=44),
            "wireguardPublicKeyV6": Text(most=44),
            "podCIDRs": ListOf(Text(rules.cidr())),
        }
    ),
)

# ------------------------------------------------------------------ FelixConfiguration

ROUTE_TABLES_MAX: Final = 0xFFFFFFFF


def _port_range(value: Any) -> str:
    """A port, or ``first:last``."""
    rule = "must be a port or a range such as 32768:65535"
    if isinstance(value, bool) or not isinstance(value, int | str):
        return rule
    parts = str(value).split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdecimal() and len(part) <= 5 for part in parts):
        return rule
    numbers = [int(part) for part in parts]
    return "" if all(0 <= number <= 65_535 for number in numbers) and numbers[0] <= numbers[-1] else rule


def _tables(one: Spec) -> Broken:
    low, high = one["min"], one["max"]
    if low > high:
        yield "min", f"must not be larger than max ({high})"


def _sources(spec: Spec) -> Broken:
    for name, family in (
        ("deviceRouteSourceAddress", Family.IPV4),
        ("natOutgoingAddress", Family.IPV4),
        ("deviceRouteSourceAddressIPv6", Family.IPV6),
    ):
        if given(spec, name) and Address.parse(spec[name]).family is not family:
            yield name, f"must be an {family!s} address"


_ADDRESS: Final = Text(rules.address())

FELIXCONFIGURATION: Final = Kind(
    kind="FelixConfiguration",
    plural="felixconfigurations",
    short=("felixconfig", "felixconfigs"),
    name_test=DEFAULT_OR_NODE,
    spec=Fields(
        {
            "routeRefreshInterval": DURATION,
            "ipipEnabled": Flag(),
            "ipipMTU": _MTU,
            "vxlanEnabled": Flag(),
            "vxlanMTU": _MTU,
            "vxlanMTUV6": _MTU,
            "vxlanPort": _PORT,
            "vxlanVNI": Number(1, 0xFFFFFF),
            "mtuIfacePattern": Text(rules.regex),
            "wireguardEnabled": Flag(),
            "wireguardEnabledV6": Flag(),
            "wireguardListeningPort": _PORT,
            "wireguardListeningPortV6": _PORT,
            "wireguardMTU": _MTU,
            "wireguardMTUV6": _MTU,
            "wireguardRoutingRulePriority": Number(1, 32_765),
            "wireguardKeepAlive": DURATION,
            "wireguardHostEncryptionEnabled": Flag(),
            "natPortRange": Tested(_port_range),
            "natOutgoingAddress": _ADDRESS,
            "natOutgoingExclusions": Choice(("IPPoolsOnly", "IPPoolsAndHostIPs")),
            "deviceRouteSourceAddress": _ADDRESS,
            "deviceRouteSourceAddressIPv6": _ADDRESS,
            "removeExternalRoutes": Flag(),
            "programClusterRoutes": Choice(("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")),
            "routeTableRanges": ListOf(
                Fields(
                    {"min": Number(1, ROUTE_TABLES_MAX), "max": Number(1, ROUTE_TABLES_MAX)},
                    required=("min", "max"),
                    rules=(_tables,),
                )
            ),
            "prometheusMetricsEnabled": Flag(),
            "prometheusMetricsHost": Text(most=253),
            "prometheusMetricsPort": _PORT,
        },
        rules=(_sources,),
    ),
    defaults=lambda _: {
        "routeRefreshInterval": "90s",
        "vxlanPort": 4789,
        "vxlanVNI": 4096,
        "wireguardEnabled": False,
        "wireguardEnabledV6": False,
        "wireguardListeningPort": 51_820,
        "wireguardListeningPortV6": 51_821,
        "wireguardRoutingRulePriority": 99,
        "wireguardHostEncryptionEnabled": False,
        "natOutgoingExclusions": "IPPoolsOnly",
        "prometheusMetricsEnabled": False,
        "prometheusMetricsPort": 9091,
    },
)
