"""Three members of etcd on loopback, with TLS and users: killed, compacted and stopped under us, and a daemon on them."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec
import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Delete, Put, Transient
from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions
from bgpd.adapters.store.watch import StoreSource
from bgpd.model.event import Event, PoolChanged, PoolRemoved, StoreLost, StoreSynced
from bgpd.model.notice import Notice
from bgpd.model.pool import Pool
from tests.adapters.store.etcd_server import Certificates, Etcd, Member
from tests.netns.test_daemon import Host, wait

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]

WRITES = int(os.environ.get("ETCD_WRITES", "20000"))
WRITERS = 16
KILLS = 6
"""Members killed during the writes: the leader and the one that the watcher is connected to, in turn."""
DEADLINE_S = 60.0
ROOT_PASSWORD, PASSWORD = "test-root", "test-user"
POOL = b'{"spec":{"cidr":"10.%d.0.0/16"}}'


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Etcd]:
    """Three members with TLS, client certificates and users."""
    with Etcd(3, certificates=Certificates(tmp_path / "pki")) as made:
        made.ctl("user", "add", "root", "--interactive=false", stdin=ROOT_PASSWORD)
        made.ctl("user", "grant-role", "root", "root")
        made.ctl("role", "add", "node")
        made.ctl("role", "grant-permission", "--prefix=true", "node", "readwrite", "/")
        made.ctl("user", "add", "bgpd", "--interactive=false", stdin=PASSWORD)
        made.ctl("user", "grant-role", "bgpd", "node")
        made.ctl("auth", "enable")
        made.root = ("--user", f"root:{ROOT_PASSWORD}")
        yield made


@pytest.fixture
def options(cluster: Etcd, tmp_path: Path) -> EtcdOptions:
    """How the user of the nodes gets in."""
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    return msgspec.structs.replace(cluster.options, user="bgpd", password_file=str(password), server_name="etcd.test")


def connected(cluster: Etcd, store: EtcdStore) -> Member:
    """The member that *store* asks at present."""
    link = store._link
    assert link is not None
    if not link._members:
        return cluster.members[0]
    address = link._members[link._present].address
    return next(member for member in cluster.members if member.address == address)


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


class Writers:
    """Writers that each count up a key of their own; they read back what became of a write that nobody answered."""

    def __init__(self, store: EtcdStore, total: int) -> None:
        self._store = store
        self._total = total
        self._next = 0
        self.unknown = 0
        self.made: dict[int, tuple[str, bytes]] = {}
        """What was written, by revision."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._write(f"/t/{number:02}"))

    async def _write(self, key: str) -> None:
        revision = 0
        while self._next < self._total:
            value = b"%d" % self._next
            self._next += 1
            revision = await self._put(key, revision, value)
            assert revision not in self.made
            self.made[revision] = (key, value)

    async def _put(self, key: str, revision: int, value: bytes) -> int:
        while True:
            try:
                result = await self._store.txn((Compare(key, revision),), (Put(key, value),))
                if result.succeeded:
                    return result.revision
                held = await self._store.get(key)
            except Transient:
                self.unknown += 1
                await asyncio.sleep(0.05)
                continue
            assert held is not None
            assert value == held.value, "a failed comparison means that an earlier attempt of ours was made"
            return held.mod_revision


