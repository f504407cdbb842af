"""Workers under policies and people that mean harm: who pays, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from msgspec import structs

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.regorus.regorus_policy import INPUT_MAX_BYTES, RegorusPolicy
from gateway.core.errors import ConfigurationError, PolicyError
from tests.integration.policy.conftest import SHOP, make_bundle, question

if TYPE_CHECKING:
    from tests.integration.policy.conftest import Start

pytestmark = [pytest.mark.req("POL-04"), pytest.mark.usefixtures("real_seeds")]
ROOT = Path(__file__).resolve().parents[3]
BYSTANDER = """# METADATA
# custom:
#   applies_to: {tools: ["shop.good"]}
package policies.shop

permit contains {"code": "ok"} if input.resource.server == "shop"
"""
HOSTILE = """# METADATA
# custom:
#   applies_to: {tools: ["shop.bad"]}
package policies.hostile

permit contains {"code": "hostile"} if input.resource.server == "shop"

n := input.context.args.n if is_number(input.context.args.n)

s := input.context.args.s if is_string(input.context.args.s)

deny contains {"code": "unclear"} if {
	input.context.args.n != 0
	not n
}

@RULES@
"""
PANICS, HARMLESS = "regex.template_match(", "time.add_date("
PATHOLOGICAL = {
    "a long range": (
        "deny contains {`code`: `x`} if { n > 0; count(numbers.range(1, 50000000)) > n }"
    ),
    "a range as long as the caller likes": (
        "deny contains {`code`: `x`} if count(numbers.range(1, n * 50000000)) > 3"
    ),
    "a loop in a loop": (
        "deny contains {`code`: `x`} if { n > 0; some a in numbers.range(1, 100000); "
        "some b in numbers.range(1, 100000); a * b == n - 2 }"
    ),
    "a panic": (
        "deny contains {`code`: `x`} if regex.template_match(concat(s, [`a{é}`, `b`]), `é`, `{`, "
        "`}`) == n"
    ),
    "a text that doubles": (
        "big := concat(s, [`xxxxxxxx` | some _ in numbers.range(1, 100000)])\n\n"
        "deny contains {`code`: concat(big, [big | some _ in numbers.range(1, n * 5000)])}"
    ),
    "a wide format": (
        "deny contains {`code`: `x`} if contains(sprintf(concat(s, [`%99999`, `9999d`]), [n]), `x`)"
    ),
    "too many reasons": (
        "deny contains {`code`: sprintf(`x%d`, [i])} if some i in numbers.range(n, 9000000)"
    ),
    "an answer that is too large": (
        "obligation contains {`type`: `annotate`, `text`: t} if { some t in numbers.range(n, 60000)"
        " }"
    ),
    "a regular expression that explodes": (
        "deny contains {`code`: `x`} if regex.match(sprintf(`(a{1,%d}){1,%d}`, [n * 900, 900]), s)"
    ),
    "a text that nests": (
        "deny contains {`code`: `x`} if { n > 0; json.unmarshal(concat(`[`, [s | some _ in "
        "numbers.range(1, n * 100000)])) == n }"
    ),
    "two values of one rule": (
        "own := 1 if n == 1\n\nown := 2 if s == ``\n\ndeny contains {`code`: `x`} if own == 3"
    ),
    "a type that does not fit": "deny contains {`code`: `x`} if to_number(s) == n",
}
REFUSED = {"policy_timeout", "policy_worker_died", "policy_error", "policy_overloaded"}


def ask(tool: str, **args: Any) -> bytes:  # noqa: ANN401 - JSON
    resource = {"id": f"shop.{tool}", "server": "shop", "effect": "update"}
    context = {"args": args}
    return orjson.dumps({"version": 1, "phase": "call", "resource": resource, "context": context})


async def tell(engine: RegorusPolicy, document: bytes) -> str:
    """Return the first reason of a decision, or the code of the error."""
    try:
        return (await engine.decide("any", "call", document)).reasons[0].code
    except PolicyError as error:
        return error.code


def hostile(rules: str) -> Bundle:
    written = HOSTILE.replace("@RULES@", rules)
    # No function that is known to panic passes the gate, so one is put in behind it.
    sources = {"shop.rego": BYSTANDER, "hostile.rego": written.replace(PANICS, HARMLESS)}
    owned = {"policies": {"shop": ["shop"], "hostile": ["shop"]}}
    bundle = build_bundle(sources, {"authority": owned})
    files = dict(bundle.files) | {"policies/hostile.rego": written.encode()}
    return structs.replace(bundle, files=tuple(sorted(files.items())))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("rule", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
async def test_a_pathological_policy_denies_its_own_call_alone(
    start: Start, rule: str, workers: int
) -> None:
    engine = await start(hostile(rule.replace("`", '"')), workers=workers, deadline_ms=50)
    bad, good = ask("bad", n=1, s=""), ask("good")
    found = await asyncio.gather(*(tell(engine, each) for each in [good, good, bad, good] * 4))
    for place, what in enumerate(found):
        if place % 4 == 2:
            assert what in REFUSED, what
        else:
            assert what == "ok"
    assert await tell(engine, good) == "ok"


async def test_a_panic_breaks_nothing_for_those_who_come_after(start: Start) -> None:
    rule = 'deny contains {"code": "x"} if regex.template_match(s, "é", "{", "}") == n'
    engine = await start(hostile(rule), deadline_ms=2_000)
    honest = ask("bad", n=9, s="b")
    before = await tell(engine, honest)
    assert before not in REFUSED
    for _ in range(3):
        assert await tell(engine, ask("bad", n=9, s="a{é}b")) in REFUSED
        assert await tell(engine, honest) == before


async def test_who_eats_memory_dies_of_it_and_no_other(start: Start) -> None:
    rule = PATHOLOGICAL["a long range"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=20_000)
    found = await asyncio.gather(
        *(tell(engine, each) for each in (ask("bad", n=1), ask("good"), ask("good")))
    )
    assert found == ["policy_worker_died", "ok", "ok"]


async def test_what_was_slow_once_has_a_worker_of_its_own(start: Start) -> None:
    rule = PATHOLOGICAL["a loop in a loop"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=60)
    assert await tell(engine, ask("bad", n=1)) == "policy_timeout"
    assert await tell(engine, ask("good")) == "ok"
    await full(engine, 2)
    before = engine.worker_pids
    assert [await tell(engine, ask("bad", n=1)) for _ in range(3)] == ["policy_timeout"] * 3
    assert await tell(engine, ask("good")) == "ok"
    assert engine.worker_pids == before


async def full(engine: RegorusPolicy, workers: int) -> None:
    """Return once so many workers are ready."""
    while len(engine.worker_pids) < workers:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.005)


async def test_suspects_that_behave_are_acquitted(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet.SUSPECT_S", 0.05)
    rule = PATHOLOGICAL["a loop in a loop"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=60)
    assert await tell(engine, ask("bad", n=1)) == "policy_timeout"
    while (found := await tell(engine, ask("bad"))) != "hostile":
        assert found == "policy_overloaded"
    await asyncio.sleep(0.2)  # the time that suspicion lasts, and some
    assert await tell(engine, ask("bad")) == "hostile"


def ask_of(agent: str, tool: str, **args: Any) -> bytes:  # noqa: ANN401 - JSON
    return orjson.dumps(orjson.loads(ask(tool, **args)) | {"subject": {"id": agent}})


async def test_who_has_policy_run_wild_again_and_again_is_refused_unasked(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = PATHOLOGICAL["a loop in a loop"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=300)
    wild = ask_of("mallory", "bad", n=1)
    found = [await tell(engine, wild) for _ in range(6)]
    assert found == ["policy_timeout"] * 3 + ["policy_suspended"] * 3
    # 1. Whatever it asks of these packages is refused, and nothing that others ask.
    assert await tell(engine, ask_of("mallory", "bad")) == "policy_suspended"
    assert await tell(engine, ask_of("mallory", "good")) == "ok"
    assert await tell(engine, ask_of("alice", "bad")) == "hostile"
    assert await tell(engine, ask_of("alice", "bad", n=1)) == "policy_timeout"
    assert await tell(engine, ask_of("alice", "bad")) == "hostile"
    # 2. Refusing costs no worker anything.
    await full(engine, 2)
    before = engine.worker_pids
    assert {await tell(engine, wild) for _ in range(50)} == {"policy_suspended"}
    assert engine.worker_pids == before
    # 3. Later it gets one more try, in the lane, and not three.
    monkeypatch.setattr("gateway.adapters.regorus.regorus_breaker.SUSPENDED_S", 0.0)
    assert await tell(engine, ask_of("mallory", "bad")) == "hostile"
    assert await tell(engine, wild) == "policy_timeout"
    monkeypatch.setattr("gateway.adapters.regorus.regorus_breaker.SUSPENDED_S", 10.0)
    assert await tell(engine, wild) == "policy_suspended"
    assert engine.worker_pids == before


async def test_wild_calls_by_many_cost_little_of_a_core_each(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = PATHOLOGICAL["a loop in a loop"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=300_000)  # longer than any test
    first = asyncio.create_task(tell(engine, ask_of("a", "bad", n=1)))
    await full(engine, 2)
    while not engine.suspects:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.005)
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet.WILD_MAX", 0)
    for agent in "bcdefg":
        found = [ask_of(agent, "bad", n=1), ask_of("good", "bad"), ask_of("good", "good")]
        answers = await asyncio.gather(*(tell(engine, each) for each in found))
        assert answers == ["policy_timeout", "hostile", "ok"]
    assert not first.done()
    first.cancel()


async def test_too_many_suspects_are_refused_as_retryable(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet.LANE_QUEUE_MAX", 3)
    rule = PATHOLOGICAL["a loop in a loop"].replace("`", '"')
    engine = await start(hostile(rule), deadline_ms=60)
    assert await tell(engine, ask("bad", n=1)) == "policy_timeout"
    for _ in range(2):  # while its lane opens, and once it is open
        found = await asyncio.gather(*(tell(engine, ask("bad")) for _ in range(9)))
        assert sorted(found) == ["hostile"] * 3 + ["policy_overloaded"] * 6
    assert await tell(engine, ask("good")) == "ok"


async def test_a_worker_that_hangs_is_replaced_and_its_calls_are_answered(start: Start) -> None:
    engine = await start(make_bundle(), deadline_ms=100)
    hung = engine.worker_pids[0]
    os.kill(hung, signal.SIGSTOP)
    found = await asyncio.gather(*(tell(engine, question(amount=5)) for _ in range(20)))
    assert found == ["ok"] * 20
    assert hung not in engine.worker_pids
    await gone([hung])


async def gone(pids: list[int]) -> None:
    """Return once none of these processes is there, not even as a zombie."""
    while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("which", [0, 1], ids=["seed", "template"])
async def test_the_processes_that_workers_come_from_may_die_too(start: Start, which: int) -> None:
    engine = await start(workers=2)
    old = engine.worker_pids + engine.nursery_pids
    os.kill(engine.nursery_pids[which], signal.SIGKILL)
    while set(engine.worker_pids) & set(old):  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.005)
    assert await tell(engine, question(amount=5)) == "ok"
    await full(engine, 3)
    await engine.activate(make_bundle(SHOP.replace("> 100", "> 1")))
    assert await tell(engine, question(amount=5)) == "too_much"


async def test_workers_that_end_at_once_are_not_started_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet._RESTART_DELAYS_S", (0.0, 60.0))
    # One that is killed while it builds an engine makes that a suspect, which has a lane.
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet.SUSPECT_S", 0.0)
    engine = await start()
    seen: set[int] = set()
    quiet = 0
    while quiet < 100:
        quiet += 1
        for pid in set(engine.worker_pids) - seen:
            os.kill(pid, signal.SIGKILL)
            seen.add(pid)
            quiet = 0
        await asyncio.sleep(0.005)
    assert 4 <= len(seen) <= 8
    assert await tell(engine, question(amount=5)) == "policy_unavailable"


GATEWAY = """
import asyncio, os, sys
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from tests.integration.policy.conftest import make_bundle, question

