"""The daemon and what changes hands in the store, on a real kernel: lent and borrowed addresses, blocks that go back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Delete, Put, Store
from bgpd.adapters.store.ipam.assign import AddressRequest, assign_at
from bgpd.adapters.store.ipam.release import release_handle
from bgpd.adapters.store.sqlite import SqliteStore
from bgpd.model.prefix import Address, Prefix
from tests.netns.test_daemon import Host, wait

pytestmark = pytest.mark.netns

T = TypeVar("T")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host("i", tmp_path, "node1", "10.0.0.1")
    yield made
    made.close()


def on(folder: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with the daemon's store, as another process."""

    async def main() -> T:
        store = SqliteStore(folder / "store.db")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


async def changed(store: Store, key: str, change: Callable[[dict[str, object]], object]) -> None:
    """Change a stored value in place."""
    item = await store.get(key)
    assert item is not None
    value = json.loads(item.value)
    change(value)
    result = await store.txn((Compare(key, item.mod_revision),), (Put(key, json.dumps(value).encode()),))
    assert result.succeeded


def test_lent_addresses_are_routed_and_unselected_blocks_go_back(host: Host, tmp_path: Path) -> None:
    """An address that another node holds in our block gets a route of its own beside the blackhole; when it is back and the pool
    selects us no more, the block goes from the store and from the kernel, and none is claimed; once selected, one is again."""
    host.start()
    wait(host.ready, host)
    (mine,) = (route.split()[0] for route in host.routes() if "blackhole" in route)
    cidr = Prefix.parse(mine)
    lent = cidr.address(5)

    given = on(tmp_path, lambda store: assign_at(store, AddressRequest(node="node2", handle_id="h"), lent))
    assert lent == given
    wait(lambda: f"{lent} unreachable 179" in host.routes(), host)
    assert f"{mine} blackhole 179" in host.routes()

    on(tmp_path, lambda store: release_handle(store, "h"))
    wait(lambda: not [route for route in host.routes() if route.startswith(str(lent))], host)

    key = keys.block_key(cidr)
    on(
        tmp_path,
        lambda store: changed(store, key, lambda block: block.update(affinity_claim_time="2026-01-01T00:00:00Z")),
    )
    pool = on(tmp_path, lambda store: store.range(keys.POOLS)).items[0].key

    def select(selector: str) -> Callable[[Store], Awaitable[None]]:
        return lambda store: changed(store, pool, lambda value: value["spec"].update(nodeSelector=selector))  # type: ignore[attr-defined]

    on(tmp_path, select("has(other)"))
    wait(lambda: on(tmp_path, lambda store: store.get(key)) is None, host)
    wait(lambda: not [route for route in host.routes() if "blackhole" in route], host)
    assert () == on(tmp_path, lambda store: store.range(keys.HOSTS)).items

    on(tmp_path, select("all()"))
    wait(lambda: bool([route for route in host.routes() if "blackhole" in route]), host)


def test_a_block_that_changes_hands_is_no_blackhole_here_any_more(host: Host, tmp_path: Path) -> None:
    """Once another node owns our former block, its blackhole here is gone, and an address that we borrow of it has no route of ours."""
    host.start()
    wait(host.ready, host)
    (mine,) = (route.split()[0] for route in host.routes() if "blackhole" in route)
    cidr = Prefix.parse(mine)

    async def move(store: Store) -> Address:
        item = await store.get(keys.block_key(cidr))
        assert item is not None
        block = json.loads(item.value) | {"affinity": "host:node2"}
        taken = (
            Put(item.key, json.dumps(block).encode()),
            Put(keys.affinity_key("node2", cidr), b'{"state":"confirmed","deleted":false}'),
            Delete(keys.affinity_key("node1", cidr)),
        )
        assert (await store.txn((Compare(item.key, item.mod_revision),), taken)).succeeded
        address = await assign_at(store, AddressRequest(node="node1", handle_id="h1"), cidr.address(3))
        assert isinstance(address, Address)
        return address

    borrowed = on(tmp_path, move)

    wait(lambda: f"{mine} unreachable 179" in host.routes(), host)
    assert not [route for route in host.routes() if route.startswith(f"{borrowed} ")]
