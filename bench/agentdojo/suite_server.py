"""One suite as an MCP server over streamable HTTP, with a side socket for the bench.

    python -m bench.agentdojo.suite_server SUITE SOCKET

Runs where `agentdojo` is installed. The first line on stdout is the port of `/mcp`. The gateway
sees that alone. The bench asks on the Unix socket SOCKET, one JSON object a line: which runs there
are (`plan`), a fresh environment for one (`reset`), what has become of it (`judge`). So nothing
that says which run it is reaches the gateway or a policy.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import pickle
import socket
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

import uvicorn
from mcp import types
from mcp.server import Server
from mcp.shared.exceptions import MCPError

from bench.agentdojo.attacks import attack_calls, attack_text

VERSION: Final = "v1.2.2"
"""The newest benchmark version that the package holds."""

_LINE_MAX: Final = 1 << 24


def load_suite(name: str) -> Any:  # noqa: ANN401 - untyped package
    """Return a suite of the newest version."""
    return importlib.import_module("agentdojo.task_suite.load_suites").get_suite(VERSION, name)


class Stage:
    """A suite and the environment that its tools act on now."""

    def __init__(self, suite: Any) -> None:  # noqa: ANN401 - untyped package
        self._suite = suite
        runtime = importlib.import_module("agentdojo.functions_runtime")
        self._runtime = runtime.FunctionsRuntime(suite.tools)
        self._call_type = runtime.FunctionCall
        self._trace: list[Any] = []
        self._before = self._now = suite.load_and_inject_default_environment({})
        self._seen: dict[str, tuple[int, list[str]]] = {}
        self._made: dict[tuple[str, str], bytes] = {}
        self._plans: dict[tuple[str, str | None], dict[str, Any]] = {}

    @property
    def tools(self) -> dict[str, Any]:
        """The suite's functions by name."""
        return {tool.name: tool for tool in self._suite.tools}

    def call(self, tool: str, args: dict[str, Any]) -> tuple[Any, str | None]:
        """Run a tool on the environment; return its value, or what went wrong."""
        value, error = self._runtime.run_function(self._now, tool, args)
        if error is None:
            self._trace.append(self._call_type(function=tool, args=args))
        return value, error

    def plan(self) -> dict[str, Any]:
        """Return the ids of the user's tasks and of the attacks, in order, with their prompts."""
        return {
            "version": VERSION,
            "tasks": {task.ID: task.PROMPT for task in self._suite.user_tasks.values()},
            "attacks": {task.ID: task.GOAL for task in self._suite.injection_tasks.values()},
        }

    def reset(self, task_id: str, attack_id: str | None) -> dict[str, Any]:
        """Make a fresh environment; return the user's calls, the attack's, and where it is read.

        `read_at` is the place of the first of the user's calls whose answer carries the attack.
        """
        task = self._suite.user_tasks[task_id]
        read_at, vectors = self._find_vectors(task)
        attack = None if attack_id is None else self._suite.injection_tasks[attack_id]
        placed = {} if attack is None else dict.fromkeys(vectors, attack_text(attack.GOAL))
        self._now, self._before = (task.init_environment(self._build(placed)) for _ in range(2))
        self._trace = []
        key = (task_id, attack_id)
        if key not in self._plans:
            fresh = task.init_environment(self._build(placed))
            calls = task.ground_truth(fresh)
            hijacked = [] if attack is None else attack_calls(self._suite.name, attack, fresh)
            self._plans[key] = {
                "calls": [{"tool": call.function, "args": call.args} for call in calls],
                "attack": [call.as_json() for call in hijacked],
                "read_at": read_at,
            }
        return self._plans[key]

    def _build(self, placed: dict[str, str]) -> Any:  # noqa: ANN401 - untyped package
        """Return an environment with these texts in it. Reading one takes long, so it is kept."""
        key = (",".join(placed), next(iter(placed.values()), ""))
        if key not in self._made:
            made = self._suite.load_and_inject_default_environment(placed)
            self._made[key] = pickle.dumps(made)
        return pickle.loads(self._made[key])  # noqa: S301 - written above; twice as fast as a copy

    def judge(self, task_id: str, attack_id: str | None) -> dict[str, bool]:
        """Ask the package whether the user's task, or else the attack, is done."""
        if attack_id is None:
            return {"done": self._ask(self._suite.user_tasks[task_id], "utility")}
        return {"done": self._ask(self._suite.injection_tasks[attack_id], "security")}

    def _ask(self, task: Any, what: str) -> bool:  # noqa: ANN401 - untyped package
        said = task.GROUND_TRUTH_OUTPUT if what == "utility" else ""
        by_trace = getattr(task, f"{what}_from_traces")
        answer = by_trace(said, self._before, self._now, self._trace)
        if answer is None:
            answer = getattr(task, what)(said, self._before, self._now)
        return bool(answer)

    def _find_vectors(self, task: Any) -> tuple[int, list[str]]:  # noqa: ANN401 - untyped package
        """Return where the task first reads something that strangers write, and which places."""
        if task.ID not in self._seen:
            names = list(self._suite.get_injection_vector_defaults())
            canaries = {name: f"CANARY-{name}-CANARY" for name in names}
            environment = task.init_environment(
                self._suite.load_and_inject_default_environment(canaries)
            )
            answers = []
            for call in task.ground_truth(environment.model_copy(deep=True)):
                value, _ = self._runtime.run_function(environment, call.function, call.args)
                answers.append(str(value))
            read = [name for name in names if any(canaries[name] in said for said in answers)]
            first = [any(canaries[name] in said for name in read) for said in answers].index(True)
            self._seen[task.ID] = (first, read)
        return self._seen[task.ID]


def build_server(stage: Stage) -> Server[Any]:
    """Return the suite's tools as an MCP server."""
    pydantic_core = importlib.import_module("pydantic_core")
    definitions = [
        types.Tool(
            name=name,
            description=tool.description,
            input_schema={"properties": {}} | tool.parameters.model_json_schema(),
        )
        for name, tool in stage.tools.items()
    ]

    async def on_list(_: object, __: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=definitions)

    async def on_call(_: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in stage.tools:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool: {params.name}")
        value, error = stage.call(params.name, dict(params.arguments or {}))
        if error is not None:
            return types.CallToolResult(
                content=[types.TextContent(type="text", text=error)], is_error=True
            )
        data = {"result": pydantic_core.to_jsonable_python(value)}
        text = types.TextContent(type="text", text=json.dumps(data))
        return types.CallToolResult(content=[text], structured_content=data)

    return Server("agentdojo", version=VERSION, on_list_tools=on_list, on_call_tool=on_call)


async def answer(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the bench, line by line, until it goes."""
    while line := await reader.readline():
        asked = json.loads(line)
        match asked.pop("ask"):
            case "reset":
                told: dict[str, Any] = stage.reset(**asked)
            case "judge":
                told = stage.judge(**asked)
            case _:
                told = stage.plan()
        writer.write(json.dumps(told, default=str).encode() + b"\n")
        await writer.drain()
    writer.close()


async def serve(arguments: Sequence[str]) -> None:
    """Listen on a free loopback port, and on the side socket, until told to stop."""
    name, path = arguments
    stage = Stage(load_suite(name))
    app = build_server(stage).streamable_http_app(stateless_http=True, json_response=True)
    side = await asyncio.start_unix_server(
        lambda reader, writer: answer(stage, reader, writer), path, limit=_LINE_MAX
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    async with side:
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(sys.argv[1:]))
