"""Fetches Client ID Metadata Documents, on behalf of strangers: nothing here trusts a name.

The URL comes from whoever opens the authorization page, so fetching it is a request that somebody
else chooses and the gateway makes from inside its network (SSRF). See `Documents.fetch`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from gateway.adapters.bounded_http import build_client
from gateway.core.oauth.apps import is_allowed_host
from gateway.core.oauth.client_documents import (
    DOCUMENT_MAX_BYTES,
    Document,
    NoDocument,
    find_address_fault,
    is_document_url,
    read_document,
)
from gateway.core.ports import Clock

TIMEOUT_S: Final = 3.0
CACHE_MAX: Final = 256
GOOD_S: Final = 300
BAD_S: Final = 30
"""How long an answer is kept: a failure too, so that asking again costs nobody anything."""
AT_ONCE_MAX: Final = 4

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port → the addresses that they have now. Raises `OSError`."""


async def resolve(host: str, port: int) -> list[str]:
    """Return what the system's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Documents:
    """The `DocumentSource` over HTTPS. `dev` allows http and this machine."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        *,
        clock: Clock,
        dev: bool = False,
        client: httpx.AsyncClient | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._hosts = hosts
        self._clock = clock
        self._dev = dev
        self._client = client or build_client()
        self._resolve = resolve
        self._kept: OrderedDict[str, tuple[int, Document | NoDocument]] = OrderedDict()
        self._turn = asyncio.Semaphore(AT_ONCE_MAX)

    async def fetch(self, url: str) -> Document | NoDocument:
        """Return the document at `url`, at most five minutes old."""
        # 1. URLs that no two parsers read alike, and hosts that nobody allowed.
        if not is_document_url(url, dev=self._dev):
            return NoDocument("the `client_id` is no URL that a document may have")
        if not is_allowed_host(url, self._hosts):
            return NoDocument("documents of this host are not accepted here")
        # 2. Floods: one answer serves everybody for a while, and few are fetched at once.
        now_s = self._clock.monotonic_ns() // 1_000_000_000
        kept = self._kept.get(url)
        if kept is not None and now_s < kept[0]:
            return kept[1]
        if self._turn.locked():
            return NoDocument("too many documents are being fetched; try again")
        async with self._turn:
            found = await self._fetch(url)
        self._keep(url, found, now_s)
        return found

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    def _keep(self, url: str, found: Document | NoDocument, now_s: int) -> None:
        self._kept[url] = (now_s + (GOOD_S if isinstance(found, Document) else BAD_S), found)
        self._kept.move_to_end(url)
        while len(self._kept) > CACHE_MAX:
            self._kept.popitem(last=False)

    async def _fetch(self, url: str) -> Document | NoDocument:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._ask(url)
        except (TimeoutError, httpx.TimeoutException):
            return NoDocument(f"did not come within {TIMEOUT_S:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            return NoDocument("could not be fetched")

    async def _ask(self, url: str) -> Document | NoDocument:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # 3. Names that lead inside. Every address is looked at, and the connection goes to the
        # one that was: a second look-up could answer otherwise (DNS rebinding).
        addresses = await self._resolve(host, port)
        if not addresses:
            return NoDocument("has a host without an address")
        for address in addresses:
            if (fault := find_address_fault(address, dev=self._dev)) is not None:
                return NoDocument(f"has a host whose address {fault}")
        pinned = httpx.URL(url).copy_with(host=addresses[0])
        # The certificate has to be that of the name, whatever is connected to. So each connection
        # is closed: an open one is known by its address, and was perhaps made to another name.
        headers = {"host": parts.netloc, "accept": "application/json", "connection": "close"}
        extensions = {"sni_hostname": host}
        async with self._client.stream(
            "GET", pinned, headers=headers, extensions=extensions, timeout=TIMEOUT_S
        ) as response:
            return await _read(url, response)


async def _read(url: str, response: httpx.Response) -> Document | NoDocument:
    # 4. Redirects, which could lead inside after all.
    if response.status_code != httpx.codes.OK:
        return NoDocument(f"was answered with status {response.status_code}, not 200")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return NoDocument("is not of the type `application/json`")
    # 5. Bodies without an end, and small ones that unpack into large ones.
    if response.headers.get("content-encoding", "identity") != "identity":
        return NoDocument("is packed")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > DOCUMENT_MAX_BYTES:
            return NoDocument(f"is larger than {DOCUMENT_MAX_BYTES} bytes")
    return read_document(url, bytes(body))
