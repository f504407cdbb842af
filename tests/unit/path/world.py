"""The whole call path over the shipped twins, in one process, without sockets: a `World`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import jsonschema_rs
import orjson
from msgspec import Struct
from msgspec.structs import replace

from connectors.catalog import Catalog
from connectors.listing import read_offers
from connectors.manifest import Manifest
from connectors.memory import Handler, MemoryTransport, build_definition
from gateway.adapters.audit.audit_recovery import RecoveredOperation, read_end
from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.dpop_replay import MemoryUsedProofs
from gateway.adapters.keys.jose_dpop import JoseProofs
from gateway.adapters.keys.jose_tokens import JoseVerifier, sign_token
from gateway.adapters.keys.token_keys import generate_token_key
from gateway.adapters.policy.memory_policy import Answerer, MemoryPolicy
from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.memory_idempotency import MemoryIdempotency
from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.authenticator import Authenticator
from gateway.core.approvals.approval import ApprovalRequest, Vote
from gateway.core.caller import CallerCache
from gateway.core.calls.call import Arguments, CallMeta, RawCall
from gateway.core.calls.ledger import Ledger
from gateway.core.catalog import Review, Tool
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from gateway.core.oauth.dpop_nonce import Nonces
from gateway.core.policy.decision import (
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.core.proofs.possession import ProofDesk
from gateway.core.records.approval_entries import vote_events
from gateway.core.tokens.token import Claims, Grant, Run
from gateway.dispatch import Dispatcher, Step
from gateway.enforce import Enforcement
from gateway.holding import Deployment, HoldDesk
from gateway.http.app import GatewayApp, build_api
from gateway.http.asgi import Message
from gateway.http.challenge import Challenges
from gateway.http.mcp import McpEndpoint
from gateway.http.origin import OriginCheck
from gateway.http.rest import RestEndpoint
from gateway.http.status_tool import StatusTool
from gateway.judge import Judge
from gateway.notices import Deliver, NoticeDesk
from gateway.protocol import mcp
from gateway.refusals import RefusalRecorder
from tests.fixed import NOW_S, CountingIds, HandClock

INPUT: Final = jsonschema_rs.validator_for(
    orjson.loads((find_rego_root() / "schemas" / "input.v1.json").read_bytes())
)
URL: Final = "https://gw.example"

KEY: Final = generate_token_key()
REVISION: Final = "sha256:" + "7" * 64
PERMIT: Final = Permit((Reason("fine"),), (), REVISION)
DENY: Final = Deny((Reason("forbidden_here", "a detail for the log", "house"),), REVISION)
HOLD: Final = Hold(
    (Reason("needs_a_human"),), (), REVISION, ApprovalSpec(((Stage(groups=("finance",)),),))
)
ORDER: Final = {"type": "string"}
SCHEMAS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("billing", "lookup"): {"type": "object", "properties": {"order": ORDER}},
    ("billing", "refund"): {
        "type": "object",
        "properties": {"order": ORDER, "amount": {"type": "number"}},
        "required": ["amount"],
    },
    ("mail", "send"): {"type": "object", "properties": {"to": {"type": "string"}}},
}
REVIEWS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("billing", "lookup"): {"effect": "read"},
    ("billing", "refund"): {"effect": "money", "sums": ("/amount",), "labels": ("pii",)},
    ("mail", "send"): {"effect": "external_send"},
}


class Reply(Struct):
    """One HTTP answer, as a client has it."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return orjson.loads(self.body)

    @property
    def told(self) -> tuple[int, Any]:
        """What the caller learns, but for the operation id, which is new for every call."""
        body = self.json()
        body.get("error", {}).get("data", {}).get("countersign/refusal", {}).pop("op", None)
        return self.status, body

    @property
    def code(self) -> str:
        """The refusal that an answer of either wire or of REST tells."""
        body = self.json()
        if "code" in body:
            return str(body["code"])
        refusal = body.get("result", {}).get("_meta", {}).get("countersign/refusal", {})
        return str(refusal.get("code", body.get("error", {}).get("message", "")))


def build_claims(**changes: Any) -> Claims:  # noqa: ANN401 - any claim
    claims = Claims(
        issuer=URL,
        audience=URL,
        subject="refund-bot",
        client_id="refund-bot",
        jti="jti-1",
        issued_at=NOW_S - 10,
        expires_at=NOW_S + 280,
        scopes=frozenset({"tools:list", "tools:call"}),
        grants=(Grant("billing"), Grant("mail")),
        environment="test",
        run_id="run-1",
        root_jti="root-1",
        sid="run-1",
        on_behalf_of="olga",
        owner="otto",
    )
    return replace(claims, **changes)


