from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.adapters.policy.bundle_store import load_bundle, save_bundle
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    load_bundle_dir,
)
from gateway.adapters.policy.policy_watch import PolicyWatcher
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.errors import ConfigurationError, PolicyError
from gateway.core.policy.decision import Decision, Deny, Permit
from tests.integration.policy.conftest import SHOP, make_bundle, question

if TYPE_CHECKING:
    from tests.integration.policy.conftest import Start

pytestmark = [pytest.mark.req("GW-11"), pytest.mark.usefixtures("real_seeds")]


def code(decision: Decision) -> str:
    return decision.reasons[0].code


async def outcomes(engine: RegorusPolicy, *documents: bytes) -> list[str]:
    """Ask everything at once; return reason codes and, for what failed, error codes."""
    found = await asyncio.gather(
        *(engine.decide("shop.act", "call", document) for document in documents),
        return_exceptions=True,
    )
    return [
        answer.code if isinstance(answer, PolicyError) else code(answer)  # type: ignore[arg-type]
        for answer in found
    ]


async def gone(pid: int) -> None:
    """Return once the process has been reaped."""
    while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - nothing tells a stranger
        await asyncio.sleep(0.01)


async def test_a_call_is_permitted_denied_or_neither(start: Start) -> None:
    engine = await start()
    assert isinstance(await engine.decide("shop.act", "call", question(amount=5)), Permit)
    assert code(await engine.decide("shop.act", "call", question(amount=500))) == "too_much"
    other = await engine.decide("bank.act", "call", question(server="bank", amount=5))
    assert code(other) == "no_policy_permits"


async def test_answers_go_to_those_who_asked(start: Start) -> None:
    engine = await start(workers=2)
    amounts = [5, 500] * 300
    found = await outcomes(engine, *(question(amount=amount) for amount in amounts))
    assert found == ["ok" if amount == 5 else "too_much" for amount in amounts]


async def test_large_inputs_pass(start: Start) -> None:
    engine = await start()
    documents = [question(amount=5, text="x" * 1_000_000), question(amount=5)] * 4
    assert await outcomes(engine, *documents) == ["ok"] * 8


async def test_many_are_decided_in_one_round(start: Start) -> None:
    engine = await start()
    items = [("shop.act", question("list")), ("bank.act", question("list", "bank"))]
    shown, hidden = await engine.decide_many(items, "list")
    assert isinstance(shown, Permit)
    assert isinstance(hidden, Deny)
    assert await engine.decide_many([], "list") == []


async def test_a_failing_evaluation_raises_without_telling_values(start: Start) -> None:
    engine = await start(make_bundle(SHOP + "\nsecret := abs(input.context.args.secret)\n"))
    with pytest.raises(PolicyError) as caught:
        await engine.decide("shop.act", "call", question(secret="hunter2"))
    assert caught.value.code == "policy_error"
    assert "policies/shop.rego:" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(PolicyError):
        await engine.decide_many(
            [("a", question()), ("b", question(secret="x")), ("c", b"{")], "list"
        )
    assert isinstance(await engine.decide("shop.act", "call", question()), Permit)


async def test_a_policy_that_takes_too_long_is_denied_and_the_rest_is_answered(
    start: Start,
) -> None:
    engine = await start(deadline_ms=300)
    before = engine.worker_pids
    bomb = question(amount=5, bomb=True)
    plain = question(amount=5)
    found = await outcomes(engine, plain, plain, bomb, plain, question(amount=500))
    assert found == ["ok", "ok", "policy_timeout", "ok", "too_much"]
    await gone(before[0])
    assert before[0] not in engine.worker_pids


@pytest.mark.req("POL-04")
async def test_many_bombs_in_one_queue_cost_nobody_else_a_decision(start: Start) -> None:
    engine = await start(deadline_ms=200)
    bomb, plain = question(amount=5, bomb=True), question(amount=5)
    found = await outcomes(engine, plain, *[bomb, plain] * 6)
    assert found == ["ok", *["policy_timeout", "ok"] * 6]
    assert await outcomes(engine, plain) == ["ok"]


async def test_a_killed_worker_is_replaced_and_what_it_never_began_is_answered(
    start: Start,
) -> None:
    engine = await start(deadline_ms=20_000)
    worker = engine.worker_pids[0]
    bomb = asyncio.create_task(engine.decide("shop.act", "call", question(bomb=True)))
    rest = asyncio.create_task(outcomes(engine, *[question(amount=5)] * 5))
    while cpu_ticks(worker) < 5:  # noqa: ASYNC110 - nothing tells that it has begun
        await asyncio.sleep(0.005)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(PolicyError) as caught:
        await bomb
    assert caught.value.code == "policy_worker_died"
    assert await rest == ["ok"] * 5
    await gone(worker)


