"""The tools that the conformance harness calls by name, over the SDK's low-level server.

The harness fixes names and texts; each scenario's description says which. What a tool does is
beside its definition, so that a reader sees both at once.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp import types
from mcp.server import ServerRequestContext
from mcp.server.subscriptions import PromptsListChanged, SubscriptionBus, ToolsListChanged
from mcp.shared.exceptions import MCPError

PAUSE_S = 0.05
RECONNECT_PAUSE_S = 0.2

Request = ServerRequestContext[Any, Any]
Answer = types.CallToolResult | types.InputRequiredResult
Body = Callable[[Request, types.CallToolRequestParams], Awaitable[Answer]]


@dataclass(frozen=True)
class Toolbox:
    """Tools by name, in the order they were added."""

    tools: dict[str, tuple[types.Tool, Body]]

    def add(self, name: str, description: str, **schema: object) -> Callable[[Body], Body]:
        """Register the decorated body; `schema` members go into its input schema."""
        definition = types.Tool(
            name=name,
            description=description,
            input_schema={"type": "object", "properties": {}} | schema,
        )

        def register(body: Body) -> Body:
            self.tools[name] = (definition, body)
            return body

        return register

    async def on_list(
        self, _: Request, __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """Answer `tools/list`."""
        return types.ListToolsResult(tools=[definition for definition, _ in self.tools.values()])

    async def on_call(self, request: Request, params: types.CallToolRequestParams) -> Answer:
        """Answer `tools/call`. An unknown name is a protocol error (MCP, tools, error handling)."""
        if params.name not in self.tools:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool: {params.name}")
        return await self.tools[params.name][1](request, params)

    def input_schema(self, name: str) -> dict[str, Any] | None:
        """Return a tool's schema, for the SDK's check of `Mcp-Param-*` headers."""
        return self.tools[name][0].input_schema if name in self.tools else None


def said(text: str, *, is_error: bool = False) -> types.CallToolResult:
    """Return a result of one text."""
    return result(types.TextContent(type="text", text=text), is_error=is_error)


def result(*content: types.ContentBlock, is_error: bool = False) -> types.CallToolResult:
    """Return a result of these blocks."""
    return types.CallToolResult(content=list(content), is_error=is_error)


def red_pixel() -> str:
    """Return a PNG of one red pixel, base64 (W3C PNG, 5.3 chunk layout)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    image = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + image).decode()


def short_silence() -> str:
    """Return a WAV of ten silent samples, base64."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(1)
        audio.setframerate(8000)
        audio.writeframes(b"\x80" * 10)
    return base64.b64encode(buffer.getvalue()).decode()


def picture() -> types.ImageContent:
    """Return the red pixel as content."""
    return types.ImageContent(type="image", data=red_pixel(), mime_type="image/png")


def embedded(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    """Return a text resource as content."""
    resource = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.EmbeddedResource(type="resource", resource=resource)


async def log(request: Request, text: str) -> None:
    """Send a log message on this request's stream; the SDK drops it where nobody asked."""
    await request.session.send_log_message("info", text, related_request_id=request.request_id)


def add_content_tools(toolbox: Toolbox) -> None:
    """Tools that answer at once, one per kind of content."""

    @toolbox.add("test_simple_text", "Answers one text")
    async def _text(_: Request, __: types.CallToolRequestParams) -> Answer:
        return said("This is a simple text response for testing.")

    @toolbox.add("test_image_content", "Answers one image")
    async def _image(_: Request, __: types.CallToolRequestParams) -> Answer:
        return result(picture())

    @toolbox.add("test_audio_content", "Answers one sound")
    async def _audio(_: Request, __: types.CallToolRequestParams) -> Answer:
        return result(types.AudioContent(type="audio", data=short_silence(), mime_type="audio/wav"))

    @toolbox.add("test_embedded_resource", "Answers one embedded resource")
    async def _resource(_: Request, __: types.CallToolRequestParams) -> Answer:
        text = "This is an embedded resource content."
        return result(embedded("test://embedded-resource", "text/plain", text))

    @toolbox.add("test_multiple_content_types", "Answers a text, an image and a resource")
    async def _mixed(_: Request, __: types.CallToolRequestParams) -> Answer:
        text = types.TextContent(type="text", text="Multiple content types test:")
        data = json.dumps({"test": "data", "value": 123})
        resource = embedded("test://mixed-content-resource", "application/json", data)
        return result(text, picture(), resource)

    @toolbox.add("test_error_handling", "Always fails")
    async def _error(_: Request, __: types.CallToolRequestParams) -> Answer:
        return said("This tool intentionally returns an error for testing", is_error=True)


def add_schema_tools(toolbox: Toolbox, rich_schema: dict[str, Any]) -> None:
    """Tools that exist for their input schema."""

    @toolbox.add("json_schema_2020_12_tool", "Its schema must arrive whole", **rich_schema)
    async def _schema(_: Request, params: types.CallToolRequestParams) -> Answer:
        return said(json.dumps(params.arguments))

    region = {"type": "string", "x-mcp-header": "Region"}
    described = "Takes an argument that is mirrored into a header (SEP-2243)"

    @toolbox.add("region_status", described, properties={"region": region})
    async def _region(_: Request, params: types.CallToolRequestParams) -> Answer:
        return said(f"all is well in {(params.arguments or {}).get('region', 'every region')}")


def add_streaming_tools(toolbox: Toolbox) -> None:
    """Tools that say something before they answer."""

    @toolbox.add("test_tool_with_progress", "Reports 0, 50 and 100 of 100")
    async def _progress(request: Request, _: types.CallToolRequestParams) -> Answer:
        for done in (0, 50, 100):
            await request.session.report_progress(done, 100, f"{done} of 100")
            await asyncio.sleep(PAUSE_S)
        return said("all steps reported")

    @toolbox.add("test_tool_with_logging", "Logs three times")
    async def _logging(request: Request, _: types.CallToolRequestParams) -> Answer:
        for line in ("execution started", "processing data", "execution completed"):
            await log(request, f"Tool {line}")
            await asyncio.sleep(PAUSE_S)
        return said("three messages logged")

    @toolbox.add("test_logging_tool", "Logs once, if the request asked for logs")
    async def _log_once(request: Request, _: types.CallToolRequestParams) -> Answer:
        await log(request, "one message")
        return said("logged if asked")

    @toolbox.add("test_reconnection", "Closes its stream halfway; the answer is for who comes back")
    async def _reconnect(request: Request, _: types.CallToolRequestParams) -> Answer:
        if request.close_sse_stream is not None:
            await request.close_sse_stream()
        await asyncio.sleep(RECONNECT_PAUSE_S)
        return said("still here after the stream was closed")


def add_change_tools(toolbox: Toolbox, bus: SubscriptionBus) -> None:
    """Tools that announce a changed list to `subscriptions/listen` (SEP-2575)."""

    @toolbox.add("test_trigger_tool_change", "Announces a changed tool list")
    async def _tools(_: Request, __: types.CallToolRequestParams) -> Answer:
        await bus.publish(ToolsListChanged())
        return said("announced")

    @toolbox.add("test_trigger_prompt_change", "Announces a changed prompt list")
    async def _prompts(_: Request, __: types.CallToolRequestParams) -> Answer:
        await bus.publish(PromptsListChanged())
        return said("announced")
