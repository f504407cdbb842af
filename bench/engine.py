"""The embedded engine alone: what a decision costs in a worker, and who pays for whom.

POL-13: packages that do not concern a call cost it nothing. POL-04: a policy that runs wild costs
others little, a reload costs nobody a call.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import orjson
from msgspec import Struct

from bench.policies import REFUNDS, agent_name, build_data, write_policies
from bench.processes import MeasurementError
from bench.requests import build_arguments
from gateway.adapters.policy.gate.policy_passed import passed
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    load_bundle_dir,
)
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.regorus.regorus_fleet import Fleet, load_command
from gateway.adapters.regorus.regorus_index import Index
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, Evaluator
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Permit

_TAG: Final = 1
_TOOL: Final = "bench.refund"
_MEGABYTE_AGENTS: Final = 1_500
_CALLERS: Final = 64
_BOMBS: Final = (("others", "bench.bomb", 10), ("same", "bench.*", 10), ("many", "bench.*", 40))
"""Figures: the tools that the wild package concerns, and how many wild calls there are a second."""
_CAPS: Final = 16
_DEADLINE_MS: Final = 50
_LENIENT_MS: Final = 2_000
_LOADS: Final = 4
_CAP: Final = """\
# METADATA
# custom:
#   applies_to: {tools: ["@TOOL@"]}
package policies.cap_@NUMBER@

deny contains {"code": "over_cap_@NUMBER@"} if not within

within if {
	is_number(input.context.args.amount_cents)
	input.context.args.amount_cents <= 10000@NUMBER@
}
"""
_BOMB: Final = """\
# METADATA
# custom:
#   applies_to: {tools: ["@TOOL@"]}
package policies.bomb

deny contains {"code": "bomb"} if {
	input.context.args.bomb
	some a in numbers.range(1, 100000)
	some b in numbers.range(1, 100000)
	a * b == 7
}
"""


class EnginePlan(Struct, frozen=True):
    """How many decisions to time, seconds to load a worker and throw bombs, reloads."""

    rounds: int
    load_s: float
    reloads: int


def measure_engine(folder: Path, plan: EnginePlan) -> dict[str, float | int]:
    """Return the figures under flat keys. `folder` is made."""
    results = {**_time_pack(plan.rounds), **_time_packages(plan.rounds)}
    results |= _load_a_worker(plan.load_s)
    results |= asyncio.run(_reload(folder / "reload", plan.reloads))
    for name, bombed, per_s in _BOMBS:
        results |= asyncio.run(_throw_bombs(name, bombed, per_s, plan.load_s))
    return results


# --- in the worker ------------------------------------------------------------------------------


class _Worker:
    """What a worker is, in this process: the engines of one bundle behind its index."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._evaluator = Evaluator()
        self._numbers = 0
        self._command(load_command(bundle, tag=_TAG, samples=[]))
        self._index = Index(cast("Fleet", self))

    def define_subset(self, subset: dict[str, Any], _source_bytes: int) -> int:
        self._numbers += 1
        self._command(json.dumps({"do": "subset", "index": self._numbers, **subset}).encode())
        return self._numbers

    def _command(self, command: bytes) -> None:
        kind, answer = self._evaluator.answer(0, CONTROL, command)
        if kind != ANSWER or answer not in {b"{}", b'{"faults": []}'}:
            raise MeasurementError(f"a bundle does not load: {answer.decode()}")

    def time(self, documents: list[bytes], rounds: int, *, whole: bool = False) -> list[float]:
        """Return the sorted µs of CPU of single decisions."""
        times = []
        for number in range(-len(documents), rounds):
            document = documents[number % len(documents)]
            subset = 0 if whole else self._index.find(document)
            begin = time.thread_time()
            kind, _ = self._evaluator.answer(_TAG, subset, document)
            if number >= 0:
                times.append((time.thread_time() - begin) * 1e6)
            if kind != ANSWER:
                raise MeasurementError("an evaluation failed")
        return sorted(times)


def build_question(tool: str, effect: str, agent: int = 0, **args: Any) -> bytes:  # noqa: ANN401
    """Return a policy input about a tool."""
    document = orjson.loads(build_sample("call"))
    document["subject"]["id"] = agent_name(agent)
    document["resource"] |= {"id": tool, "server": "bench", "effect": effect}
    document["context"]["args"] = build_arguments(agent) | args
    return orjson.dumps(document)


