"""Server-sent events (WHATWG HTML §9.2.6) as MCP uses them: the data of `message` events."""

from __future__ import annotations

from typing import Final

from gateway.core.errors import UpstreamError

_MESSAGE: Final = frozenset({b"", b"message"})


class EventReader:
    """Cuts a stream into events. One event may be `max_bytes` long; the stream has no end."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that `chunk` completes.

        Raises `UpstreamError` `result_too_large` for an event past the limit.
        """
        # A lone CR ends a line too, but no MCP server sends it, and a CR at the end of a chunk
        # may be the first half of CR LF: both stay harmless when only LF ends a line.
        first, *others = chunk.split(b"\n")
        self._rest.append(first)  # joined once it ends: a line may come a byte at a time
        self._rest_size += len(first)
        lines: list[bytes] = []
        if others:
            lines = [b"".join(self._rest), *others[:-1]]
            self._rest, self._rest_size = [others[-1]], len(others[-1])
        if self._size + self._rest_size > self._max_bytes:
            raise too_large(self._max_bytes)
        return [data for line in lines if (data := self._take(line.removesuffix(b"\r")))]

    def _take(self, line: bytes) -> bytes:
        if not line:
            data, named = b"\n".join(self._data), self._event
            self._event, self._data, self._size = b"", [], 0
            return data if named in _MESSAGE else b""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > self._max_bytes:
                raise too_large(self._max_bytes)
        elif field == b"event":
            self._event = value
        return b""


def too_large(max_bytes: int) -> UpstreamError:
    """Return the error for an answer past the limit."""
    return UpstreamError(
        f"the upstream's answer is larger than {max_bytes} bytes",
        code="result_too_large",
        delivery="sent",
    )
