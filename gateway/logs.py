"""Logs for humans, on stderr. The record of what happened is the audit log, not this.

INVARIANT: no secret, no argument and no result reaches a log line. Lines carry ids, codes and
counts; `_drop_unsafe` takes out the members that could carry more, whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

_UNSAFE: Final = frozenset(
    {
        "arguments",
        "args",
        "result",
        "token",
        "secret",
        "credential",
        "authorization",
        "password",
        "body",
        "headers",
    }
)


def _drop_unsafe(
    _logger: Any,  # noqa: ANN401 - the processor signature of structlog
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    for name in _UNSAFE & event.keys():
        event[name] = "[dropped]"
    return event


def configure_logging(style: Literal["json", "console"], level: str) -> None:
    """Send structured lines of `level` and above to stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_unsafe,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