def test_every_change_reaches_a_watcher_once_while_members_die(cluster: Etcd, options: EtcdOptions) -> None:
    """Kill -9 of the leader and of the connected member in turn: a watcher sees every change exactly once, in order."""

    async def kill_in_turn(writers: Writers, watching: EtcdStore) -> Counter[str]:
        killed: Counter[str] = Counter()
        for turn in range(KILLS):
            await until(lambda turn=turn: len(writers.made) >= WRITES * (turn + 1) // (KILLS + 2), 600)
            leader = await asyncio.to_thread(cluster.leader)
            victim = connected(cluster, watching) if turn % 2 else leader
            killed["leader" if not turn % 2 else "connected"] += 1
            killed["both"] += victim is leader is connected(cluster, watching)
            victim.end(signal.SIGKILL)
            await asyncio.sleep(1.0)  # a member's absence lasts, so that the others elect and go on
            victim.start()
            await asyncio.to_thread(cluster.wait_healthy)
        return killed

    async def main() -> tuple[Writers, list[tuple[int, str, bytes | None]], Counter[str], float]:
        writing, watching = EtcdStore(options), EtcdStore(options)
        writers = Writers(writing, WRITES)
        seen: list[tuple[int, str, bytes | None]] = []
        start = (await writing.range("/")).revision + 1

        async def watch() -> None:
            async with aclosing(watching.watch("/t/", start)) as changes:
                async for revision, found in changes:
                    seen.extend((revision, change.key, change.value) for change in found)

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch())
            killer = group.create_task(kill_in_turn(writers, watching))
            await writers.run()
            await killer
            spent_s = time.perf_counter() - begun
            await until(lambda: len(seen) >= len(writers.made))
            watcher.cancel()
        await writing.close()
        await watching.close()
        return writers, seen, killer.result(), spent_s

    writers, seen, killed, spent_s = asyncio.run(main())

    print(f"\n{WRITES} writes in {spent_s:.1f} s, killed {dict(killed)}, {writers.unknown} answers that did not come")
    assert WRITES == len(writers.made)
    assert [(revision, *writers.made[revision]) for revision in sorted(writers.made)] == seen
    assert (KILLS // 2, KILLS - KILLS // 2) == (killed["connected"], killed["leader"])


class Relay:
    """A way to a member that a test can cut: connections end, and new ones are refused."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._port = 0
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    @staticmethod
    async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
        finally:
            sink.close()


def test_compaction_under_a_disconnected_watcher_reads_anew(cluster: Etcd, options: EtcdOptions) -> None:
    """What changed, came and went while a watcher was away and the history was compacted is known to it afterwards, once."""

    async def main() -> tuple[list[Event], list[Notice], list[Event]]:
        relay = Relay(cluster.members[0].address)
        await relay.mend()
        store, other = EtcdStore(msgspec.structs.replace(options, members=(relay.address,))), EtcdStore(options)
        events: list[Event] = []
        fresh: list[Event] = []
        notices: list[Notice] = []
        for number in range(3):
            await other.txn((), (Put(keys.pool_key(f"p{number}"), POOL % number),))
        source = asyncio.create_task(StoreSource(store, _into(events), notices.append).run())
        await until(lambda: StoreSynced() in events)
        before = len(events)

        await relay.cut()
        await other.txn((), (Put(keys.pool_key("p0"), POOL % 10), Delete(keys.pool_key("p1"))))
        await other.txn((), (Put(keys.pool_key("p3"), POOL % 3), Put(keys.pool_key("p4"), POOL % 4)))
        last = (await other.txn((), (Delete(keys.pool_key("p4")),))).revision
        await asyncio.to_thread(cluster.compact, last)
        await relay.mend()
        await until(lambda: events.count(StoreSynced()) == 2)
        await other.txn((), (Put(keys.pool_key("p5"), POOL % 5),))
        await until(lambda: "p5" in final(events))
        other_source = asyncio.create_task(StoreSource(other, _into(fresh), notices.append).run())
        await until(lambda: StoreSynced() in fresh)
        for task in (source, other_source):
            task.cancel()
        await asyncio.wait([source, other_source])
        await relay.cut()
        for made in (store, other):
            await made.close()
        assert final(events) == final(fresh)
        return events[before:], notices, fresh

    events, notices, _ = asyncio.run(main())

    # Back within WATCH_LOST_S the watch itself meets the compaction; later (a busy machine) the store was told as lost, and the reading
    # that follows begins after it. Both end in one reading anew.
    lost = [event for event in events if isinstance(event, StoreLost)]
    assert ({"store.compacted"}, 0) == ({n.name for n in notices}, len(lost)) or ([], 1) == (notices, len(lost))
    told = [event for event in events if isinstance(event, PoolChanged | PoolRemoved)]
    assert ["p0", "p3", "p1", "p5"] == [
        event.pool.name if isinstance(event, PoolChanged) else event.name for event in told
    ]


def _into(events: list[Event]) -> Callable[[Event], Awaitable[None]]:
    async def deliver(event: Event) -> None:
        events.append(event)

    return deliver


def final(events: list[Event]) -> dict[str, Pool]:
    """The pools that remain after *events*."""
    pools: dict[str, Pool] = {}
    for event in events:
        if isinstance(event, PoolChanged):
            pools[event.pool.name] = event.pool
        elif isinstance(event, PoolRemoved):
            pools.pop(event.name, None)
    return pools


def test_a_member_without_a_quorum_is_not_believed(cluster: Etcd, options: EtcdOptions) -> None:
    """A single member that is left neither reads nor writes nor watches for us, and says why; with a second one all goes on."""

    async def main() -> None:
        store = EtcdStore(options)
        first = (await store.txn((), (Put("/t/a", b"1"),))).revision
        async with aclosing(store.watch("/t/", first)) as changes:
            assert first == (await anext(changes))[0]
            for member in cluster.members[1:]:
                member.end(signal.SIGKILL)
            with pytest.raises(Transient):
                await anext(changes)
        for attempt in (store.get("/t/a"), store.txn((), (Put("/t/a", b"2"),))):
            with pytest.raises(Transient) as raised:
                await attempt
        assert f"{cluster.members[0].address}: etcdserver: no leader" in raised.value.reason
        cluster.members[1].start()
        await asyncio.to_thread(cluster.wait_healthy, cluster.members[:2])
        held = await store.get("/t/a")
        assert held is not None
        assert held.mod_revision == (first if held.value == b"1" else first + 1)
        await store.close()

    asyncio.run(main())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host("etcd", tmp_path, "node1", "10.0.0.1")
    yield made
    made.close()


def test_the_daemon_outlives_its_store(host: Host) -> None:
    """A daemon on etcd claims its block; while etcd is away it says so, since when, and keeps its routes; then it is synced again."""
    before = host.routes()
    with Etcd(within=("ip", "netns", "exec", host.netns.name)) as etcd:
        url = f'url = "etcd://{etcd.members[0].address}"'
        host.config.write_text(re.sub("url = .*", url, host.config.read_text()))
        host.start()
        wait(lambda: host.ready() and len(host.routes()) > len(before), host)
        running = host.routes()
        assert 1 == len([route for route in running if route not in before and "blackhole" in route])
        assert 1 == len(etcd.ctl("get", "/calico/ipam/v2/assignment/", "--prefix", "--keys-only").split())

        begun = time.time()
        etcd.members[0].end(signal.SIGTERM)
        wait(lambda: _store(host)[0].startswith("lost: "), host)
        reason, since = _store(host)
        assert etcd.members[0].address in reason
        assert begun <= since <= time.time()
        assert running == host.routes()

        etcd.members[0].start()
        wait(lambda: _store(host)[0] == "synced", host)
        assert running == host.routes()
        assert host.ready()


def test_a_daemon_that_starts_without_its_store_keeps_what_the_kernel_has(host: Host) -> None:
    """Killed and started again while etcd is away, the daemon changes no route, then or when etcd returns (laws 3 and 5)."""
    with Etcd(within=("ip", "netns", "exec", host.netns.name)) as etcd:
        url = f'url = "etcd://{etcd.members[0].address}"'
        host.config.write_text(re.sub("url = .*", url, host.config.read_text()))
        before = host.routes()
        host.start()
        wait(lambda: host.ready() and len(host.routes()) > len(before), host)
        wait(lambda: not host.netns.ip_json("-6", "address", "show", "tentative"), host)
        running = host.routes()
        etcd.members[0].end(signal.SIGTERM)
        host.end(signal.SIGKILL)

        with host.netns.start("ip", "monitor", "route", "nexthop") as monitor:
            assert monitor.stdout is not None
            try:
                host.start()
                wait(lambda: _store(host)[0].startswith("lost: "), host)
                status = host.ask("status")
                assert isinstance(status, dict)
                assert ("store-wait", ["store"]) == (status["phase"]["name"], status["phase"]["waiting_for"])
                assert running == host.routes()

                etcd.members[0].start()
                wait(host.ready, host)
                assert running == host.routes()
                heard, _, _ = select.select([monitor.stdout], [], [], 0.5)
                assert [] == heard, monitor.stdout.readline()
            finally:
                monitor.kill()


def _store(host: Host) -> tuple[str, float]:
    status = host.ask("status")
    if not isinstance(status, dict):
        return "no daemon answers", 0.0
    return status["store"], status["store_since"]
