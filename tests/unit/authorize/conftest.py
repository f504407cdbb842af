"""The authorization endpoint over in-memory stores, with people who are signed in on demand."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.dpop_replay import MemoryUsedProofs
from gateway.adapters.keys.jose_dpop import JoseProofs
from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.state.sql_authorizations import SqlAuthorizations
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.sessions import SignedIn
from gateway.core.oauth.apps import App, Apps, Strangers
from gateway.core.oauth.client_documents import Document, NoDocument
from gateway.core.oauth.metadata import Interactive
from gateway.core.policy.decision import Decision, Permit
from gateway.core.proofs.possession import ProofDesk
from gateway.core.tokens.clients import Agent, ClientRegistry, hash_secret
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Claims, Constraint, Grant
from gateway.http.authorizations import Authorizations
from gateway.http.authorize import AuthorizeDeps, build_authorize_router
from gateway.http.authorize_register import build_register_router
from gateway.http.grants.authorization_code import AuthorizationCode
from gateway.http.grants.client_credentials import ClientCredentials
from gateway.http.grants.refresh_token import RefreshToken
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.oauth import build_oauth_router
from gateway.http.token_endpoint import GrantType
from tests.fixed import NOW_S, CountingIds, FixedClock
from tests.unit.tokens.proofs import Holder

URL = "https://gateway.test"
BACK = "http://127.0.0.1:3000/callback"
PERMIT = Permit((), (), "sha256:" + "0" * 64)
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
EFFECTS = {("shop", "refund"): "money", ("shop", "orders"): "read", ("mail", "send"): "create"}
GRANTS = (
    Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3),
    Grant("shop", "*", ("read", "update")),
    Grant("mail", "*", ("create",)),
)
EDITOR = App(
    id="editor",
    name="The <Editor>",
    agent="bot",
    redirect_uris=(BACK, "https://editor.example/back"),
    grants=GRANTS,
    owner="lars",
)
SECRETIVE = App(
    id="desk",
    name="Desk",
    agent="bot",
    redirect_uris=("https://desk.example/back",),
    grants=GRANTS,
    secret_hash=hash_secret("desk-secret"),
    humans=("ann",),
)
BOUND = App(id="bound", name="Bound", agent="bot", redirect_uris=(BACK,), grants=GRANTS, dpop=True)
STRANGERS = Strangers(
    agent="bot",
    grants=(Grant("shop", "*", ("read",)),),
    documents=True,
    hosts=("apps.example",),
    registration=True,
)


class Seen(NamedTuple):
    server: str
    name: str
    effect: str
    usable: bool = True


TOOLS = (
    Seen("shop", "refund", "money"),
    Seen("shop", "orders", "read"),
    Seen("shop", "broken", "read", usable=False),
    Seen("mail", "send", "create"),
)


class TestSessions:
    """The header `Who` says who is signed in; a real one is `gateway.http.signin_sessions`."""

    __test__ = False

    async def current(self, request: Request) -> SignedIn | None:
        who = request.headers.get("who")
        if who is None:
            return None
        return SignedIn(
            person=who,
            sid="sid",
            auth_time=NOW_S,
            acr="session",
            amr=("pwd",),
            csrf=f"csrf-of-{who}",
            expires_at=NOW_S + 3_600,
        )

    def sign_in_url(self, next_path: str) -> str:
        return "/signin?" + urlencode({"next": next_path})

    def is_own_form(self, request: Request, signed_in: SignedIn, csrf: str) -> bool:
        return csrf == signed_in.csrf and request.headers.get("origin", URL) == URL


class Shelf:
    """Documents by URL, as if they had been fetched."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.fetched: list[str] = []

    async def fetch(self, url: str) -> Document | NoDocument:
        self.fetched.append(url)
        return self.documents.get(url) or NoDocument("could not be fetched")


