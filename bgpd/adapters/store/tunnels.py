"""A node's tunnel addresses in the store: allocated, named in its Node resource, given back (core/ipam/tunnel.py).

Laws: an address is held by its kind's handle before the Node names it, and the Node names it no more before it is given back, so
whatever a crash leaves, the next pass goes on from there, and nobody else is given an address that a Node names. A pass that
has nothing to change writes nothing. What others keep in the Node stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, KeyValue, Page, Put, Scan, Store, read_all
from bgpd.adapters.store.ipam.assign import AddressRequest, assign, assign_at
from bgpd.adapters.store.ipam.release import counted, release
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import block_from, handle_from, node_from, pool_from
from bgpd.adapters.store.transact import Plan, transact
from bgpd.core.ipam.block import Refused
from bgpd.core.ipam.release import Release
from bgpd.core.ipam.tunnel import TunnelKind, pools_for
from bgpd.model.pool import Pool, Use
from bgpd.model.prefix import Address, Family, parse_interface

FELIX: Final = keys.FELIX_CONFIGURATIONS
_PLACES: Final = {
    TunnelKind.IPIP: ("bgp", "ipv4IPIPTunnelAddr"),
    TunnelKind.VXLAN: ("ipv4VXLANTunnelAddr",),
    TunnelKind.VXLAN_V6: ("ipv6VXLANTunnelAddr",),
    TunnelKind.WIREGUARD: ("wireguard", "interfaceIPv4Address"),
    TunnelKind.WIREGUARD_V6: ("wireguard", "interfaceIPv6Address"),
}
"""Where a Node's spec names each."""


class _Bgp(msgspec.Struct):
    ipip: str | None = msgspec.field(default=None, name="ipv4IPIPTunnelAddr")


class _Wireguard(msgspec.Struct):
    ipv4: str | None = msgspec.field(default=None, name="interfaceIPv4Address")
    ipv6: str | None = msgspec.field(default=None, name="interfaceIPv6Address")


class _NodeSpec(msgspec.Struct):
    bgp: _Bgp | None = None
    wireguard: _Wireguard | None = None
    vxlan: str | None = msgspec.field(default=None, name="ipv4VXLANTunnelAddr")
    vxlan_v6: str | None = msgspec.field(default=None, name="ipv6VXLANTunnelAddr")


class _NodeResource(msgspec.Struct):
    spec: _NodeSpec | None = None


def tunnel_addresses(key: str, value: bytes) -> dict[TunnelKind, Address]:
    """Read the tunnel addresses of a Node resource; raises Malformed."""
    spec = _decode(key, value, _NodeResource).spec or _NodeSpec()
    bgp, wireguard = spec.bgp or _Bgp(), spec.wireguard or _Wireguard()
    texts = {
        TunnelKind.IPIP: bgp.ipip,
        TunnelKind.VXLAN: spec.vxlan,
        TunnelKind.VXLAN_V6: spec.vxlan_v6,
        TunnelKind.WIREGUARD: wireguard.ipv4,
        TunnelKind.WIREGUARD_V6: wireguard.ipv6,
    }
    try:
        return {kind: parse_interface(text)[0] for kind, text in texts.items() if text}
    except ValueError as error:
        raise Malformed(key, f"a tunnel address: {error}") from error


class Outcome(msgspec.Struct, frozen=True):
    """What became of one tunnel address; where nothing did, there is no outcome."""

    kind: TunnelKind
    address: Address | None
    """None: the node has none now."""
    reason: str = ""
    """Why it has none though it needs one."""


async def settle(store: Store, node: str) -> tuple[Outcome, ...]:
    """Let *node* have the tunnel addresses that it needs, and no others; nothing while it has no Node resource.

    Raises Transient and Malformed; calling it again goes on where it ended.
    """
    node_key = keys.node_key(node)
    handles = [keys.handle_key(kind.handle(node)) for kind in TunnelKind]
    felix = [FELIX + "default", f"{FELIX}node.{node}"]
    reading = await store.read([Scan(keys.POOLS), node_key, *felix, *handles])
    items = [page.items[0] if page.items else None for page in reading.pages[1:]]
    me = items[0]
    if me is None:
        return ()
    pools = await _pools(store, reading.pages[0], reading.revision)
    labels = dict(node_from(node_key, node, me.value).labels)
    wireguard = _wireguard(items[1:3])
    stated = tunnel_addresses(node_key, me.value)
    found: list[Outcome] = []
    for kind, item in zip(TunnelKind, items[3:], strict=True):
        wanted = pools_for(kind, pools, labels, wireguard=wireguard)
        held = await _held(store, kind.handle(node), item)
        if wanted or held or kind in stated:
            outcome = await _one(store, node, kind, pools=wanted, held=held, stated=stated.get(kind))
            found += [outcome] if outcome is not None else []
    return tuple(found)


