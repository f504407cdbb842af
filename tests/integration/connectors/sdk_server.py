"""A server of the official SDK over stdio. `slow` notes that it was called, and never answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer(name="slow", log_level="ERROR")


@server.tool()
async def slow(counter: str, ctx: Context) -> str:
    """Count the call, say so, and wait for ever."""
    with Path(counter).open("a", encoding="utf-8") as file:  # noqa: ASYNC230 - a few bytes
        file.write("x")
    await ctx.report_progress(1, 2)
    await asyncio.Event().wait()
    return "never"


@server.tool()
def echo(text: str) -> str:
    """Say what was said."""
    return text


if __name__ == "__main__":
    server.run("stdio")
