"""ExaBGP's configuration file and environment.

The file is the record of what ExaBGP was told: a head line holds mode and router id, and a comment before each neighbor
holds the Peer, so that a daemon which attaches to a running speaker knows what it serves. Each neighbor's description
holds a digest of its section, which ExaBGP shows again (``show neighbor configuration``): that is how a reload is seen to
have happened. A session's password is in it as well, so the file is its owner's alone (NeighborsTarget writes it 0600).

A peer that was ended for good is its comment only, so that it stays so over a restart of the daemon.

Laws: explicit neighbors only, never ranges (they share one RIB); ``manual-eor``, because ExaBGP's own End-of-RIB would
come before our routes; no adj-rib-in (a copy nobody reads); an adj-rib-out, which is what we read back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import pwd
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

import bgpd
from bgpd.adapters.secrets import Password
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address
from bgpd.model.wire import encode, from_builtin

Mode = Literal["raw", "json"]

_HEAD = "# bgpd speaker "
_PEER = "# bgpd peer "
_MARK = re.compile(rb'description "?bgpd-([0-9a-f]{16})')
_NEIGHBOR = re.compile(rb"neighbor (\S+) \{")
_PASSWORD = re.compile(r'  md5-password "([A-Za-z0-9+/=]+)";')


class Head(msgspec.Struct, frozen=True):
    mode: Mode
    router_id: Address


class Neighbor(msgspec.Struct, frozen=True):
    """A peer, and the password that its reference names."""

    peer: Peer
    password: Password | None = None


def render(mode: Mode, router_id: Address, neighbors: Iterable[Neighbor], socket: Path) -> str:
    """Write the whole configuration; neighbors in the order of their addresses, so that equal sets give equal files."""
    shim = f"{sys.executable} -m bgpd.adapters.exabgp.child.shim {socket}"
    parts = [
        _HEAD + encode(Head(mode, router_id)).decode(),
        f"process bgpd {{\n  run {shim};\n  encoder json;\n  respawn true;\n}}",
    ]
    for neighbor in sorted(neighbors, key=lambda neighbor: neighbor.peer.address):
        parts.append(_PEER + encode(neighbor.peer).decode())
        if neighbor.peer.ended is None:
            section = _section(mode, router_id, neighbor)
            parts.append(section.replace("DIGEST", digest(mode, router_id, neighbor)))
    return "\n".join(parts) + "\n"


def digest(mode: Mode, router_id: Address, neighbor: Neighbor) -> str:
    """Return 16 hexadecimal digits that stand for what ExaBGP is told of a neighbor, its password too.

    Where they are shown the password is as well: in the file, and to whoever may ask ExaBGP for its configuration.
    """
    return hashlib.sha256(_section(mode, router_id, neighbor).encode()).hexdigest()[:16]


def _section(mode: Mode, router_id: Address, neighbor: Neighbor) -> str:
    peer = neighbor.peer
    receive = "packets" if mode == "raw" else "parsed"
    families = "".join(f"    {family} unicast;\n" for family in sorted(peer.families))
    settings = {
        "description": f'"bgpd-DIGEST{_role(peer)}"',
        "router-id": router_id,
        "local-address": peer.local_address,
        "local-as": peer.local_asn,
        "peer-as": peer.asn,
        "hold-time": peer.hold_time_s,
        "manual-eor": "true",
        "adj-rib-in": "false",
        "adj-rib-out": "true",
        "passive": "true" if peer.passive else "false",
    }
    if not peer.passive:
        settings["connect"] = peer.port
    if peer.listen_port and (peer.passive or mode == "raw"):  # stock ExaBGP ends if it cannot listen
        settings["listen"] = peer.listen_port
    if peer.ttl_security:  # RFC 5082: sent with 255, and received with no less than the hops allow
        settings |= {"outgoing-ttl": 255, "incoming-ttl": 256 - peer.ttl_security}
    elif peer.multihop_ttl:
        settings["outgoing-ttl"] = peer.multihop_ttl
    if peer.interface:
        settings["source-interface"] = peer.interface
    settings |= _authentication(neighbor)
    lines = "".join(f"  {name} {value};\n" for name, value in settings.items())
    capabilities = ["asn4 enable", "route-refresh enable", "extended-message enable"]
    more = ""
    if peer.graceful_restart_s:
        capabilities.append(f"graceful-restart {peer.graceful_restart_s}")
    if peer.add_path_receive:
        capabilities.append("add-path receive")
    if peer.extended_next_hop:
        capabilities.append("nexthop enable")
        more = "  nexthop {\n    ipv4 unicast ipv6;\n  }\n"
    capability = "".join(f"    {item};\n" for item in capabilities)
    return (
        f"neighbor {peer.address.plain} {{\n{lines}"
        f"  capability {{\n{capability}  }}\n"
        f"  family {{\n{families}  }}\n{more}"
        f"  api {{\n    processes [ bgpd ];\n    neighbor-changes;\n"
        f"    receive {{\n      {receive};\n      update;\n      open;\n      notification;\n      refresh;\n    }}\n"
        f"    send {{\n      {receive};\n      notification;\n    }}\n  }}\n}}"
    )


def _role(peer: Peer) -> str:
    """Write the role for child/opening.py; it is of eBGP only (RFC 9234 section 4)."""
    if peer.role is None or not peer.is_external:
        return ""
    return f" role={peer.role}{',strict' if peer.role_strict else ''}"


def _authentication(neighbor: Neighbor) -> dict[str, str]:
    peer, password = neighbor.peer, neighbor.password
    if (peer.password is None) != (password is None):
        raise ValueError(f"{peer.address}: a session with a password is never begun without it")
    return {} if password is None else {"md5-password": f'"{encoded(password)}"', "md5-base64": "true"}


def encoded(password: Password) -> str:
    """Return a password as the file has it: base64, so that no character of it means anything to ExaBGP's parser."""
    return base64.b64encode(password.reveal()).decode()


