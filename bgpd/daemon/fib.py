"""What ``bgpd fib`` shows: each route of ours as it is desired, as we believe it to be, its status, and what a fresh reading differs in.

Laws: a page is bounded, however many routes there are, and work that touches all of them is done in slices between which the loop runs. The
status of a route is that of its whole chain: the route, its group, the legs of that.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping
from typing import Protocol

from bgpd.adapters import clock
from bgpd.adapters.reconciler import Reconciler, describe
from bgpd.model.forwarding import (
    DEVICE_SUFFIX,
    MAIN_TABLE,
    DeviceKey,
    Fdb,
    FdbKey,
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Neighbour,
    NeighbourKey,
    RouteKey,
    RouteKind,
    RuleKey,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.prefix import Prefix
from bgpd.model.view import FibPage, FibQuery, FibRow, FibStatus

SLICE_ROUTES = 2000
"""Routes judged between two turns of the event loop: some 5 ms."""


class Readable(Protocol):
    """A kernel whose ids can be asked for, and which can be read afresh."""

    def nexthop_id(self, group: GroupKey) -> int | None: ...

    async def read_fresh(self) -> dict[KernelKey, KernelValue]: ...


class FibViews:
    """Reads the kernel's reconciler; owns nothing."""

    def __init__(self, reconciler: Reconciler[KernelKey, KernelValue], kernel: Readable) -> None:
        self._reconciler = reconciler
        self._table = reconciler.table
        self._kernel = kernel

    async def page(self, query: FibQuery) -> FibPage:
        """Return one page of routes in order; raises ValueError where the query cannot be understood."""
        after = None if query.after is None else _order(parse_key(query.after))
        prefix = None if query.prefix is None else Prefix.parse(query.prefix)
        keys = await self._keys(query, prefix)
        rest = [key for key in keys if after is None or _order(key) > after]
        shown = heapq.nsmallest(query.limit, rest, key=_order)
        rows = tuple(self.row(key) for key in shown)
        return FibPage(rows=rows, total=len(keys), next=rows[-1].key if len(rest) > len(rows) else None)

    async def diff(self, limit: int) -> FibPage:
        """Read the kernel afresh, and return what differs from what is desired: objects of every kind, at most *limit*."""
        fresh = await self._kernel.read_fresh()
        desired = self._table.snapshot()
        differing: list[KernelKey] = []
        keys = [*desired, *(key for key in fresh if key not in desired)]
        for start in range(0, len(keys), SLICE_ROUTES):
            part = keys[start : start + SLICE_ROUTES]
            differing += [key for key in part if desired.get(key) != fresh.get(key)]
            await asyncio.sleep(0)
        shown = sorted(differing, key=lambda key: (_object(key), _order(key) if isinstance(key, RouteKey) else ()))[
            :limit
        ]
        rows = tuple(self._compared(key, desired, fresh) for key in shown)
        return FibPage(rows=rows, total=len(differing), next=None)

    def status(self, key: RouteKey) -> tuple[FibStatus, str]:
        """Say whether the kernel holds what is desired of a route, and why not."""
        want, held = self._table.get(key), self._reconciler.target.actual
        if want is None:
            if key not in held:
                return FibStatus.NONE, ""
            return (
                (FibStatus.STRAY, "not desired: it is being removed")
                if self._reconciler.open
                else (FibStatus.KEPT, _KEPT)
            )
        failing = self._failing(key)
        if failing is not None:
            failure = self._reconciler.failure(failing)
            fought = self._reconciler.contest.get(failing, clock.monotonic()) is not None
            reason = "" if failure is None else failure.reason
            where = "" if failing == key else f"{_object(failing)} {describe(failing)}: "
            return (FibStatus.CONTESTED if fought else FibStatus.FAILED), where + reason
        right = all(held.get(each) == self._table.get(each) for each in self._chain(key))
        return (FibStatus.PROGRAMMED, "") if right else (FibStatus.PENDING, "")

    async def _keys(self, query: FibQuery, prefix: Prefix | None) -> list[RouteKey]:
        """Return every route that is desired or there, and fits the query. O(all), in slices."""
        held = self._reconciler.target.actual
        known: list[KernelKey] = [key for key, _ in self._table.items()]
        known += [key for key in held if key not in self._table]
        keys: list[RouteKey] = []
        for start in range(0, len(known), SLICE_ROUTES):
            for key in known[start : start + SLICE_ROUTES]:
                if type(key) is not RouteKey or (prefix is not None and not prefix.covers(key.prefix)):
                    continue
                if query.status is None or self.status(key)[0] is query.status:
                    keys.append(key)
            await asyncio.sleep(0)
        return keys

    def row(self, key: RouteKey) -> FibRow:
        """Return one route as it is to be, as it is, and why not."""
        want, have = self._table.get(key), self._reconciler.target.actual.get(key)
        status, reason = self.status(key)
        failing = self._failing(key)
        failure = None if failing is None else self._reconciler.failure(failing)
        group = have.group if isinstance(have, KernelRoute) else None
        return FibRow(
            object="route",
            key=key_text(key),
            desired=self._text(want, dict(self._table_groups(want))),
            actual=self._text(have, self._reconciler.target.actual),
            status=status,
            reason=reason,
            since=None if failure is None else clock.wall(failure.since),
            retry_at=None if failure is None else clock.wall(failure.retry_at),
            path=self._path(want if want is not None else have),
            nexthop_id=None if group is None else self._kernel.nexthop_id(group),
        )

    def _compared(
        self, key: KernelKey, desired: Mapping[KernelKey, KernelValue], fresh: Mapping[KernelKey, KernelValue]
    ) -> FibRow:
        failure = self._reconciler.failure(key)
        status, reason = self.status(key) if isinstance(key, RouteKey) else (FibStatus.PENDING, "")
        if failure is not None:
            fought = self._reconciler.contest.get(key, clock.monotonic()) is not None
            status, reason = FibStatus.CONTESTED if fought else FibStatus.FAILED, failure.reason
        return FibRow(
            object=_object(key),
            key=key_text(key) if isinstance(key, RouteKey) else describe(key),
            desired=self._text(desired.get(key), desired),
            actual=self._text(fresh.get(key), fresh),
            status=status,
            reason=reason,
            since=None if failure is None else clock.wall(failure.since),
            retry_at=None if failure is None else clock.wall(failure.retry_at),
            path=self._path(desired.get(key) if isinstance(key, RouteKey) else None),
            nexthop_id=self._kernel.nexthop_id(key) if isinstance(key, GroupKey) else None,
        )

    def _failing(self, key: RouteKey) -> KernelKey | None:
        """Return what was refused: a leg, for it is why the rest is, or the group, or the route itself."""
        return next((each for each in reversed(self._chain(key)) if self._reconciler.failure(each) is not None), None)

    def _chain(self, key: RouteKey) -> list[KernelKey]:
        want = self._table.get(key)
        chain: list[KernelKey] = [key]
        if isinstance(want, KernelRoute) and want.group is not None:
            chain.append(want.group)
            group = self._table.get(want.group)
            chain += group.legs if isinstance(group, Group) else ()
        return chain

    def _table_groups(self, want: KernelValue | None) -> Iterable[tuple[KernelKey, KernelValue]]:
        if isinstance(want, KernelRoute) and want.group is not None:
            group = self._table.get(want.group)
            if group is not None:
                yield want.group, group

    def _path(self, value: KernelValue | None) -> str:
        """Say whether a route leads through a tunnel of ours, natively, or nowhere."""
        if not isinstance(value, KernelRoute):
            return ""
        if value.kind is not RouteKind.UNICAST:
            return "drop"
        group = (
            None
            if value.group is None
            else self._table.get(value.group) or self._reconciler.target.actual.get(value.group)
        )
        legs = group.legs if isinstance(group, Group) else ()
        return "tunnel" if any(leg.device.endswith(DEVICE_SUFFIX) for leg in legs) else "native"

    def _text(self, value: KernelValue | None, groups: Mapping[KernelKey, KernelValue]) -> str:
        match value:
            case None:
                return ""
            case KernelRoute():
                return _route_text(value, groups)
            case Group():
                return _group_text(value)
            case Neighbour():
                return value.mac
            case WireguardPeer():
                allowed = " ".join(map(str, value.allowed))
                return f"endpoint {value.endpoint} port {value.port} keepalive {value.keepalive_s} allowed {allowed}"
            case Fdb():
                return f"to {value.address}"
            case _:
                return describe(value) or "there"


