from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.errors import RequestError
from gateway.core.releases.opa_files import canonical_json, find_list_fault, list_files
from gateway.core.releases.opa_signature import check_bundle, sign_bundle
from gateway.core.releases.publisher_keys import public_of, read_jwt, read_key, sign_jwt
from gateway.core.releases.statement import read_statement
from tests.unit.releases.made import PAUL, PIA, STRANGER, release, rules, say

pytestmark = pytest.mark.req("POL-07")

FILES = release().bundle()
SCOPE = "countersign:prod"


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def spki(key: Any) -> str:  # noqa: ANN401 - a public key of any kind
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(encoded).decode()


def resign(token: str, **header: Any) -> str:  # noqa: ANN401 - members of a header
    """Return a token of Pia's with other members in its header, signed anew."""
    head, payload, _ = token.split(".")
    names = json.loads(base64.urlsafe_b64decode(head + "==")) | header
    message = f"{b64(names)}.{payload}"
    return f"{message}.{b64(PIA.sign(message.encode()))}"  # type: ignore[call-arg]


@pytest.mark.parametrize("key", [PIA, PAUL], ids=["ed25519", "es256"])
def test_what_a_publisher_signed_is_believed_for_its_files_and_scope(key: Any) -> None:  # noqa: ANN401
    token = sign_bundle(key, FILES, scope=SCOPE)
    check_bundle(token, FILES, public_of(key), scope=SCOPE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"policies/house.rego": b"package policies.house\n\n"}, "was changed"),
        ({"data.json": b'{"limits":{"refund":501}}'}, "was changed"),
        ({"policies/more.rego": b"package policies.more\n"}, "not among the signed"),
        ({"policies/house.rego": None}, "missing"),
    ],
)
def test_files_that_are_not_those_that_were_signed_are_refused(
    change: dict[str, bytes | None], told: str
) -> None:
    token = sign_bundle(PIA, FILES, scope=SCOPE)
    files = {path: body for path, body in {**FILES, **change}.items() if body is not None}
    with pytest.raises(RequestError, match=told):
        check_bundle(token, files, public_of(PIA), scope=SCOPE)


def test_a_signature_for_another_environment_is_refused() -> None:
    token = sign_bundle(PIA, FILES, scope="countersign:dev")
    with pytest.raises(RequestError, match="`countersign:dev`, not for `countersign:prod`"):
        check_bundle(token, FILES, public_of(PIA), scope=SCOPE)


def test_a_strangers_signature_is_refused() -> None:
    token = sign_bundle(STRANGER, FILES, scope=SCOPE)
    with pytest.raises(RequestError, match="another key"):
        check_bundle(token, FILES, public_of(PIA), scope=SCOPE)


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES256", None])
def test_another_algorithm_than_the_keys_is_refused(alg: str | None) -> None:
    token = resign(sign_bundle(PIA, FILES, scope=SCOPE), alg=alg)
    with pytest.raises(RequestError, match="not the algorithm"):
        check_bundle(token, FILES, public_of(PIA), scope=SCOPE)


def test_an_hmac_under_the_public_key_is_refused() -> None:
    public = public_of(PIA)
    message = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64({'files': list_files(FILES)})}"
    mac = hmac.digest(public.text.encode(), message.encode(), "sha256")
    with pytest.raises(RequestError, match="`HS256` is not the algorithm"):
        check_bundle(f"{message}.{b64(mac)}", FILES, public, scope="")


@pytest.mark.parametrize(
    ("header", "told"),
    [({"typ": "countersign-release+jwt"}, "no `JWT`"), ({"crit": ["b64"]}, "no `JWT`")],
)
def test_a_token_of_another_kind_is_refused(header: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check_bundle(resign(sign_bundle(PIA, FILES), **header), FILES, public_of(PIA), scope="")


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c", "....", "e30.e30.", "e30.e30.AA==", "1.e30.AA"]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(RequestError):
        check_bundle(token, FILES, public_of(PIA), scope="")


def test_a_short_signature_of_es256_and_claims_that_are_no_object_are_refused() -> None:
    token = sign_bundle(PAUL, FILES)
    with pytest.raises(RequestError, match="not of this key"):
        read_jwt(token.rpartition(".")[0] + ".AAAA", public_of(PAUL), "JWT")
    message = f"{b64({'alg': 'EdDSA', 'typ': 'JWT'})}.{b64([])}"
    signed = f"{message}.{b64(PIA.sign(message.encode()))}"  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="holds no claims"):
        read_jwt(signed, public_of(PIA), "JWT")


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-1", "CRC", None])
def test_a_file_that_is_named_by_a_weak_hash_is_refused(algorithm: str | None) -> None:
    listed = [{**one, "algorithm": algorithm} for one in list_files(FILES)]
    assert "weak or unknown hash" in (find_list_fault(listed, FILES) or "")


@pytest.mark.parametrize("listed", [None, {}, [1], [{"hash": "x"}]])
def test_a_list_that_cannot_be_read_is_refused(listed: object) -> None:
    assert find_list_fault(listed, FILES) is not None


def test_a_file_that_is_listed_twice_is_refused() -> None:
    listed = list_files(FILES)
    assert "listed twice" in (find_list_fault([*listed, listed[0]], FILES) or "")


def test_longer_hashes_are_read_too() -> None:
    import hashlib  # noqa: PLC0415

    name, body = "policies/house.rego", FILES["policies/house.rego"]
    listed = [
        {"name": name, "hash": hashlib.sha512(body).hexdigest(), "algorithm": "SHA-512"},
        *(one for one in list_files(FILES) if one["name"] != name),
    ]
    assert find_list_fault(listed, FILES) is None


@pytest.mark.parametrize("document", [b"{", b"\xff", b'{"a":NaN}', b'{"a":1,"a":2}', b'"\\ud800"'])
def test_a_document_that_readers_read_differently_is_not_hashed(document: bytes) -> None:
    with pytest.raises(RequestError, match="read alike"):
        canonical_json("data.json", document)


def test_a_deep_document_is_not_hashed() -> None:
    with pytest.raises(RequestError):
        canonical_json("data.json", b"[" * 5_000 + b"]" * 5_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64",
        base64.b64encode(b"short").decode(),
        spki(ec.generate_private_key(ec.SECP384R1()).public_key()),
        spki(rsa.generate_private_key(65_537, 2_048).public_key()),
    ],
)
def test_a_key_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="policy keygen"):
        read_key(text)


def test_a_statement_is_believed_of_a_publisher_and_of_nobody_else() -> None:
    keys = rules().keys
    said = say(PIA, release().revision)
    assert read_statement(said.token, keys) == said
    with pytest.raises(RequestError, match=r"none of `policy\.publishers`"):
        read_statement(say(STRANGER, release().revision).token, keys)


@pytest.mark.parametrize("over", [{"v": 2}, {"act": "delete"}, {"more": 1}, {"number": "1"}])
def test_a_statement_in_another_form_is_refused(over: dict[str, Any]) -> None:
    said = {
        "v": 1,
        "act": "publish",
        "env": "prod",
        "log": "l",
        "number": 1,
        "prev": "",
        "rev": "r",
    }
    token = sign_jwt(PIA, said | over, "countersign-release+jwt")
    with pytest.raises(RequestError, match="cannot be read"):
        read_statement(token, rules().keys)
