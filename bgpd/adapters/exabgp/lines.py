"""Lines from the shim to values: ExaBGP's stock JSON, the launcher's raw lines, answers to commands and the shim's own marks.

A line says itself what it is, so both modes are read by the same function and a daemon may attach to a speaker of either. What depends on
the session (decoding a raw UPDATE) is left to ``source.py``.

Trap met here: ExaBGP 5.0 prints the graceful restart flags under each other's name. ``address-family-flags: ["restart"]`` is the per-family
F bit (forwarding state kept), ``restart-flags: ["forwarding"]`` is the R bit (RFC 4724 section 3).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from bgpd.adapters.exabgp import notification
from bgpd.adapters.exabgp.codec import CodecError, Learned, Opened, decode_open
from bgpd.model.event import EndOfRib, RoutesLearned, Treatment, UpdateMalformed
from bgpd.model.peer import GracefulRestart, Notification, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

NEIGHBORS = 1024
"""Addresses of neighbors kept parsed: a line names one, and parsing it would cost more than the rest of the line."""


class Hello(msgspec.Struct, frozen=True):
    """The shim's first line."""

    exabgp: int
    """Process id of ExaBGP."""
    complete: bool
    """Every line since ExaBGP's start follows; otherwise a snapshot follows."""
    respawned: bool
    """An earlier shim of this ExaBGP died, and what it knew of the sessions with it."""
    dropped: int
    """Lines dropped since the shim's start because the daemon did not read."""


class SnapshotEnd(msgspec.Struct, frozen=True):
    """What follows happens now."""


class Answer(msgspec.Struct, frozen=True):
    """The command in flight is done, or was refused."""

    done: bool


class Text(msgspec.Struct, frozen=True):
    """A line of the answer to the command in flight."""

    line: bytes


class State(msgspec.Struct, frozen=True):
    peer: Address
    state: str
    """``connected``, ``up`` or ``down``."""
    reason: str = ""


class OpenReceived(msgspec.Struct, frozen=True):
    peer: Address
    opened: Opened


class BodyReceived(msgspec.Struct, frozen=True):
    """An UPDATE, undecoded."""

    peer: Address
    body: bytes


class UpdateReceived(msgspec.Struct, frozen=True):
    """An UPDATE that ExaBGP decoded."""

    peer: Address
    events: tuple[Learned, ...]


class NotificationSeen(msgspec.Struct, frozen=True):
    peer: Address
    notification: Notification


class Trouble(msgspec.Struct, frozen=True):
    """Why there is no session with a neighbor, in the words of ``child/sessions.py``."""

    peer: Address
    reason: str
    hint: bool = False
    """It follows from an earlier reason, where there is one: a neighbor that refused us closes the next connections silently."""


class RefreshReceived(msgspec.Struct, frozen=True):
    """A ROUTE-REFRESH message; subtype 0 asks, 1 begins and 2 ends an answer (RFC 7313)."""

    peer: Address
    family: Family | None
    subtype: int


Line = (
    Hello
    | SnapshotEnd
    | Answer
    | Text
    | State
    | OpenReceived
    | BodyReceived
    | UpdateReceived
    | NotificationSeen
    | Trouble
    | RefreshReceived
)

_SNAPSHOT_END = SnapshotEnd()
_ANSWERS = {b"done": Answer(True), b"error": Answer(False)}


class _Raw(msgspec.Struct):
    raw: int
    direction: str
    peer: str
    body: str


_raw_decoder = msgspec.json.Decoder(_Raw)
_json_decoder = msgspec.json.Decoder()


def parse(line: bytes) -> Line | None:
    """Read one line without its end; None for what nobody needs. Raises CodecError for a line that is not as expected."""
    answer = _ANSWERS.get(line)
    if answer is not None:
        return answer
    try:
        if line.startswith(b'{"raw":'):
            return _parse_raw(_raw_decoder.decode(line))
        if line.startswith(b'{"shim":'):
            message = _json_decoder.decode(line)
            return msgspec.convert(message, Hello) if message["shim"] == "hello" else _SNAPSHOT_END
        if line.startswith(b'{ "exabgp"'):
            return _parse_stock(_json_decoder.decode(line))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CodecError(f"{type(error).__name__}: {error} in {line[:200]!r}") from error
    return Text(line)


@lru_cache(maxsize=NEIGHBORS)
def _address(text: str) -> Address:
    return Address.parse(text)