_KEPT = "kept from before until all is decided (start-up)"


def key_text(key: RouteKey) -> str:
    """Write the place of a route: ``PREFIX [table N] [metric N]``."""
    table = f" table {key.table}" if key.table != MAIN_TABLE else ""
    return f"{key.prefix}{table}{f' metric {key.metric}' if key.metric else ''}"


def parse_key(text: str) -> RouteKey:
    """Read what :func:`key_text` wrote; raises ValueError with the rule."""
    prefix, *words = text.split()
    named = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or named.keys() - {"table", "metric"} or not all(value.isdecimal() for value in named.values()):
        raise ValueError(f"{text!r} is no place of a route: PREFIX [table NUMBER] [metric NUMBER]")
    return RouteKey(Prefix.parse(prefix), int(named.get("table", MAIN_TABLE)), int(named.get("metric", 0)))


def _order(key: RouteKey) -> tuple[Prefix, int, int]:
    return key.prefix, key.table, key.metric


def _object(key: KernelKey) -> str:
    names: dict[type, str] = {
        RouteKey: "route",
        GroupKey: "group",
        Leg: "nexthop",
        NeighbourKey: "neighbour",
        FdbKey: "fdb",
        WireguardPeerKey: "wireguard peer",
        DeviceKey: "device",
        RuleKey: "rule",
    }
    return names.get(type(key), type(key).__name__.lower())


def _route_text(route: KernelRoute, groups: Mapping[KernelKey, KernelValue]) -> str:
    if route.kind is not RouteKind.UNICAST:
        return route.kind.value
    group = None if route.group is None else groups.get(route.group)
    text = _group_text(group) if isinstance(group, Group) else "via no group"
    source = f" src {route.source}" if route.source is not None else ""
    return text + source + (f" mtu {route.mtu_bytes}" if route.mtu_bytes else "")


def _group_text(group: Group) -> str:
    weights = group.weights or (1,) * len(group.legs)
    return ", ".join(
        _leg_text(leg) + (f" weight {weight}" if group.weights else "")
        for leg, weight in zip(group.legs, weights, strict=True)
    )


def _leg_text(leg: Leg) -> str:
    via = f"via {leg.gateway} " if leg.gateway is not None else ""
    return f"{via}dev {leg.device}{' onlink' if leg.onlink else ''}"
