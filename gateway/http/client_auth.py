"""How clients prove themselves at `/oauth/token` and `/v1/runs`, and how their bodies are read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from msgspec import Struct
from starlette.requests import Request

from gateway.core.errors import RequestError
from gateway.core.oauth.client_assertion import ASSERTION_TYPE

BASIC_CHALLENGE: Final = 'Basic realm="countersign", charset="UTF-8"'


class Presented(Struct, frozen=True):
    """An id and a secret as a client sent them, or its assertion. Nothing is believed yet.

    With an `assertion` (RFC 7523) there is no secret, and perhaps no id: the assertion names it.
    """

    client_id: str
    secret: str
    assertion: str = ""


def read_basic(authorization: str | None) -> Presented | None:
    """Read `Authorization: Basic …` (RFC 7617; both parts form-encoded, RFC 6749 §2.3.1).

    Many clients, curl among them, encode neither. So a `+` is a plus: generated secrets in Base64
    have them, and none has a blank or a `%`. None for another scheme, and for what cannot be read:
    both are no credential.
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        return None
    client_id, colon, secret = text.partition(":")
    return Presented(unquote(client_id), unquote(secret)) if colon else None


def read_launcher(authorization: str | None) -> Presented | None:
    """Read `Authorization` of a launcher: Basic, or `Bearer` with an assertion of its key."""
    scheme, _, assertion = (authorization or "").partition(" ")
    if scheme.lower() == "bearer" and assertion.strip():
        return Presented("", "", assertion.strip())
    return read_basic(authorization)


def read_client(one: Mapping[str, str], request: Request) -> Presented | None:
    """Return the client that a form or its `Authorization` header names.

    Raises `RequestError` where it proves itself twice (RFC 6749 §2.3).
    """
    if len(request.headers.getlist("authorization")) > 1:
        raise RequestError("`Authorization` is given twice", code="request_invalid")
    header = request.headers.get("authorization")
    if "client_assertion" in one or "client_assertion_type" in one:
        return _read_assertion(one, header)
    if header is None:
        if "client_id" not in one or "client_secret" not in one:
            return None
        return Presented(one["client_id"], one["client_secret"])
    basic = read_basic(header)
    if "client_secret" in one or (
        basic and one.get("client_id", basic.client_id) != basic.client_id
    ):
        text = "the client proves itself twice; use `Authorization` or the body"
        raise RequestError(text, code="request_invalid")
    return basic


def _read_assertion(one: Mapping[str, str], header: str | None) -> Presented | None:
    """Read the parameters of RFC 7521 §4.2. Another type of assertion is no credential here."""
    if header is not None or "client_secret" in one:
        text = "the client proves itself twice; send nothing but the assertion"
        raise RequestError(text, code="request_invalid")
    if one.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in one:
        text = f"an assertion is sent as `client_assertion`, of type `{ASSERTION_TYPE}`"
        raise RequestError(text, code="request_invalid")
    return Presented(one.get("client_id", ""), "", one["client_assertion"])


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises `RequestError` (`body_too_large`) as soon as it is too large."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise RequestError(f"the body is larger than {max_bytes} bytes", code="body_too_large")
    return bytes(raw)