def cpu_ticks(pid: int) -> int:
    """Return how much CPU a process has had, in 1/100 s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_every_worker_may_die_and_decisions_wait_for_the_next(start: Start) -> None:
    engine = await start()
    for pid in engine.worker_pids:
        os.kill(pid, signal.SIGKILL)
        await gone_or_zombie(engine, pid)
    assert await outcomes(engine, question(amount=5)) == ["ok"]
    assert not set(engine.worker_pids) & {0}


async def gone_or_zombie(engine: RegorusPolicy, pid: int) -> None:
    """Return once the engine knows that a worker is lost."""
    while pid in engine.worker_pids:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.005)


async def test_while_no_worker_can_be_started_decisions_fail_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start()
    python = sys.executable
    monkeypatch.setattr("sys.executable", "/bin/false")
    workers = engine.worker_pids
    for pid in engine.nursery_pids:
        os.kill(pid, signal.SIGKILL)
    for pid in workers:
        await gone_or_zombie(engine, pid)
    assert await outcomes(engine, question(amount=5)) == ["policy_unavailable"]
    assert await outcomes(engine, question(amount=5)) == ["policy_unavailable"]
    monkeypatch.setattr("sys.executable", python)
    while not engine.worker_pids:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.01)
    assert await outcomes(engine, question(amount=5)) == ["ok"]


ROOT = str(Path(__file__).resolve().parents[3])
LIAR = """
import socket, sys
from struct import pack
sys.path.insert(0, {root!r})
from gateway.adapters.regorus import regorus_process
def serve(connection, progress, evaluator):
    connection.recv(9)
    connection.sendall({reply})
    connection.recv(1 << 30, socket.MSG_WAITALL)
