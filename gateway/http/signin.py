"""`/signin`: passwords, passkeys, and signing out again (TOK-08)."""

from __future__ import annotations

import base64
from typing import Any, Final, TypeVar

import msgspec
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core import strict_json
from gateway.core.approvals.sessions import LEVELS, hash_of, local_path
from gateway.core.errors import CredentialError, RequestError
from gateway.core.people.accounts import Passkey
from gateway.http.admin_route import BODY_MAX_BYTES
from gateway.http.client_auth import read_body
from gateway.http.pages.markup import SCRIPT_PATH, STYLE_PATH, asset
from gateway.http.pages.signin_pages import Offer, again_page, go_on_page, sign_in_page
from gateway.http.signin_desk import (
    PageRoute,
    SignInDeps,
    address_of,
    check_rate,
    find_human,
    known_device,
    let_in,
    note_refusal,
    read_fields,
    require_own_form,
    require_own_page,
    see_other,
)
from gateway.http.signin_sessions import SIGN_IN_PATH, Proof

CHALLENGE_S: Final = 300
FLOW: Final = "countersign-flow"
"""Cookie that ties a challenge, or a state, to the browser that it was given to."""

PASSKEY_AMR: Final = ("pop", "user", "mfa")
_WRONG: Final = "this is not right, or you cannot sign in here; check both fields"
_ID_MAX_CHARS: Final = 64


T = TypeVar("T")


class PasskeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /signin/passkey`."""

    credential: dict[str, Any]
    next: str = ""


def build_sign_in_router(deps: SignInDeps) -> APIRouter:
    """Build `/signin`, `/signin/password`, `/signin/passkey[/options]` and `/signout`."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get(SIGN_IN_PATH)
    async def show(request: Request) -> Response:
        return await _show(deps, request)

    @router.post("/signout")
    async def sign_out(request: Request) -> Response:
        return await _sign_out(deps, request)

    @router.get(STYLE_PATH)
    async def style() -> Response:
        return asset("style.css", "text/css; charset=utf-8")

    @router.get(SCRIPT_PATH)
    async def script() -> Response:
        return asset("passkey.js", "text/javascript; charset=utf-8")

    if deps.local:
        _add_local(router, deps)
    return router


def _add_local(router: APIRouter, deps: SignInDeps) -> None:
    @router.post("/signin/password")
    async def password(request: Request) -> Response:
        return await _password(deps, request)

    @router.post("/signin/passkey/options")
    async def options(request: Request) -> Response:
        return await _passkey_options(deps, request)

    @router.post("/signin/passkey")
    async def passkey(request: Request) -> Response:
        return await _passkey(deps, request)


async def _show(deps: SignInDeps, request: Request) -> Response:
    asked = request.query_params
    offer = build_offer(deps, asked.get("next"), asked.get("acr", ""), asked.get("max_age", ""))
    max_age_s = int(offer.max_age) if offer.max_age else None
    found = await deps.sessions.require_fresh(request, acr=offer.acr, max_age_s=max_age_s)
    if found is not None:
        return see_other(offer.next_path)
    who = await deps.sessions.current(request)
    if who is None and request.headers.get("sec-fetch-site") == "cross-site":
        # The browser came from another site and so without its strict cookie; ask again as ours.
        return again_page(
            deps.sessions.sign_in_url(offer.next_path, acr=offer.acr, max_age_s=max_age_s)
        )
    return sign_in_page(msgspec.structs.replace(offer, person="" if who is None else who.person))


def build_offer(deps: SignInDeps, next_path: str | None, acr: str, max_age: str) -> Offer:
    """Return what the sign-in page offers; what was asked for is kept only where it makes sense."""
    return Offer(
        next_path=local_path(next_path),
        local=deps.local,
        providers={name: one.label for name, one in deps.providers.items()},
        acr=acr if acr in LEVELS else "",
        max_age=max_age if max_age.isascii() and max_age.isdigit() and len(max_age) < 7 else "",  # noqa: PLR2004 - eleven days
    )


async def _password(deps: SignInDeps, request: Request) -> Response:
    # 1. Forms that another site's page sent: a victim signed in as the attacker (login CSRF).
    require_own_page(deps, request)
    form = await read_fields(request)
    person, given = form.get("person", "").strip()[:_ID_MAX_CHARS], form.get("password", "")
    offer = build_offer(deps, form.get("next"), form.get("acr", ""), form.get("max_age", ""))
    # 2. Guessing, at one account and over many.
    device = await known_device(deps, request, person)
    now_s = deps.clock.monotonic_ns() / 1e9
    wait = deps.limits.wait_password_s(person, address_of(deps, request), device, now_s)
    if wait:
        await note_refusal(deps, "password", "sign_in_often")
        text = f"too many tries; try again in {wait} s, or use a passkey"
        response = sign_in_page(offer, error=text, status=429)
        response.headers["Retry-After"] = str(wait)
        return response
    # 3. Finding out who is known: an unknown person costs the same and is told the same.
    known = find_human(deps, person)
    stored = await deps.accounts.password_hash(person)
    hasher = deps.passwords
    assert hasher is not None  # noqa: S101 - the route is there only with them
    verified = await hasher.verify(None if known is None else stored, given)
    if known is None or not verified.right:
        who = None if known is None else known.id
        await note_refusal(deps, "password", "credentials_wrong", who)
        return sign_in_page(offer, error=_WRONG, status=403)
    if verified.rehashed is not None:
        await deps.accounts.rehash_password(known.id, before=stored, after=verified.rehashed)
    deps.limits.forgive(person, device)
    response = _go_on(offer.next_path)
    proof = Proof(person=known.id, auth_time=deps.now_s(), acr="session", amr=("pwd",))

    # 4. A password that is changed while it is tried: what ends all sessions misses the next one.
    async def holds() -> bool:
        kept = await deps.accounts.password_hash(known.id)
        return kept == stored or (await hasher.verify(kept, given)).right

    await let_in(deps, request, response, proof, method="password", holds=holds)
    return response


def _go_on(next_path: str) -> Response:
    """Return the way on after a form.

    `/oauth/authorize` may redirect to an app at once, and the answer to a form may lead nowhere
    but to our own pages (`form-action`): from there on it is a way of its own.
    """
    return go_on_page(next_path) if next_path.startswith("/oauth/") else see_other(next_path)


async def _passkey_options(deps: SignInDeps, request: Request) -> Response:
    require_own_page(deps, request)
    check_rate(deps, request)
    challenge, flow = deps.ids.secret(), deps.ids.secret()
    until = deps.now_s() + CHALLENGE_S
    await deps.tickets.put("passkey", challenge, hash_of(flow).encode(), until)
    assert deps.passkeys is not None  # noqa: S101 - the route is there only with them
    response = json_reply(deps.passkeys.ask(challenge).encode())
    deps.sessions.set_cookie(response, FLOW, flow, max_age_s=CHALLENGE_S)
    return response


async def _passkey(deps: SignInDeps, request: Request) -> Response:
    # 1. Pages of others.
    require_own_page(deps, request)
    check_rate(deps, request)
    try:
        body = await read_json(request, PasskeyBody)
        challenge = read_challenge(body.credential)
    except RequestError as error:
        await note_refusal(deps, "passkey", error.code)
        raise
    # 2. Assertions made before, or in another browser: a challenge is good once, and here.
    flow = deps.sessions.read_cookie(request, FLOW)
    ticket = await deps.tickets.take("passkey", challenge, deps.now_s())
    if ticket is None or ticket != hash_of(flow).encode():
        await note_refusal(deps, "passkey", "challenge_unknown")
        raise CredentialError("this took too long; try again", code="passkey_invalid")
    # 3. Keys that nobody registered, copied authenticators, people who are suspended.
    proof = await _believe(deps, body.credential, challenge)
    response = json_reply(orjson.dumps({"next": local_path(body.next)}))
    key_id = str(body.credential["id"])

    async def holds() -> bool:
        return await deps.accounts.passkey(key_id) is not None

    await let_in(deps, request, response, proof, method="passkey", holds=holds)
    deps.sessions.drop_cookie(response, FLOW)
    return response


async def _believe(deps: SignInDeps, credential: dict[str, Any], challenge: str) -> Proof:
    assert deps.passkeys is not None  # noqa: S101 - the route is there only with them
    key_id = credential.get("id")
    stored = await deps.accounts.passkey(key_id) if isinstance(key_id, str) else None
    if stored is None or find_human(deps, stored.person) is None:
        await note_refusal(deps, "passkey", "passkey_unknown")
        raise CredentialError("this passkey is not known here", code="passkey_invalid")
    try:
        counter = deps.passkeys.check(credential, challenge, stored)
    except CredentialError as error:
        await note_refusal(deps, "passkey", error.code, stored.person)
        raise
    if not await _count(deps, stored, counter):
        await note_refusal(deps, "passkey", "passkey_copied", stored.person)
        raise CredentialError("this passkey was used elsewhere meanwhile", code="passkey_invalid")
    return Proof(person=stored.person, auth_time=deps.now_s(), acr="strong", amr=PASSKEY_AMR)


async def _count(deps: SignInDeps, stored: Passkey, counter: int) -> bool:
    """Keep the new counter; False where another sign-in with the same one was faster."""
    before = stored.sign_count
    if counter == before:  # authenticators without a counter say 0 for ever
        return counter == 0
    return await deps.accounts.count_up(stored.credential_id, before=before, after=counter)


async def _sign_out(deps: SignInDeps, request: Request) -> Response:
    found = await deps.sessions.current(request)
    if found is None:
        return see_other(SIGN_IN_PATH)
    form = await read_fields(request)
    require_own_form(deps, request, found, form.get("csrf", ""))
    response = see_other(SIGN_IN_PATH)
    await deps.sessions.end(request, response)
    await deps.log.signed_out(found)
    return response


# --- what scripts send and get


async def read_json(request: Request, kind: type[T]) -> T:
    """Return a script's body, read strictly. Raises `RequestError`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError("send JSON", code="request_invalid")
    raw = await read_body(request, BODY_MAX_BYTES)
    try:
        return msgspec.convert(strict_json.parse(raw, max_depth=4), kind)
    except msgspec.ValidationError:
        raise RequestError("the body does not fit", code="request_invalid") from None


def read_challenge(credential: dict[str, Any]) -> str:
    """Return the challenge that an authenticator says it signed; nothing is believed yet."""
    try:
        said = orjson.loads(_unpad(credential["response"]["clientDataJSON"]))
        return _unpad(said["challenge"]).decode("ascii")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RequestError("this is no answer of a passkey", code="request_invalid") from None


def json_reply(body: bytes) -> Response:
    """Return JSON that nobody keeps."""
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")


def _unpad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
