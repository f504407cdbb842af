"""Errors of the REST API as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the response. `code` is stable and for programs; `detail` and `hint` are for people.

    Neither may hold a secret or an argument value: the response is not private to the caller's
    screen. Never cached.
    """
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if hint is not None:
        body["hint"] = hint
    return Response(
        orjson.dumps(body),
        status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )
