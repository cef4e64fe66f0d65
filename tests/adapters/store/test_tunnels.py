"""A node's tunnel addresses on each store: taken, moved, given back, and right after every crash."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
import pytest

from bgpd.adapters.store import keys, tunnels
from bgpd.adapters.store.base import Delete, Put, Transient, read_all
from bgpd.adapters.store.census import take
from bgpd.adapters.store.ipam.assign import AddressRequest, assign
from bgpd.adapters.store.ipam.release import release_handle
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.tunnels import Outcome, settle, tunnel_addresses
from bgpd.core.ipam.check import Verdict, check
from bgpd.core.ipam.tunnel import TunnelKind

pytestmark = pytest.mark.adapter

NODE = {"kind": "Node", "metadata": {"name": "n"}, "spec": {"bgp": {"asNumber": 64512, "extra": 1}, "wireguard": None}}


def pool(name, cidr, **spec: object):
    return Put(keys.pool_key(name), msgspec.json.encode({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}))


def node(name="n"):
    return Put(keys.node_key(name), msgspec.json.encode({**NODE, "metadata": {"name": name}}))


def felix(name, **spec: object):
    return Put(tunnels.FELIX + name, msgspec.json.encode({"metadata": {"name": name}, "spec": spec}))


async def stated(store, name="n"):
    return tunnel_addresses("k", (await store.get(keys.node_key(name))).value)


async def held(store):
    """Tunnel addresses that are allocated, by kind; each is in use by the judgement of a check, and nothing is wrong."""
    census = await take(store)
    found = check(census)
    assert () == found.problems
    assert {Verdict.USED} >= {one.verdict for one in found.allocations}
    return {one.holding.tunnel: one.holding.address for one in found.allocations}


def test_each_encapsulation_has_its_address(on_store):
    """Every kind that is needed gets one address, held by its handle and named by the Node; a second pass writes nothing."""

    async def work(store):
        writes = [
            node(),
            pool("plain", "10.1.0.0/24"),
            pool("ipip", "10.2.0.0/24", ipipMode="Always"),
            pool("vxlan", "10.3.0.0/24", vxlanMode="CrossSubnet"),
            pool("six", "2001:db8::/112", vxlanMode="Always"),
            felix("default", wireguardEnabled=True, wireguardEnabledV6=True),
        ]
        await store.txn((), writes)
        outcomes = await settle(store, "n")
        revision = (await store.range("/")).revision
        named = await stated(store)

        assert set(TunnelKind) == {one.kind for one in outcomes if one.address is not None} == set(named)
        assert named == await held(store)
        assert ["10.2.0", "10.3.0"] == [
            str(named[kind]).rpartition(".")[0] for kind in (TunnelKind.IPIP, TunnelKind.VXLAN)
        ]
        assert () == await settle(store, "n")
        assert revision == (await store.range("/")).revision
        resource = msgspec.json.decode((await store.get(keys.node_key("n"))).value)
        assert (64512, 1) == (resource["spec"]["bgp"]["asNumber"], resource["spec"]["bgp"]["extra"])

    on_store(work)


@pytest.mark.parametrize(
    "change",
    [
        pool("vxlan", "10.3.0.0/24", vxlanMode="Always", disabled=True),
        pool("vxlan", "10.3.0.0/24"),
        pool("vxlan", "10.3.0.0/24", vxlanMode="Always", nodeSelector="none == 'x'"),
        pool("vxlan", "10.3.0.0/24", vxlanMode="Always", allowedUses=["Workload"]),
        Delete(keys.pool_key("vxlan")),
    ],
    ids=["disabled", "another mode", "not selected", "other use", "deleted"],
)
def test_an_address_moves_with_its_pool(on_store, change):
    """When its pool goes, is disabled or changes, the address moves to another pool of its encapsulation, or is given back."""

    async def work(store):
        await store.txn((), [node(), pool("vxlan", "10.3.0.0/24", vxlanMode="Always")])
        await settle(store, "n")
        await store.txn((), [change, pool("other", "10.4.0.0/24", vxlanMode="Always")])
        (moved,) = await settle(store, "n")

        assert str(moved.address).startswith("10.4.0.")
        assert {TunnelKind.VXLAN: moved.address} == await stated(store)
        assert moved.address == (await tunnel_of(store, TunnelKind.VXLAN))
        await store.txn((), (Delete(keys.pool_key("other")),))
        assert (Outcome(TunnelKind.VXLAN, None),) == await settle(store, "n")
        assert ({}, None, ()) == (
            await stated(store),
            await tunnel_of(store, TunnelKind.VXLAN),
            await settle(store, "n"),
        )

    on_store(work)


async def tunnel_of(store, kind):
    """The address that the kind's handle has."""
    found = [
        one.holding.address for one in check(await take(store)).allocations if one.holding.handle == kind.handle("n")
    ]
    return found[0] if found else None