async def main():
    engine = RegorusPolicy(make_bundle(), workers=2, deadline_ms=60_000)
    await engine.start()
    for _ in range(3):
        asyncio.create_task(engine.decide("shop.act", "call", question(bomb=True)))
    await asyncio.sleep(0.1)
    print(*engine.worker_pids, *engine.nursery_pids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_nothing_is_left_of_a_gateway_that_is_killed() -> None:
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert gateway.stdout is not None
    pids = [int(pid) for pid in (await gateway.stdout.readline()).split()]
    assert len(pids) >= 4
    gateway.kill()
    await gateway.wait()
    await gone(pids)


async def test_stopping_leaves_no_process() -> None:
    engine = RegorusPolicy(make_bundle(), workers=2, deadline_ms=20_000)
    await engine.start()
    bombs = [asyncio.create_task(tell(engine, question(bomb=True))) for _ in range(3)]
    await asyncio.sleep(0.1)  # one is left alone by now, one has a lane
    pids = engine.worker_pids + engine.nursery_pids
    await engine.stop()
    assert set(await asyncio.gather(*bombs)) == {"policy_unavailable"}
    await gone(pids)
    assert engine.nursery_pids == []


async def test_stopping_right_after_a_reload_leaves_nothing_of_the_old_bundle() -> None:
    engine = RegorusPolicy(make_bundle(), deadline_ms=20_000)
    await engine.start()
    pids = engine.worker_pids + engine.nursery_pids
    bomb = asyncio.create_task(tell(engine, question(bomb=True)))
    await asyncio.sleep(0)
    await engine.activate(make_bundle(SHOP.replace("> 100", "> 1")))
    await engine.stop()
    async with asyncio.timeout(5):
        assert await bomb == "policy_unavailable"
        await gone(pids)


# --- bad input ----------------------------------------------------------------------------------


async def test_an_input_that_is_too_large_never_reaches_the_engine(start: Start) -> None:
    engine = await start()
    with pytest.raises(PolicyError, match="the input has") as caught:
        await engine.decide("any", "call", question(text="x" * 10_000_000))
    assert caught.value.code == "policy_error"
    assert await tell(engine, question(amount=5, text="x" * (INPUT_MAX_BYTES - 1000))) == "ok"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"version":1,"phase":"call","resource":{"id":1,"server":[],"effect":{}}}',
        b'{"version":1,"phase":["call"],"resource":null}',
        b'{"version":true,"phase":"call","resource":{"id":"shop.act","server":"shop"}}',
        b'{"version":1,"phase":"call","resource":{"id":"shop.act","server":"shop"}}}',
    ],
)
async def test_what_is_no_input_is_not_permitted(start: Start, document: bytes) -> None:
    engine = await start()
    assert await tell(engine, document) in {"policy_error", "input_unknown", "no_policy_permits"}
    assert await tell(engine, question(amount=5)) == "ok"


