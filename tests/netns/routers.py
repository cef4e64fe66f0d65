"""BIRD, FRR and GoBGP as the same router, each in its own words: for tests that say what every router has to see."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import msgspec

from bgpd.model.prefix import Address, Family
from tests.netns.exabgp_world import OURS, OURS6, THEIRS, THEIRS6, WAIT_S, World, sh

KINDS = ("bird", "frr", "gobgp")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How the router is to be configured; its neighbor is the speaker."""

    asn: int = 65001
    peer_asn: int = 65000
    v6: bool = False
    """The session runs over IPv6."""
    interface: str = ""
    """The session runs over link-local addresses of this link (*theirs*, *ours*)."""
    ours: Address | None = None
    theirs: Address | None = None
    families: tuple[Family, ...] = (Family.IPV4,)
    ttl_security: bool = False
    add_path: bool = False
    """Send two paths of PAIR."""
    extended_next_hop: bool = False
    graceful: bool = True
    max_prefix: int = 0
    active: bool = False
    """Connect to the speaker instead of waiting for it."""
    as_override: bool = False
    allow_own: bool = False
    """Take routes with its own AS in the path, once (allowas-in)."""
    prepend: int = 0
    """AS in the path of what it originates."""
    reflector_client: bool = False
    role: str = ""
    """Its role in the session (RFC 9234), in our words."""
    role_strict: bool = False
    originated: tuple[str, ...] = ("10.9.0.0/24", "10.9.1.0/26")

    @property
    def local(self) -> Address:
        return self.theirs or (THEIRS6 if self.v6 else THEIRS)

    @property
    def remote(self) -> Address:
        return self.ours or (OURS6 if self.v6 else OURS)


class Router:
    """Owns nothing: the world owns the processes."""

    def __init__(self, world: World, wanted: Wanted) -> None:
        self.world = world
        self.wanted = wanted

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """End the routing process as a crash does."""
        raise NotImplementedError

    def has(self, prefix: str) -> bool:
        """Tell whether it holds a route of ours."""
        return self.seen(prefix) is not None

    def seen(self, prefix: str) -> str | None:
        """Return what it shows of a route of ours; None if it has none."""
        raise NotImplementedError

    def state(self) -> str:
        """What it shows of the session."""
        raise NotImplementedError

    def shutdown(self, text: str) -> None:
        raise NotImplementedError


class Bird(Router):
    def start(self) -> None:
        self.world.bird(bird(self.wanted))

    def again(self) -> None:
        (self.world.folder / "bird.ctl").unlink(missing_ok=True)
        self.world.bird(bird(self.wanted), "-R")

    def kill(self) -> None:
        process = self.world.routers.pop()
        process.kill()
        process.wait(10)

    def seen(self, prefix: str) -> str | None:
        lines = iter(self.world.birdc("show route all protocol b").splitlines())
        if not any(line.startswith(f"{prefix} ") for line in lines):
            return None
        attributes = []
        for line in lines:
            if not line.startswith("\t"):
                break
            attributes.append(line)
        return "\n".join(attributes)

    def state(self) -> str:
        return self.world.birdc("show protocols all b")

    def shutdown(self, text: str) -> None:
        self.world.birdc(f'disable b "{text}"')


class Frr(Router):
    def start(self) -> None:
        self.world.frr(frr(self.wanted))

    def again(self) -> None:
        self.world.frr_daemon("bgpd")

    def kill(self) -> None:
        process = self.world.routers.pop()
        pid = int((self.world.folder / "frr" / "bgpd.pid").read_text())
        sh(f"kill -9 {pid}")
        process.wait(10)
        (self.world.folder / "frr" / "bgpd.vty").unlink()

    def seen(self, prefix: str) -> str | None:
        family = "ipv6" if ":" in prefix else "ipv4"
        shown = json.loads(self.world.vtysh(f"show bgp {family} unicast {prefix} json") or "{}")
        ours = [
            path for path in shown.get("paths", []) if path.get("peer", {}).get("peerId") == str(self.wanted.remote)
        ]
        if ours:
            ours[0].pop("peer")
        return json.dumps(ours[0]) if ours else None

    def state(self) -> str:
        return self.world.vtysh("show bgp neighbors")

    def shutdown(self, text: str) -> None:
        neighbor = self.wanted.remote
        self.world.vtysh(
            "configure terminal", f"router bgp {self.wanted.asn}", f"neighbor {neighbor} shutdown message {text}"
        )


