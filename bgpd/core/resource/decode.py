"""From resources to what decisions need of them. A BGP resource has been judged before (check.py); a Node is read leniently.

The daemon and ``bgpd plan`` read by the same functions, so that a plan says what nodes would do.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, TypeVar

from bgpd.core.resource import annotations as notes
from bgpd.core.resource.rules import given, parse_asn, parse_community, parse_duration, parse_peer_ip
from bgpd.model.bgp import (
    AddCommunity,
    Advertisement,
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    Community,
    FilterRule,
    Operation,
    Operator,
    PrependAsPath,
    SetPriority,
)
from bgpd.model.felix import FelixConfiguration
from bgpd.model.node import Node
from bgpd.model.peer import NextHopMode, Role, SecretRef
from bgpd.model.prefix import Address, Family, Prefix, parse_interface

Resource = Mapping[str, Any]
T = TypeVar("T")

WIREGUARD_KEY_BYTES = 32
KEEPALIVE_MAX_S = 65_535
"""Largest interval that WireGuard takes."""

RESTART_MAX_S = 4095
"""Largest restart time that the capability holds (RFC 4724 section 3)."""


LOG_LEVELS = {
    "Trace": "debug",
    "Debug": "debug",
    "Info": "info",
    "Warning": "warning",
    "Error": "error",
    "Fatal": "critical",
    "None": "critical",
}
"""Calico's severities as ours; there is nothing below debug, and nothing above error."""


def bgp_peer(name: str, resource: Resource) -> BgpPeer:
    """Read a judged BGPPeer."""
    spec, annotations = _spec(resource), _metadata(resource, "annotations")
    address, port, link = parse_peer_ip(spec["peerIP"]) if given(spec, "peerIP") else (None, None, "")
    limit, hold = annotations.get(notes.MAX_PREFIX), annotations.get(notes.HOLD_TIME)
    role = annotations.get(notes.ROLE)
    return BgpPeer(
        name=name,
        node=spec.get("node") or "",
        node_selector=spec.get("nodeSelector") or "",
        address=address,
        port=port,
        interface=link or annotations.get(notes.INTERFACE, ""),
        peer_selector=spec.get("peerSelector") or "",
        workload_selector=spec.get("localWorkloadSelector") or "",
        asn=_asn(spec, "asNumber"),
        local_asn=_asn(spec, "localASNumber"),
        next_hop_mode=NextHopMode(given(spec, "nextHopMode") or NextHopMode.AUTO),
        keep_original_next_hop=bool(spec.get("keepOriginalNextHop")),
        password=_secret(spec.get("password")),
        use_node_ip=given(spec, "sourceAddress") != "None",
        restart_s=_restart_s(spec, "maxRestartTime"),
        keepalive_s=parse_duration(spec["keepaliveTime"]) if given(spec, "keepaliveTime") else None,
        allowed_own_asns=spec.get("numAllowedLocalASNumbers") or 0,
        ttl_security=spec.get("ttlSecurity") or 0,
        reachable_by=Address.parse(spec["reachableBy"]) if given(spec, "reachableBy") else None,
        filters=tuple(spec.get("filters") or ()),
        reverse=given(spec, "reversePeering") != "Manual",
        hold_time_s=notes.parse_hold_time(hold) if hold else None,
        max_prefix=notes.parse_max_prefix(limit) if limit else None,
        role=Role(role) if role else None,
        role_strict=annotations.get(notes.ROLE_STRICT) == "true",
        extended_next_hop=annotations.get(notes.EXTENDED_NEXT_HOP) == "true",
        add_path=notes.ADD_PATH in annotations,
        bfd=notes.parse_bfd(annotations[notes.BFD]) if notes.BFD in annotations else None,
    )


