"""Structured logs on standard error: JSON lines for journald and pipes, aligned text on a terminal.

Event names are stable, ``noun.past-verb``; facts are fields. No secret is ever a field, since none is ever in a notice.
"""

from __future__ import annotations

import logging
import sys

import structlog

from bgpd.model.notice import KINDS

_structured_traceback = structlog.processors.ExceptionRenderer(
    # Local variables are structlog's default: a frame's may hold a password.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(level: str, log_format: str) -> None:
    """Set up logging for the process. *log_format*: ``json``, ``console`` or ``auto`` (console on a terminal)."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _structured_traceback if not console else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def tell(name: str, fields: dict[str, str | int | float | bool | None]) -> None:
    """Log a notice of the core."""
    logger = structlog.get_logger()
    shown = {key: value for key, value in fields.items() if value is not None}
    kind = KINDS.get(name)
    if kind is not None and kind.good:
        logger.info(name, **shown)
    else:
        logger.warning(name, **shown)
