"""Witnesses that hang, lie and never stop talking: bounded, disbelieved and told by name."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from gateway.core.log import note as notes
from gateway.core.log.cosignature import NoCosignature, Reason
from tests.integration.witness.conftest import TIMEOUT_S, Build
from tests.integration.witness.parts import WitnessIdentity
from tests.integration.witness.served import Behave, ServedWitness, reply

pytestmark = [pytest.mark.network, pytest.mark.req("AUD-08")]

Trick = Callable[[ServedWitness, asyncio.StreamWriter, bytes], Awaitable[None]]


def text_of(request: bytes) -> bytes:
    return notes.parse(request.decode().partition("\n\n")[2]).text


async def hang(_liar: ServedWitness, _writer: asyncio.StreamWriter, _request: bytes) -> None:
    await asyncio.sleep(20)


async def drip(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:  # each byte in time, all of them never
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(TIMEOUT_S / 10)


async def flood(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


async def flood_of_headers(
    _liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes
) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: " + b"y" * 60_000 + b"\r\n")
        await writer.drain()


async def bomb(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    body = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def redirect(liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    target = liar.url + "elsewhere"
    writer.write(f"HTTP/1.1 307 Go\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n".encode())


async def no_http(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")


async def wrong_key(liar: ServedWitness, writer: asyncio.StreamWriter, request: bytes) -> None:
    other = WitnessIdentity(liar.identity.key.name, 99)
    line = ServedWitness(other, liar.identity.key, liar._clock).cosign(text_of(request))  # noqa: SLF001
    await reply(writer, 200, "text/plain", line.encode())


async def wrong_signature(
    liar: ServedWitness, writer: asyncio.StreamWriter, request: bytes
) -> None:
    """Sign a root of its own under the right key."""
    await reply(writer, 200, "text/plain", liar.cosign(b"log\n1\nroot\n" + request).encode())


async def other_size(liar: ServedWitness, writer: asyncio.StreamWriter, request: bytes) -> None:
    text = text_of(request).replace(b"\n5\n", b"\n50\n")
    await reply(writer, 200, "text/plain", liar.cosign(text).encode())


async def replayed(liar: ServedWitness, writer: asyncio.StreamWriter, request: bytes) -> None:
    """Sign the right text, long ago."""
    await reply(writer, 200, "text/plain", liar.cosign(text_of(request), 1_600_000_000).encode())


async def always_elsewhere(
    liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes
) -> None:
    await reply(writer, 409, "text/x.tlog.size", b"%d\n" % (1 + len(liar.requests)))


async def claims_the_same(
    _liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes
) -> None:
    await reply(writer, 409, "text/x.tlog.size", b"0\n")


async def claims_more(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    await reply(writer, 409, "text/x.tlog.size", b"9000000000000000000\n")


async def nonsense(_liar: ServedWitness, writer: asyncio.StreamWriter, _request: bytes) -> None:
    await reply(writer, 200, "text/html", b"<h1>It works!</h1>\n")


PATIENCE_S = 2.0
TRICKS: list[tuple[Trick, Reason]] = [
    (hang, "timed_out"),
    (drip, "timed_out"),
    (flood, "too_large"),
    (flood_of_headers, "unreachable"),
    (bomb, "malformed"),
    (redirect, "redirected"),
    (no_http, "unreachable"),
    (wrong_key, "not_cosigned"),
    (wrong_signature, "bad_signature"),
    (other_size, "bad_signature"),
    (replayed, "time_off"),
    (always_elsewhere, "moving"),
    (claims_the_same, "moving"),
    (claims_more, "ahead"),
    (nonsense, "malformed"),
]


def play(trick: Trick, liar: ServedWitness) -> Behave:
    async def behave(writer: asyncio.StreamWriter, request: bytes) -> None:
        await trick(liar, writer, request)

    return behave


@pytest.mark.parametrize(("trick", "reason"), TRICKS, ids=lambda one: getattr(one, "__name__", one))
async def test_a_hostile_witness_is_bounded_disbelieved_and_told_by_name(
    build: Build, trick: Trick, reason: Reason
) -> None:
    liar = build.served[1]
    liar.behave = play(trick, liar)
    # Honest ones must not be late on a busy machine; only tricks that wait cost the time.
    client = build(timeout_s=PATIENCE_S if reason == "timed_out" else 10)
    with capture_logs() as logs:
        async with asyncio.timeout(30):
            await client.turn()
    (line,) = (line for line in logs if line["event"].startswith("witness_"))
    assert (line["witness"], line["reason"]) == ("w2", reason)
    # The two others are a quorum, and nothing of the liar's stands in the log.
    record = build.log.audit.records[-1]
    names = [entry.split()[0] for entry in record["cosignatures"]]
    assert names == ["witness.example/1", "witness.example/3"]
    assert len(liar.requests) <= 2
    # Once it is honest again it is believed again, whatever it claimed before.
    liar.behave = None
    await build.log.grow(1)
    await client.turn()
    assert len(build.log.audit.records[-1]["cosignatures"]) == 3


async def test_an_old_cosignature_played_again_covers_nothing_new(build: Build) -> None:
    client = build()
    await client.turn()
    liar = build.served[0]
    old = liar.cosign(notes.parse(build.log.newest()).text)

    async def behave(writer: asyncio.StreamWriter, _request: bytes) -> None:
        await reply(writer, 200, "text/plain", old.encode())

    liar.behave = behave
    await build.log.grow(1)
    await client.turn()
    assert client.status()["problems"] == {"w1": "bad_signature"}


@pytest.mark.parametrize("nowhere", ["http://xn--a", "http://127.0.0.1:99999"])
async def test_an_address_that_can_be_none_holds_up_no_other_witness(
    build: Build, nowhere: str
) -> None:
    build.served[0].url = nowhere
    client = build()
    await client.turn()
    assert client.status()["problems"] == {"w1": "unreachable"}
    assert client.status()["size"] == 5


async def test_without_a_proof_nothing_is_asked(build: Build) -> None:
    client = build(quorum=1)
    await client.turn()
    await build.log.grow(1)

    def prove(_old: int, _new: notes.Checkpoint) -> list[bytes]:
        raise OSError("no tile")

    (witness, *_) = build.witnesses()
    object.__setattr__(witness, "_prove", prove)
    witness.size = 5
    note = build.log.newest()
    assert await witness.submit(note, notes.parse(note)) == NoCosignature("unproven")
    assert len(build.served[0].requests) == 1
