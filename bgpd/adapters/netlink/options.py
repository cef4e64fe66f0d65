"""How this node's part of the kernel is to be kept: what the adapter must know and no single key or value says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from bgpd.adapters.netlink.encode import Resilience
from bgpd.adapters.wireguard_keys import DIRECTORY
from bgpd.model.forwarding import MAIN_TABLE, PROTOCOL


class NexthopObjects(StrEnum):
    """Whether routes point to nexthop objects (Linux 5.3), or each has its hops written out."""

    AUTO = "auto"
    """Objects where the kernel has them."""
    OFF = "off"


class KernelOptions(msgspec.Struct, frozen=True, kw_only=True):
    protocol: int = PROTOCOL
    """Protocol number of our routes and nexthop objects: the mark by which they are ours (law 4)."""
    resolve_table: int = MAIN_TABLE
    """Table by which next hops are found: the VRF's, or the main one. Its routes of others are told."""
    table: int = MAIN_TABLE
    """Table of ours; routes of others in it are told, too."""
    objects: NexthopObjects = NexthopObjects.AUTO
    wireguard_keys: Path = DIRECTORY
    """Where this node's WireGuard key pair is."""
    resilience: Resilience | None = None
    """Groups are resilient ones; None: ordinary multipath."""


DEFAULTS: Final = KernelOptions()
