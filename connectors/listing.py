"""What an upstream offers: its `tools/list`, read strictly and with the bytes kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from connectors import mcp_wire as wire
from gateway.core.calls.call import UpstreamResult
from gateway.core.canonical import digest, digest_of
from gateway.core.errors import RequestError, UpstreamError
from gateway.core.strict_json import parse

_DEFINITION_DEPTH_MAX: Final = 64


class Offer(Struct, frozen=True):
    """One definition as an upstream offers it: its bytes, its one meaning, its digest."""

    name: str
    raw: bytes
    value: dict[str, Any]
    digest: str


async def collect(
    ask: Callable[[str | None], Awaitable[UpstreamResult]], *, within_s: float
) -> list[bytes]:
    """Ask for page after page, by its cursor; return every definition, byte for byte as sent.

    Raises `UpstreamError`, also where all pages together take longer than `within_s`.
    """
    pages = wire.Listing()
    try:
        async with asyncio.timeout(within_s):
            cursor = pages.add(await ask(None))
            while cursor is not None:
                cursor = pages.add(await ask(cursor))
    except TimeoutError:
        raise UpstreamError(
            "the upstream did not list its tools in time",
            code="upstream_timeout",
            delivery="not_sent",
        ) from None
    return pages.definitions


def definition_digest(definition: Mapping[str, Any]) -> str:
    """Return what a reviewer approves: the SHA-256 of the definition's RFC 8785 form.

    Raises `ValueError` for a definition that has none.
    """
    return digest_of(definition)


def read_offers(definitions: Sequence[bytes]) -> tuple[dict[str, Offer], dict[str, str]]:
    """Read a listing into offers by name, and the problems of what cannot be offered by name.

    A name that is offered twice is a problem: nobody can say which of the two was reviewed.
    """
    offers: dict[str, Offer] = {}
    problems: dict[str, str] = {}
    for raw in definitions:
        offer = _read_offer(raw)
        if isinstance(offer, str):
            problems[f"?{digest(raw)[7:19]}"] = offer
        elif offer.name in offers:
            problems[offer.name] = "the upstream offers two tools of this name"
        else:
            offers[offer.name] = offer
    return {name: offer for name, offer in offers.items() if name not in problems}, problems


def read_digests(definitions: Sequence[bytes]) -> dict[str, str]:
    """Return the digests of a listing's offers by name; an empty one for what cannot be offered."""
    offers, problems = read_offers(definitions)
    return dict.fromkeys(problems, "") | {name: offer.digest for name, offer in offers.items()}


def _read_offer(raw: bytes) -> Offer | str:
    try:
        value = parse(raw, max_depth=_DEFINITION_DEPTH_MAX)
        found = definition_digest(value)
    except (RequestError, ValueError) as error:
        return f"its definition cannot be read: {error}"
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return "its definition has no name"
    return Offer(name, raw, value, found)