def test_the_nodes_settings_override_the_clusters(on_store):
    """FelixConfiguration node.<name> overrides default; turned off, the address is given back."""

    async def work(store):
        await store.txn((), [node(), pool("p", "10.1.0.0/24"), felix("default", wireguardEnabled=True)])
        await settle(store, "n")
        assert {TunnelKind.WIREGUARD} == set(await stated(store))
        await store.txn((), (felix("node.n", wireguardEnabled=False),))
        await settle(store, "n")

        assert ({}, {}) == (await stated(store), await held(store))

    on_store(work)


def test_what_the_node_names_is_kept_where_it_can_be(on_store):
    """An address that the Node names and nobody holds is taken again; one that is another's is not, and the Node names a new one."""

    async def work(store):
        await store.txn((), [node(), node("m"), pool("vxlan", "10.3.0.0/24", vxlanMode="Always")])
        (first,) = await settle(store, "n")
        await release_handle(store, TunnelKind.VXLAN.handle("n"))
        assert () == await settle(store, "n")
        assert first.address == await tunnel_of(store, TunnelKind.VXLAN)

        await release_handle(store, TunnelKind.VXLAN.handle("n"))
        thief = AddressRequest(node="n", handle_id="thief", ipv4=64)
        assert first.address in (await assign(store, thief)).addresses
        (second,) = await settle(store, "n")
        assert first.address != second.address
        assert {TunnelKind.VXLAN: second.address} == await stated(store)

    on_store(work)


def test_a_node_without_address_says_why(on_store):
    """Where no address is to be had the reason is given, and the Node names none; as soon as there is one it is taken."""

    async def work(store):
        await store.txn((), [node(), pool("vxlan", "10.3.0.0/32", vxlanMode="Always", blockSize=32)])
        await assign(store, AddressRequest(node="n", handle_id="w", pools=("vxlan",)))
        (outcome,) = await settle(store, "n")
        assert (None, True) == (outcome.address, bool(outcome.reason))
        await release_handle(store, "w")
        (outcome,) = await settle(store, "n")

        assert "10.3.0.0" == str(outcome.address)

    on_store(work)


def test_without_a_node_nothing_is_done(on_store):
    """As long as there is no Node resource, nothing is taken."""

    async def work(store):
        await store.txn((), (pool("vxlan", "10.3.0.0/24", vxlanMode="Always"),))

        assert () == await settle(store, "n")
        assert {} == await held(store)

    on_store(work)


def test_a_pool_that_cannot_be_read_takes_nothing_away(on_store):
    """By a pool that cannot be read no address is given back; the defect is told."""

    async def work(store):
        await store.txn((), [node(), pool("vxlan", "10.3.0.0/24", vxlanMode="Always")])
        await settle(store, "n")
        before = await stated(store)
        await store.txn((), (Put(keys.pool_key("vxlan"), b"["),))
        with pytest.raises(Malformed):
            await settle(store, "n")

        assert before == await stated(store)

    on_store(work)


class Dying(MemoryStore):
    """A store of which only so many transactions succeed before its user dies."""

    left = 1_000_000

    async def txn(self, compares, writes):
        if self.left == 0:
            raise Transient("died")
        self.left -= 1
        return await super().txn(compares, writes)


def test_a_crash_after_any_write_is_mended_by_the_next_pass():
    """Whatever write was the last one: nobody is given an address that the Node names, and the next pass makes all right."""

    async def work():
        for writes in range(12):
            store = Dying()
            await store.txn((), [node(), pool("vxlan", "10.3.0.0/26", vxlanMode="Always")])
            await settle(store, "n")
            await store.txn((), [Delete(keys.pool_key("vxlan")), pool("other", "10.4.0.0/26", vxlanMode="Always")])
            store.left = writes
            with suppress(Transient):
                await settle(store, "n")
            store.left = 1_000_000
            named = (await stated(store)).get(TunnelKind.VXLAN)
            assert named in {None, await tunnel_of(store, TunnelKind.VXLAN)}
            await settle(store, "n")
            assert str((await stated(store))[TunnelKind.VXLAN]).startswith("10.4.0.")
            assert (await stated(store))[TunnelKind.VXLAN] == await tunnel_of(store, TunnelKind.VXLAN)
            assert [] == [item.key async for item in read_all(store, keys.HANDLES) if b"10.3.0" in item.value]

    asyncio.run(work())
