"""Holding a call until people agree, and telling its caller how it stands (DESIGN §5)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import (
    ApprovalRequest,
    build_binding,
    is_satisfiable,
    person,
    quorum,
    seen_at,
    spec_digest,
)
from gateway.core.calls.call import ResolvedCall
from gateway.core.canonical import canonicalize, digest
from gateway.core.entry import Opening
from gateway.core.errors import ApprovalError, CountersignError
from gateway.core.policy.decision import Hold
from gateway.core.ports import ApprovalStore, Clock, Ids, OutboxEvent, RunStore
from gateway.core.records import call_records as records
from gateway.core.records.approval_entries import state_event
from gateway.core.tags import arguments_tag, person_tags
from gateway.core.tokens.token import Claims

WAIT_MAX_S = 25
"""How long a caller may wait for a change in one question; clients give up at 60 s."""


class Deployment(Struct, frozen=True):
    """Which gateway this is. Part of every binding, so a vote counts in one deployment only."""

    issuer: str
    environment: str
    log_origin: str


class HoldDesk:
    """Takes calls that policy holds. `relay` makes committed events durable in the log."""

    def __init__(
        self,
        *,
        store: ApprovalStore,
        runs: RunStore,
        relay: Callable[[], Awaitable[None]],
        people: Mapping[str, Sequence[str]],
        owners: Callable[[str], tuple[str, ...]],
        endpoints: Mapping[str, str],
        deployment: Deployment,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._runs = runs
        self._relay = relay
        self._people = people
        self._owners = owners
        self._endpoints = endpoints
        self._deployment = deployment
        self._clock = clock
        self._ids = ids
        self._changes: dict[str, asyncio.Event] = {}

    async def hold(
        self, resolved: ResolvedCall, decision: Hold, document: bytes
    ) -> ApprovalRequest:
        """Store the call durably, or join the same call that already waits; then say so in the log.

        Raises `ApprovalError` (`no_eligible_approver`, `too_many_pending`) and `AuditError`, and
        nothing waits then: a caller that was refused must not be surprised by an effect.
        """
        request = await self._build(resolved, decision)
        if not is_satisfiable(request.spec, self._people, request.separation):
            raise ApprovalError(
                "nobody may approve this call; name approvers who are not on its own side",
                code="no_eligible_approver",
            )
        event = self._event(request, resolved, decision, document)
        stored = await self._store.create(request, event)
        try:
            await self._relay()
        except CountersignError:
            if stored.id == request.id:  # and not one that somebody else was told to wait for
                await self._withdraw(stored)
            raise
        return stored

    async def _withdraw(self, request: ApprovalRequest) -> None:
        now_s = self._clock.now_ns() // 1_000_000_000
        event = state_event(request, "cancel", "CANCELLED")
        with contextlib.suppress(CountersignError):  # where the state fails, too, it waits
            await self._store.move(
                request.id, source="PENDING", target="CANCELLED", now_s=now_s, event=event
            )
        self.changed(request.id)

    async def _build(self, resolved: ResolvedCall, decision: Hold) -> ApprovalRequest:
        call, tool = resolved.call, resolved.tool
        claims, raw = call.claims, call.raw
        run = await self._runs.get_run(claims.run_id)
        if run is None:
            raise ApprovalError("the run of this call is gone; start a new one")
        now_s = call.now_ns // 1_000_000_000
        chain = (claims.subject, *claims.actors)
        request = ApprovalRequest(
            id=self._ids.new(),
            op=raw.op,
            state="PENDING",
            version=1,
            agent=claims.subject,
            run_id=claims.run_id,
            root_jti=claims.root_jti,
            on_behalf_of=claims.on_behalf_of,
            launcher=run.launcher,
            server=tool.server,
            tool=tool.name,
            tool_id=tool.id,
            wire_name=tool.wire_name,
            definition_digest=tool.definition_digest,
            endpoint_digest=self._endpoints[tool.server],
            arguments=raw.arguments.raw,
            arguments_digest=digest(raw.arguments.raw),
            join_digest=_join_digest(raw.arguments.value),
            obligations=decision.obligations,
            reasons=decision.reasons,
            spec=decision.approval,
            spec_digest=spec_digest(decision.approval),
            policy_revision=decision.revision,
            binding="",
            nonce=self._ids.secret(),
            separation=self._separation(claims, run.launcher, chain),
            created_at=now_s,
            expires_at=now_s + decision.approval.ttl_s,
            claims=msgspec.to_builtins(claims),
            meta=msgspec.to_builtins(raw.meta),
            actor_chain=chain,
            effect=tool.review.effect,
        )
        return replace(request, binding=self.binding_of(request))

    def binding_of(self, request: ApprovalRequest) -> str:
        """What approvers of `request` agree to, worked out anew from what is stored."""
        return build_binding(
            request,
            issuer=self._deployment.issuer,
            environment=self._deployment.environment,
            log_origin=self._deployment.log_origin,
        )

    def _separation(self, claims: Claims, launcher: str, chain: tuple[str, ...]) -> tuple[str, ...]:
        """Everyone on the requester's side: whoever asked may not be who agrees."""
        side = {*chain, claims.client_id, claims.owner, claims.on_behalf_of or "", launcher}
        side |= {owner for member in tuple(side) for owner in self._owners(member)}
        return tuple(sorted(side - {""}))

    @staticmethod
    def _event(
        request: ApprovalRequest, resolved: ResolvedCall, decision: Hold, document: bytes
    ) -> OutboxEvent:
        event_id = f"{request.id}:PENDING"
        claims = resolved.call.claims
        subject = records.data_subject(claims)
        entry = records.build_approval_event(
            "request",
            request,
            event_id=event_id,
            fields={
                "state": "PENDING",
                "actor": records.build_actor(claims),
                "decision": records.build_decision(decision),
                "policy": {"rev": request.policy_revision},
                "spec": request.spec_digest,
                "expires": request.expires_at,
                "quorum": quorum(request.spec),
                "sod": person_tags(request.nonce, map(person, request.separation)),
                "args_tag": arguments_tag(request.nonce, request.arguments),
            },
            openings=(
                Opening("policy.input", document, subject),
                Opening("args", request.arguments, subject),
            ),
        )
        return OutboxEvent(event_id=event_id, entry=entry)

    async def status(
        self, claims: Claims, request_id: str, wait_s: float = 0
    ) -> ApprovalRequest | None:
        """Return a held call to the agent and run that made it, after at most `wait_s` seconds.

        None for anybody else's: that it exists is not told. Reads only; nothing is dispatched.
        """
        request = await self._own(claims, request_id)
        if request is None or not _waiting(request) or wait_s <= 0:
            return request
        try:
            async with asyncio.timeout(min(wait_s, WAIT_MAX_S)):
                while request is not None and _waiting(request):
                    changed = self._changes.setdefault(request_id, asyncio.Event())
                    await changed.wait()
                    request = await self._own(claims, request_id)
        except TimeoutError:
            return await self._own(claims, request_id)
        return request

    async def _own(self, claims: Claims, request_id: str) -> ApprovalRequest | None:
        request = await self._store.get(request_id)
        if request is None or (request.agent, request.run_id) != (claims.subject, claims.run_id):
            return None
        return seen_at(request, self._clock.now_ns() // 1_000_000_000)

    def changed(self, request_id: str) -> None:
        """Wake whoever waits for this request to end."""
        event = self._changes.pop(request_id, None)
        if event is not None:
            event.set()


def _waiting(request: ApprovalRequest) -> bool:
    return request.state in {"PENDING", "APPROVED", "CLAIMED", "DISPATCHED"}


def _join_digest(value: object) -> str:
    return "sha256:" + hashlib.sha256(canonicalize(value)).hexdigest()
