"""The official MCP SDK connects by URL alone: a person signs in and consents in a real browser."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from gateway.adapters.audit.audit_reader import read_records
from tests.browser import Browser, open_browser
from tests.conformance.authorization import (
    ALLOW,
    Door,
    interactive_gateway,
    set_up_person,
    sign_in,
)
from tests.integration.authorize.listening import (
    Callback,
    describe,
    listening,
    listening_for_codes,
    make_certificate,
)

pytestmark = [
    pytest.mark.req("TOK-02"),
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium"),
]


class Storage(TokenStorage):
    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Scene(NamedTuple):
    door: Door
    browser: Browser
    password: str
    callback: Callback
    document_url: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Scene]:
    """A gateway, its first admin, a browser, and an app's own machine."""
    public, tls = make_certificate(tmp_path_factory.mktemp("tls"))
    with ExitStack() as stack:
        callback = stack.enter_context(listening_for_codes())
        said: dict[str, bytes] = {}
        origin = stack.enter_context(
            listening(lambda path: (200, "application/json", said[path]), tls)
        )
        url = f"{origin}/client.json"
        said["/client.json"] = describe(url, callback.url)
        env = {**os.environ, "SSL_CERT_FILE": str(public)}
        door = stack.enter_context(interactive_gateway(upstream, callback.url, env=env))
        browser = stack.enter_context(open_browser())
        password = set_up_person(browser, door)
        yield Scene(door, browser, password, callback, url)


async def connect(scene: Scene, storage: Storage, document_url: str | None) -> str:
    """Connect by URL alone and call a tool; the person signs in and allows the app."""
    scene.browser.forget()

    def consent(url: str) -> None:
        scene.browser.open(url)
        sign_in(scene.browser, scene.password)
        scene.browser.click(ALLOW)
        scene.browser.wait_for("document.body.innerText.includes('back at the app')")

    async def redirect(url: str) -> None:
        await asyncio.to_thread(consent, url)

    async def come_back() -> AuthorizationCodeResult:
        came = await asyncio.to_thread(scene.callback.wait)
        return AuthorizationCodeResult(
            code=came["code"], state=came.get("state"), iss=came.get("iss")
        )

    provider = OAuthClientProvider(
        server_url=f"{scene.door.url}/mcp",
        client_metadata=OAuthClientMetadata(
            client_name="SDK",
            redirect_uris=[AnyUrl(scene.callback.url)],
            token_endpoint_auth_method="none",
            grant_types=["authorization_code", "refresh_token"],
        ),
        storage=storage,
        redirect_handler=redirect,
        callback_handler=come_back,
        client_metadata_url=document_url,
    )
    async with httpx2.AsyncClient(auth=provider, timeout=60) as http:
        transport = streamable_http_client(f"{scene.door.url}/mcp", http_client=http)
        async with Client(transport) as client:
            result = await client.call_tool("test_simple_text", {})
    assert not result.is_error
    return result.content[0].text  # type: ignore[union-attr]


def records(scene: Scene, kind: str) -> list[dict[str, object]]:
    return [one for one in read_records(Path(scene.door.folder) / "audit") if one["type"] == kind]


async def test_a_client_that_describes_itself_at_a_url_calls_a_tool(scene: Scene) -> None:
    storage = Storage()
    text = await connect(scene, storage, scene.document_url)
    assert text.startswith("This is a simple text")
    assert storage.client is not None
    assert storage.client.client_id == scene.document_url
    assert storage.tokens is not None
    assert storage.tokens.refresh_token
    granted = records(scene, "authorization.grant")[-1]
    assert (granted["client"], granted["agent"]) == (scene.document_url, "harness")
    assert records(scene, "call.outcome")


async def test_a_client_that_registers_itself_calls_a_tool(scene: Scene) -> None:
    storage = Storage()
    text = await connect(scene, storage, None)
    assert text.startswith("This is a simple text")
    assert storage.client is not None
    assert str(storage.client.client_id).startswith("dyn~")
    registered = records(scene, "client.register")[-1]
    assert registered["client"] == storage.client.client_id


async def test_an_app_takes_its_own_authority_back_and_nobody_elses(scene: Scene) -> None:
    storage = Storage()
    await connect(scene, storage, scene.document_url)
    assert storage.tokens is not None
    assert storage.tokens.refresh_token is not None
    refresh, token = storage.tokens.refresh_token, storage.tokens.access_token
    ask = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=scene.door.url, trust_env=False) as http:

        async def post(path: str, **form: str) -> httpx2.Response:
            return await http.post(path, data=form)

        mine, other = scene.document_url, "app"
        assert (await http.get("/v1/tools", headers=ask)).status_code == 200
        # A public app shows nothing but its name: it learns nothing of tokens by it.
        said = await post("/oauth/introspect", token=token, client_id=mine)
        assert said.json() == {"active": False}
        # Another app's name ends nothing.
        await post("/oauth/revoke", token=refresh, client_id=other)
        assert (await http.get("/v1/tools", headers=ask)).status_code == 200
        assert (await post("/oauth/revoke", token=refresh, client_id=mine)).status_code == 200
        assert (await http.get("/v1/tools", headers=ask)).status_code == 401
        again = await post(
            "/oauth/token", grant_type="refresh_token", refresh_token=refresh, client_id=mine
        )
    assert again.json()["error"] == "invalid_grant"
    assert records(scene, "run.end")
