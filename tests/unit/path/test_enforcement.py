"""The enforcement point: what is asked, charged, sent, filtered and written down, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.core.calls.answer import Completed, Refused
from gateway.core.calls.call import (
    Intent,
    Outcome,
    RecordedIntent,
    RecordedOutcome,
    UpstreamResult,
)
from gateway.core.catalog import Tool
from gateway.core.errors import AuditError, PolicyError, UpstreamError
from gateway.core.kills.kill import FEED_STALE
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Deny, Obligation, Permit, Phase
from gateway.core.tokens.token import Claims, Constraint, Grant
from tests.effort import share
from tests.unit.path.world import DENY, HOLD, PERMIT, REVISION, World, build_claims


def permit(*obligations: dict[str, Any]) -> Permit:
    return Permit((), tuple(Obligation(spec["type"], spec) for spec in obligations), REVISION)


def result(**body: object) -> UpstreamResult:
    return UpstreamResult(result=orjson.dumps(body))


@pytest.mark.req("GW-05", "GW-13")
async def test_the_intent_is_durable_before_the_tool_is_reached_and_the_outcome_before_the_reply(
    world: World,
) -> None:
    seen: list[list[str]] = []

    def handler(_arguments: dict[str, Any], _relay: object) -> str:
        seen.append([record["type"] for record in world.records()])
        return "done"

    world.handle("billing", "refund", handler)
    answer = await world.enforcement.call(world.raw(arguments=b'{ "amount" : 5.50 }'))
    assert seen == [["call.intent"]]
    assert isinstance(answer, Completed)
    intent, outcome = world.records()
    assert (answer.recorded.seq, answer.recorded.outcome.intent.seq) == (
        outcome["seq"],
        intent["seq"],
    )
    assert world.sent == [("billing.refund", b'{ "amount" : 5.50 }')]  # byte for byte
    assert intent["tool"]["id"] == "billing.refund"
    assert intent["charge"]["sums"] == {"billing.refund#/amount": "5.5"}
    assert intent["decision"] == {"outcome": "permit", "reasons": ["fine"]}
    assert (outcome["status"], outcome["delivery"]) == ("ok", "sent")
    log = world.durable.audit
    assert log.read_opening(intent["seq"], "args") == b'{ "amount" : 5.50 }'
    document = orjson.loads(log.read_opening(intent["seq"], "policy.input") or b"")
    assert document == world.policy.asked[0][2]


@pytest.mark.req("GW-11")
async def test_a_denial_tells_its_code_and_keeps_its_message_for_the_log() -> None:
    world = World({("billing.refund", "call"): DENY, ("billing.refund", "list"): PERMIT})
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":5}}')
    assert (reply.status, reply.code) == (403, "forbidden_here")
    assert b"a detail" not in reply.body
    record = world.only_record()
    assert record["decision"] == {"outcome": "deny", "reasons": ["house:forbidden_here"]}
    assert record["tool"]["id"] == "billing.refund"
    assert world.sent == []


async def test_a_denial_without_reasons_has_a_code_all_the_same() -> None:
    deny = Deny((), REVISION)
    world = World({("billing.refund", "call"): deny, ("billing.refund", "list"): PERMIT})
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":5}}')
    assert reply.code == "no_policy_permits"


@pytest.mark.req("GW-06", "GW-08")
@pytest.mark.parametrize(
    "arguments", [b'{"amount":5}', b'{"amount":"x"}', b"{}", b'{"amount":5000}', b'{"amount":-1}']
)
async def test_a_hidden_tool_answers_exactly_as_one_that_does_not_exist(arguments: bytes) -> None:
    world = World({"billing.refund": DENY, ("billing.refund", "call"): PERMIT})
    limit = {"/amount": Constraint(max=100)}
    claims = build_claims(grants=(Grant("billing", "refund", constraints=limit),))
    if arguments == b'{"amount":5}':
        world = World({"billing.refund": DENY})
    hidden = await world.call_mcp("billing__refund", arguments, claims=claims)
    absent = await world.call_mcp("billing__nothing", arguments, claims=claims)
    assert hidden.told == absent.told
    first, second = world.records()
    assert first["type"] == second["type"] == "call.refused"
    assert first["reason"] != "tool_unknown"  # the log says why
    assert world.sent == []


async def test_a_listing_that_is_known_already_is_not_asked_for_again(world: World) -> None:
    world = World({("billing.refund", "call"): DENY, ("billing.refund", "list"): PERMIT})
    await world.enforcement.list_tools(world.raw())
    asked = len(world.policy.asked)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":5}}')
    assert reply.code == "forbidden_here"
    assert [phase for _, phase, _ in world.policy.asked[asked:]] == ["call"]


@pytest.mark.req("GW-08")
async def test_a_listing_shows_what_is_granted_and_not_hidden_with_one_record(world: World) -> None:
    world = World({"billing.lookup": PERMIT, "mail.send": HOLD, "billing.refund": DENY})
    shown = await world.enforcement.list_tools(world.raw())
    assert not isinstance(shown, Refused)
    assert [tool.id for tool in shown] == ["billing.lookup", "mail.send"]
    again = await world.enforcement.list_tools(world.raw())
    assert again == shown
    record = world.only_record()
    assert (record["type"], record["shown"]) == ("tools.list", 2)
    mail = await world.enforcement.list_tools(world.raw(server="mail"))
    assert not isinstance(mail, Refused)
    assert [tool.id for tool in mail] == ["mail.send"]
    narrow = build_claims(jti="jti-2", grants=(Grant("billing", "lookup"),))
    (only,) = await world.enforcement.list_tools(world.raw(claims=narrow))  # type: ignore[misc]
    assert only.id == "billing.lookup"


@pytest.mark.req("GW-13")
@pytest.mark.parametrize("fault", ["policy", "audit"])
async def test_a_listing_fails_closed(world: World, fault: str) -> None:
    if fault == "policy":
        world = World({})
        assert await world.enforcement.list_tools(world.raw()) == ()

        def gone(*_: object) -> Decision:
            raise PolicyError("gone")

        world = World(gone)
        refused = await world.enforcement.list_tools(world.raw())
        assert isinstance(refused, Refused)
        assert refused.refusal.code == world.only_record()["reason"] == "policy_unavailable"
    else:
        world.durable.audit.poison()
        refused = await world.enforcement.list_tools(world.raw())
        assert isinstance(refused, Refused)
        assert refused.refusal.code == "audit_unavailable"


async def test_what_a_caller_may_see_is_kept_in_bounds(world: World) -> None:
    world = World(limits=type(world.limits)(shown_cache_max=2))
    for number in range(4):
        await world.enforcement.list_tools(world.raw(claims=build_claims(jti=f"jti-{number}")))
    assert len(world.judge._shown) <= 2  # noqa: SLF001 - memory has no other witness


@pytest.mark.req("GW-11")
async def test_result_obligations_are_met_or_the_result_is_withheld() -> None:
    redact = {"type": "redact", "pointers": ["/iban"]}
    world = World(lambda *_: permit(redact))
    secret = {"structuredContent": {"iban": "DE89", "n": 1}, "content": []}
    world.handle("billing", "lookup", lambda *_: result(**secret))
    reply = await world.call_rest("billing__lookup", b"{}")
    assert reply.json()["result"]["structuredContent"] == {"iban": "[redacted]", "n": 1}
    assert world.records("call.outcome")[0]["obligations"] == ["redact"]
    world.handle("billing", "lookup", lambda *_: UpstreamResult(result=b"[]"))
    reply = await world.call_rest("billing__lookup", b"{}")
    assert (reply.status, reply.code) == (403, "result_withheld")
    assert world.records("call.outcome")[1]["status"] == "withheld"


def watching(decision: Decision | None) -> Callable[..., Decision | None]:
    def answer(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision | None:
        return decision if phase == "result" else PERMIT

    return answer


@pytest.mark.req("GW-11")
@pytest.mark.parametrize("decision", [DENY, HOLD, None])
async def test_policy_may_withhold_a_result(decision: Decision | None) -> None:
    world = World(watching(decision), concerns_result=True)
    reply = await world.call_rest("billing__lookup", b"{}")
    assert (reply.code, reply.status) == ("result_withheld", 403)
    assert b"found" not in reply.body
    assert world.records("call.outcome")[0]["status"] == "withheld"
    assert len(world.sent) == 1


async def test_a_watched_result_that_policy_could_not_read_in_time_is_withheld_unread() -> None:
    world = World(
        watching(PERMIT), concerns_result=True, limits=Limits(watched_result_max_bytes=200)
    )
    world.handle("billing", "lookup", lambda *_: "x" * 500)
    reply = await world.call_rest("billing__lookup", b"{}")
    assert (reply.code, reply.status) == ("result_withheld", 403)
    assert [phase for _, phase, _ in world.policy.asked] == ["call"]
    assert world.records("call.outcome")[0]["status"] == "withheld"


async def test_a_long_name_of_no_tool_is_not_kept_whole(world: World) -> None:
    await world.call_rest("x" * 5_000, b"{}")
    assert world.only_record()["asked"]["bytes"] == world.limits.tool_name_max_chars


async def test_policy_sees_what_the_agent_would_see() -> None:
    world = World(watching(PERMIT), concerns_result=True)
    body = result(
        structuredContent={"a": 1}, content=[{"type": "text", "text": "hi"}, {"type": "image"}, 5]
    )
    world.handle("billing", "lookup", lambda *_: body)
    await world.call_rest("billing__lookup", b"{}")
    seen = world.policy.asked[-1][2]["context"]["result"]
    assert seen["structured"] == {"a": 1}
    assert (seen["text"], seen["is_error"]) == (["hi"], False)
    world.handle("billing", "lookup", lambda *_: UpstreamResult(error=b'{"code":1}', is_error=True))
    await world.call_rest("billing__lookup", b"{}")
    assert world.policy.asked[-1][2]["context"]["result"]["is_error"] is True


FILE = {"uri": "file:///a.txt", "mimeType": "text/plain", "text": "the key is 4711"}


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        (result(content=[{"type": "resource", "resource": FILE}]), [*FILE.values()]),
        (
            result(content=[{"type": "resource_link", "uri": "file:///a", "description": "key"}]),
            ["file:///a", "key"],
        ),
        (
            result(
                content=[
                    {"type": "image", "data": "iVBO", "mimeType": "image/png"},
                    {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAEC"}},
                ]
            ),
            ["image/png", "file:///b"],
        ),
        (
            UpstreamResult(
                error=b'{"code":-32000,"message":"no 4711","data":{"why":["denied"]}}',
                is_error=True,
            ),
            ["no 4711", "denied"],
        ),
    ],
)
async def test_policy_sees_every_text_that_an_answer_holds(
    answer: UpstreamResult, texts: list[str]
) -> None:
    world = World(watching(PERMIT), concerns_result=True)
    world.handle("billing", "lookup", lambda *_: answer)
    await world.call_rest("billing__lookup", b"{}")
    assert world.policy.asked[-1][2]["context"]["result"]["text"] == texts


@pytest.mark.parametrize(
    "raw",
    [
        b'{"structuredContent":{"ok":true,"ok":false}}',
        b'{"content":[],"content":[{"type":"text","text":"x"}]}',
        b'{"structuredContent":{"n":NaN}}',
        b"not json",
    ],
)
async def test_a_watched_result_that_two_parsers_read_differently_is_withheld(raw: bytes) -> None:
    world = World(watching(PERMIT), concerns_result=True)
    world.handle("billing", "lookup", lambda *_: UpstreamResult(result=raw))
    reply = await world.call_rest("billing__lookup", b"{}")
    assert reply.code == "result_withheld"


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    ("answers", "watched", "relayed"),
    [
        (lambda *_: PERMIT, False, True),
        (lambda *_: permit({"type": "annotate"}), False, False),
        (lambda *_: PERMIT, True, False),
    ],
)
async def test_nothing_streams_past_a_filter(
    answers: Callable[..., Decision],
    watched: bool,  # noqa: FBT001 - a parameter
    relayed: bool,  # noqa: FBT001 - a parameter
) -> None:
    world = World(answers, concerns_result=watched)
    got: list[object] = []

    def handler(_arguments: dict[str, Any], relay: object) -> str:
        got.append(relay)
        return "ok"

    world.handle("billing", "lookup", handler)
    await world.enforcement.call(world.raw("billing__lookup", b"{}"), lambda _message: None)
    assert (got[0] is not None) == relayed


# --- charges


@pytest.mark.req("GW-10")
async def test_policy_sees_what_the_family_has_spent() -> None:
    world = World()
    for amount in (100, 0.5):
        await world.call_rest(
            "billing__refund", b'{"arguments":{"amount":%b}}' % str(amount).encode()
        )
    other = build_claims(jti="jti-2", run_id="run-1")  # another token of the same family
    await world.call_rest("billing__lookup", b"{}", claims=other)
    run = world.policy.asked[-1][2]["context"]["run"]
    assert run["calls"] == 2
    assert run["counts"] == {"billing.refund": 2}
    assert run["sums"] == {"billing.refund#/amount": 100.5}
    assert (run["labels"], run["recent"]) == (["pii"], ["billing.refund"] * 2)


def at_most(limit: float) -> Callable[[str, Phase, dict[str, Any]], Decision]:
    def answer(_tool: str, phase: Phase, document: dict[str, Any]) -> Decision:
        if phase != "call":
            return PERMIT
        context = document["context"]
        spent = context["family"]["sums"].get("billing.refund#/amount", 0)
        return PERMIT if spent + context["args"].get("amount", 0) <= limit else DENY

    return answer


class PausingPolicy(MemoryPolicy):
    """Lets others run before it answers, a different number of times for each question."""

    def __init__(self, answers: Any, pauses: list[int], *, reads_ledger: bool) -> None:  # noqa: ANN401
        super().__init__(answers, reads_ledger=reads_ledger)
        self._pauses = pauses

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        for _ in range(self._pauses[len(self.asked) % len(self._pauses)]):
            await asyncio.sleep(0)
        return await super().decide(tool_id, phase, document)


class PausingAudit(MemoryAuditLog):
    """A log that takes its time."""

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        await asyncio.sleep(0)
        return await super().record_intent(intent)

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        await asyncio.sleep(0)
        return await super().record_outcome(outcome)


PAUSES = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@pytest.mark.req("GW-10")
@settings(max_examples=share(30))
@given(PAUSES, st.integers(0, 4), st.booleans())
def test_max_calls_holds_under_any_interleaving(
    pauses: list[int],
    max_calls: int,
    reads: bool,  # noqa: FBT001 - drawn
) -> None:
    async def scenario() -> None:
        world = World(policy=PausingPolicy(lambda *_: PERMIT, pauses, reads_ledger=reads))
        claims = build_claims(grants=(Grant("billing", "refund", max_calls=max_calls),))
        calls = [world.raw(claims=claims) for _ in range(8)]
        answers = await asyncio.gather(*(world.enforcement.call(call) for call in calls))
        assert len(world.sent) == max_calls
        refused = [a.refusal.code for a in answers if isinstance(a, Refused)]
        assert refused == ["calls_exhausted"] * (8 - max_calls)

    asyncio.run(scenario())


@pytest.mark.req("GW-10")
@settings(max_examples=share(30))
@given(PAUSES, st.lists(st.integers(1, 60), min_size=2, max_size=8))
def test_a_sum_that_policy_limits_is_never_passed_by_calls_at_the_same_time(
    pauses: list[int], amounts: list[int]
) -> None:
    async def scenario() -> None:
        policy = PausingPolicy(at_most(100), pauses, reads_ledger=True)
        world = World(policy=policy, audit=PausingAudit())
        calls = [world.raw(arguments=b'{"amount":%d}' % amount) for amount in amounts]
        await asyncio.gather(*(world.enforcement.call(call) for call in calls))
        spent = sum(orjson.loads(raw)["amount"] for _, raw in world.sent)
        assert spent <= 100
        assert (
            world.ledger.family("root-1").view()["sums"].get("billing.refund#/amount", 0) == spent
        )
        rejected = [amount for amount in amounts if amount > 100 - spent]
        assert len(world.sent) + len(rejected) >= len(amounts)  # nobody was denied needlessly

    asyncio.run(scenario())


async def test_families_do_not_wait_for_each_other() -> None:
    gate = asyncio.Event()

    class Gated(MemoryPolicy):
        async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
            if b'"id":"run-1"' in document:
                await gate.wait()
            return await super().decide(tool_id, phase, document)

    world = World(policy=Gated(lambda *_: PERMIT))
    slow = asyncio.create_task(world.enforcement.call(world.raw()))
    other = build_claims(jti="jti-2", run_id="run-2", root_jti="root-2")
    answer = await world.enforcement.call(world.raw(claims=other))
    assert isinstance(answer, Completed)
    gate.set()
    assert isinstance(await slow, Completed)


@pytest.mark.req("GW-10")
async def test_a_replay_of_the_log_reproduces_the_live_ledger(world: World) -> None:
    await world.call_rest("billing__refund", b'{"arguments":{"amount":7}}')
    await world.durable.transports["billing"].close()
    await world.call_rest("billing__refund", b'{"arguments":{"amount":9}}')
    await world.call_rest("billing__refund", b'{"arguments":{"amount":"x"}}')
    await world.call_rest("mail__send", b"{}")
    again = await world.restart()
    assert again.ledger.snapshot() == world.ledger.snapshot()
    assert again.ledger.family("root-1").view()["sums"] == {"billing.refund#/amount": 7}


# --- revocation, disconnects, failures of the log


@pytest.mark.req("GW-10")
async def test_a_run_that_is_ended_while_the_intent_is_written_is_not_sent() -> None:
    class Ending(MemoryAuditLog):
        async def record_intent(self, intent: Intent) -> RecordedIntent:
            world.revoked.add("run-1")
            return await super().record_intent(intent)

    log = Ending()
    world = World(audit=log)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert reply.code == "token_revoked"
    assert world.sent == []
    outcome = log.records[-1]
    assert (outcome["type"], outcome["delivery"]) == ("call.outcome", "not_sent")
    assert world.ledger.family("root-1").calls == 0


@pytest.mark.req("GW-06")
async def test_whatever_fails_once_the_intent_is_there_leaves_an_outcome() -> None:
    class Failing(World):
        def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
            if self.records("call.intent"):
                raise OSError("nobody foresaw this")
            return super().barred(claims, tool)

    world = Failing()
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.code, world.sent) == ("internal_error", [])
    outcome = world.records()[-1]
    assert (outcome["type"], outcome["delivery"]) == ("call.outcome", "unknown")


@pytest.mark.req("GW-06", "GW-10")
@pytest.mark.parametrize("again", [(), ("root-1",)])
async def test_a_call_whose_run_was_forgotten_while_it_waited_leaves_its_outcome(
    world: World, again: tuple[str, ...]
) -> None:
    def handler(_arguments: dict[str, Any], _relay: object) -> str:
        world.clock.pass_s(2 * 86_400)  # a machine that slept
        world.ledger.forget(["root-1"])
        world.ledger.take_changes()
        for family in again:
            world.ledger.family(family)
        raise UpstreamError("down", delivery="not_sent")

    world.handle("billing", "refund", handler)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.code, reply.json()["delivery"]) == ("upstream_unavailable", "not_sent")
    assert [record["type"] for record in world.records()] == ["call.intent", "call.outcome"]
    assert world.ledger.take_changes().keys() <= {"root-1", "day:refund-bot refund-bot"}


@pytest.mark.req("GW-06", "GW-11")
async def test_a_result_of_which_policy_says_more_than_a_record_holds_is_withheld() -> None:
    labels = [f"label{number:03}" + "x" * 56 for number in range(250)]
    added = [{"type": "add_label", "labels": labels[at : at + 16]} for at in range(0, 250, 16)]
    world = World(watching(permit(*added)), concerns_result=True)
    reply = await world.call_rest("billing__lookup", b"{}")
    assert (reply.code, reply.json()["delivery"]) == ("result_withheld", "sent")
    outcome = world.records()[-1]
    assert (outcome["type"], outcome["status"], outcome["delivery"]) == (
        "call.outcome",
        "withheld",
        "sent",
    )
    assert len(world.sent) == 1


@pytest.mark.req("GW-06", "GW-10")
async def test_a_caller_that_goes_away_while_it_is_asked_what_is_stopped_has_spent_nothing() -> (
    None
):
    asked = asyncio.Event()

    class Doubtful(World):
        def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
            return super().barred(claims) if tool is None else FEED_STALE

    async def look() -> None:
        asked.set()
        await asyncio.Future()

    world = Doubtful(look=look)
    caller = asyncio.create_task(world.enforcement.call(world.raw()))
    await asked.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert (world.sent, world.ledger.family("root-1").calls) == ([], 0)


@pytest.mark.req("GW-06")
@pytest.mark.parametrize("steps", range(12))
async def test_a_caller_that_is_cut_off_at_any_moment_leaves_no_intent_without_an_outcome(
    steps: int,
) -> None:
    log = PausingAudit()
    policy = PausingPolicy(lambda *_: PERMIT, [1], reads_ledger=True)
    world = World(policy=policy, audit=log)

    async def handler(_arguments: dict[str, Any], _relay: object) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    world.handle("billing", "refund", handler)
    caller = asyncio.create_task(world.enforcement.call(world.raw()))
    for _ in range(steps):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await world.enforcement.close()
    kinds = [record["type"] for record in log.records[2:]]
    assert kinds in ([], ["call.intent", "call.outcome"])
    if kinds:
        assert (log.records[-1]["status"], log.records[-1]["delivery"]) == ("ok", "sent")


async def test_a_call_that_a_dying_gateway_cuts_off_is_unknown(world: World) -> None:
    started = asyncio.Event()

    async def handler(_arguments: dict[str, Any], _relay: object) -> str:
        started.set()
        return await asyncio.Future()

    world.handle("billing", "refund", handler)
    caller = asyncio.create_task(world.enforcement.call(world.raw()))
    await started.wait()
    (work,) = world.enforcement.unbroken._running  # noqa: SLF001 - what ends a loop ends this
    work.cancel()
    answer = await caller
    assert isinstance(answer, Completed)
    outcome = world.records("call.outcome")[0]
    assert (outcome["status"], outcome["delivery"]) == ("failed", "unknown")


class FailingAudit(MemoryAuditLog):
    """Fails at one method, once."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def _fail(self, name: str) -> None:
        if name == self._at:
            raise AuditError("as asked")

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        self._fail("intent")
        return await super().record_intent(intent)

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        self._fail("outcome")
        return await super().record_outcome(outcome)


