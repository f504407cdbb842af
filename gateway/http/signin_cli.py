"""People at a command line: the browser's loopback flow (RFC 8252), and a device's (RFC 8628).

Both end at `POST /signin/token` with a session credential: opaque, for a while, and that person's
only. It is no access token: agents get theirs at `/oauth/token`, which knows no people.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from typing import Final, Literal

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from msgspec.structs import replace
from starlette.datastructures import URL
from starlette.responses import RedirectResponse, Response

from gateway.core.approvals.sessions import SignedIn
from gateway.core.errors import CountersignError, CredentialError, RequestError
from gateway.core.oauth.authorization import is_verifier
from gateway.http.oauth_forms import Failure, tell_failure, tell_json
from gateway.http.pages.signin_pages import device_confirm_page, device_page, loopback_page
from gateway.http.signin_desk import (
    PageRoute,
    SignInDeps,
    address_of,
    check_rate,
    find_human,
    note_refusal,
    read_fields,
    read_own_form,
    see_other,
)
from gateway.http.signin_sessions import Proof

CLIENT_ID: Final = "countersign-cli"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
CODE_S: Final = 60
DEVICE_S: Final = 600
INTERVAL_S: Final = 5
STRONG_MAX_AGE_S: Final = 300
DEVICES_MAX: Final = 1_000
_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so no words; nothing that reads as another (RFC 8628 §6.1). 20^8: 34 bits."""

_LOOPBACK: Final = re.compile(r"http://127\.0\.0\.1:[1-9][0-9]{0,4}/callback")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_STATE_MAX_CHARS: Final = 256


class CliCode(Struct, frozen=True):
    """A code on its way through the browser to the command line that asked."""

    challenge: str
    redirect_uri: str
    proof: Proof


class Poll(Struct, frozen=True):
    """What a device code stands for, and how often its holder may ask."""

    user_code: str
    interval_s: int
    asked_at: int = 0


class Device(Struct, frozen=True):
    """A command line that waits for somebody to allow it."""

    state: Literal["pending", "allowed", "refused"]
    asked_from: str
    proof: Proof | None = None


