"""MTUs: what the uplinks carry, and what is left of it in any overlay that could come into use (Calico: felix/dataplane/linux).

A pool's MTU is that of its narrowest way: native, or any tunnel that its mode or its fallbacks may bring. Its blocks' routes have it,
whichever way they go now, so that a switch of the way changes no path MTU, and workloads are made with the smallest one of all pools.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bgpd.core.overlay import ipip, kinds
from bgpd.core.overlay.kind import Here, Kind
from bgpd.model.forwarding import VXLAN_DEVICE, VXLAN_V6_DEVICE
from bgpd.model.pool import Fallback, Pool
from bgpd.model.prefix import Family

_ANY_KEY = "-"
"""Stands for a WireGuard key that is not made yet: it has no part in an MTU."""


class Mtu(msgspec.Struct, frozen=True):
    uplink_bytes: int
    """The smallest one of the uplinks."""
    workload_bytes: int
    """What a workload may send wherever it goes, whichever overlay comes into use."""
    pools: dict[str, int]
    """By the name of the pool: of the routes to its blocks."""


def work_out(here: Here, pools: Iterable[tuple[Pool, tuple[Fallback, ...]]]) -> Mtu:
    """Work out the MTUs of *pools*, each beside the kinds that it may fall back to. O(pools)."""
    keyed = msgspec.structs.replace(
        here, me=msgspec.structs.replace(here.me, wireguard_key=here.me.wireguard_key or _ANY_KEY)
    )
    rooms = {kind.name: {name: device.mtu_bytes for name, device in kind.make(keyed).items()} for kind in kinds.KINDS}
    found: dict[str, int] = {}
    for pool, fallback in pools:
        used = [kind for kind in kinds.KINDS if kinds.wanted(kind, [(pool, fallback)], here.felix)]
        narrow = [_room(kind, rooms[kind.name], pool.cidr.family) for kind in used]
        found[pool.name] = min([here.uplink_mtu_bytes, *(room for room in narrow if room is not None)])
    return Mtu(here.uplink_mtu_bytes, min(found.values(), default=here.uplink_mtu_bytes), found)


def _room(kind: Kind, rooms: dict[str, int], family: Family) -> int | None:
    """Return the MTU of the narrowest device of *kind* that carries *family*; None if none does."""
    if kind is ipip.KIND and family is Family.IPV6:
        return None
    spared = VXLAN_V6_DEVICE if family is Family.IPV4 and VXLAN_DEVICE in rooms else None
    return min((room for name, room in rooms.items() if name != spared), default=None)
