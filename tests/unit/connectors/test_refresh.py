from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from connectors.catalog import Catalog
from connectors.memory import MemoryTransport, build_definition
from connectors.refresh import Refresher
from gateway.core.catalog import Review
from tests.unit.connectors.calls import build_manifest

pytestmark = pytest.mark.req("GW-08", "GW-09")


class Upstreams:
    """Two servers in memory, their catalog, and an event for each change."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.changes: asyncio.Queue[str] = asyncio.Queue()
        self.transports = {
            name: MemoryTransport(name, {"tool": lambda *_: ""}) for name in ("a", "b")
        }
        for name in self.transports:
            self.catalog.review(build_manifest(Review(name="tool", effect="read"), server=name))

    def build(self, interval_s: float = 3600, pause_s: float = 0) -> Refresher:
        return Refresher(
            self.catalog,
            self.transports,
            changed=self.changes.put_nowait,
            interval_s=interval_s,
            pause_s=pause_s,
        )

    def states(self) -> list[str]:
        return [f"{status.server}:{status.state}" for status in self.catalog.states()]

    def change(self, server: str) -> None:
        self.transports[server].definitions = [build_definition("other")]


@asynccontextmanager
async def running(refresher: Refresher) -> AsyncIterator[None]:
    task = asyncio.create_task(refresher.run())
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_upstream_is_listed_at_the_start() -> None:
    upstreams = Upstreams()
    assert upstreams.states() == ["a:missing", "b:missing"]
    assert await upstreams.build().refresh_all() == {}
    assert upstreams.states() == ["a:unpinned", "b:unpinned"]


async def test_one_that_is_away_does_not_stop_the_others_and_keeps_its_last_listing() -> None:
    upstreams = Upstreams()
    refresher = upstreams.build()
    await upstreams.transports["a"].close()
    assert list(await refresher.refresh_all()) == ["a"]
    assert upstreams.states() == ["a:missing", "b:unpinned"]
    await upstreams.transports["b"].close()
    assert await refresher.refresh("b") is not None
    assert upstreams.states() == ["a:missing", "b:unpinned"]


async def test_one_whose_listing_fails_as_nobody_foresaw_does_not_stop_the_others() -> None:
    class Strange(MemoryTransport):
        async def list_tools(self) -> list[bytes]:
            raise ValueError("nobody foresaw this")

    upstreams = Upstreams()
    upstreams.transports["a"] = Strange("a", {})
    refresher = upstreams.build(interval_s=0.001)
    assert list(await refresher.refresh_all()) == ["a"]
    assert await upstreams.changes.get() == "b"
    async with running(refresher):
        upstreams.change("b")
        assert await upstreams.changes.get() == "b"


async def test_an_upstream_that_says_it_changed_is_listed_again() -> None:
    upstreams = Upstreams()
    refresher = upstreams.build()
    async with running(refresher):
        for server in "ab":
            upstreams.change(server)
        refresher.notice("b")
        assert await upstreams.changes.get() == "b"
        assert upstreams.changes.empty()
    assert upstreams.states() == ["a:missing", "b:unreviewed", "b:missing"]


async def test_every_upstream_is_listed_again_after_a_while() -> None:
    upstreams = Upstreams()
    async with running(upstreams.build(interval_s=0.001)):
        assert {await upstreams.changes.get() for _ in "ab"} == {"a", "b"}
        upstreams.change("a")
        assert await upstreams.changes.get() == "a"


async def test_what_an_upstream_offers_does_not_fill_the_log() -> None:
    upstreams = Upstreams()
    names = [f"a{number}{'x' * 400}" for number in range(2_000)]
    upstreams.transports["a"].definitions = [build_definition(name) for name in names]
    with capture_logs() as lines:
        await upstreams.build().refresh("a")
    (line,) = lines
    assert (line["event"], line["more"]) == ("upstream_listed", 2_001 - len(line["hidden"]))
    assert line["hidden"][0] == "tool: missing"  # what somebody reviewed comes first
    assert len(str(line)) < 20_000


async def test_nobody_need_listen() -> None:
    upstreams = Upstreams()
    await Refresher(upstreams.catalog, upstreams.transports).refresh("a")
    assert upstreams.states() == ["a:unpinned", "b:missing"]
