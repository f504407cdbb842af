"""What every `Signer` promises: keys in this process, from every source, and in an HSM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.key_sources import GivenKeys, OwnKeys
from gateway.adapters.keys.token_keys import (
    LocalSigner,
    create_token_key,
    generate_token_key,
    read_public_key,
)
from gateway.core.errors import CountersignError
from gateway.core.ports import Signer
from gateway.core.tokens.key_ring import KeyRing
from tests.integration.keys.hsm import PIN, SoftHsm, find_library
from tests.unit.tokens.key_world import NOW_S, URL, claims_at

pytestmark = [pytest.mark.req("TOK-12")]

SOURCES = ["memory", "own", "file", "dir", "env", "pkcs11"]


async def open_signer(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Signer:
    if kind == "memory":
        return LocalSigner(generate_token_key())
    ring = KeyRing(environment="test")
    path = folder / "keys" / "one.pem"
    if kind == "own":
        return (await OwnKeys(path, environment="test").find(ring))[0].signer
    environ = {}
    if kind == "pkcs11":
        hsm = SoftHsm(folder / "hsm", find_library())
        monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.conf))
        hsm.make_token()
        hsm.put("one")
        uri, environ = hsm.uri("one"), {"HSM_PIN": PIN}
    else:
        create_token_key(path)
        uri = {"file": f"file:{path}", "dir": f"dir:{path.parent}", "env": "env:KEY"}[kind]
        environ = {"KEY": path.read_text()}
    return (await GivenKeys([uri], environment="test", environ=environ).find(ring))[0].signer


@pytest.fixture(params=SOURCES)
async def signer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Signer]:
    found = await open_signer(request.param, tmp_path, monkeypatch)
    yield found
    await found.close()


def check(signer: Signer, data: bytes, signature: bytes) -> None:
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    public = read_public_key(signer.public).public_key
    public.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))


async def test_a_signature_is_r_and_s_and_holds_for_its_data_only(signer: Signer) -> None:
    signature = await signer.sign(b"said")
    assert len(signature) == 64
    check(signer, b"said", signature)
    with pytest.raises(InvalidSignature):
        check(signer, b"not said", signature)


async def test_the_name_is_the_thumbprint_and_the_algorithm_is_es256(signer: Signer) -> None:
    assert signer.alg == "ES256"
    assert signer.kid == read_public_key(signer.public).thumbprint()


async def test_the_public_key_says_what_it_is_for_and_nothing_private(signer: Signer) -> None:
    public = dict(signer.public)
    assert set(public) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert {name: public[name] for name in ("kty", "crv", "kid", "use", "alg")} == {
        "kty": "EC",
        "crv": "P-256",
        "kid": signer.kid,
        "use": "sig",
        "alg": "ES256",
    }


async def test_many_signatures_at_once_each_hold_for_their_own_data(signer: Signer) -> None:
    said = [f"token {n}".encode() for n in range(50)]
    for data, signature in zip(said, await asyncio.gather(*map(signer.sign, said)), strict=True):
        check(signer, data, signature)


async def test_a_token_signed_by_it_is_believed(signer: Signer) -> None:
    verifier = JoseVerifier(
        [read_public_key(signer.public)], issuer=URL, audience=URL, environment="test"
    )
    token = await JoseIssuer(signer).issue(claims_at(NOW_S))
    assert verifier.verify(token.encode(), NOW_S) == claims_at(NOW_S)


async def test_a_closed_one_signs_nothing(signer: Signer) -> None:
    await signer.close()
    await signer.close()
    with pytest.raises(CountersignError) as caught:
        await signer.sign(b"said")
    assert caught.value.code == "signer_unavailable"
