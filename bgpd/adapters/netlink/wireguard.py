"""A WireGuard device's configuration: by generic netlink for the kernel's own kind, by its control socket for ``wireguard-go``.

Laws: a private key goes from its file into the device, and nowhere else. ``wireguard-go`` is started only where the kernel does not know
the kind; it is a process of its own that outlives us, as its device does, and ends when the device is removed. Where a peer's packets
really come from is WireGuard's to follow (roaming), so an endpoint is written when the peer is, and not compared.

Sources: include/uapi/linux/wireguard.h; wireguard.com/xplatform (the control socket).
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import (
    WG_CMD_SET_DEVICE,
    WG_GENL_VERSION,
    WGPEER_F_REMOVE_ME,
    WGPEER_F_REPLACE_ALLOWEDIPS,
    WGPEER_F_UPDATE_ONLY,
    AsyncWireGuard,
    wgmsg,
)

from bgpd.adapters.netlink.encode import LinkEntry
from bgpd.adapters.secrets import Password
from bgpd.adapters.wireguard_keys import public_of
from bgpd.model.forwarding import WireguardPeer
from bgpd.model.prefix import Address, Family, Prefix

NATIVE: Final = "wireguard"
USERSPACE: Final = "tun"
"""Kind of the link that ``wireguard-go`` makes."""
PROGRAM: Final = "wireguard-go"
CONTROL: Final = Path("/var/run/wireguard")
"""Where its control sockets are, one a device: fixed in the program."""
START_S: Final = 10.0
"""It makes its device within 50 ms; a busy machine needs more."""
STARTS: Final = 10
START_PAUSE_S: Final = 0.1
"""Between starts while a predecessor's control socket is there: it goes some 10 ms after its device."""
ANSWER_S: Final = 10.0
"""A control socket answers in milliseconds; one that does not for so long hangs."""
ALLOWED_PER_MESSAGE: Final = 400
"""Allowed IPs of one netlink message: 40 bytes each, and its list of peers must fit into 64 KB."""
_PEER_COST: Final = 4
"""What a peer itself takes of a message, in allowed IPs."""
ANSWER_BYTES: Final = 16 << 20
"""An answer of the control socket with 10,000 peers of 20 prefixes."""


class Configuration(msgspec.Struct, frozen=True):
    """What a device is set to."""

    public_key: str = ""
    """Empty: it has no private key."""
    port: int = 0
    peers: dict[str, WireguardPeer] = {}


class Refused(Exception):  # noqa: N818 - named by what the device did
    """A change was not made; the text says why."""


Changes = Mapping[str, WireguardPeer | None]


async def read(link: LinkEntry) -> Configuration:
    """Read what a device is set to; one that does not answer reads as set to nothing."""
    with suppress(Refused, OSError, NetlinkError):
        return await (_read_native(link) if link.kind == NATIVE else _read_control(link))
    return Configuration()


async def answers(link: LinkEntry) -> bool:
    """Whether a link is a WireGuard device that can be set: not one of another kind, nor one whose process has lost its control socket."""
    if link.kind != USERSPACE:
        return link.kind == NATIVE
    try:
        await _ask(link.name, None)
    except (Refused, OSError):
        return False
    return True


async def set_device(link: LinkEntry, private_key: Password, port: int) -> None:
    """Set private key and port; raises Refused, OSError."""
    if link.kind == NATIVE:
        attributes = [
            ["WGDEVICE_A_PRIVATE_KEY", b64encode(private_key.reveal())],
            ["WGDEVICE_A_LISTEN_PORT", port],
        ]
        await _write_native(link, [attributes])
    else:
        await _ask(link.name, [f"private_key={private_key.reveal().hex()}", f"listen_port={port}"])


async def change_peers(link: LinkEntry, changes: Changes) -> None:
    """Make, change and remove (None) peers; raises Refused or OSError, and some may be changed then."""
    if link.kind == NATIVE:
        await _write_native(link, _peer_messages(changes))
    else:
        await _ask(link.name, list(_control_lines(changes)))


