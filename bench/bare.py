"""The same stack without governance: what any thin MCP proxy has to do, and nothing more.

Read the envelope, look up where the tool lives, give it its own name, forward the arguments as
they came, answer with the caller's id. Server, client, pool and codecs are the gateway's own, so
that the ratio shows governance and not another library.

`python -m bench.bare <upstream url>` prints its port.
"""

from __future__ import annotations

import sys
from typing import Final

import aiohttp
import msgspec
import orjson
from msgspec import Raw, Struct
from multidict import CIMultiDict
from yarl import URL

from bench.serving import Message, Receive, Send, read_body, send_json, serve

_ROUTES: Final = {"bench__refund": "refund", "bench__echo": "echo"}
_META: Final = (
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)


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

    def __init__(self, url: str) -> None:
        self._url = URL(url)
        self._session: aiohttp.ClientSession | None = None
        self._headers = {
            tool: CIMultiDict(
                {
                    "Content-Type": "application/json",
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": "2026-07-28",
                    "Mcp-Method": "tools/call",
                    "Mcp-Name": tool,
                }
            )
            for tool in _ROUTES.values()
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del scope
        request = _request(await read_body(receive))
        tool = _ROUTES.get(request.params.name)
        if tool is None or request.method != "tools/call":
            await send_json(send, 404, b'{"error":"there is no such tool"}')
            return
        result = await self._forward(tool, bytes(request.params.arguments))
        text = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(request.id), result)
        await send_json(send, 200, text)

    async def _forward(self, tool: str, arguments: bytes) -> bytes:
        if self._session is None:  # in the running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=256),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
            )
        body = (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
            b'"params":{"name":"%b","arguments":%b,"_meta":%b}}' % (tool.encode(), arguments, _META)
        )
        async with self._session.post(
            self._url, data=body, headers=self._headers[tool], allow_redirects=False
        ) as response:
            return bytes(_answer(await response.read()).result)


if __name__ == "__main__":
    serve(BareProxy(sys.argv[1]))
