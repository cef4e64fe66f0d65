"""The API client: synchronous and light, so that a command starts fast (paths and answers in protocol.py).

Each call opens one connection and makes one request. Errors say who has to act: :class:`Unreachable` (start the daemon,
or mend the socket), :class:`BadRequest` (ask something else), :class:`protocol.Refused` (the daemon has a reason),
:class:`Failed` (a defect, or a mismatch of versions).
"""

from __future__ import annotations

import errno
import http.client
import os
import socket as sockets
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from bgpd.api import protocol
from bgpd.model.drain import DrainRequest
from bgpd.model.overlay import ForceRequest, OverlayView, ProbeRequest, ProbeView
from bgpd.model.prefix import Prefix
from bgpd.model.telling import EventView
from bgpd.model.view import (
    ExplainView,
    FibPage,
    FibQuery,
    NodeView,
    PeerRouteView,
    PeerView,
    PoolView,
    ReloadView,
    RouteView,
    StatusView,
    Which,
)

TIMEOUT_S = 10.0
"""For each wait (connect, send, next part of the answer): a daemon that is busy for longer is as good as gone."""

T = TypeVar("T")


class ApiError(Exception):
    """A call failed; the message is a sentence for people."""


class Unreachable(ApiError):  # noqa: N818 - named for what the caller is told
    """No daemon answers on the socket. The message says what is wrong, where, and how to mend it."""


class BadRequest(ApiError):  # noqa: N818
    """The daemon does not understand what was asked."""


class Failed(ApiError):  # noqa: N818
    """The daemon answered, but not with what was asked for: a defect of it, or another version."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("bgpd", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class Client:
    """A client of the daemon behind *socket*; it holds no connection between calls."""

    def __init__(self, socket: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = socket
        self._timeout_s = timeout_s

    def status(self) -> StatusView:
        return self._get(protocol.STATUS, StatusView)

    def peers(self, name: str | None = None) -> list[PeerView]:
        """Return all peers, or one in detail; raises BadRequest for an unknown one."""
        return self._get(protocol.PEERS, list[PeerView], **({} if name is None else {"name": name}))

    def peer_routes(self, peer: str | None, which: Which, prefix: Prefix | None = None) -> list[PeerRouteView]:
        """Return routes of one peer, or of all; raises BadRequest for an unknown one."""
        query = {"which": which.value, "peer": peer, "prefix": None if prefix is None else str(prefix)}
        given = {name: value for name, value in query.items() if value is not None}
        return self._get(protocol.PEER_ROUTES, list[PeerRouteView], **given)

    def refresh(self, peer: str) -> None:
        """Have *peer* send everything again; raises protocol.Refused, or BadRequest for an unknown one."""
        self._post(protocol.REFRESH, protocol.PeerRequest(peer=peer))

    def reset(self, peer: str, *, hard: bool = False, message: str = "") -> None:
        """End the session with *peer*, to begin anew; raises as refresh does."""
        self._post(protocol.RESET, protocol.ResetRequest(peer=peer, hard=hard, message=message))

    def drain(self, asked: DrainRequest) -> None:
        """Begin to drain the node; raises protocol.Refused, BadRequest."""
        self._post(protocol.DRAIN, asked)

    def reload(self, *, dry_run: bool = False) -> ReloadView:
        """Have the configuration loaded again, or only be told what that would change; raises protocol.Refused where it is bad."""
        asked = msgspec.json.encode(protocol.ReloadRequest(dry_run=dry_run))
        return self._decode(self._request("POST", protocol.RELOAD, asked), ReloadView)

    def undrain(self) -> None:
        """Have everything announced again; raises protocol.Refused."""
        self._post(protocol.UNDRAIN, protocol.UndrainRequest())

    def events(self, after: int = 0, wait_s: float = 0.0) -> list[EventView]:
        """Return the events after that number; where there is none, wait so long for one, at most EVENTS_WAIT_LIMIT_S."""
        return self._get(protocol.EVENTS, list[EventView], after=str(after), wait_s=str(wait_s))

    def overlay(self, node: str | None = None) -> list[OverlayView]:
        """Return all remote nodes, or one; raises BadRequest for an unknown one."""
        return self._get(protocol.OVERLAY, list[OverlayView], **({} if node is None else {"node": node}))

    def overlay_test(self, asked: ProbeRequest) -> list[ProbeView]:
        """Have a node probed by each way; raises protocol.Refused, or BadRequest for an unknown one."""
        return self._decode(self._request("POST", protocol.OVERLAY_TEST, msgspec.json.encode(asked)), list[ProbeView])

    def overlay_force(self, asked: ForceRequest) -> None:
        """Force the way to a node; raises as :meth:`overlay_test`."""
        self._post(protocol.OVERLAY_FORCE, asked)

    def routes(self, prefix: Prefix | None = None) -> list[RouteView]:
        """Return all routes, or the one of exactly *prefix* (an empty list where there is none)."""
        return self._get(protocol.ROUTES, list[RouteView], **({} if prefix is None else {"prefix": str(prefix)}))

    def nodes(self) -> list[NodeView]:
        """Return this node, and how each other one is reached."""
        return self._get(protocol.NODES, list[NodeView])

    def explain(self, query: str, node: str | None = None) -> ExplainView:
        """Explain an address or a prefix, as this node or as *node* reaches it; raises BadRequest for anything else."""
        return self._get(protocol.EXPLAIN, ExplainView, q=query, **({} if node is None else {"from": node}))

    def raw(self, path: str, **query: str) -> bytes:
        """Return an answer as it is, for whoever only keeps it."""
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path, None)

    def pools(self) -> list[PoolView]:
        return self._get(protocol.POOLS, list[PoolView])

    def fib(self, query: FibQuery) -> FibPage:
        """Return a page of our routes in the kernel; raises BadRequest for a bad key or prefix."""
        asked = {name: str(value) for name, value in msgspec.structs.asdict(query).items() if value is not None}
        return self._get(protocol.FIB, FibPage, **asked)

    def fib_diff(self, limit: int) -> FibPage:
        """Return what differs in the kernel from what is desired; raises protocol.Refused where it cannot be read."""
        return self._get(protocol.FIB_DIFF, FibPage, limit=str(limit))

    def assign(self, handle: str, pool: str | None = None) -> str:
        """Assign an address to *handle* and return it; raises protocol.Refused with the daemon's reason.

        After Unreachable the outcome is unknown: an address may have been assigned.
        """
        return self.assign_all(protocol.AssignRequest(handle=handle, pool=pool)).address

    def assign_all(self, asked: protocol.AssignRequest) -> protocol.AssignView:
        """Assign as many addresses as asked for, or fewer with the reason; raises as :meth:`assign`, and BadRequest."""
        return self._decode(self._request("POST", protocol.ASSIGN, msgspec.json.encode(asked)), protocol.AssignView)

    def rotate_wireguard_key(self) -> protocol.WireguardKeyView:
        """Change the node's WireGuard key; raises protocol.Refused. After Unreachable it may have been changed."""
        return self._decode(self._request("POST", protocol.ROTATE_KEY, b"{}"), protocol.WireguardKeyView)

    def _post(self, path: str, asked: msgspec.Struct) -> None:
        self._decode(self._request("POST", path, msgspec.json.encode(asked)), protocol.DoneView)

    def _get(self, path: str, kind: type[T], **query: str) -> T:
        return self._decode(self._request("GET", f"{path}?{urlencode(query)}" if query else path, None), kind)

    def _request(self, method: str, target: str, body: bytes | None) -> bytes:
        """Make one request and return the body of its answer; raises as the module says."""
        connection = _Connection(self._path, self._timeout_s)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.IncompleteRead) as failure:
            raise Unreachable(_unreachable(self._path, failure, self._timeout_s)) from failure
        except http.client.HTTPException as failure:
            raise Failed(f"what listens on {self._path} does not answer as bgpd does ({failure!r})") from failure
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise _error(response.status, answer)
        return answer

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as defect:
            version = f"the daemon behind {self._path} answers in a form unknown here: it may be of another version"
            raise Failed(f"{version} ({defect})") from defect


