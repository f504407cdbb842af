"""The same stack without governance: what any thin MCP proxy has to do, and nothing more.

Read the envelope, look up where the tool lives, give it its own name, forward the arguments as
they came, answer with the caller's id. Server, client, pool and codecs are the gateway's own, so
that the ratio shows governance and not another library. With `--client aiohttp` it forwards through
that library instead, as a proxy does whose author wrote no client.

`python -m bench.bare <upstream url> [--client own|aiohttp]` prints its port.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import msgspec
import orjson
from msgspec import Raw, Struct
from multidict import CIMultiDict
from yarl import URL

from bench.serving import Message, Receive, Send, read_body, send_json, serve
from bench.upstream import MODERN
from connectors.http_pool import HttpPool, build_head, read_target

Client = Callable[[bytes], Awaitable[bytes]]

_TOOLS: Final = {"bench__refund": b"refund", "bench__echo": b"echo"}
_META: Final = (
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": MODERN,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "refund",
}
_RESULT_MAX: Final = 8_388_608
_TIMEOUT_S: Final = 60.0


class _Params(Struct):
    name: str
    arguments: Raw = Raw(b"{}")


class _Request(Struct):
    id: str | int
    method: str
    params: _Params


class _Answer(Struct):
    result: Raw


_request: Final = msgspec.json.Decoder(_Request).decode
_answer: Final = msgspec.json.Decoder(_Answer).decode


class BareProxy:
    """Forwards `tools/call` to one upstream."""

    def __init__(self, client: Client) -> None:
        self._post = client

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del scope
        request = _request(await read_body(receive))
        tool = _TOOLS.get(request.params.name)
        if tool is None or request.method != "tools/call":
            await send_json(send, 404, b'{"error":"there is no such tool"}')
            return
        body = (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
            b'"params":{"name":"%b","arguments":%b,"_meta":%b}}'
            % (tool, bytes(request.params.arguments), _META)
        )
        result = bytes(_answer(await self._post(body)).result)
        text = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(request.id), result)
        await send_json(send, 200, text)


def build_own_client(url: str) -> Client:
    """Return the gateway's own client."""
    pool, target = HttpPool(), read_target(url)
    head = build_head("POST", target, _HEADERS)

    async def post(body: bytes) -> bytes:
        response = await pool.post(target, head, body, limit=_RESULT_MAX, timeout_s=_TIMEOUT_S)
        return await response.read()

    return post


def build_aiohttp_client(url: str) -> Client:
    """Return a client on aiohttp, with everything turned off that it does not need here."""
    session: aiohttp.ClientSession | None = None
    target, headers = URL(url), CIMultiDict(_HEADERS)

    async def post(body: bytes) -> bytes:
        nonlocal session
        if session is None:  # in the running loop
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=256),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
            )
        async with session.post(
            target, data=body, headers=headers, allow_redirects=False
        ) as response:
            return await response.read()

    return post


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--client", choices=("own", "aiohttp"), default="own")
    chosen = parser.parse_args()
    build = build_own_client if chosen.client == "own" else build_aiohttp_client
    serve(BareProxy(build(chosen.url)))
