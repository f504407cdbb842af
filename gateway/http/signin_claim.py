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

from gateway.core.approvals.declined import Declined
from gateway.core.approvals.sessions import HOME, hash_of
from gateway.core.errors import CredentialError
from gateway.core.people.accounts import find_password_fault
from gateway.core.people.registry import SENSITIVE
from gateway.http.admin_route import ProblemRoute, decline, read_body, reply
from gateway.http.humans import Admit, Human
from gateway.http.openapi import takes
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
_SPENT: Final = (
    "this claim is not good, or not any more; sign in if you have just used it, "
    "such as by pressing twice, or ask for a new one"
)


class Claim(Struct, frozen=True):
    """Whose account a claim opens, who made it and when. Nobody's yet: it makes the first admin.

    `account` names the password and the secret that the person had then: it is good for those only.
    """

    person: str = ""
    by: str = ""
    at: int = 0
    account: str = ""


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


async def make_first_claim(deps: SignInDeps, *, has_admin: bool) -> str | None:
    """At a start: return the code that makes the first admin; None where there is one.

    An earlier first claim is void: what was printed before an end of the gateway is good no more.
    """
    await deps.tickets.drop("first_claim")
    if has_admin or not deps.local:
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
    @takes(ClaimBody)
    async def make(request: Request) -> Response:
        """Make a claim for oneself, or as an admin for somebody who decides nothing yet."""
        human = await admit(request.headers.get("authorization"))
        body = await read_body(request, ClaimBody)
        fault = _find_claim_fault(deps, human, body.person)
        if fault is not None:
            return decline(fault)
        await deps.log.changed(body.person, "claim_made", by=human.id)
        account = await _name_account(deps, body.person)
        code = await make_claim(deps, Claim(body.person, human.id, deps.now_s(), account))
        return reply(
            {
                "person": body.person,
                "code": code,
                "url": f"{deps.sessions.origin}{CLAIM_PATH}?code={code}",
                "expires_at": deps.now_s() + CLAIM_S,
            }
        )

    return router


def _find_claim_fault(deps: SignInDeps, by: Human, person: str) -> Declined | None:
    """Say why `by` cannot make a claim for a person, or return None. Numbered by attack."""
    target = find_human(deps, person)
    if by.id == person:
        # 1. A stolen session becoming somebody for good, or a provider's person somebody of ours.
        if by.session:
            why = "what you sign in with is changed on the account page"
            return Declined("registry_own_change", why)
        # 2. Becoming somebody for good by a secret that one was only told.
        if deps.shares_secret(person):
            why = "somebody else knows your secret; rotate it first"
            return Declined("registry_secret_shared", why)
        return None
    if ADMIN not in by.roles:
        return Declined("role_missing", "this needs the role `admin`")
    if target is None:
        return Declined("registry_not_found", "there is no such person; create them first")
    # 3. An admin becoming an approver, and voting twice: whoever decides has proofs of their own.
    if not SENSITIVE.isdisjoint(target.roles):
        why = "nobody makes a claim for who decides; take their roles, or let them make it"
        return Declined("registry_secret_shared", why)
    # 4. The same ahead of time: somebody who comes in by a provider needs no claim, ever.
    if deps.is_provisioned(person):
        why = "they sign in at their identity provider; let them do that"
        return Declined("registry_secret_shared", why)
    # 5. And somebody who needs no claim would never miss the one used for them.
    if deps.has_own_secret(person):
        why = "they have a secret of their own; let them make it themselves"
        return Declined("registry_secret_shared", why)
    return None


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
    fault = await _find_fault(deps, found, person)
    fault = fault or find_password_fault(form.get("password", ""), person)
    if fault is not None:  # nothing is used up by a password that is too short
        return claim_page(code, chosen, chooses=True, error=fault, status=400)
    assert deps.passwords is not None  # noqa: S101 - the route is there only with them
    hashed = await deps.passwords.hash(form.get("password", ""))
    # INVARIANT: of all who bring a claim, at any time, one gets past this line.
    if await deps.tickets.take(purpose, code, deps.now_s()) is None:
        await note_refusal(deps, "claim", "claim_unknown")
        return claim_page("", chosen, chooses=True, error=_SPENT, status=403)
    # INVARIANT: whoever could have the account by it is kept before anybody has it.
    others = found.by not in {"", person}
    if others and not await deps.note_claim(person, found.by, found.at or deps.now_s()):
        await note_refusal(deps, "claim", "claim_void", person)
        raise CredentialError(
            "you decide something, or have a secret, since it was made; make a claim of your own",
            code="claim_invalid",
        )
    await deps.log.changed(person, "claim_used", by=found.by or None)
    # Whoever used an earlier claim in this person's place keeps nothing by it.
    await deps.accounts.begin_anew(person, hashed, deps.now_s())
    await deps.sessions.end_person(person)
    # After the password: an admin whom a crash left without one could not be claimed again.
    if not found.person and not await deps.first_admin(person):
        raise CredentialError(
            "this id cannot be used; restart for a new claim", code="claim_invalid"
        )
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


async def _find_fault(deps: SignInDeps, claim: Claim, person: str) -> str | None:
    """Say why a claim is not good for `person`, or return None. Numbered by attack."""
    if not claim.person:
        return _find_first_fault(deps, person)
    target, maker = find_human(deps, claim.person), find_human(deps, claim.by)
    if target is None:
        return "you are not known here any more; ask an admin"
    others = claim.by != claim.person
    # 1. An admin who made a claim, waited for its person to be given roles, and used it then.
    if others and not SENSITIVE.isdisjoint(target.roles):
        return "you were given roles that decide since it was made; make a claim of your own"
    # 2. Somebody who was stopped since, or lost the role: what they made would outlive that.
    may = maker is not None and (not others or ADMIN in maker.roles)
    if not may or deps.humans.voids(claim.by, claim.at):
        return "who made this claim may not any more; ask for a new one"
    # 3. Whoever found an earlier claim, or made one with a secret that was replaced since.
    if claim.account != await _name_account(deps, claim.person):
        return "the account has another password or secret since it was made; ask for a new one"
    return None


def _find_first_fault(deps: SignInDeps, person: str) -> str | None:
    if not _ID.fullmatch(person):
        return "choose an id: letters, digits and `._@-`, at most 64"
    if deps.is_taken(person):
        return "this id is taken; choose another for the first admin"
    return None


async def _name_account(deps: SignInDeps, person: str) -> str:
    """Return what stands for the password and the secret that somebody has now."""
    password = await deps.accounts.password_hash(person)
    return hash_of(f"{deps.secret_of(person)} {password or ''}")
