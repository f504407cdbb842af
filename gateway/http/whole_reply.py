"""An answer in one write, where the server would take two and look at every header twice.

The server sends head and body apart, each a system call of its own, after matching every header
against a pattern. On the call path that is a tenth of the whole. Both ways put the same bytes on
the wire; where this one cannot be used, `send_json` takes the other.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.http.asgi import HeaderPairs


class WholeReply:
    """Answers one request of `cycle`, at once or not at all."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle: Final = cycle

    def __call__(self, status: int, headers: HeaderPairs, body: bytes) -> bool:
        """Send the answer; return False where it has to be sent the usual way.

        Raises `ValueError` for a line break inside a header, which would begin another one.
        """
        cycle = self._cycle
        plain = cycle.keep_alive and not cycle.response_started and not cycle.disconnected
        if not plain or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        head = b"".join(parts)
        breaks = len(parts) // 4 + 3  # status line, headers, length and end
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
            raise ValueError("a header of the answer holds a line break")
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(head + body)
        cycle.message_event.set()
        cycle.on_response()
        return True
