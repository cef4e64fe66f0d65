"""The configuration file's shape: sections, keys, kinds, defaults and the range of each value.

Rules that concern one value stand in its type, and rules between values in config/check.py. The example in
config/bgpd.toml names every key.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bgpd.adapters import secrets, wireguard_keys
from bgpd.adapters.mqtt.options import Options as MqttOptions
from bgpd.adapters.netlink.encode import Resilience
from bgpd.adapters.netlink.options import KernelOptions, NexthopObjects
from bgpd.adapters.prometheus import Endpoint
from bgpd.adapters.store.open import Access
from bgpd.adapters.store.records import vtep_mac
from bgpd.core.resource.annotations import PREFIXES_MAX, RESTART_MAX_S
from bgpd.core.resource.rules import parse_community, parse_peer_ip
from bgpd.model.event import Configured, Options
from bgpd.model.forwarding import MAIN_TABLE, PROTOCOL, RouteSettings
from bgpd.model.health import HealthCheck, StaticPrefix
from bgpd.model.node import AddressMethod, Node
from bgpd.model.peer import Bfd, MaxPrefix, NextHopMode, Peer, PeerPolicy, Role, SecretRef
from bgpd.model.pool import Fallback, Mode, Pool, parse_preference
from bgpd.model.prefix import Address, Family, Prefix, parse_interface

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PortNumber = Annotated[int, Meta(ge=1, le=65_535)]
AsNumber = Annotated[int, Meta(ge=1, le=4_294_967_294)]
Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=NAME_PATTERN)]
FileName = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]+$")]
FilePath = Annotated[str, Meta(pattern=r"^/.*[^/]$")]


HASH = "hash"
"""Value of node.router_id."""


def hashed_router_id(name: str) -> Address:
    """Return a router id for a node's name: the first four bytes of its SHA-256, the first one below 224 (calico.md 2.5)."""
    first, *rest = hashlib.sha256(name.encode()).digest()[:4]
    return Address.from_packed(bytes([first - 32 if first > 223 else first, *rest]))


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class NodeSection(Section, frozen=True, kw_only=True):
    """The node that the daemon runs on."""

    name: Name = msgspec.field(default_factory=lambda: socket.gethostname().lower())
    address: str = "first-found"
    """``10.0.0.1/32``: how other nodes reach it; the length is that of its subnet. Or how to find it: a method of AddressMethod."""
    address_ipv6: str | None = None
    """``fd00::1/64``: where *address* is of IPv4, the address of IPv6 beside it."""
    asn: AsNumber
    router_id: str | None = None
    """An IPv4 address, or ``hash``: of the node's name (Calico: CALICO_ROUTER_ID)."""
    labels: dict[str, str | int | bool] = {}
    """Of the Node resource, beside those that others set; ``true`` and ``1`` are text there, as in Calico's YAML."""

    def label_texts(self) -> tuple[tuple[str, str], ...]:
        """Return the labels as they stand in the resource, sorted by name."""
        return tuple(sorted((name, _text(value)) for name, value in self.labels.items()))


class StoreSection(Section, frozen=True, kw_only=True):
    """What is beyond *url* is for etcd, and empty where it is not used."""

    url: str = "sqlite:///var/lib/bgpd/store.db"
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    server_name: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    user: Annotated[str, Meta(min_length=1)] | None = None
    password_file: FilePath | None = None

    def access(self) -> Access:
        """Return how to be let in to the store."""
        return Access(
            ca=self.ca or "",
            cert=self.cert or "",
            key=self.key or "",
            server_name=self.server_name or "",
            user=self.user or "",
            password_file=self.password_file or "",
        )


class PoolSection(Section, frozen=True, kw_only=True):
    """The pool to create where the store holds none."""

    name: Name = "default-ipv4-ippool"
    cidr: Prefix
    block_size: Annotated[int, Meta(ge=20, le=128)] | None = None
    """None: 26 for IPv4, 122 for IPv6."""
    vxlan_mode: Mode = Mode.NEVER
    fallback: str | None = None


class SecretsSection(Section, frozen=True, kw_only=True):
    """Where the passwords of sessions are: DIRECTORY/NAME/KEY."""

    directory: FilePath = str(secrets.DIRECTORY)


class PasswordSection(Section, frozen=True, kw_only=True):
    """Names a password, as Calico's ``secretKeyRef`` does; the password itself is never in the file."""

    name: FileName
    key: FileName

    def reference(self) -> SecretRef:
        return SecretRef(self.name, self.key)


