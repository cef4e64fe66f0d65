"""``bgpd drain`` and ``bgpd undrain``: lead traffic around this node before maintenance, and back."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from bgpd.api.client import Client
from bgpd.cli.options import Stop, asking, asks, output
from bgpd.cli.render import show_json
from bgpd.cli.status import drain_text
from bgpd.model.drain import TIMEOUT_LIMIT_S, DrainRequest
from bgpd.model.view import DrainView

POLL_S = 0.5
"""Between two questions how far it is."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Read seconds, or a number with its unit: 90, 90s, 5m, 1h."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|)", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not 0 <= seconds <= TIMEOUT_LIMIT_S:
        raise click.BadParameter(f"{text!r} is no time from 0 to 24h; write it as 90, 90s, 5m or 1h")
    return seconds


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=duration,
    metavar="TIME",
    default="60s",
    show_default=True,
    help="Withdraw after so long, whatever still arrives; 0: at once.",
)
@click.option(
    "--below",
    "below_pps",
    type=click.IntRange(0, 1_000_000_000),
    default=100,
    show_default=True,
    metavar="PACKETS",
    help="Fewer packets per second, received on all links to routers together for 3 s, count as no traffic.",
)
@click.option(
    "--keep-blocks",
    is_flag=True,
    help="Keep announcing this node's blocks, with GRACEFUL_SHUTDOWN: workloads stay, only services leave.",
)
@click.option("--no-wait", is_flag=True, help="Return at once; `bgpd status` says how far it is.")
@output()
@asks
def drain(*, timeout_s: float, below_pps: int, keep_blocks: bool, no_wait: bool, socket: Path, output: str) -> None:
    """Lead traffic around this node, then withdraw all it announces; sessions stay up.

    First everything is announced with the community GRACEFUL_SHUTDOWN (65535:0, RFC 8326) and LOCAL_PREF 0: routers with another path
    take it. Once the links to the routers are quiet, or the time is over, everything is withdrawn. What is withdrawn stays so over
    restarts of the daemon and of the host, until `bgpd undrain`.

    Workloads that stay on the node have no other path: other nodes reach them directly or by the pool's fallback tunnel, and nobody
    else does. The command names them; --keep-blocks keeps their blocks announced. Interrupting the command does not end the drain.
    """
    with asking(socket) as client:
        client.drain(DrainRequest(timeout_s=timeout_s, below_pps=below_pps, keep_blocks=keep_blocks))
        view = _view(client)
        if output == "table":
            for line in view.left:
                click.echo(f"bgpd: {line}", err=True)
        while not no_wait and view.until is not None:
            time.sleep(POLL_S)
            view = _view(client)
    if output == "json":
        show_json(view)
    else:
        click.echo(drain_text(view, time.time()).text)


@click.command()
@output()
@asks
def undrain(socket: Path, output: str) -> None:
    """Announce everything again, as before `bgpd drain`."""
    with asking(socket) as client:
        was = client.status().drain
        client.undrain()
    if output == "json":
        show_json({"drained": False, "was": was.stage if was is not None else "off"})
    else:
        click.echo("everything is announced again" if was is not None else "this node was not drained")


def _view(client: Client) -> DrainView:
    view = client.status().drain
    if view is None:
        raise Stop("the drain was ended meanwhile by `bgpd undrain`")
    return view
