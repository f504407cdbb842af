"""Documents of clients over TLS: each is of the host that its certificate names (TOK-02)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.adapters.client_documents import Documents
from gateway.core.oauth.client_documents import Document, NoDocument
from tests.fixed import FixedClock
from tests.integration.authorize.listening import describe, make_certificate

pytestmark = [pytest.mark.req("TOK-02"), pytest.mark.network]


class Host:
    """Describes an app for whatever host is asked for, on connections that it never ends."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(answer((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.over.set()


def answer(head: list[str]) -> bytes:
    host = next(line[6:] for line in head if line.lower().startswith("host: "))
    body = describe(f"https://{host}{head[0].split()[1]}", f"https://{host}/back")
    start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return start % len(body) + body


async def test_a_connection_to_one_host_brings_no_document_of_another_at_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, tls = make_certificate(tmp_path, "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]  # as somebody who answers for the resolver would have it

    documents = Documents(("*",), clock=FixedClock(), dev=True, resolve=resolve)
    own = await documents.fetch(f"https://other.example:{port}/client")
    assert isinstance(own, Document)
    foreign = await documents.fetch(f"https://known.example:{port}/client")
    assert isinstance(foreign, NoDocument)
    await documents.close()
    server.close()
    await host.over.wait()