def bgp_configuration(name: str, resource: Resource) -> BgpConfiguration:
    """Read a judged BGPConfiguration."""
    spec = _spec(resource)
    named = {one["name"]: parse_community(one["value"]) for one in spec.get("communities") or ()}
    return BgpConfiguration(
        name=name,
        mesh=spec.get("nodeToNodeMeshEnabled"),
        asn=_asn(spec, "asNumber"),
        listen_port=spec.get("listenPort"),
        mesh_password=_secret(spec.get("nodeMeshPassword")),
        mesh_restart_s=_restart_s(spec, "nodeMeshMaxRestartTime"),
        load_balancer=_cidrs(spec.get("serviceLoadBalancerIPs")),
        external=_cidrs(spec.get("serviceExternalIPs")),
        cluster=_cidrs(spec.get("serviceClusterIPs")),
        advertisements=_advertisements(spec.get("prefixAdvertisements"), named),
        priority_v4=spec.get("ipv4NormalRoutePriority"),
        priority_v6=spec.get("ipv6NormalRoutePriority"),
        workload_v4=Address.parse(spec["localWorkloadPeeringIPV4"])
        if given(spec, "localWorkloadPeeringIPV4")
        else None,
        workload_v6=Address.parse(spec["localWorkloadPeeringIPV6"])
        if given(spec, "localWorkloadPeeringIPV6")
        else None,
        node_ip_only=_choice(spec, "bindMode", {"NodeIP": True, "None": False}),
        ignored_interfaces=tuple(spec["ignoredInterfaces"]) if spec.get("ignoredInterfaces") is not None else None,
        log_level=_choice(spec, "logSeverityScreen", LOG_LEVELS),
        aggregate=_choice(spec, "serviceLoadBalancerAggregation", {"Enabled": True, "Disabled": False}),
    )


def bgp_filter(name: str, resource: Resource) -> BgpFilter:
    """Read a judged BGPFilter."""
    spec = _spec(resource)
    return BgpFilter(
        name=name,
        export_v4=_rules(spec, "exportV4"),
        import_v4=_rules(spec, "importV4"),
        export_v6=_rules(spec, "exportV6"),
        import_v6=_rules(spec, "importV6"),
    )


def node(name: str, resource: Resource) -> Node:
    """Read a Node; raises ValueError naming the field that is not what it must be."""
    spec = _spec(resource)
    bgp = spec.get("bgp")
    bgp = bgp if isinstance(bgp, dict) else {}
    ipv4_address, ipv4_subnet = _interface(bgp, Family.IPV4)
    ipv6_address, ipv6_subnet = _interface(bgp, Family.IPV6)
    cluster = bgp.get("routeReflectorClusterID")
    return Node(
        name=name,
        asn=_asn(bgp, "asNumber"),
        ipv4_address=ipv4_address,
        ipv4_subnet=ipv4_subnet,
        ipv6_address=ipv6_address,
        ipv6_subnet=ipv6_subnet,
        vtep_mac=_mac(spec.get("vxlanTunnelMACAddr")),
        vtep_mac_v6=_mac(spec.get("vxlanTunnelMACAddrV6")),
        wireguard_key=_wireguard_key(resource.get("status")),
        labels=tuple(sorted(_metadata(resource, "labels").items())),
        cluster_id=_read(Address.parse, "routeReflectorClusterID", cluster) if cluster else None,
    )


def _wireguard_key(status: Any) -> str | None:
    """Read the public key; one that is none is as good as absent. Raises nothing."""
    key = status.get("wireguardPublicKey") if isinstance(status, dict) else None
    if not isinstance(key, str):
        return None
    try:
        return key if len(b64decode(key, validate=True)) == WIREGUARD_KEY_BYTES else None
    except ValueError:
        return None


def felix_configuration(name: str, resource: Resource) -> FelixConfiguration:
    """Read a judged FelixConfiguration."""
    spec = _spec(resource)
    keepalive = spec.get("wireguardKeepAlive")
    return FelixConfiguration(
        name=name,
        wireguard_enabled=spec.get("wireguardEnabled"),
        wireguard_enabled_v6=spec.get("wireguardEnabledV6"),
        wireguard_port=spec.get("wireguardListeningPort"),
        wireguard_mtu_bytes=spec.get("wireguardMTU"),
        wireguard_keepalive_s=min(math.ceil(parse_duration(keepalive)), KEEPALIVE_MAX_S) if keepalive else None,
        vxlan_mtu_bytes=spec.get("vxlanMTU"),
        vxlan_mtu_v6_bytes=spec.get("vxlanMTUV6"),
        ipip_mtu_bytes=spec.get("ipipMTU"),
        mtu_interface_pattern=spec.get("mtuIfacePattern") or None,
    )


