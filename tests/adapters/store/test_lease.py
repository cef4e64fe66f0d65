"""Who holds a node's name, and its Node resource."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bgpd.adapters.store import keys, lease, records
from bgpd.adapters.store.base import Put
from bgpd.adapters.store.lease import Liveness, NameTaken, ourselves, register
from bgpd.adapters.store.memory import MemoryStore
from bgpd.model.node import Node
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

KEY = keys.alive_key("n")


def elsewhere():
    return msgspec.structs.replace(ourselves(), host="other", boot_id="another-boot")


def idle_process():
    """Start a process that waits, and describe it as a daemon that holds a name."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    return child, msgspec.structs.replace(ourselves(), pid=child.pid, started=started)


def kill(child):
    """Kill a process and leave its remains unreaped, as a supervisor does for a moment."""
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


async def absent(store):
    while await store.get(KEY) is not None:
        await asyncio.sleep(0.05)


async def held_by(store, pid):
    while True:
        item = await store.get(KEY)
        if item is not None and records.alive_from(KEY, item.value).pid == pid:
            return
        await asyncio.sleep(0.02)


def test_a_free_name_is_taken_under_a_lease(on_store):
    """The key says who we are, and lives by a lease that ends without us."""

    async def work(store):
        liveness = Liveness(store, "n", ttl_s=1)
        await liveness.take()
        item = await store.get(KEY)
        who = records.alive_from(KEY, item.value)

        assert (who.pid, who.host) == (os.getpid(), ourselves().host)
        assert item.lease
        await absent(store)

    on_store(work)


def test_the_name_of_another_living_host_is_taken(on_store):
    """A name whose lease another host keeps is NameTaken, naming the holder; once that lease ended it is free."""

    async def work(store):
        other = Liveness(store, "n", ttl_s=1, who=elsewhere())
        await other.take()

        with pytest.raises(NameTaken, match=f"'n' is held by process {os.getpid()} on host other since 20"):
            await Liveness(store, "n").take()
        await absent(store)
        await Liveness(store, "n").take()
        assert records.alive_from(KEY, (await store.get(KEY)).value).host == ourselves().host

    on_store(work)


def test_a_killed_predecessor_is_succeeded_at_once(on_store):
    """The key of a process of this boot that is gone is taken over at once, and never absent in between; a living one keeps it."""

    async def work(store):
        child, predecessor = idle_process()
        await Liveness(store, "n", ttl_s=60, who=predecessor).take()
        before = await store.get(KEY)

        with pytest.raises(NameTaken):
            await Liveness(store, "n").take()
        kill(child)
        successor = Liveness(store, "n", ttl_s=60)
        await successor.take()
        child.stdin.close()
        child.wait()

        after = await store.get(KEY)
        assert records.alive_from(KEY, after.value).pid == os.getpid()
        assert after.lease != before.lease
        changes = [found async for found in _changes(store, before.mod_revision)]
        assert [value is not None for value in changes] == [True, True]

    on_store(work)


async def _changes(store, first):
    last = (await store.get(KEY)).mod_revision
    async for revision, found in store.watch(KEY, first):
        for change in found:
            yield change.value
        if revision >= last:
            return


def test_a_quick_reboot_waits_for_its_own_lease(on_store, monkeypatch):
    """A holder on a host of our name in another boot is waited for while its lease may end; one that goes on living is not."""
    monkeypatch.setattr(lease, "REBOOT_MARGIN_S", 0.5)
    notices = []

    async def never(_reason):
        raise AssertionError

    async def work(store):
        before = msgspec.structs.replace(ourselves(), boot_id="before", pid=1)
        await Liveness(store, "n", ttl_s=1, who=before).take()
        await Liveness(store, "n", ttl_s=1, notice=notices.append).win(never)
        assert os.getpid() == records.alive_from(KEY, (await store.get(KEY)).value).pid
        assert ["name.held"] == [notice.name for notice in notices]

        await store.txn((), (Put(KEY, records.alive_bytes(before), await store.grant(60)),))
        with pytest.raises(NameTaken):
            await Liveness(store, "n", ttl_s=1).win(never)

    on_store(work)


def test_a_name_is_won_once_the_store_is_there():
    """While the store is lost that is told once, and the name is taken on its return."""
    told = []

    async def lost(reason):
        told.append(reason)

    async def work():
        store = MemoryStore()
        store.outage = "gone"
        async with asyncio.timeout(20):
            task = asyncio.create_task(Liveness(store, "n").win(lost))
            while not told:
                await asyncio.sleep(0.01)
            await asyncio.sleep(2 * lease.WIN_PAUSE_S)
            store.outage = ""
            await task
            assert (await store.get(KEY)).lease
        assert ["gone"] == told

    asyncio.run(work())


