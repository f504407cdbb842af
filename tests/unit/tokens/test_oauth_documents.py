from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.oauth.metadata import is_resource, read_scopes

if TYPE_CHECKING:
    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("GW-10")

URL = "https://gateway.test"


async def test_the_server_metadata_leads_to_the_endpoints(world: World) -> None:
    reply = await world.client.get("/.well-known/oauth-authorization-server")
    assert reply.headers["cache-control"] == "public, max-age=300"
    said = reply.json()
    assert said["issuer"] == URL
    assert said["token_endpoint"] == URL + "/oauth/token"
    assert said["grant_types_supported"] == [
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]
    assert said["response_types_supported"] == []
    keys = (await world.client.get(said["jwks_uri"])).json()
    assert keys == world.issuer.jwks()


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/shop", "/mcp/never-heard-of"])
async def test_each_resource_names_itself_and_its_authorization_server(
    world: World, path: str
) -> None:
    reply = await world.client.get("/.well-known/oauth-protected-resource" + path)
    said = reply.json()
    assert said["resource"] == URL + path
    assert said["authorization_servers"] == [URL]
    assert said["scopes_supported"] == ["tools:list", "tools:call"]
    assert said["bearer_methods_supported"] == ["header"]


async def test_what_cannot_be_a_server_is_no_resource(world: World) -> None:
    reply = await world.client.get("/.well-known/oauth-protected-resource/mcp/Not_A_Server")
    assert reply.status_code == 404


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://gateway.test.evil.test",
        "https://gateway.test/mcp/",
        "https://gateway.test/mcp/shop/x",
        "https://gateway.test/mcp/../x",
        "http://gateway.test",
        "https://gateway.test/mcp?x=1",
        "https://gateway.test//",
    ],
)
def test_what_is_not_the_gateways_is_no_resource(text: str) -> None:
    assert is_resource(text, URL) is (text == "https://gateway.test/mcp/")


def test_scopes_are_both_unless_named() -> None:
    assert read_scopes(None) == frozenset({"tools:list", "tools:call"})
    assert read_scopes("tools:call") == frozenset({"tools:call"})
    assert read_scopes("") is None
    assert read_scopes("tools:call tools:admin") is None