def build_cli_router(deps: SignInDeps) -> APIRouter:
    """Build `/signin/cli`, `/signin/token`, `/signin/revoke`, `/device` and its authorization."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get("/signin/cli")
    async def ask(request: Request) -> Response:
        return await _ask_loopback(deps, request)

    @router.post("/signin/cli")
    async def allow(request: Request) -> Response:
        return await _allow_loopback(deps, request)

    @router.post("/oauth/device_authorization")
    async def device(request: Request) -> Response:
        return await _told(_begin_device(deps, request))

    @router.get("/device")
    async def show(request: Request) -> Response:
        return await _show_device(deps, request)

    @router.post("/device")
    async def answer(request: Request) -> Response:
        return await _answer_device(deps, request)

    @router.post("/signin/token")
    async def token(request: Request) -> Response:
        return await _told(_token(deps, request))

    @router.post("/signin/revoke")
    async def revoke(request: Request) -> Response:
        return await _told(_revoke(deps, request))

    return router


# --- loopback


async def _ask_loopback(deps: SignInDeps, request: Request) -> Response:
    given = request.query_params
    # A command line that will be asked for a strong sign-in of late; what it is worth is judged
    # where it is used.
    acr = "strong" if given.get("acr") == "strong" else ""
    max_age_s = STRONG_MAX_AGE_S if acr else None
    found = await deps.sessions.require_fresh(request, acr=acr, max_age_s=max_age_s)
    if found is None:
        path = URL(scope=request.scope)
        to = f"{path.path}?{path.query}"
        return see_other(deps.sessions.sign_in_url(to, acr=acr, max_age_s=max_age_s))
    asked = _read_loopback(dict(given))
    target = asked["redirect_uri"].removesuffix("/callback")
    return loopback_page({**asked, "csrf": found.csrf}, who=found.person, target=target)


async def _allow_loopback(deps: SignInDeps, request: Request) -> Response:
    found, fields = await read_own_form(deps, request)
    asked = _read_loopback(fields)
    code = deps.ids.secret()
    body = CliCode(asked["code_challenge"], asked["redirect_uri"], _proof_of(found))
    await deps.tickets.put("cli_code", code, msgspec.json.encode(body), deps.now_s() + CODE_S)
    url = URL(asked["redirect_uri"]).include_query_params(
        code=code, state=asked["state"], iss=deps.sessions.origin
    )
    return RedirectResponse(str(url), 303, headers={"Cache-Control": "no-store"})


def _read_loopback(given: dict[str, str]) -> dict[str, str]:
    """Return what a command line asks for. Raises `RequestError` for any other shape.

    Stops codes going anywhere but to this machine, and plain challenges.
    """
    asked = {name: given.get(name, "") for name in ("redirect_uri", "code_challenge", "state")}
    if (
        not _LOOPBACK.fullmatch(asked["redirect_uri"])
        or not _CHALLENGE.fullmatch(asked["code_challenge"])
        or not 0 < len(asked["state"]) <= _STATE_MAX_CHARS
    ):
        raise RequestError(
            "this is not what `countersign login` asks for; run it again", code="request_invalid"
        )
    return asked


# --- device


async def _begin_device(deps: SignInDeps, request: Request) -> Response:
    check_rate(deps, request)
    fields = await read_fields(request)
    if fields.get("client_id") != CLIENT_ID:
        return tell_failure(Failure("invalid_client", f"the client is {CLIENT_ID}", 401))
    now_s = deps.now_s()
    if await deps.tickets.count("device", now_s) >= DEVICES_MAX:
        raise CountersignError("too many devices wait", code="sign_in_busy", retryable=True)
    device_code, user_code = deps.ids.secret(), _new_user_code()
    device = msgspec.json.encode(Device("pending", address_of(deps, request)))
    poll = msgspec.json.encode(Poll(user_code, INTERVAL_S))
    await deps.tickets.put("user_code", user_code, device, now_s + DEVICE_S)
    await deps.tickets.put("device", device_code, poll, now_s + DEVICE_S)
    page = f"{deps.sessions.origin}/device"
    return tell_json(
        {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}",
            "expires_in": DEVICE_S,
            "interval": INTERVAL_S,
        }
    )


async def _show_device(deps: SignInDeps, request: Request) -> Response:
    code = _read_user_code(request.query_params.get("user_code", ""))
    found = await deps.sessions.current(request)
    if found is None:
        to = f"/device?user_code={code}" if code else "/device"
        return see_other(deps.sessions.sign_in_url(to))
    if not code:
        return device_page(found.csrf)
    device = await _find_device(deps, found, code)
    if device is None:
        text = "this code is not known, or not any more; run the command again"
        return device_page(found.csrf, code=code, error=text, status=404)
    return device_confirm_page(
        found.csrf, code, who=found.person, asked_from=device[0].asked_from or "somewhere"
    )


async def _answer_device(deps: SignInDeps, request: Request) -> Response:
    found, fields = await read_own_form(deps, request)
    code = _read_user_code(fields.get("code", ""))
    known = await _find_device(deps, found, code)
    allowed = fields.get("answer") == "allow"
    if known is not None:
        device, before = known
        state: Literal["allowed", "refused"] = "allowed" if allowed else "refused"
        after = replace(device, state=state, proof=_proof_of(found) if allowed else None)
        swapped = await deps.tickets.swap(
            "user_code",
            code,
            before=before,
            after=msgspec.json.encode(after),
            now_s=deps.now_s(),
        )
        if swapped:
            done = "It is signed in; go back to it." if allowed else "It was refused."
            return device_page(found.csrf, done=done)
    text = (
        "this code is not known, or was answered already, such as by pressing twice; "
        "look at your command line, and run the command again if it has ended"
    )
    return device_page(found.csrf, error=text, status=404)


async def _find_device(deps: SignInDeps, found: SignedIn, code: str) -> tuple[Device, bytes] | None:
    """Return the command line that shows this code, if it still waits. Guessing is bounded."""
    wait = deps.limits.wait_password_s(
        "", "", f"user_code:{found.person}", deps.clock.monotonic_ns() / 1e9
    )
    if wait:
        raise CredentialError(f"too many tries; try again in {wait} s", code="sign_in_often")
    body = await deps.tickets.peek("user_code", code, deps.now_s())
    device = None if body is None else msgspec.json.decode(body, type=Device)
    if device is None or body is None or device.state != "pending":
        return None
    return device, body


# --- the credential


async def _token(deps: SignInDeps, request: Request) -> Response:
    check_rate(deps, request)
    fields = await read_fields(request)
    grant_type = fields.get("grant_type")
    if fields.get("client_id") != CLIENT_ID:
        return tell_failure(Failure("invalid_client", f"the client is {CLIENT_ID}", 401))
    if grant_type == "authorization_code":
        return await _redeem_code(deps, fields)
    if grant_type == DEVICE_GRANT:
        return await _redeem_device(deps, fields.get("device_code", ""))
    return tell_failure(Failure("unsupported_grant_type", "see docs/sign-in.md"))


async def _redeem_code(deps: SignInDeps, fields: dict[str, str]) -> Response:
    body = await deps.tickets.take("cli_code", fields.get("code", ""), deps.now_s())
    code = None if body is None else msgspec.json.decode(body, type=CliCode)
    if (
        code is None
        or not is_verifier(fields.get("code_verifier", ""), code.challenge)
        or fields.get("redirect_uri") != code.redirect_uri
    ):
        await note_refusal(deps, "cli", "code_invalid")
        return tell_failure(Failure("invalid_grant", "the code is not good, or was used"))
    return await _hand_over(deps, code.proof, "cli")


async def _redeem_device(deps: SignInDeps, device_code: str) -> Response:
    now_s = deps.now_s()
    before = await deps.tickets.peek("device", device_code, now_s)
    if before is None:
        await note_refusal(deps, "device", "code_invalid")
        return tell_failure(Failure("expired_token", "run the command again"))
    poll = msgspec.json.decode(before, type=Poll)
    hurried = poll.asked_at > 0 and now_s - poll.asked_at < poll.interval_s
    after = replace(
        poll, asked_at=now_s, interval_s=poll.interval_s + (INTERVAL_S if hurried else 0)
    )
    await deps.tickets.swap(
        "device", device_code, before=before, after=msgspec.json.encode(after), now_s=now_s
    )
    if hurried:
        return tell_failure(Failure("slow_down", f"ask every {after.interval_s} s"))
    body = await deps.tickets.peek("user_code", poll.user_code, now_s)
    device = None if body is None else msgspec.json.decode(body, type=Device)
    if device is None or device.state == "refused":
        await deps.tickets.take("device", device_code, now_s)
        return tell_failure(Failure("access_denied", "it was refused in the browser"))
    if device.state == "pending" or device.proof is None:
        return tell_failure(Failure("authorization_pending", "nobody has answered yet"))
    # INVARIANT: of all who bring a device code, one gets past this line.
    if await deps.tickets.take("device", device_code, now_s) is None:
        return tell_failure(Failure("expired_token", "run the command again"))
    await deps.tickets.take("user_code", poll.user_code, now_s)
    return await _hand_over(deps, device.proof, "device")


async def _hand_over(deps: SignInDeps, proof: Proof, method: Literal["cli", "device"]) -> Response:
    # Suspended, signed out or out of this account since they allowed it.
    if not await _is_alive(deps, proof):
        return await _refuse_person(deps, method)

    async def told(found: SignedIn) -> None:
        await deps.log.signed_in(found, "cli", method)

    secret, found = await deps.sessions.begin_cli(proof, told)
    if not await _is_alive(deps, proof):  # as in `let_in`: what ended that one may have missed this
        await deps.sessions.end_one(found)
        return await _refuse_person(deps, method)
    return tell_json(
        {
            "access_token": secret,
            "token_type": "Bearer",
            "expires_in": found.expires_at - deps.now_s(),
            "person": found.person,
        }
    )


async def _is_alive(deps: SignInDeps, proof: Proof) -> bool:
    """Whether the session in which somebody allowed a command line still stands."""
    alive = {one.sid for one in await deps.sessions.find(proof.person)}
    return proof.sid in alive and find_human(deps, proof.person) is not None


async def _refuse_person(deps: SignInDeps, method: Literal["cli", "device"]) -> Response:
    await note_refusal(deps, method, "person_unknown")
    return tell_failure(Failure("access_denied", "you cannot sign in here"))


async def _revoke(deps: SignInDeps, request: Request) -> Response:
    fields = await read_fields(request)
    found = await deps.sessions.end_credential(fields.get("token", ""))
    if found is not None:
        await deps.log.signed_out(found)
    return tell_json({})  # RFC 7009 §2.2: an unknown one is no error


# --- shared


async def _told(answering: Awaitable[Response]) -> Response:
    """Return an answer for programs: errors as RFC 6749 §5.2 has them."""
    try:
        return await answering
    except RequestError as error:
        return tell_failure(Failure("invalid_request", str(error)))
    except CredentialError as error:
        return tell_failure(Failure("slow_down", str(error), 429))
    except CountersignError:
        return tell_failure(Failure("temporarily_unavailable", "try again later", 503))


def _proof_of(found: SignedIn) -> Proof:
    return Proof(
        person=found.person,
        auth_time=found.auth_time,
        acr=found.acr,
        amr=found.amr,
        sid=found.sid,
    )


def _new_user_code() -> str:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def _read_user_code(text: str) -> str:
    """Return a code as it was made, however it was typed; nothing for what cannot be one."""
    letters = [char for char in text.upper()[:32] if char in _ALPHABET]
    return f"{''.join(letters[:4])}-{''.join(letters[4:])}" if len(letters) == 8 else ""  # noqa: PLR2004