class BfdSection(Section, frozen=True, kw_only=True):
    """Watch the path to a peer by BFD (RFC 5880)."""

    min_tx_ms: Annotated[int, Meta(ge=50, le=60_000)] = 300
    min_rx_ms: Annotated[int, Meta(ge=50, le=60_000)] = 300
    multiplier: Annotated[int, Meta(ge=1, le=255)] = 3
    password: PasswordSection | None = None
    """Key of keyed SHA1, at most 20 bytes."""
    key_id: Annotated[int, Meta(ge=0, le=255)] = 1
    meticulous: bool = False

    def timers(self) -> Bfd:
        return Bfd(
            min_tx_ms=self.min_tx_ms,
            min_rx_ms=self.min_rx_ms,
            multiplier=self.multiplier,
            password=self.password.reference() if self.password is not None else None,
            key_id=self.key_id,
            meticulous=self.meticulous,
        )


class MaxPrefixSection(Section, frozen=True, kw_only=True):
    """How many prefixes a peer may send; one more ends its session (RFC 4486 section 4)."""

    limit: Annotated[int, Meta(ge=1, le=PREFIXES_MAX)]
    warn_percent: Annotated[int, Meta(ge=0, le=100)] = 75
    restart_s: Annotated[int, Meta(ge=0, le=RESTART_MAX_S)] = 0
    """How long it then stays down; 0: until it is reset."""


class PeerSection(Section, frozen=True, kw_only=True):
    name: Name
    address: Address
    asn: AsNumber
    local_address: Address
    port: PortNumber = 179
    hold_time_s: Annotated[int, Meta(ge=0, le=65_535)] = 90
    graceful_restart_s: Annotated[int, Meta(ge=0, le=4095)] = 120
    passive: bool = False
    multihop_ttl: Annotated[int, Meta(ge=0, le=255)] = 0
    listen_port: Annotated[int, Meta(ge=0, le=65_535)] = 179
    """Ours, for this peer to connect to; 0: none."""
    ttl_security: Annotated[int, Meta(ge=0, le=254)] = 0
    """Hops that the peer is away at most (RFC 5082); 0: not looked at."""
    interface: str = ""
    """Link of a link-local address."""
    add_path: bool = False
    """Take several paths of a prefix (RFC 7911)."""
    extended_next_hop: bool = False
    """IPv4 routes with IPv6 next hops (RFC 8950)."""
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4",)
    filters: tuple[Name, ...] = ()
    """BGPFilters of the store, in their order."""
    next_hop_mode: Literal["Auto", "Self", "Keep"] = "Auto"
    allowed_own_asns: Annotated[int, Meta(ge=0, le=255)] = 0
    max_prefix: MaxPrefixSection | None = None
    role: Literal["provider", "customer", "rs", "rs-client", "peer"] | None = None
    """Ours (RFC 9234)."""
    role_strict: bool = False
    """No session without the peer's role."""
    bfd: BfdSection | None = None
    password: PasswordSection | None = None
    """TCP-MD5 (RFC 2385)."""


class BgpSection(Section, frozen=True, kw_only=True):
    mesh: bool | None = None
    """Whether this node is one of the node-to-node mesh; None: as BGPConfiguration default says, and not where there is none."""


class AnnounceSection(Section, frozen=True, kw_only=True):
    """Prefixes that the node announces whatever the store says."""

    prefixes: tuple[Prefix, ...]
    communities: tuple[str, ...] = ()
    """``aa:nn`` or ``aa:nn:mm``."""
    check: Name | None = None
    """The check that must pass; None: always announced."""
    blackhole: bool | None = None
    """Whether packets without a more specific route are dropped; None: where the prefix is no single address."""

    def static(self) -> Iterator[StaticPrefix]:
        values = [parse_community(text) for text in self.communities]
        for prefix in self.prefixes:
            yield StaticPrefix(
                prefix=prefix,
                communities=tuple(value for value in values if isinstance(value, int)),
                large_communities=tuple(value for value in values if isinstance(value, tuple)),
                check=self.check or "",
                blackhole=not prefix.is_host if self.blackhole is None else self.blackhole,
            )


class CheckSection(Section, frozen=True, kw_only=True):
    """What says whether a service lives: one of command, tcp and http."""

    name: Name
    command: tuple[str, ...] = ()
    tcp: str | None = None
    """``ADDRESS:PORT``."""
    http: str | None = None
    """URL."""
    interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    timeout_s: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    rise: Annotated[int, Meta(ge=1, le=100)] = 2
    fall: Annotated[int, Meta(ge=1, le=100)] = 3

    def check(self) -> HealthCheck:
        address, port, _ = parse_peer_ip(self.tcp) if self.tcp is not None else (None, None, "")
        return HealthCheck(
            name=self.name,
            command=self.command,
            tcp=(address, port) if address is not None and port is not None else None,
            url=self.http or "",
            interval_s=self.interval_s,
            timeout_s=self.timeout_s,
            rise=self.rise,
            fall=self.fall,
        )


