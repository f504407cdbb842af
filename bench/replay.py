"""Replay and shadow evaluation: what putting recorded traffic to other policies costs (POL-08).

The log is one of a company whose agents refund: 200 agents, a dozen amounts, each run and time its
own. Rates are decisions for each second of CPU, of this process and the workers together, so they
hold for one core. Without the memo every input is evaluated.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from bench.audit import ORIGIN
from bench.decisions import build_document
from bench.policies import agent_name, write_policies
from bench.processes import MeasurementError, find_family, read_usage
from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import find_records
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.audit.replay_impact import PolicyReplay
from gateway.adapters.audit.replay_inputs import Decisions, Inputs
from gateway.adapters.authoring.replay_memo import MEMO_MAX, Candidate
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.adapters.policy.policy_bundle import load_bundle_dir
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.adapters.system import SystemClock
from gateway.core.entry import Entry, Opening
from gateway.core.errors import PolicyError
from gateway.core.limits import Limits
from gateway.core.log.audit_filter import Filter, Selection
from gateway.core.policy.asked import read_asked
from gateway.core.policy.decision import Permit
from gateway.core.records.call_records import build_decision
from gateway.shadow import ShadowEvaluator

_AGENTS: Final = 200
_AMOUNTS: Final = (100, 250, 500, 999, 1_250, 1_900, 2_500, 4_999, 9_900, 19_900, 25_000, 30_000)
_TOOL: Final = "bench.refund"
_WRITERS: Final = 128
_KEK: Final = bytes(32)
_DEADLINE_MS: Final = 2_000
_CALLERS: Final = 8
_TRIES: Final = 5


class ReplayPlan(Struct, frozen=True):
    """How many decisions to record and put again; how many to take with and without a shadow."""

    decisions: int
    live: int


def measure_replay(folder: Path, plan: ReplayPlan) -> dict[str, float | int]:
    """Return the figures under flat keys. `folder` is made."""
    folder.mkdir(parents=True)
    write_policies(folder / "policies", _AGENTS)
    asyncio.run(_write(folder, plan.decisions))
    remembered, distinct = _replay(folder, plan.decisions, MEMO_MAX)
    evaluated, _ = _replay(folder, plan.decisions, 0)
    ratio, observe_ns = _time_live(folder, plan.live)
    return {
        "replay_decisions": plan.decisions,
        "replay_per_s_core": round(remembered),
        "replay_distinct": distinct,
        "replay_evaluated_per_s_core": round(evaluated),
        "shadow_observe_ns": round(observe_ns),
        "shadow_slowdown": round(ratio, 3),
    }


def _documents(count: int) -> list[bytes]:
    random = Random(1)  # noqa: S311 - the same traffic every time
    documents = []
    for number in range(count):
        found: dict[str, Any] = orjson.loads(build_document(agent_name(random.randrange(_AGENTS))))
        context = found["context"]
        context["args"]["amount_cents"] = random.choice(_AMOUNTS)
        context["now_ns"] += number * 1_000_000
        context["run"] |= {"id": f"run-{number // 5}", "calls": number % 5}
        documents.append(orjson.dumps(found))
    return documents


async def _write(folder: Path, count: int) -> None:
    """Write a log of decisions as they are made."""
    bundle = load_bundle_dir(folder / "policies")
    engine = Candidate(bundle)
    log = FileAuditLog.open(
        folder / "audit",
        origin=ORIGIN,
        signer=Ed25519PrivateKey.generate(),
        kek=_KEK,
        clock=SystemClock(),
        limits=Limits(audit_wait_ms=20_000),  # a stall is measured, not refused
        deployment={},
    )
    await log.start()
    await engine.start()
    documents = _documents(count)
    for start in range(0, count, _WRITERS):
        part = documents[start : start + _WRITERS]
        from_policy = await engine.decide([read_asked(each) for each in part])
        entries = []
        for number, (document, decision) in enumerate(zip(part, from_policy, strict=True), start):
            if isinstance(decision, str):
                raise MeasurementError(f"policy gave no answer: {decision}")
            fields = {
                "decision": build_decision(decision),
                "policy": {"rev": bundle.revision},
                "tool": {"id": _TOOL, "server": "bench", "effect": "money"},
            }
            kind = "call.intent" if isinstance(decision, Permit) else "call.refused"
            openings = (Opening("policy.input", document, f"owner-{number % 37}"),)
            entries.append(Entry(type=kind, op=f"{number:032x}", fields=fields, openings=openings))
        await asyncio.gather(*map(log.record, entries))
    await engine.stop()
    await log.close()


def _replay(folder: Path, count: int, memo_max: int) -> tuple[float, int]:
    """Return decisions per second of CPU, and how many were evaluated."""
    for _ in range(_TRIES):
        found = asyncio.run(_replay_once(folder, count, memo_max))
        if found is not None:
            return found
    raise MeasurementError("a policy worker was replaced whenever its CPU was measured")


async def _replay_once(folder: Path, count: int, memo_max: int) -> tuple[float, int] | None:
    """Return that; None where a worker was replaced: what it had used is counted by nobody."""
    candidate = Candidate(load_bundle_dir(folder / "policies"), memo_max=memo_max)
    await candidate.start()
    audit = folder / "audit"
    vault = Vault(audit / "openings" / "keys", _KEK, "", Files())
    workers = candidate.engine.worker_pids
    before = read_usage(find_family(os.getpid())).cpu_s
    run = PolicyReplay(candidate, Inputs(audit, vault))
    impact = await run.run(find_records(audit, Decisions(Selection(Filter()))))
    used = read_usage(find_family(os.getpid())).cpu_s - before
    replaced = candidate.engine.worker_pids != workers
    await candidate.stop()
    if impact.kinds["unchanged"] != count:
        raise MeasurementError(
            f"the same policies changed decisions: {dict(impact.kinds | impact.errors)}"
        )
    return None if replaced else (count / used, candidate.evaluated)


def _time_live(folder: Path, count: int) -> tuple[float, float]:
    """Return what `_live` does; begin anew where the machine kept a worker for too long."""
    for _ in range(_TRIES - 1):
        with suppress(PolicyError):
            return asyncio.run(_live(folder, count))
    return asyncio.run(_live(folder, count))


async def _live(folder: Path, count: int) -> tuple[float, float]:
    """Return how much longer live decisions take beside a shadow, and ns of telling it of one."""
    bundle = load_bundle_dir(folder / "policies")
    shadow: ShadowEvaluator[Any] = ShadowEvaluator(Candidate, now_s=lambda: 0)
    engine = RegorusPolicy(bundle, deadline_ms=_DEADLINE_MS)
    await engine.start()
    engine.set_tools({_TOOL: ("bench", "money")})
    observed = ObservedPolicy(engine, shadow.observe)
    documents = _documents(count)
    ratios, observe_ns = [], 0.0
    try:
        await _ask(observed, documents)
        for _ in range(5):  # by turns: what disturbs one, disturbs both
            alone = await _ask(observed, documents)
            await shadow.start(bundle, "bench")
            beside = await _ask(observed, documents)
            observe_ns = await _tell(shadow, documents)
            await shadow.stop()
            ratios.append(beside / alone)
    finally:
        await engine.stop()
    return statistics.median(ratios), observe_ns


async def _ask(engine: ObservedPolicy, documents: list[bytes]) -> float:
    """Return the median µs of a decision with a few callers at once."""
    times: list[float] = []

    async def call(part: list[bytes]) -> None:
        for document in part:
            begin = time.perf_counter()
            await engine.decide(_TOOL, "call", document)
            times.append((time.perf_counter() - begin) * 1e6)

    await asyncio.gather(*(call(documents[each::_CALLERS]) for each in range(_CALLERS)))
    return statistics.median(times)


async def _tell(shadow: ShadowEvaluator[Any], documents: list[bytes]) -> float:
    """Return the ns of `observe` while there is room."""
    permit = Permit((), (), "sha256:" + "0" * 64)
    some = documents[:500]
    begin = time.perf_counter_ns()
    for document in some:
        shadow.observe(_TOOL, "call", document, permit)
    return (time.perf_counter_ns() - begin) / len(some)
