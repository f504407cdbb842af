"""An MCP server over stdio that knows `KEY` and, asked to, tells it to everybody."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Serve until the input ends; with `die`, complain with the secret and end."""
    key = os.environ.get("KEY", "")
    if "die" in sys.argv:
        sys.stderr.write(f"cannot sign in with {key}\n")
        sys.stderr.flush()
        return
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            say({"id": message["id"], "result": answer(message, key)})


def answer(message: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the result of one request."""
    match message["method"]:
        case "initialize":
            info = {"name": "telling", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
        case "tools/list":
            schema = {"type": "object", "additionalProperties": True}
            return {"tools": [{"name": n, "inputSchema": schema} for n in ("length", "tell")]}
    if message["params"]["name"] == "tell":
        notice = {"level": "info", "data": f"I am using {key}"}
        say({"method": "notifications/message", "params": notice})
        return {"content": [{"type": "text", "text": key}]}
    return {"content": [{"type": "text", "text": str(len(key))}]}


def say(message: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
