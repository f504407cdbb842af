"""The client against a witness that nobody here wrote: `omniwitness` of transparency-dev.

Needs the program in `.cache/bin` or on PATH; `tests/integration/witness/omniwitness/build.sh`
builds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.bounded_http import Reply, build_client, exchange
from gateway.adapters.system import SystemClock
from gateway.adapters.witness.witness_client import Introduce, Witness
from gateway.core.log import note as notes
from gateway.core.log.cosignature import (
    Cosignature,
    NoCosignature,
    Reason,
    build_introduction,
    build_request,
    is_cosigned,
)
from tests.integration.witness.conftest import introduce
from tests.integration.witness.parts import OMNIWITNESS, Log, Omniwitness, WitnessIdentity

pytestmark = [
    pytest.mark.network,
    pytest.mark.req("AUD-08"),
    pytest.mark.skipif(OMNIWITNESS is None, reason="no omniwitness: build it, see the page's head"),
]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with build_client() as client:
        yield client


@pytest.fixture
def identity() -> WitnessIdentity:
    return WitnessIdentity("witness.example/w1", 7)


def build_witness(
    url: str,
    identity: WitnessIdentity,
    log: Log,
    http: httpx.AsyncClient,
    introduce: Introduce = introduce,
) -> Witness:
    return Witness(
        name="w1",
        url=url,
        key=identity.key,
        introduce=introduce,
        prove=log.prove,
        http=http,
        clock=SystemClock(),
    )


async def submit(witness: Witness, log: Log) -> Cosignature | NoCosignature:
    note = log.newest()
    return await witness.submit(note, notes.parse(note))


async def test_every_size_is_cosigned_across_restarts_of_both_sides(
    tmp_path: Path, identity: WitnessIdentity, http: httpx.AsyncClient
) -> None:
    log = await Log().grow(1)
    program = Omniwitness(tmp_path / "w", identity, [log.named])
    async with program.running() as url:
        witness = build_witness(url, identity, log, http)
        for more in (0, 1, 1, 2, 3, 5, 8, 100):
            await log.grow(more)
            found = await submit(witness, log)
            assert isinstance(found, Cosignature), found
            assert is_cosigned(notes.parse(log.newest()).text, found, identity.key)
    await log.grow(7)
    async with program.running() as url:
        # The client remembers nothing; the witness does, and tells the size.
        again = build_witness(url, identity, log, http)
        assert again.size == 0
        assert isinstance(await submit(again, log), Cosignature)
        assert again.size == log.audit.size
        reply = await exchange(
            http,
            "POST",
            f"{url}/add-checkpoint",
            content=build_request(0, [], log.newest()),
        )
        assert isinstance(reply, Reply)
        assert (reply.status, reply.content_type) == (409, "text/x.tlog.size")


async def test_a_second_history_under_the_same_key_is_refused(
    tmp_path: Path, identity: WitnessIdentity, http: httpx.AsyncClient
) -> None:
    log = await Log().grow(20)
    async with Omniwitness(tmp_path / "w", identity, [log.named]).running() as url:
        assert isinstance(await submit(build_witness(url, identity, log, http), log), Cosignature)
        refusals: list[tuple[int, Reason]] = [
            (20, "inconsistent"),
            (40, "inconsistent"),
            (10, "ahead"),
        ]
        for records, reason in refusals:
            forged = await Log(tag="forged").grow(records)
            witness = build_witness(url, identity, forged, http)
            assert await submit(witness, forged) == NoCosignature(reason)
        await log.grow(1)
        assert isinstance(await submit(build_witness(url, identity, log, http), log), Cosignature)


async def test_the_log_is_known_by_one_key_while_its_own_change(
    tmp_path: Path, identity: WitnessIdentity, http: httpx.AsyncClient
) -> None:
    lasting = Log(seed=9)  # for its key alone
    async with Omniwitness(tmp_path / "w", identity, [lasting.named]).running() as url:
        log = Log()
        signer = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
        introduce = partial(build_introduction, key=lasting.audit.key, signer=signer)
        witness = build_witness(url, identity, log, http, introduce)
        note = ""
        for epoch in range(3):
            await log.grow(5)
            own = Ed25519PrivateKey.generate()
            checkpoint = notes.parse(log.newest()).checkpoint
            note = notes.sign(checkpoint, notes.build_key(checkpoint.origin, own.public_key()), own)
            found = await witness.submit(note, notes.parse(note))
            assert isinstance(found, Cosignature), (epoch, found)
        stranger = build_witness(url, identity, log, http)
        assert await stranger.submit(note, notes.parse(note)) == NoCosignature("unavailable")


async def test_a_log_or_key_that_the_witness_was_not_told_of_gets_no_cosignature(
    tmp_path: Path, identity: WitnessIdentity, http: httpx.AsyncClient
) -> None:
    log = await Log().grow(3)
    # tlog-witness asks for 404 and 403 here; this program answers both with 500.
    for number, known in enumerate(([], [Log(seed=1).named])):
        async with Omniwitness(tmp_path / str(number), identity, known).running() as url:
            answer = await submit(build_witness(url, identity, log, http), log)
            assert answer == NoCosignature("unavailable")
