"""`/signin/oidc/<provider>`: to an enterprise's identity provider and back (TOK-08)."""

from __future__ import annotations

from typing import Final

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.approvals.sessions import FEDERATED, hash_of, is_assured
from gateway.core.errors import CredentialError
from gateway.core.people.accounts import Asked, Identity, IdentityProvider
from gateway.http.pages.signin_pages import go_on_page, leave_page
from gateway.http.signin import FLOW, build_offer
from gateway.http.signin_desk import (
    PageRoute,
    SignInDeps,
    check_rate,
    find_human,
    let_in,
    note_refusal,
    read_fields,
    require_own_page,
)
from gateway.http.signin_sessions import Proof

STATE_S: Final = 600
_ANSWER_MAX_CHARS: Final = 4_096


class Flow(Struct, frozen=True):
    """A sign-in under way, and the browser that it began in."""

    asked: Asked
    browser: str


def callback_path(provider: str) -> str:
    """Return the path of a provider's redirect URI."""
    return f"/signin/oidc/{provider}/callback"


def build_oidc_router(deps: SignInDeps) -> APIRouter:
    """Build `POST /signin/oidc/{provider}` and its `/callback`."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.post("/signin/oidc/{provider}")
    async def begin(request: Request, provider: str) -> Response:
        return await _begin(deps, request, provider)

    @router.get("/signin/oidc/{provider}/callback")
    async def callback(request: Request, provider: str) -> Response:
        return await _callback(deps, request, provider)

    return router


async def _begin(deps: SignInDeps, request: Request, name: str) -> Response:
    require_own_page(deps, request)
    check_rate(deps, request)
    provider = _find(deps, name)
    form = await read_fields(request)
    offer = build_offer(deps, form.get("next"), form.get("acr", ""), form.get("max_age", ""))
    again = await deps.sessions.current(request) if offer.acr or offer.max_age else None
    state, browser = deps.ids.secret(), deps.ids.secret()
    asked = Asked(
        provider=name,
        nonce=deps.ids.secret(),
        verifier=deps.ids.secret(),
        next_path=offer.next_path,
        acr=offer.acr,
        max_age_s=int(offer.max_age) if offer.max_age else None,
        person="" if again is None else again.person,
    )
    url = await provider.begin(state, asked)
    body = msgspec.json.encode(Flow(asked, hash_of(browser)))
    await deps.tickets.put("oidc", state, body, deps.now_s() + STATE_S)
    response = leave_page(url, provider.label)
    # Lax: the provider's redirect back has to bring it.
    deps.sessions.set_cookie(response, FLOW, browser, max_age_s=STATE_S, strict=False)
    return response


async def _callback(deps: SignInDeps, request: Request, name: str) -> Response:
    check_rate(deps, request)
    provider = _find(deps, name)
    answer = {key: value[:_ANSWER_MAX_CHARS] for key, value in request.query_params.items()}
    # 1. Answers that nobody here asked for, or that were brought once already.
    # 2. Another browser's answer: the victim would be signed in as the attacker.
    flow = await _take(deps, request, answer.get("state", ""))
    # 3. An answer of one provider at the door of another.
    if flow is None or flow.asked.provider != name:
        await note_refusal(deps, "oidc", "state_unknown")
        text = "this sign-in is not under way in this browser; begin again"
        raise CredentialError(text, code="sign_in_refused")
    try:
        identity = await provider.finish(flow.asked, answer)
    except CredentialError as error:
        await note_refusal(deps, "oidc", error.code)
        raise
    person = await _admit(deps, provider, flow.asked, identity)
    # The browser comes from another site; strict cookies go along from a page of our own only.
    response = go_on_page(flow.asked.next_path)
    proof = Proof(
        person=person,
        auth_time=identity.auth_time,
        acr=identity.acr,
        amr=(FEDERATED, *identity.amr),
    )
    await let_in(deps, request, response, proof, method="oidc", provider=name)
    deps.sessions.drop_cookie(response, FLOW)
    return response


async def _take(deps: SignInDeps, request: Request, state: str) -> Flow | None:
    body = await deps.tickets.take("oidc", state, deps.now_s())
    flow = None if body is None else msgspec.json.decode(body, type=Flow)
    browser = deps.sessions.read_cookie(request, FLOW)
    return flow if flow is not None and flow.browser == hash_of(browser) else None


async def _admit(
    deps: SignInDeps, provider: IdentityProvider, asked: Asked, identity: Identity
) -> str:
    """Return the person's id here. Raises `CredentialError` `sign_in_refused`."""
    known = find_human(deps, identity.person)
    if asked.person and identity.person != asked.person:
        await note_refusal(deps, "oidc", "person_other", None if known is None else known.id)
        raise CredentialError(f"prove that you are `{asked.person}`", code="sign_in_refused")
    if asked.acr and not is_assured(identity.acr, asked.acr):
        await note_refusal(deps, "oidc", "assurance_low", None if known is None else known.id)
        text = "this needs a stronger sign-in than the provider reports; choose another way there"
        raise CredentialError(text, code="sign_in_refused")
    if known is not None:
        return known.id
    if provider.provisions and await deps.provision(identity.person):
        await deps.log.changed(identity.person, "provisioned")
        return identity.person
    await note_refusal(deps, "oidc", "person_unknown")
    raise CredentialError(
        "the provider knows you and this gateway does not; ask an admin", code="sign_in_refused"
    )


def _find(deps: SignInDeps, name: str) -> IdentityProvider:
    provider = deps.providers.get(name)
    if provider is None:
        raise CredentialError("there is no such identity provider", code="sign_in_unknown")
    return provider