regorus_process.serve = serve
regorus_process.main()
"""


@pytest.mark.req("POL-04")
@pytest.mark.parametrize(
    "reply",
    [
        "pack('<IQB', 0, 9, 0)",
        "pack('<IQB', 0, 0, 0)",
        "pack('<IQB', 0, 1, 7)",
        "pack('<IQB', 1 << 31, 1, 0)",
        "b'nonsense that is no frame of any kind'",
    ],
)
async def test_a_worker_that_answers_what_nobody_asked_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(LIAR.format(reply=reply, root=ROOT))
    monkeypatch.setattr("gateway.adapters.regorus.regorus_process.__file__", str(liar))
    engine = RegorusPolicy(make_bundle())
    with pytest.raises(PolicyError, match=r"workers were lost|no policy worker is running"):
        await engine.start()


@pytest.mark.req("POL-04")
async def test_an_answer_that_is_none_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = tmp_path / "liar.py"
    reply = "pack('<IQB', 5, 1, 0) + b'hello'"
    liar.write_text(LIAR.format(reply=reply, root=ROOT))
    monkeypatch.setattr("gateway.adapters.regorus.regorus_process.__file__", str(liar))
    engine = RegorusPolicy(make_bundle())
    with pytest.raises(ConfigurationError, match="no usable answer"):
        await engine.start()


async def test_starting_can_be_cancelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mute = tmp_path / "mute.py"
    mute.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr("gateway.adapters.regorus.regorus_process.__file__", str(mute))
    engine = RegorusPolicy(make_bundle())
    task = asyncio.create_task(engine.start())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.worker_pids == []
    await engine.stop()


async def test_a_caller_that_goes_away_disturbs_nobody(start: Start) -> None:
    engine = await start()
    leaving = asyncio.create_task(engine.decide("shop.act", "call", question(amount=5)))
    staying = asyncio.create_task(engine.decide("shop.act", "call", question(amount=500)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert code(await staying) == "too_much"


async def test_workers_know_nothing_of_the_gateways_environment(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    engine = await start()
    for pid in engine.worker_pids:
        environment = Path(f"/proc/{pid}/environ").read_bytes()  # noqa: ASYNC240 - of the kernel
        assert b"SOME_SECRET" not in environment


async def test_no_worker_is_left_behind() -> None:
    engine = RegorusPolicy(make_bundle(), workers=2)
    await engine.start()
    pids = engine.worker_pids
    assert len(pids) == 3
    await engine.stop()
    for pid in pids:
        await gone(pid)
    await engine.stop()


async def test_an_engine_that_is_not_running_decides_nothing() -> None:
    engine = RegorusPolicy(make_bundle())
    assert engine.revision == make_bundle().revision
    assert engine.worker_pids == []
    with pytest.raises(PolicyError, match="not running"):
        await engine.decide("shop.act", "call", question())


async def test_stopping_fails_what_is_under_way(start: Start) -> None:
    engine = await start(deadline_ms=20_000)
    bomb = asyncio.create_task(engine.decide("shop.act", "call", question(bomb=True)))
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(PolicyError, match="was stopped"):
        await bomb


async def test_too_many_waiting_decisions_are_refused_as_retryable(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet.QUEUE_MAX", 10)
    engine = await start()
    found = await outcomes(engine, *[question(amount=5)] * 12)
    assert sorted(found) == ["ok"] * 10 + ["policy_overloaded"] * 2


async def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    engine = RegorusPolicy(make_bundle())
    with pytest.raises(PolicyError, match="cannot start a policy worker"):
        await engine.start()


async def test_a_worker_that_ends_at_once_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    engine = RegorusPolicy(make_bundle())
    with pytest.raises(PolicyError, match="could not load the bundle"):
        await engine.start()


# --- bundles ------------------------------------------------------------------------------------


async def test_a_new_bundle_takes_over_between_two_decisions(start: Start) -> None:
    engine = await start()
    old = engine.revision
    under_way = [
        asyncio.create_task(engine.decide("shop.act", "call", question(amount=200)))
        for _ in range(50)
    ]
    await asyncio.sleep(0)
    new = make_bundle(SHOP.replace("> 100", "> 300"))
    await engine.activate(new)
    assert engine.revision == new.revision
    assert isinstance(await engine.decide("shop.act", "call", question(amount=200)), Permit)
    assert {(code(answer), answer.revision) for answer in await asyncio.gather(*under_way)} == {
        ("too_much", old)
    }


async def test_the_old_bundle_stays_until_its_last_answer(start: Start) -> None:
    engine = await start(deadline_ms=1500)
    old = engine.worker_pids
    slow = asyncio.create_task(engine.decide("shop.act", "call", question(bomb=True)))
    await asyncio.sleep(0)
    await engine.activate(make_bundle(SHOP.replace("> 100", "> 300")))
    assert await outcomes(engine, question(amount=200)) == ["ok"]
    with pytest.raises(PolicyError) as caught:
        await slow
    assert caught.value.code == "policy_timeout"
    for pid in old:
        await gone(pid)


@pytest.mark.parametrize(
    ("source", "error_code", "text"),
    [
        ("package policies.shop\nx := y if z > 1\n", "policy_invalid", "shop.rego:2:6"),
        ("package policies.shop\nx if y\ny if x\n", "policy_invalid", "recursion"),
        (
            'package policies.shop\npermit contains {"code": "all"}\n',
            "policy_selftest_failed",
            "a tool that nobody reviewed",
        ),
        (
            'package policies.shop\npermit contains {"code": upper("no_code")}\n',
            "policy_invalid",
            "no usable answer in phase",
        ),
    ],
)
async def test_a_bundle_that_may_not_be_used_leaves_the_old_one(
    start: Start, source: str, error_code: str, text: str
) -> None:
    engine = await start()
    old = engine.revision
    data = {"authority": {"policies": {"shop": ["*"]}}}
    with pytest.raises(ConfigurationError) as caught:
        await engine.activate(build_bundle({"shop.rego": source}, data))
    assert caught.value.code == error_code
    assert text in str(caught.value)
    assert engine.revision == old
    assert await outcomes(engine, question(amount=5)) == ["ok"]


async def test_hot_reload_keeps_the_old_bundle_when_a_file_breaks(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "shop.rego"
    file.write_text(SHOP)
    (tmp_path / "authority.json").write_text('{"policies": {"shop": ["shop"]}}')
    engine = await start(load_bundle_dir(tmp_path))
    watcher = PolicyWatcher(tmp_path, engine.activate)
    file.write_text(SHOP + "\ndeny contains {")
    await watcher.check()
    assert "shop.rego:" in str(watcher.last_error)
    assert await outcomes(engine, question(amount=200)) == ["too_much"]
    file.write_text(SHOP.replace("> 100", "> 300"))
    await watcher.check()
    assert watcher.last_error is None
    assert await outcomes(engine, question(amount=200)) == ["ok"]


async def test_a_decision_is_recomputed_from_the_stored_bundle(
    start: Start, tmp_path: Path
) -> None:
    engine = await start()
    document = question(amount=500)
    decided = await engine.decide("shop.act", "call", document)
    save_bundle(tmp_path, make_bundle())
    await engine.activate(make_bundle(SHOP.replace("> 100", "> 900")))
    again = await start(load_bundle(tmp_path, decided.revision))
    assert await again.decide("shop.act", "call", document) == decided


async def test_the_default_pack_starts(start: Start) -> None:
    engine = await start(load_bundle_dir(default_pack()))
    assert not engine.concerns("shop.act", "result")
    assert engine.concerns("shop.act", "call")


# --- routes -------------------------------------------------------------------------------------

ANNOTATED = """# METADATA
# custom:
#   applies_to: {{{scope}}}
package policies.{name}