async def test_ten_megabytes_of_data_load_and_cost_a_worker_no_copy(start: Start) -> None:
    data = {"grants": {f"agent-{n}": {"pad": "x" * 1000, "n": n} for n in range(10_000)}}
    source = SHOP + '\ndeny contains {"code": "known"} if data.grants["agent-77"].n == 77\n'
    authority = {"policies": {"shop": ["shop"]}}
    engine = await start(build_bundle({"shop.rego": source}, {"authority": authority, **data}))
    assert await tell(engine, question(amount=5)) == "known"
    for pid in engine.worker_pids:
        assert own_bytes(pid) < 40 << 20


def own_bytes(pid: int) -> int:
    """Return what a process has of its own: pages that it shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    found = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(found) << 10


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("x := 1\n\nx := 2", "conflict"),
        ('deny contains {"code": "a"} if nobody.knows(input)', "nobody"),
        ("f(x) := f(x - 1)", "recurs"),
    ],
)
async def test_a_bundle_that_cannot_be_evaluated_leaves_the_old_one(
    start: Start, rule: str, text: str
) -> None:
    engine = await start()
    pids, revision = engine.worker_pids, engine.revision
    with pytest.raises(ConfigurationError, match=f"(?i){text}") as caught:
        await engine.activate(make_bundle(f"{SHOP}\n{rule}\n"))
    assert "shop.rego:" in str(caught.value)
    assert (engine.worker_pids, engine.revision) == (pids, revision)
    assert await tell(engine, question(amount=5)) == "ok"


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_under_kills_every_call_is_decided_or_refused_and_none_permitted_wrongly(
    start: Start, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_fleet._RESTART_DELAYS_S", (0.0, 0.02))
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    engine = await start(workers=2, deadline_ms=500)
    asking = True

    async def kill() -> None:
        while asking:
            pids = engine.worker_pids + engine.nursery_pids * (rng.random() < 0.1)
            how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
            if pids:
                os.kill(rng.choice(pids), how)
            await asyncio.sleep(rng.uniform(0.005, 0.06))

    killer = asyncio.create_task(kill())
    found: list[tuple[int, str]] = []
    for _ in range(25):
        amounts = [rng.choice([5, 500]) for _ in range(rng.randrange(1, 40))]
        answers = await asyncio.gather(
            *(tell(engine, question(amount=amount)) for amount in amounts)
        )
        found += zip(amounts, answers, strict=True)
        await asyncio.sleep(rng.uniform(0, 0.02))
    asking = False
    await killer
    right = {5: "ok", 500: "too_much"}
    for amount, answer in found:
        assert answer in {right[amount], "policy_unavailable", *REFUSED}
    while await tell(engine, question(amount=5)) != "ok":  # noqa: ASYNC110 - it comes back
        await asyncio.sleep(0.01)


async def test_reloads_under_load_fail_no_call(start: Start) -> None:
    bundles = [make_bundle(SHOP.replace("> 100", f"> {limit}")) for limit in (100, 200)]
    engine = await start(bundles[0], workers=2, deadline_ms=2_000)
    asking = True
    found: dict[str, int] = {}

    async def ask_on() -> None:
        while asking:
            answer = await tell(engine, question(amount=150))
            found[answer] = found.get(answer, 0) + 1

    askers = [asyncio.create_task(ask_on()) for _ in range(4)]
    for turn in range(12):
        await engine.activate(bundles[(turn + 1) % 2])
    asking = False
    await asyncio.gather(*askers)
    assert found.keys() == {"ok", "too_much"}
    json.dumps(found)
