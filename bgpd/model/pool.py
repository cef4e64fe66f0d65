"""IP pools and blocks, as far as decisions depend on them (Calico: api/pkg/apis/projectcalico/v3/ippool.go, model/block.go)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address, Prefix


class Mode(StrEnum):
    """When traffic to a pool is encapsulated."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"


class Fallback(StrEnum):
    """A kind of tunnel that may carry traffic when the native path is lost."""

    VXLAN = "VXLAN"
    IPIP = "IPIP"
    WIREGUARD = "WireGuard"


NO_FALLBACK = "None"


def parse_preference(text: str) -> tuple[Fallback, ...]:
    """Read which kinds may be fallen back to, the preferred one first: ``IPIP, VXLAN``, or ``None`` for none; raises ValueError.

    The value of the annotation ``bgpd.io/fallback`` of a pool, and of ``fallback.kind`` in the configuration.
    """
    if text == NO_FALLBACK:
        return ()
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in list(Fallback)]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(Fallback)}, and {NO_FALLBACK} stands alone")
    if len(set(names)) < len(names):
        raise ValueError("a kind is named twice")
    return tuple(Fallback(name) for name in names)


def preference_text(kinds: tuple[Fallback, ...]) -> str:
    """Write what ``parse_preference`` reads."""
    return ", ".join(kinds) or NO_FALLBACK


class Use(StrEnum):
    """What an address is for (``allowedUses`` of a pool)."""

    WORKLOAD = "Workload"
    TUNNEL = "Tunnel"
    LOAD_BALANCER = "LoadBalancer"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """An IPPool."""

    name: str
    cidr: Prefix
    block_size: int = 26
    vxlan_mode: Mode = Mode.NEVER
    disabled: bool = False
    automatic: bool = True
    """assignmentMode Automatic: nodes take blocks of it without being asked for it by name."""
    disable_bgp_export: bool = False
    fallback: tuple[Fallback, ...] | None = None
    """Kinds in order of preference; empty: no fallback; None: the node's configured default."""
    ipip_mode: Mode = Mode.NEVER
    node_selector: str = "all()"
    """Nodes that may take blocks of it without being asked for it by name."""
    namespace_selector: str = ""
    """Namespaces whose workloads may draw from it likewise; empty: all."""
    allowed_uses: tuple[Use, ...] = (Use.WORKLOAD, Use.TUNNEL)
    unallocatable: str = ""
    """Why its ``Allocatable`` condition is False (CIDROverlap, Terminating); empty where it is not."""


class AffinityState(StrEnum):
    """State of a block affinity; an empty stored state counts as confirmed (calico.md 1.3)."""

    CONFIRMED = "confirmed"
    PENDING = "pending"
    PENDING_DELETION = "pendingDeletion"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block: who it is affine to, and how many of its addresses are in use."""

    cidr: Prefix
    node: str | None
    """The node of affinity ``host:<node>``; None for a block without affinity or of a virtual owner."""
    in_use: int = 0
    borrowed: tuple[tuple[Address, str], ...] = ()
    """Addresses that another node than *node* holds, each with that node, in order of addresses."""


class Affinity(msgspec.Struct, frozen=True, kw_only=True):
    """A node's claim on a block."""

    cidr: Prefix
    node: str
    state: AffinityState


class BlockRelease(msgspec.Struct, frozen=True, kw_only=True):
    """The wish of *node* to give back an empty block."""

    cidr: Prefix
    node: str


class BlockClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The wish of *node* to own a block of *pool*."""

    pool: Pool
    node: str
