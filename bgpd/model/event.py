"""Happenings: everything that enters the core, as frozen values that a recording can hold."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.bfd import BfdStatus
from bgpd.model.bgp import BgpConfiguration, BgpFilter, BgpPeer, Workload
from bgpd.model.drain import Stage
from bgpd.model.felix import FelixConfiguration
from bgpd.model.forwarding import RouteSettings
from bgpd.model.health import StaticPrefix
from bgpd.model.node import Node
from bgpd.model.overlay import Path
from bgpd.model.peer import Notification, Peer, SessionOpen
from bgpd.model.pool import Affinity, Block, Fallback, Pool
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Attributes


class _Event(msgspec.Struct, frozen=True, tag=True, tag_field="event"):
    pass


# ------------------------------------------------------------------ ourselves


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that decisions depend on."""

    peers_learned_ceiling_s: float = 120.0
    """How long to wait for End-of-RIB of every peer before anything may be removed."""
    restore_after_s: float = 10.0
    """A native path must have been usable for so long before a destination leaves the fallback."""
    restore_ceiling_s: float = 300.0
    """Upper bound of that time for a path that flaps."""
    ecmp_limit: int = 16
    multipath_relax: bool = True
    """Paths of equal length through different neighbor ASes are equals."""
    weighted_ecmp: bool = False
    """Share by the link bandwidth community, where every path has one."""
    always_compare_med: bool = False
    """Compare MEDs of different neighbor ASes, too."""
    enforce_first_as: bool = False
    """Refuse a path from an external peer that does not begin with the peer's AS (RFC 4271 section 6.3)."""
    router_id: Address | None = None
    """Ours; None: the node's IPv4 address."""
    fallback: tuple[Fallback, ...] = (Fallback.VXLAN,)
    """Kinds in order of preference, for pools that name none."""
    """For pools that say nothing."""
    vxlan_vni: int = 4096
    vxlan_port: int = 4789
    routes: RouteSettings = RouteSettings()
    """How routes are written into the kernel."""


class Configured(_Event, frozen=True, kw_only=True):
    """The node's own configuration was loaded."""

    node: Node
    peers: tuple[Peer, ...]
    options: Options = Options()
    mesh: bool | None = None
    """Whether this node is one of the node-to-node mesh; None: as BGPConfiguration default says, and not where there is none."""
    announce: tuple[StaticPrefix, ...] = ()


class HealthChanged(_Event, frozen=True):
    """A health check passed for the first time, or its verdict has changed."""

    check: str
    healthy: bool
    reason: str = ""


class PathForced(_Event, frozen=True):
    """An operator has traffic to a node sent by a way; AUTO: no longer."""

    node: str
    path: Path


class DrainChanged(_Event, frozen=True):
    """Traffic is to be led around this node (RFC 8326), or again through it."""

    stage: Stage
    keep_blocks: bool = False
    """DRAINED withdraws all but own blocks and borrowed addresses."""


class WireguardKeyMade(_Event, frozen=True):
    """The WireGuard key pair of this node is there, or was made anew."""

    public_key: str


class Tick(_Event, frozen=True):
    """Time has passed; the deadline that the core asked for."""


# ------------------------------------------------------------------ store


class StoreSynced(_Event, frozen=True):
    """The first reading of the store is complete, or a lost store is back and read."""


class StoreLost(_Event, frozen=True):
    reason: str


class PoolChanged(_Event, frozen=True):
    pool: Pool


class PoolRemoved(_Event, frozen=True):
    name: str


class NodeChanged(_Event, frozen=True):
    node: Node


class NodeRemoved(_Event, frozen=True):
    name: str


class NodeAlive(_Event, frozen=True):
    """The node's lease is held."""

    name: str


class NodeDead(_Event, frozen=True):
    """The node's lease has ended."""

    name: str


class BlockChanged(_Event, frozen=True):
    block: Block


class BlockRemoved(_Event, frozen=True):
    cidr: Prefix


class AffinityChanged(_Event, frozen=True):
    affinity: Affinity


class AffinityRemoved(_Event, frozen=True):
    cidr: Prefix
    node: str


class BgpPeerChanged(_Event, frozen=True):
    peer: BgpPeer


class BgpPeerRemoved(_Event, frozen=True):
    name: str


class BgpConfigurationChanged(_Event, frozen=True):
    configuration: BgpConfiguration


class BgpConfigurationRemoved(_Event, frozen=True):
    name: str


class BgpFilterChanged(_Event, frozen=True):
    filter: BgpFilter


class BgpFilterRemoved(_Event, frozen=True):
    name: str


class FelixConfigurationChanged(_Event, frozen=True):
    configuration: FelixConfiguration


class FelixConfigurationRemoved(_Event, frozen=True):
    name: str


class WorkloadChanged(_Event, frozen=True):
    """A workload of this node; told only where a BGPPeer asks for workloads."""

    workload: Workload


class WorkloadRemoved(_Event, frozen=True):
    name: str


# ------------------------------------------------------------------ BGP


class SpeakerUp(_Event, frozen=True):
    """Attached to a running ExaBGP. Sessions that it holds follow as PeerUp, with their routes to be refreshed."""


class SpeakerLost(_Event, frozen=True):
    """ExaBGP has ended or its socket is gone: every session is down until it is back."""

    reason: str


