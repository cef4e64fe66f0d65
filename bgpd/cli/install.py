"""``bgpd install``: put the files of the system that belong to the command in place, or take them away.

Laws: what is installed is listed in one place (:func:`wanted`), so that a removal knows all of it; a file is written only where its
content differs, so that a second run does nothing; a configuration that is there is never changed or removed; nothing is
started, stopped or restarted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click
from click.shell_completion import get_completion_class

import bgpd
from bgpd.cli.manual import page
from bgpd.cli.options import BadInput, Stop, output
from bgpd.cli.render import Column, Table, show, show_json

ROOT: Final = Path("/")
PREFIX: Final = Path("/usr/local")
COMMAND: Final = "/opt/bgpd/bin/bgpd"
"""What the units in config/systemd start."""
UNITS: Final = ("bgpd.service", "bgpd-speaker.service")
CONFIGURATION: Final = Path("/etc/bgpd/bgpd.toml")
SYSUSERS: Final = Path("/etc/sysusers.d/bgpd.conf")
HIDDEN: Final = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - names, no files
"""What the units do not see (ProtectHome, PrivateTmp)."""
COMPLETIONS: Final = {
    "bash": "share/bash-completion/completions/bgpd",
    "zsh": "share/zsh/site-functions/_bgpd",
    "fish": "share/fish/vendor_completions.d/bgpd.fish",
}
EXAMPLES: Final = "share/doc/bgpd/examples"
COMMAND_LIMIT_S: Final = 60.0
"""For each command of the system that is run: making a user takes a second."""


class Wanted(NamedTuple):
    """One file to install."""

    path: Path
    content: bytes
    once: bool = False
    """Written where there is none; then it is the operator's."""
    mode: int = 0o644


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT,
    show_default=True,
    help="Install below this directory, for a package or an image; no command of the system is run.",
)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    default=PREFIX,
    show_default=True,
    help="Where units, manual page, completion and example go; a package says /usr.",
)
@click.option(
    "--command",
    type=click.Path(path_type=Path),
    help="The bgpd that the units start; the one that is running where not given.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--remove", is_flag=True, help="Remove what was installed; configuration, state, user and routes stay.")
@output()
@click.pass_context
def install(  # noqa: PLR0917 - click's signature
    ctx: click.Context, root: Path, prefix: Path, command: Path | None, dry_run: bool, remove: bool, output: str
) -> None:
    """Install units, user, the name of the routing protocol, the command's name, completion, manual page and an example configuration.

    Nothing is started: edit /etc/bgpd/bgpd.toml, then `systemctl enable --now bgpd-speaker bgpd`. A second run changes only what
    differs, and a configuration that is there never. After an upgrade run it again, and `systemctl restart bgpd`: the sessions
    stay up, since bgpd-speaker.service keeps them.
    """
    files = list(wanted(ctx.find_root().command, prefix, _started(command, root)))
    try:
        if remove:
            _refuse_running(root, dry_run=dry_run)
            done = [_remove(root, one, dry_run=dry_run) for one in files if not one.once]
        else:
            done = [_install(root, one, dry_run=dry_run) for one in files]
        if not dry_run and root == ROOT and any(what != "unchanged" for what, _ in done):
            _tell_system(remove=remove)
    except OSError as error:
        raise Stop(
            f"{error.filename}: {error.strerror}; what was done before stays, and another run goes on"
        ) from error
    if output == "json":
        show_json({"dry_run": dry_run, "files": [{"path": str(path), "outcome": what} for what, path in done]})
    else:
        show(
            Table(
                (Column(""), Column("")), [(f"would be {what}" if dry_run else what, str(path)) for what, path in done]
            )
        )


