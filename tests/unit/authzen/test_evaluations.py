"""What would become of a call: decided as calls are, charged to nobody, on record."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import (
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    duties_digest,
)
from gateway.core.records.replay import Question, compare_evaluation
from gateway.core.tokens.token import Budget, Constraint, Grant
from gateway.protocol.authzen import EVALUATIONS_MAX
from tests.unit.authzen.asking import (
    EVALUATIONS,
    REFUND,
    Desk,
    about,
    basic,
    bearer,
    own_token,
)
from tests.unit.authzen.spec_payloads import BOXED, SINGLE
from tests.unit.path.world import DENY, HOLD, PERMIT, REVISION, build_claims, build_run

pytestmark = pytest.mark.req("POL-10")

OBLIGED = Permit(
    (Reason("fine"),),
    (
        Obligation("redact", {"type": "redact", "pointers": ["/iban"]}),
        Obligation("annotate", {"type": "annotate", "note": "words for the log"}),
    ),
    REVISION,
)


async def test_what_policy_permits_is_true() -> None:
    answer = await Desk().decide()
    assert answer["decision"] is True
    assert answer["context"].keys() == {"op"}


async def test_what_policy_holds_is_false_and_says_that_people_would_be_asked() -> None:
    desk = Desk({"billing.refund": HOLD})
    answer = await desk.decide()
    assert answer["decision"] is False
    assert answer["context"]["approval_required"] is True
    assert answer["context"]["code"] == "needs_a_human"
    assert await desk.durable.approvals.find() == []


async def test_what_policy_denies_is_false_in_fixed_words() -> None:
    reply = await Desk(lambda _tool, phase, _doc: PERMIT if phase == "list" else DENY).ask()
    context = reply.json()["context"]
    assert reply.json()["decision"] is False
    assert (context["code"], context["reason"]) == (
        "forbidden_here",
        "policy does not allow this call",
    )
    assert b"a detail for the log" not in reply.body
    assert b"house" not in reply.body


@pytest.mark.parametrize("who", [basic(), own_token(), bearer("aud"), bearer("pia")])
async def test_nobody_but_operators_reads_the_words_of_policies(who: str) -> None:
    desk = Desk(lambda _tool, phase, _doc: PERMIT if phase == "list" else DENY)
    assert b"a detail for the log" not in (await desk.ask(who=who)).body
    told = (await desk.ask(who=bearer("opal"))).json()["context"]["reasons"]
    assert told == [
        {"code": "forbidden_here", "message": "a detail for the log", "policy": "house"}
    ]


async def test_no_answer_from_policy_is_false() -> None:
    def down(_tool: str, _phase: Phase, _document: dict[str, Any]) -> Decision:
        raise PolicyError("gone", code="policy_timeout")

    answer = await Desk(down).decide()
    assert (answer["decision"], answer["context"]["code"]) == (False, "policy_timeout")


async def test_an_error_that_nobody_foresaw_is_false_and_on_record() -> None:
    def broken(_tool: str, _phase: Phase, _document: dict[str, Any]) -> Decision:
        raise ZeroDivisionError("canary")

    desk = Desk(broken)
    reply = await desk.ask()
    assert (reply.json()["decision"], reply.json()["context"]["code"]) == (False, "internal_error")
    assert b"canary" not in reply.body
    assert desk.only_record()["evaluations"][0]["code"] == "internal_error"


async def test_policy_is_asked_the_very_input_of_the_call() -> None:
    desk = Desk()
    claims = build_claims()
    await desk.decide(about(context={"args": {"amount": 1}}), who=own_token(claims))
    await desk.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    question, call = [doc for _, phase, doc in desk.policy.asked if phase == "call"]
    assert question == call


async def test_for_a_launcher_policy_is_asked_as_of_a_token_that_the_run_would_get() -> None:
    desk = Desk()
    claims = build_claims(
        client_id="lars", on_behalf_of=None, expires_at=1_800_000_300, root_jti="run-1"
    )
    await desk.decide()
    await desk.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    question, call = [doc for _, phase, doc in desk.policy.asked if phase == "call"]
    assert question == call


async def test_nothing_is_charged_held_or_sent() -> None:
    desk = Desk()
    await desk.launch()
    before = orjson.dumps(desk.ledger.snapshot(), default=str)
    for _ in range(3):
        await desk.decide()
    after = {
        key: row
        for key, row in desk.ledger.snapshot().items()
        if row.get("calls") or row.get("hours")
    }
    assert (before, after) == (b"{}", {})
    assert desk.sent == []
    assert {record["type"] for record in desk.records()} == {"policy.evaluate"}


async def test_what_is_spent_counts_and_asking_spends_nothing() -> None:
    desk = Desk()
    grants = (Grant("billing", max_calls=1),)
    claims = build_claims(grants=grants, root_jti="run-1")
    await desk.durable.runs.create_run(build_run(claims))
    for _ in range(3):
        assert (await desk.decide())["decision"] is True
    await desk.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    answer = await desk.decide()
    assert (answer["decision"], answer["context"]["code"]) == (False, "calls_exhausted")


async def test_a_budget_that_does_not_reach_is_false() -> None:
    desk = Desk()
    budget = Budget(sums={"billing.refund#/amount": 10})
    await desk.durable.runs.create_run(build_run(build_claims(), budget=budget))
    assert (await desk.decide(about(context={"run": "run-1", "args": {"amount": 10}})))["decision"]
    answer = await desk.decide(about(context={"run": "run-1", "args": {"amount": 11}}))
    assert answer["context"]["code"] == "budget_exhausted"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [({}, "arguments_invalid"), ({"amount": 1, "more": 2}, "arguments_invalid")],
)
async def test_arguments_that_do_not_fit_are_false(arguments: dict[str, Any], code: str) -> None:
    answer = await Desk().decide(about(context={"run": "run-1", "args": arguments}))
    assert (answer["decision"], answer["context"]["code"]) == (False, code)


async def test_a_constraint_of_the_grant_binds() -> None:
    desk = Desk()
    grants = (Grant("billing", "refund", (), {"/amount": Constraint(max=5)}),)
    await desk.durable.runs.create_run(build_run(build_claims(grants=grants)))
    answer = await desk.decide(about(context={"run": "run-1", "args": {"amount": 6}}))
    assert answer["context"]["code"] == "constraint_broken"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": {"type": "agent", "id": "somebody"}}, "subject_unknown"),
        ({"subject": {"type": "user", "id": "refund-bot"}}, "subject_unknown"),
        ({"action": {"name": "read"}}, "action_unknown"),
        ({"resource": {"type": "tool", "id": "billing.nothing"}}, "tool_unknown"),
        ({"resource": {"type": "tool", "id": "nothing"}}, "tool_unknown"),
        ({"resource": {"type": "tool", "id": "."}}, "tool_unknown"),
        ({"resource": {"type": "record", "id": "billing.refund"}}, "tool_unknown"),
        ({"context": {}}, "run_unknown"),
        ({"context": {"run": "no-such-run"}}, "run_unknown"),
    ],
)
async def test_what_is_no_question_about_a_call_is_false(change: dict[str, Any], code: str) -> None:
    desk = Desk()
    answer = await desk.decide(about(**change))
    assert (answer["decision"], answer["context"]["code"]) == (False, code)
    assert not [phase for _, phase, _ in desk.policy.asked if phase == "call"]


@pytest.mark.parametrize("name", SINGLE)
async def test_payloads_of_others_are_answered(name: str) -> None:
    assert (await Desk().decide(SINGLE[name]))["decision"] is False


async def test_tools_are_named_by_id_or_as_callers_name_them() -> None:
    desk = Desk()
    for name in ("billing.refund", "billing__refund"):
        answer = await desk.decide(about(resource={"type": "tool", "id": name}))
        assert answer["decision"] is True


async def test_obligations_are_told_but_for_words_for_the_log() -> None:
    desk = Desk({"billing.refund": OBLIGED})
    told = (await desk.decide())["context"]["obligations"]
    assert told == [{"id": "1", "type": "redact", "properties": {"pointers": ["/iban"]}}]
    own = (await desk.decide(who=own_token()))["context"]["obligations"]
    assert own == [{"id": "1", "type": "redact", "properties": {}}]


async def test_a_hidden_tool_answers_as_one_that_is_not_there() -> None:
    desk = Desk(lambda *_: DENY)
    hidden = await desk.decide(who=own_token())
    missing = await desk.decide(about(resource={"type": "tool", "id": "mail.no"}), who=own_token())
    for answer in (hidden, missing):
        answer["context"].pop("op")
    assert hidden == missing
    codes = [record["evaluations"][0]["code"] for record in desk.records("policy.evaluate")]
    assert codes == ["forbidden_here", "tool_unknown"]  # the log has what it was
    shown = await desk.decide(who=bearer("aud"))
    assert shown["context"]["code"] == "forbidden_here"


async def test_a_hidden_tool_with_wrong_arguments_is_hidden_too() -> None:
    desk = Desk(lambda *_: DENY)
    body = about(context={"args": {"no": 1}})
    assert (await desk.decide(body, who=own_token()))["context"]["code"] == "tool_unknown"


async def test_a_stopped_run_and_a_stopped_tool_are_false() -> None:
    desk = Desk()
    desk.revoked.add("run-1")
    assert (await desk.decide())["context"]["code"] == "token_revoked"
    desk.revoked.clear()
    desk.stopped.add("billing.refund")
    answer = await desk.decide()
    assert (answer["decision"], answer["context"]["code"]) == (False, "tool_killed")
    assert desk.records("policy.evaluate")[-1]["evaluations"][0]["code"] == "tool_killed"


# Boxes


def box(*amounts: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    items = [{"context": {"run": "run-1", "args": {"amount": amount}}} for amount in amounts]
    return {**REFUND, "evaluations": items, **more}


def by_amount(_tool: str, phase: Phase, document: dict[str, Any]) -> Decision:
    is_small = phase == "list" or document["context"]["args"]["amount"] < 10
    return PERMIT if is_small else DENY


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        (None, [True, False, True]),
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_boxes_end_as_their_semantic_says_and_are_one_record(
    semantic: str | None, decisions: list[bool]
) -> None:
    desk = Desk(by_amount)
    options = {} if semantic is None else {"options": {"evaluations_semantic": semantic}}
    reply = await desk.ask(box(1, 99, 2, **options), path=EVALUATIONS)
    assert [one["decision"] for one in reply.json()["evaluations"]] == decisions
    record = desk.only_record()
    assert [one["outcome"] for one in record["evaluations"]] == [
        "permit" if each else "deny" for each in decisions
    ]
    assert set(record["inputs"]) == {f"q{at}" for at in range(len(decisions))}


async def test_a_box_of_one_is_answered_as_a_box() -> None:
    reply = await Desk().ask(box(1), path=EVALUATIONS)
    assert [one["decision"] for one in reply.json()["evaluations"]] == [True]


async def test_without_a_box_the_answer_is_a_decision() -> None:
    reply = await Desk().ask(REFUND, path=EVALUATIONS)
    assert reply.json()["decision"] is True


@pytest.mark.parametrize("name", BOXED)
async def test_boxes_of_others_are_answered_in_their_order(name: str) -> None:
    body, expected = BOXED[name]
    reply = await Desk().ask(body, path=EVALUATIONS)
    told = [one["decision"] for one in reply.json()["evaluations"]]
    assert told == [False] * len(expected)


async def test_one_question_that_fails_does_not_take_the_others_with_it() -> None:
    desk = Desk()
    body = box(1, 2)
    body["evaluations"].insert(1, {"resource": {"type": "tool", "id": "no.tool"}})
    reply = await desk.ask(body, path=EVALUATIONS)
    assert [one["decision"] for one in reply.json()["evaluations"]] == [True, False, True]


# The log


async def test_the_record_names_the_launcher_and_keeps_what_was_asked_in_openings() -> None:
    desk = Desk()
    body = about(context={"run": "run-1", "args": {"amount": 1, "order": "canary"}})
    op = (await desk.decide(body))["context"]["op"]
    record = desk.only_record()
    assert (record["type"], record["op"], record["client"]) == ("policy.evaluate", op, "lars")
    assert record["policy"] == {"rev": REVISION}
    assert (record["agent"], record["run"]) == ("refund-bot", "run-1")
    assert record["evaluations"] == [{"outcome": "permit", "tool": "billing.refund"}]
    assert b"canary" not in orjson.dumps(record)
    opened = desk.durable.audit.read_opening(record["seq"], "inputs.q0")
    assert opened is not None
    assert orjson.loads(opened)["context"]["args"]["order"] == "canary"


async def test_in_a_record_about_several_runs_each_question_names_its_own() -> None:
    desk = Desk()
    await desk.durable.runs.create_run(build_run(build_claims(run_id="run-2")))
    body = {**REFUND, "evaluations": [{}, {"context": {"run": "run-2", "args": {"amount": 1}}}]}
    await desk.ask(body, path=EVALUATIONS)
    record = desk.only_record()
    assert [one["run"] for one in record["evaluations"]] == ["run-1", "run-2"]
    assert "run" not in record


async def test_the_record_says_by_digest_what_must_be_done() -> None:
    desk = Desk({"billing.refund": OBLIGED})
    await desk.decide()
    [told] = desk.only_record()["evaluations"]
    assert told["obligations_digest"] == duties_digest(OBLIGED.obligations)
    assert b"iban" not in orjson.dumps(desk.only_record())
    assert compare_evaluation(told, Question("call"), OBLIGED).kind == "agreed"
    other = Permit(OBLIGED.reasons, (Obligation("redact", {"pointers": ["/bic"]}),), REVISION)
    assert compare_evaluation(told, Question("call"), other).what.startswith("obligations digest")


async def test_what_could_not_be_done_is_on_record_with_the_denial() -> None:
    limit = Obligation("limit", {"type": "limit", "max_calls": 1})
    limited = Permit((Reason("fine"),), (limit,), REVISION)
    desk = Desk({"billing.refund": limited})
    claims = build_claims(root_jti="run-1")
    await desk.durable.runs.create_run(build_run(claims))
    await desk.call_rest("billing__refund", b'{"arguments":{"amount":1}}', claims=claims)
    assert (await desk.decide())["context"]["code"] == "limit_exhausted"
    [told] = desk.records("policy.evaluate")[-1]["evaluations"]
    assert told["obligations_digest"] == duties_digest((limit,))
    assert compare_evaluation(told, Question("call"), limited).kind == "gateway"
    other = Permit(limited.reasons, (), REVISION)
    assert compare_evaluation(told, Question("call"), other).kind == "differs"


@pytest.mark.parametrize(
    "answer",
    [
        Deny((Reason("c" * 64, "m" * 256, "p" * 64),) * 32, REVISION),
        Hold(
            (Reason("c" * 64, "m" * 256, "p" * 64),) * 32,
            (Obligation("redact", {"type": "redact", "pointers": ["/iban"]}),) * 32,
            REVISION,
            HOLD.approval,
        ),
    ],
)
async def test_the_largest_box_fits_into_one_record(answer: Decision) -> None:
    desk = Desk(lambda _tool, phase, _doc: PERMIT if phase == "list" else answer)
    items = []
    for number in range(EVALUATIONS_MAX):
        run = f"{number:032x}"
        await desk.durable.runs.create_run(build_run(build_claims(run_id=run)))
        items.append({"context": {"run": run, "args": {"amount": 1, "order": "x" * 1_000}}})
    reply = await desk.ask({**REFUND, "evaluations": items}, path=EVALUATIONS)
    assert len(reply.json()["evaluations"]) == EVALUATIONS_MAX


async def test_the_record_of_an_agents_question_names_the_agent() -> None:
    desk = Desk()
    await desk.decide(who=own_token())
    actor = desk.only_record()["actor"]
    assert (actor["agent"], actor["run"], actor["jti"]) == ("refund-bot", "run-1", "jti-1")


async def test_a_person_stands_in_an_opening_only() -> None:
    desk = Desk()
    await desk.decide(who=bearer("aud"))
    record = desk.only_record()
    assert b'"aud"' not in orjson.dumps(record)
    assert desk.durable.audit.read_opening(record["seq"], "by") == b"aud"


async def test_a_question_about_nothing_is_kept_as_it_came() -> None:
    desk = Desk()
    await desk.decide(about(resource={"type": "tool", "id": "canary.tool"}))
    record = desk.only_record()
    assert b"canary" not in orjson.dumps(record)
    opened = desk.durable.audit.read_opening(record["seq"], "asked.q0")
    assert opened is not None
    assert orjson.loads(opened)["resource"] == "canary.tool"


async def test_nothing_is_told_that_cannot_be_recorded() -> None:
    log = MemoryAuditLog()
    desk = Desk(audit=log)
    await desk.launch()
    log.poison()
    reply = await desk.ask()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert b"decision" not in reply.body


# Runs


async def test_a_run_that_is_over_or_cut_gets_no_answer() -> None:
    desk = Desk()
    await desk.durable.runs.create_run(
        build_run(build_claims(run_id="wide"), grants=(Grant("payroll"),))
    )
    wide = await desk.decide(about(context={"run": "wide", "args": {"amount": 1}}))
    assert wide["context"]["code"] == "run_unknown"
    await desk.launch()
    await desk.durable.runs.end_run("run-1", "done")
    assert (await desk.decide())["context"]["code"] == "run_unknown"


async def test_an_agent_that_is_gone_has_no_runs_to_ask_about() -> None:
    desk = Desk()
    desk.registry.drop("refund-bot")
    assert (await desk.decide())["context"]["code"] == "run_unknown"


async def test_an_agents_own_token_is_asked_about_in_its_own_run_only() -> None:
    desk = Desk()
    own = await desk.decide(about(context={"args": {"amount": 1}}), who=own_token())
    assert own["decision"] is True
    other = about(context={"run": "another", "args": {"amount": 1}})
    assert (await desk.decide(other, who=own_token()))["context"]["code"] == "run_unknown"


async def test_a_deny_without_reasons_has_a_code() -> None:
    desk = Desk(lambda _tool, phase, _doc: PERMIT if phase == "list" else Deny((), REVISION))
    assert (await desk.decide())["context"]["code"] == "no_policy_permits"
    bare = Desk({"billing.refund": replace(HOLD, reasons=())})
    assert (await bare.decide())["context"]["code"] == "approval_needed"
