from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from msgspec.structs import replace

from gateway.adapters.keys import jose_tokens
from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier, sign_token
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key, public_jwk
from gateway.core.errors import CredentialError
from gateway.core.tokens import jwt_claims
from gateway.core.tokens.token import Claims, Constraint, Grant

pytestmark = pytest.mark.req("GW-10")

NOW_S = 1_800_000_000
URL = "https://gateway.test"
KEY = generate_token_key()
HEADER: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}
MakeClaims = Callable[..., Claims]


def verifier(*keys: ECKey) -> JoseVerifier:
    return JoseVerifier(keys or (KEY,), issuer=URL, audience=URL, environment="test")


def code_of(token: bytes, *, now_s: int = NOW_S + 1) -> str:
    with pytest.raises(CredentialError) as caught:
        verifier().verify(token, now_s)
    assert token.decode("latin-1") not in str(caught.value) or not token
    return caught.value.code


def sign(header: dict[str, Any], payload: bytes, key: ECKey = KEY) -> bytes:
    """Sign anything: what somebody with a key, or our own bug, could make."""
    signed = b64(orjson.dumps(header)) + b"." + b64(payload)
    private = key.private_key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    pair = decode_dss_signature(private.sign(signed, ec.ECDSA(hashes.SHA256())))
    return signed + b"." + b64(b"".join(number.to_bytes(32, "big") for number in pair))


def forge(claims: Claims, change: dict[str, Any], key: ECKey = KEY) -> bytes:
    """Sign under a changed header; None takes a member out."""
    header = {**HEADER, **change}
    header = {name: value for name, value in header.items() if value is not None}
    return sign(header, orjson.dumps(jwt_claims.encode(claims)), key)


def forge_payload(claims: Claims, change: dict[str, Any]) -> bytes:
    """Sign a changed payload; None takes a member out."""
    payload = {**jwt_claims.encode(claims), **change}
    payload = {name: value for name, value in payload.items() if value is not None}
    return sign(HEADER, orjson.dumps(payload))


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def test_a_token_says_what_it_was_issued_for(make_claims: MakeClaims) -> None:
    claims = make_claims(
        grants=(
            Grant("shop", "refund", ("money",), {"/a": Constraint(max=2.0, one_of=(1, "x"))}, 3),
            Grant("bank"),
        ),
        workflow="returns",
        on_behalf_of="olga",
        allowed_values={"/to": ("ann@acme.test",)},
        roles=("support",),
        owner="ann",
        origin="schedule",
        depth=0,
    )
    assert verifier().verify(sign_token(claims, KEY).encode(), NOW_S) == claims


def test_the_token_is_an_at_jwt_with_the_claims_of_rfc_9068(make_claims: MakeClaims) -> None:
    header, payload, _ = sign_token(make_claims(), KEY).split(".")
    assert orjson.loads(base64.urlsafe_b64decode(header + "==")) == {
        "alg": "ES256",
        "typ": "at+jwt",
        "kid": KEY.thumbprint(),
    }
    said = orjson.loads(base64.urlsafe_b64decode(payload + "=="))
    assert said["nbf"] == said["iat"] == NOW_S
    assert said["exp"] - said["iat"] == 300
    assert said["scope"] == "tools:call tools:list"
    assert said["authorization_details"] == [
        {
            "type": "countersign_tool",
            "locations": [URL],
            "server": "shop",
            "tool": "refund",
            "actions": ["call"],
            "constraints": {"/amount": {"max": 500}},
            "max_calls": 3,
        }
    ]


def test_the_published_keys_hold_no_private_part() -> None:
    other = generate_token_key()
    keys = JoseIssuer(LocalSigner(KEY), published=[public_jwk(other)]).jwks()["keys"]
    assert [key["kid"] for key in keys] == [KEY.kid, other.kid]
    assert all(key["alg"] == "ES256" and key["use"] == "sig" and "d" not in key for key in keys)


def test_a_token_of_a_former_key_is_believed_while_the_key_is_known(
    make_claims: MakeClaims,
) -> None:
    former = generate_token_key()
    token = sign_token(make_claims(), former).encode()
    assert verifier(KEY, former).verify(token, NOW_S) == make_claims()
    assert code_of(token) == "token_invalid"


