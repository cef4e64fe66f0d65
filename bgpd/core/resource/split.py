"""Splitting a pool into smaller ones of the same kind (Calico: calicoctl/calicoctl/commands/ipam/split.go).

Nothing but the pool changes: blocks and addresses lie where they lay, each within one of the parts, and a part is what the pool was
but for its name and range.
"""

from __future__ import annotations

from typing import Any

from bgpd.core.resource.check import Resource
from bgpd.core.resource.pools import IPPOOL
from bgpd.model.prefix import Address, Prefix

PARTS_MAX = 64
"""Parts of one split: they are written, and compared, in one transaction."""
_OF_THE_WHOLE = frozenset({"uid", "creationTimestamp", "resourceVersion", "generation", "finalizers", "name"})
"""Metadata that is one object's own."""


def split(pool: Resource, parts: int) -> list[Resource] | str:
    """Return the resources of the parts, named ``split-<name>-<i>``; or why the pool cannot be split so."""
    name, spec = pool["metadata"]["name"], pool["spec"]
    cidr = Prefix.parse(spec["cidr"])
    block_size = spec.get("blockSize") or IPPOOL.defaults(spec)["blockSize"]
    length = cidr.length + parts.bit_length() - 1
    if parts < 2 or parts > PARTS_MAX or parts & parts - 1:
        return f"a pool is split into 2, 4, 8 … {PARTS_MAX} parts, not into {parts}"
    if length > block_size:
        return f"pool {name} ({cidr}) has {1 << max(0, block_size - cidr.length)} blocks of /{block_size}, fewer than {parts}"
    size = 1 << cidr.family.bits - length
    return [
        _part(pool, f"split-{name}-{index}", Prefix.of(Address(cidr.network + index * size), length))
        for index in range(parts)
    ]


def _part(pool: Resource, name: str, cidr: Prefix) -> Resource:
    metadata: dict[str, Any] = {key: value for key, value in pool["metadata"].items() if key not in _OF_THE_WHOLE}
    rest = {key: value for key, value in pool.items() if key not in {"metadata", "spec", "status"}}
    return {**rest, "metadata": {"name": name, **metadata}, "spec": {**pool["spec"], "cidr": str(cidr)}}
