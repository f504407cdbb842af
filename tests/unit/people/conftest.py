"""The sign-in pages over a real state, log, hasher and WebAuthn; a browser that keeps cookies."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_network
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.signin.oidc_client import OidcProvider, OidcSettings
from gateway.adapters.signin.passkeys import WebauthnPasskeys
from gateway.adapters.signin.passwords import Argon2Passwords
from gateway.adapters.state.sql_accounts import SqlAccounts
from gateway.adapters.state.sql_sessions import SqlSessions, SqlTickets
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.approval import person
from gateway.core.errors import ConfigurationError
from gateway.core.tokens.clients import hash_secret
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.http.signin import build_sign_in_router
from gateway.http.signin_account import build_account_router
from gateway.http.signin_claim import build_claim_routers
from gateway.http.signin_cli import build_cli_router
from gateway.http.signin_desk import SignInDeps, SignInLog
from gateway.http.signin_limits import SignInLimits
from gateway.http.signin_oidc import build_oidc_router, callback_path
from gateway.http.signin_sessions import Lifetimes, Sessions
from tests.fixed import CountingIds, FixedClock
from tests.unit.people.idp import FakeIdp

ORIGIN: Final = "https://gw.example"
PASSWORD: Final = "correct horse battery"
OTHER_PASSWORD: Final = "staple horse battery"


class Browser:
    """Somebody's browser: keeps cookies, and says where a form comes from."""

    def __init__(self, app: FastAPI, address: str = "192.0.2.1") -> None:
        transport = httpx.ASGITransport(app=app, client=(address, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url=ORIGIN)
        self.own: dict[str, str] = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers=headers)

    async def told(self, path: str, forwarded: str) -> httpx.Response:
        """Send an empty script's request on whose behalf a header says."""
        headers = {**self.own, "x-forwarded-for": forwarded}
        return await self.http.post(path, json={}, headers=headers)

    async def post(
        self, path: str, headers: dict[str, str] | None = None, /, **fields: str
    ) -> httpx.Response:
        """Submit a form of our own page, unless `headers` say that it is another's."""
        sent = self.own if headers is None else headers
        return await self.http.post(path, data=fields, headers=sent)

    async def script(self, path: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        return await self.http.post(path, json=body, headers=self.own)

    async def sign_in(
        self, person: str = "ann", password: str = PASSWORD, **fields: str
    ) -> httpx.Response:
        return await self.post("/signin/password", person=person, password=password, **fields)

    async def csrf(self) -> str:
        """Return the form token of the session, from the account page."""
        return find_csrf(await self.get("/account"))

    @property
    def session(self) -> str | None:
        return self.http.cookies.get("__Host-countersign")


def find_csrf(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None, page.text
    return found[1]


class Known(Humans):
    """Everybody, and when somebody was last stopped."""

    def __init__(self, entries: Iterable[HumanEntry]) -> None:
        self.names: set[str] = set()
        self.stopped_at: dict[str, int] = {}
        super().__init__(entries)

    def put(self, entry: HumanEntry) -> None:
        super().put(entry)
        self.names.add(person(entry.id))

    def is_taken(self, person_id: str) -> bool:
        return person(person_id) in self.names

    def secret_of(self, person_id: str) -> str:
        return self._hashes.get(person_id, b"").hex()

    def voids(self, person_id: str, at_s: int) -> bool:
        return at_s <= self.stopped_at.get(person_id, -1)


class World:
    """Sign-in, put together over memory. People: ann (approver), ada (admin), otto (operator)."""

    def __init__(
        self,
        state: SqlState,
        *,
        local: bool = True,
        provisions: bool = False,
        log: MemoryAuditLog | None = None,
        passwords: Argon2Passwords | None = None,
    ) -> None:
        self.state, self.clock, self.ids = state, FixedClock(), CountingIds()
        self.log = log or MemoryAuditLog()
        self.humans = Known(
            HumanEntry(name, (role,), hash_secret(f"secret-{name}"))
            for name, role in (("ann", "approver"), ("ada", "admin"), ("otto", "operator"))
        )
        self.idp = FakeIdp(self.clock)
        self.idp_secret_fault: str | None = None
        self.accounts = SqlAccounts(state)
        self.passwords = passwords or Argon2Passwords(time_cost=1, memory_kib=8)
        self.shared: set[str] = set()
        self.provisioned: set[str] = set()
        self.noted: list[tuple[str, str, int]] = []
        self.takes_claims = True
        self.sessions = Sessions(
            store=SqlSessions(state),
            humans=self.humans,
            clock=self.clock,
            ids=self.ids,
            origin=ORIGIN,
            lifetimes=Lifetimes(absolute_s=43_200, idle_s=3_600, cli_s=28_800),
        )
        self.deps = self._build(local=local, provisions=provisions)
        self.app = FastAPI()
        self.refused: list[tuple[str, str]] = []
        self.admit = build_admit(self.humans, self._refuse, self.sessions.by_credential)
        for router in (
            build_sign_in_router(self.deps),
            build_oidc_router(self.deps),
            build_account_router(self.deps),
            build_cli_router(self.deps),
            *build_claim_routers(self.deps, self.admit),
        ):
            self.app.include_router(router)

    def _build(self, *, local: bool, provisions: bool) -> SignInDeps:
        settings = OidcSettings(
            id="corp",
            label="Corp <ID>",
            issuer=self.idp.issuer,
            client_id="gateway",
            secret=self._read_idp_secret,
            redirect_uri=ORIGIN + callback_path("corp"),
            strong_acr=("urn:mfa",),
            provisions=provisions,
        )
        return SignInDeps(
            sessions=self.sessions,
            tickets=SqlTickets(self.state),
            accounts=self.accounts,
            humans=self.humans,
            passwords=self.passwords if local else None,
            passkeys=WebauthnPasskeys(origin=ORIGIN, rp_id="gw.example") if local else None,
            providers={"corp": OidcProvider(settings, http=self.idp.client(), clock=self.clock)},
            provision=self._enrol,
            first_admin=self._enrol_admin,
            shares_secret=self.shared.__contains__,
            has_own_secret=lambda _person: False,
            secret_of=self.humans.secret_of,
            is_taken=self.humans.is_taken,
            trusted_proxies=(ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/64")),
            is_provisioned=self.provisioned.__contains__,
            note_claim=self._note_claim,
            log=SignInLog(record=self.log.record, clock=self.clock, ids=self.ids),
            limits=SignInLimits(),
            clock=self.clock,
            ids=self.ids,
        )

    def _read_idp_secret(self) -> str:
        if self.idp_secret_fault is not None:
            raise ConfigurationError(self.idp_secret_fault)
        return "idp-secret"

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    async def _note_claim(self, person: str, by: str, made_at: int) -> bool:
        if self.takes_claims:
            self.noted.append((person, by, made_at))
        return self.takes_claims

    async def _enrol(self, person_id: str) -> bool:
        if person_id in self.humans.everyone() or person_id == "gone":
            return False
        self.humans.put(HumanEntry(person_id, (), None))
        return True

    async def _enrol_admin(self, person_id: str) -> bool:
        if not await self._enrol(person_id):
            return False
        self.humans.put(HumanEntry(person_id, ("admin",), None))
        return True

    async def give_password(self, person: str, password: str = PASSWORD) -> None:
        hashed = await self.passwords.hash(password)
        await self.accounts.set_password(person, hashed, self.clock.now_s)

    def browser(self, address: str = "192.0.2.1") -> Browser:
        return Browser(self.app, address)

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.log.records if not kinds or one["type"] in kinds]

    def who(self, seq: int, path: str = "person") -> str:
        """Return whom a record is about, out of its opening."""
        value = self.log.read_opening(seq, path)
        assert value is not None
        return value.decode()


@pytest.fixture
async def state() -> AsyncIterator[SqlState]:
    state = SqlState("sqlite://")
    await state.open(environment="test", log_origin="test.example/log")
    yield state
    await state.close()


@pytest.fixture
async def world(state: SqlState) -> World:
    """Return a world in which ann has a password."""
    made = World(state)
    await made.give_password("ann")
    return made


@pytest.fixture
def browser(world: World) -> Browser:
    return world.browser()