class FallbackSection(Section, frozen=True, kw_only=True):
    kind: str = Fallback.VXLAN.value
    """Kinds in order of preference (parse_preference)."""
    restore_after_s: Seconds = 10.0
    restore_ceiling_s: Seconds = 300.0
    vxlan_vni: Annotated[int, Meta(ge=1, le=16_777_215)] = 4096
    vxlan_port: PortNumber = 4789


class EcmpSection(Section, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=128)] = 16
    multipath_relax: bool = True
    weighted: bool = False


class DecisionSection(Section, frozen=True, kw_only=True):
    always_compare_med: bool = False
    enforce_first_as: bool = False


class KernelSection(Section, frozen=True, kw_only=True):
    """How routes are written into the kernel, and how it is watched."""

    protocol: Annotated[int, Meta(ge=1, le=255)] = PROTOCOL
    table: Annotated[int, Meta(ge=1, le=4_294_967_295)] = MAIN_TABLE
    rule_priority: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    vrf: Annotated[str, Meta(min_length=1, max_length=15)] | None = None
    """Name of a VRF device: its table is used, and next hops are found through it."""
    metric: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    source_ipv4: Address | None = None
    source_ipv6: Address | None = None
    mtu_bytes: Annotated[int, Meta(ge=0, le=65_535)] = 0
    nexthop_objects: NexthopObjects = NexthopObjects.AUTO
    resilient_buckets: Annotated[int, Meta(ge=0, le=65_535)] = 0
    resilient_idle_s: Seconds = 120.0
    resilient_unbalanced_s: Seconds = 0.0
    compare_s: Annotated[float, Meta(ge=1, le=86_400)] = 90.0

    def options(self, wireguard_keys: Path = wireguard_keys.DIRECTORY) -> KernelOptions:
        """Return what the kernel's adapter must know."""
        resilience = Resilience(
            buckets=self.resilient_buckets, idle_s=self.resilient_idle_s, unbalanced_s=self.resilient_unbalanced_s
        )
        return KernelOptions(
            protocol=self.protocol,
            wireguard_keys=wireguard_keys,
            resolve_table=self.table if self.vrf else MAIN_TABLE,
            table=self.table,
            objects=self.nexthop_objects,
            resilience=resilience if self.resilient_buckets else None,
        )

    def routes(self) -> RouteSettings:
        """Return how the core is to write routes."""
        return RouteSettings(
            table=self.table,
            rule_priority=self.rule_priority,
            metric=self.metric,
            source_ipv4=self.source_ipv4,
            source_ipv6=self.source_ipv6,
            mtu_bytes=self.mtu_bytes,
        )


class MtuSection(Section, frozen=True, kw_only=True):
    """What workloads are told to send at most."""

    file: FilePath | None = None
    """Where the MTU for workloads is written, a number and the end of a line; None: ``mtu`` in the directory of [state]."""


class WireguardSection(Section, frozen=True, kw_only=True):
    """The WireGuard key pair of this node; whether and how WireGuard is used is FelixConfiguration's and the pools' to say."""

    directory: FilePath | None = None
    """None: ``wireguard`` in the directory of [state]."""
    rotate_after_s: Annotated[float, Meta(ge=0, le=315_360_000)] = 0.0
    """Age at which the key is changed, at least a minute; 0: only by ``bgpd wireguard rotate-key``."""


class StartupSection(Section, frozen=True, kw_only=True):
    peers_learned_ceiling_s: Seconds = 120.0


class SpeakerMode(StrEnum):
    """How ExaBGP hands over what it received."""

    RAW = "raw"
    JSON = "json"


class SpeakerSection(Section, frozen=True, kw_only=True):
    mode: SpeakerMode = SpeakerMode.RAW
    runtime_dir: FilePath = "/run/bgpd/speaker"


class CollectSection(Section, frozen=True, kw_only=True):
    """Giving back what workloads and nodes left behind."""

    enabled: bool = True
    """This node may be elected to do it."""
    workloads: bool = False
    """Say which addresses this node has a trace of, so that those without one are given back."""
    grace_s: Annotated[float, Meta(ge=1, le=86_400)] = 900.0


class StateSection(Section, frozen=True, kw_only=True):
    """What a restart has to find, beside the store."""

    directory: FilePath = "/var/lib/bgpd"


