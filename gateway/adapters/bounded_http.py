"""One HTTP exchange with somebody who may hang, lie or never stop talking.

For the few requests that leave the gateway off the call path: witnesses and anchors.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final, Literal

import httpx
from msgspec import Struct

TIMEOUT_S: Final = 10.0
REPLY_MAX_BYTES: Final = 16_384
_NOWHERE: Final = (ValueError, ExceptionGroup)
"""What the client raises for host names and ports that there cannot be; others may name them."""


class Reply(Struct, frozen=True):
    """A whole answer, as it came over the wire."""

    status: int
    content_type: str
    body: bytes


class NoReply(Struct, frozen=True):
    """There is none, and why."""

    reason: Literal["unreachable", "timed_out", "too_large"]


def build_client() -> httpx.AsyncClient:
    """Return a client that follows no redirect and takes nothing from the environment."""
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        verify=ssl.create_default_context(),
        headers={"accept-encoding": "identity", "user-agent": "countersign"},
        limits=httpx.Limits(max_connections=64, keepalive_expiry=300),
    )


async def exchange(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    max_bytes: int = REPLY_MAX_BYTES,
) -> Reply | NoReply:
    """Send a request and read its answer, `max_bytes` at most, within `timeout_s` in all.

    The time is that of the whole exchange: a peer that sends a byte now and then gains nothing.
    The body is not decompressed: a small answer cannot become a large one.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream(
                method, url, content=content, headers=dict(headers or {}), timeout=timeout_s
            ) as response,
        ):
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > max_bytes:
                    return NoReply("too_large")
            return Reply(
                response.status_code, response.headers.get("content-type", ""), bytes(body)
            )
    except (TimeoutError, httpx.TimeoutException):
        return NoReply("timed_out")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, *_NOWHERE):
        return NoReply("unreachable")
