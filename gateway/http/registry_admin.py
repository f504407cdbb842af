"""`/v1/agents`, `/v1/clients`, `/v1/users`: who is registered, over HTTP (docs/registry.md).

Reads are for admins, operators and auditors. What may be changed, and what takes two people, is
decided at the desk; errors are `application/problem+json`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core.approvals.declined import Declined
from gateway.core.approvals.sessions import FEDERATED, FRESH_S, HOME
from gateway.core.errors import CredentialError
from gateway.core.people.registry import (
    ADMIN,
    AUDITOR,
    OPERATOR,
    Body,
    Kind,
    Move,
    Person,
    Proposal,
)
from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.token import Grant
from gateway.http.admin_route import (
    REASON_MAX_CHARS,
    ProblemRoute,
    decline,
    read_body,
    reply,
    require_role,
)
from gateway.http.humans import Admit, Human
from gateway.http.openapi import takes
from gateway.http.registry_desk import RegistryDesk, Told
from gateway.http.registry_views import NAMES, build_member, build_proposal

BODY_MAX_DEPTH: Final = 8
READERS: Final = (ADMIN, OPERATOR, AUDITOR)

Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARS)]
Names = tuple[str, ...]
T = TypeVar("T", Agent, Launcher, Person)


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body whose every member is known."""


class KeySet(Struct, frozen=True):
    """A JWK set (RFC 7517 §5) of public keys; an empty one for none."""

    keys: tuple[dict[str, Any], ...] = ()


class NewAgent(_Strict, frozen=True, kw_only=True):
    """`POST /v1/agents`. `secret`: generate one; `environment`, if given, is the deployment's."""

    id: str
    owner: str = ""
    roles: Names = ()
    grants: tuple[Grant, ...] = ()
    may_delegate_to: Names = ()
    dpop: bool = False
    jwks: KeySet = KeySet()
    environment: str | None = None
    secret: bool = False
    secret_hash: str = ""
    reason: Reason = ""


class AgentEdit(_Strict, frozen=True, kw_only=True):
    """`PATCH /v1/agents/{id}`: what is given takes the place of what there was."""

    owner: str | UnsetType = UNSET
    roles: Names | UnsetType = UNSET
    grants: tuple[Grant, ...] | UnsetType = UNSET
    may_delegate_to: Names | UnsetType = UNSET
    dpop: bool | UnsetType = UNSET
    jwks: KeySet | UnsetType = UNSET


class NewClient(_Strict, frozen=True, kw_only=True):
    """`POST /v1/clients`: a launcher. Without `jwks` and `secret_hash`, a secret is generated."""

    id: str
    owner: str = ""
    may_launch: Names = ()
    humans: Names = ()
    grants: tuple[Grant, ...] = ()
    jwks: KeySet = KeySet()
    secret_hash: str = ""
    reason: Reason = ""


class ClientEdit(_Strict, frozen=True, kw_only=True):
    """`PATCH /v1/clients/{id}`: what is given takes the place of what there was."""

    owner: str | UnsetType = UNSET
    may_launch: Names | UnsetType = UNSET
    humans: Names | UnsetType = UNSET
    grants: tuple[Grant, ...] | UnsetType = UNSET
    jwks: KeySet | UnsetType = UNSET


class NewUser(_Strict, frozen=True, kw_only=True):
    """`POST /v1/users`. `secret_hash` is that of a secret that the person made."""

    id: str
    roles: Names = ()
    groups: Names = ()
    secret: bool = False
    secret_hash: str = ""
    reason: Reason = ""


class RolesEdit(_Strict, frozen=True, kw_only=True):
    """`POST /v1/users/{id}/roles`: roles to give and to take."""

    grant: Names = ()
    revoke: Names = ()
    add_groups: Names = ()
    remove_groups: Names = ()


class EdgeEdit(_Strict, frozen=True, kw_only=True):
    """`POST …/edges`: an agent to launch, or to delegate to; `remove` takes it back."""

    agent: str
    remove: bool = False


class SecretBody(_Strict, frozen=True, kw_only=True):
    """`POST …/secret`. Without a hash, a secret is generated and told once."""

    secret_hash: str | None = None


class StepBody(_Strict, frozen=True, kw_only=True):
    """`POST …/(suspend|resume|retire)`."""

    reason: Reason = ""


