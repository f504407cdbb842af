"""How long a kill takes under load: from the request to the last effect at the upstream.

A real gateway governs calls at a steady rate; half of them are one agent's. Again and again that
agent is stopped, over the admin API as `countersign kill` does it, and let go on. The upstream is
in this process and notes when each of the agent's calls reaches it, so both ends are read from one
clock. A call that was on its way when the request began counts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
from msgspec import Struct

from bench.client import ask, percentile
from bench.governed import Governed, start_governed, verify_log
from bench.policies import agent_name
from bench.processes import MeasurementError, Processes
from bench.requests import build_arguments, build_requests
from bench.serving import Lean
from bench.upstream import Upstream, build_result
from gateway.adapters.state.sql_kills import SqlKills
from gateway.adapters.state.sql_store import SqlState
from gateway.core.kills.kill import Kill
from gateway.core.tokens.clients import hash_secret

RATE: Final = 1_000
"""Calls a second, of all agents together."""

_CALLERS: Final = 40
_WATCHED_S: Final = 0.5
"""How long calls are waited for after a kill was answered."""

_ELSEWHERE_S: Final = 1.0
_BACK_S: Final = 10.0
_TIMEOUT_S: Final = 10.0
_MS: Final = 1e3
_VICTIM: Final = build_arguments(0)["customer_id"].encode()


class KillPlan(Struct, frozen=True):
    """How often the agent is stopped and let go on, in either way."""

    cycles: int


class _Watch:
    """The upstream, and when the agent last reached it, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._answer = Upstream(build_result(500))
        self.calls = 0
        self.last_s = 0.0

    def __call__(self, body: bytes) -> bytes:
        """Answer one request."""
        if b'"tools/call"' in body:
            self.calls += 1
            if _VICTIM in body:
                self.last_s = time.monotonic()
        return self._answer(body)


def measure_kill(folder: Path, plan: KillPlan) -> dict[str, float | int]:
    """Return the figures under flat keys. `folder` is empty and on the disk to be measured.

    Raises `MeasurementError` when the load could not be kept up or a kill did not hold.
    """
    folder.mkdir(parents=True)
    with Processes(folder) as processes:
        return asyncio.run(_measure(processes, folder, plan))


async def _measure(processes: Processes, folder: Path, plan: KillPlan) -> dict[str, float | int]:
    watch, secret = _Watch(), secrets.token_urlsafe(32)
    server = await asyncio.get_running_loop().create_server(lambda: Lean(watch), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    humans = [{"id": "opal", "roles": ["operator"], "secret_hash": hash_secret(secret)}]
    governed = await asyncio.to_thread(start_governed, processes, folder, url, humans)
    load = [asyncio.create_task(_call(governed, number)) for number in range(_CALLERS)]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{governed.port}",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        ) as client:
            asked = await _cycles(_Asked(client), watch, plan.cycles, _WATCHED_S)
        state = SqlState(f"sqlite:///{folder / 'state.db'}")
        await state.open(environment="bench", log_origin="countersign/audit")
        switch = _Elsewhere(SqlKills(state))
        elsewhere = await _cycles(switch, watch, plan.cycles, _ELSEWHERE_S)
        await state.close()
    finally:
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        server.close()
    await asyncio.to_thread(processes.stop, governed.process)
    await asyncio.to_thread(verify_log, governed.audit)
    return _build_results(asked, elsewhere)


async def _call(governed: Governed, number: int) -> None:
    """Call again and again at this caller's share of the rate; half of the callers are the agent.

    A caller whose answer is late sends the next call at once: the rate is kept up.
    """
    requests = build_requests(governed.port, governed.tokens)
    request = requests[0] if number % 2 else requests[1 + number % (len(requests) - 1)]
    pause, due = _CALLERS / RATE, time.monotonic() + number / RATE
    reader, writer = await asyncio.open_connection("127.0.0.1", governed.port)
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += pause
            await ask(reader, writer, request)
    writer.close()


class _Switch(Protocol):
    """One way to stop the agent."""

    async def stop(self) -> None:
        """Stop it; returns once whoever asked is told that it is done."""
        ...

    async def lift(self) -> None:
        """Let it go on."""
        ...


class _Asked:
    """Over the admin API of the gateway that governs the calls."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def stop(self) -> None:
        await _post(self._client, "/v1/kills", "kill")

    async def lift(self) -> None:
        await _post(self._client, "/v1/kills/lift", "lift")


class _Elsewhere:
    """In the state that the gateway shares with another process, this one."""

    def __init__(self, store: SqlKills) -> None:
        self._store = store
        self._last = ""

    async def stop(self) -> None:
        self._last = secrets.token_hex(16)
        kill = Kill(id=self._last, kind="agent", target=agent_name(0), at=int(time.time()))
        await self._store.put(kill)

    async def lift(self) -> None:
        await self._store.end([self._last])


class _Cycles(Struct):
    """What one way of stopping took, in ms, and how much was going on meanwhile."""

    effect_ms: list[float] = []
    answer_ms: list[float] = []
    calls: int = 0
    running_s: float = 0.0


async def _cycles(switch: _Switch, watch: _Watch, cycles: int, watched_s: float) -> _Cycles:
    found = _Cycles()
    for number in range(cycles):
        await _wait_for_effect(watch, time.monotonic())
        since, before = time.monotonic(), watch.calls
        await asyncio.sleep(0.3 + 0.013 * (number % 16))  # not in step with anything
        found.running_s += time.monotonic() - since
        found.calls += watch.calls - before
        started = time.monotonic()
        await switch.stop()
        found.answer_ms.append((time.monotonic() - started) * _MS)
        await asyncio.sleep(watched_s)
        found.effect_ms.append(max(0.0, watch.last_s - started) * _MS)
        await switch.lift()
    return found


def _build_results(asked: _Cycles, elsewhere: _Cycles) -> dict[str, float | int]:
    return {
        "kill_cycles": len(asked.effect_ms) + len(elsewhere.effect_ms),
        "kill_effect_p50_ms": round(_at(asked.effect_ms, 50), 1),
        "kill_effect_p99_ms": round(_at(asked.effect_ms, 99), 1),
        "kill_effect_max_ms": round(max(asked.effect_ms), 1),
        "kill_answer_p50_ms": round(_at(asked.answer_ms, 50), 1),
        "kill_answer_p99_ms": round(_at(asked.answer_ms, 99), 1),
        "kill_elsewhere_p50_ms": round(_at(elsewhere.effect_ms, 50), 1),
        "kill_elsewhere_p99_ms": round(_at(elsewhere.effect_ms, 99), 1),
        "kill_calls_per_s": round(
            (asked.calls + elsewhere.calls) / (asked.running_s + elsewhere.running_s)
        ),
    }


async def _post(client: httpx.AsyncClient, path: str, reason: str) -> None:
    body: dict[str, Any] = {"kind": "agent", "target": agent_name(0), "reason": reason}
    answer = await client.post(path, json=body)
    if answer.status_code != httpx.codes.OK:
        raise MeasurementError(f"the gateway did not {reason}: {answer.text[:300]}")


async def _wait_for_effect(watch: _Watch, since: float) -> None:
    """Wait until the agent reaches the upstream again."""
    while watch.last_s <= since:
        if time.monotonic() - since > _BACK_S:
            raise MeasurementError("the agent's calls do not arrive any more")
        await asyncio.sleep(0.002)


def _at(values: Sequence[float], percent: float) -> float:
    return percentile(sorted(values), percent)
