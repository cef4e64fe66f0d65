"""Rules of a configuration that no single type can say: what a value means, and what holds between values.

Each rule yields (path, rule) for what it finds wrong and never looks at a value that another rule has rejected as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from bgpd.adapters.netlink.protocols import PROTOCOLS
from bgpd.adapters.store.open import access_defects, open_store
from bgpd.config.schema import (
    HASH,
    NAME_PATTERN,
    AnnounceSection,
    CheckSection,
    FallbackSection,
    KernelSection,
    MetricsSection,
    MqttSection,
    NodeSection,
    PeerSection,
    PoolSection,
    Section,
    StoreSection,
)
from bgpd.core.resource import rules
from bgpd.core.resource.rules import label_name
from bgpd.core.resource.rules import name as resource_name
from bgpd.model.forwarding import MAIN_TABLE
from bgpd.model.node import AddressMethod
from bgpd.model.pool import NO_FALLBACK, parse_preference
from bgpd.model.prefix import Address, Family, Prefix, parse_interface

Finding = tuple[str, str]
T = TypeVar("T")

_RESERVED_ASNS = {
    23456: "AS 23456 stands for 4-byte AS numbers towards old speakers (RFC 6793): it is nobody's",
    65535: "AS 65535 is reserved (RFC 7300)",
}
_BLOCK_SIZES = {Family.IPV4: (20, 32, 26), Family.IPV6: (116, 128, 122)}
"""Smallest, largest and default block size (Calico: IPPool.spec.blockSize)."""
_LINK_LOCAL = (Prefix.parse("169.254.0.0/16"), Prefix.parse("fe80::/10"))


LOCAL_TABLE = 255
LEAST_MTU_BYTES = 1280

METHODS = "first-found, interface=NAMES, can-reach=ADDRESS or cidr=CIDRS"


def findings(sections: Mapping[str, Section]) -> Iterator[Finding]:
    """Yield all that is wrong with well-typed sections, given by their path in the file; absent ones are not judged."""
    checks = {section.name for section in sections.values() if isinstance(section, CheckSection)}
    own_asn = next((section.asn for section in sections.values() if isinstance(section, NodeSection)), None)
    for path, section in sections.items():
        match section:
            case NodeSection():
                yield from _node(section)
            case StoreSection():
                yield from _store(section)
            case PoolSection():
                yield from _pool(section)
            case PeerSection():
                yield from _peer(path, section, own_asn)
            case MqttSection():
                yield from _mqtt(section)
            case MetricsSection():
                yield from _http(path, section)
            case KernelSection():
                yield from _kernel(section)
            case AnnounceSection():
                yield from _announce(path, section, checks)
            case CheckSection():
                yield from _check(path, section)
            case FallbackSection():
                yield from _fallback(section)
            case _:
                continue
    peers = {path: section for path, section in sections.items() if isinstance(section, PeerSection)}
    yield from _unique(peers, "name", lambda peer: peer.name)
    yield from _unique(peers, "address", lambda peer: peer.address.on(peer.interface))
    yield from _announced_once(sections)


def _announced_once(sections: Mapping[str, Section]) -> Iterator[Finding]:
    names: dict[str, str] = {}
    prefixes: dict[Prefix, str] = {}
    for path, section in sections.items():
        if isinstance(section, CheckSection) and names.setdefault(section.name, path) != path:
            yield f"{path}.name", f"must be unique: {names[section.name]} has it, too"
        if isinstance(section, AnnounceSection):
            for index, prefix in enumerate(section.prefixes):
                place = f"{path}.prefixes[{index}]"
                if prefixes.setdefault(prefix, place) != place:
                    yield place, f"must be announced once only: {prefixes[prefix]} has it, too"


def _fallback(fallback: FallbackSection) -> Iterator[Finding]:
    yield from _preference("fallback.kind", fallback.kind)
    if fallback.restore_ceiling_s < fallback.restore_after_s:
        yield "fallback.restore_ceiling_s", f"must be at least restore_after_s ({fallback.restore_after_s:g})"


def _kernel(kernel: KernelSection) -> Iterator[Finding]:
    owner = PROTOCOLS.get(kernel.protocol)
    if owner is not None:
        yield "kernel.protocol", f"marks the routes of {owner}: ours would be taken for its, and its for ours"
    if kernel.vrf is not None and kernel.table != MAIN_TABLE:
        yield "kernel.table", f"a VRF has a table of its own: leave it away, or vrf ({kernel.vrf})"
    if kernel.rule_priority and (kernel.vrf is not None or kernel.table == MAIN_TABLE):
        why = (
            "a VRF leads to its table by itself"
            if kernel.vrf is not None
            else "the kernel has a rule for the main table"
        )
        yield "kernel.rule_priority", f"{why}: leave it away, or name a table of our own"
    if kernel.table == LOCAL_TABLE:
        yield "kernel.table", f"{LOCAL_TABLE} is the kernel's own table of local addresses"
    if kernel.mtu_bytes and kernel.mtu_bytes < LEAST_MTU_BYTES:
        yield "kernel.mtu_bytes", f"must be 0 or at least {LEAST_MTU_BYTES} (RFC 8200 section 5)"
    for family, address in ((Family.IPV4, kernel.source_ipv4), (Family.IPV6, kernel.source_ipv6)):
        if address is not None and address.family is not family:
            yield f"kernel.source_{family.name.lower()}", f"must be an {family.name.replace('IPV', 'IPv')} address"


def _http(name: str, section: MetricsSection) -> Iterator[Finding]:
    if (section.user is None) != (section.password is None):
        yield f"{name}.user", "user and password go together"
    if (section.certificate is None) != (section.key is None):
        yield f"{name}.certificate", "certificate and key go together"
    here = str(section.address) in {"127.0.0.1", "::1"}
    if section.password is not None and section.certificate is None and not here:
        yield (
            f"{name}.password",
            "would go over the network unencrypted: give certificate and key, or listen on 127.0.0.1",
        )
    if name == "web" and section.port and section.password is None and not here:
        yield (
            "web.address",
            "would show everything to everybody there: give user and password, with certificate and key, or listen on 127.0.0.1",
        )


def _mqtt(mqtt: MqttSection) -> Iterator[Finding]:
    if (mqtt.user is None) != (mqtt.password is None):
        yield "mqtt.user", "user and password go together"
    if (mqtt.certificate is None) != (mqtt.key is None):
        yield "mqtt.certificate", "certificate and key go together"
    if not mqtt.tls and (mqtt.ca is not None or mqtt.certificate is not None):
        yield "mqtt.tls", "must be true for ca, certificate and key to be used"


def _preference(path: str, text: str | None) -> Iterator[Finding]:
    try:
        parse_preference(NO_FALLBACK if text is None else text)
    except ValueError as error:
        yield path, f"{error}; write kinds in order of preference, such as 'IPIP, VXLAN'"


def _store(store: StoreSection) -> Iterator[Finding]:
    try:
        open_store(store.url, store.access())
    except ValueError as error:
        yield "store.url", str(error)
        return
    for name, rule in access_defects(store.url, store.access()):
        yield f"store.{name}", rule


def _node(node: NodeSection) -> Iterator[Finding]:
    yield from _asn("node.asn", node.asn)
    if not re.fullmatch(NAME_PATTERN, node.name):
        yield "node.name", f"is required: the host name {node.name!r} will not do as a name"
    for name in node.labels:
        if rule := label_name(name):
            yield f"node.labels.{name}", rule
    if node.router_id is not None and (reason := _router_id(node.router_id)):
        yield "node.router_id", reason
    if node.address_ipv6 is not None and (reason := _second_address(node.address_ipv6)):
        yield "node.address_ipv6", reason
    try:
        if AddressMethod.parse(node.address) is not None:
            return
        address, _ = parse_interface(node.address)
    except ValueError as error:
        yield "node.address", f"{error}; write ADDRESS/LENGTH, such as 10.0.0.1/32, or {METHODS}"
        return
    if reason := _not_unicast(address):
        yield "node.address", reason
    if node.address_ipv6 is not None and address.family is Family.IPV6:
        yield "node.address_ipv6", "is for a node whose node.address is of IPv4"
    if node.router_id is None and address.family is Family.IPV6:
        yield "node.router_id", "is required where node.address is an IPv6 address"


def _second_address(text: str) -> str:
    try:
        address, _ = parse_interface(text)
    except ValueError as error:
        return f"{error}; write ADDRESS/LENGTH, such as fd00::1/64"
    return _not_unicast(address) or ("" if address.family is Family.IPV6 else "must be an IPv6 address")


def _router_id(text: str) -> str:
    rule = f'must be written as an IPv4 address other than 0.0.0.0 (RFC 6286), or "{HASH}"'
    try:
        address = Address.parse(text)
    except ValueError:
        return "" if text == HASH else rule
    return rule if address.family is not Family.IPV4 or address == 0 else ""


def _announce(path: str, section: AnnounceSection, checks: Collection[str]) -> Iterator[Finding]:
    if not section.prefixes:
        yield f"{path}.prefixes", "must name at least one prefix"
    for index, text in enumerate(section.communities):
        if reason := rules.community(text):
            yield f"{path}.communities[{index}]", reason
    if section.check is not None and section.check not in checks:
        yield f"{path}.check", "must be the name of a [[check]]: nothing is announced on a check that is not made"


def _check(path: str, section: CheckSection) -> Iterator[Finding]:
    given = [name for name in ("command", "tcp", "http") if getattr(section, name)]
    if len(given) != 1:
        yield path, f"must have exactly one of command, tcp and http, not {', '.join(given) or 'none'}"
    if section.tcp is not None and (reason := _endpoint(section.tcp)):
        yield f"{path}.tcp", reason
    if section.http is not None and urlsplit(section.http).scheme not in {"http", "https"}:
        yield f"{path}.http", "must be a URL that begins with http:// or https://"
    if section.command and not section.command[0].startswith("/"):
        yield f"{path}.command", "must begin with an absolute path, such as /usr/bin/dig"


def _endpoint(text: str) -> str:
    rule = "must be ADDRESS:PORT, or [ADDRESS]:PORT for IPv6"
    try:
        return "" if rules.parse_peer_ip(text)[1] is not None else rule
    except ValueError:
        return rule


def _pool(pool: PoolSection) -> Iterator[Finding]:
    if rule := resource_name(pool.name):
        yield "pool.name", rule
    yield from _preference("pool.fallback", pool.fallback)
    low, high, default = _BLOCK_SIZES[pool.cidr.family]
    size = default if pool.block_size is None else pool.block_size
    if not low <= size <= high:
        yield "pool.block_size", f"must be {low} to {high} for an {pool.cidr.family!s} pool"
    elif size < pool.cidr.length:
        yield "pool.block_size", f"a block (/{size}) must not be larger than its pool {pool.cidr}"
    if any(net.covers(pool.cidr) or pool.cidr.covers(net) for net in _LINK_LOCAL):
        yield "pool.cidr", "must not overlap the link-local ranges 169.254.0.0/16 and fe80::/10"
    if reason := _not_unicast(pool.cidr.network):
        yield "pool.cidr", reason


def _peer(path: str, peer: PeerSection, own_asn: int | None) -> Iterator[Finding]:
    yield from _asn(f"{path}.asn", peer.asn)
    if reason := _not_unicast(peer.address):
        yield f"{path}.address", reason
    if reason := _not_unicast(peer.local_address):
        yield f"{path}.local_address", reason
    if peer.local_address.family is not peer.address.family:
        yield f"{path}.local_address", f"must be an {peer.address.family!s} address, as the peer's {peer.address} is"
    elif peer.local_address == peer.address:
        yield f"{path}.address", "must not be our own address"
    if peer.hold_time_s in {1, 2}:
        yield f"{path}.hold_time_s", "must be 0 (no keepalives) or at least 3 (RFC 4271 section 4.2)"
    if peer.role_strict and peer.role is None:
        yield f"{path}.role_strict", "needs role: our own (RFC 9234)"
    if peer.role is not None and peer.asn == own_asn:
        yield f"{path}.role", "is of sessions with another AS only (RFC 9234)"
    if len(set(peer.filters)) != len(peer.filters):
        yield f"{path}.filters", "must name each filter once"
    yield from _link(path, peer)
    if not peer.families:
        yield f"{path}.families", "must name at least one of ipv4, ipv6"
    elif len(set(peer.families)) != len(peer.families):
        yield f"{path}.families", "must name each family once"


def _link(path: str, peer: PeerSection) -> Iterator[Finding]:
    if peer.address.link:
        yield f"{path}.address", f"must be {peer.address.plain}: its link stands in interface"
    elif peer.address.is_link_local and not peer.interface:
        yield f"{path}.interface", f"must name the link that {peer.address} is on"
    if peer.ttl_security and peer.multihop_ttl:
        yield f"{path}.ttl_security", "must not stand beside multihop_ttl: it sends with TTL 255 itself (RFC 5082)"
    if peer.passive and not peer.listen_port:
        yield f"{path}.listen_port", "must not be 0: a passive peer is waited for there"
    if peer.extended_next_hop and peer.address.family is not Family.IPV6:
        yield f"{path}.extended_next_hop", "needs a session over IPv6: the session's address is the next hop (RFC 8950)"


def _asn(path: str, asn: int) -> Iterator[Finding]:
    if asn in _RESERVED_ASNS:
        yield path, _RESERVED_ASNS[asn]


def _unique(peers: Mapping[str, PeerSection], field: str, value: Callable[[PeerSection], T]) -> Iterator[Finding]:
    first: dict[T, str] = {}
    for path, peer in peers.items():
        before = first.setdefault(value(peer), path)
        if before != path:
            yield f"{path}.{field}", f"must be unique: {before} has it, too"


def _not_unicast(address: Address) -> str:
    """Say why an address is nobody's; empty for a unicast address."""
    if address.family is Family.IPV4:
        first = address >> 24
        if first in {0, 127} or first >= 224:
            return "must be a unicast address, not one of 0.0.0.0/8, 127.0.0.0/8 or 224.0.0.0/3"
    elif address in {Address.parse("::"), Address.parse("::1")} or address.packed[0] == 0xFF:
        return "must be a unicast address, not ::, ::1 or one of ff00::/8"
    return ""
