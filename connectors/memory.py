"""A server in memory: the twin of the real transports, for tests and for trying things out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from connectors import mcp_wire as wire
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
from gateway.core.errors import UpstreamError

Handler = Callable[[dict[str, Any], Relay | None], Any]
"""Takes the arguments; returns an `UpstreamResult`, or text for one, or an awaitable of either.

It may raise `UpstreamError`, as an upstream in trouble would.
"""


class MemoryTransport:
    """Reaches a server that lives here. Keeps the promises of `ports.ToolTransport`.

    ::

        MemoryTransport("billing", {"refund": lambda arguments, relay: "done"})

    `sent` holds every intent in the order of arrival. `definitions` may be replaced while it runs;
    a tool without a definition given gets one that accepts any object.
    """

    def __init__(
        self,
        server_id: str,
        tools: Mapping[str, Handler],
        *,
        definitions: list[bytes] | None = None,
    ) -> None:
        self.server_id: Final = server_id
        self.sent: list[RecordedIntent] = []
        self.definitions = definitions or [build_definition(name) for name in tools]
        self._tools = dict(tools)
        self._open = True

    async def start(self) -> None:
        """Be reachable (again)."""
        self._open = True

    async def close(self) -> None:
        """Be unreachable: calls end `not_sent`."""
        self._open = False

    async def list_tools(self) -> list[bytes]:
        """Return the definitions. Raises `UpstreamError` while closed."""
        self._check_open()
        return list(self.definitions)

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Run the handler. A tool without one answers with a JSON-RPC error, as a server does."""
        self._check_open()
        wire.require_go_ahead(intent)
        self.sent.append(intent)
        resolved = intent.intent.resolved
        handler = self._tools.get(resolved.tool.name)
        if handler is None:
            error = b'{"code":-32602,"message":"unknown tool"}'
            return UpstreamResult(error=error, is_error=True)
        answer = handler(resolved.call.raw.arguments.value, relay)
        if inspect.isawaitable(answer):
            answer = await _finish(answer)
        return answer if isinstance(answer, UpstreamResult) else build_text_result(str(answer))

    def _check_open(self) -> None:
        if not self._open:
            raise UpstreamError("the server is closed", delivery="not_sent", retryable=True)


async def _finish(answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - what a handler returns
    return await answer


def build_definition(name: str, schema: Mapping[str, Any] | None = None) -> bytes:
    """Return a tool definition; without a schema it accepts any object."""
    anything = {"type": "object", "additionalProperties": True}
    return orjson.dumps({"name": name, "inputSchema": schema or anything})


def build_text_result(text: str, *, is_error: bool = False) -> UpstreamResult:
    """Return the result of a tool that answers with a text."""
    content = {"content": [{"type": "text", "text": text}], "isError": is_error}
    return UpstreamResult(result=orjson.dumps(content), is_error=is_error)
