"""Tokens and keys, good and bad, with which our functions and OPA's are compared."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.policy.certificates import make_authority

CLAIMS: dict[str, Any] = {"sub": "ana", "n": 12, "half": 0.5, "list": [1, "ü", None, True], "o": {}}
SECRET = "a secret that two know"
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_RSA = rsa.generate_private_key(65537, 2048)
_EC = {
    "256": ec.generate_private_key(ec.SECP256R1()),
    "384": ec.generate_private_key(ec.SECP384R1()),
    "512": ec.generate_private_key(ec.SECP521R1()),
}
_ED = ed25519.Ed25519PrivateKey.generate()
Value = object


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(kind: str, header: dict[str, Any] | None = None, claims: object = CLAIMS) -> str:
    """Return a token whose signature is right. `kind`: `hs256`, …, `eddsa`."""
    name = "EdDSA" if kind == "eddsa" else kind.upper()
    fields = {"alg": name, "typ": "JWT"} | (header or {})
    signed = f"{encode(json.dumps(fields).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(_signature(kind, signed.encode()))}"


def _signature(kind: str, signed: bytes) -> bytes:
    size = kind[-3:]
    if kind == "eddsa":
        return _ED.sign(signed)
    used = _HASHES[size]
    if kind.startswith("hs"):
        return hmac.new(SECRET.encode(), signed, f"sha{size}").digest()
    if kind.startswith("rs"):
        return _RSA.sign(signed, padding.PKCS1v15(), used)
    if kind.startswith("ps"):
        salted = padding.PSS(padding.MGF1(used), hashlib.new(f"sha{size}").digest_size)
        return _RSA.sign(signed, salted, used)
    pair = utils.decode_dss_signature(_EC[size].sign(signed, ec.ECDSA(used)))
    length = (_EC[size].curve.key_size + 7) // 8
    return b"".join(each.to_bytes(length) for each in pair)


def public_key(kind: str) -> Any:  # noqa: ANN401 - of three libraries' kinds
    """Return the key that a token of this kind is checked with."""
    if kind == "eddsa":
        return _ED.public_key()
    return (_EC[kind[-3:]] if kind.startswith("es") else _RSA).public_key()


def pem(kind: str) -> str:
    key = public_key(kind)
    text: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def jwk(kind: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the key as a JWK."""
    key = public_key(kind)
    found: dict[str, Any]
    if kind == "eddsa":
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        found = {"kty": "OKP", "crv": "Ed25519", "x": encode(raw)}
    elif kind.startswith("es"):
        numbers, length = key.public_numbers(), (key.curve.key_size + 7) // 8
        found = {
            "kty": "EC",
            "crv": f"P-{521 if kind == 'es512' else kind[-3:]}",
            "x": encode(numbers.x.to_bytes(length)),
            "y": encode(numbers.y.to_bytes(length)),
        }
    else:
        numbers = key.public_numbers()
        found = {"kty": "RSA", "n": encode(numbers.n.to_bytes(256)), "e": encode(b"\x01\x00\x01")}
    return found | more


def mangle(token: str) -> Iterator[Value]:
    """Yield what is not quite this token."""
    header, claims, signature = token.split(".")
    yield from ("", ".", "..", "...", header, f"{header}.{claims}", token + ".", "." + token)
    yield from (token + "=", token + "\n", " " + token, token[:-1], token[:-2], token + "A")
    yield f"{header}.{claims}."
    yield f"{header}..{signature}"
    yield f"{header}.{claims}.{'A' * len(signature)}"
    yield f"{header}.{encode(json.dumps({'sub': 'eve'}).encode())}.{signature}"
    for fields in _odd_headers():
        yield f"{encode(fields)}.{claims}.{signature}"
    for payload in _odd_payloads():
        yield f"{header}.{encode(payload)}.{signature}"
    yield from (None, True, 7, 1.5, [], {}, [token], {"t": token})


PANICS = b'{"cty":1}'
"""A header at which OPA 1.22 panics (`builtinJWTDecode` takes `cty` for a text)."""


def _odd_headers() -> Iterator[bytes]:
    yield from (b"", b"{}", b"[]", b"null", b'"x"', b"{", b"\xff", b'{"alg":"none"}')
    yield from (b'{"alg":7}', b'{"alg":"RS256","kid":7}', b'{"typ":[]}', b'{"enc":"A128GCM"}')
    yield from (b'{"cty":"JWT"}', b'{"cty":"jwt"}', b'{"alg":"a","alg":"HS256"}')
    yield from (b'{"crit":[]}', b'{"crit":["x"],"x":1}', b'{"crit":"x"}', b'{"crit":[1,"x"]}')
    yield from (b'{"kid":""}', b'{"kid":"b"}', b'{"a":1} ', b'{"a":1}x', b'{"a":"\\ud800"}')


def _odd_payloads() -> Iterator[bytes]:
    yield from (b"", b"{}", b"[]", b"7", b"{", b"\xff\xfe", b'{"a":NaN}', b'{"a":Infinity}')
    numbers = ("1.0", "1e3", "1E3", "-0", "-0.0", "0.1", "1.50", "1e-7", "1e400")
    wide = ("9223372036854775807", "9223372036854775808", "123456789012345678901234567890")
    yield from (f'{{"a":{number}}}'.encode() for number in (*numbers, *wide))
    yield from (b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":"\\ud83d\\ude00"}', b'{"a":"\\u0000"}')
    yield from (b' {"a" : [ 1 ] } ', '{"ü":"ß"}'.encode(), b"\xef\xbb\xbf{}", b'{"a":01}')


def odd_keys(kind: str, folder: Path) -> Iterator[Value]:
    """Yield keys, good ones and others, for tokens of this kind."""
    own = jwk(kind)
    make_authority(folder)
    yield from (pem(kind), "\n" + pem(kind), pem(kind) + "\n\n", pem(kind).replace("\n", "\r\n"))
    yield from (pem("rs256"), pem("es256"), pem("es384"), pem("eddsa"))
    yield from ((folder / "server.pem").read_text(), (folder / "server.key").read_text())
    name = "EdDSA" if kind == "eddsa" else kind.upper()
    sets: list[Any] = [
        own,
        {"keys": [own]},
        {"keys": []},
        {"keys": [jwk("rs256"), jwk("es256"), own]},
        {"keys": [jwk(kind, alg=name)]},
        {"keys": [jwk(kind, alg="ES999")]},
        {"keys": [jwk(kind, alg="RS256" if kind != "rs256" else "ES256")]},
        {"keys": [jwk("es256", kid="a"), jwk(kind, kid="b")]},
        {"keys": [jwk("es256", kid="b"), jwk(kind, kid="a")]},
        {"keys": [jwk(kind, use="sig", key_ops=["verify"])]},
        {"keys": [{"kty": "oct", "k": encode(b"secret")}]},
        {"keys": [{"kty": "odd"}]},
        {"keys": 7},
        {},
        [],
        {**own, "kty": "odd"},
        {name: value for name, value in own.items() if name not in {"x", "n"}},
        {**own, "x": "!!", "n": "!!"},
        {**own, "x": "AAAA", "n": "AAAA"},
    ]
    yield from (json.dumps(each) for each in sets)
    yield from ("", "x", "-----BEGIN PUBLIC KEY-----", None, 7, [], {}, own)