class ApiSection(Section, frozen=True, kw_only=True):
    socket: FilePath = "/run/bgpd/bgpd.sock"
    mode: Literal["0600", "0660"] = "0660"
    """Never others: whoever opens the socket may end sessions."""
    group: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    """Of the socket; None: the daemon's own."""


class MetricsSection(Section, frozen=True, kw_only=True):
    """The endpoint that Prometheus scrapes."""

    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """0: off."""
    address: Address = Address.parse("127.0.0.1")
    certificate: FilePath | None = None
    key: FilePath | None = None
    user: Annotated[str, Meta(min_length=1)] | None = None
    password: PasswordSection | None = None

    def endpoint(self, passwords: secrets.Passwords) -> Endpoint | None:
        """Return where and how to serve; None: not at all. Raises secrets.Unfit for a password that cannot be used."""
        if not self.port:
            return None
        return Endpoint(
            address=str(self.address),
            port=self.port,
            certificate=Path(self.certificate) if self.certificate is not None else None,
            key=Path(self.key) if self.key is not None else None,
            user=self.user or "",
            password=passwords.read(self.password.reference()) if self.password is not None else None,
        )


class WebSection(MetricsSection, frozen=True, kw_only=True):
    """The page for a browser; the options are those of the metrics."""


class MqttSection(Section, frozen=True, kw_only=True):
    """The broker that is told what happens."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    """None: no broker is told."""
    port: PortNumber | None = None
    """None: 1883, with TLS 8883."""
    version: Literal["5", "3.1.1"] = "5"
    cluster: FileName = "default"
    """Second level of the topics: ``bgpd/CLUSTER/NODE/…``."""
    user: Annotated[str, Meta(min_length=1)] | None = None
    password: PasswordSection | None = None
    tls: bool = False
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None

    def options(self, node: str, passwords: secrets.Passwords) -> MqttOptions | None:
        """Return how to reach the broker; None: there is none. Raises secrets.Unfit for a password that cannot be used."""
        if self.host is None:
            return None
        return MqttOptions(
            host=self.host,
            port=self.port or (8883 if self.tls else 1883),
            cluster=self.cluster,
            node=node,
            version=self.version,
            user=self.user or "",
            password=passwords.read(self.password.reference()) if self.password is not None else None,
            tls=self.tls,
            ca=Path(self.ca) if self.ca is not None else None,
            certificate=Path(self.certificate) if self.certificate is not None else None,
            key=Path(self.key) if self.key is not None else None,
        )


class LogLevel(StrEnum):
    AUTO = "auto"
    """As BGPConfiguration's logSeverityScreen says, else info."""
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    """Console on a terminal, fields where standard error goes to the journal, else JSON."""
    JOURNAL = "journal"
    JSON = "json"
    CONSOLE = "console"


class LogSection(Section, frozen=True, kw_only=True):
    level: LogLevel = LogLevel.AUTO
    format: LogFormat = LogFormat.AUTO


