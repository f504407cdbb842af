"""`/account`: what somebody signs in with, and where they are signed in."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.approvals.sessions import FEDERATED, FRESH_S, HOME, SignedIn, hash_of, is_fresh
from gateway.core.errors import CredentialError
from gateway.core.people.accounts import Passkey, find_password_fault
from gateway.http.pages.account_pages import account_page
from gateway.http.signin import CHALLENGE_S, json_reply, read_challenge, read_json
from gateway.http.signin_desk import (
    PageRoute,
    SignInDeps,
    note_refusal,
    read_own_form,
    require_own_form,
    see_other,
)

PASSKEYS_MAX: Final = 20
_LABEL_MAX_CHARS: Final = 64
_SAID: Final = {
    "password": "The password was changed.",
    "passkey": "The passkey was added.",
    "removed": "The passkey was removed.",
    "ended": "You are signed in here only.",
}


class OptionsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /account/passkeys/options`."""

    csrf: str


class NewPasskeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /account/passkeys`."""

    csrf: str
    label: str
    credential: dict[str, Any]


def build_account_router(deps: SignInDeps) -> APIRouter:
    """Build `/account` and what can be changed on it."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get(HOME)
    async def show(request: Request) -> Response:
        found = await deps.sessions.current(request)
        if found is None:
            return see_other(deps.sessions.sign_in_url(HOME))
        return await _show(deps, found, said=_SAID.get(request.query_params.get("done", ""), ""))

    @router.post("/account/sessions/end")
    async def end_others(request: Request) -> Response:
        found, _ = await read_own_form(deps, request)
        await deps.sessions.end_others(request, found)
        await deps.log.changed(found.person, "sessions_ended", session=found.sid)
        return see_other(f"{HOME}?done=ended")

    if deps.local:
        _add_local(router, deps)
    return router


def _add_local(router: APIRouter, deps: SignInDeps) -> None:
    @router.post("/account/password")
    async def password(request: Request) -> Response:
        return await _change_password(deps, request)

    @router.post("/account/passkeys/options")
    async def options(request: Request) -> Response:
        return await _passkey_options(deps, request)

    @router.post("/account/passkeys")
    async def add(request: Request) -> Response:
        return await _add_passkey(deps, request)

    @router.post("/account/passkeys/remove")
    async def remove(request: Request) -> Response:
        return await _remove_passkey(deps, request)


async def _show(
    deps: SignInDeps, found: SignedIn, *, said: str = "", error: str = "", status: int = 200
) -> Response:
    return account_page(
        found,
        passkeys=await deps.accounts.passkeys(found.person),
        sessions=await deps.sessions.find(found.person),
        local=deps.local and FEDERATED not in found.amr,
        said=said,
        error=error,
        status=status,
    )


def _require_local(deps: SignInDeps, found: SignedIn) -> None:
    """Raise unless this session may change what its person signs in with.

    An open browser on a desk must not become somebody's account for good; and what an identity
    provider gave, a credential that it does not know must not outlive.
    """
    if FEDERATED in found.amr:
        raise CredentialError("your account is your identity provider's", code="sign_in_refused")
    if not is_fresh(found, "", FRESH_S, deps.now_s()):
        raise CredentialError("sign out and in again for this change", code="sign_in_again")


async def _change_password(deps: SignInDeps, request: Request) -> Response:
    found, fields = await read_own_form(deps, request)
    if not is_fresh(found, "", FRESH_S, deps.now_s()):
        return see_other(deps.sessions.sign_in_url(HOME, max_age_s=FRESH_S))
    _require_local(deps, found)
    new = fields.get("password", "")
    fault = find_password_fault(new, found.person)
    if fault is not None:
        return await _show(deps, found, error=fault, status=400)
    assert deps.passwords is not None  # noqa: S101 - the route is there only with them
    wait = deps.limits.wait_password_s(
        found.person, "", f"session:{found.sid}", deps.clock.monotonic_ns() / 1e9
    )
    stored = await deps.accounts.password_hash(found.person)
    if wait or (
        stored is not None
        and not (await deps.passwords.verify(stored, fields.get("old", ""))).right
    ):
        await note_refusal(deps, "password", "credentials_wrong", found.person)
        error = f"too many tries; try again in {wait} s" if wait else "the password now is not this"
        return await _show(deps, found, error=error, status=403)
    hashed = await deps.passwords.hash(new)
    await deps.log.changed(found.person, "password_set", session=found.sid)
    await deps.accounts.set_password(found.person, hashed, deps.now_s())
    await deps.sessions.end_others(request, found)
    return see_other(f"{HOME}?done=password")


async def _passkey_options(deps: SignInDeps, request: Request) -> Response:
    body = await read_json(request, OptionsBody)
    found = await _own_script(deps, request, body.csrf)
    challenge = deps.ids.secret()
    until = deps.now_s() + CHALLENGE_S
    await deps.tickets.put("passkey_new", challenge, hash_of(found.csrf).encode(), until)
    known = [one.credential_id for one in await deps.accounts.passkeys(found.person)]
    assert deps.passkeys is not None  # noqa: S101 - the route is there only with them
    return json_reply(deps.passkeys.ask_new(found.person, challenge, known).encode())


async def _add_passkey(deps: SignInDeps, request: Request) -> Response:
    body = await read_json(request, NewPasskeyBody)
    found = await _own_script(deps, request, body.csrf)
    # A challenge is good once, and for the session that asked for it.
    challenge = read_challenge(body.credential)
    ticket = await deps.tickets.take("passkey_new", challenge, deps.now_s())
    if ticket is None or ticket != hash_of(found.csrf).encode():
        await note_refusal(deps, "passkey", "challenge_unknown", found.person)
        raise CredentialError("this took too long; try again", code="passkey_invalid")
    assert deps.passkeys is not None  # noqa: S101 - the route is there only with them
    try:
        key_id, public_key, counter = deps.passkeys.check_new(body.credential, challenge)
    except CredentialError as error:
        await note_refusal(deps, "passkey", error.code, found.person)
        raise
    if len(await deps.accounts.passkeys(found.person)) >= PASSKEYS_MAX:
        raise CredentialError("remove a passkey first; you have many", code="passkey_invalid")
    await deps.log.changed(found.person, "passkey_added", session=found.sid)
    added = await deps.accounts.add_passkey(
        Passkey(
            credential_id=key_id,
            person=found.person,
            public_key=public_key,
            sign_count=counter,
            label=body.label.strip()[:_LABEL_MAX_CHARS] or "Passkey",
            created_at=deps.now_s(),
        )
    )
    if not added:
        raise CredentialError("this passkey is in use already", code="passkey_invalid")
    return json_reply(orjson.dumps({"next": f"{HOME}?done=passkey"}))


async def _remove_passkey(deps: SignInDeps, request: Request) -> Response:
    found, fields = await read_own_form(deps, request)
    if not is_fresh(found, "", FRESH_S, deps.now_s()):
        return see_other(deps.sessions.sign_in_url(HOME, max_age_s=FRESH_S))
    _require_local(deps, found)
    await deps.log.changed(found.person, "passkey_removed", session=found.sid)
    await deps.accounts.remove_passkey(found.person, fields.get("id", ""))
    return see_other(f"{HOME}?done=removed")


async def _own_script(deps: SignInDeps, request: Request, csrf: str) -> SignedIn:
    found = await deps.sessions.current(request)
    if found is None:
        raise CredentialError("sign in first", code="sign_in_again")
    require_own_form(deps, request, found, csrf)
    _require_local(deps, found)
    return found
