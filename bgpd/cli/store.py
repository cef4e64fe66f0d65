"""What commands that work on the store share: which store, documents of files, and how a failure ends the command.

They need no running daemon. The store is ``--store``, else BGPD_STORE, else what the node's configuration file names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from bgpd.adapters.store.base import Broken, Compacted, Store, Transient
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.open import NO_ACCESS, Access, open_store
from bgpd.adapters.store.resources import Conflict, Invalid
from bgpd.adapters.store.sqlite import SqliteStore
from bgpd.cli import manifest
from bgpd.cli.config import ENVIRONMENT
from bgpd.cli.config import read as read_config
from bgpd.cli.options import BadInput, Stop
from bgpd.config.load import DEFAULT_PATH
from bgpd.config.schema import StoreSection
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import Defect, Document
from bgpd.core.resource.kind import Kind

STORE_ENVIRONMENT: Final = "BGPD_STORE"
DEFECTS_SHOWN: Final = 200
"""Defects that are written out: what somebody mends before trying again."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class NoStore(Stop):
    """The store cannot be reached."""

    exit_code = 3


def stores(command: F) -> F:
    """Add ``--store`` to a command, whose function gets it as *store*."""
    return click.option(
        "--store",
        metavar="URL",
        envvar=STORE_ENVIRONMENT,
        show_envvar=True,
        help="The store, such as sqlite:///var/lib/bgpd/store.db; else the one that the configuration file names.",
    )(command)


def files(command: F) -> F:
    """Add ``-f`` and ``-R`` to a command, whose function gets *filenames* and *recursive*."""
    for option in (
        click.option("-R", "--recursive", is_flag=True, help="Read the directories in a directory as well."),
        click.option(
            "-f",
            "--filename",
            "filenames",
            multiple=True,
            metavar="FILE",
            help="A file of one or more documents, a directory of such files, or - for stdin.",
        ),
    ):
        command = option(command)
    return command


def kind_of(word: str) -> Kind:
    """Return the kind that a word of the command line means; ends the command where there is none."""
    kind = kinds.find(word)
    if kind is None:
        known = ", ".join(one.kind for one in kinds.KINDS)
        raise BadInput(f"{word!r} is no kind of resource; there are {known}")
    return kind


class Absent(Enum):
    """What a command does where the store is a file that does not exist: the path may be mistyped."""

    REFUSE = "refuse"
    """It reads, and there is nothing."""
    MAKE = "make"
    """It puts something into it."""
    PRETEND = "pretend"
    """It only says what would be done."""


def on_store(url: str | None, work: Callable[[Store], Awaitable[T]], absent: Absent = Absent.REFUSE) -> T:
    """Do *work* on the store; a failure ends the command with its sentence and the exit status for it."""
    address, access = _store(url)
    try:
        return asyncio.run(_run(address, access, work, absent))
    except Transient as error:
        raise NoStore(f"the store cannot be reached: {error}") from error
    except Invalid as error:
        raise bad(error.defects) from error
    except Conflict as error:
        raise Stop(_listed(str(error).splitlines(), "conflicts")) from error
    except Compacted as error:
        raise Stop("the store changes faster than it can be read: try again") from error
    except Malformed as error:
        raise Stop(f"a stored value cannot be used: {error}") from error
    except Broken as error:
        raise Stop(str(error)) from error


async def _run(url: str, access: Access, work: Callable[[Store], Awaitable[T]], absent: Absent) -> T:
    try:
        store = open_store(url, access, create=absent is Absent.MAKE)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if absent is Absent.PRETEND and isinstance(store, SqliteStore) and not store.path.exists():
        click.echo(f"bgpd: {store.path} does not exist; this is said of an empty store", err=True)
        store = MemoryStore()
    try:
        return await work(store)
    finally:
        await store.close()


def _store(url: str | None) -> tuple[str, Access]:
    """Return where the store is and how to be let in; a URL of one's own is used with the files and user of the configuration."""
    path = Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    scheme = urlsplit(url).scheme if url else ""
    if url and (not path.exists() or not scheme.startswith("etcd")):
        return url, NO_ACCESS
    if not path.exists():
        return StoreSection().url, NO_ACCESS
    section = read_config(path).store
    if url and urlsplit(section.url).scheme != scheme:
        return url, NO_ACCESS
    return url or section.url, section.access()


def documents(filenames: tuple[str, ...], *, recursive: bool) -> list[Document]:
    """Read the documents of files; ends the command with all that is wrong with them. Unknown fields are told on stderr."""
    found: list[Document] = []
    places, defects = places_of(filenames, recursive=recursive)
    for origin, value in places:
        document, wrong = check.read(origin, value)
        defects += wrong
        if document is not None:
            found.append(document)
        for warning in check.surplus(origin, value):
            click.echo(f"bgpd: {warning}", err=True)
    defects += check.among(found)
    if defects:
        raise bad(defects)
    return found


def places_of(filenames: tuple[str, ...], *, recursive: bool) -> tuple[list[manifest.Place], list[Defect]]:
    """Read files, without a judgement on what kind of resources they hold; ends the command where they hold nothing."""
    if not filenames:
        raise BadInput("say which files: -f FILE, -f DIRECTORY, or -f - for stdin")
    places, defects = manifest.read(filenames, recursive=recursive)
    if not places and not defects:
        raise BadInput(f"{', '.join(filenames)}: there is no document in it")
    return places, defects


def bad(defects: list[Defect] | tuple[Defect, ...]) -> BadInput:
    """Return the end of a command whose input has *defects*."""
    return BadInput(_listed([str(defect) for defect in defects], "defects"))


def _listed(lines: list[str], what: str) -> str:
    """Write one line as it is, and several below their number."""
    if len(lines) == 1:
        return lines[0]
    shown = lines[:DEFECTS_SHOWN]
    more = [f"… and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    return "\n  ".join([f"{len(lines)} {what}, nothing was written:", *shown, *more])
