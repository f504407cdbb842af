"""Bad input: each has its clear error, sends nothing upstream and leaves one record."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.keys.jose_tokens import sign_token
from gateway.adapters.keys.token_keys import generate_token_key
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.core.calls.call import UpstreamResult
from gateway.core.errors import Delivery, PolicyError, UpstreamError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Phase
from gateway.core.refusal import DELIVERED
from gateway.core.tokens.token import Grant
from tests.fixed import NOW_S
from tests.unit.path.world import Reply, World, build_claims, build_modern, modern_headers, sign

pytestmark = pytest.mark.req("GW-06", "GW-07")


def refused(world: World, reply: Reply, status: int, code: str, stage: str) -> dict[str, Any]:
    """Check the three promises; return the record."""
    assert reply.status == status
    assert world.sent == []
    record = world.only_record()
    assert (record["type"], record["stage"], record["reason"]) == ("call.refused", stage, code)
    return record


# --- tokens


def altered(token: bytes) -> bytes:
    head, payload, signature = token.split(b".")
    flipped = b"A" if signature[:1] != b"A" else b"B"
    return b".".join((head, payload, flipped + signature[1:]))


def unsigned(token: bytes) -> bytes:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=")
    return b".".join((header, token.split(b".")[1], b""))


TOKENS: dict[str, tuple[Callable[[], bytes | None], int, str]] = {
    "none": (lambda: None, 401, "token_missing"),
    "garbage": (lambda: b"garbage", 401, "token_invalid"),
    "not ascii": (lambda: "tökén.a.b".encode("latin-1"), 401, "token_invalid"),
    "expired": (lambda: sign(build_claims(expires_at=NOW_S)), 401, "token_expired"),
    "not yet": (lambda: sign(build_claims(issued_at=NOW_S + 1)), 401, "token_invalid"),
    "wrong audience": (
        lambda: sign(build_claims(audience="https://other.example", grants=())),
        401,
        "token_audience",
    ),
    "other environment": (lambda: sign(build_claims(environment="prod")), 401, "token_invalid"),
    "other issuer": (lambda: sign(build_claims(issuer="https://evil")), 401, "token_invalid"),
    "alg none": (lambda: unsigned(sign(build_claims())), 401, "token_invalid"),
    "altered": (lambda: altered(sign(build_claims())), 401, "token_invalid"),
    "foreign key": (
        lambda: sign_token(build_claims(), generate_token_key()).encode(),
        401,
        "token_invalid",
    ),
    "no call scope": (
        lambda: sign(build_claims(scopes=frozenset({"tools:list"}))),
        403,
        "scope_insufficient",
    ),
}


@pytest.mark.req("GW-10")
@pytest.mark.parametrize("case", sorted(TOKENS))
@pytest.mark.parametrize("surface", ["mcp", "rest"])
async def test_a_token_that_cannot_be_believed(world: World, case: str, surface: str) -> None:
    make, status, code = TOKENS[case]
    token = make()
    headers = [] if token is None else [("authorization", "Bearer " + token.decode("latin-1"))]
    if surface == "mcp":
        body = build_modern("tools/call", "billing__refund", b'{"amount":1}')
        headers += modern_headers("tools/call", "billing__refund").items()
        reply = await world.request("POST", "/mcp", body, headers)
    else:
        path = "/v1/tools/billing__refund/call"
        reply = await world.request("POST", path, b'{"arguments":{"amount":1}}', headers)
    record = refused(world, reply, status, code, "authenticate")
    assert "actor" not in record
    challenge = reply.headers["www-authenticate"]
    assert challenge.startswith("Bearer ")
    place = "/mcp" if surface == "mcp" else ""
    metadata = f'resource_metadata="https://gw.example/.well-known/oauth-protected-resource{place}"'
    assert metadata in challenge
    assert ('error="insufficient_scope"' in challenge) == (code == "scope_insufficient")


async def test_a_revoked_run_is_refused_at_once(world: World) -> None:
    world.revoked.add("run-1")
    reply = await world.call_rest("billing__lookup", b"{}")
    refused(world, reply, 401, "token_revoked", "authenticate")


# --- what is asked for

ARGUMENTS: list[tuple[bytes, int, str, str]] = [
    (b'{"amount":"much"}', 400, "arguments_invalid", "resolve"),
    (b"{}", 400, "arguments_invalid", "resolve"),
    (b'{"amount":1,"extra":true}', 400, "arguments_invalid", "resolve"),
    (b'{"amount":-1}', 400, "arguments_invalid", "decide"),
    (b'{"amount":1,"order":"%b"}' % (b"x" * 262_144), 413, "arguments_too_large", "resolve"),
    (b'{"amount":1,"amount":1000}', 400, "body_invalid", "read"),
    (b'{"amount":1,"order":{"a":1,"\\u0061":2}}', 400, "body_invalid", "read"),
    (b'{"amount":NaN}', 400, "body_invalid", "read"),
    (b'{"amount":1e999}', 400, "body_invalid", "read"),
    (b'{"amount":9007199254740993}', 400, "body_invalid", "read"),
    (b'{"order":"\\ud800","amount":1}', 400, "body_invalid", "read"),
    (b'{"order":"\xff","amount":1}', 400, "body_invalid", "read"),
    (b'{"order":' + b"[" * 2_000 + b"]" * 2_000 + b',"amount":1}', 400, "body_invalid", "read"),
    (b'{"order":"%b"}' % (b"x" * 5_000_000), 413, "body_too_large", "read"),
    (b"[]", 400, "params_invalid", "read"),
    (b"null", 400, "params_invalid", "read"),
]


@pytest.mark.parametrize(("arguments", "status", "code", "stage"), ARGUMENTS)
async def test_bad_arguments_over_rest(
    world: World, arguments: bytes, status: int, code: str, stage: str
) -> None:
    reply = await world.call_rest("billing__refund", b'{"arguments":%b}' % arguments)
    record = refused(world, reply, status, code, stage)
    assert record["actor"]["agent"] == "refund-bot"
    assert reply.headers["content-type"] == "application/problem+json"
    # What could not be read is not claimed to have been read.
    assert ("args" in record) == (stage != "read" and code != "arguments_too_large")


@pytest.mark.parametrize(("arguments", "status", "code", "stage"), ARGUMENTS)
async def test_bad_arguments_over_mcp(
    world: World, arguments: bytes, status: int, code: str, stage: str
) -> None:
    reply = await world.call_mcp("billing__refund", arguments)
    record = world.only_record()
    assert (record["stage"], record["reason"], world.sent) == (stage, code, [])
    if stage == "read":
        assert reply.status == status
        assert reply.json()["error"]["code"] in {-32700, -32602, -32600}
    else:  # the model gets to read it
        assert reply.json()["result"]["isError"] is True
        assert reply.code == code


@pytest.mark.parametrize("name", ["billing__nothing", "nothing__refund", "", "refund", "ü", "a.b"])
async def test_an_unknown_tool(world: World, name: str) -> None:
    reply = await world.call_mcp(name, b'{"amount":1}', headers={"mcp-name": encoded(name)})
    refused(world, reply, 400, "tool_unknown", "resolve")
    error = reply.json()["error"]
    assert (error["code"], error["message"]) == (-32602, "no such tool")


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-name": "billing__lookup"},
        {"mcp-method": "tools/list"},
        {"mcp-name": encoded("billing__lookup")},
        {"mcp-protocol-version": "2025-11-25"},
    ],
)
async def test_header_and_body_that_name_different_tools(
    world: World, headers: Mapping[str, str]
) -> None:
    reply = await world.call_mcp("billing__refund", b'{"amount":1}', headers=headers)
    refused(world, reply, 400, "header_mismatch", "read")
    assert reply.json()["error"]["code"] == -32020


async def test_a_header_that_comes_twice(world: World) -> None:
    body = build_modern("tools/call", "billing__refund", b'{"amount":1}')
    pairs = [*modern_headers("tools/call", "billing__refund").items(), ("mcp-name", "mail__send")]
    reply = await world.request("POST", "/mcp", body, pairs, token=sign(build_claims()))
    record = world.only_record()
    assert (reply.status, record["reason"], world.sent) == (400, "header_mismatch", [])
    twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    reply = await world.request("POST", "/v1/tools/billing__refund/call", b"{}", twice)
    assert (reply.status, reply.code, len(world.records())) == (400, "header_mismatch", 2)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "evil.example"},
        {"host": "gw.example:8443"},
        {"host": ""},
        {"host": "localhost"},
    ],
)
async def test_a_page_of_somebody_else(world: World, headers: Mapping[str, str]) -> None:
    token = sign(build_claims())
    for number, path in enumerate(("/mcp", "/v1/tools"), start=1):
        reply = await world.request("POST", path, b"{}", headers, token=token)
        assert reply.status == 403
        assert [record["reason"] for record in world.records()] == ["origin_forbidden"] * number


async def test_a_batch_is_refused_whole(world: World) -> None:
    one = build_modern("tools/call", "billing__refund", b'{"amount":1}')
    headers = modern_headers("tools/call", "billing__refund")
    token = sign(build_claims())
    reply = await world.request("POST", "/mcp", b"[%b,%b]" % (one, one), headers, token=token)
    assert (reply.status, reply.json()["error"]["code"]) == (400, -32600)
    assert (world.only_record()["reason"], world.sent) == ("request_invalid", [])


async def test_a_call_without_an_id_is_not_made(world: World) -> None:
    body = build_modern("tools/call", "billing__refund", b'{"amount":1}').replace(b'"id":1,', b"")
    token = sign(build_claims())
    headers = modern_headers("tools/call", "billing__refund")
    reply = await world.request("POST", "/mcp", body, headers, token=token)
    assert (reply.status, reply.body, world.sent, world.records()) == (202, b"", [], [])


@pytest.mark.parametrize("path", ["/v1/tools/billing__refund/call", "/mcp"])
@pytest.mark.parametrize("parts", [0, 1, 2])
async def test_a_body_that_breaks_off_is_not_read(world: World, path: str, parts: int) -> None:
    part = {"type": "http.request", "body": b'{"arguments":{"amount":1}}', "more_body": True}
    messages = iter([*[part] * parts, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:  # noqa: ANN401 - an ASGI message
        return next(messages)

    async def send(message: Any) -> None:  # noqa: ANN401 - an ASGI message
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [
            (b"host", b"gw.example"),
            (b"authorization", b"Bearer " + sign(build_claims())),
        ],
    }
    await world.app(scope, receive, send)
    assert (world.sent, world.only_record()["reason"]) == ([], "body_invalid")


async def test_a_body_in_pieces_is_one_body_and_bounded_while_it_comes(world: World) -> None:
    async def post(*pieces: bytes) -> int:
        last = len(pieces) - 1
        messages = iter(
            {"type": "http.request", "body": piece, "more_body": number < last}
            for number, piece in enumerate(pieces)
        )
        sent: list[Any] = []

        async def receive() -> Any:  # noqa: ANN401 - an ASGI message
            return next(messages)

        async def send(message: Any) -> None:  # noqa: ANN401 - an ASGI message
            sent.append(message)

        token = b"Bearer " + sign(build_claims())
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/tools/billing__refund/call",
            "headers": [(b"host", b"gw.example"), (b"authorization", token)],
        }
        await world.app(scope, receive, send)
        return int(sent[0]["status"])

    assert await post(b'{"arguments":', b"", b'{"amount":4}}') == 200
    assert world.sent == [("billing.refund", b'{"amount":4}')]
    # It is not read to its end: the third piece is never asked for.
    assert await post(b" " * 900_000, b" " * 900_000, b" " * 900_000) == 413
    assert len(world.sent) == 1


@pytest.mark.parametrize("what", ["tools/list", "ping", "notification", "status"])
async def test_nothing_is_told_to_a_token_that_is_not_believed(world: World, what: str) -> None:
    token = altered(sign(build_claims()))
    if what == "notification":
        body = b'{"jsonrpc":"2.0","method":"notifications/cancelled"}'
    elif what == "status":
        reply = await world.request("GET", "/v1/calls/1", token=token)
        assert reply.status == 401
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    else:
        body = b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % what.encode()
    reply = await world.request("POST", "/mcp", body, token=token)
    assert (reply.status, world.sent) == (401, [])
    assert {record["reason"] for record in world.records()} == {"token_invalid"}


async def test_the_status_tool_answers_only_to_tokens_that_may_call(world: World) -> None:
    claims = build_claims(scopes=frozenset({"tools:list"}))
    name = "countersign_approval_status"
    reply = await world.call_mcp(name, b'{"approval_id":"x"}', claims=claims)
    assert (reply.status, world.only_record()["reason"]) == (403, "scope_insufficient")


# --- grants


@pytest.mark.req("GW-10")
async def test_a_tool_that_is_not_granted_answers_as_one_that_is_not_there(world: World) -> None:
    claims = build_claims(grants=(Grant("mail"),))
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    absent = await world.call_rest("billing__nothing", b'{"arguments":{}}', claims=claims)
    assert reply.status == absent.status == 404
    told, expected = reply.json(), absent.json()
    assert told.pop("instance") != expected.pop("instance")
    assert told == expected
    first, second = world.records()
    assert first["tool"]["id"] == "billing.refund"  # the log knows what it was
    assert "asked" in second
    assert world.sent == []


@pytest.mark.req("GW-10")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"allowed_values": {"/to": ("a@x.example",)}}, "constraint_broken"),
        ({"allowed_values": {"mail.send#/to": ()}}, "constraint_broken"),
    ],
)
async def test_values_that_the_token_does_not_allow(
    world: World, changes: dict[str, Any], code: str
) -> None:
    claims = build_claims(**changes)
    body = b'{"arguments":{"to":"evil@x.example"}}'
    reply = await world.call_rest("mail__send", body, claims=claims)
    refused(world, reply, 403, code, "resolve")
    assert "evil" not in reply.body.decode()


# --- policy


def raising(error: Exception) -> Callable[[str, Phase, dict[str, Any]], Decision]:
    def answer(_tool: str, _phase: Phase, _document: dict[str, Any]) -> Decision:
        raise error

    return answer


@pytest.mark.req("GW-11")
@pytest.mark.parametrize(
    ("policy", "status", "code"),
    [
        (MemoryPolicy({}), 404, "policy_undefined"),
        (MemoryPolicy(raising(PolicyError("late", code="policy_timeout"))), 503, "policy_timeout"),
        (MemoryPolicy(raising(PolicyError("gone"))), 503, "policy_unavailable"),
        (
            MemoryPolicy(raising(PolicyError("died", code="policy_worker_died"))),
            503,
            "policy_worker_died",
        ),
    ],
)
async def test_no_answer_from_policy_is_a_denial(
    policy: MemoryPolicy, status: int, code: str
) -> None:
    world = World(policy=policy)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    record = world.only_record()
    assert (reply.status, world.sent) == (status, [])
    assert (record["stage"], record["reason"]) == ("decide", code)
    assert record["decision"]["outcome"] == "deny"
    assert world.ledger.family("root-1").calls == 0


# --- the log


@pytest.mark.req("GW-13")
@pytest.mark.parametrize(("fail", "code"), [("poison", "unavailable"), ("overload", "overloaded")])
@pytest.mark.parametrize("surface", ["mcp", "rest"])
async def test_without_a_log_nothing_is_executed(
    world: World, fail: str, code: str, surface: str
) -> None:
    getattr(world.durable.audit, fail)()
    if surface == "mcp":
        reply = await world.call_mcp("billing__refund", b'{"amount":1}')
        assert reply.json()["error"]["code"] == -32603
    else:
        reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
        assert reply.code == f"audit_{code}"
    assert (reply.status, world.sent, world.records()) == (503, [], [])
    assert world.ledger.family("root-1").calls == 0
    # A refusal that cannot be written tells the same, whoever asks.
    stranger = await world.request("POST", "/v1/tools/billing__refund/call", b"{}")
    unknown = await world.call_rest("nothing__here", b"{}")
    assert (stranger.status, unknown.status) == (503, 503)


async def test_a_call_that_fits_no_record_is_not_made() -> None:
    limits = Limits(record_max_bytes=900)
    world = World(limits=limits)
    world.durable.audit._limits = limits  # type: ignore[misc]  # noqa: SLF001 - a smaller log
    claims = build_claims(client_id="c" * 900)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    assert (reply.status, reply.code) == (413, "audit_record_invalid")
    assert world.sent == []


# --- upstreams


def failing(error: Exception) -> Callable[..., UpstreamResult]:
    def handler(_arguments: dict[str, Any], _relay: object) -> UpstreamResult:
        raise error

    return handler


@pytest.mark.req("GW-09")
@pytest.mark.parametrize(
    ("error", "status", "code", "delivery"),
    [
        (UpstreamError("down", delivery="not_sent"), 502, "upstream_unavailable", "not_sent"),
        (
            UpstreamError("slow", delivery="unknown", code="upstream_timeout"),
            504,
            "upstream_timeout",
            "unknown",
        ),
        (
            UpstreamError("html", delivery="sent", code="upstream_protocol"),
            502,
            "upstream_protocol",
            "sent",
        ),
        (
            UpstreamError("big", delivery="sent", code="result_too_large"),
            502,
            "result_too_large",
            "sent",
        ),
        (RuntimeError("a bug"), 500, "internal_error", "unknown"),
    ],
)
async def test_an_upstream_in_trouble_is_told_honestly(
    world: World, error: Exception, status: int, code: str, delivery: Delivery
) -> None:
    world.handle("billing", "refund", failing(error))
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":5}}')
    assert (reply.status, reply.code) == (status, code)
    assert (reply.json()["delivery"], reply.json()["detail"]) == (delivery, DELIVERED[delivery])
    intent, outcome = world.records()
    assert (intent["type"], outcome["type"]) == ("call.intent", "call.outcome")
    assert (outcome["status"], outcome["delivery"]) == ("failed", delivery)
    assert (outcome["intent"], outcome["reason"]) == (intent["seq"], code)
    # Only what certainly was not sent is given back.
    assert world.ledger.family("root-1").calls == (0 if delivery == "not_sent" else 1)


@pytest.mark.req("GW-09")
@pytest.mark.parametrize("delivery", ["not_sent", "unknown", "sent"])
async def test_a_model_reads_whether_its_call_may_have_run(
    world: World, delivery: Delivery
) -> None:
    world.handle("billing", "refund", failing(UpstreamError("broke", delivery=delivery)))
    result = (await world.call_mcp("billing__refund", b'{"amount":5}')).json()["result"]
    assert result["content"][0]["text"].endswith(f"answer: {DELIVERED[delivery]}")
    assert result["_meta"]["countersign/refusal"]["delivery"] == delivery


async def test_what_breaks_inside_is_a_refusal_with_a_record(world: World) -> None:
    class Broken:
        def failure(self, _arguments: object) -> str | None:
            raise ValueError("canary")

    tool = world.catalog.view().find("billing__refund", None)
    assert tool is not None
    world.catalog._snapshot = type(world.catalog.view())([replace(tool, schema=Broken())])  # noqa: SLF001
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    refused(world, reply, 500, "internal_error", "decide")
    assert "canary" not in reply.body.decode()


# --- strangers


@pytest.mark.req("GW-06")
async def test_strangers_cannot_fill_the_disk(world: World) -> None:
    for _ in range(50):
        reply = await world.request("POST", "/v1/tools/billing__refund/call", b"{}")
        assert reply.status == 401
    assert len(world.records()) == 20
    world.clock.pass_s(10)
    await world.request("POST", "/v1/tools/billing__refund/call", b"{}")
    counts = [record["count"] for record in world.records()]
    assert (sum(counts), len(counts)) == (51, 22)
    assert world.records()[20]["count"] == 30


async def test_what_was_counted_is_kept_until_it_is_written(world: World) -> None:
    for _ in range(25):
        await world.request("POST", "/v1/tools/billing__refund/call", b"{}")
    world.durable.audit.overload()
    world.clock.pass_s(10)
    reply = await world.request("POST", "/v1/tools/billing__refund/call", b"{}")
    assert (reply.status, reply.code) == (503, "audit_overloaded")
    world.durable.audit.overload(overloaded_now=False)
    await world.refusals.flush()
    assert sum(record["count"] for record in world.records()) == 25


async def test_a_stranger_with_a_bad_body_is_told_only_to_authenticate(world: World) -> None:
    token = altered(sign(build_claims()))
    reply = await world.request("POST", "/mcp", b"{", token=token)
    assert (reply.status, world.only_record()["reason"]) == (401, "token_invalid")


async def test_a_token_for_calls_only_can_call_on_every_surface(world: World) -> None:
    claims = build_claims(scopes=frozenset({"tools:call"}))
    session = await world.open_session(claims)
    reply = await world.call_legacy(session, "billing__lookup", b"{}", claims)
    assert reply.json()["result"]["isError"] is False
    broken = await world.request("POST", "/mcp", b"{", token=sign(claims))
    assert broken.status == 400  # and not: lacks a scope
    called = await world.call_rest("billing__lookup", b"{}", claims=claims)
    path = f"/v1/calls/{called.json()['id']}"
    assert (await world.request("GET", path, token=sign(claims))).body == called.body
    listing = await world.request("GET", "/v1/tools", token=sign(claims))
    assert (listing.status, listing.code) == (403, "scope_insufficient")