def _parse_raw(raw: _Raw) -> Line | None:
    peer = _address(raw.peer)
    body = bytes.fromhex(raw.body)
    sent = raw.direction == "send"
    if raw.raw == 0:
        return Trouble(peer, body.decode("utf-8", "replace"), raw.direction == "hint")
    if raw.raw == 3:
        return NotificationSeen(peer, notification.decode(body, sent))
    if sent:
        return None
    if raw.raw == 2:
        return BodyReceived(peer, body)
    if raw.raw == 1:
        return OpenReceived(peer, decode_open(body))
    if raw.raw == 5 and len(body) == 4:
        return RefreshReceived(peer, _FAMILIES.get((str(body[1]), str(body[3]))), body[2])
    return None


# ------------------------------------------------------------------ stock JSON

_FAMILIES = {
    ("1", "1"): Family.IPV4,
    ("2", "1"): Family.IPV6,
    ("ipv4", "unicast"): Family.IPV4,
    ("ipv6", "unicast"): Family.IPV6,
}
_SHUTDOWN = re.compile(r'Shutdown Communication: "(.*)"')
_SUBTYPES = {"query": 0, "begin": 1, "end": 2}
_ORIGINS = {"igp": Origin.IGP, "egp": Origin.EGP, "incomplete": Origin.INCOMPLETE}
_SEGMENTS = {
    "as-sequence": SegmentKind.SEQUENCE,
    "as-set": SegmentKind.SET,
    "as-confed-sequence": SegmentKind.CONFED_SEQUENCE,
    "confed-sequence": SegmentKind.CONFED_SEQUENCE,
    "as-confed-set": SegmentKind.CONFED_SET,
    "confed-set": SegmentKind.CONFED_SET,
}


def _parse_stock(message: dict[str, Any]) -> Line | None:
    kind = message["type"]
    if "neighbor" not in message:
        return None  # ExaBGP says that it shuts down; its end is what counts
    neighbor = message["neighbor"]
    peer = _address(neighbor["address"]["peer"])
    if kind == "state":
        return State(peer, neighbor["state"], neighbor.get("reason", ""))
    received = neighbor.get("direction") == "receive"
    if kind == "notification":
        return NotificationSeen(peer, _stock_notification(neighbor["notification"], not received))
    if not received:
        return None
    if kind == "update":
        return UpdateReceived(peer, tuple(_stock_update(peer, neighbor["message"])))
    if kind == "open":
        return OpenReceived(peer, _stock_open(neighbor["open"]))
    if kind == "refresh":
        refresh = neighbor["route-refresh"]
        return RefreshReceived(peer, _FAMILIES.get((refresh["afi"], refresh["safi"])), _SUBTYPES[refresh["subtype"]])
    return None


def _stock_notification(message: dict[str, Any], sent: bool) -> Notification:
    told = _SHUTDOWN.match(message["message"])
    text = told[1] if told is not None else ""
    return Notification(message["code"], message["subcode"], sent, text)


def _stock_open(message: dict[str, Any]) -> Opened:
    asn = message["asn"]
    families: list[Family] | None = None
    graceful = None
    asn4 = refresh = enhanced = False
    for capability in message["capabilities"].values():
        name = capability.get("name")  # the host name capability has none
        if name == "multiprotocol":
            found = (_FAMILIES.get(tuple(item.replace("/", " ").split())) for item in capability["families"])
            families = [family for family in found if family is not None]
        elif name == "asn4":
            asn4, asn = True, int(capability["asn4"])
        elif name == "route-refresh":
            refresh = True
        elif name == "enhanced-route-refresh":
            enhanced = True
        elif name == "graceful restart":
            flags = {
                _FAMILIES[tuple(item.split("/"))]: labels
                for item, labels in capability["address-family-flags"].items()
                if tuple(item.split("/")) in _FAMILIES
            }
            graceful = GracefulRestart(
                restart_time_s=capability["time"],
                restarting="forwarding" in capability["restart-flags"],
                preserved=tuple(family for family, labels in flags.items() if "restart" in labels),
                families=tuple(flags),
            )
    answer = SessionOpen(
        asn=asn,
        router_id=Address.parse(message["router_id"]),
        hold_time_s=message["hold_time"],
        families=tuple(sorted(set(families if families is not None else [Family.IPV4]))),
        route_refresh=refresh,
        enhanced_refresh=enhanced,
        graceful_restart=graceful,
    )
    return Opened(answer, asn4)


