"""The official MCP SDK finds its way from a 401 to a token by itself."""

from __future__ import annotations

import httpx
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError, TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

pytestmark = [pytest.mark.req("GW-10"), pytest.mark.network]


class Storage(TokenStorage):
    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise NotImplementedError


def provider(url: str, client_id: str, secret: str, storage: Storage) -> httpx2.Auth:
    return ClientCredentialsOAuthProvider(
        server_url=f"{url}/mcp",
        storage=storage,
        client_id=client_id,
        client_secret=secret,
        issuer=url,
    )


async def test_an_agents_secret_opens_the_gateway(url: str) -> None:
    storage = Storage()
    async with httpx2.AsyncClient(auth=provider(url, "bot", "bot-secret", storage)) as client:
        reply = await client.post(f"{url}/mcp", json={})
    assert (reply.status_code, reply.text) == (200, "bot of bot")
    assert storage.tokens is not None
    assert storage.tokens.expires_in == 300


async def test_a_run_credential_opens_the_gateway(url: str) -> None:
    async with httpx.AsyncClient(auth=("workflow", "workflow-secret")) as launcher:
        body = {"agent": "bot", "grants": [{"server": "shop", "effects": ["read"]}]}
        run = (await launcher.post(f"{url}/v1/runs", json=body)).json()
    auth = provider(url, run["run_id"], run["run_credential"], Storage())
    async with httpx2.AsyncClient(auth=auth) as client:
        reply = await client.post(run["mcp_url"], json={})
    assert (reply.status_code, reply.text) == (200, "bot of workflow")


async def test_a_wrong_secret_opens_nothing(url: str) -> None:
    storage = Storage()
    async with httpx2.AsyncClient(auth=provider(url, "bot", "wrong", storage)) as client:
        with pytest.raises(OAuthFlowError):
            await client.post(f"{url}/mcp", json={})
    assert storage.tokens is None