async def test_an_issued_token_is_what_signing_at_once_would_give(make_claims: MakeClaims) -> None:
    issued = await JoseIssuer(LocalSigner(KEY)).issue(make_claims())
    said = sign_token(make_claims(), KEY)
    assert issued.rpartition(".")[0] == said.rpartition(".")[0]
    assert verifier().verify(issued.encode(), NOW_S) == make_claims()


@pytest.mark.parametrize("position", ["header", "payload", "signature"])
def test_any_altered_byte_makes_a_token_invalid(make_claims: MakeClaims, position: str) -> None:
    token = sign_token(make_claims(), KEY).encode()
    parts = token.split(b".")
    start = {"header": 0, "payload": len(parts[0]) + 1, "signature": len(token) - len(parts[2])}
    length = len(parts[list(start).index(position)])
    check = verifier()
    for place in range(start[position], start[position] + length):
        for other in b"A_=\n":
            if token[place] == other:
                continue
            altered = token[:place] + bytes([other]) + token[place + 1 :]
            with pytest.raises(CredentialError) as caught:
                check.verify(altered, NOW_S)
            assert caught.value.code == "token_invalid", (place, other)


def test_every_spelling_of_the_last_character_but_one_is_refused(make_claims: MakeClaims) -> None:
    # 86 characters carry 516 bits for 512: the last four are free, and 15 other spellings decode
    # to the same signature.
    token = sign_token(make_claims(), KEY).encode()
    codes = []
    for last in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        try:
            verifier().verify(token[:-1] + bytes([last]), NOW_S)
        except CredentialError as error:
            codes.append(error.code)
    assert codes == ["token_invalid"] * 63


def test_no_token_is_missing() -> None:
    assert code_of(b"") == "token_missing"


@pytest.mark.parametrize(
    "token", [b"x", b"a.b", b"a.b.c.d", b"..", b"\xff.\xff.\xff", b"a" * 60_000]
)
def test_what_is_no_token_is_invalid(token: bytes) -> None:
    assert code_of(token) == "token_invalid"


def test_a_token_without_a_signature_is_invalid(make_claims: MakeClaims) -> None:
    payload = b64(orjson.dumps(jwt_claims.encode(make_claims())))
    for alg in ("none", "None", "ES256"):
        header = b64(orjson.dumps({"alg": alg, "typ": "at+jwt", "kid": KEY.kid}))
        assert code_of(header + b"." + payload + b".") == "token_invalid"


def test_the_public_key_is_no_hmac_secret(make_claims: MakeClaims) -> None:
    header = b64(orjson.dumps({"alg": "HS256", "typ": "at+jwt", "kid": KEY.kid}))
    signed = header + b"." + b64(orjson.dumps(jwt_claims.encode(make_claims())))
    for secret in (KEY.as_pem(private=False), orjson.dumps(KEY.as_dict(private=False))):
        signature = hmac.new(secret, signed, hashlib.sha256).digest()
        assert code_of(signed + b"." + b64(signature)) == "token_invalid"
        padded = b64(signature * 2)  # as long as one of ours
        assert code_of(signed + b"." + padded) == "token_invalid"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "AT+JWT"},
        {"typ": "application/at+jwt"},
        {"kid": None},
        {"kid": "unknown"},
        {"kid": 7},
        {"crit": ["exp"]},
        {"jku": "https://evil.test/keys"},
        {"jwk": KEY.as_dict(private=False)},
    ],
)
def test_a_header_that_is_not_ours_is_invalid(
    make_claims: MakeClaims, header: dict[str, Any]
) -> None:
    assert code_of(forge(make_claims(), header)) == "token_invalid"


def test_a_key_that_the_token_brings_along_is_not_believed(make_claims: MakeClaims) -> None:
    mine = generate_token_key()
    assert code_of(forge(make_claims(), {}, mine)) == "token_invalid"
    assert code_of(forge(make_claims(), {"kid": mine.kid}, mine)) == "token_invalid"


def test_another_algorithm_of_a_real_key_is_refused(make_claims: MakeClaims) -> None:
    rsa = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "typ": "at+jwt", "kid": KEY.kid}
    payload = orjson.dumps(jwt_claims.encode(make_claims()))
    assert code_of(jws.serialize_compact(header, payload, rsa, ["RS256"]).encode()) == (
        "token_invalid"
    )


