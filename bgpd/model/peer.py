"""BGP neighbors: what is configured, and what a session negotiated."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address, Family


class PeerKind(StrEnum):
    """Where a peer comes from (Calico's sources of sessions, and the node's own file)."""

    CONFIGURED = "configured"
    """The node's file."""
    MESH = "mesh"
    """The node-to-node mesh."""
    GLOBAL = "global"
    """A BGPPeer without a node."""
    NODE = "node"
    """A BGPPeer of one node."""
    REVERSE = "reverse"
    """The other end of a BGPPeer whose ``peerSelector`` chose this node."""
    WORKLOAD = "workload"
    """A BGPPeer with a ``localWorkloadSelector``."""


class NextHopMode(StrEnum):
    """The next hop that a peer is told (``nextHopMode`` of a BGPPeer)."""

    AUTO = "Auto"
    """Ours towards eBGP peers, else the route's own (RFC 4271 section 5.1.3)."""
    SELF = "Self"
    KEEP = "Keep"


class Role(StrEnum):
    """Our side's role in the session (RFC 9234 section 4)."""

    PROVIDER = "provider"
    CUSTOMER = "customer"
    RS = "rs"
    RS_CLIENT = "rs-client"
    PEER = "peer"


class SecretRef(msgspec.Struct, frozen=True):
    """Names a secret (``password.secretKeyRef`` of a BGPPeer); the secret itself is in no model, table or recording."""

    name: str
    key: str


class MaxPrefix(msgspec.Struct, frozen=True):
    """How many prefixes a peer may send (RFC 4486 section 4)."""

    limit: int
    """Prefixes of all families; one more ends the session."""
    warn_percent: int = 75
    """Share of the limit from which on a notice is given; 0 gives none."""
    restart_s: int = 0
    """How long the session then stays down; 0 until it is reset by hand."""


class Bfd(msgspec.Struct, frozen=True, kw_only=True):
    """Timers of a BFD session (RFC 5880). The neighbor has a say too: the slower of both wishes counts."""

    min_tx_ms: int = 300
    """Least time between our packets, 50 to 60000."""
    min_rx_ms: int = 300
    """Least time between packets of the neighbor that we can take, 50 to 60000."""
    multiplier: int = 3
    """Packets in a row that may be lost before the path counts as down, 1 to 255."""
    password: SecretRef | None = None
    """Keyed SHA1 (RFC 5880 section 6.7.4); None: no authentication."""
    key_id: int = 1
    """0 to 255; the same at both ends."""
    meticulous: bool = False
    """No packet may be played again: each has a sequence number of its own."""


class PeerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What we do with a peer's routes and with what it is sent: a change of this resets no session."""

    kind: PeerKind = PeerKind.CONFIGURED
    filters: tuple[str, ...] = ()
    """Names of the BGPFilters, in their order."""
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    allowed_own_asns: int = 0
    """How often our own AS may be in a received path (``numAllowedLocalASNumbers``)."""
    reflector_cluster: Address | None = None
    """We reflect (RFC 4456) with this cluster id, and the peer is our client."""
    max_prefix: MaxPrefix | None = None
    bfd: Bfd | None = None
    """Watch the path to the peer; None: only the session's own timers do."""
    hold_reason: str = ""
    """Why there must be no session; empty if there is no reason."""


class Notification(msgspec.Struct, frozen=True):
    """A NOTIFICATION message (RFC 4271 section 4.5; Cease subcodes RFC 4486; shutdown text RFC 9003)."""

    code: int
    subcode: int
    sent: bool
    """True if we sent it, False if the neighbor did."""
    text: str = ""
    """What an operator wrote (RFC 9003)."""
    hard: bool = False
    """It came as Cease, Hard Reset (RFC 8538 section 3); code and subcode are those inside."""
    data: bytes = b""
    """What else it carries, at most 64 bytes."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbor to speak BGP with. Its address is its identity, a link-local one with its link (``fe80::1%eth0``)."""

    name: str
    """Shown to people; unique among the peers of a node."""
    address: Address
    asn: int
    local_address: Address
    local_asn: int
    port: int = 179
    """The neighbor's, to connect to."""
    listen_port: int = 179
    """Ours, for the neighbor to connect to; 0 accepts no connection."""
    hold_time_s: int = 90
    """Offered hold time; 0 (no keepalives) or at least 3 (RFC 4271 section 4.2)."""
    graceful_restart_s: int = 120
    """Restart time we offer (RFC 4724), at most 4095; 0 offers no graceful restart."""
    families: tuple[Family, ...] = (Family.IPV4,)
    passive: bool = False
    """Wait for the neighbor to connect."""
    multihop_ttl: int = 0
    """Outgoing TTL for a neighbor that is not on a link of ours; 0 for a directly connected one."""
    ttl_security: int = 0
    """GTSM (RFC 5082): the neighbor is at most so many hops away, 1 on our own link; 0 turns it off."""
    interface: str = ""
    """Link that a link-local or not yet known (unnumbered) address is on."""
    password: SecretRef | None = None
    """TCP-MD5 (RFC 2385)."""
    add_path_receive: bool = False
    """Take several paths of a prefix (RFC 7911)."""
    extended_next_hop: bool = False
    """IPv4 routes may have IPv6 next hops (RFC 8950)."""
    role: Role | None = None
    """Our role in an eBGP session, offered in the OPEN (RFC 9234)."""
    role_strict: bool = False
    """No session with a neighbor that offers no role."""
    ended: Notification | None = None
    """There is to be no session, and this is what ends one."""
    policy: PeerPolicy = PeerPolicy()
    """Left at its default in the table of neighbors, where it would be no change of a session."""

    @property
    def is_external(self) -> bool:
        """Whether the session is eBGP."""
        return self.asn != self.local_asn


class GracefulRestart(msgspec.Struct, frozen=True):
    """The graceful restart capability a neighbor sent (RFC 4724 section 3)."""

    restart_time_s: int
    restarting: bool = False
    """R bit: the neighbor has restarted."""
    preserved: tuple[Family, ...] = ()
    """Families with the F bit: forwarding state was kept."""
    families: tuple[Family, ...] = ()
    """All families of the capability: their routes are kept while the neighbor restarts."""
    notification: bool = False
    """N bit, sent by both: routes outlive a NOTIFICATION, unless that is a hard reset (RFC 8538)."""


class SessionOpen(msgspec.Struct, frozen=True, kw_only=True):
    """What the neighbor said in its OPEN, as far as we decide by it."""

    asn: int
    router_id: Address
    hold_time_s: int
    """The neighbor's offer; the session uses the smaller of both offers."""
    families: tuple[Family, ...] = ()
    route_refresh: bool = False
    enhanced_refresh: bool = False
    """RFC 7313: the neighbor marks begin and end of a refresh."""
    graceful_restart: GracefulRestart | None = None
    add_path: tuple[Family, ...] = ()
    """Families of which the neighbor wants to send several paths (RFC 7911)."""
    extended_next_hop: bool = False
    """The neighbor takes IPv6 next hops of IPv4 routes (RFC 8950)."""
    roles: tuple[str, ...] = ()
    """The neighbor's role (RFC 9234); more than one if it contradicts itself."""
    capabilities: tuple[int, ...] = ()
    """Codes of all that it offered (RFC 5492), in ascending order."""
