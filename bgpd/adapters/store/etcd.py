"""A store in an etcd v3 cluster (3.4 and later), for nodes on several machines and beside Calico's own tools.

Laws: reads are linearizable, as etcd's are by default. A write is sent once; where its outcome is unknown it is Transient,
and the caller reads back. A watch is one stream; when that ends, for a lost member, a lost leader or silence, the watch
goes on elsewhere from the revision after the last one told, so its consumer sees each revision once and in order, and
learns of an outage only when it lasts (WATCH_LOST_S). A store that went back behind what was told (restored from a
backup) is Compacted: what was read before is worth nothing.

History is trimmed by the cluster (``etcd --auto-compaction-retention``), not by us: others use it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio

from bgpd.adapters.store.base import (
    PAGE_KEYS,
    Change,
    Compacted,
    Compare,
    Comparison,
    KeyValue,
    LeaseNotFound,
    Page,
    Put,
    Reading,
    Scan,
    Transient,
    TxnResult,
    Write,
    check_parts,
    check_txn,
    prefix_end,
)
from bgpd.adapters.store.etcd_link import READ_S, EtcdOptions, Link, Member, Method, Refused, is_cancelling
from bgpd.adapters.store.proto import kv_pb2 as kv
from bgpd.adapters.store.proto import rpc_pb2 as rpc

IDLE_S = 5.0
"""After so long without a word a watch is asked for its progress."""
ANSWER_S = 3.0
"""A watch that did not answer within it is dead, whatever TCP says: it goes on elsewhere."""
WATCH_LOST_S = 5.0
"""An interruption of so long is told as Transient: elections and restarts of members are shorter."""
WATCH_PAUSE_S = 0.1
"""Pause before the first attempt to go on; doubled up to WATCH_PAUSE_MAX_S."""
WATCH_PAUSE_MAX_S = 0.4
"""A dozen watches of a node wait together for the one that looks for a member, so this costs the cluster nothing."""

RANGE: Final = Method[rpc.RangeRequest, rpc.RangeResponse]("/etcdserverpb.KV/Range", rpc.RangeResponse)
TXN: Final = Method[rpc.TxnRequest, rpc.TxnResponse]("/etcdserverpb.KV/Txn", rpc.TxnResponse)
WATCH: Final = Method[rpc.WatchRequest, rpc.WatchResponse]("/etcdserverpb.Watch/Watch", rpc.WatchResponse)
GRANT: Final = Method[rpc.LeaseGrantRequest, rpc.LeaseGrantResponse](
    "/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantResponse
)
REVOKE: Final = Method[rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse](
    "/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeResponse
)
KEEPALIVE: Final = Method[rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse](
    "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse
)

_COMPACTED: Final = "etcdserver: mvcc: required revision has been compacted"
_ALL: Final = b"\0"
"""As the end of a range: no end. As its key: before all keys, since none is empty."""


class EtcdStore:
    """Owns the link to the cluster and the streams of its watches. Nothing is connected before the first use."""

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._link: Link | None = None
        self._streams: set[_WatchStream] = set()
        self._closed = False

    async def get(self, key: str) -> KeyValue | None:
        response = await self._read(rpc.RangeRequest(key=key.encode()))
        return _key_value(response.kvs[0]) if response.kvs else None

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        first, end = _bounds(prefix)
        request = rpc.RangeRequest(key=max(first, start.encode()), range_end=end, limit=limit, revision=revision)
        response = await self._read(request)
        return Page(tuple(_key_value(item) for item in response.kvs), response.more, response.header.revision)

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        check_parts(parts)
        request = rpc.TxnRequest(success=[rpc.RequestOp(request_range=_part(part)) for part in parts])
        try:
            # A transaction that only reads is linearizable, takes no turn in the log and may be sent twice.
            response = await self._connected().call(TXN, request, repeat=True)
        except Refused as error:
            raise ValueError(error.details) from error
        revision = response.header.revision
        ranges = [one.response_range for one in response.responses]
        return Reading(tuple(Page(tuple(map(_key_value, one.kvs)), one.more, revision) for one in ranges), revision)

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        check_txn(compares, writes)
        request = rpc.TxnRequest(
            compare=[_comparison(compare) for compare in compares],
            success=[_request_op(write) for write in writes],
        )
        try:
            response = await self._connected().call(TXN, request, repeat=False)
        except Refused as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                leases = [write.lease for write in writes if isinstance(write, Put) and write.lease]
                raise LeaseNotFound(await self._ended(leases)) from error
            raise ValueError(error.details) from error
        return TxnResult(response.succeeded, response.header.revision)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        loop = asyncio.get_running_loop()
        first, end = _bounds(prefix)
        position, established, lost_at, pause_s = from_revision, False, 0.0, WATCH_PAUSE_S
        while True:
            stream = _WatchStream(self._connected())
            self._streams.add(stream)
            try:
                present = await self._present(first, end)
                if established and present < position - 1:
                    raise Compacted(position)
                position = position or present + 1
                # Newer etcd answers no progress request of a watch that begins after the present (etcd issue 20242).
                begin = present if position == present + 1 else position
                async with aclosing(stream.responses(first, end, begin)) as responses:
                    async for response in responses:
                        established, lost_at, pause_s = True, 0.0, WATCH_PAUSE_S
                        for revision, changes in _by_revision(response.events):
                            if revision >= position:
                                position = revision + 1
                                yield revision, changes
            except Transient:
                lost_at = lost_at or loop.time()
                if self._closed or not established or loop.time() - lost_at >= WATCH_LOST_S:
                    raise
            finally:
                self._streams.discard(stream)
                stream.close()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, WATCH_PAUSE_MAX_S)

    async def grant(self, ttl_s: int) -> int:
        if ttl_s < 1:
            raise ValueError(f"a lease lasts at least 1 s, not {ttl_s}")
        # Repeating is safe: a lease that nobody knows of ends by itself.
        response = await self._connected().call(GRANT, rpc.LeaseGrantRequest(TTL=ttl_s), repeat=True)
        return response.ID

    async def keepalive(self, lease: int) -> None:
        link = self._connected()
        member = await link.reach()
        call = member.stream(KEEPALIVE, await link.token(member), READ_S)
        try:
            await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
            response = await call.read()
            await call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise link.failed(member, error) from error
        except asyncio.InvalidStateError as error:  # a write to a call that has ended
            link.doubt(member)
            raise Transient(f"{member.address}: the connection broke") from error
        except asyncio.CancelledError as error:
            if is_cancelling():
                raise
            raise Transient(f"{member.address}: the connection was closed") from error
        finally:
            call.cancel()
        if not isinstance(response, rpc.LeaseKeepAliveResponse):
            link.doubt(member)
            raise Transient(f"{member.address}: the stream ended")
        if not response.TTL:
            raise LeaseNotFound(lease)

    async def revoke(self, lease: int) -> None:
        try:
            await self._connected().call(REVOKE, rpc.LeaseRevokeRequest(ID=lease), repeat=False)
        except Refused as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                raise LeaseNotFound(lease) from error
            raise ValueError(error.details) from error

    async def close(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.close()
        if self._link is not None:
            await self._link.close()

    def _connected(self) -> Link:
        """Return the link, made at first use: channels belong to the running loop."""
        if self._closed:
            raise Transient("the store is closed")
        if self._link is None:
            self._link = Link(self._options)
        return self._link

    async def _read(self, request: rpc.RangeRequest) -> rpc.RangeResponse:
        """Read a range; raises Compacted with the revision that etcd tells to watchers only, and ValueError."""
        try:
            return await self._connected().call(RANGE, request, repeat=True)
        except Refused as error:
            if error.details != _COMPACTED:
                raise ValueError(error.details) from error
            refused = error
        stream = _WatchStream(self._connected())
        try:
            async with aclosing(stream.responses(request.key, request.range_end, request.revision)) as responses:
                async for response in responses:
                    if not response.created:  # what is wrong follows
                        break
        finally:
            stream.close()
        raise Transient(f"revision {request.revision} is compacted for readers, but not for watchers") from refused

    async def _present(self, first: bytes, end: bytes) -> int:
        """Return the cluster's revision by reading in a range that is to be watched, which the user may read as well.

        This also proves token and leader, of which a watch is only silent.
        """
        response = await self._read(rpc.RangeRequest(key=first, range_end=end, limit=1, keys_only=True))
        return response.header.revision

    async def _ended(self, leases: Sequence[int]) -> int:
        """Return which of the leases is the one that etcd did not find."""
        for lease in dict.fromkeys(leases[:-1]):
            try:
                await self.keepalive(lease)
            except LeaseNotFound:
                return lease
        return leases[-1]


class _WatchStream:
    """Owns one watch on one member."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._call: grpc.aio.StreamStreamCall[rpc.WatchRequest, rpc.WatchResponse] | None = None

    async def responses(self, first: bytes, end: bytes, revision: int) -> AsyncGenerator[rpc.WatchResponse, None]:
        """Iterate over what the member says, once it has made the watch. Raises Compacted, and Transient where it ends."""
        member = await self._link.reach()
        token = await self._link.token(member)
        self._call = call = member.stream(WATCH, token, None)
        create = rpc.WatchCreateRequest(key=first, range_end=end, start_revision=revision, progress_notify=True)
        request = rpc.WatchRequest(create_request=create)
        reading: asyncio.Future[object] | None = None
        try:
            await call.write(request)
            idle_s = ANSWER_S
            while True:
                # Cancelling a read ends the call, so one that takes long is left to go on.
                reading = asyncio.ensure_future(call.read())
                if not (await asyncio.wait({reading}, timeout=idle_s))[0]:
                    await call.write(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
                    if not (await asyncio.wait({reading}, timeout=ANSWER_S))[0]:
                        self._link.doubt(member)
                        raise Transient(f"{member.address}: a watch was silent for {idle_s + ANSWER_S:g} s")
                idle_s = IDLE_S
                response = self._heard(member, token, reading.result())
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._failed(member, error) from error
        except asyncio.InvalidStateError as error:  # a write to a call that has ended
            self._link.doubt(member)
            raise Transient(f"{member.address}: the connection broke") from error
        except asyncio.CancelledError as error:
            if is_cancelling():
                raise
            raise Transient(f"{member.address}: the connection was closed") from error
        finally:
            call.cancel()
            if reading is not None:
                await asyncio.wait({reading})
                if not reading.cancelled():
                    reading.exception()

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _heard(self, member: Member, token: str, heard: object) -> rpc.WatchResponse:
        """Return a response that says that the watch goes on."""
        if not isinstance(heard, rpc.WatchResponse):
            self._link.doubt(member)
            raise Transient(f"{member.address}: the stream ended")
        if heard.compact_revision:
            raise Compacted(heard.compact_revision)
        if heard.canceled:
            # etcd 3.4 calls an ended token a denied permission here.
            self._link.drop_token(token)
            raise Transient(f"{member.address}: the watch was refused: {heard.cancel_reason or 'no reason given'}")
        return heard

    def _failed(self, member: Member, error: grpc.aio.AioRpcError) -> Transient:
        try:
            return self._link.failed(member, error)
        except Refused as refused:
            return Transient(f"{member.address}: {refused.details}")


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key below *prefix* and the end of the range."""
    end = prefix_end(prefix)
    return prefix.encode() or _ALL, _ALL if end is None else end.encode()


def _key_value(item: kv.KeyValue) -> KeyValue:
    return KeyValue(item.key.decode(), item.value, item.mod_revision, item.lease)


def _part(part: str | Scan) -> rpc.RangeRequest:
    if isinstance(part, str):
        return rpc.RangeRequest(key=part.encode())
    first, end = _bounds(part.prefix)
    return rpc.RangeRequest(
        key=max(first, part.start.encode()), range_end=end, limit=part.limit, keys_only=part.keys_only
    )


def _comparison(compare: Comparison) -> rpc.Compare:
    if isinstance(compare, Compare):
        result, revision, key, end = rpc.Compare.EQUAL, compare.mod_revision, compare.key.encode(), b""
    else:
        # Holds for an empty range as well, whose revision counts as 0 (etcd 3.3 and later).
        first, last = _bounds(compare.prefix)
        result, revision, key, end = rpc.Compare.LESS, compare.revision + 1, first, last
    return rpc.Compare(key=key, range_end=end, target=rpc.Compare.MOD, result=result, mod_revision=revision)


def _request_op(write: Write) -> rpc.RequestOp:
    if isinstance(write, Put):
        return rpc.RequestOp(request_put=rpc.PutRequest(key=write.key.encode(), value=write.value, lease=write.lease))
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key.encode()))


def _by_revision(events: Sequence[kv.Event]) -> Iterator[tuple[int, list[Change]]]:
    """Group the events of a response; etcd never parts a revision (without ``fragment``)."""
    changes: list[Change] = []
    for event in events:
        revision = event.kv.mod_revision
        if changes and changes[-1].mod_revision != revision:
            yield changes[-1].mod_revision, changes
            changes = []
        value = None if event.type == kv.Event.DELETE else event.kv.value
        changes.append(Change(event.kv.key.decode(), value, revision))
    if changes:
        yield changes[-1].mod_revision, changes