@pytest.mark.parametrize(
    "change",
    [
        *(
            {name: None}
            for name in (
                *("iss", "aud", "sub", "client_id", "jti", "iat", "nbf", "exp", "scope", "env"),
                *("authorization_details", "run_id", "sid", "root_jti", "depth", "max_depth"),
            )
        ),
        {"exp": str(NOW_S + 300)},
        {"exp": NOW_S + 300.5},
        {"aud": [URL, "https://evil.test"]},
        {"sub": 7},
        {"depth": 1},
        {"depth": 1, "act": {"sub": "x"}},
        {"max_depth": 1, "act": {"sub": "x"}},
        {"max_depth": "1"},
        {"sub_type": "human"},
        {"scope": ["tools:call"]},
        {"cnf": {"jkt": 7}},
        {"cnf": {"x5t#S256": "x"}},
        {"act": {"sub": "x", "iss": "y"}},
        {"further": "claim"},
        {"authorization_details": [{"type": "other"}]},
        {"authorization_details": {}},
        {"iss": "https://evil.test"},
        {"env": "production"},
    ],
)
def test_claims_that_are_missing_mistyped_or_not_understood_are_invalid(
    make_claims: MakeClaims, change: dict[str, Any]
) -> None:
    assert code_of(forge_payload(make_claims(), change)) == "token_invalid"


@pytest.mark.parametrize("change", [{"locations": ["https://evil.test"]}, {"actions": ["list"]}])
def test_a_detail_for_another_place_or_action_is_invalid(
    make_claims: MakeClaims, change: dict[str, Any]
) -> None:
    detail = jwt_claims.encode(make_claims())["authorization_details"][0]
    changed = {"authorization_details": [{**detail, **change}]}
    assert code_of(forge_payload(make_claims(), changed)) == "token_invalid"


def test_a_payload_that_is_not_json_is_invalid() -> None:
    for payload in (b"", b"[]", b"\xff", b"{"):
        assert code_of(sign(HEADER, payload)) == "token_invalid"


def test_a_token_for_another_service_is_told_so(make_claims: MakeClaims) -> None:
    other = make_claims(audience="https://other.test")
    assert code_of(sign_token(other, KEY).encode()) == "token_audience"


def test_a_token_expires_at_its_second(make_claims: MakeClaims) -> None:
    token = sign_token(make_claims(), KEY).encode()
    check = verifier()
    assert check.verify(token, NOW_S + 299).jti == "jti-1"
    for _ in range(2):  # known or not
        with pytest.raises(CredentialError) as caught:
            check.verify(token, NOW_S + 300)
        assert caught.value.code == "token_expired"


@pytest.mark.parametrize("change", [{}, {"nbf": NOW_S - 10}, {"iat": NOW_S - 10}])
def test_a_token_from_the_future_is_invalid(
    make_claims: MakeClaims, change: dict[str, int]
) -> None:
    token = forge_payload(make_claims(), change)
    assert code_of(token, now_s=NOW_S - 1) == "token_invalid"


def test_a_known_token_gives_the_same_claims_object(make_claims: MakeClaims) -> None:
    token = sign_token(make_claims(), KEY).encode()
    check = verifier()
    assert check.verify(token, NOW_S) is check.verify(token, NOW_S + 1)


def test_a_token_asked_about_again_is_judged_anew(make_claims: MakeClaims) -> None:
    token, other = (sign_token(make_claims(jti=name), KEY).encode() for name in ("a", "b"))
    check = verifier()
    assert [check.verify(one, NOW_S).jti for one in (token, token, other, token)] == list("aaba")
    with pytest.raises(CredentialError, match="expired"):
        check.verify(token, NOW_S + 1_000_000)
    assert check.verify(token, NOW_S).jti == "a"
    check.use([generate_token_key()])
    with pytest.raises(CredentialError, match="no key of this gateway"):
        check.verify(token, NOW_S)


def test_what_is_kept_is_bounded_and_the_living_stay(
    make_claims: MakeClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jose_tokens, "CACHE_MAX", 4)
    check = verifier()
    old = [make_claims(jti=f"old-{n}", expires_at=NOW_S + 10) for n in range(3)]
    new = [make_claims(jti=f"new-{n}") for n in range(6)]
    for claims in old:
        check.verify(sign_token(claims, KEY).encode(), NOW_S)
    tokens = [sign_token(claims, KEY).encode() for claims in new]
    kept = [check.verify(token, NOW_S + 20) for token in tokens]
    assert check.verify(tokens[-1], NOW_S + 20) is kept[-1]
    assert check.verify(tokens[0], NOW_S + 20) is not kept[0]
    assert check.verify(tokens[0], NOW_S + 20) == replace(kept[0])
