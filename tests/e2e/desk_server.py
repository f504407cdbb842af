"""A server over stdio, written with the official SDK: it says who it is, and dies when asked to."""

from __future__ import annotations

import os

from mcp.server.mcpserver import MCPServer

server = MCPServer(name="desk", log_level="ERROR")


@server.tool()
def whoami() -> int:
    """Return the process id."""
    return os.getpid()


@server.tool()
def die() -> None:
    """End the process in the middle of the call."""
    os._exit(3)


if __name__ == "__main__":
    server.run("stdio")
