"""What no authenticator sends is refused and on record, and never an error of ours (TOK-08)."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import cbor2
import httpx
import pytest

from tests.unit.people.authenticator import Authenticator, b64
from tests.unit.people.conftest import Browser, World
from tests.unit.people.test_passkey_sign_in import register, use

pytestmark = pytest.mark.req("TOK-08")
_DATA = hashlib.sha256(b"gw.example").digest() + b"\x45" + bytes(4 + 16) + struct.pack(">H", 1)


def attested(key: bytes, statement: object = None, fmt: object = "none") -> bytes:
    """Return an attestation of a credential with this COSE key."""
    data = {"fmt": fmt, "attStmt": {} if statement is None else statement}
    return cbor2.dumps({**data, "authData": _DATA + b"x" + key})


@pytest.mark.parametrize(
    "attestation",
    [
        b"",
        b"\xa3",  # a map that ends early
        b"\x81" * 5_000 + b"\x01",
        cbor2.dumps([]),
        cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": 1}),
        attested(b"\x01"),
        attested(cbor2.dumps([1])),  # a list where the library looks for a map
        attested(cbor2.dumps({1: 2, 3: -7}), [], "packed"),
        attested(cbor2.dumps({1: 2, 3: -7}), {"x5c": [1], "sig": b"", "alg": -7}, "packed"),
    ],
)
async def test_an_attestation_that_cannot_be_read_is_refused(
    world: World, browser: Browser, attestation: bytes
) -> None:
    await browser.sign_in()
    csrf, key = await browser.csrf(), Authenticator()
    options = (await browser.script("/account/passkeys/options", csrf=csrf)).json()
    credential = key.create(options)
    credential["response"]["attestationObject"] = b64(attestation)
    answer = await browser.script(
        "/account/passkeys", csrf=csrf, label="My key", credential=credential
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "passkey_invalid")
    refused = world.records("human.refused")[-1]
    assert (refused["reason"], world.who(refused["seq"])) == ("passkey_invalid", "ann")
    assert await world.accounts.passkeys("ann") == []


@pytest.mark.parametrize(
    "change",
    [
        {"authenticatorData": ""},
        {"authenticatorData": 1},
        {"signature": {}},
        {"userHandle": 1},
        {"userHandle": "ü"},
    ],
)
async def test_an_assertion_that_cannot_be_read_is_refused(
    world: World, browser: Browser, change: dict[str, Any]
) -> None:
    key = Authenticator()
    await browser.sign_in()
    await register(browser, key)
    options = (await browser.script("/signin/passkey/options")).json()
    credential = key.get(options)
    credential["response"] |= change
    answer = await browser.script("/signin/passkey", credential=credential)
    assert (answer.status_code, answer.json()["code"]) == (403, "passkey_invalid")
    assert world.records("human.refused")[-1]["reason"] == "passkey_invalid"
    assert (await use(browser, key)).status_code == 200


async def send(browser: Browser, body: bytes) -> httpx.Response:
    headers = {**browser.own, "content-type": "application/json"}
    return await browser.http.post("/signin/passkey", content=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"credential": ' + b"[" * 500 + b"]" * 500 + b"}", "body_invalid"),
        (b'{"credential": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "body_invalid"),
        (b'{"credential": {}, "credential": {}}', "body_invalid"),
        (b"{", "body_invalid"),
        (b"\xff", "body_invalid"),
        (b'{"credential": []}', "request_invalid"),
        (b'{"credential": {"response": {"clientDataJSON": "W10"}}}', "request_invalid"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_and_on_record(
    world: World, browser: Browser, body: bytes, code: str
) -> None:
    answer = await send(browser, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    [refused] = world.records("human.refused")
    assert (refused["method"], refused["reason"], refused["count"]) == ("passkey", code, 1)


async def test_bodies_that_cannot_be_read_are_tries_as_all_others(browser: Browser) -> None:
    answers = [await send(browser, b"{") for _ in range(61)]
    assert [one.status_code for one in answers] == [400] * 60 + [429]
