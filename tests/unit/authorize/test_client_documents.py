"""Documents of clients: which URLs, which addresses, which contents, and how they are fetched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.client_documents import Documents
from gateway.core.oauth.apps import is_allowed_host
from gateway.core.oauth.client_documents import (
    Document,
    NoDocument,
    find_address_fault,
    is_document_url,
    read_document,
)
from tests.fixed import FixedClock

pytestmark = pytest.mark.req("TOK-02")

URL = "https://apps.example/client.json"
BACK = "https://apps.example/back"
PUBLIC = "93.184.215.14"


def body(**changes: object) -> bytes:
    said: dict[str, object] = {"client_id": URL, "client_name": "Cozy", "redirect_uris": [BACK]}
    return json.dumps(
        {name: value for name, value in (said | changes).items() if value is not None}
    ).encode()


# Which URLs


@pytest.mark.parametrize(
    "url",
    [URL, "https://apps.example/a/b", "https://apps.example:8443/c", "https://a.b.example/c/"],
)
def test_a_plain_https_url_with_a_path_may_be_a_client_id(url: str) -> None:
    assert is_document_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://apps.example",
        "https://apps.example/",
        "http://apps.example/c",
        "ftp://apps.example/c",
        "HTTPS://apps.example/c",
        "https://APPS.example/c",
        "https://apps.example/c?x=1",
        "https://apps.example/c#x",
        "https://user@apps.example/c",
        "https://user:pw@apps.example/c",
        "https://apps.example/../c",
        "https://apps.example/./c",
        "https://apps.example/%2e%2e/c",
        "https://apps.example//c",
        "https://apps.example\\@evil.example/c",
        "https://apps.example:99999/c",
        "https://apps.example:0443/c",
        "https://apps.example:/c",
        "https://apps/c",
        "https://apps.example./c",
        "https://.example/c",
        "https://127.0.0.1/c",
        "https://127.1/c",
        "https://0x7f.0.0.1/c",
        "https://2130706433/c",
        "https://apps.0x7f/c",
        "https://[::1]/c",
        "https://localhost/c",
        "https://äpps.example/c",
        "https://apps.example/c\n",
        "https://apps.example/" + "x" * 300,
    ],
)
def test_any_other_spelling_is_none(url: str) -> None:
    assert not is_document_url(url)


def test_this_machine_is_for_developers() -> None:
    for url in ("http://127.0.0.1:9/c", "https://localhost:9/c", "http://[::1]:9/c"):
        assert is_document_url(url, dev=True)
        assert not is_document_url(url)
    assert not is_document_url("http://apps.example/c", dev=True)


@pytest.mark.parametrize(
    ("hosts", "allowed"),
    [
        (("apps.example",), True),
        (("*",), True),
        (("*.example",), True),
        ((), False),
        (("example",), False),
        (("*.apps.example",), False),
        (("evil.example",), False),
        (("pps.example",), False),
    ],
)
def test_operators_say_of_which_hosts(hosts: tuple[str, ...], allowed: bool) -> None:  # noqa: FBT001
    assert is_allowed_host(URL, hosts) is allowed


# Which addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fec0::1",
        "192.88.99.1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "not-an-address",
        "",
    ],
)
def test_nobody_connects_to_what_is_inside(address: str) -> None:
    assert find_address_fault(address) is not None


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_fine(address: str) -> None:
    assert find_address_fault(address) is None


@given(st.ip_addresses())
def test_what_is_fine_is_global(address: Any) -> None:  # noqa: ANN401 - either kind
    if find_address_fault(str(address)) is None:
        assert address.is_global
        assert not address.is_multicast


def test_loopback_is_fine_for_developers_alone() -> None:
    assert find_address_fault("127.0.0.1", dev=True) is None
    assert find_address_fault("10.0.0.1", dev=True) is not None


# Which contents


def test_a_document_says_who_the_client_is() -> None:
    found = read_document(URL, body(logo_uri="https://apps.example/l.png"))
    assert found == Document(URL, "Cozy", "apps.example", (BACK,))


@pytest.mark.parametrize("name", [None, "\u3164 \u2800\ufe0f", "\u202e\u200b"])
def test_a_client_without_a_name_that_is_seen_is_called_by_its_host(name: str | None) -> None:
    found = read_document(URL, body(client_name=name))
    assert isinstance(found, Document)
    assert found.name == "apps.example"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"<html>",
        body() + b"x",
        b'{"client_id": "a", "client_id": "b"}',
        body(client_id="https://evil.example/client.json"),
        body(client_id=None),
        body(redirect_uris=None),
        body(redirect_uris=[]),
        body(redirect_uris=[BACK] * 17),
        body(redirect_uris=["https://evil.example/back"]),
        body(redirect_uris=["https://apps.example.evil.example/back"]),
        body(redirect_uris=["https://apps.example:8443/back"]),
        body(redirect_uris=["http://apps.example/back"]),
        body(redirect_uris=[BACK, "cozy://back"]),
        body(redirect_uris=["javascript:alert(1)"]),
        body(redirect_uris=[BACK + "#x"]),
        body(redirect_uris=[7]),
        body(client_secret="s"),
        body(client_secret_expires_at=0),
        body(token_endpoint_auth_method="client_secret_basic"),
        body(token_endpoint_auth_method="private_key_jwt"),
        body(grant_types=["implicit"]),
        body(response_types=["token"]),
        body(client_name="x" * 6_000),
        b'{"a":' * 10 + b"1" + b"}" * 10,
    ],
)
def test_what_cannot_be_a_clients_document_is_none(raw: bytes) -> None:
    assert isinstance(read_document(URL, raw), NoDocument)


def test_a_native_client_may_be_sent_to_loopback() -> None:
    uris = ["http://127.0.0.1/cb", "http://localhost:3000/cb", "http://[::1]:1/cb"]
    assert isinstance(read_document(URL, body(redirect_uris=uris)), Document)


# How they are fetched


class Web:
    """What every request is answered, and what was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self.resolved: list[tuple[str, int]] = []
        self.addresses = [PUBLIC]
        self.clock = FixedClock(1_000)

        def serve(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            return answer(request)

        async def resolve(host: str, port: int) -> list[str]:
            self.resolved.append((host, port))
            if not self.addresses:
                raise OSError("no such host")
            return self.addresses

        self.documents = Documents(
            ("apps.example",),
            clock=self.clock,
            client=httpx.AsyncClient(transport=httpx.MockTransport(serve)),
            resolve=resolve,
        )


def good(_request: httpx.Request) -> httpx.Response:
    return answered(body())


def answered(raw: bytes, status: int = 200, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json"} | headers
    return httpx.Response(status, headers=sent, stream=httpx.ByteStream(raw))


class Endless(httpx.AsyncByteStream):
    """A body that never ends; counts how much of it was read."""

    def __init__(self) -> None:
        self.pieces = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.pieces += 1
            yield b" " * 1_024


async def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    web = Web(good)
    assert isinstance(await web.documents.fetch(URL), Document)
    (request,) = web.asked
    assert request.url.host == PUBLIC
    assert request.headers["host"] == "apps.example"
    assert request.extensions["sni_hostname"] == "apps.example"
    assert web.resolved == [("apps.example", 443)]


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], [PUBLIC, "10.0.0.1"], ["fe80::1%eth0"], []],
)
async def test_a_name_that_leads_inside_is_not_connected_to(addresses: list[str]) -> None:
    web = Web(good)
    web.addresses = addresses
    assert isinstance(await web.documents.fetch(URL), NoDocument)
    assert web.asked == []


