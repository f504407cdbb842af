"""JSON of strangers that is brackets in brackets is refused like any other that cannot be read."""

from __future__ import annotations

import httpx
import pytest

from gateway.adapters.keys.issuer_tokens import IssuerTokens
from gateway.adapters.keys.jose_assertions import JoseAssertions
from gateway.adapters.keys.jose_dpop import JoseProofs
from gateway.core.errors import CredentialError
from gateway.core.oauth.federation import TrustedIssuer
from gateway.core.tokens.jwt_claims import DETAILS_MAX, read_details
from tests.unit.tokens.proofs import Holder, encode

pytestmark = pytest.mark.req("TOK-10")

DEEP = b"[" * 1_400 + b"]" * 1_400
HEADER = b'{"typ":"dpop+jwt","alg":"ES256","kid":"k","crit":' + DEEP + b',"jwk":{}}'
PAYLOAD = b'{"sub":"a","iss":"https://idp.example","x":' + DEEP + b"}"


def build(header: bytes, payload: bytes = b"{}") -> bytes:
    return b".".join((encode(header), encode(payload), encode(b"x")))


def test_no_proof() -> None:
    with pytest.raises(CredentialError):
        JoseProofs().read(build(HEADER))


def test_no_claims_of_a_proof() -> None:
    holder = Holder()
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": holder.public()}
    with pytest.raises(CredentialError):
        JoseProofs().read(holder.sign(header, PAYLOAD[:1] + b'"x":' + DEEP + b"}"))


def test_no_assertion() -> None:
    reader = JoseAssertions()
    with pytest.raises(CredentialError):
        reader.peek(build(b"{}", PAYLOAD))
    with pytest.raises(CredentialError):
        reader.read(build(HEADER), [])


async def test_no_token_of_an_identity_provider() -> None:
    issuer = TrustedIssuer(issuer="https://idp.example", launcher="flow", audience="gateway")
    async with httpx.AsyncClient() as http:
        tokens = IssuerTokens([issuer], http=http, clock=None)  # type: ignore[arg-type]
        with pytest.raises(CredentialError):
            await tokens.read(build(b'{"alg":"ES256","kid":"k"}', PAYLOAD).decode())


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize(
    "member",
    [
        '"constraints":{"/a":{"one_of":' + DEEP.decode() + "}}",
        '"max_calls":9007199254740992',
        '"max_calls":1' + "0" * 400,
        '"constraints":{"/a":{"max":1' + "0" * 30 + "}}",
        '"window":{"not_after":1' + "0" * 30 + "}",
        '"max_calls":1,"max_calls":null',
        '"constraints":{"/a":{"max":1}},"constraints":{}',
    ],
)
def test_no_details_that_two_readers_could_read_differently(member: str) -> None:
    text = f'[{{"type":"countersign_tool","server":"shop",{member}}}]'
    assert isinstance(read_details(text, "https://g.example"), str)


@pytest.mark.req("TOK-02")
def test_no_more_details_than_a_run_has_grants() -> None:
    detail = '{"type":"countersign_tool","server":"shop","tool":"t%d"}'
    most = ",".join(detail % number for number in range(DETAILS_MAX))
    assert isinstance(read_details(f"[{most}]", "https://g.example"), tuple)
    found = read_details(f"[{most},{detail % DETAILS_MAX}]", "https://g.example")
    assert found == f"more than {DETAILS_MAX} details"
