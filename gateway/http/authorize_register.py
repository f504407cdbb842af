"""`POST /oauth/register`: apps that register themselves (RFC 7591). Off unless it is switched on.

What an app gets by it is an id, and a page of consent that says that nobody has checked it. How
many there can be is bounded, and each is on record before it hears its id.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core import strict_json
from gateway.core.errors import CountersignError, RequestError
from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.apps import REGISTERED_PREFIX
from gateway.core.oauth.client_documents import clean_name, find_redirects_fault
from gateway.core.records.authorization_records import build_registered
from gateway.core.tokens.clients import hash_secret
from gateway.http.authorize import AuthorizeDeps
from gateway.http.client_auth import read_body
from gateway.http.oauth_forms import Failure, tell_failure, tell_json

BODY_MAX_BYTES: Final = 5_120
APPS_MAX: Final = 1_000

_DEPTH: Final = 6
_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
_GRANT_TYPES: Final = frozenset(("authorization_code", "refresh_token"))

Name = Annotated[str, msgspec.Meta(max_length=256)]


class _Asked(Struct, frozen=True):
    """What of RFC 7591 §2 is read. Other members mean nothing here."""

    redirect_uris: tuple[str, ...]
    client_name: Name = ""
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 - the name of a method
    grant_types: tuple[str, ...] = ("authorization_code",)
    response_types: tuple[str, ...] = ("code",)


def build_register_router(deps: AuthorizeDeps) -> APIRouter:
    """Build the route."""
    router = APIRouter(tags=["oauth"])

    @router.post(oauth.REGISTER_PATH)
    async def register(request: Request) -> Response:
        """Register an app."""
        try:
            return await _register(deps, request)
        except CountersignError:
            text = "no app can be registered now; try again later"
            return tell_failure(Failure("temporarily_unavailable", text, 503))

    return router


async def _register(deps: AuthorizeDeps, request: Request) -> Response:
    try:
        asked = _read(await read_body(request, BODY_MAX_BYTES))
    except RequestError as error:
        await deps.refuse("read", error.code)
        return tell_failure(Failure("invalid_client_metadata", str(error)))
    if (fault := find_redirects_fault(asked.redirect_uris, None)) is not None:
        await deps.refuse("read", "request_invalid")
        return tell_failure(Failure("invalid_redirect_uri", f"the app {fault}"))
    public = asked.token_endpoint_auth_method == "none"  # noqa: S105 - the name of a method
    secret = "" if public else deps.ids.secret()
    app = deps.apps.stranger(
        REGISTERED_PREFIX + deps.ids.new(),
        name=clean_name(asked.client_name) or "An app without a name",
        redirect_uris=asked.redirect_uris,
        secret_hash=hash_secret(secret) if secret else "",
    )
    now_s = deps.clock.now_ns() // 1_000_000_000
    if deps.apps.registered >= APPS_MAX:
        return _full()
    await deps.audit.record(build_registered(app, deps.ids.new()))
    if not await deps.store.put_app(app, at=now_s, most=APPS_MAX):
        return _full()
    deps.apps.put(app)
    body = {
        "client_id": app.id,
        "client_id_issued_at": now_s,
        **({"client_secret": secret, "client_secret_expires_at": 0} if secret else {}),
        "client_name": app.name,
        "redirect_uris": list(app.redirect_uris),
        "grant_types": sorted(_GRANT_TYPES),
        "response_types": ["code"],
        "token_endpoint_auth_method": asked.token_endpoint_auth_method,
    }
    return tell_json(body, 201)


def _read(raw: bytes) -> _Asked:
    try:
        asked = msgspec.convert(strict_json.parse(raw, max_depth=_DEPTH), _Asked)
    except msgspec.ValidationError as error:
        text = f"the metadata do not fit: {str(error)[:200]}"
        raise RequestError(text, code="request_invalid") from None
    if asked.token_endpoint_auth_method not in _METHODS:
        text = f"the methods are {', '.join(_METHODS)}"
        raise RequestError(text, code="request_invalid")
    if not set(asked.grant_types) <= _GRANT_TYPES or asked.response_types != ("code",):
        raise RequestError("apps get codes and refresh tokens", code="request_invalid")
    return asked


def _full() -> Response:
    text = "as many apps as there may be have registered; ask who runs this gateway"
    return tell_failure(Failure("temporarily_unavailable", text, 503))
