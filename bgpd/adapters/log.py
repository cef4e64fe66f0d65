"""Structured logs: fields for journald, JSON lines on standard error for files and pipes, aligned text on a terminal.

Event names are stable, ``noun.past-verb``; facts are fields. No secret is ever a field, since none is ever in a notice.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from bgpd.adapters import journal
from bgpd.model.notice import KINDS

_timestamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
_structured_traceback = structlog.processors.ExceptionRenderer(
    # Local variables are structlog's default: a frame's may hold a password.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(level: str, log_format: str) -> None:
    """Set up logging for the process.

    *level*: ``auto`` is info, until :func:`set_level` says otherwise.
    *log_format*: ``journal``, ``json``, ``console``, or ``auto``: console on a terminal, journal where standard error goes to it,
    else json.
    """
    level = "info" if level == "auto" else level
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "journal" if journal.connected_stderr() else "json"
    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level]
    factory: Callable[..., Any] = structlog.PrintLoggerFactory(sys.stderr)
    match log_format:
        case "journal":  # which has clocks of its own
            processors += [structlog.processors.format_exc_info, _as_fields]
            factory = _journal
        case "console":
            processors += [_timestamp, structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer()]
        case _:
            processors += [_timestamp, _structured_traceback, structlog.processors.JSONRenderer(sort_keys=False)]
    structlog.configure(
        processors=processors,
        wrapper_class=_filtering(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """Log from *level* on, from now: ``debug`` to ``critical``, which is silence: nothing is logged as that."""
    structlog.configure(wrapper_class=_filtering(level))


def _filtering(level: str) -> type[structlog.typing.FilteringBoundLogger]:
    return structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()])


def _as_fields(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Hand the fields over as they are."""
    return event


def _journal(*_arguments: object) -> journal.Journal:
    return journal.Journal()


def tell(name: str, fields: dict[str, str | int | float | bool | None]) -> None:
    """Log a notice of the core."""
    logger = structlog.get_logger()
    shown = {key: value for key, value in fields.items() if value is not None}
    kind = KINDS.get(name)
    if kind is not None and kind.good:
        logger.info(name, **shown)
    else:
        logger.warning(name, **shown)
