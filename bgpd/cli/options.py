"""What commands that ask the daemon share: their options, and how a failed call ends the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

from bgpd.api import client, protocol
from bgpd.api.client import Client

DEFAULT_SOCKET: Final = Path("/run/bgpd/bgpd.sock")

F = TypeVar("F", bound=Callable[..., Any])


class Stop(click.ClickException):
    """End the command with one sentence on stderr, and exit status 1: the daemon refused or failed."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the sentence as ``bgpd: ...``."""
        click.echo(f"bgpd: {self.message}", file=file, err=file is None)


class BadInput(Stop):
    """What was asked for, or the configuration, is wrong."""

    exit_code = 2


class NoDaemon(Stop):
    """The daemon cannot be reached."""

    exit_code = 3


def asks(command: F) -> F:
    """Add ``--socket`` to a command, whose function gets it as *socket*."""
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        envvar="BGPD_SOCKET",
        default=DEFAULT_SOCKET,
        show_default=True,
        show_envvar=True,
        help="The daemon's socket.",
    )(command)


def output(default: str = "table") -> Callable[[F], F]:
    """Add ``-o table|json`` to a command, whose function gets it as *output*."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default=default,
        show_default=True,
        help="A table for people, or JSON for programs.",
    )


@contextmanager
def asking(socket: Path) -> Iterator[Client]:
    """Give a client; a call that fails ends the command with its sentence and the exit status for it."""
    try:
        yield Client(socket)
    except client.Unreachable as failure:
        raise NoDaemon(str(failure)) from failure
    except client.BadRequest as failure:
        raise BadInput(str(failure)) from failure
    except (client.Failed, protocol.Refused) as failure:
        raise Stop(str(failure)) from failure
