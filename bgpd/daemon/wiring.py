"""The assembly, in one function.

Tasks and what flows between them (all events through one inbox, all desired state through tables):

    store source ─┐                       ┌─► kernel reconciler ─► Kernel     (nexthops, groups, routes, neighbours, VXLAN)
    Speaker      ─┼─► Inbox ─► core loop ─┼─► adj-rib-out, neighbors reconcilers ─► Speaker (ExaBGP, a process of its own)
    Kernel       ─┘       ▲               └─► claims reconciler ─► store
                          └── Converged ◄──── kernel reconciler
    API server reads the pipeline and the kernel's reconciler. Liveness keeps the node's lease.

One task that fails ends them all: the process exits non-zero, systemd restarts it, and state is rebuilt from the outside. Nothing is
removed from the kernel on the way out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog

from bgpd.adapters import clock, log
from bgpd.adapters.bfd.process import BfdProcess
from bgpd.adapters.exabgp.process import Speaker, SpeakerOptions
from bgpd.adapters.health import Health
from bgpd.adapters.mqtt.broker import Broker
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.reconciler import Reconciler
from bgpd.adapters.secrets import Passwords, Unfit
from bgpd.adapters.store.base import Broken, Transient
from bgpd.adapters.store.ipam.target import ClaimTarget, ReleaseTarget
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.lease import Liveness, NameTaken, register
from bgpd.adapters.store.open import open_store
from bgpd.adapters.store.timed import TimedStore
from bgpd.adapters.store.transact import ensure_pool
from bgpd.adapters.store.watch import StoreSource
from bgpd.adapters.systemd import Systemd
from bgpd.adapters.unnumbered import Unnumbered
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.api.endpoint import Unusable
from bgpd.api.metrics import MetricsServer
from bgpd.api.page import PageServer
from bgpd.api.server import Access, Server, SocketUnusable
from bgpd.config.schema import Config, SpeakerMode
from bgpd.core.explain import Explainer
from bgpd.core.pipeline import Phase, Pipeline
from bgpd.daemon import compare, loop
from bgpd.daemon.assign import Assigner
from bgpd.daemon.collect import Collection
from bgpd.daemon.confirm import Confirmation
from bgpd.daemon.drain import Drain
from bgpd.daemon.drain import Unfit as DrainUnfit
from bgpd.daemon.events import Events, Telling
from bgpd.daemon.fib import FibViews
from bgpd.daemon.force import Forces
from bgpd.daemon.live import Live, Makers
from bgpd.daemon.metrics import Metrics
from bgpd.daemon.mtu import MtuFile
from bgpd.daemon.overlay_views import OverlayViews
from bgpd.daemon.peer_views import PeerViews
from bgpd.daemon.record import Recorder
from bgpd.daemon.reload import Reloader, Source
from bgpd.daemon.tunnels import Tunnels
from bgpd.daemon.views import DaemonViews
from bgpd.daemon.wireguard import Wireguard
from bgpd.flow.inbox import Inbox
from bgpd.model.bfd import BfdSession
from bgpd.model.event import Converged, Event, LimitLifted, StoreLost, StoreSynced
from bgpd.model.forwarding import KernelKey, KernelRoute, KernelValue, RouteKey
from bgpd.model.notice import Notice
from bgpd.model.peer import Peer
from bgpd.model.pool import BlockClaim, BlockRelease
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import Announcement

T = TypeVar("T")

STORE_RETRY_S = 0.4
"""Pause between attempts at the store's first writes (pool, node, lease): routing does not wait for them."""


class Fatal(Exception):  # noqa: N818 - named by what it means for the process
    """The daemon cannot run as configured: exit status 2, and a restart will not help."""


def speaker_options(config: Config, *, attach: bool) -> SpeakerOptions:
    """How ExaBGP is run: by the daemon, or by another whom it attaches to."""
    return SpeakerOptions(
        runtime_dir=Path(config.speaker.runtime_dir),
        router_id=config.router_id(),
        mode="json" if config.speaker.mode is SpeakerMode.JSON else "raw",
        secrets_dir=Path(config.secrets.directory),
        attach=attach,
    )


