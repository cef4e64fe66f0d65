"""The census reads what Calico and we store about addresses."""

from __future__ import annotations

import json

import pytest

from bgpd.adapters.store import census, keys
from bgpd.adapters.store.base import Put
from bgpd.adapters.store.ipam.assign import assign_address
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.lease import Liveness
from bgpd.adapters.store.transact import ensure_pool
from bgpd.core.ipam.census import StoredAffinity, usage
from bgpd.core.ipam.check import Kind, check
from bgpd.core.ipam.tunnel import TunnelKind
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

POOL = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))
NODE = {
    "kind": "Node",
    "apiVersion": "projectcalico.org/v3",
    "metadata": {"name": "n"},
    "spec": {
        "bgp": {"ipv4Address": "192.0.2.1/24", "ipv4IPIPTunnelAddr": "10.65.0.9"},
        "ipv4VXLANTunnelAddr": "10.65.0.10",
        "ipv6VXLANTunnelAddr": "fd00::10",
        "wireguard": {"interfaceIPv4Address": "10.65.0.11", "interfaceIPv6Address": "fd00::11"},
    },
}


def put(key, value):
    return Put(key, value if isinstance(value, bytes) else json.dumps(value).encode())


def test_everything_is_read_as_of_one_revision(on_store):
    """Pools, reservations, blocks, affinities of hosts and of others, handles, nodes, endpoints and the lock are read."""

    async def work(store):
        await ensure_pool(store, POOL)
        cidr = await claim_block(store, POOL, "n")
        address = await assign_address(store, "n", "h", {})
        alive = Liveness(store, "n")
        await alive.take()
        writes = [
            put(keys.node_key("n"), NODE),
            put(keys.RESERVATIONS + "r", {"metadata": {}, "spec": {"reservedCIDRs": ["10.65.0.128/25", "10.65.0.1"]}}),
            put(census.VIRTUALS + "load-balancer/ipv4/block/10.66.0.0-26", {"state": "confirmed"}),
            put(keys.WORKLOADS + "ns/w", {"spec": {"node": "n", "ipNetworks": [f"{address}/32"]}}),
            put(keys.CLUSTER_INFORMATION, {"spec": {"clusterGUID": "g", "datastoreReady": False}}),
        ]
        await store.txn((), writes)
        found = await census.take(store)
        await alive.release()

        assert (await store.range("/")).revision - 1 == found.revision
        assert (POOL.cidr,) == tuple(pool.cidr for pool in found.pools)
        assert {Prefix.parse("10.65.0.128/25"), Prefix.parse("10.65.0.1/32")} == set(found.reservations)
        assert [cidr] == [one.cidr for one in found.blocks if one.record is not None]
        assert StoredAffinity(cidr, "host:n", AffinityState.CONFIRMED) in found.affinities
        assert {"host:n", "virtual:load-balancer"} == {one.owner for one in found.affinities}
        assert {str(cidr): 1} == found.handles["h"].record.block
        assert (True, True) == (found.nodes["n"].resource, found.nodes["n"].alive)
        assert {
            TunnelKind.IPIP: Address.parse("10.65.0.9"),
            TunnelKind.VXLAN: Address.parse("10.65.0.10"),
            TunnelKind.VXLAN_V6: Address.parse("fd00::10"),
            TunnelKind.WIREGUARD: Address.parse("10.65.0.11"),
            TunnelKind.WIREGUARD_V6: Address.parse("fd00::11"),
        } == found.nodes["n"].tunnels
        assert ({address: "ns/w"}, {"n"}) == (found.endpoints, found.endpoint_nodes)
        assert ("g", True, ()) == (found.cluster_guid, found.locked, found.unreadable)

    on_store(work)


def test_what_cannot_be_read_is_named_and_hides_nothing(on_store):
    """Each malformed record is named with its key; the others are read."""

    async def work(store):
        await ensure_pool(store, POOL)
        bad = keys.block_key(Prefix.parse("10.65.0.0/26"))
        places = [
            keys.POOLS + "q",
            keys.NODES + "x",
            keys.RESERVATIONS + "r",
            keys.WORKLOADS + "ns/w",
            keys.HOSTS + "n/ipv4/block/nonsense",
            census.VIRTUALS + "v/ipv4/block/10.0.0.0-26",
            keys.HANDLES + "h",
            bad,
        ]
        await store.txn((), [put(key, b"[") for key in places])
        found = await census.take(store)

        assert set(places) - {bad} == {key for key, _ in found.unreadable}
        assert [(Prefix.parse("10.65.0.0/26"), None)] == [(one.cidr, one.record) for one in found.blocks]
        assert ["p"] == [pool.name for pool in usage(found)]
        assert {Kind.BLOCK_MALFORMED, Kind.RECORD_MALFORMED} == {one.kind for one in check(found).problems}

    on_store(work)


def test_an_empty_store_has_an_empty_census(on_store):
    """Where nothing is stored there is nothing, and no problem."""

    async def work(store):
        found = await census.take(store)

        assert ((), ()) == (usage(found), check(found).problems)

    on_store(work)