async def greet(link: LinkEntry, peers: Sequence[str]) -> None:
    """Have the device shake hands with *peers* now, not with the first packet: one of them may be waiting for us to know its key.

    A keepalive goes out when its interval becomes other than 0. Raises as change_peers does.
    """
    for interval_s in (1, 0):
        if link.kind == NATIVE:
            attributes = [
                [
                    ["WGPEER_A_PUBLIC_KEY", key],
                    ["WGPEER_A_FLAGS", WGPEER_F_UPDATE_ONLY],
                    ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", interval_s],
                ]
                for key in peers
            ]
            groups = [attributes[at : at + ALLOWED_PER_MESSAGE] for at in range(0, len(peers), ALLOWED_PER_MESSAGE)]
            await _write_native(link, ([["WGDEVICE_A_PEERS", [{"attrs": one} for one in group]]] for group in groups))
        else:
            lines = (
                (
                    f"public_key={b64decode(key).hex()}",
                    "update_only=true",
                    f"persistent_keepalive_interval={interval_s}",
                )
                for key in peers
            )
            await _ask(link.name, [line for peer in lines for line in peer])


async def start(name: str) -> None:
    """Start ``wireguard-go``, which makes the device *name*; raises Refused, with the way to mend it."""
    for _ in range(STARTS):
        status = await _launch(name)
        if status == 0:
            return
        if not (CONTROL / f"{name}.sock").exists():
            break
        await asyncio.sleep(START_PAUSE_S)  # one whose device was just removed has not let go of its socket yet
    raise Refused(
        f"the kernel has no WireGuard, and {PROGRAM} ends with status {status}: it needs /dev/net/tun, and {CONTROL} to write to"
    )


