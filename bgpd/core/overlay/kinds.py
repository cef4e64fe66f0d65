"""All kinds of tunnels, and what is common to them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bgpd.core.overlay import ipip, vxlan, wireguard
from bgpd.core.overlay.kind import Kind
from bgpd.model.event import LinkChanged
from bgpd.model.felix import NOTHING_SAID, FelixConfiguration
from bgpd.model.forwarding import TUNNEL_DEVICES
from bgpd.model.overlay import Path
from bgpd.model.pool import Fallback, Mode, Pool

KINDS: tuple[Kind, ...] = (vxlan.KIND, ipip.KIND, wireguard.KIND)
BY_PATH: dict[Path, Kind] = {Path(kind.name.value.lower()): kind for kind in KINDS}
BY_NAME: dict[Fallback, Kind] = {kind.name: kind for kind in KINDS}

DEFAULT_MTU_BYTES = 1500
_NOT_AN_UPLINK = frozenset({"lo", *TUNNEL_DEVICES, "tunl0"})
"""``tunl0`` comes with the module ipip, and has its MTU from elsewhere."""
_WORKLOAD_PREFIX = "cali"


def of_device(device: str) -> Kind | None:
    """Return the kind that a device is of."""
    return next((kind for kind in KINDS if device in kind.devices), None)


def wanted(kind: Kind, pools: Iterable[tuple[Pool, tuple[Fallback, ...]]], felix: FelixConfiguration) -> bool:
    """Whether a pool could use *kind*, by its mode, its fallbacks (beside it), or since all pools of its family are to use it."""
    return any(
        kind.mode(pool) is not Mode.NEVER
        or kind.name in fallback
        or (kind is wireguard.KIND and wireguard.enabled(felix, pool.cidr.family))
        for pool, fallback in pools
    )


def of_pool(
    pool: Pool | None, felix: FelixConfiguration = NOTHING_SAID, *, encrypts: bool = False
) -> tuple[Kind | None, Mode]:
    """Return the kind that a pool's mode asks for, and the mode: a pool has one encapsulation at most (core/resource/pools.py).

    Where WireGuard is enabled for its family, and both nodes can use it (*encrypts*), that takes the pool's place, as in Calico.
    """
    if pool is not None and encrypts and wireguard.enabled(felix, pool.cidr.family):
        return wireguard.KIND, Mode.ALWAYS
    if pool is not None:
        for kind in KINDS:
            if kind.mode(pool) is not Mode.NEVER:
                return kind, kind.mode(pool)
    return None, Mode.NEVER


def uplink_mtu_bytes(links: Iterable[LinkChanged], pattern: str | None = None) -> int:
    """Return the smallest MTU of the uplinks, whether they are up or not, so that a device's does not move with carrier.

    *pattern*, a regular expression, says which links are uplinks (mtuIfacePattern); None: all but tunnels and workloads.
    """
    return min(
        (
            link.mtu_bytes
            for link in links
            if link.name not in _NOT_AN_UPLINK
            and not is_workload(link.name)
            and (pattern is None or re.search(pattern, link.name))
        ),
        default=DEFAULT_MTU_BYTES,
    )


def is_workload(device: str) -> bool:
    """Whether a device leads to a workload: Calico's CNI plugin names them so."""
    return device.startswith(_WORKLOAD_PREFIX)