{rules}
"""
LIBRARY = """package policies.library

deny contains {"code": "library"} if input.resource.effect == "money"

limit := 10
"""


def annotated(name: str, scope: str, rules: str) -> str:
    return ANNOTATED.format(name=name, scope=scope, rules=rules)


def routed() -> Bundle:
    return make_bundle(
        SHOP,
        library="# METADATA\n# custom:\n#   applies_to: {effects: [money]}\n" + LIBRARY,
        reads=annotated(
            "reads",
            "tools: ['shop.get*'], phases: [call]",
            "import data.policies.library\n"
            'deny contains {"code": "over"} '
            "if abs(input.context.args.amount) > library.limit",
        ),
        results=annotated(
            "results",
            "servers: [bank], phases: [result]",
            'obligation contains {"type": "redact"} if input.phase == "result"',
        ),
        spent=annotated(
            "spent",
            "tools: [shop.pay]",
            'deny contains {"code": "spent"} if input.context.run.calls > 3',
        ),
    )


TOOLS = {
    "shop.get": ("shop", "read"),
    "shop.pay": ("shop", "money"),
    "shop.act": ("shop", "update"),
    "bank.act": ("bank", "update"),
}


async def test_routes_say_what_a_tool_needs(start: Start) -> None:
    engine = await start(
        make_bundle(
            SHOP.split("deny", maxsplit=1)[0],
            results=annotated(
                "results",
                "servers: [bank], phases: [result]",
                'obligation contains {"type": "redact"}',
            ),
            spent=annotated(
                "spent",
                "tools: [shop.pay], phases: [call]",
                'deny contains {"code": "spent"} if input.context.run.calls > 3',
            ),
        )
    )
    assert engine.concerns("shop.act", "result")  # unknown: it might be on the bank
    engine.set_tools(TOOLS)
    assert not engine.concerns("shop.act", "result")
    assert engine.concerns("bank.act", "result")
    assert engine.reads_ledger("shop.pay", "call")
    assert not engine.reads_ledger("shop.pay", "list")
    assert not engine.reads_ledger("shop.act", "call")
    assert engine.reads_ledger("never.told", "call")


async def test_a_subset_answers_as_everything_does(start: Start) -> None:
    everything = await start(routed())
    routes = await start(routed())
    routes.set_tools(TOOLS)
    items = [
        (tool, phase, build_question(tool, phase, amount, calls))
        for tool in TOOLS
        for phase in ("issue", "list", "call", "result", "resume")
        for amount in (5, 50, 500)
        for calls in (1, 9)
    ]
    for tool, phase, document in items:
        expected = await everything.decide(tool, phase, document)  # type: ignore[arg-type]
        assert await routes.decide(tool, phase, document) == expected  # type: ignore[arg-type]


def build_question(tool: str, phase: str, amount: int, calls: int) -> bytes:
    server, effect = TOOLS[tool]
    return orjson.dumps(
        {
            "version": 1,
            "phase": phase,
            "resource": {"id": tool, "server": server, "effect": effect},
            "context": {"args": {"amount": amount}, "run": {"calls": calls}},
        }
    )


async def test_tools_are_told_again_to_a_new_bundle_and_to_a_new_worker(start: Start) -> None:
    engine = await start(routed())
    engine.set_tools(TOOLS)
    await engine.activate(make_bundle())
    await engine.activate(routed())
    document = build_question("shop.get", "call", 50, 1)
    assert code(await engine.decide("shop.get", "call", document)) == "over"
    for pid in engine.worker_pids:
        os.kill(pid, signal.SIGKILL)
        await gone_or_zombie(engine, pid)
    assert code(await engine.decide("shop.get", "call", document)) == "over"


@pytest.mark.req("POL-13")
async def test_engines_come_and_go_and_answers_stay(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = await start(routed())
    monkeypatch.setattr("gateway.adapters.regorus.regorus_engines.ENGINES_MAX_BYTES", 1)
    engine = await start(routed())
    for _ in range(3):
        for tool in TOOLS:
            document = build_question(tool, "call", 50, 9)
            expected = await everything.decide(tool, "call", document)
            assert await engine.decide(tool, "call", document) == expected


@pytest.mark.req("POL-13")
async def test_a_catalog_that_is_wrong_changes_no_decision(start: Start) -> None:
    engine = await start(routed())
    document = build_question("shop.pay", "call", 5, 9)
    expected = await engine.decide("shop.pay", "call", document)
    assert code(expected) == "library"
    for told in (TOOLS, {"shop.pay": ("bank", "read")}, {}):
        engine.set_tools(told)
        assert await engine.decide("shop.pay", "call", document) == expected
        assert await engine.decide("another.id", "list", document) == expected