def _error(status: int, answer: bytes) -> Exception:
    try:
        sentence = msgspec.json.decode(answer, type=protocol.ErrorView).error
    except msgspec.DecodeError:
        return Failed(f"the daemon failed to answer (HTTP status {status}); its log says why")
    errors: dict[int, type[Exception]] = {400: BadRequest, 409: protocol.Refused}
    return errors.get(status, Failed)(sentence)


def _unreachable(path: Path, failure: OSError | http.client.IncompleteRead, timeout_s: float) -> str:
    """Say in one sentence what is wrong, where, and how to mend it."""
    if isinstance(failure, TimeoutError):
        return f"the daemon behind {path} did not answer within {timeout_s:g} s: it is busy or stopped; see its log"
    if isinstance(failure, http.client.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return f"the daemon behind {path} closed the connection: it has just ended or restarted; see its log"
    start = "start one with `bgpd run`, or name its socket with --socket or BGPD_SOCKET"
    sentences = {
        errno.ENOENT: f"no daemon is running here: the socket {path} does not exist; {start}",
        errno.ENOTDIR: f"no daemon is running here: the socket {path} does not exist; {start}",
        errno.ECONNREFUSED: f"no daemon is running here: nobody listens on the socket {path}; {start}",
        errno.EACCES: f"you (uid {os.geteuid()}) may not open the socket {path}: become root or a member of its group",
        errno.EAGAIN: f"the daemon behind {path} accepts no connection: it is busy or stopped; see its log",
    }
    return sentences.get(failure.errno or 0, f"the socket {path} cannot be used: {failure.strerror or failure}")
