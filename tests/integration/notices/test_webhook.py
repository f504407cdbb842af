"""Notices over real HTTP, to an address that answers as it likes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from gateway.adapters.bounded_http import build_client
from gateway.adapters.webhook import Webhook
from gateway.config.models import NotifySection
from gateway.core.errors import ConfigurationError
from gateway.core.records.notice_records import Notice, build_entry
from gateway.wiring.notices import start_notices
from tests.fixed import CountingIds
from tests.integration.audit_queries.desk import Desk

pytestmark = [pytest.mark.network, pytest.mark.req("POL-01")]

NOTICE = Notice("n1", "op-1", "security", {"channel": "security", "tool": {"id": "mail.send"}})


class Address:
    """A server on loopback that keeps what it is sent and answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[str | None, bytes]] = []
        self.told = threading.Event()
        address = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                address.got.append((self.headers["authorization"], body))
                self.send_response(address.status)
                self.send_header("content-length", "0")
                self.end_headers()
                address.told.set()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def address() -> Iterator[Address]:
    found = Address()
    serving = threading.Thread(target=found.server.serve_forever, args=(0.02,))
    serving.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    serving.join()


@pytest.mark.parametrize(
    ("status", "taken"), [(200, True), (204, True), (302, False), (500, False)]
)
async def test_only_an_answer_that_takes_it_counts(
    address: Address,
    status: int,
    taken: bool,  # noqa: FBT001 - a case
) -> None:
    address.status = status
    async with build_client() as http:
        assert await Webhook(http, address.url, "t0ken").deliver(NOTICE) is taken
    ((authorization, body),) = address.got
    assert authorization == "Bearer t0ken"
    assert orjson.loads(body) == {"notice": "n1", "op": "op-1", **NOTICE.fields}


async def test_nobody_there_is_no_delivery() -> None:
    async with build_client() as http:
        assert not await Webhook(http, "http://127.0.0.1:1/hook").deliver(NOTICE)


async def test_why_a_notice_was_not_taken_is_told_without_the_address(address: Address) -> None:
    address.status = 404
    async with build_client() as http:
        with capture_logs() as told:
            for url in (address.url, "http://127.0.0.1:1/secret-hook"):
                await Webhook(http, url, "t0ken").deliver(NOTICE)
    assert [(one["event"], one["why"]) for one in told] == [
        ("notify_not_taken", "answered 404"),
        ("notify_not_taken", "unreachable"),
    ]
    assert "hook" not in str(told)
    assert "t0ken" not in str(told)


async def test_a_gateway_delivers_what_its_log_has_no_end_of(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Desk(tmp_path)
    log = place.open()
    await log.start()
    await log.record(build_entry(NOTICE))
    await log.close()
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    section = NotifySection(url=address.url, token_from="env:HOOK_TOKEN")
    log = place.open()
    await log.start()
    async with AsyncExitStack() as stack:
        desk = start_notices(section, audit=log, ids=CountingIds(), stack=stack)
        while desk.pending:
            await desk.wait()
    await log.close()
    assert len(address.got) == 1
    assert [r["type"] for r in place.records()][-3:-1] == ["boot", "notify.end"]


async def test_a_token_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    place = Desk(tmp_path)
    log = place.open()
    await log.start()
    section = NotifySection(url="https://hook.example/x", token_from="env:NOT_THERE_AT_ALL")
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match="NOT_THERE_AT_ALL"):
            start_notices(section, audit=log, ids=CountingIds(), stack=stack)
    await log.close()


@pytest.mark.parametrize(
    "url", ["http://hook.example/x", "ftp://hook.example", "https://user:pw@hook.example/", "hook"]
)
def test_an_address_that_would_tell_strangers_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        NotifySection(url=url, token_from=None)