async def _one(
    store: Store,
    node: str,
    kind: TunnelKind,
    *,
    pools: Sequence[Pool],
    held: Sequence[Address],
    stated: Address | None,
) -> Outcome | None:
    """Settle one kind: give back what does not fit, take what is missing, and let the Node say what is so."""
    fitting = [address for address in held if any(pool.cidr.holds(address) for pool in pools)]
    keep = stated if stated in fitting else next(iter(fitting), None)
    surplus = [address for address in held if address != keep]
    if surplus or not pools:
        if stated is not None and stated != keep:
            await _state(store, node, kind, None)
        wishes = [Release(address=address, handle_id=kind.handle(node)) for address in surplus]
        refused = await release(store, wishes) if wishes else None
        if isinstance(refused, Refused):
            return Outcome(kind, keep, refused.reason)
    if not pools:
        return Outcome(kind, None)
    address = keep if keep is not None else await _take(store, node, kind, pools, stated)
    if isinstance(address, Refused):
        # The Node may name an address that is another's, or of a pool that is gone.
        if stated is not None:
            await _state(store, node, kind, None)
        return Outcome(kind, None, address.reason)
    if address == stated:
        return None
    await _state(store, node, kind, address)
    return Outcome(kind, address)


async def _take(
    store: Store, node: str, kind: TunnelKind, pools: Sequence[Pool], stated: Address | None
) -> Address | Refused:
    """Allocate: the address that the Node names already, if it is free and fits; else any."""
    request = AddressRequest(
        node=node,
        handle_id=kind.handle(node),
        attributes={"type": kind.value},
        ipv4=int(kind.family is Family.IPV4),
        ipv6=int(kind.family is Family.IPV6),
        use=Use.TUNNEL,
        pools=tuple(pool.name for pool in pools),
    )
    if stated is not None and any(pool.cidr.holds(stated) for pool in pools):
        same = await assign_at(store, request, stated)
        if not isinstance(same, Refused):
            return same
    answer = await assign(store, request)
    return answer if isinstance(answer, Refused) else answer.addresses[0]


async def _held(store: Store, handle_id: str, item: KeyValue | None) -> tuple[Address, ...]:
    """Return the addresses that a handle has by the blocks that it counts."""
    if item is None:
        return ()
    block_keys = {cidr: keys.block_key(cidr) for cidr in counted(handle_from(item.key, handle_id, item.value))}
    found: list[Address] = []
    for (cidr, key), page in zip(block_keys.items(), (await store.read([*block_keys.values()])).pages, strict=True):
        if page.items:
            found += block_from(key, cidr, page.items[0].value).held_by(handle_id)
    return tuple(found)


async def _state(store: Store, node: str, kind: TunnelKind, address: Address | None) -> None:
    """Let the Node name *address*, or none."""
    key = keys.node_key(node)

    async def decide() -> Plan[None]:
        item = await store.get(key)
        if item is None:
            return Plan(None)
        resource = _object(key, item.value)
        *path, name = _PLACES[kind]
        place = resource.setdefault("spec", {})
        for step in path:
            place = place.setdefault(step, {})
        if place.get(name) == (str(address) if address is not None else None):
            return Plan(None)
        if address is None:
            del place[name]
        else:
            place[name] = str(address)
        return Plan(None, (Compare(key, item.mod_revision),), (Put(key, msgspec.json.encode(resource)),))

    await transact(store, decide)


def _object(key: str, value: bytes) -> dict[str, Any]:
    """Read a Node that can be written to; raises Malformed."""
    tunnel_addresses(key, value)  # what stands on the way to an address is an object, or absent
    found: dict[str, Any] = msgspec.json.decode(value)
    spec = found.get("spec") or {}
    found["spec"] = {name: part for name, part in spec.items() if part is not None or name not in {"bgp", "wireguard"}}
    return found


async def _pools(store: Store, page: Page, revision: int) -> list[Pool]:
    """Read the pools on to the end. Raises Malformed: by a pool that cannot be read nothing may be given back."""
    items = list(page.items)
    if page.more:
        items = [item async for item in read_all(store, keys.POOLS, revision)]
    return [pool_from(item.key, item.key.removeprefix(keys.POOLS), item.value) for item in items]


class _FelixSpec(msgspec.Struct):
    ipv4: bool | None = msgspec.field(default=None, name="wireguardEnabled")
    ipv6: bool | None = msgspec.field(default=None, name="wireguardEnabledV6")


class _Felix(msgspec.Struct):
    spec: _FelixSpec | None = None


def _wireguard(items: Sequence[KeyValue | None]) -> dict[Family, bool]:
    """Return for which families WireGuard is on; of *items*, a later one overrides. Raises Malformed."""
    specs = [
        (_decode(item.key, item.value, _Felix).spec if item is not None else None) or _FelixSpec() for item in items
    ]
    return {
        Family.IPV4: bool(next((one.ipv4 for one in reversed(specs) if one.ipv4 is not None), False)),
        Family.IPV6: bool(next((one.ipv6 for one in reversed(specs) if one.ipv6 is not None), False)),
    }


def _decode(key: str, value: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(key, str(error)) from error
