"""The API server: aiohttp on a unix socket of the daemon's own event loop (paths and answers in protocol.py).

Laws:
* Whoever may open the socket may ask everything: its group and mode (0660 if nothing else is said) hold from the first instant on.
* A socket on which somebody listens is never taken away; one that a dead daemon left is replaced.
* No request holds the daemon up: its size, its time and the number of requests at once are bounded below, and a long
  list is sent in parts between which the loop runs.
* A defect in a view is answered with status 500 and logged with its traceback by aiohttp; asking never ends the daemon.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import socket as sockets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from bgpd.api import protocol
from bgpd.api.connections import Connections, connected
from bgpd.model.drain import DrainRequest
from bgpd.model.overlay import ForceRequest, ProbeRequest
from bgpd.model.prefix import Prefix
from bgpd.model.view import FibQuery, RouteQuery, Which

BODY_LIMIT_BYTES = 4096
"""Of a request; an AssignRequest has at most about 600."""
LINE_LIMIT_BYTES = 1024
"""Of the request line and of each header; a query has at most 3 x QUERY_LIMIT_CHARS when escaped."""
REQUESTS_LIMIT = 32
"""Requests in progress at once: an operator and some monitoring; more are a mistake."""
REQUEST_LIMIT_S = 30.0
"""For an answer, with its sending: a client that stops reading is dropped after it."""
IDLE_LIMIT_S = 15.0
"""A kept connection without a request."""
BACKLOG = 64
"""Connections that wait to be accepted."""
STOP_LIMIT_S = 2.0
"""For requests in progress when the server stops; after it they are cut off."""
PART_ROWS = 512
"""Rows of a list encoded in one go: about 1 ms of the loop."""

T = TypeVar("T")
_JSON = "application/json"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(NamedTuple):
    """Who may open the socket."""

    mode: int = 0o660
    group: str | None = None
    """None: the daemon's own."""


ACCESS = Access()


class SocketUnusable(Exception):  # noqa: N818 - named for what the caller is told
    """The API socket cannot be made. The message says which, why, and how to mend it; trying again does not help."""