class Config(Section, frozen=True, kw_only=True):
    """A whole configuration, checked."""

    node: NodeSection
    store: StoreSection = StoreSection()
    pool: PoolSection | None = None
    peer: tuple[PeerSection, ...] = ()
    bgp: BgpSection = BgpSection()
    announce: tuple[AnnounceSection, ...] = ()
    check: tuple[CheckSection, ...] = ()
    fallback: FallbackSection = FallbackSection()
    ecmp: EcmpSection = EcmpSection()
    decision: DecisionSection = DecisionSection()
    kernel: KernelSection = KernelSection()
    startup: StartupSection = StartupSection()
    wireguard: WireguardSection = WireguardSection()
    mtu: MtuSection = MtuSection()
    secrets: SecretsSection = SecretsSection()
    speaker: SpeakerSection = SpeakerSection()
    collect: CollectSection = CollectSection()
    state: StateSection = StateSection()
    api: ApiSection = ApiSection()
    metrics: MetricsSection = MetricsSection()
    web: WebSection = WebSection()
    mqtt: MqttSection = MqttSection()
    log: LogSection = LogSection()

    def address_method(self) -> AddressMethod | None:
        """Return how the node's address is to be found; None where it is given."""
        return AddressMethod.parse(self.node.address)

    def at(self, address: Address, subnet: Prefix) -> Config:
        """Return the configuration with the node's address given, as it was found."""
        found = msgspec.structs.replace(self.node, address=f"{address}/{subnet.length}")
        return msgspec.structs.replace(self, node=found)

    def in_table(self, table: int) -> Config:
        """Return the configuration with the routing table given, as its VRF has it."""
        return msgspec.structs.replace(self, kernel=msgspec.structs.replace(self.kernel, table=table))

    def router_id(self) -> Address:
        """The BGP identifier: as set or hashed, else the node's IPv4 address, which must be given or found before."""
        if self.node.router_id is None:
            return parse_interface(self.node.address)[0]
        return hashed_router_id(self.node.name) if self.node.router_id == HASH else Address.parse(self.node.router_id)

    def wireguard_directory(self) -> Path:
        """Return where the node's WireGuard key pair is."""
        return Path(self.wireguard.directory or f"{self.state.directory}/wireguard")

    def mtu_file(self) -> Path:
        """Return where the MTU for workloads is written."""
        return Path(self.mtu.file or f"{self.state.directory}/mtu")

    def own_node(self) -> Node:
        """Return this node as others are to see it."""
        found = {Family.IPV4: (None, None), Family.IPV6: (None, None)} | {
            address.family: (address, subnet)
            for address, subnet in map(parse_interface, filter(None, (self.node.address_ipv6, self.node.address)))
        }
        ipv4, ipv6 = found[Family.IPV4], found[Family.IPV6]
        return Node(
            name=self.node.name,
            asn=self.node.asn,
            ipv4_address=ipv4[0],
            ipv4_subnet=ipv4[1],
            ipv6_address=ipv6[0],
            ipv6_subnet=ipv6[1],
            vtep_mac=vtep_mac(self.node.name),
            vtep_mac_v6=vtep_mac(f"{self.node.name}-v6") if ipv6[0] is not None else None,
            labels=self.node.label_texts(),
        )

    def default_pool(self) -> Pool | None:
        """Return the pool to create where the store holds none; None: create none."""
        if self.pool is None:
            return None
        v4 = self.pool.cidr.family is Family.IPV4
        return Pool(
            name=self.pool.name,
            cidr=self.pool.cidr,
            block_size=self.pool.block_size or (26 if v4 else 122),
            vxlan_mode=self.pool.vxlan_mode,
            fallback=None if self.pool.fallback is None else parse_preference(self.pool.fallback),
        )

    def configured(self) -> Configured:
        """Return the event that tells the core of this configuration."""
        return Configured(
            node=self.own_node(),
            peers=tuple(self._peer(section) for section in self.peer),
            mesh=self.bgp.mesh,
            announce=tuple(one for section in self.announce for one in section.static()),
            options=Options(
                peers_learned_ceiling_s=self.startup.peers_learned_ceiling_s,
                restore_after_s=self.fallback.restore_after_s,
                restore_ceiling_s=self.fallback.restore_ceiling_s,
                ecmp_limit=self.ecmp.limit,
                multipath_relax=self.ecmp.multipath_relax,
                weighted_ecmp=self.ecmp.weighted,
                always_compare_med=self.decision.always_compare_med,
                enforce_first_as=self.decision.enforce_first_as,
                router_id=self.router_id(),
                fallback=parse_preference(self.fallback.kind),
                vxlan_vni=self.fallback.vxlan_vni,
                vxlan_port=self.fallback.vxlan_port,
                routes=self.kernel.routes(),
            ),
        )

    def health_checks(self) -> tuple[HealthCheck, ...]:
        """Return the checks to make."""
        return tuple(section.check() for section in self.check)

    def _peer(self, section: PeerSection) -> Peer:
        limit = section.max_prefix
        return Peer(
            name=section.name,
            address=section.address.on(section.interface),
            asn=section.asn,
            local_address=section.local_address,
            local_asn=self.node.asn,
            port=section.port,
            hold_time_s=section.hold_time_s,
            graceful_restart_s=section.graceful_restart_s,
            families=tuple(Family.IPV4 if family == "ipv4" else Family.IPV6 for family in section.families),
            passive=section.passive,
            multihop_ttl=section.multihop_ttl,
            listen_port=section.listen_port,
            ttl_security=section.ttl_security,
            interface=section.interface,
            add_path_receive=section.add_path,
            extended_next_hop=section.extended_next_hop,
            role=Role(section.role) if section.role is not None else None,
            role_strict=section.role_strict,
            policy=PeerPolicy(
                filters=section.filters,
                next_hop_mode=NextHopMode(section.next_hop_mode),
                allowed_own_asns=section.allowed_own_asns,
                max_prefix=MaxPrefix(limit.limit, limit.warn_percent, limit.restart_s) if limit is not None else None,
                bfd=section.bfd.timers() if section.bfd is not None else None,
            ),
            password=section.password.reference() if section.password is not None else None,
        )


def _text(value: str | int | bool) -> str:
    """Write a label's value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)
