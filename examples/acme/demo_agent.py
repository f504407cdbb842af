"""The agent of the demo: a run, its token, and the official MCP client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import httpx2
from joserfc import jws
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent

from examples.acme.demo_ground import AGENT, LAUNCHER, Ground
from gateway.adapters.keys.token_keys import load_token_key

ORDERS: Final = ("ord_5001", "ord_5002", "ord_5006")
"""The orders that this morning's tickets are about."""

RECIPIENTS: Final = ("maria.keller@keller-optik.example", "support@acme.example")
DEADLINE_S: Final = 1800


@dataclass(frozen=True)
class Answer:
    """What a tool call came to: `ok`, `refused`, `pending` or `error`, and why."""

    kind: str
    code: str = ""
    text: str = ""
    value: dict[str, Any] = field(default_factory=dict)


class Agent:
    """An agent that calls tools through the gateway. It knows nothing of policies or approvals."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def wire(self) -> str:
        """The protocol version that client and gateway have agreed on."""
        return str(self._client.protocol_version)

    async def tools(self) -> list[str]:
        """Return the names of the tools that this agent is shown."""
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def call(self, name: str, /, **arguments: object) -> Answer:
        """Call a tool."""
        try:
            result = await self._client.call_tool(name, arguments)
        except MCPError as error:
            return Answer("error", str(error.error.code), error.error.message)
        return _read(result)


def _read(result: CallToolResult) -> Answer:
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    value = result.structured_content if isinstance(result.structured_content, dict) else {}
    refusal = (result.meta or {}).get("countersign/refusal")
    if refusal is not None:
        return Answer("refused", refusal["code"], text, value)
    if value.get("status") == "pending_approval":
        return Answer("pending", value["reason"], text, value)
    return Answer("error" if result.is_error else "ok", "", text, value)


@asynccontextmanager
async def connect(ground: Ground, token: str) -> AsyncIterator[Agent]:
    """Connect the official client; all that it needs to know is a URL and a header."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        transport = streamable_http_client(f"{ground.url}/mcp", http_client=http)
        async with Client(transport) as client:
            yield Agent(client)


def api(ground: Ground) -> httpx.AsyncClient:
    """Return a plain HTTP client of the gateway; no proxy stands before loopback."""
    return httpx.AsyncClient(base_url=ground.url, trust_env=False, timeout=30)


def describe_run(ground: Ground) -> dict[str, Any]:
    """What the ticket system asks for: no more than this morning's three tickets need."""
    return {
        "agent": AGENT,
        "grants": [
            {"server": "acme", "effects": ["read"]},
            {
                "server": "acme",
                "tool": "refunds_create",
                "constraints": {"/order_id": {"one_of": ORDERS}, "/amount_cents": {"max": 100_000}},
            },
            {"server": "acme", "tool": "email_send", "max_calls": 2},
            {"server": "git", "constraints": {"/repo_path": {"one_of": [str(ground.repository)]}}},
        ],
        "allowed_values": {"acme.email_send#/to": RECIPIENTS},
        "deadline_s": DEADLINE_S,
        "workflow": "tickets",
    }


async def launch(ground: Ground) -> dict[str, Any]:
    """Create the run, as the ticket system; keep its credential for the agent."""
    async with api(ground) as http:
        login = (LAUNCHER, ground.secret(LAUNCHER))
        reply = await http.post("/v1/runs", auth=login, json=describe_run(ground))
    reply.raise_for_status()
    run: dict[str, Any] = reply.json()
    ground.keep_secret("run", f"{run['run_id']}:{run['run_credential']}")
    return run


async def fetch_token(ground: Ground) -> dict[str, Any]:
    """Turn the run's credential into an access token, as the agent."""
    name, _, credential = ground.secret("run").partition(":")
    form = {"grant_type": "client_credentials"}
    async with api(ground) as http:
        reply = await http.post("/oauth/token", auth=(name, credential), data=form)
    reply.raise_for_status()
    token: dict[str, Any] = reply.json()
    return token


def read_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token, unverified."""
    header, claims, _ = token.split(".")
    return _decode(header), _decode(claims)


def make_bad_tokens(ground: Ground, token: str) -> dict[str, str]:
    """Return tokens that must not work, by what is wrong with them.

    Two are signed with the gateway's own key, borrowed from its folder: only what they say is bad.
    """
    head, body, signature = token.split(".")
    _, claims = read_token(token)
    past = {name: claims[name] - 3600 for name in ("iat", "nbf", "exp")}
    unsigned = _encode({"typ": "at+jwt", "alg": "none"})
    return {
        "expired": _sign(ground, claims | past),
        "for another service": _sign(ground, claims | {"aud": "https://elsewhere.example"}),
        "altered": f"{head}.{_encode(claims | {'sub': 'administrator'})}.{signature}",
        "unsigned": f"{unsigned}.{body}.",
    }


def _sign(ground: Ground, claims: dict[str, Any]) -> str:
    key = load_token_key(ground.folder / "keys" / "tokens.pem")
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    return jws.serialize_compact(header, json.dumps(claims), key, ["ES256"])


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(part: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value