class GoBgp(Router):
    def start(self) -> None:
        file = self.world.folder / "gobgp.toml"
        file.write_text(gobgp(self.wanted))
        self.again()

    def again(self, *options: str) -> None:
        file = self.world.folder / "gobgp.toml"
        self.world.router("gobgpd", "-f", str(file), "--disable-stdlog", *options)
        deadline = time.monotonic() + WAIT_S
        while "Peer" not in self._run("neighbor", check=False):
            assert time.monotonic() < deadline, "GoBGP does not start"
            time.sleep(0.05)
        for number, prefix in enumerate(self.wanted.originated):
            family = ("-a", "ipv6") if ":" in prefix else ()
            hop = THEIRS6 if ":" in prefix or self.wanted.extended_next_hop else THEIRS
            path = ("aspath", str(self.wanted.prepend)) if self.wanted.prepend else ()
            self._run("global", "rib", "add", prefix, "nexthop", str(hop), "med", "5", *path, *family)
            if self.wanted.add_path and number == 0:
                self._run("global", "rib", "add", prefix, "identifier", "7", "nexthop", str(hop), "med", "6", *family)

    def kill(self) -> None:
        process = self.world.routers.pop()
        process.kill()
        process.wait(10)

    def _run(self, *words: str, check: bool = True) -> str:
        command = ["ip", "netns", "exec", self.world.theirs, "gobgp", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def seen(self, prefix: str) -> str | None:
        family = "ipv6" if ":" in prefix else "ipv4"
        found = self._run("neighbor", str(self.wanted.remote), "adj-in", "-a", family, "-j", check=False)
        table: dict[str, Any] = json.loads(found) if found.startswith("{") else {}
        return json.dumps(table[prefix]) if prefix in table else None

    def state(self) -> str:
        return self._run("neighbor", str(self.wanted.remote))

    def shutdown(self, text: str) -> None:
        self._run("neighbor", str(self.wanted.remote), "disable", "--reason", text)


def router(kind: str, world: World, wanted: Wanted) -> Bird | Frr | GoBgp:
    """Start a router of *kind*."""
    made = {"bird": Bird, "frr": Frr, "gobgp": GoBgp}[kind](world, wanted)
    made.start()
    return made


# ------------------------------------------------------------------ their words


def bird(want: Wanted) -> str:
    """A configuration with one session, ``b``; routes of ours are in ``show route protocol b``."""
    statics = []
    for family in Family:
        routes = [item for item in want.originated if (":" in item) == (family is Family.IPV6)]
        lines = "".join(f"route {item} blackhole {{ bgp_med = 5; }};" for item in routes)
        if want.add_path and routes:
            statics.append(
                f"protocol static t{family} {{ {family} {{ preference 100; }}; route {routes[0]} blackhole {{ bgp_med = 6; }}; }}"
            )
        statics.append(f"protocol static s{family} {{ {family}; {lines} }}")
    channels = ""
    for family in want.families:
        more = "add paths tx; " if want.add_path else ""
        more += "extended next hop on; " if want.extended_next_hop and family is Family.IPV4 else ""
        more += f"receive limit {want.max_prefix} action disable; " if want.max_prefix else ""
        channels += f"  {family} {{ import all; export where source = RTS_STATIC; next hop self; {more} }};\n"
    scope = f"%{want.interface}" if want.interface else ""
    return f"""
log stderr {{ remote, error, auth, bug }};
router id {THEIRS};
protocol device {{ }}
{chr(10).join(statics)}
protocol bgp b {{
  local {want.local} as {want.asn}; neighbor {want.remote}{scope} as {want.peer_asn};
  hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; passive {"off" if want.active else "on"};
  graceful restart {"on" if want.graceful else "off"}; graceful restart time 30;
  {"ttl security on;" if want.ttl_security else ""}
  {"allow local as 1;" if want.allow_own else ""}
  {"rr client;" if want.reflector_client else ""}
  {f"local role {want.role.replace('-', '_')};" if want.role else ""}
  {"require roles;" if want.role_strict else ""}
{channels}}}
"""


def frr(want: Wanted) -> str:
    """A configuration with one neighbor."""
    peer = want.remote
    lines = [
        "hostname tor",
        *(f"ip route {item} blackhole" for item in want.originated if want.add_path and ":" not in item),
        "route-map MED permit 10",
        " set metric 5",
        f" set as-path prepend {want.prepend}" if want.prepend else "",
        f"router bgp {want.asn}",
        f" bgp router-id {THEIRS}",
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        " no bgp default ipv4-unicast",
        " bgp graceful-restart" if want.graceful else " bgp graceful-restart-disable",
        " bgp graceful-restart restart-time 30" if want.graceful else "",
        " bgp graceful-restart preserve-fw-state" if want.graceful else "",
        f" neighbor {peer} remote-as {want.peer_asn}",
        f" neighbor {peer} timers 3 9",
        f" neighbor {peer} timers connect 1",
        "" if want.active else f" neighbor {peer} passive",
        f" neighbor {peer} ttl-security hops 1" if want.ttl_security else "",
        f" neighbor {peer} interface {want.interface}" if want.interface else "",
        f" neighbor {peer} capability extended-nexthop" if want.extended_next_hop else "",
        f" neighbor {peer} local-role {want.role}{' strict-mode' if want.role_strict else ''}" if want.role else "",
    ]
    for family in want.families:
        routes = [item for item in want.originated if (":" in item) == (family is Family.IPV6)]
        lines += [
            f" address-family {family} unicast",
            *(f"  network {item} route-map MED" for item in routes),
            "  redistribute static" if want.add_path else "",
            f"  neighbor {peer} activate",
            f"  neighbor {peer} addpath-tx-all-paths" if want.add_path else "",
            f"  neighbor {peer} maximum-prefix {want.max_prefix}" if want.max_prefix else "",
            f"  neighbor {peer} as-override" if want.as_override else "",
            f"  neighbor {peer} allowas-in 1" if want.allow_own else "",
            f"  neighbor {peer} route-reflector-client" if want.reflector_client else "",
            " exit-address-family",
        ]
    return "\n".join(filter(None, lines)) + "\n"


def gobgp(want: Wanted) -> str:
    """A configuration with one neighbor; its routes are added by command."""
    families = ""
    for family in want.families:
        families += f"""
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "{family}-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = {str(want.graceful).lower()}
"""
        if want.add_path:
            families += "    [neighbors.afi-safis.add-paths.config]\n      send-max = 4\n"
        if want.max_prefix:
            families += f"    [neighbors.afi-safis.prefix-limit.config]\n      max-prefixes = {want.max_prefix}\n"
    return f"""
[global.config]
  as = {want.asn}
  router-id = "{THEIRS}"
  port = 179
[[neighbors]]
  [neighbors.config]
    neighbor-address = "{want.remote}"
    peer-as = {want.peer_asn}
  [neighbors.transport.config]
    local-address = "{want.local}"
    passive-mode = {str(not want.active).lower()}
  [neighbors.timers.config]
    hold-time = 9
    keepalive-interval = 3
    connect-retry = 1
  [neighbors.graceful-restart.config]
    enabled = {str(want.graceful).lower()}
    restart-time = 30
    notification-enabled = {str(want.graceful).lower()}
  [neighbors.as-path-options.config]
    replace-peer-as = {str(want.as_override).lower()}
  [neighbors.ttl-security.config]
    enabled = {str(want.ttl_security).lower()}
    ttl-min = {255 if want.ttl_security else 0}
{families}
"""
