"""BGP message bodies to events and back: UPDATE and OPEN (NOTIFICATION: notification.py).

RFC 4271 section 4.3 (UPDATE), 4760 (MP_REACH, MP_UNREACH), 2545 (IPv6 next hops), 8950 (IPv6 next hop of IPv4), 6793 (4-byte ASNs), 7911
(path ids), 4724 (End-of-RIB), 1997, 4360, 8092 (communities), 4456 (reflection), 5065 (confederations), 7607 (AS 0).

Laws: a defect is treated as RFC 7606 says. Treat-as-withdraw and attribute-discard become an UpdateMalformed event beside the routes; a
defect that hides where routes begin or end raises SessionReset, which names the family if only that one is concerned (AFI/SAFI disable).
Nothing else is raised, whatever the bytes. Unknown transitive attributes are kept, unknown non-transitive ones are ignored (RFC 4271
section 9).

Theory of operation: few attribute sets carry many routes, so a set is parsed once and found again by its bytes; MP_REACH_NLRI and
MP_UNREACH_NLRI, which hold routes, are cut out first. The flags and lengths that each attribute must have are a table, ``RULES``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from bgpd.model.event import EndOfRib, RoutesLearned, Treatment, UpdateMalformed
from bgpd.model.peer import GracefulRestart, Role, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

CACHED_SETS = 16384
"""Attribute sets kept parsed for each kind of session, about 1 KiB each. A full cache is emptied: the next messages fill it again."""
CACHED_NEXT_HOPS = 64
"""Variants of a set kept for different next hops of MP_REACH_NLRI."""

AS_TRANS = 23456

_OPTIONAL = 0x80
_TRANSITIVE = 0x40
_PARTIAL = 0x20
_EXTENDED = 0x10
_V6 = 1 << 128

_SEGMENTS = {1: SegmentKind.SET, 2: SegmentKind.SEQUENCE, 3: SegmentKind.CONFED_SEQUENCE, 4: SegmentKind.CONFED_SET}
_SEGMENT_CODES = {kind: code for code, kind in _SEGMENTS.items()}
_CONFED = (SegmentKind.CONFED_SEQUENCE, SegmentKind.CONFED_SET)
_FAMILIES = {1: Family.IPV4, 2: Family.IPV6}
_AFIS = {Family.IPV4: 1, Family.IPV6: 2}
_UNICAST = 1

Learned = RoutesLearned | EndOfRib | UpdateMalformed


class CodecError(Exception):
    """A message that is not what its RFC says."""


# Subcodes of UPDATE Message Error (RFC 4271 section 4.5).
_UPDATE_ERROR = 3
_ATTRIBUTE_LIST = 1
_UNRECOGNIZED = 2
_FLAGS = 4
_LENGTH = 5
_ORIGIN = 6
_NEXT_HOP = 8
_OPTIONAL_ATTRIBUTE = 9
_NETWORK = 10
_AS_PATH = 11


class SessionReset(CodecError):  # noqa: N818  what the caller does
    """The session has to end with a NOTIFICATION of *code* and *subcode*; the routes of this message are unknown (RFC 7606 section 3).

    With a *family* only that one is concerned: a caller with others may do without it for the rest of the session (AFI/SAFI disable).
    """

    def __init__(self, subcode: int, attribute: str, reason: str, family: Family | None = None) -> None:
        super().__init__(reason)
        self.code = _UPDATE_ERROR
        self.subcode = subcode
        self.attribute = attribute
        """What is broken, as in UpdateMalformed."""
        self.family = family


class DecodeContext(msgspec.Struct, frozen=True):
    """What a session negotiated, as far as the bytes depend on it."""

    asn4: bool = True
    """AS numbers have 4 bytes (RFC 6793)."""
    add_path: tuple[Family, ...] = ()
    """Families whose prefixes carry a path id (RFC 7911)."""
    external: bool = True
    """An eBGP session: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are not accepted (RFC 7606 section 7)."""
    disabled: tuple[Family, ...] = ()
    """Families whose routes are ignored: not offered by both, or ended by a defect (RFC 7606 section 2, AFI/SAFI disable)."""


class _Defect(Exception):  # noqa: N818  always caught here
    def __init__(self, subcode: int, reason: str) -> None:
        super().__init__(reason)
        self.subcode = subcode


# ------------------------------------------------------------------ attributes: what each must look like


def _exactly(length: int) -> Callable[[bytes], None]:
    def check(value: bytes) -> None:
        if len(value) != length:
            raise _Defect(_LENGTH, f"has {len(value)} bytes, not {length}")

    return check


def _multiple(length: int) -> Callable[[bytes], None]:
    def check(value: bytes) -> None:
        if not value or len(value) % length:
            raise _Defect(_LENGTH, f"has {len(value)} bytes, not a multiple of {length}")

    return check


def _at_least(length: int) -> Callable[[bytes], None]:
    def check(value: bytes) -> None:
        if len(value) < length:
            raise _Defect(_LENGTH, f"has {len(value)} bytes, fewer than {length}")

    return check


def _origin(value: bytes, _context: DecodeContext) -> Origin:
    if value[0] > 2:
        raise _Defect(_ORIGIN, f"is {value[0]}")
    return Origin(value[0])


def _as_path(value: bytes, context: DecodeContext) -> tuple[AsSegment, ...]:
    """Read AS_PATH; confederation segments from outside of the confederation are an error (RFC 5065 section 5)."""
    segments = _segments(value, 4 if context.asn4 else 2)
    if context.external and any(segment.kind in _CONFED for segment in segments):
        raise _Defect(_AS_PATH, "has a confederation segment, and the peer is of none of ours")
    return segments


def _segments(value: bytes, size: int) -> tuple[AsSegment, ...]:
    segments = []
    at = 0
    while at < len(value):
        end = at + 2 + value[at + 1] * size if at + 2 <= len(value) else at
        if at + 2 >= end or end > len(value):
            raise _Defect(_AS_PATH, "has an empty or truncated segment")
        if value[at] not in _SEGMENTS:
            raise _Defect(_AS_PATH, f"has a segment of kind {value[at]}")
        asns = tuple(int.from_bytes(value[i : i + size], "big") for i in range(at + 2, end, size))
        if 0 in asns:
            raise _Defect(_AS_PATH, "has AS 0")
        segments.append(AsSegment(_SEGMENTS[value[at]], asns))
        at = end
    return tuple(segments)


def _as4_path(value: bytes, _context: DecodeContext) -> tuple[AsSegment, ...]:
    if not value:
        raise _Defect(_LENGTH, "is empty")
    return tuple(segment for segment in _segments(value, 4) if segment.kind not in _CONFED)


def _address(value: bytes, _context: DecodeContext) -> Address:
    return Address.from_packed(value)


def _number(value: bytes, _context: DecodeContext) -> int:
    return int.from_bytes(value, "big")


def _present(_value: bytes, _context: DecodeContext) -> bool:
    return True


def _aggregator(value: bytes, context: DecodeContext) -> tuple[int, Address]:
    return _aggregated(value, 8 if context.asn4 else 6)


def _as4_aggregator(value: bytes, _context: DecodeContext) -> tuple[int, Address]:
    return _aggregated(value, 8)


def _aggregated(value: bytes, size: int) -> tuple[int, Address]:
    if len(value) != size:
        raise _Defect(_LENGTH, f"has {len(value)} bytes, not {size}")
    asn = int.from_bytes(value[:-4], "big")
    if not asn:
        raise _Defect(_OPTIONAL_ATTRIBUTE, "has AS 0")
    return asn, Address.from_packed(value[-4:])


def _numbers(value: bytes, _context: DecodeContext) -> tuple[int, ...]:
    return tuple(int.from_bytes(value[i : i + 4], "big") for i in range(0, len(value), 4))


def _addresses(value: bytes, _context: DecodeContext) -> tuple[Address, ...]:
    return tuple(Address.from_packed(value[i : i + 4]) for i in range(0, len(value), 4))


def _eights(value: bytes, _context: DecodeContext) -> tuple[bytes, ...]:
    return tuple(value[i : i + 8] for i in range(0, len(value), 8))


def _triples(value: bytes, context: DecodeContext) -> tuple[tuple[int, int, int], ...]:
    flat = _numbers(value, context)
    return tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def _attr_set(value: bytes) -> None:
    """Check ATTR_SET (RFC 6368 section 5): an AS number of 4 bytes, then attributes that are sound themselves; it is not nested."""
    if len(value) < 4:
        raise _Defect(_LENGTH, f"has {len(value)} bytes, fewer than 4")
    inner = _codes(value[4:])
    if inner is None:
        raise _Defect(_OPTIONAL_ATTRIBUTE, "has truncated attributes")
    if _ATTR_SET in inner or _MP_REACH in inner or _MP_UNREACH in inner:
        raise _Defect(_OPTIONAL_ATTRIBUTE, "has an attribute that it must not hold")
    try:
        found = _read(value[4:], DecodeContext(external=False))
    except SessionReset as reset:
        raise _Defect(_OPTIONAL_ATTRIBUTE, f"holds a defect: {reset}") from reset
    if found.withdraw is not None:
        raise _Defect(_OPTIONAL_ATTRIBUTE, f"holds a defect: {found.withdraw.reason}")


class _Rule(NamedTuple):
    """How an attribute is read, and how a defect of it is treated (RFC 7606 section 7)."""

    name: str
    field: str
    flags: int
    treatment: Treatment
    check: Callable[[bytes], None] | None
    read: Callable[[bytes, DecodeContext], Any] | None
    """None: it is checked, and kept as an unknown attribute is."""
    internal: bool = False
    """Discarded when it comes from an external peer."""


_WELL_KNOWN = _TRANSITIVE
_BOTH = _OPTIONAL | _TRANSITIVE

RULES: dict[int, _Rule] = {
    1: _Rule("ORIGIN", "origin", _WELL_KNOWN, Treatment.WITHDRAW, _exactly(1), _origin),
    2: _Rule("AS_PATH", "as_path", _WELL_KNOWN, Treatment.WITHDRAW, None, _as_path),
    3: _Rule("NEXT_HOP", "next_hop", _WELL_KNOWN, Treatment.WITHDRAW, _exactly(4), _address),
    4: _Rule("MULTI_EXIT_DISC", "med", _OPTIONAL, Treatment.WITHDRAW, _exactly(4), _number),
    5: _Rule("LOCAL_PREF", "local_pref", _WELL_KNOWN, Treatment.WITHDRAW, _exactly(4), _number, internal=True),
    6: _Rule("ATOMIC_AGGREGATE", "atomic_aggregate", _WELL_KNOWN, Treatment.DISCARD, _exactly(0), _present),
    7: _Rule("AGGREGATOR", "aggregator", _BOTH, Treatment.DISCARD, None, _aggregator),
    8: _Rule("COMMUNITIES", "communities", _BOTH, Treatment.WITHDRAW, _multiple(4), _numbers),
    9: _Rule("ORIGINATOR_ID", "originator_id", _OPTIONAL, Treatment.WITHDRAW, _exactly(4), _address, internal=True),
    10: _Rule("CLUSTER_LIST", "cluster_list", _OPTIONAL, Treatment.WITHDRAW, _multiple(4), _addresses, internal=True),
    16: _Rule("EXTENDED_COMMUNITIES", "extended_communities", _BOTH, Treatment.WITHDRAW, _multiple(8), _eights),
    17: _Rule("AS4_PATH", "as4_path", _BOTH, Treatment.DISCARD, None, _as4_path),
    18: _Rule("AS4_AGGREGATOR", "as4_aggregator", _BOTH, Treatment.DISCARD, None, _as4_aggregator),
    24: _Rule("TRAFFIC_ENGINEERING", "", _OPTIONAL, Treatment.WITHDRAW, _at_least(36), None),
    25: _Rule("IPV6_EXTENDED_COMMUNITIES", "", _BOTH, Treatment.WITHDRAW, _multiple(20), None),
    32: _Rule("LARGE_COMMUNITY", "large_communities", _BOTH, Treatment.WITHDRAW, _multiple(12), _triples),
    128: _Rule("ATTR_SET", "", _BOTH, Treatment.WITHDRAW, _attr_set, None),
}
_MP_REACH = 14
_MP_UNREACH = 15
_AS4 = (17, 18)
_ATTR_SET = 128
_NAMES = {_MP_REACH: "MP_REACH_NLRI", _MP_UNREACH: "MP_UNREACH_NLRI"} | {
    code: rule.name for code, rule in RULES.items()
}


def _name(code: int) -> str:
    return _NAMES.get(code) or f"attribute {code}"


# ------------------------------------------------------------------ attribute sets


class _Broken(NamedTuple):
    """A defect of an attribute."""

    attribute: str
    reason: str
    subcode: int = _ATTRIBUTE_LIST


class _Set:
    """A parsed attribute set: its values, its defects, and the Attributes built of it so far for each next hop."""

    __slots__ = ("built", "discarded", "values", "withdraw")

    def __init__(self, values: dict[str, Any], withdraw: _Broken | None, discarded: tuple[_Broken, ...]) -> None:
        self.values = values
        self.withdraw = withdraw  # why its routes are withdrawn
        self.discarded = discarded
        self.built: dict[bytes, Attributes] = {}

    def attributes(self, next_hop: bytes) -> Attributes | _Broken:
        """Build the Attributes for the bytes of a next hop of MP_REACH_NLRI, or for NEXT_HOP if empty; or say what is missing."""
        found = self.built.get(next_hop)
        if found is not None:
            return found
        for name, field in (("ORIGIN", "origin"), ("AS_PATH", "as_path")):
            if field not in self.values:
                return _Broken(name, f"{name} is missing")
        values = dict(self.values)
        if next_hop:
            values["next_hop"] = Address.from_packed(next_hop[:16] if len(next_hop) > 4 else next_hop)
            if len(next_hop) == 32:
                values["link_local_next_hop"] = Address.from_packed(next_hop[16:])
        elif "next_hop" not in values:
            return _Broken("NEXT_HOP", "NEXT_HOP is missing")
        if len(self.built) >= CACHED_NEXT_HOPS:
            self.built.clear()
        attributes = self.built[next_hop] = Attributes(**values)
        return attributes


_caches: dict[tuple[bool, bool], dict[bytes, _Set]] = {}


def _split(data: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """Cut MP_REACH_NLRI and MP_UNREACH_NLRI out of the path attributes; raises SessionReset if one comes twice.

    What is truncated stays in the rest, where reading finds it.
    """
    rest = []
    multiprotocol: dict[int, bytes] = {}
    at = 0
    while at + 3 <= len(data):
        wide = data[at] & _EXTENDED
        value = at + (4 if wide else 3)
        end = value + (int.from_bytes(data[at + 2 : value], "big") if wide else data[at + 2])
        if value > len(data) or end > len(data):
            break
        code = data[at + 1]
        if code in (_MP_REACH, _MP_UNREACH):
            if code in multiprotocol:
                raise SessionReset(_ATTRIBUTE_LIST, _name(code), f"{_name(code)} comes twice")
            if data[at] & _BOTH != _OPTIONAL:
                raise SessionReset(_FLAGS, _name(code), f"{_name(code)} has flags {data[at]:#04x}")
            multiprotocol[code] = data[value:end]
        else:
            rest.append(data[at:end])
        at = end
    rest.append(data[at:])
    return b"".join(rest), multiprotocol.get(_MP_REACH), multiprotocol.get(_MP_UNREACH)


def _find(data: bytes, context: DecodeContext) -> _Set:
    cache = _caches.setdefault((context.asn4, context.external), {})
    found = cache.get(data)
    if found is None:
        found = _read(data, context)
        if len(cache) >= CACHED_SETS:
            cache.clear()
        cache[data] = found
    return found


def _read(data: bytes, context: DecodeContext) -> _Set:
    """Parse path attributes other than the multiprotocol ones (RFC 7606 sections 3, 4 and 7)."""
    values: dict[str, Any] = {}
    unknown: list[UnknownAttribute] = []
    discarded: list[_Broken] = []
    withdraw: _Broken | None = None
    seen: set[int] = set()
    at = 0
    while at < len(data):
        wide = data[at] & _EXTENDED
        value_at = at + (4 if wide else 3)
        end = value_at + int.from_bytes(data[at + 2 : value_at], "big")
        if value_at > len(data) or end > len(data):
            withdraw = withdraw or _Broken("attributes", "path attributes are truncated", _LENGTH)
            break
        flags, code, value = data[at], data[at + 1], data[value_at:end]
        at = end
        if code in seen:
            discarded.append(_Broken(_name(code), f"{_name(code)} comes twice"))
            continue
        seen.add(code)
        rule = RULES.get(code)
        if rule is None:
            _keep_unknown(flags, code, value, unknown)
        elif rule.internal and context.external:
            discarded.append(_Broken(rule.name, f"{rule.name} from an external peer"))
        elif code in _AS4 and context.asn4:
            discarded.append(_Broken(rule.name, f"{rule.name} from a speaker of 4-byte AS numbers"))
        else:
            try:
                _read_one(rule, flags, value, context, values)
                if rule.read is None:
                    _keep_unknown(flags, code, value, unknown)
            except _Defect as defect:
                broken = _Broken(rule.name, f"{rule.name} {defect}", defect.subcode)
                if rule.treatment is Treatment.DISCARD and defect.subcode != _FLAGS:
                    discarded.append(broken)
                else:
                    withdraw = withdraw or broken
    if unknown:
        values["unknown"] = tuple(unknown)
    _merge_as4(values, context.asn4)
    return _Set(values, withdraw, tuple(discarded))


def _codes(data: bytes) -> list[int] | None:
    """Return the codes of path attributes in their order; None if they are truncated."""
    found = []
    at = 0
    while at < len(data):
        value_at = at + (4 if data[at] & _EXTENDED else 3)
        if value_at > len(data):
            return None
        found.append(data[at + 1])
        at = value_at + int.from_bytes(data[at + 2 : value_at], "big")
    return found if at == len(data) else None


def _read_one(rule: _Rule, flags: int, value: bytes, context: DecodeContext, values: dict[str, Any]) -> None:
    if flags & _BOTH != rule.flags:
        raise _Defect(_FLAGS, f"has flags {flags:#04x}")
    if rule.check is not None:
        rule.check(value)
    if rule.read is not None:
        values[rule.field] = rule.read(value, context)


def _keep_unknown(flags: int, code: int, value: bytes, unknown: list[UnknownAttribute]) -> None:
    if not flags & _OPTIONAL:
        raise SessionReset(_UNRECOGNIZED, _name(code), f"well-known attribute {code} is not known")
    if flags & _TRANSITIVE:
        unknown.append(UnknownAttribute(flags & (_BOTH | _PARTIAL), code, value))


def _merge_as4(values: dict[str, Any], asn4: bool) -> None:
    """Put AS4_PATH and AS4_AGGREGATOR in the place of what a 2-byte speaker made of them (RFC 6793 section 4.2.3)."""
    path = values.pop("as4_path", None)
    aggregator = values.pop("as4_aggregator", None)
    if asn4:
        return
    if "aggregator" in values and aggregator is not None:
        if values["aggregator"][0] != AS_TRANS:
            return  # an old speaker aggregated after the new one: both AS4 attributes are out of date
        values["aggregator"] = aggregator
    if path is None or "as_path" not in values:
        return
    extra = _length(values["as_path"]) - _length(path)
    if extra >= 0:
        values["as_path"] = _leading(values["as_path"], extra) + path


def _length(path: tuple[AsSegment, ...]) -> int:
    return sum(
        len(segment.asns) if segment.kind is SegmentKind.SEQUENCE else 1
        for segment in path
        if segment.kind not in _CONFED
    )


def _leading(path: tuple[AsSegment, ...], count: int) -> tuple[AsSegment, ...]:
    """Return the leading part of *path* that counts *count*; confederation segments count nothing."""
    taken = []
    for segment in path:
        if segment.kind in _CONFED:
            taken.append(segment)
            continue
        if count <= 0:
            break
        if segment.kind is SegmentKind.SEQUENCE and len(segment.asns) > count:
            taken.append(AsSegment(segment.kind, segment.asns[:count]))
            break
        taken.append(segment)
        count -= len(segment.asns) if segment.kind is SegmentKind.SEQUENCE else 1
    return tuple(taken)


# ------------------------------------------------------------------ prefixes

_Routes = dict[int, tuple[Prefix, ...]]
"""Prefixes by path id."""


class _Unreadable(Exception):  # noqa: N818  always caught here
    """Prefixes cannot be told apart."""


def _shapes(bits: int, mark: int) -> list[tuple[int, int, int, int]]:
    """For each length: bytes with the length byte, shift to a packed Prefix, its mask, and its constant bits."""
    return [
        (
            1 + (length + 7 >> 3),
            bits - 8 * (length + 7 >> 3) + 8,
            (1 << bits) - (1 << bits - length) << 8,
            mark << 8 | length,
        )
        for length in range(bits + 1)
    ]


_SHAPES = {Family.IPV4: _shapes(32, 0), Family.IPV6: _shapes(128, _V6)}
_PACKED: dict[int, struct.Struct] = {
    size: struct.Struct(f">x{code}") for size, code in ((2, "B"), (3, "H"), (5, "I"), (9, "Q"))
} | {4: struct.Struct(">I")}
"""How to read prefixes that all have so many bytes with the length byte; of 4 bytes the length byte comes along, and is masked out."""


def _alike(data: bytes, family: Family) -> tuple[Prefix, ...] | None:
    """Read prefixes that are all of one length, as blocks of a pool are: in C, save for the last step; None for others."""
    length = data[0]
    shapes = _SHAPES[family]
    if length >= len(shapes):
        return None
    size, shift, mask, constant = shapes[length]
    packed = _PACKED.get(size)
    if packed is None or len(data) % size or data[::size].count(length) * size != len(data):
        return None
    return tuple([Prefix(number << shift & mask | constant) for (number,) in packed.iter_unpack(data)])


def _prefixes(data: bytes, family: Family) -> tuple[Prefix, ...]:
    """Read length-and-bits prefixes (RFC 4271 section 4.3); raises _Unreadable where they cannot be told apart (RFC 7606 section 5.3)."""
    if not data:
        return ()
    alike = _alike(data, family)
    if alike is not None:
        return alike
    shapes = _SHAPES[family]
    bits = len(shapes) - 1
    number = int.from_bytes
    found = []
    at = 0
    end = len(data)
    while at < end:
        length = data[at]
        if length > bits:
            raise _Unreadable(f"a prefix of {length} bits")
        size, shift, mask, constant = shapes[length]
        after = at + size
        found.append(Prefix(number(data[at + 1 : after], "big") << shift & mask | constant))
        at = after
    if at > end:
        raise _Unreadable("a prefix is truncated")
    return tuple(found)


def _routes(data: bytes, family: Family, context: DecodeContext) -> _Routes:
    if family not in context.add_path:
        found = _prefixes(data, family)
        return {0: found} if found else {}
    parts: dict[bytes, list[bytes]] = {}
    at = 0
    end = len(data)
    while at < end:
        if at + 5 > end:
            raise _Unreadable("a path id is truncated")
        after = at + 5 + (data[at + 4] + 7 >> 3)
        parts.setdefault(data[at : at + 4], []).append(data[at + 4 : after])
        at = after
    return {int.from_bytes(path_id, "big"): _prefixes(b"".join(part), family) for path_id, part in parts.items()}


# ------------------------------------------------------------------ UPDATE


class _Reach(NamedTuple):
    """MP_REACH_NLRI of a family that we look at."""

    next_hop: bytes
    routes: _Routes


def _family(name: str, value: bytes, least: int) -> Family | None:
    """Read AFI and SAFI of a multiprotocol attribute; None for families we do not speak."""
    family = _FAMILIES.get(int.from_bytes(value[:2], "big")) if len(value) >= 3 and value[2] == _UNICAST else None
    if len(value) < least:
        raise SessionReset(_OPTIONAL_ATTRIBUTE, name, f"{name} is truncated", family)
    return family


def _mp_routes(name: str, data: bytes, family: Family, context: DecodeContext) -> _Routes:
    try:
        return _routes(data, family, context)
    except _Unreadable as unreadable:
        raise SessionReset(_OPTIONAL_ATTRIBUTE, name, f"{name} has {unreadable}", family) from unreadable


def _mp_reach(value: bytes, context: DecodeContext) -> _Reach | None:
    """Read MP_REACH_NLRI (RFC 4760 section 3); None for families we do not look at. Raises SessionReset (RFC 7606 section 7.11)."""
    name = "MP_REACH_NLRI"
    family = _family(name, value, 5)
    if family is None or family in context.disabled:
        return None
    if 5 + value[3] > len(value):
        raise SessionReset(_OPTIONAL_ATTRIBUTE, name, f"{name} is truncated", family)
    next_hop = value[4 : 4 + value[3]]
    if len(next_hop) not in ((4, 16, 32) if family is Family.IPV4 else (16, 32)):
        raise SessionReset(_OPTIONAL_ATTRIBUTE, name, f"{name} has a next hop of {len(next_hop)} bytes", family)
    return _Reach(next_hop, _mp_routes(name, value[5 + value[3] :], family, context))


def _mp_unreach(value: bytes, context: DecodeContext) -> tuple[Family, _Routes] | None:
    """Read MP_UNREACH_NLRI (RFC 4760 section 4); None for families we do not look at. Raises SessionReset."""
    name = "MP_UNREACH_NLRI"
    family = _family(name, value, 3)
    if family is None or family in context.disabled:
        return None
    return family, _mp_routes(name, value[3:], family, context)


def _classic(data: bytes, context: DecodeContext) -> _Routes:
    try:
        return _routes(data, Family.IPV4, context)
    except _Unreadable as unreadable:
        raise SessionReset(_NETWORK, "NLRI", str(unreadable)) from unreadable


def decode(body: bytes, peer: Address, context: DecodeContext) -> list[Learned]:
    """Decode the body of an UPDATE (what follows the 19 bytes of header) from *peer*.

    Withdrawals precede announcements. Raises SessionReset where RFC 7606 leaves no other way, nothing else.
    """
    attributes_at = 4 + int.from_bytes(body[:2], "big")
    nlri_at = attributes_at + int.from_bytes(body[attributes_at - 2 : attributes_at], "big")
    if len(body) < 4 or attributes_at > len(body) or nlri_at > len(body):
        raise SessionReset(_ATTRIBUTE_LIST, "lengths", "the lengths in an UPDATE exceed it")
    if len(body) == 4:
        return [EndOfRib(peer, Family.IPV4)]
    withdrawn = _classic(body[2 : attributes_at - 2], context)
    classic = _classic(body[nlri_at:], context)
    elsewhere = bool(classic) and Family.IPV4 in context.disabled
    if Family.IPV4 in context.disabled:
        withdrawn, classic = {}, {}
    if nlri_at == attributes_at and not classic:
        return _events(peer, withdrawn, [])
    data = body[attributes_at:nlri_at]
    found = _caches.get((context.asn4, context.external), {}).get(data)
    if found is not None:
        return _finish(peer, found, withdrawn, classic=classic, reach=None, withdraws_only=not elsewhere)
    data, reach, unreach = _split(data)
    if unreach is not None:
        lost = _mp_unreach(unreach, context)
        if lost is not None:
            family, gone = lost
            if not gone and not data and reach is None and not withdrawn and not classic:
                return [EndOfRib(peer, family)]
            _merge(withdrawn, gone)
    reached = _mp_reach(reach, context) if reach is not None else None
    # Routes of a family that we do not look at are routes all the same: a defect withdraws them.
    elsewhere = elsewhere or (reach is not None and reached is None)
    return _finish(peer, _find(data, context), withdrawn, classic=classic, reach=reached, withdraws_only=not elsewhere)


def _merge(into: _Routes, more: _Routes) -> None:
    for path_id, prefixes in more.items():
        into[path_id] = into.get(path_id, ()) + prefixes


def _finish(
    peer: Address, found: _Set, withdrawn: _Routes, *, classic: _Routes, reach: _Reach | None, withdraws_only: bool
) -> list[Learned]:
    """Join routes and attributes, after withdrawing what a defect takes away.

    Raises SessionReset for a defect where there is no route to withdraw (RFC 7606 section 5.2), unless not *withdraws_only*.
    """
    announced: list[tuple[_Routes, bytes]] = []
    if reach is not None and reach.routes:
        announced.append((reach.routes, reach.next_hop))
    if classic:
        announced.append((classic, b""))
    defects: list[Learned] = [
        UpdateMalformed(peer, Treatment.DISCARD, broken.reason, broken.attribute) for broken in found.discarded
    ]
    broken = found.withdraw
    if broken is not None and not announced and withdraws_only:
        raise SessionReset(broken.subcode, broken.attribute, f"{broken.reason}, and there is no route to withdraw")
    kept: list[tuple[_Routes, Attributes]] = []
    for routes, next_hop in announced:
        attributes = broken or found.attributes(next_hop)
        if isinstance(attributes, _Broken):
            defects.append(UpdateMalformed(peer, Treatment.WITHDRAW, attributes.reason, attributes.attribute))
            _merge(withdrawn, routes)
        else:
            kept.append((routes, attributes))
    return defects + _events(peer, withdrawn, kept)


def _events(peer: Address, withdrawn: _Routes, announced: list[tuple[_Routes, Attributes]]) -> list[Learned]:
    """One event for each path id and attribute set; a prefix both withdrawn and announced is announced (RFC 4271 section 4.3)."""
    events: list[Learned] = []
    left = dict(withdrawn)
    for routes, attributes in announced:
        for path_id, prefixes in routes.items():
            gone = left.pop(path_id, ())
            if gone:
                again = {prefix for other, _ in announced for prefix in other.get(path_id, ())}
                gone = tuple(prefix for prefix in gone if prefix not in again)
            events.append(
                RoutesLearned(peer=peer, withdrawn=gone, announced=prefixes, attributes=attributes, path_id=path_id)
            )
    alone: list[Learned] = [
        RoutesLearned(peer=peer, withdrawn=prefixes, path_id=path_id) for path_id, prefixes in left.items() if prefixes
    ]
    return alone + events


# ------------------------------------------------------------------ encoding


def encode_update(routes: RoutesLearned, context: DecodeContext) -> bytes:
    """Encode one event as the body of an UPDATE; announced prefixes are of one family. Raises ValueError without 4-byte ASNs."""
    if not context.asn4:
        raise ValueError("only sessions with 4-byte AS numbers are encoded")
    by_family: dict[Family, list[Prefix]] = {Family.IPV4: [], Family.IPV6: []}
    for prefix in routes.withdrawn:
        by_family[prefix.family].append(prefix)
    withdrawn = _encode_prefixes(by_family[Family.IPV4], routes.path_id, context)
    attributes = b""
    if by_family[Family.IPV6]:
        gone = _encode_prefixes(by_family[Family.IPV6], routes.path_id, context)
        attributes += _attribute(_OPTIONAL, _MP_UNREACH, bytes((0, _AFIS[Family.IPV6], _UNICAST)) + gone)
    nlri = b""
    if routes.announced and routes.attributes is not None:
        family = routes.announced[0].family
        nlri = _encode_prefixes(list(routes.announced), routes.path_id, context)
        hop = routes.attributes.next_hop.packed
        classic = family is Family.IPV4 and len(hop) == 4
        attributes += _encode_attributes(routes.attributes, classic)
        if not classic:
            second = routes.attributes.link_local_next_hop
            hop += second.packed if second is not None else b""
            head = bytes((0, _AFIS[family], _UNICAST, len(hop))) + hop + b"\0"
            attributes += _attribute(_OPTIONAL, _MP_REACH, head + nlri)
            nlri = b""
    return len(withdrawn).to_bytes(2, "big") + withdrawn + len(attributes).to_bytes(2, "big") + attributes + nlri


def _encode_prefixes(prefixes: list[Prefix], path_id: int, context: DecodeContext) -> bytes:
    parts = []
    for prefix in prefixes:
        if prefix.family in context.add_path:
            parts.append(path_id.to_bytes(4, "big"))
        parts.append(bytes((prefix.length,)) + prefix.network.packed[: prefix.length + 7 >> 3])
    return b"".join(parts)


def _attribute(flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255:
        return bytes((flags | _EXTENDED, code)) + len(value).to_bytes(2, "big") + value
    return bytes((flags, code, len(value))) + value


def _encode_attributes(attributes: Attributes, classic: bool) -> bytes:
    values: dict[int, bytes | None] = {
        1: bytes((attributes.origin,)),
        2: b"".join(
            bytes((_SEGMENT_CODES[segment.kind], len(segment.asns)))
            + b"".join(asn.to_bytes(4, "big") for asn in segment.asns)
            for segment in attributes.as_path
        ),
        3: attributes.next_hop.packed if classic else None,
        4: None if attributes.med is None else attributes.med.to_bytes(4, "big"),
        5: None if attributes.local_pref is None else attributes.local_pref.to_bytes(4, "big"),
        6: b"" if attributes.atomic_aggregate else None,
        7: attributes.aggregator and attributes.aggregator[0].to_bytes(4, "big") + attributes.aggregator[1].packed,
        8: b"".join(value.to_bytes(4, "big") for value in attributes.communities) or None,
        9: None if attributes.originator_id is None else attributes.originator_id.packed,
        10: b"".join(address.packed for address in attributes.cluster_list) or None,
        16: b"".join(attributes.extended_communities) or None,
        32: b"".join(part.to_bytes(4, "big") for triple in attributes.large_communities for part in triple) or None,
    }
    known = b"".join(_attribute(RULES[code].flags, code, value) for code, value in values.items() if value is not None)
    return known + b"".join(_attribute(item.flags, item.code, item.value) for item in attributes.unknown)


# ------------------------------------------------------------------ OPEN

_CAP_MULTIPROTOCOL = 1
_CAP_REFRESH = 2
_CAP_NEXT_HOP = 5
_CAP_GRACEFUL = 64
_CAP_ASN4 = 65
_CAP_ADD_PATH = 69
_CAP_ENHANCED_REFRESH = 70
_CAP_ROLE = 9
ROLES = (Role.PROVIDER, Role.RS, Role.RS_CLIENT, Role.CUSTOMER, Role.PEER)
"""Ordered by their values, from 0 (RFC 9234 section 4.1)."""


class Opened(msgspec.Struct, frozen=True):
    """An OPEN: what decisions need of it, and what decoding needs of it."""

    open: SessionOpen
    asn4: bool


def decode_open(body: bytes) -> Opened:
    """Decode the body of an OPEN (RFC 4271 section 4.2; capabilities RFC 5492, long form RFC 9072); raises CodecError."""
    if len(body) < 10:
        raise CodecError("an OPEN is truncated")
    wide = len(body) >= 13 and body[9] == 255 and body[10] == 255
    at, size, step = (13, int.from_bytes(body[11:13], "big"), 2) if wide else (10, body[9], 1)
    parameters = _pairs(body[at : at + size], step)
    capabilities = [pair for code, value in parameters if code == 2 for pair in _pairs(value, 1)]
    asn = int.from_bytes(body[1:3], "big")
    families = []
    graceful = None
    asn4 = extended = False
    add_path: list[Family] = []
    roles: list[str] = []
    codes = {code for code, _ in capabilities}
    for code, value in capabilities:
        if code == _CAP_MULTIPROTOCOL and len(value) == 4 and value[3] == _UNICAST:
            family = _FAMILIES.get(int.from_bytes(value[:2], "big"))
            if family is not None:
                families.append(family)
        elif code == _CAP_ASN4 and len(value) == 4:
            asn4, asn = True, int.from_bytes(value, "big")
        elif code == _CAP_GRACEFUL and len(value) >= 2:
            graceful = _graceful(value)
        elif code == _CAP_ADD_PATH:
            add_path += _sends_paths(value)
        elif code == _CAP_ROLE:
            roles.append(_role(value))
        elif code == _CAP_NEXT_HOP:
            extended = extended or _takes_ipv6_hops(value)
    if _CAP_MULTIPROTOCOL not in codes:
        families = [Family.IPV4]
    answer = SessionOpen(
        asn=asn,
        router_id=Address.from_packed(body[5:9]),
        hold_time_s=int.from_bytes(body[3:5], "big"),
        families=tuple(sorted(set(families))),
        route_refresh=_CAP_REFRESH in codes,
        enhanced_refresh=_CAP_ENHANCED_REFRESH in codes,
        graceful_restart=graceful,
        add_path=tuple(sorted(set(add_path))),
        extended_next_hop=extended,
        roles=tuple(dict.fromkeys(roles)),
        capabilities=tuple(sorted(codes)),
    )
    return Opened(answer, asn4)


def _role(value: bytes) -> str:
    """Name a role (RFC 9234 section 4.1); one that nobody knows by its bytes."""
    return ROLES[value[0]].value if len(value) == 1 and value[0] < len(ROLES) else f"0x{value.hex()}"


def _sends_paths(value: bytes) -> list[Family]:
    """Read the families that the neighbor sends several paths of (RFC 7911 section 4: 2 sends, 3 does both)."""
    return [
        _FAMILIES[value[at + 1]]
        for at in range(0, len(value) - 3, 4)
        if value[at] == 0 and value[at + 1] in _FAMILIES and value[at + 2] == _UNICAST and value[at + 3] in (2, 3)
    ]


def _takes_ipv6_hops(value: bytes) -> bool:
    """Tell whether IPv4 unicast with IPv6 next hops is among the triples (RFC 8950 section 4)."""
    return bytes((0, 1, 0, _UNICAST, 0, 2)) in (value[at : at + 6] for at in range(0, len(value), 6))


def _pairs(data: bytes, step: int) -> list[tuple[int, bytes]]:
    """Split code-length-value triples with a length of *step* bytes; raises CodecError."""
    found = []
    at = 0
    while at < len(data):
        value = at + 1 + step
        end = value + int.from_bytes(data[at + 1 : value], "big")
        if value > len(data) or end > len(data):
            raise CodecError("a parameter of an OPEN is truncated")
        found.append((data[at], data[value:end]))
        at = end
    return found


def _graceful(value: bytes) -> GracefulRestart:
    """Read the capability (RFC 4724 section 3): R is the top bit of the first byte, N (RFC 8538) the next, F that of each family's last."""
    flags = {
        _FAMILIES[value[at + 1]]: value[at + 3]
        for at in range(2, len(value) - 3, 4)
        if value[at] == 0 and value[at + 1] in _FAMILIES and value[at + 2] == _UNICAST
    }
    return GracefulRestart(
        restart_time_s=int.from_bytes(value[:2], "big") & 0xFFF,
        restarting=bool(value[0] & 0x80),
        preserved=tuple(family for family, bits in flags.items() if bits & 0x80),
        families=tuple(flags),
        notification=bool(value[0] & 0x40),
    )
