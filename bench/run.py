"""A whole run: start everything, check answers, measure, check the log, end."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
from msgspec import Struct

from bench.audit import measure_audit
from bench.client import ask
from bench.decisions import measure_decisions
from bench.engine import measure_engine
from bench.governed import Calls, Governed, count_calls, start_governed, verify_log
from bench.history import measure_history
from bench.kill import measure_kill
from bench.load import REFUSED_MAX, LoadGenerator
from bench.measure import FULL_LOAD, QUICK, Bench, Plan, Side
from bench.processes import MeasurementError, Processes
from bench.replay import measure_replay
from bench.report import Results, build_results
from bench.requests import build_requests
from bench.tokens import measure_tokens
from bench.upstream import build_result

Say = Callable[[str], None]
_WARM_S: Final = 1.0


class _Stage(Struct, frozen=True):
    """Everything that a run started."""

    governed: Governed
    sides: tuple[Side, Side, Side]
    upstream_url: str


def run(folder: Path, plan: Plan, *, result_bytes: int, say: Say) -> Results:
    """Run a plan in an empty folder; return the results.

    Raises `MeasurementError` when something could not be measured, or was not governed.
    """
    say("the audit log alone")
    audit = measure_audit(folder / "audit", plan.audit)
    say("policy decisions, 10 to 3,000 agents")
    decisions = measure_decisions(folder / "decisions", plan.decision_rounds)
    say("the policy engine alone, wild policies, reloads")
    engine = measure_engine(folder / "engine", plan.engine)
    say("run history and data flow")
    history = measure_history(plan.decision_rounds)
    say("replay and shadow")
    replays = measure_replay(folder / "replay", plan.replay)
    say("tokens")
    tokens = measure_tokens(folder / "tokens", plan.tokens)
    say("the kill switch under load")
    kills = measure_kill(folder / "kill", plan.kill)
    load = LoadGenerator(folder)
    with Processes(folder) as processes:
        say("starting the gateway")
        stage = _set_up(processes, folder, result_bytes)
        answered = _try_out(load, stage.sides, build_result(result_bytes))
        measured = Bench(load, *stage.sides, stage.governed.audit).run(plan, say)
        say("checking the log")
        processes.stop(stage.governed.process)  # ends calls that the last load cut
        executed = int(httpx.get(stage.upstream_url, trust_env=False).text)
    calls = count_calls(stage.governed.audit)
    answered += measured.governed_requests
    check_governed(calls, executed, answered, answered + measured.governed_cut_max + FULL_LOAD)
    verify_log(stage.governed.audit)
    return {
        **build_results(measured, decisions),
        **engine,
        **audit,
        **kills,
        **tokens,
        **replays,
        **history,
        "governed_calls": calls.intents,
        "refused_calls": calls.refused.total(),
        "refused_because": ", ".join(sorted(calls.refused)),
        "load_generator": load.name,
        "result_bytes": result_bytes,
        "quick": plan == QUICK,
        "cpus": os.cpu_count() or 0,
        "python": _name_python(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _name_python() -> str:
    """Say which Python this is, and whether it is one that was built with optimizations."""
    builder = "the distribution's" if sys.base_prefix == "/usr" else "not the distribution's"
    return f"{platform.python_version()}, {builder}"


def _set_up(processes: Processes, folder: Path, result_bytes: int) -> _Stage:
    """Start both sides, each with an upstream of its own, whose calls are counted."""
    command = ["-m", "bench.upstream", "--result-bytes", str(result_bytes)]
    _, port = processes.start_listening("upstream", command)
    _, other_port = processes.start_listening("bare-upstream", command)
    other_url = f"http://127.0.0.1:{other_port}/mcp"
    bare = ["-m", "bench.bare", other_url]
    bare_pid, bare_port = processes.start_listening("bare", bare)
    usual = processes.start_listening("bare-aiohttp", [*bare, "--client", "aiohttp"])
    url = f"http://127.0.0.1:{port}/mcp"
    governed = start_governed(processes, folder, url)
    tokens = governed.tokens
    sides = (
        Side(governed.process.pid, governed.port, build_requests(governed.port, tokens)),
        Side(bare_pid, bare_port, build_requests(bare_port, tokens)),
        Side(*usual, build_requests(usual[1], tokens)),
    )
    return _Stage(governed, sides, url)


def _try_out(load: LoadGenerator, sides: Sequence[Side], expected: bytes) -> int:
    """Check an answer of each kind byte for byte, then warm up; return how many were governed."""
    for side in sides:
        asyncio.run(check_answers(side.port, side.requests, expected))
    warm = [
        load.run(side.port, side.requests, connections=FULL_LOAD, seconds=_WARM_S) for side in sides
    ]
    return len(sides[0].requests) + warm[0].requests


async def check_answers(port: int, requests: Sequence[bytes], expected: bytes) -> None:
    """Send each request once. Raises `MeasurementError` for anything but the tool's own result."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, request in enumerate(requests):
            head, _, body = (await ask(reader, writer, request)).partition(b"\r\n\r\n")
            right = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, expected)
            if not head.startswith(b"HTTP/1.1 200") or body != right:
                raise MeasurementError(f"not the tool's own answer: {body[:500]!r}")
    finally:
        writer.close()


def check_governed(calls: Calls, executed: int, answered: int, most: int) -> None:
    """Compare the log with what the upstream executed and with what the callers were answered.

    `answered` and `most`: a load cuts the calls under way when it ends. They are recorded, and
    nobody counts their answers. Raises `MeasurementError` when the three do not agree.
    """
    refused = calls.refused.total()
    told = answered <= executed + refused <= most and refused <= REFUSED_MAX * answered
    if not (calls.intents == calls.outcomes == executed and told):
        raise MeasurementError(
            f"calls were not governed one by one: {calls.intents} intents, {calls.outcomes} good "
            f"outcomes, {executed} executed, {answered} to {most} answered, refused: "
            f"{dict(calls.refused)}"
        )
