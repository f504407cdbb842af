"""Logs for humans, on stderr. The record of what happened is the audit log, not this.

INVARIANT: no secret, no argument and no result reaches a log line. Lines carry ids, codes and
counts; `_drop_unsafe` takes out the members that could carry more, whoever logs them. Exceptions
are told by type and place, since their messages may repeat what they tripped over.
"""

from __future__ import annotations

import io
import logging
import select
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Literal, TextIO, cast

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
        "cookie",
    }
)
_LINE_MAX_CHARS: Final = 200
_PIECE_CHARS: Final = 1_024
"""At most 4,096 bytes: what a pipe with room for anything takes without waiting (pipe(7))."""


_request: Final[ContextVar[str]] = ContextVar("request_id")


def name_request(request_id: str) -> None:
    """Put this id on every line logged from here on, in this task and those that it starts."""
    _request.set(request_id)


def _add_request(
    _logger: Any,  # noqa: ANN401 - the processor signature of structlog
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    request_id = _request.get(None)
    if request_id is not None:
        event["request_id"] = request_id
    return event


def describe(error: BaseException) -> str:
    """Type and place of an exception, such as `KeyError at enforce.py:120`; never its message."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _drop_unsafe(
    _logger: Any,  # noqa: ANN401 - the processor signature of structlog
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    for name in event:
        if name.lower().rpartition("_")[2] in _UNSAFE:
            event[name] = "[dropped]"
    return event


def _tell_exception(
    _logger: Any,  # noqa: ANN401 - the processor signature of structlog
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["error"] = describe(error)
    return event


class _Library(logging.Handler):
    """Puts what libraries log among our own lines: the first line of it, without any trace."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip().partition("\n")[0][:_LINE_MAX_CHARS]
        log = structlog.get_logger(record.name)
        log.log(record.levelno, text, logger=record.name, exc_info=record.exc_info)


class _Lossy(io.TextIOBase):
    """A stream of lines that lets go of those that cannot be written at once, and counts them.

    INVARIANT: what is logged about goes on when whoever collects log lines has gone, has no room
    for them, or does not read: a pipe that is full would hold up the loop, and with it every call,
    and strangers can cause lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._room = select.poll()
        self._fd: int | None = None
        with suppress(OSError, ValueError):  # not all streams are files of the system
            self._fd = stream.fileno()
            self._room.register(self._fd, select.POLLOUT)
        self._is_torn = False
        self.lost = 0
        """Lines since the last one that could be written."""

    def write(self, text: str) -> int:
        """Write a line, in pieces that fit where there is room at all."""
        line = f"\n{text}" if self._is_torn else text
        for start in range(0, len(line), _PIECE_CHARS):
            if not self._put(line[start : start + _PIECE_CHARS]):
                self._is_torn = self._is_torn or start > 0
                self.lost += 1
                return len(text)
        self._is_torn, self.lost = False, 0
        return len(text)

    def _put(self, piece: str) -> bool:
        if self._fd is not None and not self._room.poll(0):
            return False
        with suppress(OSError, ValueError):  # a stream that was closed is told by a ValueError
            self._stream.write(piece)
            self._stream.flush()
            return True
        return False


def print_line(text: str) -> None:
    """Print a line to stderr that is no log line; one that cannot be written is let go."""
    _Lossy(sys.stderr).write(f"{text}\n")


def configure_logging(style: Literal["json", "console"], level: str) -> None:
    """Send structured lines of `level` and above to stderr."""
    lines = _Lossy(sys.stderr)

    def tell_lost(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:  # noqa: ANN401
        if lines.lost:
            event["lines_lost"] = lines.lost
        return event

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            _add_request,
            tell_lost,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_unsafe,
            _tell_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Library()], force=True)
