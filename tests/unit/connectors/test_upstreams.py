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
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from tests.unit.connectors.calls import HandClock

pytestmark = pytest.mark.req("GW-09")

HTTP = Manifest(id="srv", transport="http", egress=("api.example",))
STDIO = Manifest(id="srv", transport="stdio")
AUTH = UpstreamAuth("Authorization", "env:KEY")


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool() as pool:
        yield pool


def build(pool: HttpPool, manifest: Manifest, endpoint: Endpoint) -> Transport:
    return build_transport(
        manifest, endpoint, pool=pool, clock=HandClock(), limits=Limits(), environ={}
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
        (replace(HTTP, auth=AUTH), Endpoint(url="https://api.example/"), "`KEY` is not set"),
        (HTTP, Endpoint(url="https://api.example/", auth=AUTH), "`KEY` is not set"),
    ],
)
async def test_an_endpoint_that_does_not_fit_the_manifest_is_refused(
    pool: HttpPool, manifest: Manifest, endpoint: Endpoint, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        build(pool, manifest, endpoint)
    assert "pw" not in str(caught.value)
