"""BGP neighbors: what is configured, and what a session negotiated."""

from __future__ import annotations

import msgspec

from bgpd.model.prefix import Address, Family


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbor to speak BGP with. Its address is its identity."""

    name: str
    """Shown to people; unique among the peers of a node."""
    address: Address
    asn: int
    local_address: Address
    local_asn: int
    port: int = 179
    hold_time_s: int = 90
    """Offered hold time; 0 (no keepalives) or at least 3 (RFC 4271 section 4.2)."""
    graceful_restart_s: int = 120
    """Restart time we offer (RFC 4724), at most 4095; 0 offers no graceful restart."""
    families: tuple[Family, ...] = (Family.IPV4,)
    passive: bool = False
    """Wait for the neighbor to connect."""
    multihop_ttl: int = 0
    """Outgoing TTL for a neighbor that is not on a link of ours; 0 for a directly connected one."""

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


class Notification(msgspec.Struct, frozen=True):
    """A NOTIFICATION message (RFC 4271 section 4.5; Cease subcodes RFC 4486; shutdown text RFC 9003)."""

    code: int
    subcode: int
    sent: bool
    """True if we sent it, False if the neighbor did."""
    text: str = ""