@pytest.mark.parametrize(
    "url", ["https://evil.example/c", "http://apps.example/c", "https://apps.example/c?x"]
)
async def test_other_hosts_are_not_even_looked_up(url: str) -> None:
    web = Web(good)
    assert isinstance(await web.documents.fetch(url), NoDocument)
    assert web.resolved == []


@pytest.mark.parametrize(
    "response",
    [
        answered(body(), 302, location="http://169.254.169.254/"),
        answered(body(), 404),
        answered(body(), 206),
        httpx.Response(200, headers={"content-type": "text/html"}, content=body()),
        httpx.Response(200, content=body()),
        answered(b" " * 6_000 + body()),
        answered(body(), 200, **{"content-encoding": "br"}),
    ],
)
async def test_what_else_comes_back_is_no_document(response: httpx.Response) -> None:
    web = Web(lambda _request: response)
    assert isinstance(await web.documents.fetch(URL), NoDocument)
    assert len(web.asked) == 1


async def test_a_body_without_an_end_is_not_read_to_it() -> None:
    body_ = Endless()
    headers = {"content-type": "application/json"}
    web = Web(lambda _request: httpx.Response(200, headers=headers, stream=body_))
    assert isinstance(await web.documents.fetch(URL), NoDocument)
    assert body_.pieces == 6


async def test_few_documents_are_fetched_at_once() -> None:
    web, waiting = Web(good), asyncio.Event()

    async def wait(_host: str, _port: int) -> list[str]:
        await waiting.wait()
        return [PUBLIC]

    documents = Documents(
        ("apps.example",),
        clock=web.clock,
        client=httpx.AsyncClient(transport=httpx.MockTransport(good)),
        resolve=wait,
    )
    fetches = [asyncio.create_task(documents.fetch(f"https://apps.example/{n}")) for n in range(4)]
    await asyncio.sleep(0)
    refused = await documents.fetch("https://apps.example/5")
    assert refused == NoDocument("too many documents are being fetched; try again")
    waiting.set()
    assert len(await asyncio.gather(*fetches)) == 4


async def test_a_host_that_fails_or_hangs_is_no_document() -> None:
    def hang(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("as asked")

    def fail(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("as asked")

    for answer in (hang, fail):
        assert isinstance(await Web(answer).documents.fetch(URL), NoDocument)


async def test_an_answer_is_kept_for_a_while_and_a_failure_for_less() -> None:
    web = Web(good)
    for wait_s, fetched in ((0, 1), (299, 1), (1, 2)):
        web.clock.now_s += wait_s
        await web.documents.fetch(URL)
        assert len(web.asked) == fetched
    bad = Web(lambda _request: httpx.Response(404))
    for wait_s, fetched in ((0, 1), (29, 1), (1, 2)):
        bad.clock.now_s += wait_s
        await bad.documents.fetch(URL)
        assert len(bad.asked) == fetched


async def test_what_is_kept_is_bounded() -> None:
    web = Web(lambda _request: httpx.Response(404))
    for number in range(300):
        await web.documents.fetch(f"https://apps.example/{number}")
    await web.documents.fetch("https://apps.example/299")
    assert len(web.asked) == 300
    await web.documents.fetch("https://apps.example/0")
    assert len(web.asked) == 301
    await web.documents.close()
