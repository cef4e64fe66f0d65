"""``bgpd version``."""

from __future__ import annotations

import click

import bgpd


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"bgpd {bgpd.__version__}")
