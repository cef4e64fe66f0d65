"""The writer of the kernel table: routes, the groups they point to, and the legs of those, each as long as something needs it."""

from __future__ import annotations

from collections.abc import Callable

from bgpd.flow.table import Table
from bgpd.model.forwarding import (
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
    RouteSettings,
    RuleKey,
)
from bgpd.model.prefix import Family, Prefix


class Fib:
    """Owns the counts of users of each group and leg; the table holds the result."""

    def __init__(
        self, table: Table[KernelKey, KernelValue], settings: Callable[[], RouteSettings] = RouteSettings
    ) -> None:
        """*settings* says how routes are written; table and metric must stay the same for the life of this."""
        self.table = table
        self._settings = settings
        self._users: dict[GroupKey, int] = {}
        self._values: dict[tuple[GroupKey, Family], tuple[RouteSettings, int, KernelRoute]] = {}
        """The value that the routes of a group share, and the settings and the MTU that it was made with."""
        self._legs: dict[Leg, int] = {}
        self._rules: tuple[RuleKey, ...] = ()

    def key(self, prefix: Prefix) -> RouteKey:
        """Return the place of *prefix* in the kernel."""
        return self._settings().key(prefix)

    def unicast(self, prefix: Prefix, group: GroupKey, legs: tuple[Leg, ...], weights: tuple[int, ...] = ()) -> None:
        """Send *prefix* to *group*, and let that group have *legs* (all routes of a group see the change at once)."""
        self.set_legs(group, legs, weights)
        self._set_route(prefix, self.to(group, prefix.family))

    def to(self, group: GroupKey, family: Family, mtu_bytes: int = 0) -> KernelRoute:
        """Return the value that the routes of *group* share; *mtu_bytes* where the configuration says none, 0: that of their link."""
        settings = self._settings()
        shared = self._values.get((group, family))
        if shared is None or shared[0] is not settings or shared[1] != mtu_bytes:
            route = settings.unicast(family, group, mtu_bytes)
            shared = self._values[group, family] = settings, mtu_bytes, route
        return shared[2]

    def drop(self, prefix: Prefix, kind: RouteKind) -> None:
        """Install *prefix* as blackhole, unreachable or prohibit."""
        self._set_route(prefix, KernelRoute(kind))

    def put(self, prefix: Prefix, route: KernelRoute | None) -> None:
        """Want *route* for *prefix*; one to a group is of :meth:`to`, and the group has its legs."""
        if route is None:
            self.remove(prefix)
        else:
            self._set_route(prefix, route)

    def remove(self, prefix: Prefix) -> None:
        """Want no route for *prefix*."""
        key = self.key(prefix)
        old = self.table.get(key)
        self.table.discard(key)
        self._leave(old)

    def hold(self, key: KernelKey, value: KernelValue) -> None:
        """Want *key* whatever routes need; legs are counted."""
        if isinstance(key, Leg):
            self._take(key)
        else:
            self.table.set(key, value)

    def release(self, key: KernelKey) -> None:
        """Undo one :meth:`hold`."""
        if isinstance(key, Leg):
            self._give(key)
        else:
            self.table.discard(key)

    def lead(self) -> None:
        """Want the rules that lead to our table, as configured."""
        wanted = self._settings().rules()
        for rule in self._rules:
            if rule not in wanted:
                self.table.discard(rule)
        for rule in wanted:
            self.table.set(rule, Present())
        self._rules = wanted

    def route(self, prefix: Prefix) -> KernelRoute | None:
        value = self.table.get(self.key(prefix))
        assert value is None or isinstance(value, KernelRoute)
        return value

    def legs(self, group: GroupKey) -> tuple[Leg, ...]:
        value = self.table.get(group)
        return value.legs if isinstance(value, Group) else ()

    def _set_route(self, prefix: Prefix, route: KernelRoute) -> None:
        key = self.key(prefix)
        old = self.table.get(key)
        if old == route:
            return
        if route.group is not None:
            self._users[route.group] = self._users.get(route.group, 0) + 1
        self.table.change(key, route)
        self._leave(old)

    def _leave(self, old: KernelValue | None) -> None:
        if not isinstance(old, KernelRoute) or old.group is None:
            return
        self._users[old.group] -= 1
        if not self._users[old.group]:
            del self._users[old.group]
            for family in Family:
                self._values.pop((old.group, family), None)
            legs = self.legs(old.group)
            self.table.discard(old.group)
            for leg in legs:
                self._give(leg)

    def set_legs(self, group: GroupKey, legs: tuple[Leg, ...], weights: tuple[int, ...] = ()) -> None:
        """Let *group* have *legs*: a route must point to it, or be about to."""
        wanted = Group(legs, weights)
        if self.table.get(group) == wanted:
            return
        old = self.legs(group)
        for leg in wanted.legs:
            self._take(leg)
        self.table.set(group, wanted)
        for leg in old:
            self._give(leg)

    def _take(self, leg: Leg) -> None:
        self._legs[leg] = self._legs.get(leg, 0) + 1
        self.table.set(leg, Present())

    def _give(self, leg: Leg) -> None:
        self._legs[leg] -= 1
        if not self._legs[leg]:
            del self._legs[leg]
            self.table.discard(leg)
