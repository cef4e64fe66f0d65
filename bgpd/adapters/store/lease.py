"""Who is here: a node's leased key, which says that its daemon lives, and its Node resource.

Laws: a name belongs to one daemon at a time. A daemon that starts takes over the key of its dead predecessor at once
(same boot, same host, process gone), so its neighbours see no gap; anything else that is alive under the name is
NameTaken. The key is not given back when the daemon ends in order: it comes back within the time to live, or the lease
ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, LeaseNotFound, Put, Store, Transient
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import Alive, alive_bytes, alive_from, node_bytes
from bgpd.adapters.store.transact import Plan, transact
from bgpd.model.node import Node
from bgpd.model.notice import Notice

TTL_S = 15
"""Time to live of the lease: a restart of the daemon takes a few seconds and must not look like a death; BGP itself
notices death sooner."""
RETRY_S = 1.0
"""Pause before the next attempt while the store is lost: several fit into the time to live."""
WIN_PAUSE_S = 0.4
"""Pause between attempts at the name at start: a store that returns is used within a second."""
REBOOT_MARGIN_S = 5.0
"""A lease ends some seconds late in etcd, which begins its time anew with each leader."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class NameTaken(Exception):  # noqa: N818 - what happened, for the operator to mend
    """Another living daemon holds the node's name: end with exit status 2, or both would announce the same blocks."""

    def __init__(self, node: str, holder: Alive) -> None:
        since = datetime.fromtimestamp(holder.since, tz=UTC).isoformat(timespec="seconds")
        super().__init__(f"node name {node!r} is held by process {holder.pid} on host {holder.host} since {since}")
        self.node = node
        self.holder = holder


def ourselves() -> Alive:
    """Describe this process."""
    pid = os.getpid()
    return Alive(
        pid=pid,
        started=_started(pid) or 0,
        boot_id=_BOOT_ID.read_text().strip(),
        host=socket.gethostname(),
        since=time.time(),
    )


class Liveness:
    """Owns the lease of the node's key. Await :meth:`take` before anything is announced, then let :meth:`run` keep
    it.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        *,
        ttl_s: int = TTL_S,
        who: Alive | None = None,
        notice: Callable[[Notice], None] = lambda _notice: None,
    ) -> None:
        self._store = store
        self._notice = notice
        self._node = node
        self._key = keys.alive_key(node)
        self._ttl_s = ttl_s
        self._who = who or ourselves()
        self._lease = 0

    async def take(self) -> None:
        """Take the name, at once if it is free or its holder was a dead process of this boot and host. Raises NameTaken and Transient."""
        lease = await self._store.grant(self._ttl_s)
        old = await transact(self._store, lambda: self._plan(lease))
        self._lease = lease
        if old:
            try:
                await self._store.revoke(old)
            except LeaseNotFound:
                return

    async def win(self, lost: Callable[[str], Awaitable[None]]) -> None:
        """Take the name as soon as it can be had; *lost* is told once why the store does not answer. Raises NameTaken.

        A holder on a host of our name, in another boot of it, is most likely ourselves before a quick reboot: its lease is
        waited for, which ends if that is so.
        """
        loop = asyncio.get_running_loop()
        give_up = 0.0
        told = False
        while True:
            try:
                await self.take()
            except Transient as error:
                if not told:
                    told = True
                    await lost(error.reason)
                await asyncio.sleep(WIN_PAUSE_S)
            except NameTaken as taken:
                if taken.holder.host != self._who.host or taken.holder.boot_id == self._who.boot_id:
                    raise
                if not give_up:
                    give_up = loop.time() + self._ttl_s + REBOOT_MARGIN_S
                    self._notice(Notice("name.held", {"node": self._node, "reason": f"{taken}, in another boot"}))
                if loop.time() > give_up:
                    raise
                await asyncio.sleep(WIN_PAUSE_S)
            else:
                return

    async def run(self) -> None:
        """Take the name and keep it, for ever, retrying while the store is lost; raises NameTaken when another daemon has it."""
        while True:
            try:
                if self._lease:
                    await self._keep()
                else:
                    await self.take()
                pause_s = self._ttl_s / 3
            except Transient:
                pause_s = min(RETRY_S, self._ttl_s / 3)
            await asyncio.sleep(pause_s)

    async def release(self) -> None:
        """Give the name back at once, for a node that is taken out of service. Raises Transient."""
        lease, self._lease = self._lease, 0
        if lease:
            try:
                await self._store.revoke(lease)
            except LeaseNotFound:
                return

    async def _keep(self) -> None:
        """Keep the lease alive; take the name again if it ended (we were stopped, or the store was lost for long)."""
        held = await self._store.get(self._key)
        if held is not None and held.lease == self._lease:
            try:
                await self._store.keepalive(self._lease)
            except LeaseNotFound:
                held = None
            else:
                return
        why = "it ended: for others this node was dead" if held is None else "the key is under another lease"
        self._notice(Notice("lease.lost", {"node": self._node, "reason": why}))
        self._lease = 0
        await self.take()

    async def _plan(self, lease: int) -> Plan[int]:
        """Plan to put our key under *lease*; the answer is the lease that it had."""
        held = await self._store.get(self._key)
        if held is not None and held.lease:
            try:
                holder = alive_from(self._key, held.value)
            except Malformed:
                holder = None  # a living daemon would have written it well
            if holder is not None and not self._may_replace(holder):
                raise NameTaken(self._node, holder)
        revision = held.mod_revision if held else 0
        put = Put(self._key, alive_bytes(self._who), lease)
        return Plan(held.lease if held else 0, (Compare(self._key, revision),), (put,))

    def _may_replace(self, holder: Alive) -> bool:
        if (holder.boot_id, holder.host) != (self._who.boot_id, self._who.host):
            return False
        if (holder.pid, holder.started) == (self._who.pid, self._who.started):
            return True
        return _started(holder.pid) != holder.started


async def register(store: Store, node: Node) -> None:
    """Create our Node resource, or write what we know into it; what others keep there survives. Raises Transient and Malformed."""
    key = keys.node_key(node.name)

    async def decide() -> Plan[None]:
        held = await store.get(key)
        value = node_bytes(key, node, held.value if held else None, datetime.now(UTC))
        if held is not None and msgspec.json.decode(held.value) == msgspec.json.decode(value):
            return Plan(None)
        return Plan(None, (Compare(key, held.mod_revision if held else 0),), (Put(key, value),))

    await transact(store, decide)


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none, or only its remains (a zombie).

    proc(5): the fields after the command, which stands in parentheses and may hold anything, are state (3) … starttime
    (22).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
