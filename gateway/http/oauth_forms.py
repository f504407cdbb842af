"""What the OAuth endpoints share: forms read strictly, and errors as RFC 6749 §5.2 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.errors import RequestError
from gateway.http.client_auth import read_body

FORM_MAX_BYTES: Final = 65_536
"""Room for two tokens, as an exchange sends them."""
FORM_MAX_FIELDS: Final = 32

_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Failure(Struct, frozen=True):
    """Why a client gets nothing: an error code of OAuth, and a text for who reads it."""

    error: str
    text: str
    status: int = 400
    headers: dict[str, str] = {}


async def read_form(request: Request, *, max_fields: int = FORM_MAX_FIELDS) -> dict[str, list[str]]:
    """Return the parameters of the body.

    Raises `RequestError` for another media type, for what two parsers may read differently, and
    for a parameter that comes twice (RFC 6749 §3.2); `resource` and `audience` may.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise RequestError(f"send the parameters as `{_MEDIA_TYPE}`", code="request_invalid")
    raw = await read_body(request, FORM_MAX_BYTES)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=max_fields,
        )
    except ValueError:
        raise RequestError("the form cannot be read", code="request_invalid") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    for name, values in form.items():
        if len(values) > 1 and name not in {"resource", "audience"}:
            raise RequestError(f"`{name[:32]}` is given twice", code="request_invalid")
    return form


def tell_failure(failure: Failure) -> Response:
    """Return an error of RFC 6749 §5.2."""
    body = {"error": failure.error, "error_description": _printable(failure.text)}
    return tell_json(body, failure.status, failure.headers)


def tell_json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer that nobody keeps."""
    return Response(
        orjson.dumps(body),
        status,
        headers={**_NO_STORE, **(headers or {})},
        media_type="application/json",
    )


def _printable(text: str) -> str:
    """Keep to the characters that RFC 6749 §5.2 allows."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