def build_run(claims: Claims, **changes: Any) -> Run:  # noqa: ANN401 - any field
    run = Run(
        id=claims.run_id,
        agent=claims.subject,
        launcher="lars",
        grants=claims.grants,
        allowed_values=claims.allowed_values,
        created_at=NOW_S - 20,
        deadline=NOW_S + 86_400,
        credential_hash="",
    )
    return replace(run, **changes)


def sign(claims: Claims) -> bytes:
    return sign_token(claims, KEY).encode()


class Undocumented(BaseException):
    """An input is not as the schema says. Passes whatever makes refusals of errors."""


class CheckedPolicy(MemoryPolicy):
    """Sees that whatever the path asks is an input as authors know it."""

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        faults = [str(error) for error in INPUT.iter_errors(orjson.loads(document))]
        if faults:
            raise Undocumented(faults)
        return await super().decide(tool_id, phase, document)


class Durable:
    """What outlives a gateway: the log, the state, and the systems behind it."""

    def __init__(self, audit: MemoryAuditLog | None = None) -> None:
        self.clock = HandClock()
        self.ids = CountingIds()
        self.audit = audit or MemoryAuditLog(now_us=lambda: self.clock.ns // 1000)
        self.runs = MemoryRuns()
        self.approvals = MemoryApprovals(clock=self.clock)
        self.keys = MemoryIdempotency()
        self.handlers: dict[str, dict[str, Handler]] = {
            "billing": {"lookup": lambda *_: "found", "refund": lambda *_: "refunded"},
            "mail": {"send": lambda *_: "sent"},
        }
        self.transports = {
            server: MemoryTransport(
                server,
                handlers,
                definitions=[build_definition(name, SCHEMAS[server, name]) for name in handlers],
            )
            for server, handlers in self.handlers.items()
        }


class World:
    """A gateway over `Durable` things. A second one over the same is that gateway, restarted."""

    def __init__(
        self,
        answers: Answerer | Mapping[str | tuple[str, str], Decision] | None = None,
        *,
        durable: Durable | None = None,
        policy: MemoryPolicy | None = None,
        limits: Limits | None = None,
        reads_ledger: bool = True,
        concerns_result: bool = False,
        reached: Callable[[Step], None] = lambda _step: None,
        audit: Any = None,  # noqa: ANN401 - an audit log that fails at times
        approvals: Any = None,  # noqa: ANN401 - a store that fails at times
        deliver: Deliver | None = None,
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.durable = durable or Durable()
        self.clock, self.ids = self.durable.clock, self.durable.ids
        self.limits = limits or Limits()
        self.audit = audit or self.durable.audit
        self.store = approvals or self.durable.approvals
        self.policy = policy or CheckedPolicy(
            (lambda *_: PERMIT) if answers is None else answers,
            reads_ledger=reads_ledger,
            concerns_result=concerns_result,
        )
        self.deliver = deliver
        self.look = look
        self.revoked: set[str] = set()
        self.why_barred = "token_revoked"
        self.suspended: set[str] = set()
        self.cut_runs: set[str] = set()
        self.owners: dict[str, tuple[str, ...]] = {}
        self.checks = {"audit": True}
        self.catalog = Catalog()
        self._fill_catalog()
        self.ledger = Ledger()
        self.callers = CallerCache()
        self.relay = OutboxRelay(self.store, self.audit).drain
        self.endpoints = {server: f"sha256:{server}" for server in self.durable.transports}
        self._build_path()
        self.dispatcher = self._build_dispatcher(reached)
        self.rest = self._build_rest()
        self.app = self._build_app()

    def _build_path(self) -> None:
        self.judge = Judge(
            policy=self.policy,
            ledger=self.ledger,
            callers=self.callers,
            audit=self.audit,
            catalog=self.catalog.view,
            limits=self.limits,
        )
        self.desk = HoldDesk(
            store=self.store,
            runs=self.durable.runs,
            relay=self.relay,
            people={"fiona": ("approver", "finance"), "frank": ("approver", "finance")},
            owners=lambda member: self.owners.get(member, ()),
            endpoints=self.endpoints,
            deployment=Deployment(URL, "test", "test/log"),
            clock=self.clock,
            ids=self.ids,
        )
        self.refusals = RefusalRecorder(
            audit=self.audit, clock=self.clock, ids=self.ids, limits=self.limits
        )
        self.notices = NoticeDesk(audit=self.audit, ids=self.ids, deliver=self.deliver)
        self.nonces = Nonces(b"n" * 32)
        self.authenticator = Authenticator(
            tokens=JoseVerifier([KEY], issuer=URL, audience=URL, environment="test"),
            barred=self.barred,
            clock=self.clock,
            proofs=ProofDesk(
                reader=JoseProofs(),
                used=MemoryUsedProofs(),
                public_url=URL,
                nonces=self.nonces,
            ),
            look=self.look,
        )
        self.enforcement = Enforcement(
            authenticator=self.authenticator,
            catalog=self.catalog.view,
            judge=self.judge,
            audit=self.audit,
            transports=self.durable.transports,
            holds=self.desk,
            refusals=self.refusals,
            notices=self.notices,
            callers=self.callers,
            clock=self.clock,
            limits=self.limits,
        )

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """Bar the runs that a test revoked."""
        del tool
        return self.why_barred if claims.run_id in self.revoked else None

    def standing(self, vote: Vote) -> Vote | None:
        """Count every vote."""
        return vote

    def _build_dispatcher(self, reached: Callable[[Step], None]) -> Dispatcher:
        return Dispatcher(
            store=self.store,
            runs=self.durable.runs,
            desk=self.desk,
            judge=self.judge,
            enforcement=self.enforcement,
            relay=self.relay,
            refresh=self.refresh,
            active=lambda agent: agent not in self.suspended,
            standing=self.standing,
            barred=self.barred,
            cut=lambda run: "grant_gone" if run.id in self.cut_runs else None,
            told=self.audit.knows,
            endpoints=self.endpoints,
            clock=self.clock,
            ids=self.ids,
            limits=self.limits,
            reached=reached,
        )

    def _build_rest(self) -> RestEndpoint:
        return RestEndpoint(
            enforcement=self.enforcement,
            approvals=self.store,
            keys=self.durable.keys,
            challenges=Challenges(URL),
            origin=OriginCheck(URL, dev=False),
            clock=self.clock,
            limits=self.limits,
        )

    def _build_app(self) -> GatewayApp:
        return GatewayApp(
            ids=self.ids,
            mcp=McpEndpoint(
                enforcement=self.enforcement,
                status_tool=StatusTool(enforcement=self.enforcement, desk=self.desk),
                catalog=self.catalog.view,
                challenges=Challenges(URL),
                origin=OriginCheck(URL, dev=False),
                ids=self.ids,
                limits=self.limits,
            ),
            rest=self.rest,
            api=build_api([], "0"),
            ready=lambda: self.checks,
        )

    # What the systems behind it were asked, and what the log says

    @property
    def sent(self) -> list[tuple[str, bytes]]:
        """(tool id, raw arguments) of everything that reached an upstream, in order of servers."""
        resolved = [
            recorded.intent.resolved
            for transport in self.durable.transports.values()
            for recorded in transport.sent
        ]
        return [(item.tool.id, item.call.raw.arguments.raw) for item in resolved]

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """Records after the two that start a log, of these types or of all."""
        found = list(self.durable.audit.records)[2:]
        return [record for record in found if not kinds or record["type"] in kinds]

    def only_record(self) -> dict[str, Any]:
        """The one record that a request left."""
        (record,) = self.records()
        return record

    # The catalog and the upstreams

    def _fill_catalog(self) -> None:
        for server, transport in self.durable.transports.items():
            offers, _ = read_offers(transport.definitions)
            reviews = tuple(
                Review(name=name, definition_digest=offer.digest, **REVIEWS[server, name])
                for name, offer in offers.items()
                if (server, name) in REVIEWS
            )
            self.catalog.review(Manifest(id=server, transport="http", tools=reviews))
            self.catalog.offer(server, transport.definitions)

    async def refresh(self, server: str) -> UpstreamError | None:
        try:
            self.catalog.offer(server, await self.durable.transports[server].list_tools())
        except UpstreamError as error:
            return error
        return None

    def handle(self, server: str, tool: str, handler: Handler) -> None:
        """Have a tool answer otherwise."""
        self.durable.transports[server]._tools[tool] = handler  # noqa: SLF001 - the twin's table

    # Callers

    async def launch(self, claims: Claims | None = None) -> Claims:
        """Create the run that a token belongs to."""
        claims = claims or build_claims()
        if await self.durable.runs.get_run(claims.run_id) is None:
            await self.durable.runs.create_run(build_run(claims))
        return claims

    def raw(
        self,
        tool: str = "billing__refund",
        arguments: bytes = b'{"amount":1}',
        *,
        server: str | None = None,
        claims: Claims | None = None,
    ) -> RawCall:
        """A call as an endpoint would make it."""
        return RawCall(
            op=self.ids.new(),
            credential=sign(claims or build_claims()),
            tool=tool,
            server=server,
            arguments=Arguments(arguments, orjson.loads(arguments)),
            meta=CallMeta(surface="mcp"),
        )

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
        *,
        token: bytes | None = None,
    ) -> Reply:
        """Send one HTTP request through the ASGI application."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or [])
        if token is not None:
            pairs.append(("authorization", f"Bearer {token.decode()}"))
        if not any(name == "host" for name, _ in pairs):
            pairs.append(("host", "gw.example"))
        return await call_app(self.app, method, path, pairs, body)

    async def call_rest(
        self,
        name: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        claims: Claims | None = None,
    ) -> Reply:
        token = sign(claims or build_claims())
        return await self.request("POST", f"/v1/tools/{name}/call", body, headers, token=token)

    async def call_mcp(
        self,
        name: object,
        arguments: bytes = b"{}",
        *,
        path: str = "/mcp",
        headers: Mapping[str, str] | None = None,
        meta: bytes = b"",
        request_id: bytes = b"1",
        claims: Claims | None = None,
    ) -> Reply:
        """`tools/call` on the stateless wire."""
        body = build_modern("tools/call", name, arguments, meta=meta, request_id=request_id)
        given = {**modern_headers("tools/call", str(name)), **(headers or {})}
        token = sign(claims or build_claims())
        return await self.request("POST", path, body, given, token=token)

    async def open_session(self, claims: Claims | None = None) -> str:
        """`initialize` on the wire with sessions; return the session id."""
        body = orjson.dumps(
            {
                "jsonrpc": "2.0",
                "id": 0,
                "method": "initialize",
                "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
            }
        )
        reply = await self.request("POST", "/mcp", body, token=sign(claims or build_claims()))
        assert reply.status == 200, reply.body
        return reply.headers["mcp-session-id"]

    async def call_legacy(
        self, session: str, name: str, arguments: bytes, claims: Claims | None = None
    ) -> Reply:
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%b,"arguments":%b}}'
        headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
        token = sign(claims or build_claims())
        return await self.request(
            "POST", "/mcp", body % (orjson.dumps(name), arguments), headers, token=token
        )

    # People

    async def vote(
        self, request: ApprovalRequest, voter: str = "fiona", decision: str = "approve"
    ) -> ApprovalRequest:
        """One approver's word."""
        vote = Vote(
            request_id=request.id,
            voter=voter,
            decision="approve" if decision == "approve" else "deny",
            binding=request.binding,
            groups=("approver", "finance"),
            reason="because",
            voted_at=self.clock.ns // 1_000_000_000,
        )
        events = vote_events(request, vote, event_id=self.ids.new())
        store = self.durable.approvals
        return await store.vote(vote, self.clock.ns // 1_000_000_000, events)

    async def held(self) -> ApprovalRequest:
        """The one held call."""
        (request,) = await self.durable.approvals.find()
        return request

    # Starting again

    def operations(self) -> dict[str, RecoveredOperation]:
        """What the log says of the operations of approved calls, as recovery reads it."""
        found: dict[str, RecoveredOperation] = {}
        for record in self.records("call.intent", "call.outcome"):
            if record["type"] == "call.intent":
                found[record["op"]] = RecoveredOperation(intent=True, outcome_status=None)
            else:
                status = read_end(record)
                found[record["op"]] = RecoveredOperation(intent=True, outcome_status=status)
        return found

    async def restart(
        self, answers: Answerer | Mapping[str | tuple[str, str], Decision] | None = None
    ) -> World:
        """Return the gateway that starts over what this one left behind."""
        again = World(answers, durable=self.durable)
        for record in self.records():
            again.ledger.replay(record)
        await again.dispatcher.recover(again.operations())
        return again


def modern_headers(method: str, name: str | None = None) -> dict[str, str]:
    headers = {"mcp-protocol-version": mcp.MODERN, "mcp-method": method}
    return headers if name is None else {**headers, "mcp-name": name}


def build_modern(
    method: str,
    name: object,
    arguments: bytes,
    *,
    meta: bytes = b"",
    request_id: bytes = b"1",
) -> bytes:
    return (
        b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":{"name":%b,"arguments":%b,"_meta":'
        b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
        b'"io.modelcontextprotocol/clientCapabilities":{}%b}}}'
        % (request_id, method.encode(), orjson.dumps(name), arguments, meta)
    )


async def call_app(
    app: GatewayApp, method: str, path: str, pairs: list[tuple[str, str]], body: bytes
) -> Reply:
    """Speak ASGI: one request in, one answer out."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
    }
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], headers, b"".join(m.get("body", b"") for m in messages[1:]))