class RegistryAdmin:
    """The routes over a desk."""

    def __init__(self, *, desk: RegistryDesk, admit: Admit, environment: str) -> None:
        self._desk = desk
        self._admit = admit
        self._environment = environment

    def routers(self) -> list[APIRouter]:
        """Build all routes."""
        return [self._agents(), self._clients(), self._users(), self._proposals()]

    def _agents(self) -> APIRouter:
        router = self._common("agent")

        @router.post("")
        @takes(NewAgent)
        async def create(request: Request) -> Response:
            """Register an agent."""
            by = await self._who(request)
            body = await read_body(request, NewAgent, max_depth=BODY_MAX_DEPTH)
            if body.environment not in {None, self._environment}:
                why = f"this deployment is `{self._environment}`; register it where it belongs"
                return decline(Declined("registry_invalid", why))
            agent = _convert(body, Agent)
            return self._tell(
                await self._desk.create(by, "agent", agent, secret=body.secret, reason=body.reason)
            )

        @router.patch("/{member_id}")
        @takes(AgentEdit)
        async def edit(request: Request, member_id: str) -> Response:
            """Change what an agent is."""
            by = await self._who(request)
            given = await read_body(request, AgentEdit, max_depth=BODY_MAX_DEPTH)
            return self._tell(await self._edit(by, "agent", member_id, given))

        return router

    def _clients(self) -> APIRouter:
        router = self._common("client")

        @router.post("")
        @takes(NewClient)
        async def create(request: Request) -> Response:
            """Register a launcher."""
            by = await self._who(request)
            body = await read_body(request, NewClient, max_depth=BODY_MAX_DEPTH)
            client, secret = _convert(body, Launcher), not (body.secret_hash or body.jwks.keys)
            return self._tell(
                await self._desk.create(by, "client", client, secret=secret, reason=body.reason)
            )

        @router.patch("/{member_id}")
        @takes(ClientEdit)
        async def edit(request: Request, member_id: str) -> Response:
            """Change what a launcher may do."""
            by = await self._who(request)
            given = await read_body(request, ClientEdit, max_depth=BODY_MAX_DEPTH)
            return self._tell(await self._edit(by, "client", member_id, given))

        return router

    def _users(self) -> APIRouter:
        router = self._common("human")

        @router.post("")
        @takes(NewUser)
        async def create(request: Request) -> Response:
            """Register a person."""
            by = await self._who(request)
            body = await read_body(request, NewUser, max_depth=BODY_MAX_DEPTH)
            person = _convert(body, Person)
            return self._tell(
                await self._desk.create(by, "human", person, secret=body.secret, reason=body.reason)
            )

        @router.post("/{member_id}/roles")
        @takes(RolesEdit)
        async def roles(request: Request, member_id: str) -> Response:
            """Give and take roles and groups."""
            by = await self._who(request)
            given = await read_body(request, RolesEdit, max_depth=BODY_MAX_DEPTH)

            def edit(body: Body) -> Body:
                assert isinstance(body, Person)  # noqa: S101 - found by its kind
                return replace(
                    body,
                    roles=_joined(body.roles, given.grant, given.revoke),
                    groups=_joined(body.groups, given.add_groups, given.remove_groups),
                )

            return self._tell(await self._desk.edit(by, "human", member_id, "roles", edit))

        return router

    def _common(self, kind: Kind) -> APIRouter:
        name = NAMES[kind]
        router = APIRouter(prefix=f"/v1/{name}", tags=[name], route_class=ProblemRoute)

        @router.get("")
        async def find(request: Request) -> Response:
            """List all of them, in any state."""
            await require_role(self._admit, request, *READERS)
            found = self._desk.registry.of_kind(kind)
            return reply({name: [build_member(one, self._environment) for one in found]})

        @router.get("/{member_id}")
        async def show(request: Request, member_id: str) -> Response:
            """Show one of them."""
            await require_role(self._admit, request, *READERS)
            found = self._desk.registry.find(member_id, kind)
            if found is None:
                why = f"there is no {kind} `{member_id[:64]}`"
                return decline(Declined("registry_not_found", why))
            return reply(build_member(found, self._environment))

        @router.post("/{member_id}/secret")
        @takes(SecretBody)
        async def rotate(request: Request, member_id: str) -> Response:
            """Give one of them a new secret."""
            by = await self._owner_or_admin(request, member_id)
            body = await read_body(request, SecretBody)
            return self._tell(await self._desk.rotate_secret(by, kind, member_id, body.secret_hash))

        self._add_steps(router, kind)
        if kind != "human":
            self._add_edges(router, kind)
        return router

    def _add_steps(self, router: APIRouter, kind: Kind) -> None:
        @router.post("/{member_id}/suspend")
        @takes(StepBody)
        async def suspend(request: Request, member_id: str) -> Response:
            """Stop one of them at once, until somebody lets it go on."""
            return await self._take(request, kind, member_id, "suspend")

        @router.post("/{member_id}/resume")
        @takes(StepBody)
        async def resume(request: Request, member_id: str) -> Response:
            """Let one of them go on."""
            return await self._take(request, kind, member_id, "resume")

        @router.post("/{member_id}/retire")
        @takes(StepBody)
        async def retire(request: Request, member_id: str) -> Response:
            """Stop one of them for good."""
            return await self._take(request, kind, member_id, "retire")

    async def _take(self, request: Request, kind: Kind, member_id: str, step: Move) -> Response:
        by = await self._who(request, *((ADMIN,) if step == "retire" else (ADMIN, OPERATOR)))
        body = await read_body(request, StepBody)
        return self._tell(await self._desk.step(by, kind, member_id, step, body.reason))

    def _add_edges(self, router: APIRouter, kind: Kind) -> None:
        @router.post("/{member_id}/edges")
        @takes(EdgeEdit)
        async def edge(request: Request, member_id: str) -> Response:
            """Allow a launcher to launch an agent, or an agent to delegate to one."""
            by = await self._who(request)
            given = await read_body(request, EdgeEdit)
            gone, new = ((given.agent,), ()) if given.remove else ((), (given.agent,))

            def edit(body: Body) -> Body:
                if isinstance(body, Agent):
                    return replace(body, may_delegate_to=_joined(body.may_delegate_to, new, gone))
                assert isinstance(body, Launcher)  # noqa: S101 - found by its kind
                return replace(body, may_launch=_joined(body.may_launch, new, gone))

            return self._tell(await self._desk.edit(by, kind, member_id, "update", edit))

    def _proposals(self) -> APIRouter:
        router = APIRouter(
            prefix="/v1/registry/proposals", tags=["users"], route_class=ProblemRoute
        )

        @router.get("")
        async def find(request: Request) -> Response:
            """List what waits for a second person, oldest first."""
            await require_role(self._admit, request, *READERS)
            return reply({"proposals": [self._view(one) for one in self._desk.proposals()]})

        @router.post("/{proposal_id}/confirm")
        async def confirm(request: Request, proposal_id: str) -> Response:
            """Let a proposal come into force, as the second person."""
            by = await self._who(request)
            return self._tell(await self._desk.confirm(by, proposal_id))

        @router.post("/{proposal_id}/withdraw")
        async def withdraw(request: Request, proposal_id: str) -> Response:
            """Take a proposal back."""
            by = await self._who(request)
            done = await self._desk.withdraw(by, proposal_id)
            if isinstance(done, Declined):
                return decline(done)
            return reply({"status": "withdrawn", "proposal": self._view(done)})

        return router

    async def _who(self, request: Request, *roles: str) -> str:
        """Return the id of who asks; nobody learns what there is without one of the `roles`.

        What they may really do, the desk decides by what they are at that moment.
        """
        return (await require_role(self._admit, request, *(roles or (ADMIN,)))).id

    async def _owner_or_admin(self, request: Request, member_id: str) -> str:
        human = await self._admit(request.headers.get("authorization"))
        if human.id != member_id:
            return await self._who(request)
        _require_own_proof(human, self._desk.now_s())
        return human.id

    async def _edit(self, by: str, kind: Kind, member_id: str, given: Struct) -> Told:
        values = {name: _value(given, name) for name in given.__struct_fields__}
        changes: dict[str, Any] = {n: value for n, value in values.items() if value is not UNSET}
        if not changes:
            return Declined("registry_invalid", "the body changes nothing")
        return await self._desk.edit(
            by, kind, member_id, "update", lambda body: replace(body, **changes)
        )

    def _view(self, proposal: Proposal) -> dict[str, Any]:
        return build_proposal(proposal, self._desk.registry.find(proposal.after.id))

    def _tell(self, told: Told) -> Response:
        if isinstance(told, Declined):
            return decline(told)
        if isinstance(told, Proposal):
            return reply({"status": "proposed", "proposal": self._view(told)})
        body: dict[str, Any] = {
            "status": "applied",
            "alone": told.alone,
            "entry": build_member(told.member, self._environment),
        }
        return reply(body if told.secret is None else {**body, "secret": told.secret})


def _require_own_proof(human: Human, now_s: int) -> None:
    """Raise unless somebody may give themselves a secret, which outlives the session they act in.

    What an identity provider gave, no credential that it does not know of must outlive; and what
    somebody found on a disk must not become somebody for good. As on `/account`.
    """
    if FEDERATED in human.amr:
        why = "your account is your identity provider's; ask an admin for a secret"
        raise CredentialError(why, code="registry_own_change")
    if human.session and now_s - human.auth_time > FRESH_S:
        why = f"sign out at `{HOME}` and run `countersign login`: yours is over {FRESH_S} s old"
        raise CredentialError(why, code="registry_own_change")


def _joined(names: Names, new: Names, gone: Names) -> Names:
    kept = [name for name in names if name not in gone]
    return (*kept, *(name for name in dict.fromkeys(new) if name not in kept))


def _convert(given: Struct, kind: type[T]) -> T:
    """Return the entry that a body describes; members of the same name mean the same."""
    shared = set(given.__struct_fields__) & set(kind.__struct_fields__)
    return kind(**{name: _value(given, name) for name in shared})


def _value(given: Struct, name: str) -> Any:  # noqa: ANN401 - of any member
    value = getattr(given, name)
    return value.keys if isinstance(value, KeySet) else value
