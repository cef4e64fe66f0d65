"""An Announcement as ExaBGP's words, and back from what ``show adj-rib out`` prints.

RFC 4271 section 5.1.2: on an eBGP session the local AS leads the path. ExaBGP adds it only where a command has no path, so it
is written out where there is one, and taken off again on the way back. LOCAL_PREF is dropped by ExaBGP itself on eBGP.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, Origin, SegmentKind, UnknownAttribute, community_text

FOREIGN = Announcement(communities=(0,))
"""Stands for what cannot be read back: it equals nothing that is desired, so it is announced anew or withdrawn."""

_NAMED = {
    "graceful-shutdown": 0xFFFF0000,
    "blackhole": 0xFFFF029A,
    "no-export": 0xFFFFFF01,
    "no-advertise": 0xFFFFFF02,
    "no-export-subconfed": 0xFFFFFF03,
    "no-peer": 0xFFFFFF04,
}
_SEGMENTS = {"as-sequence": SegmentKind.SEQUENCE, "as-set": SegmentKind.SET}
_BRACKETS = {SegmentKind.SEQUENCE: "[ {} ]", SegmentKind.SET: "( {} )"}
_GENERIC = "attribute-0x"


def words(value: Announcement, peer: Peer, family: Family) -> str:
    """Write the attributes as ``announce attributes`` takes them, without the prefixes, which are of *family*.

    ``self`` of IPv4 routes in a session over IPv6 would be our router id: there the address itself is written (RFC 8950).
    """
    hop = value.next_hop or ("self" if family is peer.local_address.family else peer.local_address)
    parts = [f"next-hop {hop}", f"origin {value.origin.name.lower()}"]
    path = _sent_path(value.as_path, peer)
    if path:
        parts.append("as-path " + " ".join(_BRACKETS[s.kind].format(" ".join(map(str, s.asns))) for s in path))
    if value.med is not None:
        parts.append(f"med {value.med}")
    if value.local_pref is not None:
        parts.append(f"local-preference {value.local_pref}")
    if value.atomic_aggregate:
        parts.append("atomic-aggregate")
    if value.aggregator is not None:
        parts.append(f"aggregator ( {value.aggregator[0]}:{value.aggregator[1]} )")
    if value.communities:
        parts.append(f"community [ {' '.join(map(community_text, value.communities))} ]")
    if value.originator_id is not None:
        parts.append(f"originator-id {value.originator_id}")
    if value.cluster_list:
        parts.append(f"cluster-list [ {' '.join(map(str, value.cluster_list))} ]")
    if value.extended_communities:
        parts.append(f"extended-community [ {' '.join('0x' + item.hex() for item in value.extended_communities)} ]")
    if value.large_communities:
        parts.append(f"large-community [ {' '.join(f'{a}:{b}:{c}' for a, b, c in value.large_communities)} ]")
    parts += [f"attribute [ 0x{item.code:02x} 0x{item.flags:02x} 0x{item.value.hex()} ]" for item in value.unknown]
    return " ".join(parts)


def unfit(value: Announcement) -> str:
    """Return why ExaBGP has no words for an announcement; empty if it has."""
    if any(segment.kind not in _BRACKETS for segment in value.as_path):
        return "ExaBGP announces no confederation segments (RFC 5065)"
    return ""


def _sent_path(path: tuple[AsSegment, ...], peer: Peer) -> tuple[AsSegment, ...]:
    """Put the session's own AS in front (RFC 4271 section 5.1.2 b); an empty path is left to ExaBGP."""
    if not path or not peer.is_external:
        return path
    if path[0].kind is SegmentKind.SEQUENCE and len(path[0].asns) < 255:
        return (AsSegment(SegmentKind.SEQUENCE, (peer.local_asn, *path[0].asns)), *path[1:])
    return (AsSegment(SegmentKind.SEQUENCE, (peer.local_asn,)), *path)


# ------------------------------------------------------------------ read-back


class _Segment(msgspec.Struct):
    element: str
    value: tuple[int, ...]


class _Nlri(msgspec.Struct):
    prefix: str
    nexthop: str | None = None


class _HeldRoute(msgspec.Struct):
    nlri: _Nlri
    attributes: dict[str, Any]


class _HeldPeer(msgspec.Struct):
    address: str


class _HeldLine(msgspec.Struct):
    peer: _HeldPeer
    route: _HeldRoute


_decoder = msgspec.json.Decoder(_HeldLine)


def held(line: bytes, peer: Peer) -> tuple[Prefix, Announcement] | None:
    """Read a line of the answer to ``show adj-rib out``; None if it is no route of *peer*.

    The command's filter is a search in text, so other peers' lines may be among the answer.
    """
    try:
        told = _decoder.decode(line)
        if Address.parse(told.peer.address) != peer.address:
            return None
        prefix = Prefix.parse(told.route.nlri.prefix)
    except (msgspec.MsgspecError, ValueError):
        return None
    try:
        return prefix, _announcement(told.route, peer)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return prefix, FOREIGN


def _announcement(route: _HeldRoute, peer: Peer) -> Announcement:
    known = dict(route.attributes)
    hop = Address.parse(route.nlri.nexthop or "")
    aggregator = known.pop("aggregator", None)
    originator = known.pop("originator-id", None)
    value = Announcement(
        origin=Origin[known.pop("origin").upper()],
        med=known.pop("med", None),
        communities=tuple(map(_community, known.pop("community", ()))),
        large_communities=tuple(map(_large, known.pop("large-community", ()))),
        next_hop=None if hop == peer.local_address else hop,
        as_path=_held_path(known.pop("as-path", {}), peer),
        local_pref=known.pop("local-preference", None),
        extended_communities=tuple(map(_extended, known.pop("extended-community", ()))),
        originator_id=None if originator is None else Address.parse(originator),
        cluster_list=tuple(map(Address.parse, known.pop("cluster-list", ()))),
        atomic_aggregate=known.pop("atomic-aggregate", False),
        aggregator=None if aggregator is None else _aggregator(aggregator),
        unknown=tuple(_unknown(name, known.pop(name)) for name in sorted(known) if name.startswith(_GENERIC)),
    )
    return FOREIGN if known else value


def _held_path(told: dict[str, Any], peer: Peer) -> tuple[AsSegment, ...]:
    segments = msgspec.convert([told[at] for at in sorted(told, key=int)], list[_Segment])
    path = [AsSegment(_SEGMENTS[segment.element], segment.value) for segment in segments]
    if path and peer.is_external:
        first = path.pop(0)
        if first.asns[0] != peer.local_asn:
            raise ValueError("not led by our AS")
        if len(first.asns) > 1:
            path.insert(0, AsSegment(first.kind, first.asns[1:]))
    return tuple(path)


def _community(text: str) -> int:
    if text in _NAMED:
        return _NAMED[text]
    high, _, low = text.partition(":")
    return int(high) << 16 | int(low)


def _large(text: str) -> tuple[int, int, int]:
    first, second, third = map(int, text.split(":"))
    return first, second, third


def _extended(text: str) -> bytes:
    """Read one that ExaBGP has no name for; names lose bits, so they are not read."""
    if not text.startswith("0x"):
        raise ValueError("a named extended community")
    return bytes.fromhex(text[2:])


def _aggregator(text: str) -> tuple[int, Address]:
    asn, _, address = text.partition(":")
    return int(asn), Address.parse(address)


def _unknown(name: str, value: str) -> UnknownAttribute:
    code, _, flags = name.removeprefix(_GENERIC).partition("-0x")
    return UnknownAttribute(int(flags, 16), int(code, 16), bytes.fromhex(value.removeprefix("0x")))
