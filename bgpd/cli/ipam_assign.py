"""``bgpd ipam assign``: addresses for a workload of this node, from its daemon.

Asking again for a handle answers with what it has, so a call whose outcome is unknown is simply repeated.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bgpd.api.protocol import ADDRESSES_LIMIT, AssignRequest
from bgpd.cli.options import BadInput, Stop, asking, asks, output
from bgpd.cli.render import show_json


@click.command()
@click.option("--handle", required=True, help="Who holds the addresses.")
@click.option("--pool", help="Take them from this pool; without it, from those that assign automatically.")
@click.option("--ip", metavar="ADDRESS", help="Assign this very address.")
@click.option(
    "--count",
    type=click.IntRange(1, ADDRESSES_LIMIT),
    default=1,
    show_default=True,
    help="How many the handle is to have of each family, those it has included.",
)
@click.option("-4", "ipv4", is_flag=True, help="IPv4 addresses; so it is where neither -4 nor -6 is given.")
@click.option("-6", "ipv6", is_flag=True, help="IPv6 addresses; with -4, of both families.")
@click.option(
    "--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="Stored with the addresses: pod=web, …"
)
@output(default="json")
@asks
def assign(
    *,
    handle: str,
    pool: str | None,
    ip: str | None,
    count: int,
    ipv4: bool,
    ipv6: bool,
    attributes: tuple[str, ...],
    socket: Path,
    output: str,
) -> None:
    """Assign addresses of this node's blocks to a handle, or all that can be given of what is asked for.

    Exit status 1 where it is less than that; what was given is written all the same.
    """
    if not 0 < len(handle) <= 253:
        raise click.BadParameter("a handle has 1 to 253 characters", param_hint="--handle")
    if ip is not None and (count != 1 or ipv4 or ipv6 or pool is not None):
        raise BadInput("--ip names one address: --count, -4, -6 and --pool do not go with it")
    asked = AssignRequest(
        handle=handle,
        pool=pool,
        ipv4=count if ipv4 or not ipv6 else 0,
        ipv6=count if ipv6 else 0,
        address=ip,
        attributes=dict(_attribute(text) for text in attributes),
    )
    with asking(socket) as client:
        answer = client.assign_all(asked)
    if output == "json":
        show_json(msgspec.structs.replace(answer, addresses=answer.addresses or (answer.address,)), indent=0)
    else:
        click.echo("\n".join(answer.addresses or (answer.address,)))
    if answer.short:
        raise Stop("; ".join(answer.short))


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadInput(f"--attribute {text!r}: write NAME=VALUE")
    return name, value