def _stock_update(peer: Address, message: dict[str, Any]) -> list[Learned]:
    if "eor" in message:
        family = _FAMILIES.get((message["eor"]["afi"], message["eor"]["safi"]))
        return [EndOfRib(peer, family)] if family is not None else []
    update = message["update"]
    attributes = update.get("attribute", {})
    withdrawn: dict[int, list[Prefix]] = {}
    announced: dict[_Hops, list[Prefix]] = {}
    for family, routes in update.get("withdraw", {}).items():
        if tuple(family.split(" ")) in _FAMILIES:
            for route in routes:
                withdrawn.setdefault(_path_id(route), []).append(Prefix.parse(route["nlri"]))
    for family, hops in update.get("announce", {}).items():
        if tuple(family.split(" ")) in _FAMILIES:
            _stock_announced(_FAMILIES[tuple(family.split(" "))], hops, announced)
    events: list[Learned] = []
    if "error" in attributes or attributes.get("origin") == "invalid":
        events.append(UpdateMalformed(peer, Treatment.WITHDRAW, "ExaBGP found an attribute malformed"))
        for (_, path_id, _, _), prefixes in announced.items():
            withdrawn.setdefault(path_id, []).extend(prefixes)
        announced.clear()
    again = {(path_id, prefix) for (_, path_id, _, _), prefixes in announced.items() for prefix in prefixes}
    learned: list[Learned] = []
    for (_, path_id, hop, second), prefixes in announced.items():
        gone = tuple(prefix for prefix in withdrawn.pop(path_id, []) if (path_id, prefix) not in again)
        learned.append(
            RoutesLearned(
                peer=peer,
                withdrawn=gone,
                announced=tuple(prefixes),
                attributes=_stock_attributes(attributes, hop, second),
                path_id=path_id,
            )
        )
    events += [
        RoutesLearned(peer=peer, withdrawn=tuple(gone), path_id=path_id) for path_id, gone in withdrawn.items() if gone
    ]
    return events + learned


def _path_id(route: dict[str, Any]) -> int:
    return int(Address.parse(route["path-information"])) if "path-information" in route else 0


_Hops = tuple[Family, int, Address, Address | None]
"""Family, path id and next hops that prefixes share."""


def _stock_announced(
    family: Family, hops: dict[str, list[dict[str, Any]]], announced: dict[_Hops, list[Prefix]]
) -> None:
    """Sort routes by path id and next hops: ExaBGP prints a route with a link-local second next hop under each of the two."""
    addresses = [Address.parse(hop) for hop in hops]
    globals_ = [hop for hop in addresses if hop.family is Family.IPV4 or not hop.is_link_local]
    second = next((hop for hop in addresses if hop not in globals_), None)
    for text, routes in hops.items():
        hop = Address.parse(text)
        if globals_ and hop == second:
            continue
        for route in routes:
            pair = second if hop != second else None
            announced.setdefault((family, _path_id(route), hop, pair), []).append(Prefix.parse(route["nlri"]))


def _stock_attributes(message: dict[str, Any], hop: Address, second: Address | None) -> Attributes:
    path = message.get("as-path", {})
    aggregator = message.get("aggregator")
    unknown = []
    for name, value in message.items():
        if name.startswith("attribute-0x"):
            code, flags = (int(part, 16) for part in name.removeprefix("attribute-").split("-"))
            if flags & 0x40:
                unknown.append(UnknownAttribute(flags & 0xE0, code, bytes.fromhex(value.removeprefix("0x"))))
    return Attributes(
        next_hop=hop,
        link_local_next_hop=second,
        origin=_ORIGINS[message["origin"]],
        as_path=tuple(
            AsSegment(_SEGMENTS[path[at]["element"]], tuple(path[at]["value"])) for at in sorted(path, key=int)
        ),
        med=message.get("med"),
        local_pref=message.get("local-preference"),
        atomic_aggregate=message.get("atomic-aggregate", False),
        aggregator=None
        if aggregator is None
        else (int(aggregator.partition(":")[0]), Address.parse(aggregator.partition(":")[2])),
        communities=tuple(high << 16 | low for high, low in message.get("community", ())),
        extended_communities=tuple(item["value"].to_bytes(8, "big") for item in message.get("extended-community", ())),
        large_communities=tuple((a, b, c) for a, b, c in message.get("large-community", ())),
        originator_id=Address.parse(message["originator-id"]) if "originator-id" in message else None,
        cluster_list=tuple(map(Address.parse, message.get("cluster-list", ()))),
        unknown=tuple(unknown),
    )
