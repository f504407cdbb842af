"""The desk where agents, clients and people are registered, stopped and retired (TOK-01, TOK-08).

Each change is one story: judged under the rules (`core.registry_rules`), kept together with its
record, durable in the log, in force, answered. A stop is in force before all that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.errors import CountersignError
from gateway.core.people.registry import (
    ADMIN,
    SENSITIVE,
    Action,
    Body,
    Kind,
    Member,
    Move,
    Person,
    Proposal,
    Registry,
    RegistryStore,
    doubted,
    overlay,
    ripe,
    roles_of,
    to_row,
)
from gateway.core.people.registry_checks import Deployment, find_body_fault
from gateway.core.people.registry_rules import (
    Consent,
    consent,
    dated,
    find_confirm_fault,
    is_due,
    move,
    rebuild,
)
from gateway.core.ports import Clock, Ids, OutboxEvent
from gateway.core.records import registry_records as records
from gateway.core.tokens.clients import hash_secret

T = TypeVar("T")
Edit = Callable[[Body], Body | Declined]


@dataclass(frozen=True, kw_only=True)
class RegistryDeps:
    """What registering needs.

    `relay` returns once all committed events are durable in the log (`OutboxRelay.drain`). `key_id`
    is what stands for a person in records. `changed` is told of every member as it is from now on,
    before anybody is answered. `approver_delay_s` and `proposal_ttl_s` in seconds.
    """

    store: RegistryStore
    relay: Callable[[], Awaitable[None]]
    key_id: Callable[[str], str]
    changed: Callable[[Member], None]
    deployment: Deployment
    clock: Clock
    ids: Ids
    approver_delay_s: int = 3_600
    proposal_ttl_s: int = 86_400


class Applied(Struct, frozen=True):
    """A change that is in force. `secret` is told here once and kept nowhere."""

    member: Member
    secret: str | None = None
    alone: bool = False


Told = Applied | Proposal | Declined


class RegistryDesk:
    """Registers. See `RegistryDeps`. `registry` is what everybody else looks at."""

    def __init__(self, deps: RegistryDeps) -> None:
        self.registry: Final = Registry()
        self._deps = deps
        self._proposals: dict[str, Proposal] = {}
        # INVARIANT: changes are judged one after the other, each on what the last one left.
        self._turn: Final = asyncio.Lock()
        self._unsettled: dict[str, Member] = {}

    async def start(
        self, of_file: list[Member], recorded: Mapping[str, int]
    ) -> tuple[list[str], list[str]]:
        """Load everybody, before anything is served.

        `recorded`: the last version of each member in the log. Returns the ids that stand in the
        file and in the registry (the file says what they are), and the ids that are suspended
        because the state is older than the log.
        """
        deps = self._deps
        await deps.relay()  # what a crash left between state and log
        stored = await deps.store.load()
        members, shadowed = overlay(of_file, stored.rows)
        for row in stored.rows:
            self.registry.remember(row)
        older = doubted(members, recorded, self._entry_name)
        for member in (*members, *older):
            self._enforce(member)
        self._proposals = {one.id: one for one in stored.proposals}
        return shadowed, [member.id for member in older]

    def now_s(self) -> int:
        """Return the time in seconds."""
        return self._deps.clock.now_ns() // 1_000_000_000

    def proposals(self) -> list[Proposal]:
        """Return what waits for a second person, oldest first."""
        now_s = self.now_s()
        return [one for _, one in sorted(self._proposals.items()) if not is_due(one, now_s)]

    def voting_roles(self, person_id: str) -> tuple[str, ...]:
        """Return the roles and groups of a person whose votes count now."""
        body = self.registry.active_person(person_id)
        return () if body is None else ripe(body, self.now_s(), self._deps.approver_delay_s)

    def votes_from_s(self, person_id: str) -> int:
        """Return when the newest role or group of a person begins to count, in seconds."""
        body = self.registry.active_person(person_id)
        given = () if body is None else tuple(body.since.values())
        return max(given, default=0) + self._deps.approver_delay_s

    def is_taken(self, member_id: str) -> bool:
        """Whether an id stands for somebody already, in any state, or for an app."""
        reserved = self._deps.deployment.reserved
        return self.registry.is_taken(member_id) or person(member_id) in reserved

    async def create(self, by: str, kind: Kind, body: Body, *, secret: bool, reason: str) -> Told:
        """Register somebody. With `secret`, one is generated and told once."""
        return await self._unbroken(self._create(by, kind, body, secret=secret, reason=reason))

    async def edit(self, by: str, kind: Kind, member_id: str, action: Action, edit: Edit) -> Told:
        """Change what an entry says. `edit` gets its body as it is now."""
        return await self._unbroken(self._edit(by, kind, member_id, action, edit))

    async def rotate_secret(
        self, by: str, kind: Kind, member_id: str, secret_hash: str | None
    ) -> Told:
        """Give an entry a new secret: that of `secret_hash`, or one that is told once."""
        return await self._unbroken(self._rotate(by, kind, member_id, secret_hash))

    async def step(self, by: str, kind: Kind, member_id: str, step: Move, reason: str) -> Told:
        """Suspend, resume or retire."""
        return await self._unbroken(self._step(by, kind, member_id, step, reason))

    async def confirm(self, by: str, proposal_id: str) -> Applied | Declined:
        """Let a proposal come into force, as the second person."""
        return await self._unbroken(self._confirm(by, proposal_id))

    async def withdraw(self, by: str, proposal_id: str) -> Proposal | Declined:
        """Take a proposal back, as any admin."""
        return await self._unbroken(self._withdraw(by, proposal_id))

    async def claim(self, body: Person) -> Applied | Declined:
        """Register the first admin, where there is none and somebody proved that they may.

        The proof is the caller's business (a one-time claim printed at the first start).
        """
        return await self._unbroken(self._claim(body))

    async def provision(self, person_id: str) -> Applied | Declined:
        """Register somebody for whom an identity provider vouched, without any role."""
        return await self._unbroken(self._provision(person_id))

    async def note_claim(self, person_id: str, by: str, made_at: int) -> Applied | Declined:
        """Keep whose claim (another person's) is about to set up the account of a person.

        Declined where they decide something, or have a secret of their own, by now. A secret that
        somebody else was told is void from then on.
        """
        return await self._unbroken(self._note_claim(person_id, by, made_at))

    async def _create(self, by: str, kind: Kind, body: Body, *, secret: bool, reason: str) -> Told:
        if self.is_taken(body.id):
            return Declined("registry_exists", f"`{body.id}` stands for somebody already")
        told = self._deps.ids.secret() if secret else None
        if told is not None:
            body = self._opened(_with_secret(body, hash_secret(told), shared=True), by)
        fault = find_body_fault(body, self.registry, self._deps.deployment)
        if fault is not None:
            return Declined("registry_invalid", fault)
        after = Member(kind=kind, body=body, version=1, changed_at=self.now_s())
        return await self._judge(by, None, after, "create", secret=told, reason=reason)

    async def _edit(self, by: str, kind: Kind, member_id: str, action: Action, edit: Edit) -> Told:
        before = self._editable(kind, member_id)
        if isinstance(before, Declined):
            return before
        body = edit(before.body)
        if isinstance(body, Declined):
            return body
        return await self._replace(by, before, body, action)

    async def _rotate(self, by: str, kind: Kind, member_id: str, secret_hash: str | None) -> Told:
        before = self._editable(kind, member_id)
        if isinstance(before, Declined):
            return before
        told = self._deps.ids.secret() if secret_hash is None else None
        shared = told is not None and person(by) != person(member_id)
        new = secret_hash if told is None else hash_secret(told)
        if shared and not SENSITIVE.isdisjoint(roles_of(before)):
            return Declined(
                "registry_secret_shared",
                "nobody is told the secret of who decides; give the `secret_hash` of one they made",
            )
        body = _with_secret(before.body, new or "", shared=shared)
        body = self._opened(body, by) if shared else body
        return await self._replace(by, before, body, "rotate_secret", secret=told)

    async def _replace(
        self, by: str, before: Member, body: Body, action: Action, *, secret: str | None = None
    ) -> Told:
        fault = find_body_fault(body, self.registry, self._deps.deployment)
        if fault is not None:
            return Declined("registry_invalid", fault)
        after = replace(before, body=body, version=before.version + 1, changed_at=self.now_s())
        return await self._judge(by, before, after, action, secret=secret)

    async def _step(self, by: str, kind: Kind, member_id: str, step: Move, reason: str) -> Told:
        before = self.registry.find(member_id, kind)
        if before is None:
            return _unknown(kind, member_id)
        after = move(before, step, self.now_s())
        if isinstance(after, Declined):
            return after
        return await self._judge(by, before, after, step, reason=reason)

    async def _judge(
        self,
        by: str,
        before: Member | None,
        after: Member,
        action: Action,
        *,
        secret: str | None = None,
        reason: str = "",
    ) -> Told:
        given = consent(self.registry, by=by, before=before, after=after, action=action)
        if isinstance(given, Declined):
            return given
        if given == "second":
            return await self._propose(by, before, after, action, reason)
        after = dated(before, after, self.now_s())
        await self._apply(by, before, after, action=action, given=given, reason=reason)
        return Applied(after, secret, alone=given == "alone")

    async def _propose(
        self, by: str, before: Member | None, after: Member, action: Action, reason: str
    ) -> Proposal:
        deps, now_s = self._deps, self.now_s()
        proposal = Proposal(
            id=deps.ids.new(),
            action=action,
            after=to_row(after),
            version=0 if before is None else before.version,
            asked_by=by,
            asked_at=now_s,
            expires_at=now_s + deps.proposal_ttl_s,
            nonce=deps.ids.secret(),
            reason=reason,
        )
        event = records.build_proposed(
            deps.ids.new(),
            before=before,
            after=after,
            proposal=proposal,
            key_id=deps.key_id(after.id),
        )
        lapsed = [one.id for one in self._proposals.values() if is_due(one, now_s)]
        await deps.store.commit(event, proposal=proposal, done=lapsed)
        for proposal_id in lapsed:
            del self._proposals[proposal_id]
        self._proposals[proposal.id] = proposal
        await self._settle()
        return proposal

    async def _apply(
        self,
        by: str,
        before: Member | None,
        after: Member,
        *,
        action: Action,
        given: Consent,
        reason: str,
    ) -> None:
        deps = self._deps
        event = records.build_applied(
            deps.ids.new(),
            before=before,
            after=after,
            action=action,
            by=by,
            consent=given,
            key_id=deps.key_id(after.id),
            reason=reason,
        )
        await self._commit(event, before, after)

    async def _commit(
        self, event: OutboxEvent, before: Member | None, after: Member, done: tuple[str, ...] = ()
    ) -> None:
        """Keep a change with its record and put it in force. Raises `CountersignError`.

        INVARIANT: what gives somebody something is in force only once the log has it; what stops
        somebody is in force at once, and stays so if only the log fails.
        """
        if before is not None and not after.is_active:
            self._enforce(after)
        try:
            await self._deps.store.commit(event, row=to_row(after), done=done)
        except CountersignError:  # nothing was kept
            if before is not None and not after.is_active:
                self._enforce(before)
            raise
        for proposal_id in done:
            del self._proposals[proposal_id]
        self._unsettled[after.id] = after
        await self._settle()

    async def _confirm(self, by: str, proposal_id: str) -> Applied | Declined:
        proposal, now_s = self._proposals.get(proposal_id), self.now_s()
        if proposal is None:
            return Declined("registry_not_found", "there is no such proposal")
        fault = find_confirm_fault(self.registry, proposal, by=by, now_s=now_s)
        after = fault or rebuild(self.registry, proposal, now_s)
        if isinstance(after, Declined):
            return after
        before = self.registry.find(after.id)
        if (unfit := self._find_unfit(before, after)) is not None:
            return Declined("registry_conflict", f"it does not fit any more: {unfit}")
        event = records.build_confirmed(
            self._deps.ids.new(),
            before=before,
            after=after,
            proposal=proposal,
            by=by,
            key_id=self._deps.key_id(after.id),
        )
        await self._commit(event, before, after, (proposal.id,))
        return Applied(after)

    async def _withdraw(self, by: str, proposal_id: str) -> Proposal | Declined:
        proposal = self._proposals.get(proposal_id)
        if proposal is None:
            return Declined("registry_not_found", "there is no such proposal")
        who = self.registry.active_person(by)
        if who is None or ADMIN not in who.roles:
            return Declined("role_missing", "this needs the role `admin`")
        key_id = self._deps.key_id(proposal.after.id)
        event = records.build_withdrawn(
            self._deps.ids.new(), proposal=proposal, by=by, key_id=key_id
        )
        await self._deps.store.commit(event, done=(proposal_id,))
        del self._proposals[proposal_id]
        await self._settle()
        return proposal

    async def _claim(self, body: Person) -> Applied | Declined:
        if self.registry.admins:
            return Declined("registry_conflict", "there is an admin already; ask them")
        if self.is_taken(body.id):
            return Declined("registry_exists", f"`{body.id}` stands for somebody already")
        body = replace(body, roles=tuple(sorted({*body.roles, ADMIN})))
        fault = find_body_fault(body, self.registry, self._deps.deployment)
        if fault is not None:
            return Declined("registry_invalid", fault)
        now_s = self.now_s()
        after = dated(None, Member(kind="human", body=body, version=1, changed_at=now_s), now_s)
        await self._apply(
            body.id, None, after, action="create", given="alone", reason="first admin"
        )
        return Applied(after, alone=True)

    async def _provision(self, person_id: str) -> Applied | Declined:
        if self.is_taken(person_id):
            return Declined("registry_exists", f"`{person_id}` stands for somebody already")
        body = Person(id=person_id, provisioned=True)
        fault = find_body_fault(body, self.registry, self._deps.deployment)
        if fault is not None:
            return Declined("registry_invalid", fault)
        after = Member(kind="human", body=body, version=1, changed_at=self.now_s())
        reason = "vouched for by an identity provider"
        await self._apply(person_id, None, after, action="create", given="plain", reason=reason)
        return Applied(after)

    async def _note_claim(self, person_id: str, by: str, made_at: int) -> Applied | Declined:
        before = self.registry.find(person_id, "human")
        if before is None or not before.is_active or not isinstance(before.body, Person):
            return _unknown("human", person_id)
        body = before.body
        if not SENSITIVE.isdisjoint(body.roles) or (body.secret_hash and not body.secret_shared):
            why = "they decide something, or have a secret of their own, since it was made"
            return Declined("registry_secret_shared", why)
        if before.origin == "file":  # what they may do is changed there, and not by proposals
            return Applied(before)
        body = replace(
            body, opened_by=(by,), opened_at=made_at, secret_hash="", secret_shared=False
        )
        after = replace(before, body=body, version=before.version + 1, changed_at=self.now_s())
        reason = "a claim set their account up"
        await self._apply(by, before, after, action="update", given="plain", reason=reason)
        return Applied(after)

    def _opened(self, body: Body, by: str) -> Body:
        """Keep who was told the secret of a person: who opens an account could have it."""
        if not isinstance(body, Person):
            return body
        others = tuple(name for name in body.opened_by if person(name) != person(by))
        return replace(body, opened_by=(*others, by), opened_at=self.now_s())

    def _find_unfit(self, before: Member | None, after: Member) -> str | None:
        """Say what is wrong with a new body. One that stays as it is may always be stopped."""
        if before is not None and before.body == after.body:
            return None
        return find_body_fault(after.body, self.registry, self._deps.deployment)

    def _editable(self, kind: Kind, member_id: str) -> Member | Declined:
        found = self.registry.find(member_id, kind)
        if found is None:
            return _unknown(kind, member_id)
        if found.origin == "file":
            why = f"`{member_id}` stands in the configuration file; change it there and restart"
            return Declined("registry_read_only", why)
        if found.state == "retired":
            return Declined("registry_conflict", f"`{member_id}` is retired; create another entry")
        return found

    async def _settle(self) -> None:
        """Put in force what is kept and now in the log. Raises `AuditError`; it is tried again."""
        await self._deps.relay()
        settled, self._unsettled = self._unsettled, {}
        for member in settled.values():
            self._enforce(member)

    def _enforce(self, member: Member) -> None:
        self.registry.put(member)
        self._deps.changed(member)

    def _entry_name(self, member: Member) -> str:
        return records.entry_name(member.kind, member.id, self._deps.key_id(member.id))

    async def _unbroken(self, story: Coroutine[Any, Any, T]) -> T:
        """Tell a story to its end, whoever stops listening, one at a time."""

        async def tell() -> T:
            async with self._turn:
                try:
                    await self._settle()  # a change that waits for the log comes first
                except BaseException:
                    story.close()
                    raise
                return await story

        return await asyncio.shield(asyncio.ensure_future(tell()))


def _with_secret(body: Body, secret_hash: str, *, shared: bool) -> Body:
    if isinstance(body, Person):
        return replace(body, secret_hash=secret_hash, secret_shared=shared)
    return replace(body, secret_hash=secret_hash)


def _unknown(kind: Kind, member_id: str) -> Declined:
    return Declined("registry_not_found", f"there is no {kind} `{member_id[:64]}`")
