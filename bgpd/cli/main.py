"""The command ``bgpd``: its groups, and where each subcommand lives.

Laws:
* A subcommand's module is loaded when it is called: asking a daemon does not pay for importing one.
* An expected failure is one sentence on stderr, never a traceback. Exit status 1: refused or failed; 2: bad input or
  bad configuration; 3: the daemon or the store cannot be reached.
* Tables are for people and may change; ``-o json`` is for programs and follows model/view.py.
"""

from __future__ import annotations

from typing import Final

import click

import bgpd
from bgpd.cli.lazy import Lazy
from bgpd.cli.lazy import Place as _Place

COMMANDS: Final = {
    "run": _Place("bgpd.cli.run", "run", "Run the daemon in the foreground."),
    "speaker": _Place("bgpd.cli.speaker", "speaker", "Run the BGP speaker in the foreground, for `bgpd run --attach`."),
    "status": _Place("bgpd.cli.status", "status", "Show how the daemon is: phase, store, sessions, routes."),
    "top": _Place("bgpd.cli.top", "top", "Watch sessions, paths, rates and events on one screen."),
    "peers": _Place("bgpd.cli.peers", "peers", "Show the BGP sessions, or one in detail."),
    "refresh": _Place("bgpd.cli.peers", "refresh", "Have a peer send everything again."),
    "reset": _Place("bgpd.cli.peers", "reset", "End a session, to begin a new one."),
    "routes": _Place("bgpd.cli.routes", "routes", "Show how prefixes are reached, or all paths of one."),
    "fib": _Place("bgpd.cli.fib", "fib", "Show our routes in the kernel, and what differs in it."),
    "overlay": _Place("bgpd.cli.overlay", "overlay", "Show how other nodes are reached; probe, or force a way."),
    "explain": _Place("bgpd.cli.routes", "explain", "Explain how an address or prefix is reached, and why."),
    "events": _Place("bgpd.cli.events", "events", "Show what happened, and follow what happens."),
    "drain": _Place("bgpd.cli.drain", "drain", "Lead traffic around this node, then withdraw all it announces."),
    "undrain": _Place("bgpd.cli.drain", "undrain", "Announce everything again."),
    "doctor": _Place("bgpd.cli.doctor", "doctor", "Collect what a bug report needs into one archive."),
    "get": _Place("bgpd.cli.resources", "get", "Show resources of the store: pools, peers, filters, nodes, …"),
    "apply": _Place("bgpd.cli.resources", "apply", "Create or replace resources as files say."),
    "confirm": _Place("bgpd.cli.journal", "confirm", "Let a change stand that was applied with --confirm."),
    "history": _Place("bgpd.cli.journal", "history", "Show the last changes of resources: who, when, what."),
    "rollback": _Place("bgpd.cli.journal", "rollback", "Take a change of resources back."),
    "create": _Place("bgpd.cli.resources", "create", "Create resources; none of them may exist."),
    "replace": _Place("bgpd.cli.resources", "replace", "Replace resources; all of them must exist."),
    "delete": _Place("bgpd.cli.resources", "delete", "Delete resources."),
    "label": _Place("bgpd.cli.resources", "label", "Set and remove labels of a resource."),
    "validate": _Place("bgpd.cli.resources", "validate", "Check files of resources; the store is not asked."),
    "plan": _Place("bgpd.cli.plan", "plan", "Show what files of resources would change, and what nodes would do."),
    "export": _Place("bgpd.cli.resources", "export", "Write all resources as one YAML text."),
    "import": _Place("bgpd.cli.resources", "import_", "Read an export into the store."),
    "ipam": _Place("bgpd.cli.ipam", "ipam", "Show, check and change what is known about addresses."),
    "wireguard": _Place("bgpd.cli.wireguard", "wireguard", "Change this node's WireGuard key."),
    "cleanup": _Place(
        "bgpd.cli.cleanup", "cleanup", "Remove all that is ours from the kernel, once the daemon is gone."
    ),
    "check": _Place("bgpd.cli.check", "check", "Check whether this host can do what is asked of it."),
    "config": _Place("bgpd.cli.config", "config", "Check and show the configuration."),
    "lab": _Place("bgpd.cli.lab", "lab", "Run a containerlab topology in network namespaces."),
    "install": _Place(
        "bgpd.cli.install", "install", "Install units, user, completion and manual page, or remove them."
    ),
    "reload": _Place("bgpd.cli.reload", "reload", "Have the daemon load its configuration again."),
    "version": _Place("bgpd.cli.version", "version", "Show the version."),
}


@click.group(
    cls=Lazy,
    places=COMMANDS,
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
