"""``bgpd check``: whether this host can do what is asked of it, before the daemon is started."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from bgpd.adapters.netlink import preflight
from bgpd.adapters.netlink.options import DEFAULTS
from bgpd.adapters.netlink.preflight import Demand, Finding, Level, Setting
from bgpd.api import client, protocol
from bgpd.api.client import Client
from bgpd.cli.config import configured, read
from bgpd.cli.options import Stop, asks, output
from bgpd.cli.render import BAD, GOOD, WARN, Column, Styled, Table, show, show_json
from bgpd.config.schema import Config
from bgpd.model.pool import parse_preference
from bgpd.model.prefix import Family, Prefix

STYLES = {Level.OK: GOOD, Level.WARNING: WARN, Level.ERROR: BAD}
SYSCTL_FILE = "/etc/sysctl.d/90-bgpd.conf"


class Fixed(msgspec.Struct, frozen=True):
    """A sysctl that was set, or why it could not be."""

    setting: Setting
    error: str = ""


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """All that was looked at; with ``--fix`` as it is after it."""

    findings: tuple[Finding, ...]
    fixed: tuple[Fixed, ...] = ()


@click.group()
def check() -> None:
    """Check what the daemon needs."""


@check.command()
@click.option("--fix", is_flag=True, help="Set the sysctls that are wrong, and say how to keep them.")
@configured("The configuration; without the file the defaults are meant.")
@output()
@asks
@click.pass_context
def host(ctx: click.Context, fix: bool, path: Path, socket: Path, output: str) -> None:
    """Check this host: forwarding, reverse path filters, kinds of links, nexthop objects, buffers, and other routing daemons.

    Each finding says what is the case and how to mend it. Exit status 1: something is wrong that the daemon cannot do without. Pools of the
    store are known where a daemon runs; else the configuration's is.
    """
    demand = _demand(read(path) if path.exists() else None, socket)
    try:
        view = asyncio.run(_look(demand, fix=fix))
    except PermissionError as error:
        raise Stop("the kernel's tables are for those with CAP_NET_ADMIN: become root") from error
    if output == "json":
        show_json(view)
    else:
        _tell(view)
    ctx.exit(1 if any(finding.level is Level.ERROR for finding in view.findings) else 0)


async def _look(demand: Demand, *, fix: bool) -> HostView:
    findings = await preflight.look(demand)
    if not fix:
        return HostView(findings=tuple(findings))
    done = preflight.fix(findings)
    fixed = tuple(Fixed(setting, error) for setting, error in done.items())
    return HostView(findings=tuple(await preflight.look(demand)), fixed=fixed)


def _demand(config: Config | None, socket: Path) -> Demand:
    pools: set[Prefix] = set()
    tunnels: set[str] = set()
    ipv6 = False
    if config is not None:
        pool = config.default_pool()
        pools |= set() if pool is None else {pool.cidr}
        tunnels |= {kind.value.lower() for kind in parse_preference(config.fallback.kind)}
        ipv6 = any("ipv6" in peer.families for peer in config.peer)
    with suppress(client.ApiError, protocol.Refused):  # no daemon: the configuration has to do
        pools |= {Prefix.parse(view.cidr) for view in Client(socket).pools()}
    return Demand(
        options=DEFAULTS if config is None else config.kernel.options(),
        ipv6=ipv6 or any(pool.family is Family.IPV6 for pool in pools),
        tunnels=tuple(sorted(tunnels)),
        pools=tuple(sorted(pools)),
        rule_priority=0 if config is None else config.kernel.rule_priority,
    )


def _tell(view: HostView) -> None:
    columns = (Column("SUBJECT"), Column("LEVEL"), Column("FINDING"), Column("HOW TO MEND IT"))
    rows = [
        (each.subject, Styled(each.level.value, STYLES[each.level]), each.text, each.mend) for each in view.findings
    ]
    show(Table(columns, rows))
    for each in view.fixed:
        name, value = each.setting.name, each.setting.value
        click.echo(
            f"could not set {name}={value}: {each.error}" if each.error else f"set {name}={value}", err=bool(each.error)
        )
    kept = [each.setting for each in view.fixed if not each.error]
    if kept:
        click.echo(f"\nUntil the next boot. To keep it, put into {SYSCTL_FILE}:")
        for setting in kept:
            click.echo(f"{setting.name} = {setting.value}")
