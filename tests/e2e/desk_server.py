"""A server over stdio that says who it is, and dies when asked to. Each run starts one.

Without any library, so that it starts at once. Servers of the official SDK over stdio stand behind
a whole gateway in `examples/acme/demo.py`, and in tests/integration/connectors/test_sdk_stdio.py.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TOOLS = [
    {"name": "whoami", "description": "Return the process id.", "inputSchema": {"type": "object"}},
    {"name": "die", "description": "End in the middle of it.", "inputSchema": {"type": "object"}},
]


def call(name: str) -> dict[str, Any]:
    """Return the result of a tool."""
    if name == "die":
        os._exit(3)
    return {"content": [{"type": "text", "text": str(os.getpid())}], "isError": False}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a request."""
    if method == "initialize":
        about = {"serverInfo": {"name": "desk", "version": "1"}, "capabilities": {"tools": {}}}
        return {"protocolVersion": params["protocolVersion"], **about}
    if method == "tools/list":
        return {"tools": TOOLS}
    return call(params["name"]) if method == "tools/call" else {}


def main() -> None:
    """Answer requests until the gateway closes its end."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            result = answer(message["method"], message.get("params", {}))
            said = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
