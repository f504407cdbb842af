"""What the composition root makes of who is registered: the file's entries and the state's.

Everything that asks who somebody is looks at the same two directories, `Registered.clients` and
`.humans`; the desk keeps them as they are now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import APIRouter
from msgspec.structs import replace

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.keys.jose_assertions import find_key_set_fault
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_registry import SqlRegistry
from gateway.adapters.state.sql_store import SqlState
from gateway.config.settings import Config
from gateway.core.approvals.approval import APPROVER, Vote, person
from gateway.core.people.registry import Member, Person, Registry
from gateway.core.people.registry_checks import Deployment
from gateway.core.ports import Clock, Ids
from gateway.core.tokens.clients import Agent, ClientRegistry
from gateway.http.humans import Admit, Human, HumanEntry, Humans
from gateway.http.registry_admin import RegistryAdmin
from gateway.http.registry_desk import RegistryDeps, RegistryDesk

_log: Final = structlog.get_logger("gateway.registry")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Who there is. `desk.registry` holds all of them, the directories those who may act."""

    desk: RegistryDesk
    clients: ClientRegistry
    humans: Humans

    @property
    def registry(self) -> Registry:
        """Everybody, in any state."""
        return self.desk.registry

    def voting_roles(self, human: Human) -> tuple[str, ...]:
        """Return the roles of a person that count in a vote now."""
        return self.desk.voting_roles(human.id)

    def standing(self, vote: Vote) -> Vote | None:
        """Return a vote with what its voter still has of what they had; None but for approvers."""
        body = self.registry.active_person(vote.voter)
        if body is None or APPROVER not in body.roles:
            return None
        kept = {*body.roles, *body.groups}.intersection(vote.groups)
        return replace(vote, groups=tuple(sorted(kept)))

    def routers(self, admit: Admit, environment: str) -> list[APIRouter]:
        """Build the admin routes."""
        return RegistryAdmin(desk=self.desk, admit=admit, environment=environment).routers()


async def open_registry(
    config: Config, *, state: SqlState, audit: FileAuditLog, clock: Clock, ids: Ids
) -> Registered:
    """Load everybody. Call once the log is open, before anybody is let in."""
    clients, humans = ClientRegistry(), Humans()
    store = SqlRegistry(state)

    def changed(member: Member) -> None:
        if isinstance(member.body, Person) and not member.is_active:
            # Whoever comes back gets none of their earlier votes back.
            key_id, now_s = audit.key_id(member.id), clock.now_ns() // 1_000_000_000
            audit.recovered.stopped.note(key_id, now_s)
        if not isinstance(member.body, Person):
            clients.put(member.body, active=member.is_active)
        elif member.is_active:
            humans.put(_entry(member.body))
        else:
            humans.drop(member.id)

    desk = RegistryDesk(
        RegistryDeps(
            store=store,
            relay=OutboxRelay(store, audit).drain,
            key_id=audit.key_id,
            changed=changed,
            deployment=Deployment(
                environment=config.environment,
                servers=frozenset(config.servers),
                dev=config.dev,
                reserved=frozenset(person(client.id) for client in config.clients),
                find_key_fault=find_key_set_fault,
            ),
            clock=clock,
            ids=ids,
            approver_delay_s=config.registry.approver_delay_s,
            proposal_ttl_s=config.registry.proposal_ttl_s,
        )
    )
    shadowed, older = await desk.start(list(_of_file(config)), audit.recovered.registered)
    for member_id in shadowed:
        _log.warning("registry_shadowed_by_file", id=member_id)
    for member_id in older:
        _log.warning("registry_older_than_log", id=member_id, state="suspended")
    return Registered(desk=desk, clients=clients, humans=humans)


def _of_file(config: Config) -> Iterator[Member]:
    """Yield the entries of the configuration file."""
    for client in config.file_clients():
        kind = "agent" if isinstance(client, Agent) else "client"
        yield Member(kind=kind, body=client, origin="file")  # type: ignore[arg-type]
    for human in config.humans:
        body = Person(
            id=human.id,
            roles=human.roles,
            groups=human.groups,
            secret_hash=human.secret_hash or "",
        )
        yield Member(kind="human", body=body, origin="file")


def _entry(body: Person) -> HumanEntry:
    """What policy calls a group is a role or a group here."""
    return HumanEntry(body.id, (*body.roles, *body.groups), body.secret_hash or None)
