"""Replay looks up what it decided before: never another answer than the engine's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.core.policy.asked import Asked, read_asked
from gateway.core.policy.decision import Decision, Deny, Permit
from tests.effort import share

pytestmark = pytest.mark.req("POL-08")

SCOPED: Final = """# METADATA
# custom:
#   applies_to:
#     tools: ["shop.*"]
#     phases: [call, resume]
package policies.scoped

permit contains {"code": "small"} if {
	is_number(input.context.args.amount)
	input.context.args.amount <= 100
}

deny contains {"code": "tired", "message": sprintf("%v", [input.context.run.calls])} if {
	is_number(input.context.run.calls)
	input.context.run.calls > 2
}
"""
WIDE: Final = """package policies.wide

permit contains {"code": "reading"} if input.resource.effect == "read"

hold contains {"code": "evening"} if {
	is_number(input.context.now_ns)
	input.context.now_ns > 5
	input.phase == "resume"
}

obligation contains {"type": "redact", "pointers": ["/a"]} if input.environment == "prod"

deny contains {"code": "named"} if input.context.args[_] == "evil"
"""
READER: Final = """package policies.reader

import data.policies.scoped

permit contains {"code": "also"} if {
	count(scoped.permit) > 0
	input.subject.id == "ann"
}
"""


def make(**sources: str) -> Bundle:
    named = {f"{name}.rego": text for name, text in sources.items()}
    owned = {name: ["shop", "*"][: 1 + (name == "wide")] for name in sources}
    return build_bundle(named, {"authority": {"policies": owned}})


BUNDLES: Final = {
    "scoped": make(scoped=SCOPED, reader=READER),
    "everything": make(scoped=SCOPED, wide=WIDE, reader=READER),
}

values = st.sampled_from([0, 100, 100.0, 101, None, "100", "evil", True, [1], {"a": 1}])
documents = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 2]),
        "phase": st.sampled_from(["call", "resume", "list", "result", "issue"]),
        "environment": st.sampled_from(["prod", "dev"]),
        "subject": st.fixed_dictionaries({"id": st.sampled_from(["ann", "bob"])}),
        "resource": st.one_of(
            st.fixed_dictionaries(
                {
                    "id": st.sampled_from(["shop.pay", "shop.see", "bank.pay"]),
                    "server": st.sampled_from(["shop", "bank"]),
                    "effect": st.sampled_from(["read", "money"]),
                }
            ),
            st.just({"id": "shop.pay", "server": "shop"}),
        ),
        "context": st.fixed_dictionaries(
            {
                "args": st.dictionaries(st.sampled_from(["amount", "other"]), values, max_size=2),
                "now_ns": st.integers(0, 10),
                "run": st.fixed_dictionaries({"calls": st.integers(0, 4)}),
            }
        ),
    }
)


class Pair:
    """The same bundle twice: one that remembers, one that evaluates every input."""

    def __init__(self, bundle: Bundle) -> None:
        self._runner = asyncio.Runner()
        self.remembering, self.plain = Candidate(bundle), Candidate(bundle, memo_max=0)
        for each in (self.remembering, self.plain):
            self._runner.run(each.start())

    def decide(self, asked: list[Asked]) -> tuple[list[Decision | str], list[Decision | str]]:
        found = [self._runner.run(each.decide(asked)) for each in (self.remembering, self.plain)]
        return found[0], found[1]

    def close(self) -> None:
        for each in (self.remembering, self.plain):
            self._runner.run(each.stop())
        self._runner.close()


@pytest.fixture(scope="module", params=sorted(BUNDLES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(BUNDLES[request.param])
    yield pair
    pair.close()


@settings(
    max_examples=share(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.lists(documents, min_size=1, max_size=40))
def test_what_is_remembered_is_what_would_be_evaluated(
    pair: Pair, asked: list[dict[str, Any]]
) -> None:
    questions = [read_asked(orjson.dumps(each)) for each in asked]
    remembered, evaluated = pair.decide([*questions, *questions])
    assert remembered == evaluated


def test_equal_inputs_are_evaluated_once(pair: Pair) -> None:
    document: dict[str, Any] = {
        "version": 1,
        "phase": "call",
        "environment": "dev",
        "subject": {"id": "eve"},
        "resource": {"id": "shop.once", "server": "shop", "effect": "money"},
        "context": {"args": {"amount": 7}, "now_ns": 1, "run": {"calls": 0, "id": "x"}},
    }
    before = pair.remembering.evaluated
    asked = []
    for number in range(100):  # a run's id is read by nobody
        document["context"]["run"]["id"] = f"run-{number}"
        asked.append(read_asked(orjson.dumps(document)))
    remembered, evaluated = pair.decide(asked)
    assert remembered == evaluated
    assert isinstance(remembered[0], Permit)
    assert pair.remembering.evaluated == before + 1
    assert pair.plain.evaluated >= 100


def test_what_all_packages_read_whole_is_evaluated_each_time() -> None:
    body = "{\n\tis_object(input)\n\tcount(input) > 3\n}"
    source = f'package policies.a\n\npermit contains {{"code": "ok"}} if {body}\n'
    pair = Pair(make(a=source))
    try:
        asked = [read_asked(b'{"version":1,"phase":"call","resource":{}}')] * 3
        remembered, evaluated = pair.decide(asked)
        assert remembered == evaluated
        assert pair.remembering.evaluated == 3
    finally:
        pair.close()


def test_a_tool_reviewed_anew_is_heard_by_what_its_input_says(pair: Pair) -> None:
    def ask(effect: str) -> Asked:
        resource = {"id": "shop.turned", "server": "shop", "effect": effect}
        context = {"args": {"amount": 200}, "now_ns": 1, "run": {"calls": 0}}
        return read_asked(
            orjson.dumps({"version": 1, "phase": "call", "resource": resource, "context": context})
        )

    for effect in ("money", "read", "money"):
        remembered, evaluated = pair.decide([ask(effect)])
        assert remembered == evaluated


async def test_workers_that_are_killed_change_no_answer() -> None:
    candidate = Candidate(BUNDLES["scoped"], workers=2, memo_max=0)
    await candidate.start()
    try:
        document = {"version": 1, "phase": "call", "resource": {"id": "shop.pay", "server": "shop"}}
        asked = [
            read_asked(orjson.dumps({**document, "context": {"args": {"amount": 50 + number}}}))
            for number in range(100)
        ]
        expected = await candidate.decide(asked)
        assert {type(each) for each in expected} == {Permit, Deny}
        deciding = asyncio.create_task(candidate.decide(asked * 4))
        await asyncio.sleep(0)
        for pid in candidate.engine.worker_pids[:1]:
            os.kill(pid, signal.SIGKILL)
        found = await deciding
        assert all(
            again == before or isinstance(again, str)
            for again, before in zip(found, expected * 4, strict=True)
        )
        assert [each for each in found if not isinstance(each, str)]
    finally:
        await candidate.stop()
