"""All kinds of tunnels, and what is common to them."""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.core.overlay import ipip, vxlan
from bgpd.core.overlay.kind import Kind
from bgpd.model.event import LinkChanged
from bgpd.model.forwarding import TUNNEL_DEVICES
from bgpd.model.pool import Fallback, Mode, Pool

KINDS: tuple[Kind, ...] = (vxlan.KIND, ipip.KIND)
BY_NAME: dict[Fallback, Kind] = {kind.name: kind for kind in KINDS}

DEFAULT_MTU_BYTES = 1500
_NOT_AN_UPLINK = frozenset({"lo", *TUNNEL_DEVICES, "tunl0"})
"""``tunl0`` comes with the module ipip, and has its MTU from elsewhere."""
_WORKLOAD_PREFIX = "cali"


def of_pool(pool: Pool | None) -> tuple[Kind | None, Mode]:
    """Return the kind that a pool's mode asks for, and the mode: a pool has one encapsulation at most (core/resource/pools.py)."""
    if pool is not None:
        for kind in KINDS:
            if kind.mode(pool) is not Mode.NEVER:
                return kind, kind.mode(pool)
    return None, Mode.NEVER


def uplink_mtu_bytes(links: Iterable[LinkChanged]) -> int:
    """Return the smallest MTU of the uplinks, whether they are up or not, so that a device's does not move with carrier."""
    return min(
        (
            link.mtu_bytes
            for link in links
            if link.name not in _NOT_AN_UPLINK and not link.name.startswith(_WORKLOAD_PREFIX)
        ),
        default=DEFAULT_MTU_BYTES,
    )
