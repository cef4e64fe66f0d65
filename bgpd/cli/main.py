"""The command ``bgpd``: its groups, and where each subcommand lives.

Laws:
* A subcommand's module is loaded when it is called: asking a daemon does not pay for importing one.
* An expected failure is one sentence on stderr, never a traceback. Exit status 1: refused or failed; 2: bad input or
  bad configuration; 3: the daemon or the store cannot be reached.
* Tables are for people and may change; ``-o json`` is for programs and follows model/view.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem

import bgpd


class _Place(NamedTuple):
    """Where a subcommand is defined, and what the list of commands says about it."""

    module: str
    attribute: str
    summary: str


COMMANDS: Final = {
    "run": _Place("bgpd.cli.run", "run", "Run the daemon in the foreground."),
    "status": _Place("bgpd.cli.status", "status", "Show how the daemon is: phase, store, sessions, routes."),
    "peers": _Place("bgpd.cli.status", "peers", "Show the BGP sessions."),
    "routes": _Place("bgpd.cli.routes", "routes", "Show how prefixes are reached, or all paths of one."),
    "explain": _Place("bgpd.cli.routes", "explain", "Explain how an address or prefix is reached, and why."),
    "get": _Place("bgpd.cli.resources", "get", "Show resources of the store: pools, peers, filters, nodes, …"),
    "apply": _Place("bgpd.cli.resources", "apply", "Create or replace resources as files say."),
    "create": _Place("bgpd.cli.resources", "create", "Create resources; none of them may exist."),
    "replace": _Place("bgpd.cli.resources", "replace", "Replace resources; all of them must exist."),
    "delete": _Place("bgpd.cli.resources", "delete", "Delete resources."),
    "label": _Place("bgpd.cli.resources", "label", "Set and remove labels of a resource."),
    "validate": _Place("bgpd.cli.resources", "validate", "Check files of resources; the store is not asked."),
    "plan": _Place("bgpd.cli.plan", "plan", "Show what files of resources would change, and what nodes would do."),
    "export": _Place("bgpd.cli.resources", "export", "Write all resources as one YAML text."),
    "import": _Place("bgpd.cli.resources", "import_", "Read an export into the store."),
    "ipam": _Place("bgpd.cli.ipam", "ipam", "Show pools and blocks; assign addresses."),
    "config": _Place("bgpd.cli.config", "config", "Check the configuration."),
    "lab": _Place("bgpd.cli.lab", "lab", "Run a containerlab topology in network namespaces."),
    "version": _Place("bgpd.cli.version", "version", "Show the version."),
}


class _Lazy(click.Group):
    """A group that loads a subcommand when it is called, and lists them without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(import_module(place.module), place.attribute)
        assert isinstance(command, click.Command), f"{place.module}.{place.attribute} is no click command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name].summary) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Completion in bash (zsh and fish likewise), for this shell or in ~/.bashrc:
  eval "$(_BGPD_COMPLETE=bash_source bgpd)"

\b
Exit status: 1 refused or failed, 2 bad input or bad configuration,
             3 the daemon or the store cannot be reached.""",
)
@click.version_option(bgpd.__version__, prog_name="bgpd", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Distribute a node's routes by BGP, and fall back to an overlay where the routers are lost."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line; the process ends with its exit status."""
    cli.main(prog_name="bgpd")


if __name__ == "__main__":
    main()