class Daemon:
    """Owns every part and its task."""

    def __init__(self, config: Config, record: Path | None, *, attach: bool, systemd: Systemd, source: Source) -> None:
        """*config* is that of *source* with what was found at start: the node's address, and the table of a VRF."""
        self._config = config
        self._systemd = systemd
        self._attach = attach
        self._configured = config.configured()
        self._passwords = Passwords(Path(config.secrets.directory))
        self._inbox = Inbox()
        self._pipeline = Pipeline()
        try:
            self._recorder = Recorder(record)
        except OSError as error:
            raise Fatal(f"cannot record to {record}: {error.strerror}") from error
        self._store = TimedStore(open_store(config.store.url, config.store.access()))
        kernel_options = config.kernel.options(config.wireguard_directory())
        self._kernel = Kernel(self._inbox.put, self._kernel_drifted, kernel_options)
        self._speaker = Speaker(
            speaker_options(config, attach=attach),
            self._inbox.put,
        )
        tables = self._pipeline.tables
        self._kernel_reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
            tables.kernel,
            self._kernel,
            clock=clock.monotonic,
            gate=lambda: self._pipeline.may_remove,
            prepare=self._adopt,
            converged=self._kernel_converged,
            notice=self._notice,
        )
        self._adj_rib_out: Reconciler[tuple[Address, Prefix], Announcement] = Reconciler(
            tables.adj_rib_out,
            self._speaker.adj_rib_out,
            clock=clock.monotonic,
            gate=lambda: self._pipeline.announcements_known,
            converged=self._announced,
            notice=self._notice,
        )
        self._speaker.adj_rib_out.drifted = self._adj_rib_out.drifted
        self._neighbors: Reconciler[Address, Peer] = Reconciler(
            tables.neighbors,
            self._speaker.neighbors,
            clock=clock.monotonic,
            gate=lambda: self._pipeline.store_known,  # a speaker that outlived us serves peers that the store names
            converged=_nothing,
            notice=self._notice,
        )
        self._bfd = BfdProcess(Path(config.speaker.runtime_dir), self._inbox.put, self._notice, self._passwords)
        self._bfd_sessions: Reconciler[Address, BfdSession] = Reconciler(
            tables.bfd, self._bfd, clock=clock.monotonic, converged=_nothing, notice=self._notice
        )
        self._bfd.drifted = self._bfd_sessions.drifted
        self._speaker.neighbors.drifted = self._neighbors.drifted
        self._speaker.neighbors.appeared = self._neighbors.hasten
        self._speaker.neighbors.notice = self._notice
        self._tunnels = Tunnels(self._store, self._configured.node.name, self._notice)
        self._events = Events()
        try:
            self._drain = Drain(Path(config.state.directory), self._inbox.put, self._notice, self._uplinks)
        except DrainUnfit as error:
            raise Fatal(str(error)) from error
        self._forces = Forces(Path(config.state.directory), self._inbox.put, self._notice)
        self._metrics = Metrics(
            self._pipeline,
            self._inbox,
            kernel=self._kernel_reconciler,
            store=self._store,
            events=self._events,
            broker=lambda: self._live.telling.broker if self._live.telling is not None else None,
            started=clock.monotonic(),
        )
        self._kernel_reconciler.applied = self._metrics.program.observe
        self._unnumbered = Unnumbered(self._pipeline.unnumbered, self._inbox.put)
        try:
            self._live = Live(config, self._makers())
        except Unfit as error:
            raise Fatal(str(error)) from error
        self.reloader = Reloader(source, self._live.take, systemd, self._notice)
        self._claims: Reconciler[str, BlockClaim] = Reconciler(
            tables.claims, ClaimTarget(self._store), clock=clock.monotonic, converged=_nothing, notice=self._notice
        )
        self._releases: Reconciler[Prefix, BlockRelease] = Reconciler(
            tables.releases, ReleaseTarget(self._store), clock=clock.monotonic, converged=_nothing, notice=self._notice
        )

        self._mtu = MtuFile(config.mtu_file(), self._pipeline.state, self._notice)
        self._wireguard = Wireguard(
            WireguardKeys(config.wireguard_directory()),
            self._store,
            self._pipeline,
            self._kernel_reconciler,
            deliver=self._inbox.put,
            notice=self._notice,
            rotate_after_s=config.wireguard.rotate_after_s,
        )
        self._named = asyncio.Event()
        """The node's name is ours."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until *stop* is set or a part fails. Raises Fatal, or an ExceptionGroup of what failed."""
        views = DaemonViews(
            self._pipeline,
            self._kernel_reconciler,
            self._speaker,
            PeerViews(
                self._pipeline,
                self._neighbors,
                self._adj_rib_out,
                Explainer(self._pipeline.state, self._pipeline.forwarder, self._pipeline.exporter),
            ),
            Assigner(self._store, self._configured.node.name).assign,
            lift=lambda peer: self._inbox.put(LimitLifted(peer)),
            router_id=self._router_id(),
            asn=self._config.node.asn,
            fib=FibViews(self._kernel_reconciler, self._kernel),
            events=self._events,
            drain=self._drain,
            last=self._recorder.last,
            reload=self.reloader.reload,
            rotate_key=self._wireguard.rotate,
            overlay=OverlayViews(self._pipeline, self._kernel, self._forces),
        )
        api = self._config.api
        server = Server(views, Path(api.socket), Access(int(api.mode, 8), api.group))
        source = StoreSource(self._store, self._heard_of_store, self._notice, self._configured.node.name)
        await self._forces.restore()
        await self._drain.restore()  # before anything that leads to an announcement
        await self._inbox.put(self._configured)
        await self._wireguard.restore()
        try:
            # First of all: a second daemon on this host ends here, before it touches the kernel or the speaker.
            await server.start()
            await self._live.open(lambda config: self._page(config, server, views))
        except (SocketUnusable, Unusable, Unfit) as error:
            await self._live.close()
            await server.stop()
            raise Fatal(str(error)) from error
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(work)
                    for work in (
                        self._run_core(),
                        self._run_kernel(),
                        self._follow_store(source),
                        self._join_cluster(),
                        self._speaker.run(),
                        self._kernel_reconciler.run(),
                        self._adj_rib_out.run(),
                        self._neighbors.run(),
                        self._bfd.run(),
                        self._bfd_sessions.run(),
                        self._speaker.neighbors.watch_passwords(),
                        self._claims.run(),
                        self._releases.run(),
                        self._tunnels.run(),
                        self._unnumbered.run(),
                        self._drain.run(),
                        self._forces.run(),
                        Confirmation(self._store, self._configured.node.name, self._notice).run(),
                        self._wireguard.run(),
                        self.reloader.run(),
                        *self._live.works(),
                    )
                ]
                structlog.get_logger().info("daemon.started", node=self._configured.node.name)
                await stop.wait()
                self._systemd.stopping()
                for task in running:
                    task.cancel()
        finally:
            await server.stop()
            await self._live.close()
            await self._bfd.stop(keep=self._attach)
            await self._speaker.stop()
            await self._store.close()
            self._recorder.close()

    # -------------------------------------------------------------- parts

    async def _run_core(self) -> None:
        await loop.run(
            self._pipeline,
            self._inbox,
            self._recorder,
            self._notice,
            self._advanced,
            settled=self._settled,
            watchdog=self._systemd,
        )

    async def _run_kernel(self) -> None:
        await self._kernel.open()
        for remark in self._kernel.remarks():
            self._notice(remark)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._kernel.run())
                tasks.create_task(self._live.comparison.run())
        finally:
            await self._kernel.close()

    async def _follow_store(self, source: StoreSource) -> None:
        """Read and watch the store, once the node's name is ours: of two daemons with one name only one announces its blocks."""
        await self._named.wait()
        await source.run()

    async def _store_missing(self, reason: str) -> None:
        await self._inbox.put(StoreLost(reason))

    async def _join_cluster(self) -> None:
        """Put our pool, our Node and our lease into the store, then keep the lease."""
        liveness = Liveness(self._store, self._configured.node.name, notice=self._notice)
        try:
            await liveness.win(self._store_missing)
            self._named.set()
            pool = self._config.default_pool()
            if pool is not None:
                await _until_stored(lambda: ensure_pool(self._store, pool))
            await _until_stored(lambda: register(self._store, self._configured.node))
            await liveness.run()
        except (NameTaken, Broken, Malformed) as error:
            raise Fatal(str(error)) from error

    async def _register(self, config: Config) -> None:
        """Write the Node resource again, with the labels of *config*."""
        await self._named.wait()
        try:
            await _until_stored(lambda: register(self._store, config.own_node()))
        except (Broken, Malformed) as error:
            raise Fatal(str(error)) from error

    # -------------------------------------------------------------- seams

    def _kernel_drifted(self, keys: Mapping[KernelKey, str]) -> None:
        self._kernel_reconciler.meddled(keys)

    def _adopt(self, keys: Iterable[KernelKey]) -> None:
        desired = ((key, self._pipeline.tables.kernel.get(key)) for key in keys if isinstance(key, RouteKey))
        self._kernel.adopt((key, route) for key, route in desired if isinstance(route, KernelRoute))

    def _settled(self, seconds: float, since_s: float) -> None:
        self._metrics.settled(seconds, since_s)
        self._wireguard.look()
        self._mtu.look()

    def _advanced(self) -> None:
        self._kernel_reconciler.wake()
        self._adj_rib_out.wake()
        self._neighbors.wake()
        pipeline = self._pipeline
        waiting = " ".join(pipeline.waiting_for())
        self._systemd.status(f"{pipeline.phase}: waiting for {waiting}" if waiting else pipeline.phase)
        if pipeline.phase is Phase.READY:
            self._systemd.ready()

    async def _kernel_converged(self) -> None:
        await self._inbox.put(Converged(self._kernel.name, self._pipeline.epoch))
        self._wireguard.look()

    async def _heard_of_store(self, event: Event) -> None:
        await self._inbox.put(event)
        if isinstance(event, StoreSynced):
            self._claims.hasten()
        self._tunnels.heard(event)

    async def _announced(self) -> None:
        """Send End-of-RIB once all that we announce is known, not before: a peer that gets it drops what else it kept of us (RFC 4724)."""
        if self._pipeline.announcements_known:
            await self._speaker.adj_rib_out.converged()

    def _makers(self) -> Makers:
        name = self._configured.node.name
        return Makers(
            configured=self._inbox.put,
            node=lambda config: lambda: self._register(config),
            health=lambda config: Health(config.health_checks(), self._inbox.put).run,
            collection=lambda config: Collection(self._store, self._pipeline, name, config.collect, self._notice).run,
            comparison=lambda config: (
                lambda: compare.run(
                    self._kernel, self._kernel_reconciler, config.kernel.compare_s, self._notice, self._metrics.compared
                )
            ),
            telling=self._teller,
            exporter=self._exporter,
        )

    def _page(self, config: Config, server: Server, views: DaemonViews) -> PageServer | None:
        endpoint = config.web.endpoint(self._passwords)
        return PageServer(endpoint, server, views) if endpoint is not None else None

    def _exporter(self, config: Config) -> MetricsServer | None:
        endpoint = config.metrics.endpoint(self._passwords)
        return MetricsServer(endpoint, self._metrics.render) if endpoint is not None else None

    def _teller(self, config: Config) -> Telling | None:
        options = config.mqtt.options(self._configured.node.name, self._passwords)
        return Telling(self._pipeline, Broker(options, self._notice), options.cluster) if options is not None else None

    def _notice(self, notice: Notice) -> None:
        self._metrics.noticed(notice)
        event = self._events.tell(notice)
        if self._live.telling is not None:
            self._live.telling.event(event)
        if notice.name == "log.level_changed":
            self._live.wish_level(str(notice.fields["level"]))
        log.tell(notice.name, notice.fields)

    def _uplinks(self) -> set[str]:
        """Return the links that lead to peers. O(peers)."""
        state = self._pipeline.state
        resolved = (state.resolver.resolve(address, default_allowed=True) for address in state.facts.peers)
        return {leg.device for one in resolved for leg in one.legs}

    def _router_id(self) -> Address:
        return self._config.router_id()


async def _until_stored(write: Callable[[], Awaitable[T]]) -> T:
    """Repeat *write* while the store is lost: each of these writes is idempotent."""
    while True:
        try:
            return await write()
        except Transient:
            await asyncio.sleep(STORE_RETRY_S)


async def _nothing() -> None:
    """Nobody waits for this target."""
