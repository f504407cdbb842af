"""`GET /v1/policy/bundle`, as OPA's bundle service API has it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from gateway.http.policy_bundle import build_bundle_router

pytestmark = pytest.mark.req("POL-05")
TOKEN = "a-token-for-bundles"
ADMITTED = {"authorization": f"Bearer {TOKEN}"}


class HandShelf:
    """Changes when a test says so."""

    def __init__(self) -> None:
        self.etag, self.archive = "", b""
        self.changed = asyncio.Event()
        self.waited: list[tuple[str, float]] = []

    def put(self, etag: str) -> None:
        self.etag, self.archive = etag, etag.encode()
        self.changed.set()

    async def wait(self, etag: str, timeout_s: float) -> None:
        self.waited.append((etag, timeout_s))
        if etag == self.etag:
            await self.changed.wait()


async def get(shelf: HandShelf, token: str = TOKEN, **headers: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(build_bundle_router(shelf, token))
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.get("/v1/policy/bundle", headers=given)


async def test_a_bundle_is_given_with_its_revision_and_not_twice() -> None:
    shelf = HandShelf()
    assert (await get(shelf, **ADMITTED)).status_code == 404
    shelf.put("sha256:1")
    first = await get(shelf, **ADMITTED)
    assert (first.status_code, first.content) == (200, b"sha256:1")
    assert first.headers["content-type"] == "application/gzip"
    again = await get(shelf, if_none_match=first.headers["etag"], **ADMITTED)
    assert (again.status_code, again.content) == (304, b"")
    shelf.put("sha256:2")
    other = await get(shelf, if_none_match=first.headers["etag"], **ADMITTED)
    assert other.content == b"sha256:2"


async def test_an_opa_that_can_wait_gets_the_next_bundle_at_once() -> None:
    shelf = HandShelf()
    shelf.put("sha256:1")
    shelf.changed.clear()
    polling = {"if_none_match": '"sha256:1"', "prefer": "modes=snapshot,delta;wait=3600"}
    waiting = asyncio.create_task(get(shelf, **polling, **ADMITTED))
    while not shelf.waited:  # noqa: ASYNC110 - the route tells nobody
        await asyncio.sleep(0)
    shelf.put("sha256:2")
    found = await waiting
    assert found.content == b"sha256:2"
    assert found.headers["content-type"] == "application/vnd.openpolicyagent.bundles"
    assert shelf.waited == [("sha256:1", 5)]


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer x"}, {"authorization": TOKEN}])
async def test_nobody_else_gets_it(header: dict[str, str]) -> None:
    shelf = HandShelf()
    shelf.put("sha256:1")
    refused = await get(shelf, **header)
    assert refused.status_code == 401
    assert b"sha256:1" not in refused.content
    assert (await get(shelf, token="", authorization="Bearer ")).status_code == 401
