"""The kernel as a target: what is ours in it (devices, neighbours, FDB, legs, groups, routes), kept as desired by the reconciler.

Theory of operation: ``apply`` turns changes into messages in the given order and sends them in batches; the kernel's
refusals come back by sequence number and become reasons by key. ``run`` listens. A notification that carries our own
netlink port is the echo of what ``apply`` has recorded already: routes' echoes are kept back by the kernel, others are
skipped. All else goes to the :class:`Surroundings` (events for the core) and the :class:`Mirror` (drift for the
reconciler). A lock keeps apply, notifications and readings apart, so a reading never mixes with our own writes; events
are delivered outside of it, because the inbox may wait.

Laws: a route is *created* (never replaced) where we hold none, so another's route is never overwritten, and *removed* by protocol
number, so another's is never deleted. A reading after a link event is coalesced (RESYNC_GAP_S). Nothing is removed on close.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, assert_never

from bgpd.adapters.netlink import alike, classic, encode, links, protocols, wireguard
from bgpd.adapters.netlink.encode import NeighbourEntry, NexthopEntry, RouteEntry, RuleEntry
from bgpd.adapters.netlink.mirror import Mirror, neighbour_key
from bgpd.adapters.netlink.monitor import GROUPS, Surroundings
from bgpd.adapters.netlink.options import DEFAULTS, KernelOptions, NexthopObjects
from bgpd.adapters.netlink.silent import Silent
from bgpd.adapters.netlink.socket import (
    DRAIN_BYTES,
    MONITOR_BUFFER_BYTES,
    MulticastSocket,
    NetlinkSocket,
    Refusal,
    split,
)
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.model.event import Event, KernelSynced
from bgpd.model.forwarding import (
    NEXTHOP_ID_FIRST,
    NEXTHOP_ID_LAST,
    TUNNEL_DEVICES,
    VXLAN_DEVICES,
    WIREGUARD_DEVICE,
    DeviceKey,
    Fdb,
    FdbKey,
    Group,
    GroupKey,
    IpipDevice,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Neighbour,
    NeighbourKey,
    RouteKey,
    RouteKind,
    RuleKey,
    VxlanDevice,
    WireguardDevice,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.notice import Notice
from bgpd.model.prefix import Family

RESYNC_GAP_S: Final = 0.5
"""Least time between two readings of the kernel: the first follows a link event at once, a burst of them costs one more."""
FIRST_READINGS: Final = 120
"""Attempts to read at the start, each of up to DUMP_ATTEMPTS, RESYNC_GAP_S apart: a minute of others' changes."""
CHUNK_CHANGES: Final = 2048
"""Changes encoded, sent and recorded between two turns of the event loop: about one batch, 5 ms."""
CATCH_UP_DRAINS: Final = MONITOR_BUFFER_BYTES // DRAIN_BYTES
"""Drains until we have caught up: the whole buffer once. Who writes faster than we read for longer does not hold us here."""
ABSENT: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
"""Answers to a removal that mean that it is done."""

_ALONE: Final = frozenset({DeviceKey, WireguardPeerKey})
"""Not made by messages of ours: what is under way is sent before."""

_Change = tuple[KernelKey, KernelValue | None]


