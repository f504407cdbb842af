from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from connectors.auth_binding import UpstreamAuth
from connectors.http_pool import HttpPool
from connectors.manifest import Manifest
from connectors.mcp_http import McpHttpTransport
from connectors.mcp_stdio import McpStdioTransport
from connectors.upstreams import Endpoint, Transport, build_transport
from gateway.adapters.broker.broker_memory import MemoryBroker
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from tests.unit.connectors.calls import HandClock

pytestmark = pytest.mark.req("GW-09")

HTTP = Manifest(id="srv", transport="http", egress=("api.example",))
STDIO = Manifest(id="srv", transport="stdio")
AUTH = UpstreamAuth("Authorization", "env:KEY")
VARIABLE = UpstreamAuth(kind="env", variable="KEY", value_from="env:KEY")
ELSEWHERE = UpstreamAuth(kind="oauth_client_credentials", token_url="https://evil.example/token")


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool() as pool:
        yield pool


def build(pool: HttpPool, manifest: Manifest, endpoint: Endpoint) -> Transport:
    return build_transport(
        manifest, endpoint, pool=pool, clock=HandClock(), limits=Limits(), broker=MemoryBroker()
    )


async def test_each_kind_gets_its_transport(pool: HttpPool) -> None:
    http = build(pool, HTTP, Endpoint(url="https://api.example/mcp"))
    assert isinstance(http, McpHttpTransport)
    assert http.server_id == "srv"
    stdio = build(pool, STDIO, Endpoint(command=("server",), cwd=Path("/"), shared=True))
    assert isinstance(stdio, McpStdioTransport)
    assert stdio.server_id == "srv"


@pytest.mark.parametrize(
    ("manifest", "endpoint", "problem"),
    [
        (STDIO, Endpoint(url="https://api.example/"), "give its `command`"),
        (HTTP, Endpoint(command=("server",)), "give its `url`"),
        (HTTP, Endpoint(url="https://evil.example/"), "not in its manifest's `egress`"),
        (HTTP, Endpoint(url="file:///etc/passwd"), r"must be http\(s\)"),
        (HTTP, Endpoint(url="https:///mcp"), r"must be http\(s\)"),
        (HTTP, Endpoint(url="https://me:pw@api.example/"), "without a password"),
        (HTTP, Endpoint(url="https://api.example/kø"), "`srv`: an upstream URL is plain ASCII"),
        (replace(HTTP, auth=VARIABLE), Endpoint(url="https://api.example/"), "cannot carry"),
        (HTTP, Endpoint(url="https://api.example/", auth=VARIABLE), "cannot carry"),
        (STDIO, Endpoint(command=("server",), auth=AUTH), "cannot carry"),
        (HTTP, Endpoint(url="https://api.example/", auth=ELSEWHERE), "`evil.example` of the"),
    ],
)
async def test_an_endpoint_that_does_not_fit_the_manifest_is_refused(
    pool: HttpPool, manifest: Manifest, endpoint: Endpoint, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        build(pool, manifest, endpoint)
    assert "pw" not in str(caught.value)