def test_a_used_again_pid_is_not_a_predecessor(on_store):
    """A record whose pid now belongs to a process that started at another time speaks of a dead one."""

    async def work(store):
        await Liveness(store, "n", who=msgspec.structs.replace(ourselves(), pid=1, started=-1)).take()
        await Liveness(store, "n").take()
        assert records.alive_from(KEY, (await store.get(KEY)).value).pid == os.getpid()

    on_store(work)


def test_a_malformed_record_is_replaced(on_store):
    """A key that no daemon of ours wrote does not keep a node from its name."""

    async def work(store):
        await store.txn((), (Put(KEY, b"rubbish"),))
        await Liveness(store, "n").take()
        assert records.alive_from(KEY, (await store.get(KEY)).value).pid == os.getpid()

    on_store(work)


def test_a_kept_name_outlives_its_term(on_store):
    """A running Liveness keeps the key, tells that it was lost and takes it again, and ends with NameTaken if another has it."""
    notices = []

    async def work(store):
        task = asyncio.create_task(Liveness(store, "n", ttl_s=1, notice=notices.append).run())
        await held_by(store, os.getpid())
        lease = (await store.get(KEY)).lease
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + 1.5:
            assert (await store.get(KEY)).lease == lease
            await asyncio.sleep(0.05)

        assert [] == notices
        await store.revoke(lease)
        await held_by(store, os.getpid())
        assert [("lease.lost", {"node": "n", "reason": "it ended: for others this node was dead"})] == [
            (notice.name, notice.fields) for notice in notices
        ]

        lease = (await store.get(KEY)).lease
        await store.txn((), (Put(KEY, records.alive_bytes(elsewhere()), await store.grant(60)),))
        with pytest.raises(NameTaken):
            await task

    on_store(work)


def test_an_outage_longer_than_the_term_is_survived():
    """While the store is lost the keeper retries, and has its name again on the store's return."""

    async def work():
        store = MemoryStore()
        async with asyncio.timeout(20):
            task = asyncio.create_task(Liveness(store, "n", ttl_s=1).run())
            await held_by(store, os.getpid())
            first = (await store.get(KEY)).lease
            store.outage = "gone"
            await asyncio.sleep(1.2)
            store.outage = ""
            await held_by(store, os.getpid())
            assert (await store.get(KEY)).lease != first
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(work())


def test_a_released_name_is_free_at_once(on_store):
    """Releasing deletes the key; releasing again does nothing."""

    async def work(store):
        liveness = Liveness(store, "n")
        await liveness.take()
        await liveness.release()
        await liveness.release()
        assert await store.get(KEY) is None

    on_store(work)


def test_labels_of_the_configuration_are_set_beside_those_of_others(on_store):
    """Own labels are written at each start, one that the configuration no longer has is removed, and no label of another's is."""

    async def work(store):
        node = Node(name="n", labels=(("gpu", "true"), ("rack", "a")))
        key = keys.node_key("n")

        async def labels():
            return msgspec.json.decode((await store.get(key)).value)["metadata"].get("labels")

        await register(store, node)
        assert {"gpu": "true", "rack": "a"} == await labels()
        resource = msgspec.json.decode((await store.get(key)).value)
        resource["metadata"]["labels"] |= {"zone": "z", "rack": "of another's"}
        resource["metadata"]["annotations"]["other"] = "kept"
        await store.txn((), (Put(key, msgspec.json.encode(resource)),))

        await register(store, node)
        assert {"gpu": "true", "rack": "a", "zone": "z"} == await labels()
        before = await store.get(key)
        await register(store, node)
        assert before == await store.get(key)

        await register(store, msgspec.structs.replace(node, labels=(("rack", "b"),)))
        assert {"rack": "b", "zone": "z"} == await labels()
        await register(store, msgspec.structs.replace(node, labels=()))
        metadata = msgspec.json.decode((await store.get(key)).value)["metadata"]
        assert ({"zone": "z"}, {"other": "kept"}) == (metadata["labels"], metadata["annotations"])

    on_store(work)


def test_registering_writes_once(on_store):
    """A Node is created, is not written again while nothing changes, and keeps what others wrote into it."""

    async def work(store):
        node = Node(name="n", asn=1, ipv4_address=Address.parse("10.0.0.1"), ipv4_subnet=Prefix.parse("10.0.0.0/24"))
        key = keys.node_key("n")
        await register(store, node)
        first = await store.get(key)
        assert records.node_from(key, "n", first.value) == node
        assert {"name", "uid", "creationTimestamp"} == set(msgspec.json.decode(first.value)["metadata"])

        resource = msgspec.json.decode(first.value)
        resource["metadata"]["labels"] = {"rack": "1"}
        await store.txn((), (Put(key, msgspec.json.format(msgspec.json.encode(resource))),))
        second = await store.get(key)
        await register(store, node)
        assert await store.get(key) == second

        await register(store, msgspec.structs.replace(node, asn=2))
        third = msgspec.json.decode((await store.get(key)).value)
        assert (third["spec"]["bgp"]["asNumber"], third["metadata"]["labels"]) == (2, {"rack": "1"})

    on_store(work)
