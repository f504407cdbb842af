"""An MCP server over stdio without any library, so that it starts fast and can misbehave.

Each tool's name says what it does. Calls of `wait` stay open until `release` is called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WAITING: list[Any] = []
EDITION = Path(sys.argv[-1]).read_text(encoding="utf-8") if "--edition" in sys.argv else ""
TOOLS = ("echo", "fail", "progress", "pid", "env", "wait", "release", "die", "huge", "noise")
MORE = ("asks", "changed", "child", "other_id", "input", "stubborn")


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(value: str, *, error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}], "isError": error}


def read() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return dict(json.loads(line))


def tools(names: tuple[str, ...]) -> list[dict[str, Any]]:
    said = {"echo": {"description": EDITION}} if EDITION else {}
    if EDITION == "none":
        names = tuple(name for name in names if name != "echo")
    if EDITION == "twice" and "echo" in names:
        names = ("echo", *names)
    return [
        {"name": name, "inputSchema": {"type": "object"}, **said.get(name, {})} for name in names
    ]


def list_tools(number: int, params: dict[str, Any]) -> None:
    if params.get("cursor") == "more":
        send({"id": number, "result": {"tools": tools(MORE)}})
    else:
        send({"id": number, "result": {"tools": tools(TOOLS), "nextCursor": "more"}})


def call(number: int, params: dict[str, Any]) -> None:
    name, arguments = params["name"], params["arguments"]
    tool = globals().get(f"tool_{name}")
    if tool is None:
        send({"id": number, "error": {"code": -32602, "message": f"unknown tool {name}"}})
        return
    result = tool(number, arguments, params.get("_meta", {}))
    if result is not None:
        send({"id": number, "result": result})


def tool_echo(_: int, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    return text(json.dumps({"arguments": arguments, "meta": meta}))


def tool_fail(*_: object) -> dict[str, Any]:
    return text("it failed", error=True)


def tool_progress(_: int, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    token = meta.get("progressToken")
    for token_said in ("somebody-else", token):
        params = {"progressToken": token_said, "progress": 1, "total": 2}
        send({"method": "notifications/progress", "params": params})
    send({"method": "notifications/message", "params": {"level": "info", "data": "half"}})
    return text("done")


def tool_pid(*_: object) -> dict[str, Any]:
    return text(str(os.getpid()))


def tool_env(*_: object) -> dict[str, Any]:
    return text(json.dumps(dict(os.environ)))


def tool_wait(number: int, *_: object) -> None:
    WAITING.append(number)
    send({"method": "notifications/message", "params": {"level": "info", "data": "waiting"}})


def tool_release(*_: object) -> dict[str, Any]:
    for number in reversed(WAITING):
        send({"id": number, "result": text(f"released {number}")})
    WAITING.clear()
    return text("released")


def tool_die(_: int, arguments: dict[str, Any], meta: dict[str, Any]) -> None:
    with Path(arguments["counter"]).open("a", encoding="utf-8") as counter:
        counter.write("x")
    os._exit(3)


def tool_huge(_: int, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    return text("x" * arguments["bytes"])


def tool_noise(number: int, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    print("a print that got away", flush=True)  # noqa: T201 - this is the misbehaviour
    print(flush=True)  # noqa: T201 - as above
    send({"id": 999_999, "result": text("for nobody")})
    send({"id": "text", "result": text("for nobody")})
    sys.stderr.write("x" * 100_000)
    return text("after the noise")


def tool_asks(*_: object) -> dict[str, Any]:
    send({"id": "s1", "method": "ping"})
    pong = read()
    send({"id": "s2", "method": "roots/list"})
    refused = read()
    return text(json.dumps([pong, refused]))


def tool_changed(*_: object) -> dict[str, Any]:
    send({"method": "notifications/tools/list_changed"})
    return text("changed")


def tool_child(*_: object) -> dict[str, Any]:
    child = subprocess.Popen(  # a grandchild that would outlive us
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return text(str(child.pid))


def tool_orphan(*_: object) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    sys.stderr.write(str(child.pid))
    os._exit(3)


def tool_mute(*_: object) -> None:
    os.close(1)
    globals()["read"] = forever


def tool_deaf(*_: object) -> None:
    os.close(0)
    globals()["read"] = forever


def tool_idle(*_: object) -> dict[str, Any]:
    globals()["read"] = forever
    return text("will not read")


def tool_babble(_: int, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.write("\n" * arguments["lines"])
    return text("after the flood")


def tool_last_words(number: int, *_: object) -> None:
    send({"id": number, "result": text("x" * 60_000)})
    os._exit(0)


def forever() -> dict[str, Any]:
    import signal  # noqa: PLC0415 - few tools pay for it

    while True:
        signal.pause()


def tool_other_id(number: int, *_: object) -> None:
    line = '{"jsonrpc":"2.0","id":' + str(number) + ',"result":{"content":[]},"result":{}}'
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tool_input(*_: object) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": {}}


def tool_stubborn(*_: object) -> dict[str, Any]:
    import signal  # noqa: PLC0415 - only this tool pays for it

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    globals()["read"] = signal.pause
    return text("will not leave")


def main() -> None:
    if "--refuse" in sys.argv:
        sys.stderr.write("no licence found\n")
        raise SystemExit(4)
    if "--never" in sys.argv:
        tool_stubborn()
        Path(sys.argv[-1]).write_text(str(os.getpid()), encoding="ascii")
        forever()
    while True:
        message = globals()["read"]()
        method, number = message.get("method"), message.get("id")
        if method == "initialize":
            version = "1999-01-01" if "--ancient" in sys.argv else "2025-11-25"
            send({"id": number, "result": {"protocolVersion": version, "capabilities": {}}})
        elif method == "tools/list":
            list_tools(number, message["params"])
        elif method == "tools/call":
            call(number, message["params"])


if __name__ == "__main__":
    main()