class Server:
    """Owns the listening socket, its file, and the requests in progress."""

    def __init__(self, views: protocol.Views, socket: Path, access: Access = ACCESS) -> None:
        self._views = views
        self._path = socket
        self._access = access
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None
        self._inode: tuple[int, int] | None = None
        self._requests = 0

    async def start(self) -> None:
        """Listen. Raises :class:`SocketUnusable`; nothing is left behind then."""
        listener = _listen(self._path, self._access)
        self._inode = _inode(self._path)
        self._runner, self._connections = await connected(
            self._application(), idle_s=IDLE_LIMIT_S, stop_s=STOP_LIMIT_S, line_bytes=LINE_LIMIT_BYTES
        )
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._connections, sock=listener, backlog=BACKLOG)

    async def stop(self) -> None:
        """Stop listening, remove our socket file, and let requests in progress end within STOP_LIMIT_S."""
        if self._runner is None:
            return
        if _inode(self._path) == self._inode:
            with suppress(FileNotFoundError):
                self._path.unlink()
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        self._runner = None

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[self._bound, _errors_as_json])
        for path, handler in self.reading().items():
            application.router.add_get(path, handler)
        application.router.add_get(protocol.FIB_DIFF, self._fib_diff)
        application.router.add_post(protocol.REFRESH, self._refresh)
        application.router.add_post(protocol.RESET, self._reset)
        application.router.add_post(protocol.DRAIN, self._drain)
        application.router.add_post(protocol.UNDRAIN, self._undrain)
        application.router.add_post(protocol.RELOAD, self._reload)
        application.router.add_post(protocol.ROTATE_KEY, self._rotate_key)
        application.router.add_get(protocol.OVERLAY, self._overlay)
        application.router.add_post(protocol.OVERLAY_TEST, self._overlay_test)
        application.router.add_post(protocol.OVERLAY_FORCE, self._overlay_force)
        application.router.add_get(protocol.RECORDING, self._recording)
        application.router.add_post(protocol.ASSIGN, self._assign)
        return application

    def reading(self) -> dict[str, _Handler]:
        """Return what only reads, and answers from memory, by path; the web page serves it, too."""
        return {
            protocol.STATUS: self._status,
            protocol.PEERS: self._peers,
            protocol.PEER_ROUTES: self._peer_routes,
            protocol.ROUTES: self._routes,
            protocol.ROUTE_PAGE: self._route_page,
            protocol.NODES: self._nodes,
            protocol.EXPLAIN: self._explain,
            protocol.POOLS: self._pools,
            protocol.FIB: self._fib,
            protocol.EVENTS: self._events,
        }

    @web.middleware
    async def _bound(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Bound the number of requests in progress, and the time of each."""
        if self._connections is not None:
            self._connections.spoke(request)
        if self._requests >= REQUESTS_LIMIT:
            return _error(503, f"{REQUESTS_LIMIT} requests are in progress already; ask again in a moment")
        self._requests += 1
        try:
            async with asyncio.timeout(REQUEST_LIMIT_S):
                return await handler(request)
        finally:
            self._requests -= 1

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return _answer(self._views.status())

    async def _peers(self, request: web.Request) -> web.StreamResponse:
        try:
            return await _answer_list(request, self._views.peers(_parameter(request, "name")))
        except ValueError as defect:
            return _error(400, str(defect))

    async def _peer_routes(self, request: web.Request) -> web.StreamResponse:
        text = _parameter(request, "prefix")
        try:
            which = Which(_parameter(request, "which") or Which.RECEIVED)
            prefix = None if text is None else Prefix.parse(text)
            rows = self._views.peer_routes(_parameter(request, "peer"), which, prefix)
        except ValueError as defect:
            return _error(400, str(defect))
        return await _answer_rows(request, rows)

    async def _refresh(self, request: web.Request) -> web.StreamResponse:
        return await _ordered(request, protocol.PeerRequest, lambda asked: self._views.refresh(asked.peer))

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        return await _ordered(
            request,
            protocol.ResetRequest,
            lambda asked: self._views.reset(asked.peer, hard=asked.hard, message=asked.message),
        )

    async def _drain(self, request: web.Request) -> web.StreamResponse:
        return await _ordered(request, DrainRequest, self._views.drain)

    async def _undrain(self, request: web.Request) -> web.StreamResponse:
        return await _ordered(request, protocol.UndrainRequest, lambda _: self._views.undrain())

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=protocol.ReloadRequest)
            return _answer(await self._views.reload(dry_run=asked.dry_run))
        except msgspec.DecodeError as defect:
            return _error(400, str(defect))
        except protocol.Refused as refusal:
            return _error(409, refusal.reason)

    async def _overlay(self, request: web.Request) -> web.StreamResponse:
        try:
            return await _answer_list(request, await self._views.overlay(_parameter(request, "node")))
        except ValueError as defect:
            return _error(400, str(defect))

    async def _overlay_test(self, request: web.Request) -> web.StreamResponse:
        try:
            views = await self._views.overlay_test(msgspec.json.decode(await request.read(), type=ProbeRequest))
        except (msgspec.DecodeError, ValueError) as defect:
            return _error(400, str(defect))
        except protocol.Refused as refusal:
            return _error(409, refusal.reason)
        return await _answer_list(request, views)

    async def _overlay_force(self, request: web.Request) -> web.StreamResponse:
        return await _ordered(request, ForceRequest, self._views.overlay_force)

    async def _routes(self, request: web.Request) -> web.StreamResponse:
        text = _parameter(request, "prefix")
        try:
            prefix = None if text is None else Prefix.parse(text)
        except ValueError as defect:
            return _error(400, str(defect))
        return await _answer_list(request, self._views.routes(prefix))

    async def _route_page(self, request: web.Request) -> web.StreamResponse:
        asked = {
            name: value for name in RouteQuery.__struct_fields__ if (value := _parameter(request, name)) is not None
        }
        try:
            return _answer(await self._views.route_page(msgspec.convert(asked, RouteQuery, strict=False)))
        except (ValueError, msgspec.ValidationError) as defect:
            return _error(400, str(defect))

    async def _nodes(self, request: web.Request) -> web.StreamResponse:
        return await _answer_rows(request, self._views.nodes())

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        query = _parameter(request, "q")
        if query is None:
            return _error(400, f"{protocol.EXPLAIN} needs a parameter q: an address or a prefix")
        try:
            return _answer(self._views.explain(query, _parameter(request, "from")))
        except ValueError as defect:
            return _error(400, str(defect))

    async def _pools(self, request: web.Request) -> web.StreamResponse:
        try:
            return await _answer_list(request, self._views.pools(_parameter(request, "blocks") or "all"))
        except ValueError as defect:
            return _error(400, str(defect))

    async def _fib(self, request: web.Request) -> web.StreamResponse:
        asked = {name: value for name in FibQuery.__struct_fields__ if (value := _parameter(request, name)) is not None}
        try:
            query = msgspec.convert(asked, FibQuery, strict=False)
            return _answer(await self._views.fib(msgspec.structs.replace(query, limit=_bounded(query.limit))))
        except (ValueError, msgspec.ValidationError) as defect:
            return _error(400, str(defect))

    async def _fib_diff(self, request: web.Request) -> web.StreamResponse:
        try:
            limit = int(_parameter(request, "limit") or protocol.FIB_LIMIT_ROWS)
            return _answer(await self._views.fib_diff(_bounded(limit)))
        except ValueError as defect:
            return _error(400, str(defect))
        except protocol.Refused as refusal:
            return _error(409, refusal.reason)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            after = int(_parameter(request, "after") or 0)
            wait_s = float(_parameter(request, "wait_s") or 0)
            if after < 0 or not 0 <= wait_s <= protocol.EVENTS_WAIT_LIMIT_S:
                return _error(400, f"after is at least 0, and wait_s from 0 to {protocol.EVENTS_WAIT_LIMIT_S:.0f}")
        except ValueError as defect:
            return _error(400, str(defect))
        return await _answer_list(request, await self._views.events(after, wait_s))

    async def _rotate_key(self, _request: web.Request) -> web.StreamResponse:
        try:
            return _answer(protocol.WireguardKeyView(await self._views.rotate_wireguard_key()))
        except protocol.Refused as refusal:
            return _error(409, refusal.reason)

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        try:
            lines = self._views.recording(_parameter(request, "what") or "state")
        except ValueError as defect:
            return _error(400, str(defect))
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        while part := b"".join(islice(lines, PART_ROWS)):
            await response.write(part)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def _assign(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=protocol.AssignRequest)
        except msgspec.DecodeError as defect:
            return _error(400, f"the body is not an assignment request: {defect}")
        try:
            return _answer(await self._views.assign(asked))
        except ValueError as defect:
            return _error(400, str(defect))
        except protocol.Refused as refusal:
            return _error(409, refusal.reason)


# ------------------------------------------------------------------ answers


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _error(404, f"there is no {request.path[: protocol.QUERY_LIMIT_CHARS]}")
    except web.HTTPMethodNotAllowed as wrong:
        allowed = ", ".join(sorted(wrong.allowed_methods))
        return _error(405, f"{request.path} is for {allowed}, not {request.method}", {"Allow": allowed})
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is larger than {BODY_LIMIT_BYTES} bytes")


def _parameter(request: web.Request, name: str) -> str | None:
    value = request.query.get(name)
    if value is not None and len(value) > protocol.QUERY_LIMIT_CHARS:
        defect = protocol.ErrorView(f"parameter {name} is longer than {protocol.QUERY_LIMIT_CHARS} characters")
        raise web.HTTPBadRequest(text=msgspec.json.encode(defect).decode(), content_type=_JSON)
    return value


def _bounded(limit: int) -> int:
    if not 1 <= limit <= protocol.FIB_LIMIT_ROWS:
        raise ValueError(f"limit must be between 1 and {protocol.FIB_LIMIT_ROWS}")
    return limit


async def _ordered(
    request: web.Request, kind: type[T], carry_out: Callable[[T], Awaitable[None]]
) -> web.StreamResponse:
    """Read an order of *kind* from the body and have it carried out."""
    try:
        await carry_out(msgspec.json.decode(await request.read(), type=kind))
    except (msgspec.DecodeError, ValueError) as defect:
        return _error(400, str(defect))
    except protocol.Refused as refusal:
        return _error(409, refusal.reason)
    return _answer(protocol.DoneView())


def _answer(view: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(view), content_type=_JSON)


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(protocol.ErrorView(sentence))
    return web.Response(status=status, body=body, content_type=_JSON, headers=headers)


async def _answer_list(request: web.Request, rows: Sequence[Any]) -> web.StreamResponse:
    """Send *rows* as one JSON list, in parts between which the loop serves others."""
    if len(rows) <= PART_ROWS:
        return web.Response(body=msgspec.json.encode(rows), content_type=_JSON)
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    await response.prepare(request)
    opening = b"["
    for start in range(0, len(rows), PART_ROWS):
        await response.write(opening + msgspec.json.encode(rows[start : start + PART_ROWS])[1:-1])
        await asyncio.sleep(0)
        opening = b","
    await response.write(b"]")
    await response.write_eof()
    return response


async def _answer_rows(request: web.Request, rows: Iterator[Any]) -> web.StreamResponse:
    """Send *rows* as one JSON list, made while they are sent; a short list at once."""
    part = list(islice(rows, PART_ROWS))
    if len(part) < PART_ROWS:
        return web.Response(body=msgspec.json.encode(part), content_type=_JSON)
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    await response.prepare(request)
    opening = b"["
    while part:
        await response.write(opening + msgspec.json.encode(part)[1:-1])
        await asyncio.sleep(0)
        opening = b","
        part = list(islice(rows, PART_ROWS))
    await response.write(b"]")
    await response.write_eof()
    return response


# ------------------------------------------------------------------ the socket file


def _listen(path: Path, access: Access) -> sockets.socket:
    length = len(os.fsencode(path))
    if length > protocol.SOCKET_PATH_LIMIT_BYTES:
        limit = f"a unix socket path has at most {protocol.SOCKET_PATH_LIMIT_BYTES}"
        raise SocketUnusable(f"the socket path {path} has {length} bytes; {limit}: choose a shorter one")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
    except OSError as failure:
        raise SocketUnusable(
            f"the socket {path} cannot be prepared: {failure.strerror}: {failure.filename or path}"
        ) from failure
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
    try:
        # bind() gives the file the mode of the socket's own inode (net/unix/af_unix.c: unix_bind_bsd).
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
        if access.group is not None:
            _give(path, access.group)
        path.chmod(access.mode)
        listener.listen(BACKLOG)
    except SocketUnusable:
        listener.close()
        path.unlink(missing_ok=True)
        raise
    except OSError as failure:
        listener.close()
        raise SocketUnusable(f"the socket {path} cannot be made: {failure.strerror}") from failure
    return listener


def _give(path: Path, group: str) -> None:
    """Make *group* the socket's; a daemon that is not root must be a member of it."""
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError as error:
        raise SocketUnusable(f"api.group: there is no group {group}: groupadd --system {group}") from error
    except PermissionError as error:
        member = "the daemon's user must be a member of it (SupplementaryGroups= in the unit)"
        raise SocketUnusable(f"api.group: the socket {path} cannot be given to the group {group}: {member}") from error


def _remove_stale(path: Path) -> None:
    """Remove a socket file on which nobody listens; raises SocketUnusable for one in use and for any other file."""
    if path.exists() and not path.is_socket():
        raise SocketUnusable(f"{path} exists and is not a socket: move it away, or choose another socket path")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(os.fspath(path))
    if code == errno.ENOENT:
        return
    if code != errno.ECONNREFUSED:
        # 0, or EAGAIN where its backlog is full: somebody listens. EACCES: we cannot know.
        why = "we may not open it" if code == errno.EACCES else "another daemon listens on it"
        raise SocketUnusable(f"the socket {path} is taken: {why}; stop that daemon, or choose another socket path")
    path.unlink(missing_ok=True)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