def _time_pack(rounds: int) -> dict[str, float | int]:
    """Time the default pack: of ten calls six are reads, two are denied, two are held."""
    bundle = load_bundle_dir(default_pack())
    effects = (*("read",) * 6, "create", "update", "money", "external_send")
    documents = [build_question(f"bench.{effect}", effect) for effect in effects]
    times = _Worker(bundle).time(documents, rounds)
    holds = _Worker(bundle).time(documents[-2:], rounds)
    return {
        "pack_packages": len(bundle.packages),
        "pack_decision_p50_us": round(statistics.median(times), 1),
        "pack_decision_p99_us": round(times[len(times) * 99 // 100], 1),
        "pack_hold_p50_us": round(statistics.median(holds), 1),
    }


def _time_packages(rounds: int) -> dict[str, float | int]:
    """Time a decision beside packages that do not concern it, and with a dozen that do."""
    documents = [build_question(_TOOL, "money", agent) for agent in range(10)]
    results: dict[str, float | int] = {}
    for heard, others in ((1, 0), (1, 29), (1, 299), (12, 288)):
        times = _Worker(_build_company(heard, others)).time(documents, rounds)
        results[f"packages_{heard}_of_{heard + others}_us"] = round(statistics.median(times), 1)
    whole = _Worker(_build_company(1, 299)).time(documents, max(20, rounds // 20), whole=True)
    return results | {"packages_1_of_300_unindexed_us": round(statistics.median(whole), 1)}


def _build_company(heard: int, others: int) -> Bundle:
    """One package that permits by an agent's grants; all others have a rule about the amount."""
    sources = {"refunds.rego": REFUNDS}
    for number in range(1, heard + others):
        tool = _TOOL if number < heard else f"bench.other_{number}"
        text = _CAP.replace("@TOOL@", tool).replace("@NUMBER@", str(number))
        sources[f"cap_{number}.rego"] = text
    owned = {"authority": {"policies": {"refunds": ["bench"]}}}
    return build_bundle(sources, {**owned, **build_data(10)})


# --- through the port ---------------------------------------------------------------------------


def _load_a_worker(seconds: float) -> dict[str, float | int]:
    """Return what `_load_worker` does; begin anew where the machine kept a worker for too long."""
    for _ in range(_LOADS - 1):
        with suppress(_ReplacedError, PolicyError):
            return asyncio.run(_load_worker(seconds))
    return asyncio.run(_load_worker(seconds))


async def _load_worker(seconds: float) -> dict[str, float | int]:
    """Return decisions for each second of a worker's CPU, with many callers."""
    bundle = load_bundle_dir(default_pack())
    policy = RegorusPolicy(bundle, deadline_ms=_LENIENT_MS)
    await policy.start()
    documents = [build_question(f"bench.{number}", "read") for number in range(_CALLERS)]
    try:
        await asyncio.gather(*(policy.decide(_TOOL, "call", each) for each in documents))
        (pid, *_), end, done = policy.worker_pids, time.monotonic() + seconds, 0
        before = _cpu_s(pid)
        while time.monotonic() < end:
            await asyncio.gather(*(policy.decide(_TOOL, "call", each) for each in documents))
            done += len(documents)
        if policy.worker_pids[0] != pid:  # and its CPU time is lost with it
            raise _ReplacedError("a policy worker was replaced under load")
        used = _cpu_s(pid) - before
    finally:
        await policy.stop()
    return {"decisions_per_s_core": round(done / used)}


class _ReplacedError(MeasurementError):
    """A worker whose CPU time was being counted is no more, and its time with it."""


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    except FileNotFoundError:
        raise _ReplacedError("a policy worker was replaced under load") from None
    return int(fields[0]) / 1e9


class _Folder:
    """Policies and data on disk: 1 MB, twenty packages, of which each change touches one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        write_policies(path, _MEGABYTE_AGENTS)
        self._data = [orjson.dumps(build_data(_MEGABYTE_AGENTS + more)) for more in (0, 1)]
        for number in range(_CAPS):
            self.change(number)

    def change(self, number: int) -> None:
        """Write other data, and one package anew."""
        self.path.joinpath("data.json").write_bytes(self._data[number % 2])
        text = _CAP.replace("@TOOL@", "bench.other").replace("@NUMBER@", f"{number % _CAPS}")
        self.path.joinpath(f"cap_{number % _CAPS}.rego").write_text(f"{text}# change {number}\n")


@contextmanager
def _collected_as_in_a_gateway() -> Iterator[None]:
    """Have the garbage collector set as `countersign serve` sets it."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _reload(path: Path, reloads: int) -> dict[str, float | int]:
    """Reload 1 MB of policies and data from files, again and again, under load.

    A few more times as by a gateway that has just been started: nothing is known of the policies.
    """
    folder = _Folder(path)
    policy = RegorusPolicy(load_bundle_dir(path), deadline_ms=_LENIENT_MS)
    await policy.start()
    failed: list[str] = []
    documents = [build_question(_TOOL, "money", agent) for agent in range(50)]
    try:
        with _collected_as_in_a_gateway():
            asking = asyncio.create_task(_ask_on(policy, documents, failed))
            times = [await _time_reload(policy, folder, number) for number in range(reloads)]
            cold = []
            for number in range(max(3, reloads // 5)):
                passed.forget()
                cold.append(sum(await _time_reload(policy, folder, reloads + number)))
            asking.cancel()
            slowest = await asking
    finally:
        await policy.stop()
    return {
        "reloads": reloads + len(cold),
        "reload_p50_ms": round(statistics.median(map(sum, times)), 1),
        "reload_max_ms": round(max(map(sum, times)), 1),
        "reload_cold_p50_ms": round(statistics.median(cold), 1),
        "reload_swap_p50_ms": round(statistics.median(swap for _, swap in times), 1),
        "reload_failed_calls": len(failed),
        "reload_slowest_call_ms": round(slowest, 1),
    }


async def _time_reload(policy: RegorusPolicy, folder: _Folder, number: int) -> tuple[float, float]:
    """Return the ms of reading and gating what changed, and of bringing it to use."""
    await asyncio.to_thread(folder.change, number)
    before = policy.revision
    begin = time.perf_counter()
    bundle = await asyncio.to_thread(load_bundle_dir, folder.path)
    middle = time.perf_counter()
    await policy.activate(bundle)
    end = time.perf_counter()
    if policy.revision == before:
        raise MeasurementError("a reload changed nothing")
    return (middle - begin) * 1e3, (end - middle) * 1e3


async def _ask_on(policy: RegorusPolicy, documents: list[bytes], failed: list[str]) -> float:
    """Ask a question a millisecond until cancelled; return the ms of the slowest answer."""
    slowest = 0.0
    try:
        for number in _count():
            begin = time.perf_counter()
            try:
                answer = await policy.decide(_TOOL, "call", documents[number % len(documents)])
                if not isinstance(answer, Permit):
                    failed.append(answer.reasons[0].code)
            except PolicyError as error:
                failed.append(error.code)
            slowest = max(slowest, (time.perf_counter() - begin) * 1e3)
            await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        return slowest
    return slowest


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


async def _throw_bombs(
    name: str, bombed: str, per_s: int, seconds: float
) -> dict[str, float | int]:
    """Return how long others wait for one worker while somebody's policy runs wild.

    Each wild call is of another agent, for who comes a fourth time would be refused unasked.
    """
    sources = {"refunds.rego": REFUNDS, "bomb.rego": _BOMB.replace("@TOOL@", bombed)}
    owned = {"authority": {"policies": {"refunds": ["bench"]}}, **build_data(10)}
    policy = RegorusPolicy(build_bundle(sources, owned), deadline_ms=_DEADLINE_MS)
    await policy.start()
    try:
        calm = await _watch(policy, seconds, per_s, lambda: None)
        thrown: list[asyncio.Task[object]] = []

        def throw() -> None:
            bomb = build_question("bench.bomb", "money", 1 + len(thrown), bomb=True)
            thrown.append(asyncio.create_task(policy.decide(_TOOL, "call", bomb)))

        wild = await _watch(policy, seconds, per_s, throw)
        answers = await asyncio.gather(*thrown, return_exceptions=True)
    finally:
        await policy.stop()
    if not answers or not all(isinstance(answer, PolicyError) for answer in answers):
        raise MeasurementError("a policy that runs wild was to be denied, and was not")
    return {
        f"bombs_{name}_p99_ms": round(wild[len(wild) * 99 // 100], 1),
        f"bombs_{name}_max_ms": round(wild[-1], 1),
        f"bombs_{name}_calm_p99_ms": round(calm[len(calm) * 99 // 100], 1),
        f"bombs_{name}_thrown": len(answers),
    }


async def _watch(
    policy: RegorusPolicy, seconds: float, per_s: int, throw: Callable[[], None]
) -> list[float]:
    """Return the sorted ms of decisions about something else, which must all be permits."""
    document, times = build_question(_TOOL, "money"), []
    end = time.monotonic() + seconds
    due = time.monotonic()
    while time.monotonic() < end:
        if time.monotonic() >= due:
            throw()
            due += 1 / per_s
        begin = time.perf_counter()
        if not isinstance(await policy.decide(_TOOL, "call", document), Permit):
            raise MeasurementError("a decision was to be a permit, and was not")
        times.append((time.perf_counter() - begin) * 1e3)
        await asyncio.sleep(0.001)
    return sorted(times)