@pytest.mark.req("GW-13")
async def test_without_a_durable_intent_nothing_is_sent() -> None:
    world = World(audit=FailingAudit("intent"))
    answer = await world.enforcement.call(world.raw())
    assert isinstance(answer, Refused)
    assert (answer.refusal.stage, answer.refusal.code) == ("record", "audit_unavailable")
    assert (world.sent, world.ledger.family("root-1").calls) == ([], 0)


@pytest.mark.req("GW-13")
async def test_without_a_durable_outcome_no_reply_leaves() -> None:
    log = FailingAudit("outcome")
    world = World(audit=log)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.status, reply.code) == (503, "outcome_unrecorded")
    assert b"refunded" not in reply.body
    assert len(world.sent) == 1
    assert log.records[-1]["type"] == "call.intent"  # open, for people to reconcile
    assert world.ledger.family("root-1").calls == 1


@pytest.mark.req("GW-12")
async def test_a_call_that_cannot_be_held_is_refused_with_a_record() -> None:
    world = World(lambda *_: HOLD)
    claims = build_claims(run_id="no-such-run")
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    assert (reply.status, reply.code) == (503, "approval_unavailable")
    record = world.only_record()
    assert (record["stage"], record["tool"]["id"]) == ("hold", "billing.refund")


async def test_a_tool_whose_transport_is_missing_is_not_called(world: World) -> None:
    del world.durable.transports["mail"]
    reply = await world.call_rest("mail__send", b"{}")
    assert reply.code == "internal_error"
    assert world.records("call.outcome")[0]["status"] == "failed"


@pytest.mark.req("GW-13")
@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (UpstreamResult(result=b'{"content":[]}'), b'{"content":[]}'),
        (UpstreamResult(error=b'{"code":-1}', is_error=True), b'{"code":-1}'),
    ],
)
async def test_the_outcome_keeps_what_the_tool_answered_and_how_long_it_took(
    answer: UpstreamResult, kept: bytes
) -> None:
    world = World()

    def handler(_arguments: dict[str, Any], _relay: object) -> UpstreamResult:
        world.clock.pass_s(1.5)
        return answer

    world.handle("billing", "refund", handler)
    await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    (outcome,) = world.records("call.outcome")
    assert world.durable.audit.read_opening(outcome["seq"], "result") == kept
    assert outcome["latency_us"] == 1_500_000
