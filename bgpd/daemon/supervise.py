"""What ends the process: the only place that sees every exception. It logs the reason and returns the exit status; systemd restarts."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from pathlib import Path

import structlog

from bgpd.adapters import log
from bgpd.adapters.exabgp.process import Speaker
from bgpd.adapters.netlink.detect import NotFound, detect, vrf_table
from bgpd.adapters.systemd import Systemd
from bgpd.config.schema import Config
from bgpd.daemon.reload import Source
from bgpd.daemon.wiring import Daemon, Fatal, speaker_options
from bgpd.model.event import Event


def main(source: Source, record: Path | None, *, attach: bool = False) -> int:
    """Run the daemon until a signal or a failure ends it; returns the exit status: 0 stopped, 1 failed, 2 cannot start.

    *attach*: to a speaker that somebody else keeps (``bgpd speaker``); else we start one, and end it in an orderly stop.
    """
    faulthandler.enable()  # a watchdog ends us by SIGABRT: then standard error shows where the loop hung
    log.configure(source.config.log.level, source.config.log.format)
    logger = structlog.get_logger()
    failures: list[Exception] = []
    try:
        asyncio.run(_until_signal(source, record, attach=attach))
    except* Exception as raised:  # noqa: BLE001 - the one place: anything unexpected ends the process, and is told
        failures = _leaves(raised)
    for error in failures:
        if isinstance(error, Fatal):
            logger.error("daemon.refused", reason=str(error))
        else:
            logger.error("daemon.failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
    if not failures:
        logger.info("daemon.stopped")
    return 0 if not failures else 2 if all(isinstance(error, Fatal) for error in failures) else 1


def speaker(config: Config) -> int:
    """Turn this process into the speaker; returns the exit status 2 where that cannot be."""
    log.configure(config.log.level, config.log.format)
    try:
        asyncio.run(_become_speaker(config))
    except (Fatal, OSError) as error:
        structlog.get_logger().error("speaker.refused", reason=str(error))
    return 2


async def _become_speaker(config: Config) -> None:
    async def nowhere(_: Event) -> None:
        """It ends, or is another process, before anything happens."""

    await Speaker(speaker_options(await _located(config), attach=False), nowhere).become()


async def _until_signal(source: Source, record: Path | None, *, attach: bool) -> None:
    """Run until SIGTERM or SIGINT; the kernel's routes stay as they are (law 3). SIGHUP loads the configuration again."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    systemd = Systemd(os.environ, os.getpid())
    try:
        daemon = Daemon(await _located(source.config), record, attach=attach, systemd=systemd, source=source)
        loop.add_signal_handler(signal.SIGHUP, daemon.reloader.hang_up)
        await daemon.run(stop)
    finally:
        systemd.close()


async def _located(config: Config) -> Config:
    """Find the VRF's table, and the node's address where the configuration only says how; raises Fatal where there is none."""
    if config.kernel.vrf is not None:
        try:
            config = config.in_table(await vrf_table(config.kernel.vrf))
        except NotFound as error:
            raise Fatal(f"kernel.vrf: {error}") from error
    method = config.address_method()
    if method is None:
        return config
    try:
        address, subnet = await detect(method)
    except NotFound as error:
        raise Fatal(f"node.address: {error}") from error
    structlog.get_logger().info("node.located", address=str(address), subnet=str(subnet), method=str(method))
    return config.at(address, subnet)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