def wanted(main: click.Command, prefix: Path, command: Path) -> Iterator[Wanted]:
    """Yield every file, by its place below the root; the units start *command*."""
    for unit in UNITS:
        text = given(f"systemd/{unit}").decode().replace(COMMAND, str(command))
        yield Wanted(prefix / "lib/systemd/system" / unit, text.encode())
    if command != prefix / "bin/bgpd":
        yield Wanted(prefix / "bin/bgpd", f'#!/bin/sh\nexec {command} "$@"\n'.encode(), mode=0o755)
    yield Wanted(SYSUSERS if prefix == PREFIX else prefix / "lib/sysusers.d/bgpd.conf", given("systemd/bgpd.sysusers"))
    yield Wanted(Path("/etc/iproute2/rt_protos.d/bgpd.conf"), given("rt_protos.d/bgpd.conf"))
    for shell, place in COMPLETIONS.items():
        yield Wanted(prefix / place, completion(main, shell).encode())
    yield Wanted(prefix / "share/man/man8/bgpd.8", page(main).encode())
    yield Wanted(prefix / EXAMPLES / "bgpd.toml", given("bgpd.toml"))
    yield Wanted(prefix / EXAMPLES / "bgpd-wireguard-go.conf", given("systemd/bgpd-wireguard-go.conf"))
    yield Wanted(CONFIGURATION, given("bgpd.toml"), once=True)


def given(name: str) -> bytes:
    """Return a file of the project's ``config``: beside the package in a checkout, within it once it is installed."""
    package = Path(bgpd.__file__).parent
    installed, checkout = package / "files" / name, package.parent / "config" / name
    return (installed if installed.exists() else checkout).read_bytes()


def completion(main: click.Command, shell: str) -> str:
    """Return the script that completes the command line in *shell*."""
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows no {shell}"
    made = kind(main, {}, "bgpd", "_BGPD_COMPLETE")
    return made.source_template % made.source_vars()


def _started(command: Path | None, root: Path) -> Path:
    """Return the command for the units; refuse one that they cannot see."""
    found = command or Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()
    if not found.is_absolute() or any(blank in str(found) for blank in " \t\n%"):
        raise BadInput(f"--command {found}: must be an absolute path without blanks and %")
    seen = (found, found.resolve()) if command is not None else (found, found.resolve(), Path(sys.base_prefix))
    for path in seen:
        if root == ROOT and any(path.is_relative_to(hidden) for hidden in HIDDEN):
            raise BadInput(
                f"{path} is out of the sight of the units (ProtectHome, PrivateTmp): install bgpd elsewhere, such as "
                "`python3 -m venv /opt/bgpd && /opt/bgpd/bin/pip install bgpd`, and run /opt/bgpd/bin/bgpd install"
            )
    return found


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _install(root: Path, one: Wanted, *, dry_run: bool) -> tuple[str, Path]:
    """Write a file where it differs: beside its place first, so that no reader sees a part of it."""
    place = _below(root, one.path)
    before = place.read_bytes() if place.is_file() else None
    if before == one.content or (one.once and before is not None):
        return "unchanged", place
    if not dry_run:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(one.content)
            os.fchmod(file.fileno(), one.mode)
        Path(name).replace(place)
    return "created" if before is None else "updated", place


def _remove(root: Path, one: Wanted, *, dry_run: bool) -> tuple[str, Path]:
    place = _below(root, one.path)
    if not place.is_file():
        return "unchanged", place
    if not dry_run:
        place.unlink()
    return "removed", place


def _refuse_running(root: Path, *, dry_run: bool) -> None:
    """A unit that runs must not lose its file: it could not be stopped in order any more."""
    if root != ROOT or dry_run or not _systemd():
        return
    for unit in UNITS:
        if not _run("systemctl", "is-active", "--quiet", unit):
            raise Stop(f"{unit} is running: `systemctl disable --now bgpd bgpd-speaker` first")


def _tell_system(*, remove: bool) -> None:
    """Make the user, and have systemd read its units again."""
    if not remove and (said := _run("systemd-sysusers", str(SYSUSERS) if SYSUSERS.exists() else "bgpd.conf")):
        click.echo(
            f"bgpd: the user bgpd was not made ({said}): useradd --system --home-dir /var/lib/bgpd bgpd", err=True
        )
    if _systemd() and (said := _run("systemctl", "daemon-reload")):
        click.echo(f"bgpd: systemd did not read its units again ({said}): systemctl daemon-reload", err=True)


def _systemd() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def _run(*command: str) -> str:
    """Run a command of the system; returns why it failed, empty if it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"
