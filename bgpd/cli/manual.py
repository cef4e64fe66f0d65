"""The manual page bgpd(8), made of what ``--help`` says (man(7); Debian: section 8 is for administration)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

import bgpd

FILES = (
    ("/etc/bgpd/bgpd.toml", "The configuration; `bgpd config show` tells where each value comes from."),
    ("/etc/bgpd/secrets/NAME/KEY", "Passwords, readable by the daemon's user only."),
    ("/run/bgpd/bgpd.sock", "The socket of the API; members of the group bgpd may ask."),
    ("/var/lib/bgpd", "The store of a single host, and what a restart has to find."),
)
ENVIRONMENT = (
    ("BGPD_CONFIG", "The configuration file, where the command line names none."),
    ("BGPD_SOCKET", "The daemon's socket, likewise."),
    ("BGPD_STORE", "The store, likewise."),
    ("BGPD_SECTION_KEY", "Takes the place of a key of the configuration: BGPD_LOG_LEVEL=debug."),
)
STATUSES = (
    ("0", "Success."),
    ("1", "Refused or failed."),
    ("2", "Bad input or bad configuration."),
    ("3", "The daemon or the store cannot be reached."),
)


def page(command: click.Command) -> str:
    """Return the page of the whole command line below *command*."""
    context = click.Context(command, info_name="bgpd")
    lines = [
        f'.TH BGPD 8 "" "bgpd {bgpd.__version__}" "System Administration"',
        ".SH NAME",
        "bgpd \\- " + _text(_summary(command)),
        ".SH SYNOPSIS",
        ".B bgpd",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        "Each command says more with",
        ".BR \\-\\-help .",
        ".SH COMMANDS",
        *(line for path, one in _leaves(context) for line in _command(path, one)),
        ".SH EXIT STATUS",
        *_list(STATUSES),
        ".SH ENVIRONMENT",
        *_list(ENVIRONMENT),
        ".SH FILES",
        *_list(FILES),
        ".SH SEE ALSO",
        ".BR systemctl (1),",
        ".BR journalctl (1),",
        ".BR ip\\-route (8)",
    ]
    return "\n".join(lines) + "\n"


def _leaves(context: click.Context) -> Iterator[tuple[str, click.Context]]:
    """Yield every command that does something, with its words."""
    group = context.command
    if not isinstance(group, click.Group):
        yield context.command_path, context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield from _leaves(click.Context(command, parent=context, info_name=name))


def _command(path: str, context: click.Context) -> Iterator[str]:
    command = context.command
    yield f'.SS "{_text(path)} {_text(" ".join(command.collect_usage_pieces(context)))}"'
    yield from _paragraphs(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            yield ".TP"
            yield f"\\fB{_text(record[0])}\\fR"
            yield _text(record[1]) or "\\&"


def _summary(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ").rstrip(".")


def _paragraphs(text: str) -> Iterator[str]:
    """Turn a help text into paragraphs; one that begins with click's mark for it keeps its lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.split("\n")
        yield ".PP"
        if lines[0] == "\b":
            yield from (".nf", *(_text(line) for line in lines[1:]), ".fi")
        else:
            yield _text(" ".join(line.strip() for line in lines))


def _list(items: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, text in items:
        yield from (".TP", f"\\fB{_text(name)}\\fR", _text(text))


def _text(text: str) -> str:
    """Write text so that roff takes none of it for a request; what stands in backquotes is bold."""
    escaped = (
        " ".join(text.split(" ")).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    )
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    escaped = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
