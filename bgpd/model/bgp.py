"""BGP resources as decisions need them: BGPPeer, BGPConfiguration and BGPFilter (calico.md 2.1 to 2.3)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.peer import Bfd, MaxPrefix, NextHopMode, Role, SecretRef
from bgpd.model.prefix import Address, Family, Prefix

LargeCommunity = tuple[int, int, int]
Community = int | LargeCommunity
"""``aa:nn`` (RFC 1997) as one 32-bit number, ``aa:nn:mm`` (RFC 8092) as three."""

DEFAULT_ASN = 64512
"""AS number of a node that says none, where BGPConfiguration says none either."""
DEFAULT_PRIORITY = 1024
"""Priority of a route that nothing prefers (Calico: krt_metric)."""
PRIORITY_BASE = 2_147_483_647
"""LOCAL_PREF is this less the priority (Calico's encoding), so that a lower priority number wins."""
DEFAULT_CONFIGURATION = "default"
NODE_CONFIGURATION = "node."
"""Name of a node's own BGPConfiguration: this and the node's name."""


class BgpPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A BGPPeer, with its annotations. Whose session it is and who is at the far end is worked out in core/peering."""

    name: str
    node: str = ""
    node_selector: str = ""
    """Both empty: every node has it."""
    address: Address | None = None
    """The far end (``peerIP``)."""
    port: int | None = None
    """None: what the far end listens on, as far as it is a node."""
    interface: str = ""
    """Link of a link-local address; without an address the neighbor on that link is looked for."""
    peer_selector: str = ""
    """The far ends are nodes with such labels."""
    workload_selector: str = ""
    """The far ends are workloads of the node with such labels."""
    asn: int | None = None
    local_asn: int | None = None
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    keep_original_next_hop: bool = False
    """The older form of mode Keep, for eBGP only."""
    password: SecretRef | None = None
    use_node_ip: bool = True
    """sourceAddress UseNodeIP; else the address on the link towards the peer."""
    restart_s: int | None = None
    """maxRestartTime."""
    keepalive_s: float | None = None
    allowed_own_asns: int = 0
    ttl_security: int = 0
    reachable_by: Address | None = None
    filters: tuple[str, ...] = ()
    reverse: bool = True
    """reversePeering Auto: the far ends that are nodes get the session as well."""
    hold_time_s: int | None = None
    """``bgpd.io/hold-time``."""
    max_prefix: MaxPrefix | None = None
    """``bgpd.io/max-prefix``."""
    role: Role | None = None
    """``bgpd.io/role``: ours (RFC 9234); the far end's session has the opposite one."""
    role_strict: bool = False
    """``bgpd.io/role-strict``."""
    extended_next_hop: bool = False
    add_path: bool = False
    bfd: Bfd | None = None
    """``bgpd.io/bfd``: timers of a BFD session with the far end."""

    @property
    def is_global(self) -> bool:
        return not self.node and not self.node_selector


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A WorkloadEndpoint of this node, as far as a BGPPeer's ``localWorkloadSelector`` needs it."""

    name: str
    """NAMESPACE/NAME."""
    addresses: tuple[Address, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class Advertisement(msgspec.Struct, frozen=True):
    """Communities of what is announced within a range (prefixAdvertisements)."""

    cidr: Prefix
    communities: tuple[Community, ...]


class BgpConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A BGPConfiguration: ``default`` of the cluster, or what ``node.NAME`` has otherwise. None is left to the other, or absent."""

    name: str
    mesh: bool | None = None
    asn: int | None = None
    listen_port: int | None = None
    mesh_password: SecretRef | None = None
    mesh_restart_s: int | None = None
    load_balancer: tuple[Prefix, ...] | None = None
    external: tuple[Prefix, ...] | None = None
    cluster: tuple[Prefix, ...] | None = None
    advertisements: tuple[Advertisement, ...] | None = None
    priority_v4: int | None = None
    priority_v6: int | None = None
    node_ip_only: bool | None = None
    """bindMode NodeIP: connections are accepted at the node's own addresses only."""
    ignored_interfaces: tuple[str, ...] | None = None
    """Globs of links whose connected routes resolve no next hop."""
    log_level: str | None = None
    """logSeverityScreen, as adapters/log.py calls it."""
    workload_v4: Address | None = None
    """localWorkloadPeeringIPV4: our address in sessions with workloads."""
    workload_v6: Address | None = None
    aggregate: bool | None = None
    """serviceLoadBalancerAggregation: LoadBalancer ranges are announced as a whole."""

    def priority(self, family: Family) -> int:
        """Priority of the node's own routes (ipv4NormalRoutePriority)."""
        given = self.priority_v4 if family is Family.IPV4 else self.priority_v6
        return DEFAULT_PRIORITY if given is None else given


class Operator(StrEnum):
    """How a rule compares a route's prefix with its CIDR."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    NOT_IN = "NotIn"


class AddCommunity(msgspec.Struct, frozen=True, tag=True):
    value: Community


class PrependAsPath(msgspec.Struct, frozen=True, tag=True):
    asns: tuple[int, ...]
    """In the order in which they will stand."""


class SetPriority(msgspec.Struct, frozen=True, tag=True):
    value: int


Operation = AddCommunity | PrependAsPath | SetPriority


class FilterRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule: all that is given must match, and then its verdict holds."""

    accept: bool
    cidr: Prefix | None = None
    operator: Operator = Operator.IN
    min_length: int | None = None
    max_length: int | None = None
    remote_peers: bool = False
    """source RemotePeers: learned by BGP."""
    interface: str = ""
    """Glob of the device that the route leads to."""
    external: bool | None = None
    """peerType: whether the session is eBGP."""
    community: Community | None = None
    as_path_prefix: tuple[int, ...] = ()
    priority: int | None = None
    operations: tuple[Operation, ...] = ()


class BgpFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A BGPFilter: ordered rules by direction and family."""

    name: str
    export_v4: tuple[FilterRule, ...] = ()
    import_v4: tuple[FilterRule, ...] = ()
    export_v6: tuple[FilterRule, ...] = ()
    import_v6: tuple[FilterRule, ...] = ()