class PeerUp(_Event, frozen=True):
    """A session is established. What it sent before is stale until it is sent again."""

    peer: Address
    open: SessionOpen


class PeerDown(_Event, frozen=True):
    peer: Address
    reason: str
    notification: Notification | None = None
    unreachable: bool = False
    """An attempt to connect was refused, or the peer's address cannot be reached."""


class RoutesLearned(_Event, frozen=True, kw_only=True):
    """One UPDATE, or the part of it that shares attributes and path id."""

    peer: Address
    withdrawn: tuple[Prefix, ...] = ()
    announced: tuple[Prefix, ...] = ()
    """Of one family."""
    attributes: Attributes | None = None
    """None if nothing is announced."""
    path_id: int = 0


class RefreshBegun(_Event, frozen=True):
    """The peer begins to send all it has of a family again; what it has not sent when EndOfRib comes is gone (RFC 7313)."""

    peer: Address
    family: Family


class EndOfRib(_Event, frozen=True):
    """The peer has sent all it has (RFC 4724 section 2), or has finished a refresh that we asked for (RFC 7313)."""

    peer: Address
    family: Family


class Treatment(StrEnum):
    """What is done about an UPDATE with a defect, the weakest first (RFC 7606 section 2)."""

    DISCARD = "attribute-discard"
    WITHDRAW = "treat-as-withdraw"
    DISABLE = "afi-safi-disable"
    RESET = "session-reset"


class UpdateMalformed(_Event, frozen=True):
    """An UPDATE had a defect, and what was done about it (RFC 7606). After RESET the session's PeerDown follows."""

    peer: Address
    treatment: Treatment
    reason: str
    attribute: str = ""
    """Name of the attribute or field that is broken: with the treatment, the kind that is counted."""
    family: Family | None = None
    """What was disabled: the peer's routes of it go, and no more of them come in this session."""


class BfdChanged(_Event, frozen=True):
    """The BFD session with a peer is told of; None: nothing is known (any more), which says nothing about the path."""

    peer: Address
    status: BfdStatus | None


class LimitLifted(_Event, frozen=True):
    """Somebody resets a peer that is held because it sent too many prefixes."""

    peer: Address


# ------------------------------------------------------------------ kernel


class RouterFound(_Event, frozen=True):
    """A router advertises itself on a link: the far end of the BGPPeer that names the link and no address."""

    link: str
    address: Address


class KernelSynced(_Event, frozen=True):
    """Links, addresses and routes of others have been read once."""


class LinkChanged(_Event, frozen=True, kw_only=True):
    name: str
    index: int
    up: bool
    """Administratively up and with carrier."""
    mtu_bytes: int
    mac: str = ""


class LinkRemoved(_Event, frozen=True):
    name: str


class AddressAdded(_Event, frozen=True):
    device: str
    address: Address
    subnet: Prefix


class AddressRemoved(_Event, frozen=True):
    device: str
    address: Address
    subnet: Prefix


class NeighbourSilent(_Event, frozen=True):
    """Nobody on the link answers for an address any more; or somebody does again, or it is not known."""

    device: str
    address: Address
    silent: bool


class ForeignRouteChanged(_Event, frozen=True, kw_only=True):
    """A unicast route that is not ours, of the table by which next hops are found, or of that of ours, which may be another one."""

    prefix: Prefix
    metric: int
    hops: tuple[tuple[str, Address | None], ...]
    """(device, gateway) of each path; gateway None where the destination is on the link."""
    resolves: bool = True
    """Next hops and tunnel ends are found through it."""
    beside: bool = True
    """It is in the table of ours: what BGP alone knows of its prefix gives way."""


class ForeignRouteRemoved(_Event, frozen=True, kw_only=True):
    prefix: Prefix
    metric: int
    resolves: bool = True
    beside: bool = True


# ------------------------------------------------------------------ outcomes


class Converged(_Event, frozen=True):
    """A reconciler has nothing left to do for the tables as they stood after event number *epoch*."""

    target: str
    epoch: int


Event = (
    Configured
    | Tick
    | HealthChanged
    | DrainChanged
    | WireguardKeyMade
    | PathForced
    | StoreSynced
    | StoreLost
    | PoolChanged
    | PoolRemoved
    | NodeChanged
    | NodeRemoved
    | NodeAlive
    | NodeDead
    | BlockChanged
    | BlockRemoved
    | AffinityChanged
    | AffinityRemoved
    | BgpPeerChanged
    | BgpPeerRemoved
    | BgpConfigurationChanged
    | BgpConfigurationRemoved
    | BgpFilterChanged
    | BgpFilterRemoved
    | WorkloadChanged
    | WorkloadRemoved
    | FelixConfigurationChanged
    | FelixConfigurationRemoved
    | SpeakerUp
    | SpeakerLost
    | PeerUp
    | PeerDown
    | RoutesLearned
    | RefreshBegun
    | EndOfRib
    | UpdateMalformed
    | LimitLifted
    | BfdChanged
    | RouterFound
    | KernelSynced
    | LinkChanged
    | LinkRemoved
    | AddressAdded
    | AddressRemoved
    | NeighbourSilent
    | ForeignRouteChanged
    | ForeignRouteRemoved
    | Converged
)


class Recorded(msgspec.Struct, frozen=True):
    """A line of a recording: when an event was handled, and the event."""

    now: float
    """Monotonic seconds."""
    event: Event
