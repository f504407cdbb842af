"""A real gateway on loopback, in front of servers of the official SDK, one for each wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio
import uvicorn
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from starlette.applications import Starlette

from gateway.adapters.audit.audit_reader import read_records
from gateway.wiring.gateway import Gateway
from tests.conformance.deployment import deploy, launched_runs
from tests.conformance.fixture_tools import Answer, Request, Toolbox, log, said
from tests.integration.connectors.servers import legacy_only, serve

PATIENCE_S = 10
TEXT = {"type": "string"}
REGION = {"type": "string", "x-mcp-header": "Region"}


class Upstreams:
    """The tools behind the gateway. `slow` says that it was `entered` and waits at a `gate`."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.toolbox = Toolbox({})
        add_tools(self)

    def app(self) -> Starlette:
        """Return a server of its own with these tools."""
        server: Server[Any] = Server(
            "upstream",
            get_tool_input_schema=self.toolbox.input_schema,
            on_list_tools=self.toolbox.on_list,
            on_call_tool=self.toolbox.on_call,
        )
        return server.streamable_http_app()


def add_tools(upstreams: Upstreams) -> None:
    toolbox = upstreams.toolbox

    @toolbox.add("echo", "Says what was said", properties={"value": TEXT, "region": REGION})
    async def _echo(_: Request, params: types.CallToolRequestParams) -> Answer:
        return said((params.arguments or {}).get("value", "nothing"))

    @toolbox.add("talk", "Reports progress and logs, twice each")
    async def _talk(request: Request, _: types.CallToolRequestParams) -> Answer:
        for done in (1, 2):
            await request.session.report_progress(done, 2, f"step {done}")
            await log(request, f"line {done}")
        return said("done talking")

    @toolbox.add("slow", "Reports progress, then waits to be let through")
    async def _slow(request: Request, _: types.CallToolRequestParams) -> Answer:
        await request.session.report_progress(1, 2, "waiting")
        upstreams.entered.set()
        await asyncio.to_thread(upstreams.gate.wait, PATIENCE_S)
        return said("let through")


class Governed:
    """A served gateway with its log, and tokens: for all servers, and for `legacy` only."""

    def __init__(
        self, url: str, audit: Path, upstreams: Upstreams, *, token: str, narrow_token: str
    ) -> None:
        self.url = url
        self.upstreams = upstreams
        self.headers = {"Authorization": f"Bearer {token}"}
        self.narrow_headers = {"Authorization": f"Bearer {narrow_token}"}
        self._audit = audit

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of one type, oldest first."""
        return [record for record in read_records(self._audit) if record["type"] == kind]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - of a file that the gateway writes
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def client(self, mode: str, path: str = "/mcp", **options: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - the client's own
        """Connect the official client in one of its modes."""
        async with httpx2.AsyncClient(headers=self.headers, timeout=PATIENCE_S) as http:
            transport = streamable_http_client(self.url + path, http_client=http)
            async with Client(transport, mode=mode, **options) as client:
                yield client


@contextlib.asynccontextmanager
async def served(app: Any, listener: socket.socket) -> AsyncIterator[None]:  # noqa: ANN401 - ASGI
    """Serve in this loop, with the parser that `countersign serve` uses."""
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def governed(tmp_path_factory: Any) -> AsyncIterator[Governed]:  # noqa: ANN401 - pytest's own
    """A gateway with the upstreams `modern` and `legacy`, which speak one wire each."""
    upstreams, folder = Upstreams(), tmp_path_factory.mktemp("gateway")
    listener = socket.create_server(("127.0.0.1", 0))
    with serve(upstreams.app()) as modern, serve(legacy_only(upstreams.app())) as legacy:
        urls = {"modern": f"{modern}/mcp", "legacy": f"{legacy}/mcp"}
        made = await deploy(folder, listener.getsockname()[1], urls, prefix=True)
        gateway = Gateway(made.config)
        await gateway.start()
        try:
            assert gateway.app is not None
            token = await launched_runs(gateway.app, made)("wide")
            narrow = await launched_runs(gateway.app, made, ["legacy"])("narrow")
            url, audit = made.config.public_url, folder / "audit"
            async with served(gateway.app, listener):
                yield Governed(url, audit, upstreams, token=token, narrow_token=narrow)
        finally:
            upstreams.gate.set()
            await gateway.stop()
