"""Keys of the store: Calico's etcd layout (calico.md 1.4), and ours under ``/bgpd/v1/``.

A CIDR in a key has "-" for its "/" (IPv6 colons stay). Each ``parse`` is the inverse of its ``key``, so that what one
writes the other reads.
"""

from __future__ import annotations

import msgspec

from bgpd.core.ipam.search import common_text
from bgpd.model.prefix import Family, Prefix

IPAM = "/calico/ipam/v2/"
IPAM_CONFIG = IPAM + "config"
BLOCKS = IPAM + "assignment/"
HOSTS = IPAM + "host/"
HANDLES = IPAM + "handle/"
RESOURCES = "/calico/resources/v3/projectcalico.org/"
POOLS = RESOURCES + "ippools/"
NODES = RESOURCES + "nodes/"
BGP_PEERS = RESOURCES + "bgppeers/"
BGP_CONFIGURATIONS = RESOURCES + "bgpconfigurations/"
BGP_FILTERS = RESOURCES + "BGPFilters/"
FELIX_CONFIGURATIONS = RESOURCES + "felixconfigurations/"
RESERVATIONS = RESOURCES + "ipreservations/"
WORKLOADS = RESOURCES + "workloadendpoints/"
CLUSTER_INFORMATION = RESOURCES + "clusterinformations/default"
OURS = "/bgpd/v1/"
OUR_NODES = OURS + "nodes/"
TRACES = OURS + "traces/"
COLLECTOR = OURS + "collector"
"""Leased; who collects what is left of workloads and nodes."""
CHANGES = OURS + "changes/"
"""The journal: changes of resources by number."""
PENDING = OURS + "pending/"
PENDING_CHANGE = PENDING + "change"
"""Number of the change that is rolled back unless it is confirmed."""
PENDING_TIMER = PENDING + "timer"
"""Leased; its end is the end of the time to confirm."""
DEFAULT_POOL = OURS + "default-pool"
"""Written with each default pool: two nodes that find no pool at once differ here even if their pools have different
names."""


class Malformed(ValueError):  # noqa: N818 - what it is about, not that it is an error
    """A stored key or value is not what its place demands; skip it and tell people."""

    def __init__(self, key: str, defect: str) -> None:
        super().__init__(f"{key}: {defect}")
        self.key = key
        self.defect = defect


class PoolKey(msgspec.Struct, frozen=True):
    name: str


class NodeKey(msgspec.Struct, frozen=True):
    name: str


class BgpPeerKey(msgspec.Struct, frozen=True):
    name: str


class BgpConfigurationKey(msgspec.Struct, frozen=True):
    name: str


class BgpFilterKey(msgspec.Struct, frozen=True):
    name: str


class WorkloadKey(msgspec.Struct, frozen=True):
    name: str
    """NAMESPACE/NAME."""


class FelixConfigurationKey(msgspec.Struct, frozen=True):
    name: str


class AliveKey(msgspec.Struct, frozen=True):
    """A node's leased key."""

    name: str


class TracesKey(msgspec.Struct, frozen=True):
    """What a node says of the addresses that it has a trace of."""

    name: str


class BlockKey(msgspec.Struct, frozen=True):
    cidr: Prefix


class AffinityKey(msgspec.Struct, frozen=True):
    node: str
    cidr: Prefix


Key = (
    WorkloadKey
    | PoolKey
    | NodeKey
    | BgpPeerKey
    | BgpConfigurationKey
    | BgpFilterKey
    | FelixConfigurationKey
    | AliveKey
    | TracesKey
    | BlockKey
    | AffinityKey
)


_NAMED: dict[
    str,
    type[PoolKey | NodeKey | BgpPeerKey | BgpConfigurationKey | BgpFilterKey | FelixConfigurationKey],
] = {
    POOLS: PoolKey,
    NODES: NodeKey,
    BGP_PEERS: BgpPeerKey,
    BGP_CONFIGURATIONS: BgpConfigurationKey,
    BGP_FILTERS: BgpFilterKey,
    FELIX_CONFIGURATIONS: FelixConfigurationKey,
}
"""Places whose keys end with the name of a resource."""


def pool_key(name: str) -> str:
    return POOLS + name


def node_key(name: str) -> str:
    return NODES + name


def alive_key(name: str) -> str:
    return f"{OUR_NODES}{name}/alive"


def traces_key(name: str) -> str:
    return TRACES + name


def handle_key(handle_id: str) -> str:
    return HANDLES + handle_id


def block_key(cidr: Prefix) -> str:
    return f"{BLOCKS}{cidr.family!s}/block/{_dashed(cidr)}"


def blocks_prefix(family: Family, text: str = "") -> str:
    """Return what the keys of a family's blocks begin with whose written form begins with *text*."""
    return f"{BLOCKS}{family!s}/block/{text}"


def pool_blocks_prefix(cidr: Prefix) -> str:
    """Return what the keys of all blocks within *cidr* begin with; keys of others may begin so as well."""
    return blocks_prefix(cidr.family, common_text(cidr))


def affinities_prefix(node: str, family: Family) -> str:
    """Return what the keys of all affinities of *node* begin with."""
    return f"{HOSTS}{node}/{family!s}/block/"


def affinity_key(node: str, cidr: Prefix) -> str:
    return affinities_prefix(node, cidr.family) + _dashed(cidr)


def parse(key: str) -> Key | None:
    """Say what a key is about; None for a key that is none of ours to watch. Raises Malformed for a bad CIDR or name in a known place."""
    for place, kind in _NAMED.items():
        if key.startswith(place):
            return kind(_name(key, place))
    if key.startswith(WORKLOADS):
        return WorkloadKey(key.removeprefix(WORKLOADS))
    if key.startswith(OUR_NODES) and key.endswith("/alive"):
        return AliveKey(_name(key.removesuffix("/alive"), OUR_NODES))
    if key.startswith(TRACES):
        return TracesKey(_name(key, TRACES))
    if key.startswith(BLOCKS):
        return BlockKey(_cidr(key, key.removeprefix(BLOCKS)))
    if key.startswith(HOSTS):
        node, _, rest = key.removeprefix(HOSTS).partition("/")
        if not node:
            raise Malformed(key, "the node's name is empty")
        return AffinityKey(node, _cidr(key, rest))
    return None


def _name(key: str, prefix: str) -> str:
    name = key.removeprefix(prefix)
    if not name or "/" in name:
        raise Malformed(key, f"{name!r} is not a name")
    return name


def _cidr(key: str, place: str) -> Prefix:
    """Read ``ipv4/block/10.0.0.0-26``."""
    family, _, rest = place.partition("/block/")
    head, dash, tail = rest.rpartition("-")
    try:
        cidr = Prefix.parse(f"{head}/{tail}" if dash else rest)
    except ValueError as error:
        raise Malformed(key, str(error)) from error
    if family != str(cidr.family):
        raise Malformed(key, f"{cidr} is not below {family!r}")
    return cidr


def _dashed(cidr: Prefix) -> str:
    return str(cidr).replace("/", "-")