def parse(text: str) -> tuple[Head, dict[Address, Neighbor]]:
    """Read back what ``render`` wrote; raises ValueError for a file that is not ours."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith(_HEAD):
        raise ValueError("the file does not begin as ours do")
    try:
        head = msgspec.json.decode(lines[0].removeprefix(_HEAD), type=Head, dec_hook=from_builtin)
        found: dict[Address, Neighbor] = {}
        peer: Peer | None = None
        for line in lines:
            password = _PASSWORD.fullmatch(line)
            if line.startswith(_PEER):
                peer = msgspec.json.decode(line.removeprefix(_PEER), type=Peer, dec_hook=from_builtin)
                found[peer.address] = Neighbor(peer)
            elif password is not None and peer is not None:
                found[peer.address] = Neighbor(peer, Password(base64.b64decode(password[1], validate=True)))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    except binascii.Error:
        raise ValueError("a password is not base64") from None
    if any(
        (each.peer.password is None or each.peer.ended is not None) != (each.password is None)
        for each in found.values()
    ):
        raise ValueError("a password is missing, or one too many")
    return head, found


def loaded(lines: Iterable[bytes]) -> dict[str, str]:
    """Return the digest of each neighbor that ExaBGP serves, by address, from its ``show neighbor configuration``."""
    found: dict[str, str] = {}
    address = ""
    for line in lines:
        neighbor = _NEIGHBOR.match(line)
        mark = _MARK.search(line)
        if neighbor is not None:
            address = neighbor[1].decode()
            found[address] = ""
        elif mark is not None and address:
            found[address] = mark[1].decode()
    return found


def environment(runtime: Path) -> dict[str, str]:
    """Return the environment for ExaBGP: ours, without what would change it behind our back, plus its settings.

    ``log.statistics`` would write a line for each UPDATE, the level WARNING two for each attempt to reach a neighbor that
    is down; ``api.cli`` wants named pipes in system folders; an empty ``tcp.bind`` opens no listener (a passive neighbor
    brings its own); ``drop`` with our own user is no change of user; ``chunk`` makes ``show`` answer in one go.
    """
    ours = {name: value for name, value in os.environ.items() if not name.lower().startswith("exabgp")}
    folder = str(Path(bgpd.__file__).parent.parent)
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, ours.get("PYTHONPATH", ""))))
    ours["EXABGP_ENVFILE"] = str(runtime / "exabgp.env")
    settings = {
        "api_ack": "true",
        "api_chunk": "1000",
        "api_cli": "false",
        "api_show-routes-format": "v2",
        "daemon_drop": "true",
        "daemon_pid": str(runtime / "exabgp.pid"),
        "daemon_user": pwd.getpwuid(os.geteuid()).pw_name,
        "daemon_daemonize": "false",
        "log_destination": "stderr",
        "log_level": "ERROR",
        "log_short": "false",
        "log_statistics": "false",
        "tcp_bind": "",
    }
    return ours | {f"exabgp_{name}": value for name, value in settings.items()}