class World:
    """The authorization server, and what came of it."""

    def __init__(self) -> None:
        self.clock, self.ids = FixedClock(), CountingIds()
        self.state = SqlState("sqlite://")
        self.store = SqlAuthorizations(self.state)
        self.runs, self.audit = MemoryRuns(), MemoryAuditLog()
        self.decision: Decision = PERMIT
        self.decide: Callable[[], Decision] = lambda: self.decision
        self.refused: list[tuple[str, str]] = []
        self.ended: set[str] = set()
        self.stopped: set[str] = set()
        self.documents = Shelf()
        self.apps = Apps([EDITOR, SECRETIVE, BOUND], strangers=STRANGERS)
        key = generate_token_key()
        self.verifier = JoseVerifier([key], issuer=URL, audience=URL, environment="test")
        issue = self._issue_deps(JoseIssuer(LocalSigner(key)))
        api = FastAPI()
        deps = self._authorize_deps(issue)
        api.include_router(build_authorize_router(deps))
        api.include_router(build_register_router(deps))
        interactive = Interactive(documents=True, registration=True)
        api.include_router(build_oauth_router(issue, self._grant_types, interactive=interactive))
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url=URL)

    def _issue_deps(self, issuer: JoseIssuer) -> IssueDeps:
        return IssueDeps(
            site=Site(issuer=URL, public_url=URL, environment="test"),
            clients=ClientRegistry(
                [
                    Agent(id="bot", owner="olga", roles=("support",)),
                    Agent(id="clerk", secret_hash=hash_secret("clerk-secret")),
                ]
            ),
            runs=self.runs,
            issuer=issuer,
            policy=MemoryPolicy(lambda _tool, _phase, _document: self.decide()),
            audit=self.audit,
            clock=self.clock,
            ids=self.ids,
            refuse=self._refuse,
            barred=lambda claims, _tool=None: (
                "token_revoked"
                if claims.run_id in self.ended or claims.on_behalf_of in self.stopped
                else None
            ),
            on_run_created=lambda _run: None,
            on_issued=lambda _claims: None,
            on_run_ended=self.ended.add,
            effect_of=lambda server, tool: EFFECTS.get((server, tool)),
            apps=self.apps,
            stands_by=lambda _person, _at: True,
            proofs=ProofDesk(
                reader=JoseProofs(), used=MemoryUsedProofs(), public_url=URL, nonces=None
            ),
        )

    def _authorize_deps(self, issue: IssueDeps) -> AuthorizeDeps:
        return AuthorizeDeps(
            site=issue.site,
            apps=self.apps,
            documents=self.documents,
            sessions=TestSessions(),
            store=self.store,
            audit=self.audit,
            clock=self.clock,
            ids=self.ids,
            effect_of=issue.effect_of,
            tools=lambda: TOOLS,
            refuse=self._refuse,
        )

    def _grant_types(self, desk: IssueDesk) -> tuple[GrantType, ...]:
        authorizations = Authorizations(
            store=self.store,
            runs=self.runs,
            desk=desk,
            audit=self.audit,
            clock=self.clock,
            ids=self.ids,
        )
        return (
            ClientCredentials(desk),
            AuthorizationCode(desk, authorizations),
            RefreshToken(desk, authorizations),
        )

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    @property
    def records(self) -> list[dict[str, Any]]:
        """What is in the log after its beginning."""
        return list(self.audit.records)[2:]

    def types(self) -> list[str]:
        return [record["type"] for record in self.records]

    def query(self, **changes: str | None) -> str:
        asked = {
            "response_type": "code",
            "client_id": "editor",
            "redirect_uri": BACK,
            "state": "st-1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": f"{URL}/mcp",
            **changes,
        }
        return urlencode({name: value for name, value in asked.items() if value is not None})

    async def ask(
        self, query: str | None = None, *, who: str | None = "ann", **headers: str
    ) -> httpx.Response:
        sent = headers | ({} if who is None else {"who": who})
        query = self.query() if query is None else query
        return await self.client.get(f"/oauth/authorize?{query}", headers=sent)

    async def answer(
        self,
        query: str | None = None,
        *,
        who: str = "ann",
        keep: tuple[str, ...] = ("shop.read", "shop.update", "shop.money", "mail.create"),
        **changes: str,
    ) -> httpx.Response:
        form = {
            "request": self.query() if query is None else query,
            "csrf": f"csrf-of-{who}",
            "decision": "allow",
            **{f"keep.{name}": "on" for name in keep},
            **changes,
        }
        return await self.client.post("/oauth/authorize", data=form, headers={"who": who})

    async def code(self, query: str | None = None, **changes: Any) -> str:  # noqa: ANN401
        return sent_back(await self.answer(query, **changes))["code"]

    async def redeem(
        self, code: str, holder: Holder | None = None, **changes: str
    ) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": "editor",
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
            **changes,
        }
        return await self.token(form, holder=holder)

    async def refresh(
        self, token: str, holder: Holder | None = None, **changes: str
    ) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "editor"}
        return await self.token(form | changes, holder=holder)

    async def token(
        self,
        form: dict[str, str],
        auth: tuple[str, str] | None = None,
        holder: Holder | None = None,
    ) -> httpx.Response:
        form = {name: value for name, value in form.items() if value}
        headers = {}
        if holder is not None:
            url = f"{URL}/oauth/token"
            headers["DPoP"] = holder.prove("POST", url, self.clock.now_s).decode()
        return await self.client.post(
            "/oauth/token", data=form, headers=headers, auth=auth or httpx.USE_CLIENT_DEFAULT
        )

    def claims(self, token: str) -> Claims:
        return self.verifier.verify(token.encode(), self.clock.now_s)


def sent_back(reply: httpx.Response, to: str = BACK) -> dict[str, str]:
    """Return what a redirect to an app says."""
    assert reply.status_code == 303, reply.text
    assert reply.headers["location"].startswith(to + "?")
    return dict(parse_qsl(urlsplit(reply.headers["location"]).query))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.state.open(environment="test", log_origin="test")
    yield made
    await made.client.aclose()
    await made.state.close()
