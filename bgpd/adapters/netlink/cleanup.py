"""All that is marked ours in the kernel, found and removed: for when the daemon is gone for good.

Laws: the mark decides, nothing else: route, nexthop and rule by protocol number, nexthops by our range of ids as well, links by the end
of their name. It reads the kernel itself and believes no earlier notes. Order: rules, routes, groups, nexthops, links; neighbours and FDB
entries go with their link, and are named.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence

import msgspec

from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.encode import LinkEntry, NexthopEntry, RouteEntry
from bgpd.adapters.netlink.routes import ABSENT
from bgpd.adapters.netlink.socket import NetlinkSocket
from bgpd.model.forwarding import DEVICE_SUFFIX, MAIN_TABLE, NEXTHOP_ID_FIRST, NEXTHOP_ID_LAST
from bgpd.model.prefix import Family


class Mark(msgspec.Struct, frozen=True):
    """An object of ours: what it is, how it is called, and the request that removes it (none: it goes with its link)."""

    object: str
    text: str
    removal: bytes = b""


class Outcome(msgspec.Struct, frozen=True):
    """What became of an object; an empty *error* says that it is gone."""

    object: str
    text: str
    error: str = ""


async def find(protocol: int) -> list[Mark]:
    """Read what is ours, in the order of removal. Raises OSError if the kernel does not answer, PermissionError without CAP_NET_ADMIN."""
    socket = NetlinkSocket()
    try:
        return [
            *await _rules(socket, protocol),
            *await _routes(socket, protocol),
            *await _nexthops(socket, protocol),
            *await _links(socket),
        ]
    finally:
        socket.close()


async def remove(marks: Sequence[Mark]) -> list[Outcome]:
    """Remove *marks* in order; what is gone already is no error, and what is refused stops nothing."""
    asked = [mark for mark in marks if mark.removal]
    socket = NetlinkSocket()
    try:
        refused = await socket.transact([mark.removal for mark in asked])
    finally:
        socket.close()
    why = {id(asked[position]): str(refusal) for position, refusal in refused.items() if refusal.errno not in ABSENT}
    return [Outcome(mark.object, mark.text, why.get(id(mark), "")) for mark in marks]


def counts(outcomes: Sequence[Mark | Outcome]) -> dict[str, int]:
    """Count objects by what they are, in the order of removal."""
    return dict(Counter(outcome.object for outcome in outcomes))


async def _rules(socket: NetlinkSocket, protocol: int) -> list[Mark]:
    def decode(_: int, data: bytes, start: int, end: int) -> Mark | None:
        rule = encode.decode_rule(data, start, end)
        if rule is None or rule.protocol != protocol:
            return None
        return Mark("rule", f"priority {rule.priority} table {rule.table}", encode.remove_rule_told(data[start:end]))

    return [mark for family in Family for mark in await socket.dump(encode.dump_rules(family), decode)]


async def _routes(socket: NetlinkSocket, protocol: int) -> list[Mark]:
    found: list[Mark] = []
    for family in Family:
        request = encode.dump_routes(family, protocol)
        entries = await socket.dump(request, lambda _, data, start, end: encode.decode_route(data, start, end))
        found += [_route(entry) for entry in entries if entry.protocol == protocol]
    return found


def _route(entry: RouteEntry) -> Mark:
    table = f" table {entry.table}" if entry.table != MAIN_TABLE else ""
    kind = encode.KIND_OF_TYPE.get(entry.type)
    text = f"{entry.prefix}{table} metric {entry.metric}{f' {kind}' if kind else ''}"
    return Mark("route", text, encode.remove_entry(entry))


async def _nexthops(socket: NetlinkSocket, protocol: int) -> list[Mark]:
    def decode(_: int, data: bytes, start: int, end: int) -> NexthopEntry | None:
        entry = encode.decode_nexthop(data, start, end)
        ours = entry is not None and entry.protocol == protocol and NEXTHOP_ID_FIRST <= entry.id <= NEXTHOP_ID_LAST
        return entry if ours else None

    try:
        entries = await socket.dump(encode.dump_nexthops(), decode)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise
        return []  # before Linux 5.3 there are none
    groups = [Mark("group", f"id {entry.id}", encode.remove_nexthop(entry.id)) for entry in entries if entry.members]
    legs = [Mark("nexthop", _leg(entry), encode.remove_nexthop(entry.id)) for entry in entries if not entry.members]
    return groups + legs


def _leg(entry: NexthopEntry) -> str:
    return f"id {entry.id}{f' via {entry.gateway}' if entry.gateway is not None else ''}"


async def _links(socket: NetlinkSocket) -> list[Mark]:
    def decode(_: int, data: bytes, start: int, end: int) -> LinkEntry | None:
        entry = encode.decode_link(data, start, end)
        return entry if entry is not None and entry.name.endswith(DEVICE_SUFFIX) else None

    found: list[Mark] = []
    for link in await socket.dump(encode.dump_links(), decode):
        found += await _on_link(socket, link)
        found.append(Mark("link", link.name, encode.remove_link(link.index)))
    return found


async def _on_link(socket: NetlinkSocket, link: LinkEntry) -> list[Mark]:
    """Name the permanent neighbours and FDB entries that go with a link."""
    found: list[Mark] = []
    requests = [encode.dump_neighbours(family, link.index) for family in Family] + [encode.dump_fdb(link.index)]
    for request in requests:
        entries = await socket.dump(request, lambda _, data, start, end: encode.decode_neighbour(data, start, end))
        found += [
            Mark("fdb", f"{entry.mac} to {entry.address} on {link.name}")
            if entry.fdb
            else Mark("neighbour", f"{entry.address} is {entry.mac} on {link.name}")
            for entry in entries
            if entry.index == link.index and entry.permanent and entry.address is not None
        ]
    return found
