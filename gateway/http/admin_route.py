"""What the routes of the admin API share: who may, what was sent, how errors are told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from gateway.core import strict_json
from gateway.core.approvals.declined import Declined
from gateway.core.approvals.sessions import is_assured
from gateway.core.errors import CountersignError, CredentialError, RequestError
from gateway.http.humans import Admit, Human
from gateway.http.problem import problem

BODY_MAX_BYTES: Final = 16_384
REASON_MAX_CHARS: Final = 2_000

_STATUS: Final[Mapping[str, int]] = {
    "body_invalid": 400,
    "body_too_large": 413,
    "request_invalid": 400,
    "token_missing": 401,
    "token_invalid": 401,
    "role_missing": 403,
    "approval_assurance": 403,
    "approval_forbidden": 403,
    "approval_not_found": 404,
    "run_unknown": 404,
    "approval_conflict": 409,
    "killed": 403,
    "kill_not_found": 404,
    "kill_final": 409,
    "hold_same_person": 403,
    "hold_not_found": 404,
    "hold_conflict": 409,
    "opening_not_found": 404,
    "opening_erased": 410,
    "redact_own": 403,
    "redact_held": 409,
    "subject_not_found": 404,
    "token_key_missing": 409,
    "key_ring_unavailable": 503,
    "registry_not_found": 404,
    "registry_exists": 409,
    "registry_conflict": 409,
    "registry_read_only": 409,
    "registry_last_admin": 409,
    "registry_invalid": 400,
    "registry_same_person": 403,
    "registry_own_change": 403,
    "registry_secret_shared": 403,
    "vote_too_early": 403,
    "release_invalid": 400,
    "signature_invalid": 400,
    "policy_invalid": 400,
    "policy_selftest_failed": 400,
    "configuration_invalid": 400,
    "release_key_foreign": 403,
    "release_missing": 404,
    "release_elsewhere": 409,
    "release_stale": 409,
    "release_conflict": 409,
    "release_busy": 409,
    "release_closed": 409,
    "release_no_shadow": 409,
    "release_unseen": 409,
    "release_withdrawn": 409,
    "step_up_required": 401,
    "release_altered": 409,
    "release_unwritable": 503,
    "audit_unavailable": 503,
    "audit_overloaded": 503,
    "state_unavailable": 503,
    "approval_unavailable": 503,
}

_CHALLENGES: Final[Mapping[str, str]] = {
    "step_up_required": 'Bearer realm="countersign", error="insufficient_user_authentication", '
    'acr_values="strong"',
}
"""RFC 9470 §3."""

T = TypeVar("T")


class ProblemRoute(APIRoute):
    """A route whose `CountersignError`s leave as problem documents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with errors told."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except CountersignError as error:
                return tell(error.code, str(error))
            except RequestValidationError as error:
                places = ", ".join(f"`{found['loc'][-1]}`" for found in error.errors())
                return problem(400, "request_invalid", f"these parameters do not fit: {places}")

        return answer


async def require_role(admit: Admit, request: Request, *roles: str) -> Human:
    """Return the person who asks. Raises `CredentialError` where they have none of `roles`."""
    human = await admit(request.headers.get("authorization"))
    if not set(roles).isdisjoint(human.roles):
        return human
    needed = " or ".join(f"`{role}`" for role in roles)
    raise CredentialError(f"this needs the role {needed}", code="role_missing")


def require_step_up(human: Human, *, max_age_s: int, now_s: int) -> None:
    """Raise `CredentialError` unless somebody proved lately, and strongly, who they are.

    Stops what a found session, or a secret that was read somewhere, could do. `max_age_s` of 0
    asks for nothing.
    """
    young = now_s - human.auth_time <= max_age_s
    if max_age_s and not (young and is_assured(human.acr, "strong")):
        raise CredentialError(
            f"this needs a passkey, or as strong a sign-in, of the last {max_age_s} s: "
            "run `countersign login --strong`",
            code="step_up_required",
        )


async def read_body(request: Request, kind: type[T], *, max_depth: int = 1) -> T:
    """Return the body, read strictly. Raises `RequestError`."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX_BYTES:
            raise RequestError(
                f"the body is larger than {BODY_MAX_BYTES} bytes", code="body_too_large"
            )
    try:
        return msgspec.convert(strict_json.parse(bytes(raw), max_depth=max_depth), kind)
    except msgspec.ValidationError as error:
        raise RequestError(
            f"the body does not fit: {str(error)[:200]}", code="request_invalid"
        ) from None


def reply(body: dict[str, Any]) -> Response:
    """Return an answer that nobody keeps."""
    return Response(
        orjson.dumps(body), headers={"Cache-Control": "no-store"}, media_type="application/json"
    )


def decline(declined: Declined) -> Response:
    """Return the answer to what was not done."""
    return tell(declined.code, declined.why)


def tell(code: str, detail: str) -> Response:
    """Return the problem document of an error."""
    status = _STATUS.get(code, 500)
    if status == HTTPStatus.UNAUTHORIZED:
        challenge = {"WWW-Authenticate": _CHALLENGES.get(code, 'Bearer realm="countersign"')}
        return problem(status, code, detail, headers=challenge)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, code, detail)
    # What broke inside is for the operators' log.
    return problem(status, code, "this could not be completed", "try again later")