async def _launch(name: str) -> int:
    """Start the program, which goes on as a child of its own; returns its status."""
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    try:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError:
        raise Refused(
            f"the kernel has no WireGuard, and {PROGRAM} cannot be started: install it, or a kernel with it"
        ) from None
    try:
        async with asyncio.timeout(START_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Refused(f"{PROGRAM} did not make its device within {START_S:.0f} s") from None


# ------------------------------------------------------------------ generic netlink


async def _read_native(link: LinkEntry) -> Configuration:
    port, public_key = 0, ""
    found: dict[str, WireguardPeer] = {}
    async with AsyncWireGuard() as socket:
        await socket.setup_endpoint()
        async for part in await socket.info(link.name):
            public_key = _text(part.get_attr("WGDEVICE_A_PUBLIC_KEY")) or public_key
            port = part.get_attr("WGDEVICE_A_LISTEN_PORT") or port
            for peer in part.get_attr("WGDEVICE_A_PEERS") or ():
                key = _text(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
                allowed = [Prefix.parse(one["addr"]) for one in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()]
                if key in found:  # a long list comes in parts, and the later ones have nothing else
                    both = tuple(sorted((*found[key].allowed, *allowed)))
                    found[key] = msgspec.structs.replace(found[key], allowed=both)
                    continue
                endpoint = peer.get_attr("WGPEER_A_ENDPOINT") or {"addr": "0.0.0.0", "port": 0}
                found[key] = WireguardPeer(
                    endpoint=Address.parse(endpoint["addr"]),
                    port=endpoint["port"],
                    allowed=tuple(sorted(allowed)),
                    keepalive_s=peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
                )
    return Configuration("" if public_key == _NO_KEY else public_key, port, found)


async def _write_native(link: LinkEntry, messages: Iterable[list[Any]]) -> None:
    async with AsyncWireGuard() as socket:
        await socket.setup_endpoint()
        for attributes in messages:
            message = wgmsg()
            message["cmd"] = WG_CMD_SET_DEVICE
            message["version"] = WG_GENL_VERSION
            message["attrs"] = [["WGDEVICE_A_IFNAME", link.name], *attributes]
            try:
                answer = await socket.nlm_request(message, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
                async for _ in answer:
                    pass
            except NetlinkError as error:
                raise Refused(os.strerror(error.code)) from None


def _peer_messages(changes: Changes) -> Iterator[list[Any]]:
    """Pack the changes of peers into messages; a peer with many allowed IPs goes into several."""
    peers: list[dict[str, Any]] = []
    used = 0
    for key, wanted in changes.items():
        for part in _parts(key, wanted):
            cost = _PEER_COST + len(part[1])
            if peers and used + cost > ALLOWED_PER_MESSAGE:
                yield [["WGDEVICE_A_PEERS", peers]]
                peers, used = [], 0
            peers.append({"attrs": part[0]})
            used += cost
    if peers:
        yield [["WGDEVICE_A_PEERS", peers]]


def _parts(key: str, wanted: WireguardPeer | None) -> Iterator[tuple[list[Any], Sequence[Prefix]]]:
    if wanted is None:
        yield [["WGPEER_A_PUBLIC_KEY", key], ["WGPEER_A_FLAGS", WGPEER_F_REMOVE_ME]], ()
        return
    step = ALLOWED_PER_MESSAGE - _PEER_COST
    for first in range(0, max(1, len(wanted.allowed)), step):
        allowed = wanted.allowed[first : first + step]
        attributes: list[Any] = [["WGPEER_A_PUBLIC_KEY", key]]
        if first == 0:
            attributes += [
                ["WGPEER_A_FLAGS", WGPEER_F_REPLACE_ALLOWEDIPS],
                ["WGPEER_A_ENDPOINT", {"addr": str(wanted.endpoint), "port": wanted.port}],
                ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", wanted.keepalive_s],
            ]
        attributes.append(["WGPEER_A_ALLOWEDIPS", [{"attrs": _allowed(prefix)} for prefix in allowed]])
        yield attributes, allowed


def _allowed(prefix: Prefix) -> list[Any]:
    family = 2 if prefix.family is Family.IPV4 else 10  # AF_INET, AF_INET6
    return [
        ["WGALLOWEDIP_A_FAMILY", family],
        ["WGALLOWEDIP_A_IPADDR", prefix.network.packed],
        ["WGALLOWEDIP_A_CIDR_MASK", prefix.length],
    ]


_NO_KEY: Final = b64encode(bytes(32)).decode()


def _text(key: bytes | str | None) -> str:
    return key.decode() if isinstance(key, bytes) else key or ""


# ------------------------------------------------------------------ control socket


async def _read_control(link: LinkEntry) -> Configuration:
    public_key, port = "", 0
    peers: dict[str, dict[str, Any]] = {}
    now: dict[str, Any] = {}
    for line in await _ask(link.name, None):
        name, _, value = line.partition("=")
        match name:
            case "private_key":
                public_key = public_of(Password(bytes.fromhex(value)))
            case "listen_port":
                port = int(value)
            case "public_key":
                key = b64encode(bytes.fromhex(value)).decode()
                now = peers[key] = {"endpoint": Address(0), "port": 0, "allowed": [], "keepalive_s": 0}
            case "endpoint":
                address, _, number = value.rpartition(":")
                now |= {"endpoint": Address.parse(address.strip("[]")), "port": int(number)}
            case "persistent_keepalive_interval":
                now["keepalive_s"] = int(value)
            case "allowed_ip":
                now["allowed"].append(Prefix.parse(value))
            case _:
                continue
    read_peers = {
        key: WireguardPeer(**(peer | {"allowed": tuple(sorted(peer["allowed"]))})) for key, peer in peers.items()
    }
    return Configuration(public_key, port, read_peers)


def _control_lines(changes: Changes) -> Iterator[str]:
    for key, wanted in changes.items():
        yield f"public_key={b64decode(key).hex()}"
        if wanted is None:
            yield "remove=true"
            continue
        host = f"[{wanted.endpoint}]" if wanted.endpoint.family is Family.IPV6 else str(wanted.endpoint)
        yield f"endpoint={host}:{wanted.port}"
        yield f"persistent_keepalive_interval={wanted.keepalive_s}"
        yield "replace_allowed_ips=true"
        for prefix in wanted.allowed:
            yield f"allowed_ip={prefix}"


async def _ask(name: str, change: Sequence[str] | None) -> list[str]:
    """Ask what is set (None), or set it; returns the lines of the answer. Raises Refused or OSError."""
    lines = ["get=1"] if change is None else ["set=1", *change]
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(str(CONTROL / f"{name}.sock"), limit=ANSWER_BYTES)
            try:
                writer.write("\n".join([*lines, "", ""]).encode())
                await writer.drain()
                answer = (await reader.readuntil(b"\n\n")).decode().split("\n")
            finally:
                writer.close()
    except TimeoutError:
        raise Refused(f"{PROGRAM} does not answer within {ANSWER_S:.0f} s") from None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Refused(f"{PROGRAM} ended its answer in the middle") from None
    status = next((line.removeprefix("errno=") for line in answer if line.startswith("errno=")), "0")
    if status != "0":
        raise Refused(f"{PROGRAM}: {os.strerror(abs(int(status)))}")
    return answer
