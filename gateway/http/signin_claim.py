"""Claims: how somebody gets their first password. Good once, and for a while (TOK-08).

The first one is on the gateway's own screen and makes the first admin. Admins make the others, for
people who are known already. A claim is kept as a hash; who has it is that person.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.accounts import find_password_fault
from gateway.core.errors import CredentialError, RequestError
from gateway.core.sessions import HOME
from gateway.http.admin_route import ProblemRoute, read_body, reply, require_role
from gateway.http.humans import Admit
from gateway.http.pages.signin_pages import claim_page
from gateway.http.signin_desk import (
    PageRoute,
    SignInDeps,
    check_rate,
    find_human,
    let_in,
    note_refusal,
    read_fields,
    require_own_page,
    see_other,
)
from gateway.http.signin_sessions import Proof

CLAIM_PATH: Final = "/claim"
CLAIM_S: Final = 86_400
ADMIN: Final = "admin"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SPENT: Final = "this claim is not good, or not any more; ask for a new one"


class Claim(Struct, frozen=True):
    """Whose account a claim opens. Nobody's yet: it makes the first admin."""

    person: str = ""


class ClaimBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/sign-in/claims`."""

    person: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


def build_claim_routers(deps: SignInDeps, admit: Admit) -> list[APIRouter]:
    """Build `/claim` and `POST /v1/sign-in/claims`; nothing where there are no local accounts."""
    return [_pages(deps), _admin(deps, admit)] if deps.local else []


async def make_claim(deps: SignInDeps, claim: Claim) -> str:
    """Return a new claim's code. It is kept as a hash, and for `CLAIM_S`."""
    code = deps.ids.secret()
    await deps.tickets.put("claim", code, msgspec.json.encode(claim), deps.now_s() + CLAIM_S)
    return code


async def make_first_claim(deps: SignInDeps, *, holders: frozenset[str]) -> str | None:
    """At a start: return the code that makes the first admin; None where there is an admin.

    `holders` are people with a secret of the configuration. An earlier first claim is void.
    """
    if not deps.local:
        return None
    await deps.tickets.drop("first_claim")
    able = holders | await deps.accounts.with_credentials()
    if any(ADMIN in roles and who in able for who, roles in deps.humans.everyone().items()):
        return None
    code = deps.ids.secret()
    body = msgspec.json.encode(Claim())
    await deps.tickets.put("first_claim", code, body, deps.now_s() + CLAIM_S)
    return code


def _pages(deps: SignInDeps) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get(CLAIM_PATH)
    async def show(request: Request) -> Response:
        code = request.query_params.get("code", "")
        return claim_page(code, "", chooses=True)

    @router.post(CLAIM_PATH)
    async def claim(request: Request) -> Response:
        return await _claim(deps, request)

    return router


def _admin(deps: SignInDeps, admit: Admit) -> APIRouter:
    router = APIRouter(prefix="/v1/sign-in", tags=["people"], route_class=ProblemRoute)

    @router.post("/claims")
    async def make(request: Request) -> Response:
        """Make a claim for somebody who is known; shown once, to hand over in person."""
        human = await require_role(admit, request, ADMIN)
        body = await read_body(request, ClaimBody)
        if find_human(deps, body.person) is None:
            raise RequestError("there is no such person; create them first", code="request_invalid")
        await deps.log.changed(body.person, "claim_made", by=human.id)
        code = await make_claim(deps, Claim(body.person))
        return reply(
            {
                "person": body.person,
                "code": code,
                "url": f"{deps.sessions.origin}{CLAIM_PATH}?code={code}",
                "expires_at": deps.now_s() + CLAIM_S,
            }
        )

    return router


async def _claim(deps: SignInDeps, request: Request) -> Response:
    require_own_page(deps, request)
    check_rate(deps, request)
    form = await read_fields(request)
    code, chosen = form.get("code", "").strip(), form.get("person", "").strip()
    purpose, found = await _peek(deps, code)
    if found is None:
        await note_refusal(deps, "claim", "claim_unknown")
        return claim_page("", chosen, chooses=True, error=_SPENT, status=403)
    person = found.person or chosen
    fault = _find_fault(deps, found, person) or find_password_fault(
        form.get("password", ""), person
    )
    if fault is not None:  # nothing is used up by a password that is too short
        return claim_page(code, chosen, chooses=True, error=fault, status=400)
    assert deps.passwords is not None  # noqa: S101 - the route is there only with them
    hashed = await deps.passwords.hash(form.get("password", ""))
    # INVARIANT: of all who bring a claim, at any time, one gets past this line.
    if await deps.tickets.take(purpose, code, deps.now_s()) is None:
        await note_refusal(deps, "claim", "claim_unknown")
        return claim_page("", chosen, chooses=True, error=_SPENT, status=403)
    if not found.person and not await deps.provision(person, (ADMIN,)):
        raise CredentialError(
            "this id cannot be used; restart for a new claim", code="claim_invalid"
        )
    await deps.log.changed(person, "claim_used")
    await deps.accounts.set_password(person, hashed, deps.now_s())
    await deps.sessions.end_person(person)
    response = see_other(HOME)
    proof = Proof(person=person, auth_time=deps.now_s(), acr="session", amr=("pwd",))
    await let_in(deps, request, response, proof, method="claim")
    return response


async def _peek(deps: SignInDeps, code: str) -> tuple[str, Claim | None]:
    for purpose in ("claim", "first_claim"):
        body = await deps.tickets.peek(purpose, code, deps.now_s())
        if body is not None:
            return purpose, msgspec.json.decode(body, type=Claim)
    return "claim", None


def _find_fault(deps: SignInDeps, claim: Claim, person: str) -> str | None:
    if claim.person:
        gone = find_human(deps, claim.person) is None
        return "you are not known here any more; ask an admin" if gone else None
    if not _ID.fullmatch(person):
        return "choose an id: letters, digits and `._@-`, at most 64"
    if find_human(deps, person) is not None:
        return "this id is taken; choose another for the first admin"
    return None
