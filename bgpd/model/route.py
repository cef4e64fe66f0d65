"""Routes as BGP carries them: path attributes (RFC 4271 section 5), and a route in an adj-rib-in."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from bgpd.model.prefix import Address, Prefix

DEFAULT_LOCAL_PREF = 100


class Origin(IntEnum):
    """ORIGIN (RFC 4271 section 4.3); lower is preferred."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


class SegmentKind(StrEnum):
    """Kind of an AS_PATH segment (RFC 4271 section 4.3, RFC 5065 section 3)."""

    SET = "set"
    SEQUENCE = "sequence"
    CONFED_SEQUENCE = "confed-sequence"
    CONFED_SET = "confed-set"


class AsSegment(msgspec.Struct, frozen=True):
    kind: SegmentKind
    asns: tuple[int, ...]


class UnknownAttribute(msgspec.Struct, frozen=True):
    """An attribute we do not interpret, kept as received (flags include the partial bit)."""

    flags: int
    code: int
    value: bytes


class Attributes(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Path attributes of an announcement."""

    next_hop: Address
    """NEXT_HOP, or the global next hop of MP_REACH_NLRI (RFC 4760)."""
    link_local_next_hop: Address | None = None
    """Second next hop of MP_REACH_NLRI (RFC 2545 section 3)."""
    origin: Origin = Origin.INCOMPLETE
    as_path: tuple[AsSegment, ...] = ()
    med: int | None = None
    local_pref: int | None = None
    atomic_aggregate: bool = False
    aggregator: tuple[int, Address] | None = None
    communities: tuple[int, ...] = ()
    """RFC 1997, each as one 32-bit number."""
    extended_communities: tuple[bytes, ...] = ()
    """RFC 4360, 8 bytes each."""
    large_communities: tuple[tuple[int, int, int], ...] = ()
    """RFC 8092."""
    originator_id: Address | None = None
    cluster_list: tuple[Address, ...] = ()
    unknown: tuple[UnknownAttribute, ...] = ()

    @property
    def path_length(self) -> int:
        """AS_PATH length as the decision counts it: a set is 1, confederation segments are 0 (RFC 4271 9.1.2.2 a)."""
        total = 0
        for segment in self.as_path:
            if segment.kind is SegmentKind.SEQUENCE:
                total += len(segment.asns)
            elif segment.kind is SegmentKind.SET:
                total += 1
        return total

    @property
    def neighbor_asn(self) -> int | None:
        """The first AS of the path; None for a path that begins in our own AS or with a set."""
        for segment in self.as_path:
            if segment.kind is SegmentKind.SEQUENCE and segment.asns:
                return segment.asns[0]
            if segment.kind is SegmentKind.SET:
                return None
        return None


class Route(msgspec.Struct, frozen=True):
    """A route as learned from a peer: one entry of its adj-rib-in."""

    prefix: Prefix
    peer: Address
    attributes: Attributes
    path_id: int = 0


class Announcement(msgspec.Struct, frozen=True):
    """A route to announce: the value of an adj-rib-out entry."""

    origin: Origin = Origin.IGP
    med: int | None = None
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    next_hop: Address | None = None
    """None for the session's local address."""
    as_path: tuple[AsSegment, ...] = ()
    """Without the AS that an eBGP session puts in front (its ``local_asn``): the speaker adds it."""
    local_pref: int | None = None
    """Of iBGP only; None is DEFAULT_LOCAL_PREF there."""
    extended_communities: tuple[bytes, ...] = ()
    """RFC 4360, 8 bytes each."""
    originator_id: Address | None = None
    cluster_list: tuple[Address, ...] = ()
    atomic_aggregate: bool = False
    aggregator: tuple[int, Address] | None = None
    unknown: tuple[UnknownAttribute, ...] = ()
    """Transitive ones of a reflected route, passed on."""


def community_text(value: int) -> str:
    """Write a community as ``65001:100``."""
    return f"{value >> 16}:{value & 0xFFFF}"


def as_path_text(path: tuple[AsSegment, ...]) -> str:
    """Write an AS path as routers show it: sets in braces, confederation segments in parentheses."""
    marks = {
        SegmentKind.SEQUENCE: ("", ""),
        SegmentKind.SET: ("{", "}"),
        SegmentKind.CONFED_SEQUENCE: ("(", ")"),
        SegmentKind.CONFED_SET: ("({", "})"),
    }
    words = []
    for segment in path:
        left, right = marks[segment.kind]
        words.append(left + " ".join(map(str, segment.asns)) + right)
    return " ".join(words)
