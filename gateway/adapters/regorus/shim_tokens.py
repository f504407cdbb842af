"""`io.jwt.decode` and `io.jwt.verify_*` as OPA 1.22 answers them (v1/topdown/tokens.go).

Where a token, or a key, is not quite regular, OPA may still answer; here it is an error.
INVARIANT: what these return, OPA returns for the same arguments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any, Final

_PART: Final = re.compile(r"[A-Za-z0-9_-]*")
_INTEGER_MAX: Final = 1 << 63
_KNOWN_STRINGS: Final = ("alg", "kid", "typ", "cty")
_HASHES: Final = {"256": "sha256", "384": "sha384", "512": "sha512"}


class TokenError(ValueError):
    """A token that cannot be read. Its text holds nothing of the token."""


def decode(token: object) -> list[Any]:
    """Return header, payload, and the signature in hex. No signature is checked."""
    header, payload, signature = _split(token)
    fields = _read_header(header)
    if "cty" in fields and (fields["cty"] == "JWT" or not isinstance(fields["cty"], str)):
        raise TokenError("a token within a token is not read")
    return [fields, _read_object(payload), _decode_part(signature).hex()]


def _split(token: object) -> tuple[str, str, str]:
    if not isinstance(token, str):
        raise TokenError("a token is a text")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise TokenError("a token has three parts")
    return parts[0], parts[1], parts[2]


def _decode_part(part: str) -> bytes:
    if _PART.fullmatch(part) is None or len(part) % 4 == 1:
        raise TokenError("a part is not base64url")
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _read_header(part: str) -> dict[str, Any]:
    fields = _read_object(part)
    if "enc" in fields:
        raise TokenError("encrypted tokens are not read")
    return fields


def _read_object(part: str) -> dict[str, Any]:
    value = json.loads(
        _decode_part(part).decode("utf-8"),
        parse_int=_read_integer,
        parse_float=_read_float,
        parse_constant=_refuse_constant,
    )
    if not isinstance(value, dict):
        raise TokenError("a part is no JSON object")
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # raises for half a character
    return value


def _read_integer(text: str) -> int:
    value = int(text)
    if text == "-0" or not -_INTEGER_MAX <= value < _INTEGER_MAX:
        raise TokenError("a number that engines write differently")
    return value


def _read_float(text: str) -> float:
    value = float(text)
    if repr(value) != text or value == int(value):
        raise TokenError("a number that engines write differently")
    return value


def _refuse_constant(_text: str) -> object:
    raise TokenError("a number that is none")


def _check_header(fields: dict[str, Any]) -> tuple[str, str]:
    """Return `alg` and `kid`, empty where they are not given."""
    if any(not isinstance(fields.get(name, ""), str) for name in _KNOWN_STRINGS):
        raise TokenError("a header field is no text")
    if "crit" in fields and not (
        isinstance(fields["crit"], list) and fields["crit"] and isinstance(fields["crit"][0], str)
    ):
        raise TokenError("`crit` is no list of names")
    return fields.get("alg", ""), fields.get("kid", "")


def _by_secret(size: str) -> Callable[[object, object], bool]:
    def verify(token: object, secret: object) -> bool:
        header, payload, signature = _split(token)
        if not isinstance(secret, str):
            raise TokenError("a secret is a text")
        signed = f"{header}.{payload}".encode()
        mac = hmac.new(secret.encode(), signed, _HASHES[size]).digest()
        return hmac.compare_digest(_decode_part(signature), mac)

    return verify


def _by_key(kind: str, size: str) -> Callable[[object, object], bool]:
    def verify(token: object, certificate: object) -> bool:
        from gateway.adapters.regorus import shim_keys  # noqa: PLC0415 - see `prepare`

        header, payload, signature = _split(token)
        if not isinstance(certificate, str):
            raise TokenError("keys are a text")
        keys = shim_keys.read_keys(certificate)
        raw = _decode_part(signature)
        alg, kid = _check_header(_read_header(header))
        signed = f"{header}.{payload}".encode()
        digest = hashlib.new(_HASHES[size], signed).digest() if size else signed
        named = next((key for key in keys if kid and key.kid == kid), None)
        tried = [named] if named else [key for key in keys if key.alg in ("", alg)]
        return any(shim_keys.verifies(kind, key.key, digest, raw) for key in tried)

    return verify


def prepare() -> None:
    """Import what checks signatures, some 50 ms."""
    from gateway.adapters.regorus import shim_keys  # noqa: F401, PLC0415 - see above


VERIFIERS: Final[dict[str, Callable[[object, object], bool]]] = {
    **{f"hs{size}": _by_secret(size) for size in _HASHES},
    **{f"{kind}{size}": _by_key(kind, size) for kind in ("rs", "ps", "es") for size in _HASHES},
    "eddsa": _by_key("eddsa", ""),
}
"""By the end of the function's name."""
