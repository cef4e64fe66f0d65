"""Reading everything that is stored about addresses, as of one revision, for people who look at it (core/ipam/census.py).

It reads the whole of IPAM, a page at a time. Nothing that a daemon does for a claim or an assignment goes through here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import KeyValue, Store, read_all
from bgpd.adapters.store.collect import published_from
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import affinity_from, block_from, handle_from, pool_from, reservation_from
from bgpd.adapters.store.tunnels import tunnel_addresses
from bgpd.core.ipam.block import HOST
from bgpd.core.ipam.census import Census, StoredAffinity, StoredBlock, StoredHandle, StoredNode
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix, parse_interface

VIRTUALS: Final = keys.IPAM + "virtual/"


class _Draft:
    """Owns what was read so far."""

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        self.reservations: list[Prefix] = []
        self.blocks: list[StoredBlock] = []
        self.affinities: list[StoredAffinity] = []
        self.handles: dict[str, StoredHandle] = {}
        self.nodes: dict[str, StoredNode] = {}
        self.endpoints: dict[Address, str] = {}
        self.endpoint_nodes: set[str] = set()
        self.unreadable: list[tuple[str, str]] = []

    def node(self, name: str, **changes: Any) -> None:
        self.nodes[name] = msgspec.structs.replace(self.nodes.get(name, StoredNode()), **changes)


async def take(store: Store) -> Census:
    """Read the census. Raises Transient, and Compacted where writers outrun the reading."""
    draft = _Draft()
    revision = (await store.range(keys.IPAM, limit=1)).revision
    readers = (
        (keys.POOLS, _pool),
        (keys.RESERVATIONS, _reservation),
        (keys.NODES, _node),
        (keys.OUR_NODES, _ours),
        (keys.TRACES, _traces),
        (keys.WORKLOADS, _endpoint),
        (keys.HOSTS, _affinity),
        (VIRTUALS, _affinity),
        (keys.BLOCKS, _block),
        (keys.HANDLES, _handle),
    )
    for prefix, reader in readers:
        async for item in read_all(store, prefix, revision):
            try:
                reader(draft, item)
            except Malformed as error:
                draft.unreadable.append((error.key, error.defect))
    guid, ready = await _cluster(store)
    return Census(
        revision=revision,
        pools=tuple(draft.pools),
        reservations=tuple(draft.reservations),
        blocks=tuple(draft.blocks),
        affinities=tuple(draft.affinities),
        handles=draft.handles,
        nodes=draft.nodes,
        endpoints=draft.endpoints,
        endpoint_nodes=frozenset(draft.endpoint_nodes),
        unreadable=tuple(draft.unreadable),
        cluster_guid=guid,
        locked=not ready,
    )


def _pool(draft: _Draft, item: KeyValue) -> None:
    draft.pools.append(pool_from(item.key, item.key.removeprefix(keys.POOLS), item.value))


def _block(draft: _Draft, item: KeyValue) -> None:
    about = keys.parse(item.key)
    if not isinstance(about, keys.BlockKey):
        raise Malformed(item.key, "the key names no block")
    try:
        draft.blocks.append(StoredBlock(about.cidr, block_from(item.key, about.cidr, item.value)))
    except Malformed as error:
        draft.blocks.append(StoredBlock(about.cidr, None, error.defect))


def _affinity(draft: _Draft, item: KeyValue) -> None:
    virtual = item.key.startswith(VIRTUALS)
    key = keys.HOSTS + item.key.removeprefix(VIRTUALS) if virtual else item.key
    about = keys.parse(key)
    if not isinstance(about, keys.AffinityKey):
        raise Malformed(item.key, "the key names no block")
    state = affinity_from(item.key, about.node, about.cidr, item.value).state
    draft.affinities.append(
        StoredAffinity(about.cidr, f"virtual:{about.node}" if virtual else HOST + about.node, state)
    )


def _handle(draft: _Draft, item: KeyValue) -> None:
    name = item.key.removeprefix(keys.HANDLES)
    draft.handles[name] = StoredHandle(handle_from(item.key, name, item.value), item.mod_revision)


# ------------------------------------------------------------------ who uses addresses


def _node(draft: _Draft, item: KeyValue) -> None:
    name = item.key.removeprefix(keys.NODES)
    draft.node(name, resource=True)
    draft.node(name, tunnels=tunnel_addresses(item.key, item.value))


def _ours(draft: _Draft, item: KeyValue) -> None:
    about = keys.parse(item.key)
    if isinstance(about, keys.AliveKey):
        draft.node(about.name, alive=True)


def _traces(draft: _Draft, item: KeyValue) -> None:
    """Take what a node's daemon says that it has a trace of; it counts while the daemon lives."""
    name = item.key.removeprefix(keys.TRACES)
    if draft.nodes.get(name, StoredNode()).alive:
        draft.node(name, traces=published_from(item.key, item.value).traces)


class _EndpointSpec(msgspec.Struct):
    node: str = ""
    networks: list[str] | None = msgspec.field(default=None, name="ipNetworks")


class _Endpoint(msgspec.Struct):
    spec: _EndpointSpec | None = None


def _endpoint(draft: _Draft, item: KeyValue) -> None:
    spec = _decode(item.key, item.value, _Endpoint).spec or _EndpointSpec()
    draft.endpoint_nodes.add(spec.node)
    try:
        for network in spec.networks or ():
            draft.endpoints[parse_interface(network)[0]] = item.key.removeprefix(keys.WORKLOADS)
    except ValueError as error:
        raise Malformed(item.key, f"ipNetworks: {error}") from error


# ------------------------------------------------------------------ what bars addresses


def _reservation(draft: _Draft, item: KeyValue) -> None:
    name = item.key.removeprefix(keys.RESERVATIONS)
    draft.reservations += reservation_from(item.key, name, item.value).cidrs


class _ClusterSpec(msgspec.Struct):
    guid: str = msgspec.field(default="", name="clusterGUID")
    ready: bool | None = msgspec.field(default=None, name="datastoreReady")


class _Cluster(msgspec.Struct):
    spec: _ClusterSpec | None = None


async def _cluster(store: Store) -> tuple[str, bool]:
    """Return the cluster's id, and whether its store is open for changes; it is where nothing says otherwise."""
    item = await store.get(keys.CLUSTER_INFORMATION)
    spec = (_decode(item.key, item.value, _Cluster).spec if item else None) or _ClusterSpec()
    return spec.guid, spec.ready is not False


def _decode(key: str, value: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(key, str(error)) from error
