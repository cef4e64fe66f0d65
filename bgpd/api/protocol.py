"""The API: HTTP/JSON on the daemon's unix socket, as both sides know it. Its answers are the structs of model/view.py.

| request | answer |
|---|---|
| ``GET /v1/status`` | `StatusView` |
| ``GET /v1/peers?name=NAME`` | list of `PeerView`; all without *name*, else one with its families |
| ``GET /v1/peer-routes?peer=NAME&which=WHICH&prefix=PREFIX`` | list of `PeerRouteView`; *which* is a `Which` |
| ``POST /v1/refresh``, a `PeerRequest` | `DoneView`: the peer was asked to send everything again |
| ``POST /v1/reset``, a `ResetRequest` | `DoneView`: the session was ended, to begin anew |
| ``GET /v1/routes?prefix=PREFIX`` | list of `RouteView`; all without *prefix*, none where the prefix is unknown |
| ``GET /v1/route-page?after=PREFIX&limit=ROWS&within=PREFIX&kind=KIND&node=NODE`` | `RoutePage` |
| ``GET /v1/nodes`` | list of `NodeView`: this node, and how the others are reached |
| ``GET /v1/explain?q=QUERY&from=NODE`` | `ExplainView` |
| ``GET /v1/pools?blocks=all`` or ``own`` | list of `PoolView`, with all blocks or those of this node |
| ``GET /v1/stream`` (web page only) | server-sent events, each an `EventView` |
| ``GET /v1/fib?prefix=PREFIX&status=STATUS&after=KEY&limit=ROWS`` | `FibPage`: routes in the kernel, a page of them |
| ``GET /v1/fib/diff?limit=ROWS`` | `FibPage`: what a fresh reading of the kernel differs in from what is desired |
| ``GET /v1/events?after=SEQUENCE&wait_s=SECONDS`` | list of `EventView` after that number; waits for one where there is none |
| ``POST /v1/drain``, a `DrainRequest` | `DoneView`: draining begins (``GET /v1/status`` says how far it is) |
| ``POST /v1/undrain``, an `UndrainRequest` | `DoneView`: all is announced again |
| ``POST /v1/reload``, a `ReloadRequest` | `ReloadView`; 409 with all that is wrong, and nothing has changed |
| ``POST /v1/wireguard/rotate-key`` | `WireguardKeyView`: the key was changed, and the other nodes were told |
| ``GET /v1/overlay?node=NODE`` | list of `OverlayView`; all without *node* |
| ``POST /v1/overlay/test``, a `ProbeRequest` | list of `ProbeView`, once the probes were waited for |
| ``POST /v1/overlay/force``, a `ForceRequest` | `DoneView`: traffic to the node goes that way |
| ``GET /v1/recording?what=state`` or ``last`` | lines of JSON as ``bgpd run --record`` writes them: the state as events, or the last ones |
| ``POST /v1/assign``, an `AssignRequest` | `AssignView` |

Every error is an `ErrorView`: 400 the request is bad, 404 there is no such path, 409 the daemon refuses with a reason,
503 too many requests at once.

Within a version, answers gain fields but never lose them; clients ignore fields that they do not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Protocol

import msgspec

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
    RoutePage,
    RouteQuery,
    RouteView,
    StatusView,
    Which,
)

STATUS: Final = "/v1/status"
PEERS: Final = "/v1/peers"
PEER_ROUTES: Final = "/v1/peer-routes"
REFRESH: Final = "/v1/refresh"
RESET: Final = "/v1/reset"
ROUTES: Final = "/v1/routes"
ROUTE_PAGE: Final = "/v1/route-page"
NODES: Final = "/v1/nodes"
STREAM: Final = "/v1/stream"
EXPLAIN: Final = "/v1/explain"
POOLS: Final = "/v1/pools"
FIB: Final = "/v1/fib"
FIB_DIFF: Final = "/v1/fib/diff"
EVENTS: Final = "/v1/events"
DRAIN: Final = "/v1/drain"
RELOAD: Final = "/v1/reload"
UNDRAIN: Final = "/v1/undrain"
OVERLAY: Final = "/v1/overlay"
OVERLAY_TEST: Final = "/v1/overlay/test"
OVERLAY_FORCE: Final = "/v1/overlay/force"
RECORDING: Final = "/v1/recording"
ASSIGN: Final = "/v1/assign"
ROTATE_KEY: Final = "/v1/wireguard/rotate-key"

SOCKET_PATH_LIMIT_BYTES: Final = 107
"""``sun_path`` has 108 bytes with its closing zero (unix(7))."""
FIB_LIMIT_ROWS: Final = 10_000
"""Rows of one page of the FIB: some 3 MB of JSON."""
EVENTS_WAIT_LIMIT_S: Final = 5.0
"""Longest wait for an event in one request: half of what our client waits for any answer."""
ADDRESSES_LIMIT: Final = 1024
"""Addresses of one family in one request (adapters/store/ipam/assign.py has the same bound)."""
QUERY_LIMIT_CHARS: Final = 128
"""Longer than any prefix in text, so that an error can still quote the query."""


class AssignRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for an address. The same *handle* may ask again: IPAM decides whether it gets another one."""

    handle: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    """Who holds the address (Calico: IPAM handle id)."""
    pool: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] | None = None
    """Name of a pool; None: any pool that assigns automatically."""
    ipv4: Annotated[int, msgspec.Meta(ge=0, le=ADDRESSES_LIMIT)] = 1
    """IPv4 addresses that the handle is to have, those it has already included."""
    ipv6: Annotated[int, msgspec.Meta(ge=0, le=ADDRESSES_LIMIT)] = 0
    address: Annotated[str, msgspec.Meta(max_length=QUERY_LIMIT_CHARS)] | None = None
    """This very address, whatever the numbers and the pool."""
    attributes: Annotated[dict[str, str], msgspec.Meta(max_length=32)] = {}
    """Stored with the addresses: pod, namespace, …"""


class PeerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Names a peer, by name or address."""

    peer: Annotated[str, msgspec.Meta(min_length=1, max_length=QUERY_LIMIT_CHARS)]


class ResetRequest(PeerRequest, frozen=True, kw_only=True):
    hard: bool = False
    """No route outlives the reset (RFC 8538)."""
    message: str = ""
    """For the neighbor's operator (RFC 9003), at most 255 bytes in UTF-8."""


class UndrainRequest(msgspec.Struct, frozen=True):
    """Announce everything again."""


class ReloadRequest(msgspec.Struct, frozen=True):
    dry_run: bool = False
    """Only say what a reload would do."""


class DoneView(msgspec.Struct, frozen=True):
    done: bool = True


class WireguardKeyView(msgspec.Struct, frozen=True):
    public_key: str


class AssignView(msgspec.Struct, frozen=True):
    address: str
    """The first of them."""
    addresses: tuple[str, ...] = ()
    """All that the handle has, of the families asked for."""
    short: tuple[str, ...] = ()
    """Why there are fewer than asked for; empty where there are not."""


class ErrorView(msgspec.Struct, frozen=True):
    error: str
    """A sentence for people."""


class Refused(Exception):  # noqa: N818 - named for what the caller is told
    """What was asked for is refused, for the reason that the exception carries: pool full, store lost, no such session.

    The caller shows the reason. Asking again helps only after what it names has changed.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Views(Protocol):
    """What the daemon shows. All but :meth:`assign`, :meth:`events`, :meth:`fib_diff` and those of the overlay answer from memory."""

    def status(self) -> StatusView: ...

    async def events(self, after: int, wait_s: float) -> list[EventView]:
        """Return the events after that number; where there is none, wait so long for one."""
        ...

    async def rotate_wireguard_key(self) -> str:
        """Change this node's WireGuard key, and return the public one once the others were told; raises Refused."""
        ...

    def peers(self, name: str | None) -> list[PeerView]:
        """Return every peer, or the one of *name*; raises ValueError with the reason where there is none."""
        ...

    def peer_routes(self, peer: str | None, which: Which, prefix: Prefix | None) -> Iterator[PeerRouteView]:
        """Yield routes of one peer or all; raises ValueError at once for an unknown one."""
        ...

    async def refresh(self, peer: str) -> None:
        """Ask a peer to send everything again; raises Refused, ValueError for an unknown one."""
        ...

    async def reset(self, peer: str, *, hard: bool, message: str) -> None:
        """End a session, to begin anew; raises Refused, ValueError for an unknown peer or a message too long."""
        ...

    async def drain(self, asked: DrainRequest) -> None:
        """Begin to lead traffic around this node, or change how; raises Refused where that would not outlive a restart."""
        ...

    async def reload(self, *, dry_run: bool) -> ReloadView:
        """Load the configuration again; raises Refused with all that is wrong, and then nothing has changed."""
        ...

    async def undrain(self) -> None:
        """Announce everything again; raises Refused as :meth:`drain` does."""
        ...

    async def overlay(self, node: str | None) -> list[OverlayView]:
        """Return every remote node, or the one of that name; raises ValueError where there is none."""
        ...

    async def overlay_test(self, asked: ProbeRequest) -> list[ProbeView]:
        """Probe a node by each way; raises Refused, ValueError for an unknown one."""
        ...

    async def overlay_force(self, asked: ForceRequest) -> None:
        """Force the way to a node; raises Refused, ValueError for an unknown one."""
        ...

    def routes(self, prefix: Prefix | None) -> list[RouteView]:
        """Return every route, or the one of exactly *prefix* (an empty list where there is none)."""
        ...

    def explain(self, query: str, node: str | None = None) -> ExplainView:
        """Explain an address or a prefix, as this node or as *node* reaches it; raises ValueError for anything else."""
        ...

    async def route_page(self, query: RouteQuery) -> RoutePage:
        """Return a page of routes in order of prefixes; raises ValueError where the query cannot be understood."""
        ...

    def nodes(self) -> Iterator[NodeView]:
        """Yield this node, then the others in order of names."""
        ...

    def pools(self, blocks: str = "all") -> list[PoolView]:
        """Return every pool; *blocks* is ``all`` or ``own``; raises ValueError for anything else."""
        ...

    async def fib(self, query: FibQuery) -> FibPage:
        """Return a page of our routes in the kernel; raises ValueError where the query cannot be understood."""
        ...

    async def fib_diff(self, limit: int) -> FibPage:
        """Read the kernel and return what differs from what is desired; raises :class:`Refused` where it cannot be read."""
        ...

    def recording(self, what: str) -> Iterator[bytes]:
        """Yield the lines of a recording: the ``state`` as events, or the ``last`` ones; raises ValueError for another word."""
        ...

    async def assign(self, asked: AssignRequest) -> AssignView:
        """Assign addresses; raises :class:`Refused`, and ValueError for a request that cannot be meant."""
        ...