# ------------------------------------------------------------------ rules of filters


def _rules(spec: Resource, field: str) -> tuple[FilterRule, ...]:
    return tuple(_rule(one) for one in spec.get(field) or ())


def _rule(one: Resource) -> FilterRule:
    lengths = one.get("prefixLength") or {}
    communities = (one.get("communities") or {}).get("values")
    peer_type = given(dict(one), "peerType")
    return FilterRule(
        accept=one["action"] == "Accept",
        cidr=Prefix.parse(one["cidr"]) if one.get("cidr") else None,
        operator=Operator(one.get("matchOperator") or Operator.IN),
        min_length=lengths.get("min"),
        max_length=lengths.get("max"),
        remote_peers=one.get("source") == "RemotePeers",
        interface=one.get("interface") or "",
        external=peer_type == "eBGP" if peer_type else None,
        community=parse_community(communities[0]) if communities else None,
        as_path_prefix=tuple(parse_asn(asn) for asn in one.get("asPathPrefix") or ()),
        priority=one.get("priority"),
        operations=tuple(_operation(operation) for operation in one.get("operations") or ()),
    )


def _operation(one: Resource) -> Operation:
    if one.get("addCommunity") is not None:
        return AddCommunity(parse_community(one["addCommunity"]["value"]))
    if one.get("prependASPath") is not None:
        return PrependAsPath(tuple(parse_asn(asn) for asn in one["prependASPath"]["prefix"]))
    return SetPriority(one["setPriority"]["value"])


# ------------------------------------------------------------------ parts


def _choice(spec: Resource, field: str, words: Mapping[str, T]) -> T | None:
    word = given(dict(spec), field)
    return words[word] if word else None


def _spec(resource: Resource) -> dict[str, Any]:
    spec = resource.get("spec")
    return spec if isinstance(spec, dict) else {}


def _metadata(resource: Resource, field: str) -> dict[str, str]:
    """Return labels or annotations; what is no text is left out."""
    metadata = resource.get("metadata")
    found = metadata.get(field) if isinstance(metadata, dict) else None
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _read(parse: Any, field: str, value: Any) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{field} {value!r}: {error}") from error


def _asn(spec: Resource, field: str) -> int | None:
    value = spec.get(field)
    return None if value in (None, "", 0) else int(_read(parse_asn, field, value))


def _interface(bgp: Resource, family: Family) -> tuple[Address | None, Prefix | None]:
    field = f"ipv{family.value}Address"
    text = bgp.get(field)
    if not text:
        return None, None
    address, subnet = _read(parse_interface, field, text)
    if address.family is not family:
        raise ValueError(f"{field} {text} is of the other family")
    return address, subnet


def _mac(text: Any) -> str | None:
    if not text:
        return None
    parts = str(text).lower().split(":")
    if len(parts) != 6 or any(len(part) != 2 or set(part) - set("0123456789abcdef") for part in parts):
        raise ValueError(f"vxlanTunnelMACAddr {text!r} is not a MAC address")
    return str(text).lower()


def _secret(value: Any) -> SecretRef | None:
    if not value:
        return None
    return SecretRef(value["secretKeyRef"]["name"], value["secretKeyRef"]["key"])


def _restart_s(spec: dict[str, Any], field: str) -> int | None:
    text = given(spec, field)
    return min(RESTART_MAX_S, math.ceil(parse_duration(text))) if text else None


def _cidrs(ranges: Any) -> tuple[Prefix, ...] | None:
    return None if ranges is None else tuple(Prefix.parse(one["cidr"]) for one in ranges)


def _advertisements(found: Any, named: Mapping[str, Community]) -> tuple[Advertisement, ...] | None:
    if found is None:
        return None
    return tuple(
        Advertisement(
            Prefix.parse(one["cidr"]),
            tuple(named[text] if text in named else parse_community(text) for text in one["communities"]),
        )
        for one in found
    )
