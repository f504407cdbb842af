"""What every policy engine promises: in memory, in workers, on an OPA by push and by pull."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import (
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.core.policy.policy_answer import deny
from gateway.core.ports import PolicyEngine
from tests.integration.policy.conftest import question
from tests.integration.policy.opa_engines import pulling, pushing
from tests.opa_server import NO_OPA, OPA

no_opa = pytest.mark.skipif(OPA is None, reason=NO_OPA)
pytestmark = [pytest.mark.network, pytest.mark.req("POL-05", "GW-11")]

SHOP = """# METADATA
# custom:
#   applies_to: {servers: [shop], phases: [call, list]}
package policies.shop

permit contains {"code": "ok", "message": "shops are open"} if input.resource.server == "shop"

deny contains {"code": "too_much"} if abs(input.context.args.amount) > 100

hold contains {
	"code": "ask",
	"approval": {"stages": [{"any_of": [{"who": {"groups": ["finance"]}}]}], "ttl": "5m"},
} if {
	input.context.args.ask == true
}

obligation contains {"type": "annotate", "note": input.context.args.note} if input.context.args.note

obligation contains {"type": concat("", ["levi", "tate"])} if input.context.args.levitate
"""
WATCHING = """# METADATA
# custom:
#   applies_to: {phases: [result]}
package policies.watching

deny contains {"code": "leaks"} if input.context.result.leaks

deny contains {"code": "often"} if input.context.run.calls > 10
"""
FAILING = """package policies.failing

deny contains {"code": "odd"} if abs(input.context.args.text) == 1
"""


def make_bundle() -> Bundle:
    sources = {"shop.rego": SHOP, "watching.rego": WATCHING, "failing.rego": FAILING}
    return build_bundle(sources, {"authority": {"policies": {"shop": ["shop"]}}})


BUNDLE = make_bundle()


def answer(_tool: str, phase: str, document: dict[str, Any]) -> Decision | None:
    """The same policies, in Python."""
    args = document["context"].get("args", {})
    revision = BUNDLE.revision
    if "text" in args:
        raise PolicyError("the engine failed on this input", code="policy_error")
    if document["resource"]["server"] != "shop":
        return deny("no_policy_permits", revision)
    if phase == "result":
        leaks = document["context"].get("result", {}).get("leaks")
        denied = Deny((Reason("leaks", policy="watching"),), revision)
        return denied if leaks else Permit((), (), revision)
    if args.get("amount", 0) > 100:
        return Deny((Reason("too_much", policy="shop"),), revision)
    if args.get("ask"):
        spec = ApprovalSpec(stages=((Stage(groups=("finance",)),),), ttl_s=300)
        return Hold((Reason("ask", policy="shop"),), (), revision, spec)
    if args.get("levitate"):
        return deny("obligation_unknown", revision)
    note = {"type": "annotate", "note": args["note"]} if "note" in args else None
    obligations = () if note is None else (Obligation("annotate", note),)
    return Permit((Reason("ok", "shops are open", "shop"),), obligations, revision)


@asynccontextmanager
async def memory() -> AsyncIterator[PolicyEngine]:
    yield MemoryPolicy(answer, revision=BUNDLE.revision, concerns_result=True)


@asynccontextmanager
async def regorus() -> AsyncIterator[PolicyEngine]:
    engine = RegorusPolicy(BUNDLE, workers=1, deadline_ms=10_000)
    await engine.start()
    yield engine
    await engine.stop()


ENGINES: dict[str, Callable[[], AbstractAsyncContextManager[PolicyEngine]]] = {
    "memory": memory,
    "regorus": regorus,
    "opa-push": lambda: pushing(BUNDLE),
    "opa-pull": lambda: pulling(BUNDLE),
}


@pytest.fixture(
    params=[
        "memory",
        "regorus",
        pytest.param("opa-push", marks=no_opa),
        pytest.param("opa-pull", marks=no_opa),
    ]
)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PolicyEngine]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(ENGINES[request.param]())


async def ask(engine: PolicyEngine, phase: Phase = "call", **args: Any) -> Decision:  # noqa: ANN401 - JSON
    return await engine.decide("shop.act", phase, question(phase, **args))


async def test_a_decision_says_outcome_reasons_obligations_and_its_bundle(
    engine: PolicyEngine,
) -> None:
    assert engine.revision == BUNDLE.revision
    permitted = await ask(engine, amount=5, note="ü 1.50")
    assert permitted == Permit(
        (Reason("ok", "shops are open", "shop"),),
        (Obligation("annotate", {"type": "annotate", "note": "ü 1.50"}),),
        BUNDLE.revision,
    )
    assert await ask(engine, amount=500) == Deny(
        (Reason("too_much", policy="shop"),), BUNDLE.revision
    )
    held = await ask(engine, amount=5, ask=True)
    assert isinstance(held, Hold)
    assert held.approval == ApprovalSpec(stages=((Stage(groups=("finance",)),),), ttl_s=300)


async def test_what_nobody_permits_and_what_nobody_can_fulfil_is_denied(
    engine: PolicyEngine,
) -> None:
    elsewhere = await engine.decide("bank.act", "call", question(server="bank", amount=5))
    assert isinstance(elsewhere, Deny)
    assert elsewhere.reasons[0].code == "no_policy_permits"
    levitating = await ask(engine, amount=5, levitate=True)
    assert isinstance(levitating, Deny)
    assert levitating.reasons[0].code == "obligation_unknown"


async def test_an_input_on_which_the_engine_fails_is_a_policy_error(engine: PolicyEngine) -> None:
    with pytest.raises(PolicyError) as raised:
        await ask(engine, text="not a number")
    assert raised.value.code == "policy_error"
    assert "not a number" not in str(raised.value)
    assert isinstance(await ask(engine, amount=5), Permit)


async def test_many_are_answered_in_their_order(engine: PolicyEngine) -> None:
    amounts = [5, 500, 7, 700] * 30
    items = [("shop.act", question("list", amount=amount)) for amount in amounts]
    found = await engine.decide_many(items, "list")
    assert [isinstance(each, Deny) for each in found] == [amount > 100 for amount in amounts]
    assert await engine.decide_many([], "list") == []


async def test_many_at_once_get_their_own_answers(engine: PolicyEngine) -> None:
    amounts = [5, 500] * 100
    found = await asyncio.gather(*(ask(engine, amount=amount) for amount in amounts))
    assert [isinstance(each, Deny) for each in found] == [amount > 100 for amount in amounts]


async def test_one_of_many_that_fails_fails_them_all(engine: PolicyEngine) -> None:
    items = [("shop.act", question("list", **args)) for args in ({"amount": 5}, {"text": "x"})]
    with pytest.raises(PolicyError):
        await engine.decide_many(items, "list")


async def test_it_says_who_wants_to_see_results_and_what_was_spent(engine: PolicyEngine) -> None:
    assert engine.concerns("shop.act", "result")
    assert engine.reads_ledger("shop.act", "result")
    document = question("result").replace(b'"args":{}', b'"result":{"leaks":true}')
    assert isinstance(await engine.decide("shop.act", "result", document), Deny)
    assert isinstance(await ask(engine, "result"), Permit)
