"""NOTIFICATION messages: their bytes, and in words (RFC 4271 sections 4.5 and 6).

Subcodes of Cease: RFC 4486; the operator's text: RFC 9003; Hard Reset: RFC 8538 section 3; of OPEN errors also RFC 5492 and RFC 9234;
of ROUTE-REFRESH errors RFC 7313; of FSM errors RFC 6608; of Cease BFD Down RFC 9384.
"""

from __future__ import annotations

from bgpd.model.peer import Notification, Peer, SessionOpen
from bgpd.model.prefix import Address

DATA_BYTES = 64
"""Kept of a NOTIFICATION's data: it may repeat a whole attribute, which nobody reads in a reason."""
TEXT_BYTES = 255
"""Longest operator's text (RFC 9003 section 2: one byte of length)."""

CEASE = 6
SHUTDOWN = 2
ADMIN_RESET = 4
HARD_RESET = 9

_CODES = {
    1: "Message Header Error",
    2: "OPEN Message Error",
    3: "UPDATE Message Error",
    4: "Hold Timer Expired",
    5: "Finite State Machine Error",
    6: "Cease",
    7: "ROUTE-REFRESH Message Error",
    8: "Send Hold Timer Expired",
}
_SUBCODES = {
    (1, 1): "Connection Not Synchronized",
    (1, 2): "Bad Message Length",
    (1, 3): "Bad Message Type",
    (2, 1): "Unsupported Version Number",
    (2, 2): "Bad Peer AS",
    (2, 3): "Bad BGP Identifier",
    (2, 4): "Unsupported Optional Parameter",
    (2, 5): "Authentication Failure",
    (2, 6): "Unacceptable Hold Time",
    (2, 7): "Unsupported Capability",
    (2, 11): "Role Mismatch",
    (3, 1): "Malformed Attribute List",
    (3, 2): "Unrecognized Well-known Attribute",
    (3, 3): "Missing Well-known Attribute",
    (3, 4): "Attribute Flags Error",
    (3, 5): "Attribute Length Error",
    (3, 6): "Invalid ORIGIN Attribute",
    (3, 7): "AS Routing Loop",
    (3, 8): "Invalid NEXT_HOP Attribute",
    (3, 9): "Optional Attribute Error",
    (3, 10): "Invalid Network Field",
    (3, 11): "Malformed AS_PATH",
    (5, 1): "Unexpected Message in OpenSent",
    (5, 2): "Unexpected Message in OpenConfirm",
    (5, 3): "Unexpected Message in Established",
    (6, 1): "Maximum Number of Prefixes Reached",
    (6, 2): "Administrative Shutdown",
    (6, 3): "Peer De-configured",
    (6, 4): "Administrative Reset",
    (6, 5): "Connection Rejected",
    (6, 6): "Other Configuration Change",
    (6, 7): "Connection Collision Resolution",
    (6, 8): "Out of Resources",
    (6, 9): "Hard Reset",
    (6, 10): "BFD Down",
    (7, 1): "Invalid Message Length",
}


def decode(body: bytes, sent: bool) -> Notification:
    """Decode the body of a NOTIFICATION; one too short for a code is code 0."""
    code, subcode = (body[0], body[1]) if len(body) >= 2 else (0, 0)
    data = body[2:]
    hard = (code, subcode) == (CEASE, HARD_RESET) and len(data) >= 2
    if hard:
        code, subcode, data = data[0], data[1], data[2:]
    text = ""
    if code == CEASE and subcode in (SHUTDOWN, ADMIN_RESET) and data and data[0] < len(data):
        text = data[1 : 1 + data[0]].decode("utf-8", "replace")
        data = b""
    return Notification(code, subcode, sent, text, hard, data[:DATA_BYTES])


def command(address: Address, notification: Notification, *, stay: bool = False) -> str:
    """Write ``bgpd-end`` of child/sessions.py; with *stay* no other session follows. Raises ValueError for a text that is too long."""
    code, subcode, data = notification.code, notification.subcode, notification.data
    if notification.text:
        data = shutdown_text(notification.text)
    if notification.hard:
        code, subcode, data = CEASE, HARD_RESET, bytes((code, subcode)) + data
    return f"neighbor {address} bgpd-end {code} {subcode} 0x{data.hex()}{' stay' if stay else ''}"


def shutdown_text(text: str) -> bytes:
    """Encode an operator's text; raises ValueError if it is longer than TEXT_BYTES in UTF-8."""
    data = text.encode()
    if len(data) > TEXT_BYTES:
        raise ValueError(f"the message has {len(data)} bytes in UTF-8; a NOTIFICATION holds {TEXT_BYTES} (RFC 9003)")
    return bytes((len(data),)) + data if data else b""


def describe(notification: Notification) -> str:
    """Name code and subcode, with the operator's text."""
    code, subcode = notification.code, notification.subcode
    name = _CODES.get(code, f"code {code}")
    detail = _SUBCODES.get((code, subcode), f"subcode {subcode}" if subcode else "")
    words = f"{name}: {detail}" if detail else name
    if notification.hard:
        words = f"Hard Reset, {words}"
    if notification.text:
        words += f', "{notification.text}"'
    return f"{words} ({code}/{subcode})"


def explain(notification: Notification, peer: Peer | None, opened: SessionOpen | None) -> str:
    """Say why a session ended, or does not come up: who told whom what, and what it means where we can know.

    *opened* is the OPEN that the neighbor sent before, if it did.
    """
    who = "we sent" if notification.sent else "the neighbor sent"
    return f"{who} {describe(notification)}{_meaning(notification, peer, opened)}"


def _meaning(notification: Notification, peer: Peer | None, opened: SessionOpen | None) -> str:
    kind = (notification.code, notification.subcode)
    if kind == (2, 2) and peer is not None:
        if notification.sent and opened is not None:
            return f": its AS is {opened.asn}, configured is {peer.asn}"
        if not notification.sent:
            theirs = f"; its own AS is {opened.asn}, configured is {peer.asn}" if opened is not None else ""
            return f": it does not expect our AS {peer.local_asn}{theirs}"
    if kind == (6, 1) and len(notification.data) >= 7:
        family = {1: "IPv4", 2: "IPv6"}.get(int.from_bytes(notification.data[:2], "big"), "")
        whose = "our" if notification.sent else "its"
        return f": {whose} limit is {int.from_bytes(notification.data[3:7], 'big')} {family} prefixes".rstrip()
    if kind == (2, 11) and peer is not None:
        return _roles(notification, peer, opened)
    if kind == (2, 6) and opened is not None:
        return f": offered are {opened.hold_time_s} s and ours"
    if notification.code == 4:
        return ": nothing came from the neighbor within the hold time" if notification.sent else ""
    return ""


def _roles(notification: Notification, peer: Peer, opened: SessionOpen | None) -> str:
    """Say whose role does not fit whose (RFC 9234 section 4.2)."""
    ours = f"ours is {peer.role}" if peer.role is not None else "we have none"
    if opened is None:
        return f": {ours}"
    theirs = f"its role is {', '.join(opened.roles)}" if opened.roles else "it offers no role"
    insists = ", and we insist on one" if notification.sent and not opened.roles else ""
    return f": {theirs}, {ours}{insists}"
