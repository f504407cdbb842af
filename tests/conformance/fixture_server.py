"""The server that the conformance harness tests, directly or with the gateway in front.

    python -m tests.conformance.fixture_server

Written with the official SDK, so that what fails through the gateway and passes here is the
gateway's doing. The first line on stdout is the URL.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import warnings
from typing import Any, Final

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.conformance import fixture_asking as asking
from tests.conformance import fixture_content as content
from tests.conformance import fixture_tools as tools

NAME: Final = "countersign-conformance-fixture"
RETRY_MS: Final = 100
RICH_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "address": {
            "$anchor": "where",
            "type": "object",
            "properties": {"line": asking.TEXT, "postcode": asking.TEXT},
        }
    },
    "properties": {
        "to": {"$ref": "#where"},
        "grams": {"type": "integer", "minimum": 1},
        "express": {"type": "boolean"},
        "deadline": asking.TEXT,
        "locker": asking.TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["to"]}, {"required": ["locker"]}]}],
    "if": {"properties": {"express": {"const": True}}, "required": ["express"]},
    "then": {"required": ["deadline"]},
    "else": {"properties": {"deadline": False}},
    "additionalProperties": False,
}
"""A parcel: each keyword that the scenario `json-schema-2020-12` looks for, at work."""


class Replay(EventStore):
    """Every event of this process in order; an event's id is its place, from 1."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        """Keep an event and return its id."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send what came on the same stream after `last_event_id`; return that stream."""
        place = int(last_event_id) if last_event_id.isdecimal() else 0
        if not 0 < place <= len(self._events):
            return None
        stream = self._events[place - 1][0]
        for number, (owner, message) in enumerate(self._events[place:], start=place + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def build_fixture() -> Server[Any]:
    """Return the server with everything that the harness asks for."""
    bus = InMemorySubscriptionBus()
    toolbox = tools.Toolbox({})
    tools.add_content_tools(toolbox)
    tools.add_schema_tools(toolbox, RICH_SCHEMA)
    tools.add_streaming_tools(toolbox)
    tools.add_change_tools(toolbox, bus)
    asking.add_pushing_tools(toolbox)
    asking.add_round_tools(toolbox)
    asking.add_capability_tools(toolbox)
    asking.add_state_tools(toolbox)
    server: Server[Any] = Server(
        NAME,
        version="1.0.0",
        get_tool_input_schema=toolbox.input_schema,
        on_list_tools=toolbox.on_list,
        on_call_tool=toolbox.on_call,
        on_list_resources=content.on_list_resources,
        on_list_resource_templates=content.on_list_templates,
        on_read_resource=content.on_read_resource,
        on_subscribe_resource=content.on_subscribe,
        on_unsubscribe_resource=content.on_unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=content.on_list_prompts,
        on_get_prompt=content.on_get_prompt,
        on_completion=content.on_complete,
        on_set_logging_level=content.on_set_level,
    )
    boundary = RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
    server.middleware.append(boundary)
    return server


async def serve() -> None:
    """Listen on a free loopback port until told to stop."""
    app = build_fixture().streamable_http_app(event_store=Replay(), retry_interval=RETRY_MS)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
    sys.stdout.flush()
    # The h11 parser, because httptools keeps the spaces around header values that RFC 9110 drops.
    config = uvicorn.Config(app, http="h11", log_level="error", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    # Sampling and logging are deprecated in 2026-07-28 and required of 2025-11-25.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    # The harness sends bad requests by the dozen; that the SDK refuses them is no news.
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve())