class Kernel:
    """Owns the sockets, the mirror of what is ours, the surroundings, and the events not yet delivered.

    Call ``open`` in the network namespace to work in; then ``run`` in a task, and ``apply`` from one reconciler.
    """

    name = "kernel"

    def __init__(
        self,
        deliver: Callable[[Event], Awaitable[None]],
        drifted: Callable[[Mapping[KernelKey, str]], None],
        options: KernelOptions = DEFAULTS,
    ) -> None:
        self.actual: dict[KernelKey, KernelValue]
        """What is ours in the kernel. Read it, never write it."""
        self._deliver = deliver
        self._drifted = drifted
        self._options = options
        self._protocol = options.protocol
        self._mirror = Mirror(options.protocol, resilient=options.resilience is not None)
        self.actual = self._mirror.actual
        self._keys = WireguardKeys(options.wireguard_keys)
        self._wireguard: tuple[int, wireguard.Configuration] = 0, wireguard.Configuration()
        """Index of our WireGuard device, and what it is set to, as read last: nothing tells of a change."""
        self._around = Surroundings(options.resolve_table, options.table)
        self._lock = asyncio.Lock()
        self._delivery = asyncio.Lock()
        self._outgoing: deque[Event] = deque()
        self._silent = Silent()
        self._meddlers: dict[KernelKey, str] = {}
        """Who changed what is ours, since the last report."""
        self._next_id = NEXTHOP_ID_FIRST
        self._lost = False
        self._read_at = float("-inf")
        self._opened = asyncio.Event()
        self._socket: NetlinkSocket
        self._listener: MulticastSocket

    async def open(self, readings: int = FIRST_READINGS) -> None:
        """Open the sockets, read everything, deliver what there is, then KernelSynced.

        Raises PermissionError without CAP_NET_ADMIN, OSError if the kernel does not answer, or (EINTR) if others changed its tables
        under each of so many *readings*: none is worth a retry.
        """
        self._socket = NetlinkSocket()
        silenced = (encode.RTM_NEWROUTE, encode.RTM_DELROUTE)
        self._listener = MulticastSocket(
            GROUPS, self._socket.port, silenced
        )  # listens before it reads, so that no change is missed
        async with self._lock:
            await self._read_first(readings)
            self._mirror.take_drifted()
            self._outgoing.append(KernelSynced())
        self._opened.set()
        await self._hand_over()

    async def run(self) -> None:
        """Follow the kernel until cancelled. Raises OSError if its sockets fail."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._due_in_s()):
                    await self._listener.readable()
            async with self._lock:  # taken before the first byte is, or apply might overtake what we hold in hand
                await self._catch_up()
                if self._due_in_s() == 0:
                    await self._resync()
            await self._hand_over()
            self._report()
            await asyncio.sleep(0)

    def adopt(self, desired: Iterable[tuple[RouteKey, KernelRoute]]) -> None:
        """Bind groups that were found to the desired groups whose routes already point to them.

        Call it with what is desired before comparing with *actual*: then a restart with the same facts finds no difference.
        """
        if self._classic:
            self._mirror.bind(classic.adopt(list(desired), self.actual))
            return
        if not self._mirror.nameless:
            return
        names: dict[GroupKey, GroupKey] = {}
        bound: set[GroupKey] = set()
        for key, route in desired:
            wanted = route.group
            if wanted is None or wanted in bound or wanted in self._mirror.ids:
                continue
            present = self.actual.get(key)
            found = present.group if isinstance(present, KernelRoute) else None
            if found is None or found in names or not self._mirror.adoptable(found):
                continue
            names[found] = wanted
            bound.add(wanted)
        self._mirror.rename(names)

    async def apply(self, changes: Sequence[_Change]) -> dict[KernelKey, str]:
        """Make *changes* in order (None removes); return why some failed. One that fails does not stop the others.

        Where the kernel's answers were lost (ENOBUFS), all of them fail, and what is there is read again. Raises OSError if the
        socket fails otherwise.

        Changes wished before the first reading were compared with nothing: they wait for it, and are not made but come back by
        *drifted*, to be compared with what is there.
        """
        if not self._opened.is_set():
            await self._opened.wait()
            self._drifted({key: "" for key, _ in changes})
            return {}
        failed: dict[KernelKey, str] = {}
        async with self._lock:
            await self._catch_up()
            for piece in alike.pieces(changes, CHUNK_CHANGES):
                if isinstance(piece, list):
                    await self._apply_each(piece, failed)
                elif not await self._apply_alike(*piece, failed):
                    keys, value = piece
                    await self._apply_each([(key, value) for key in keys], failed)
        if self._due_in_s() is not None:
            self._listener.wake()  # run reads again, though what it waits for was heard here
        await self._hand_over()
        self._report()
        return failed

    async def compare(self) -> int:
        """Read again all that is ours, beside what goes on, and report what differs as drift; returns how many keys do.

        Routes are read by a socket of their own, in chunks, without keeping ``apply`` waiting. Only if one differs that nobody touched
        meanwhile is everything read again with nothing else going on. Raises OSError if a socket fails.
        """
        async with self._lock:
            await self._catch_up()
            with self._or_later():
                await self._read_links()
                await self._read_nexthops()
                await self._read_neighbours()
                await self._read_rules()
            self._outgoing.extend(self._around.take_events())
        if await self._routes_differ():
            async with self._lock:
                await self._catch_up()
                self._lost = True
                await self._resync()
        if self._due_in_s() is not None:
            self._listener.wake()  # the tables changed under it: run reads again
        await self._hand_over()
        return self._report()

    def remarks(self) -> list[Notice]:
        """Say what an operator should know of this kernel; to be asked once it is open."""
        if self._classic:
            why = (
                "kernel.nexthop_objects is off"
                if self._options.objects is NexthopObjects.OFF
                else "the kernel has none"
            )
            return [Notice("fib.without_objects", {"reason": why, "cost": "a failover is a message for each route"})]
        if _setting("net/ipv4/nexthop_compat_mode") == "1":
            mend = "sysctl -w net.ipv4.nexthop_compat_mode=0"
            cost = "the kernel repeats every route of a group to its listeners when the group changes"
            return [Notice("fib.compat_mode", {"cost": cost, "mend": mend})]
        return []

    def nexthop_id(self, group: GroupKey | Leg) -> int | None:
        """Return the kernel's id of a group; None if it has none."""
        return self._mirror.ids.get(group)

    async def read_fresh(self) -> dict[KernelKey, KernelValue]:
        """Read all that is ours by sockets of its own, beside what goes on; groups have the names that we know them by.

        In a thread, since a large table takes a second. Raises OSError if the kernel does not answer.
        """
        reader = Kernel(_nowhere, lambda _: None, self._options)

        async def read() -> None:
            await reader.open(readings=1)
            await reader.close()

        await asyncio.to_thread(lambda: asyncio.run(read()))
        found = {key: number for key, number in reader._mirror.ids.items() if isinstance(key, GroupKey)}
        known = {key: name for key, number in found.items() if isinstance(name := self._mirror.key(number), GroupKey)}
        reader._mirror.rename({key: name for key, name in known.items() if key != name})
        return reader.actual

    async def close(self) -> None:
        """Close the sockets. What is in the kernel stays."""
        self._socket.close()
        self._listener.close()

    # -------------------------------------------------------------- writing

    async def _apply_alike(self, keys: list[RouteKey], value: KernelValue | None, failed: dict[KernelKey, str]) -> bool:
        """Make the same of many routes, by one template; returns whether that could be."""
        fresh: dict[RouteKey, KernelValue | None] = dict.fromkeys(keys, value)
        batch = self._encode_alike(keys, value) if len(fresh) == len(keys) else None
        if batch is None:
            return False
        try:
            refused = await self._socket.stream(batch, len(batch) // len(keys))
        except OSError as error:
            refused = self._answers_lost(error, len(keys))
        again: dict[KernelKey, KernelValue | None] = {}
        for position, refusal in refused.items():
            del fresh[keys[position]]
            self._judge(keys[position], value, refusal, failed, again)
        self._mirror.record_alike(fresh, value)
        await self._catch_up()
        await self._send_again(again, failed)
        return True

    def _encode_alike(self, keys: list[RouteKey], value: KernelValue | None) -> bytearray | None:
        """Encode *keys* by the message of the first; None if they are not alike in all but their prefixes, now and before."""
        held, first = self.actual, keys[0]
        if self._classic or len({key.table for key in keys}) != 1 or len({key.metric for key in keys}) != 1:
            return None
        if first in held:
            before = [held.get(key) for key in keys]
            if before.count(before[0]) != len(keys):
                return None
        elif not held.keys().isdisjoint(keys):
            return None
        message = self._route(first, value)
        return alike.spread(message, keys) if type(message) is bytes else None

    async def _apply_each(self, changes: Sequence[_Change], failed: dict[KernelKey, str]) -> None:
        values: dict[KernelKey, KernelValue | None] = {}
        messages: list[bytes] = []
        peers: dict[WireguardPeerKey, KernelValue | None] = {}
        noted = self._classic
        for key, value in changes:
            if peers and type(key) is not WireguardPeerKey:
                await self._change_peers(peers, failed)
            if type(key) in _ALONE or key in values:
                await self._send(values, messages, failed)
            if type(key) is WireguardPeerKey:
                peers[key] = value
                continue
            if type(key) is DeviceKey:
                await self._change_device(key, value, failed)
                continue
            if noted and isinstance(key, Leg | GroupKey) and key not in self._mirror.ids:
                await self._send(values, messages, failed)
                await self._note(key, value, failed)
                continue
            message = self._message(key, value)
            if type(message) is bytes:
                values[key] = value
                messages.append(message)
            elif type(message) is str:
                failed[key] = message
        await self._send(values, messages, failed)
        await self._change_peers(peers, failed)

    async def _send(
        self, values: dict[KernelKey, KernelValue | None], messages: list[bytes], failed: dict[KernelKey, str]
    ) -> None:
        """Send *messages*, one for each of *values*; record what was accepted, and empty both."""
        if not messages:
            return
        refused = await self._transact(messages)
        again: dict[KernelKey, KernelValue | None] = {}
        record = self._mirror.record
        for position, (key, value) in enumerate(values.items()):
            refusal = refused.get(position) if refused else None
            if refusal is None:
                record(key, value)
            else:
                self._judge(key, value, refusal, failed, again)
        values.clear()
        messages.clear()
        await self._catch_up()
        await self._send_again(again, failed)

    async def _send_again(self, again: dict[KernelKey, KernelValue | None], failed: dict[KernelKey, str]) -> None:
        if again:  # created this time, so there is no third
            routes = [self._route(key, value) for key, value in again.items() if type(key) is RouteKey]
            await self._send(again, [route for route in routes if type(route) is bytes], failed)

    async def _transact(self, messages: Sequence[bytes]) -> dict[int, Refusal]:
        try:
            return await self._socket.transact(messages)
        except OSError as error:
            return self._answers_lost(error, len(messages))

    def _answers_lost(self, error: OSError, count: int) -> dict[int, Refusal]:
        if error.errno != errno.ENOBUFS:
            raise error
        self._lost = True  # some answers are lost, so nothing is known: read back, and let them be tried again
        return dict.fromkeys(range(count), Refusal(errno.ENOBUFS, "answers lost"))

    def _judge(
        self,
        key: KernelKey,
        value: KernelValue | None,
        refusal: Refusal,
        failed: dict[KernelKey, str],
        again: dict[KernelKey, KernelValue | None],
    ) -> None:
        """Draw the conclusion of a refusal: it is done, it is to be made in another way (*again*), or it has failed."""
        if value is None and refusal.errno in ABSENT:
            self._mirror.record(key, value)
        elif type(key) is RouteKey and value is not None and refusal.errno == errno.ENOENT and key in self.actual:
            # it was to be replaced, and somebody has removed it meanwhile: the notification is still on its way
            self._mirror.record(key, None)
            again[key] = value
        else:
            self._refuse(key, value, refusal, failed)

    def _refuse(
        self, key: KernelKey, value: KernelValue | None, refusal: Refusal, failed: dict[KernelKey, str]
    ) -> None:
        if isinstance(key, Leg | GroupKey) and value is not None and key not in self.actual and key in self._mirror.ids:
            self._mirror.release(key)
        if type(key) is RouteKey and refusal.errno == errno.EEXIST and not self._around.holds(key):
            self._lost = True  # it must be ours, and we have not heard of it: read again
        failed[key] = str(refusal)

    def _message(self, key: KernelKey, value: KernelValue | None) -> bytes | str | None:
        """Encode a change; a string says why it cannot be made, None that there is nothing to do."""
        match key:
            case RouteKey():
                return self._route(key, value)
            case Leg() | GroupKey() if value is None:
                number = self._mirror.ids.get(key)
                return None if number is None else encode.remove_nexthop(number)
            case Leg():
                index = self._around.index(key.device)
                return f"no device {key.device}" if index is None else self._leg(key, index)
            case GroupKey():
                return self._group(key, value)
            case NeighbourKey() | FdbKey():
                return self._neighbour(key, value)
            case RuleKey() if value is None:
                return encode.remove_rule(key, self._protocol)
            case RuleKey():
                return encode.put_rule(key, self._protocol) if key not in self.actual else None
            case DeviceKey():
                raise AssertionError("devices are not made by messages of ours")
            case WireguardPeerKey():
                raise AssertionError("peers are changed together")
            case _:
                assert_never(key)

    def _route(self, key: RouteKey, value: KernelValue | None) -> bytes | str:
        """On the way of every route: plain and short."""
        if value is None:
            return encode.remove_route(key, self._protocol)
        assert type(value) is KernelRoute
        number = 0
        if value.kind is RouteKind.UNICAST:
            if value.group is None:
                return "a unicast route without a group"
            if self._mirror.device is not None:
                return self._classic_route(key, value, value.group)
            number = self._mirror.ids.get(value.group, 0)
            if not number:
                return f"no group {value.group.name}"
        before = self.actual.get(key)
        if before is None:
            return encode.put_route(key, value, number, self._protocol, encode.CREATE)
        assert type(before) is KernelRoute
        other_mtu = before.mtu_bytes != value.mtu_bytes
        return encode.put_route(key, value, number, self._protocol, encode.REPLACE, metrics=other_mtu)

    def _classic_route(self, key: RouteKey, value: KernelRoute, name: GroupKey) -> bytes | str:
        group = self.actual.get(name)
        if not isinstance(group, Group):
            return f"no group {name.name}"
        hops = classic.hops(group, self._around)
        if isinstance(hops, str):
            return hops
        flags = encode.REPLACE if key in self.actual else encode.CREATE
        return encode.put_route(key, value, 0, self._protocol, flags, hops)

    def _leg(self, leg: Leg, index: int) -> bytes | str:
        number = self._id(leg)
        if isinstance(number, str):
            return number
        ipv6 = leg.gateway is not None or has_ipv6(leg.device)
        return encode.put_leg(number, leg, index, self._protocol, self._flags(leg), ipv6=ipv6)

    def _group(self, key: GroupKey, value: KernelValue | None) -> bytes | str:
        assert isinstance(value, Group)
        missing = [leg for leg in value.legs if leg not in self._mirror.ids]
        if missing:
            return f"no leg via {missing[0].gateway} on {missing[0].device}"
        if not value.legs:
            return "a group without legs"
        number = self._id(key)
        if isinstance(number, str):
            return number
        members = tuple(self._mirror.ids[leg] for leg in value.legs)
        return encode.put_group(
            number,
            members,
            self._protocol,
            self._flags(key),
            weights=value.weights,
            resilience=self._options.resilience,
        )

    def _neighbour(self, key: NeighbourKey | FdbKey, value: KernelValue | None) -> bytes | str | None:
        if key.device not in VXLAN_DEVICES:
            return f"{key.device} is not a device of ours"
        index = self._around.index(key.device)
        if index is None:
            return None if value is None else f"no device {key.device}"
        if isinstance(key, FdbKey):
            if value is None:
                return encode.remove_fdb(index, key.mac)
            assert isinstance(value, Fdb)
            return encode.put_fdb(index, key.mac, value.address)
        if value is None:
            return encode.remove_neighbour(index, key.address)
        assert isinstance(value, Neighbour)
        return encode.put_neighbour(index, key.address, value.mac)

    def _flags(self, key: Leg | GroupKey) -> int:
        return encode.PUT if key in self.actual else encode.CREATE  # an id that we do not hold may be another's

    def _id(self, key: Leg | GroupKey) -> int | str:
        """Return the id of *key*, a new one if it has none. Ids are given round, so that a freed one rests."""
        number = self._mirror.ids.get(key)
        if number is not None:
            return number
        for _ in range(NEXTHOP_ID_LAST - NEXTHOP_ID_FIRST + 1):
            number = self._next_id
            self._next_id = number + 1 if number < NEXTHOP_ID_LAST else NEXTHOP_ID_FIRST
            if not self._mirror.knows(number) and number not in self._around.nexthops:
                self._mirror.claim(key, number)
                return number
        return f"every nexthop id of {NEXTHOP_ID_FIRST}-{NEXTHOP_ID_LAST} is in use"

    @property
    def _classic(self) -> bool:
        """Whether legs and groups are notes of ours, and routes have their hops written out."""
        return self._mirror.device is not None

    def _name_of(self, index: int) -> str | None:
        link = self._around.links.get(index)
        return None if link is None else link.name

    async def _has_objects(self) -> bool:
        try:
            await self._socket.dump(encode.dump_nexthops(), lambda *_: None)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
            return False  # before Linux 5.3
        return True

    async def _note(self, key: Leg | GroupKey, value: KernelValue | None, failed: dict[KernelKey, str]) -> None:
        """Change a leg or a group that is no object: a group's routes are written anew, each by a message of its own."""
        routes = self._mirror.routes_of(key) if isinstance(key, GroupKey) else []
        if value is None:
            if routes:
                failed[key] = f"{len(routes)} routes still use it"
            else:
                self._mirror.record(key, None)
            return
        reason = classic.refusal(key, value, self.actual, self._around)
        if reason is not None:
            failed[key] = reason
            return
        old = self.actual.get(key)
        self._mirror.record(key, value)  # what is encoded next is through it
        if old is None or old == value or not routes:
            return
        kept = [(route, self.actual[route]) for route in routes]
        messages = [message for route, want in kept if type(message := self._route(route, want)) is bytes]
        refused = (
            await self._transact(messages) if len(messages) == len(routes) else dict.fromkeys(range(len(routes)), "")
        )
        self._mirror.mistrust(routes[position] for position in refused)

    async def _change_device(self, key: DeviceKey, value: KernelValue | None, failed: dict[KernelKey, str]) -> None:
        if key.name not in TUNNEL_DEVICES:
            failed[key] = f"{key.name} is not a device of ours"
            return
        present = self._around.link_named(key.name)
        borrowed = None if present is None else self._around.ipv4_address(present.index)
        match value:
            case VxlanDevice() | IpipDevice():
                reason = await links.ensure(key.name, value, present, borrowed)
            case WireguardDevice():
                reason = await links.ensure_wireguard(key.name, value, present, borrowed, self._keys)
            case _:
                reason = None if present is None else await links.remove(present.index)
        if reason is None:
            self._mirror.record(key, value)
            if value is not None:
                loosen(key.name)
        else:
            failed[key] = reason
        # what the kernel said of links until now is older than what is read next: heard later, it would tell of a link that
        # goes down and up again
        await self._catch_up(links_too=False)
        with self._or_later():
            await self._read_links()
        self._outgoing.extend(self._around.take_events())

    async def _change_peers(
        self, changes: dict[WireguardPeerKey, KernelValue | None], failed: dict[KernelKey, str]
    ) -> None:
        """Change peers of our WireGuard device, and empty *changes*; they are made together, or none is known to be."""
        if not changes:
            return
        link = self._around.link_named(WIREGUARD_DEVICE)
        reason = f"no device {WIREGUARD_DEVICE}" if link is None else ""
        if link is not None:
            wanted = {
                key.public_key: value if isinstance(value, WireguardPeer) else None for key, value in changes.items()
            }
            try:
                await wireguard.change_peers(link, wanted)
                known = {key.public_key for key in changes if key in self.actual}
                fresh = {key: peer for key, peer in wanted.items() if peer is not None and key not in known}
                await wireguard.greet(link, [key for key, peer in fresh.items() if not peer.keepalive_s])
            except wireguard.Refused as refused:
                reason = str(refused)
            except OSError as error:
                reason = f"{wireguard.PROGRAM}: {error.strerror}"
        for key, value in changes.items():
            if not reason or (link is None and value is None):
                self._mirror.record(key, value)
            else:
                failed[key] = reason
        changes.clear()

    # -------------------------------------------------------------- reading

    async def _read_links(self) -> None:
        entries = await self._socket.dump(
            encode.dump_links(), lambda _, data, start, end: encode.decode_link(data, start, end)
        )
        self._around.read_links(entries)
        addresses = await self._socket.dump(
            encode.dump_addresses(), lambda _, data, start, end: encode.decode_address(data, start, end)
        )
        self._around.read_addresses(addresses)
        await self._read_wireguard()
        self._observe_devices()

    async def _read_first(self, readings: int) -> None:
        """Read everything for the first time, though others change it meanwhile; closes the sockets where it fails."""
        for left in reversed(range(readings)):
            try:
                if self._options.objects is NexthopObjects.OFF or not await self._has_objects():
                    self._mirror.device = self._name_of
                await self._read_all(routes=True)
            except OSError as error:
                if error.errno != errno.EINTR or not left:
                    await self.close()
                    raise
                await asyncio.sleep(RESYNC_GAP_S)
            else:
                return

    async def _read_wireguard(self) -> None:
        link = self._around.link_named(WIREGUARD_DEVICE)
        if link is None:
            self._wireguard = 0, wireguard.Configuration()
        else:
            self._wireguard = link.index, await wireguard.read(link)
        self._mirror.read_peers(self._wireguard[1].peers)

    async def _read_all(self, *, routes: bool) -> None:
        """Read everything; our own routes only with *routes*: after link events they follow from the nexthops that are left."""
        await self._read_links()
        await self._read_nexthops()
        await self._read_neighbours()
        await self._read_rules()

        def decode(_: int, data: bytes, start: int, end: int) -> RouteEntry | None:
            if not routes and data[start + 5] == self._protocol:  # rtm_protocol
                return None
            return encode.decode_route(data, start, end)

        found = [entry for family in Family for entry in await self._socket.dump(encode.dump_routes(family), decode)]
        self._around.read_routes(entry for entry in found if entry.protocol != self._protocol)
        if routes:
            self._mirror.read_routes(entry for entry in found if entry.protocol == self._protocol)
        self._outgoing.extend(self._around.take_events())
        self._around.unsure = self._lost = False
        self._read_at = asyncio.get_running_loop().time()

    async def _read_nexthops(self) -> None:
        if self._classic:
            self._mirror.prune(self._enabled)
            if not await self._has_objects():
                return
        nexthops = await self._socket.dump(
            encode.dump_nexthops(), lambda _, data, start, end: encode.decode_nexthop(data, start, end)
        )
        self._around.read_nexthops(nexthops)
        self._mirror.read_nexthops((entry, self._device_of(entry)) for entry in nexthops if self._is_ours(entry))

    async def _routes_differ(self) -> bool:
        """Compare our routes in the kernel with the mirror, leaving out those that change meanwhile."""
        seen: set[RouteKey] = set()
        suspects: set[RouteKey] = set()
        mirror, actual = self._mirror, self.actual

        def look(_: int, data: bytes, start: int, end: int) -> None:
            entry = encode.decode_route(data, start, end)
            key = None if entry is None else mirror.key_of(entry)
            if entry is None or key is None:
                return
            seen.add(key)
            if actual.get(key) != mirror.value_of(entry, key):
                suspects.add(key)

        touched = mirror.touched = set()
        socket = NetlinkSocket()
        try:
            before = [key for key in actual if type(key) is RouteKey]
            for family in Family:
                await socket.dump(encode.dump_routes(family, self._protocol), look)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
            return True  # it changes faster than we read: once more, with our own changes kept back
        finally:
            mirror.touched = None
            socket.close()
        return bool(suspects - touched) or any(key not in seen and key not in touched for key in before)

    async def _read_neighbours(self) -> None:
        for device in VXLAN_DEVICES:
            await self._read_neighbours_of(device)
        everywhere: list[NeighbourEntry] = []
        for family in Family:
            everywhere += await self._socket.dump(
                encode.dump_all_neighbours(family),
                lambda _, data, start, end: encode.decode_neighbour(data, start, end),
            )
        names = {index: link.name for index, link in self._around.links.items() if link.name not in VXLAN_DEVICES}
        self._outgoing.extend(self._silent.read(everywhere, names))

    async def _read_neighbours_of(self, device: str) -> None:
        index = self._around.index(device)
        if index is None:
            self._mirror.read_neighbours(device, ())
            return
        requests = [encode.dump_neighbours(family, index) for family in Family] + [encode.dump_fdb(index)]
        found: list[NeighbourEntry] = []
        for request in requests:
            try:
                entries = await self._socket.dump(
                    request, lambda _, data, start, end: encode.decode_neighbour(data, start, end)
                )
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                return  # the device went this moment; its notification is on its way
            found += [entry for entry in entries if entry.index == index]
        self._mirror.read_neighbours(device, found)

    async def _read_rules(self) -> None:
        entries: list[RuleEntry] = []
        for family in Family:
            try:
                entries += await self._socket.dump(
                    encode.dump_rules(family), lambda _, data, start, end: encode.decode_rule(data, start, end)
                )
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise  # else a kernel without policy routing: there is none, and one that is wanted is refused
        self._mirror.read_rules(entries)

    async def _resync(self) -> None:
        """Read again, after a link event or lost notifications."""
        with self._or_later():
            await self._read_all(routes=self._lost or self._classic)

    @contextlib.contextmanager
    def _or_later(self) -> Iterator[None]:
        """Where the tables change under every reading (EINTR), all is read once more after the gap, by ``run``."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
            self._around.unsure = True
            self._read_at = asyncio.get_running_loop().time()

    def _due_in_s(self) -> float | None:
        """Say in how many seconds to read again; None: not needed."""
        if not self._lost and not self._around.unsure:
            return None
        return max(0.0, self._read_at + RESYNC_GAP_S - asyncio.get_running_loop().time())

    # -------------------------------------------------------------- listening

    async def _catch_up(self, *, links_too: bool = True) -> None:
        """Hear what has arrived.

        Before each writing: what others did to a route before we write it must not be heard after it, for our own echo will not
        set it right.
        """
        for _ in range(CATCH_UP_DRAINS):
            datagrams, lost = self._listener.drain()
            self._lost |= lost
            if not datagrams:
                return
            for datagram in datagrams:
                self._hear(datagram, links_too=links_too)
            await asyncio.sleep(0)

    def _hear(self, datagram: bytes, *, links_too: bool = True) -> None:
        for kind, flags, _, port, start, end in split(datagram):
            own = port == self._socket.port
            match kind:
                case encode.RTM_NEWROUTE | encode.RTM_DELROUTE:
                    if not own:
                        self._hear_route(kind, flags, port, datagram, start, end)
                case encode.RTM_NEWNEXTHOP | encode.RTM_DELNEXTHOP:
                    self._hear_nexthop(kind, port, datagram, start, end)
                case encode.RTM_NEWNEIGH | encode.RTM_DELNEIGH:
                    if not own:
                        self._hear_neighbour(kind, port, datagram, start, end)
                case encode.RTM_NEWRULE | encode.RTM_DELRULE:
                    if not own:
                        self._hear_rule(kind, port, datagram, start, end)
                case encode.RTM_NEWLINK | encode.RTM_DELLINK if links_too:
                    self._hear_link(kind, datagram, start, end)
                case encode.RTM_NEWADDR | encode.RTM_DELADDR:
                    address = encode.decode_address(datagram, start, end)
                    if address is not None:
                        self._around.address(address, present=kind == encode.RTM_NEWADDR)
                        self._observe_devices()
        self._outgoing.extend(self._around.take_events())

    def _hear_route(self, kind: int, flags: int, port: int, data: bytes, start: int, end: int) -> None:  # noqa: PLR0917 - a message
        entry = encode.decode_route(data, start, end)
        if entry is None:
            return
        key = self._mirror.key_of(entry)
        before = None if key is None else self.actual.get(key)
        present = kind == encode.RTM_NEWROUTE
        author = f"netlink port {port}" if port else ""
        if entry.protocol != self._protocol:
            self._around.route(entry, present=present, flags=flags)
            if present and flags & encode.REPLACE & ~encode.REMOVE:
                self._mirror.displaced(entry)
                author = protocols.owner_of(entry.protocol)
        elif present:
            self._mirror.observe_route(entry)
        else:
            self._mirror.forget_route(entry)
        self._blame(key, before, author)

    def _hear_nexthop(self, kind: int, port: int, data: bytes, start: int, end: int) -> None:
        entry = encode.decode_nexthop(data, start, end)
        if entry is None:
            return
        own = port == self._socket.port
        key = self._mirror.key(entry.id)
        before = None if key is None else self.actual.get(key)
        if kind == encode.RTM_NEWNEXTHOP:
            self._around.nexthop(entry)
            # an echo is heard only if another removed that id meanwhile, and we made it anew without knowing
            if self._is_ours(entry) and not (own and self._mirror.knows(entry.id)):
                self._mirror.observe_nexthop(entry, self._device_of(entry))
        else:
            self._around.nexthop_gone(entry.id)
            self._mirror.forget_nexthop(entry.id)
        self._blame(key, before, f"netlink port {port}" if port and not own else "")

    def _hear_neighbour(self, kind: int, port: int, data: bytes, start: int, end: int) -> None:
        entry = encode.decode_neighbour(data, start, end)
        link = None if entry is None else self._around.links.get(entry.index)
        if entry is None or link is None:
            return
        if link.name not in VXLAN_DEVICES:
            self._outgoing.extend(self._silent.heard(entry, link.name, gone=kind == encode.RTM_DELNEIGH))
            return
        key = neighbour_key(link.name, entry)
        before = None if key is None else self.actual.get(key)
        if kind == encode.RTM_NEWNEIGH:
            self._mirror.observe_neighbour(link.name, entry)
        else:
            self._mirror.forget_neighbour(link.name, entry)
        self._blame(key, before, f"netlink port {port}" if port else "")

    def _hear_rule(self, kind: int, port: int, data: bytes, start: int, end: int) -> None:
        entry = encode.decode_rule(data, start, end)
        if entry is None or entry.key is None:
            return
        before = self.actual.get(entry.key)
        self._mirror.observe_rule(entry, present=kind == encode.RTM_NEWRULE)
        self._blame(entry.key, before, f"netlink port {port}" if port else "")

    def _blame(self, key: KernelKey | None, before: KernelValue | None, author: str) -> None:
        """Note who changed *key*, if somebody did. What goes along with it is nobody's doing."""
        if author and key is not None and self.actual.get(key) != before:
            self._meddlers[key] = author

    def _hear_link(self, kind: int, data: bytes, start: int, end: int) -> None:
        entry = encode.decode_link(data, start, end)
        if entry is None:
            return
        if kind == encode.RTM_NEWLINK:
            self._around.link(entry)
        else:
            self._around.link_gone(entry.index)
        if self._classic:
            self._mirror.prune(self._enabled)
        self._observe_devices()

    def _observe_devices(self) -> None:
        for name in TUNNEL_DEVICES:
            link = self._around.link_named(name)
            if link is None:
                self._mirror.observe_device(name, None)
                continue
            index, configuration = self._wireguard
            if name == WIREGUARD_DEVICE and link.index != index:
                self._around.unsure = True  # it was made by another, or anew: what it is set to is to be read
                configuration = wireguard.Configuration()
            borrowed = self._around.ipv4_address(link.index)
            self._mirror.observe_device(name, links.value_of(link, borrowed, configuration))

    def _enabled(self, device: str) -> bool:
        link = self._around.link_named(device)
        return link is not None and link.enabled

    def _is_ours(self, entry: NexthopEntry) -> bool:
        return self._mirror.owns(entry.id, entry.protocol)

    def _device_of(self, entry: NexthopEntry) -> str | None:
        link = self._around.links.get(entry.ifindex)
        return None if link is None else link.name

    # -------------------------------------------------------------- telling

    async def _hand_over(self) -> None:
        async with self._delivery:  # apply and run both hand over: the order is that of the queue
            while self._outgoing:
                await self._deliver(self._outgoing.popleft())

    def _report(self) -> int:
        """Tell the reconciler what drifted; returns how many keys did."""
        drifted = self._mirror.take_drifted()
        meddlers, self._meddlers = self._meddlers, {}
        if drifted:
            named = {author: _named(author) for author in set(meddlers.values())}
            self._drifted({key: named[meddlers[key]] if key in meddlers else "" for key in drifted})
        return len(drifted)


def has_ipv6(device: str) -> bool:
    """Whether a device of this namespace has IPv6."""
    return _setting(f"net/ipv6/conf/{device}/disable_ipv6") == "0"


def loosen(device: str) -> None:
    """Have a device take packets whose way back is another (rp_filter loose), where it would be strict: the greater of two settings counts.

    Where /proc/sys may not be written (a container's) it stays as it is: ``bgpd check`` tells.
    """
    own, every = (_setting(f"net/ipv4/conf/{name}/rp_filter") for name in (device, "all"))
    if own and max(own, every) == "1":
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/conf", device, "rp_filter").write_text("2")


def _setting(path: str) -> str:
    """Read a sysctl of this namespace; empty where the kernel has none."""
    try:
        return Path("/proc/sys", path).read_text().strip()
    except OSError:
        return ""


async def _nowhere(_: Event) -> None:
    """Nobody wants to know."""


def _named(author: str) -> str:
    """Add the name of a process: its first netlink socket has its process id as port (net/netlink/af_netlink.c: netlink_autobind)."""
    kind, _, port = author.rpartition(" ")
    if kind != "netlink port":
        return author
    try:
        name = Path(f"/proc/{int(port)}/comm").read_text().strip()
    except OSError:
        return author
    return f"{author} (probably {name})"
