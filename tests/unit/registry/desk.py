"""A registry over in-memory stores, at a time that stands still, with everybody's credentials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
from fastapi import FastAPI

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.jose_assertions import find_key_set_fault
from gateway.adapters.state.memory_registry import MemoryRegistry
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.core.errors import CountersignError
from gateway.core.people.registry import Member, Person, RegistryStore
from gateway.core.people.registry_checks import Deployment
from gateway.core.ports import OutboxEvent
from gateway.core.tokens.clients import Agent, ClientRegistry, Launcher, hash_secret
from gateway.core.tokens.token import Grant
from gateway.http.humans import Credentials, HumanEntry, Humans, build_admit
from gateway.http.registry_admin import RegistryAdmin
from gateway.http.registry_desk import RegistryDeps, RegistryDesk
from tests.fixed import CountingIds, FixedClock

READS = (Grant("shop", "*", ("read",)),)

PEOPLE: dict[str, tuple[str, ...]] = {
    "ada": ("admin",),
    "alan": ("admin",),
    "otto": ("operator",),
    "eve": ("auditor",),
    "ann": ("approver",),
}


class FailingStore(MemoryRegistry):
    """A store that does not take the next change, when told so."""

    fails = False

    async def commit(self, event: OutboxEvent, **kept: Any) -> None:  # noqa: ANN401 - as the port
        if self.fails:
            raise CountersignError("the disk is full", code="state_unavailable", retryable=True)
        await super().commit(event, **kept)


def secret_of(name: str) -> str:
    return f"secret-of-{name}"


def human(name: str, *roles: str, groups: tuple[str, ...] = ()) -> Member:
    """Build a person of the configuration file."""
    body = Person(id=name, roles=roles, groups=groups, secret_hash=hash_secret(secret_of(name)))
    return Member(kind="human", body=body, origin="file")


BOT = Member(
    kind="agent",
    body=Agent(id="bot", owner="lars", grants=READS, secret_hash=hash_secret("bot-secret")),
    origin="file",
)
FLOW = Member(
    kind="client",
    body=Launcher(id="flow", secret_hash=hash_secret("flow-secret"), may_launch=("bot",)),
    origin="file",
)


class Desk:
    """The registry, its door, and what came of it."""

    def __init__(
        self,
        *,
        store: RegistryStore | None = None,
        audit: MemoryAuditLog | None = None,
        clock: FixedClock | None = None,
        ids: CountingIds | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.clock, self.ids = clock or FixedClock(), ids or CountingIds()
        self.store = store or FailingStore()
        self.audit = audit or MemoryAuditLog()
        self.clients, self.humans = ClientRegistry(), Humans()
        self.refused: list[tuple[str, str]] = []
        self.desk = RegistryDesk(
            RegistryDeps(
                store=self.store,
                relay=OutboxRelay(self.store, self.audit).drain,
                key_id=self.audit.key_id,
                changed=self._changed,
                deployment=Deployment(
                    environment="test",
                    servers=frozenset({"shop"}),
                    reserved=frozenset({"desktop-app"}),
                    find_key_fault=find_key_set_fault,
                ),
                clock=self.clock,
                ids=self.ids,
            )
        )
        api = FastAPI()
        admit = build_admit(self.humans, self._refuse, credentials)
        for router in RegistryAdmin(desk=self.desk, admit=admit, environment="test").routers():
            api.include_router(router)
        self.api = api
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")

    async def start(
        self, of_file: Iterable[Member] | None = None, recorded: dict[str, int] | None = None
    ) -> tuple[list[str], list[str]]:
        people = [human(name, *roles) for name, roles in PEOPLE.items()]
        members = [BOT, FLOW, *people] if of_file is None else list(of_file)
        return await self.desk.start(members, recorded or {})

    async def again(
        self, of_file: Iterable[Member] | None = None, recorded: dict[str, int] | None = None
    ) -> Desk:
        """Return the desk of a gateway started anew over the same state and log."""
        other = Desk(store=self.store, audit=self.audit, clock=self.clock, ids=self.ids)
        await other.start(of_file, recorded)
        return other

    def _changed(self, member: Member) -> None:
        if not isinstance(member.body, Person):
            self.clients.put(member.body, active=member.is_active)
        elif member.is_active:
            body = member.body
            entry = HumanEntry(body.id, (*body.roles, *body.groups), body.secret_hash or None)
            self.humans.put(entry)
        else:
            self.humans.drop(member.id)

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    async def ask(
        self,
        who: str,
        method: str,
        path: str,
        body: object = None,
        *,
        secret: str | None = None,
    ) -> httpx.Response:
        """Send a request as somebody."""
        headers = {"Authorization": f"Bearer {secret or secret_of(who)}"}
        sent = {} if method == "GET" else {"json": {} if body is None else body}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **sent)  # type: ignore[arg-type]

    async def post(self, who: str, path: str, body: object = None) -> httpx.Response:
        return await self.ask(who, "POST", path, body)

    async def get(self, who: str, path: str) -> httpx.Response:
        return await self.ask(who, "GET", path)

    def changes(self) -> list[dict[str, Any]]:
        """Return the records of changes."""
        return [one for one in self.audit.records if one["type"] == "registry.change"]


def told(response: httpx.Response) -> tuple[int, str]:
    """Return the status and code of a refusal."""
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]
