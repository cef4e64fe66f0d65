"""Groups of commands whose subcommands' modules are loaded when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem


class Place(NamedTuple):
    """Where a subcommand is defined, and what the list of commands says about it."""

    module: str
    attribute: str
    summary: str


def load(place: Place) -> Any:
    """Return what *place* names, with its module loaded now."""
    return getattr(import_module(place.module), place.attribute)


class Lazy(click.Group):
    """A group that loads a subcommand when it is called, and lists them without loading any."""

    def __init__(self, *arguments: Any, places: Mapping[str, Place], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        place = self._places.get(cmd_name)
        if place is None:
            return None
        command = load(place)
        assert isinstance(command, click.Command), f"{place.module}.{place.attribute} is no click command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in self._places.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self._places if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._places[name].summary) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)
