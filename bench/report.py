"""The results of a run: flat keys for programs, a table beside the goals for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.measure import Measured, Pair, median

Results = dict[str, float | int | str | bool]

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
FLAT_MAX: Final = 1.25
"""How much dearer a decision may be with 300 times the agents and still be called flat."""


class Goal(Struct, frozen=True):
    """One line of the table. `met` is None for a line that has no goal."""

    label: str
    goal: str
    measured: Callable[[Results], str]
    met: Callable[[Results], bool] | None = None


def build_results(measured: Measured, decisions: Mapping[int, float]) -> Results:
    """Return the figures of a run under flat keys. Medians over turns; times in ms unless named."""
    full, alone = measured.full, measured.alone
    fsync = median(measured.fsync_ms)
    added = median([_added_p50(pair) for pair in alone])
    results: Results = {
        "governed_over_bare": round(median([pair.ratio for pair in full]), 3),
        "governed_over_bare_worst": round(min(pair.ratio for pair in full), 3),
        "governed_over_bare_best": round(max(pair.ratio for pair in full), 3),
        "governed_over_aiohttp_bare": round(median([_usual_ratio(pair) for pair in full]), 3),
        "governed_calls_per_s": round(median([p.governed.figures.per_second for p in full])),
        "bare_calls_per_s": round(median([p.bare.figures.per_second for p in full])),
        "added_p50_ms": round(added, 3),
        "fsync_p50_ms": round(fsync, 3),
        "added_beyond_fsync_ms": round(added - 2 * fsync, 3),
        "governed_p50_ms_1": round(median([p.governed.figures.p50_ms for p in alone]), 3),
        "bare_p50_ms_1": round(median([p.bare.figures.p50_ms for p in alone]), 3),
        "added_p99_ms_64": round(median([_added_p99(pair) for pair in full]), 2),
        "cpu_us_per_call": round(median([p.governed.cpu_us_per_call for p in full])),
        "bare_cpu_us_per_call": round(median([p.bare.cpu_us_per_call for p in full])),
        "rss_mb": round(max(p.governed.rss_mb for p in full), 1),
    }
    for connections, pair in measured.sweep.items():
        results[f"governed_calls_per_s_{connections}"] = round(pair.governed.figures.per_second)
        results[f"bare_calls_per_s_{connections}"] = round(pair.bare.figures.per_second)
    for agents, us in decisions.items():
        results[f"decision_us_{agents}_agents"] = round(us, 1)
    return results


def _usual_ratio(pair: Pair) -> float:
    usual = pair.usual or pair.bare
    return pair.governed.figures.per_second / usual.figures.per_second


def _added_p50(pair: Pair) -> float:
    return pair.governed.figures.p50_ms - pair.bare.figures.p50_ms


def _added_p99(pair: Pair) -> float:
    return pair.governed.figures.p99_ms - pair.bare.figures.p99_ms


def _number(results: Results, key: str) -> float:
    return float(results[key])


def _shown(pattern: str) -> Callable[[Results], str]:
    return lambda results: pattern.format(**results)


def _at_least(key: str, least: float) -> Callable[[Results], bool]:
    return lambda results: _number(results, key) >= least


def _at_most(key: str, most: float) -> Callable[[Results], bool]:
    return lambda results: _number(results, key) <= most


def _is_flat(results: Results) -> bool:
    few, many = (
        _number(results, "decision_us_10_agents"),
        _number(results, "decision_us_3000_agents"),
    )
    return many <= FLAT_MAX * few


GOALS: Final = (
    Goal(
        "governed ÷ bare throughput, 64 callers",
        "≥ 0.5",
        _shown("{governed_over_bare} ({governed_over_bare_worst} to {governed_over_bare_best})"),
        _at_least("governed_over_bare", 0.5),
    ),
    Goal(
        "the same over a bare proxy on aiohttp",
        "≥ 0.5",
        _shown("{governed_over_aiohttp_bare}"),
        _at_least("governed_over_aiohttp_bare", 0.5),
    ),
    Goal(
        "governed calls/s, one worker",
        "≥ 4,500",
        _shown("{governed_calls_per_s:,}"),
        _at_least("governed_calls_per_s", 4_500),
    ),
    Goal("bare calls/s, the same stack", "", _shown("{bare_calls_per_s:,}")),
    Goal(
        "p50 added beyond two fsyncs, one caller",
        "≤ 1 ms",
        _shown("{added_beyond_fsync_ms} ms"),
        _at_most("added_beyond_fsync_ms", 1.0),
    ),
    Goal(
        "p50 added in all, one caller",
        "",
        _shown("{added_p50_ms} ms ({governed_p50_ms_1} against {bare_p50_ms_1})"),
    ),
    Goal("fsync of 2 KB in the log's folder, p50", "", _shown("{fsync_p50_ms} ms")),
    Goal("p99 added, 64 callers", "", _shown("{added_p99_ms_64} ms")),
    Goal(
        "CPU per governed call, all processes",
        "",
        _shown("{cpu_us_per_call} µs (bare: {bare_cpu_us_per_call} µs)"),
    ),
    Goal(
        "memory of gateway and policy workers",
        "≤ 250 MB",
        _shown("{rss_mb} MB"),
        _at_most("rss_mb", 250),
    ),
    Goal(
        "policy decision, 10 → 100 → 1,000 → 3,000 agents",
        "flat",
        _shown(
            "{decision_us_10_agents} → {decision_us_100_agents} → {decision_us_1000_agents} → "
            "{decision_us_3000_agents} µs"
        ),
        _is_flat,
    ),
    Goal(
        "POL-04: CPU of a decision in the worker, default pack, p50",
        "≤ 100 µs",
        _shown(
            "{pack_decision_p50_us} µs ({pack_packages} packages; of a hold {pack_hold_p50_us})"
        ),
        _at_most("pack_decision_p50_us", 100),
    ),
    Goal(
        "the same, p99",
        "≤ 1 ms",
        _shown("{pack_decision_p99_us} µs"),
        _at_most("pack_decision_p99_us", 1_000),
    ),
    Goal(
        "POL-04: decisions per second of one worker's CPU, 64 callers",
        "≥ 5,000",
        _shown("{decisions_per_s_core:,}"),
        _at_least("decisions_per_s_core", 5_000),
    ),
    Goal(
        "POL-04: p99 of others' decisions while 10 wild ones a second are killed, one worker",
        "≤ 75 ms",
        _shown(
            "{bombs_others_p99_ms} ms (max {bombs_others_max_ms}; without "
            "{bombs_others_calm_p99_ms})"
        ),
        _at_most("bombs_others_max_ms", 75),
    ),
    Goal(
        "the same where the wild ones come from the same packages",
        "≤ 75 ms",
        _shown(
            "{bombs_same_p99_ms} ms (max {bombs_same_max_ms}; without {bombs_same_calm_p99_ms})"
        ),
        _at_most("bombs_same_max_ms", 75),
    ),
    Goal(
        "the same with 40 a second",
        "≤ 75 ms",
        _shown(
            "{bombs_many_p99_ms} ms (max {bombs_many_max_ms}; without {bombs_many_calm_p99_ms})"
        ),
        _at_most("bombs_many_max_ms", 75),
    ),
    Goal(
        "POL-04: reload of 1 MB from files under load, p50",
        "≤ 100 ms",
        _shown(
            "{reload_p50_ms} ms (workers alone {reload_swap_p50_ms}; max {reload_max_ms}; where "
            "nothing is known of the policies {reload_cold_p50_ms})"
        ),
        _at_most("reload_p50_ms", 100),
    ),
    Goal(
        "calls that failed in so many reloads",
        "0",
        _shown("{reload_failed_calls} in {reloads} (slowest call {reload_slowest_call_ms} ms)"),
        _at_most("reload_failed_calls", 0),
    ),
    Goal(
        "POL-13: CPU of a decision with 1, 30, 300 packages of which 1 concerns it",
        "",
        _shown(
            "{packages_1_of_1_us} → {packages_1_of_30_us} → {packages_1_of_300_us} µs (without "
            "the index {packages_1_of_300_unindexed_us})"
        ),
    ),
    Goal(
        "POL-13: the same with 300 of which 12 concern it",
        "≤ 150 µs",
        _shown("{packages_12_of_300_us} µs"),
        _at_most("packages_12_of_300_us", 150),
    ),
    Goal(
        "audit CPU per record, building to durable",
        "≤ 60 µs",
        _shown("{audit_cpu_us_per_record} µs"),
        _at_most("audit_cpu_us_per_record", 60),
    ),
    Goal(
        "durable records/s, 64 callers over one",
        "≥ 10",
        _shown(
            "{audit_group_commit_gain} ({audit_records_per_s_64:,} ÷ {audit_records_per_s_1:,})"
        ),
        _at_least("audit_group_commit_gain", 10),
    ),
    Goal(
        "records verified for each second of CPU",
        "≥ 100,000",
        _shown("{verified_per_s:,} (of {verified_records:,})"),
        _at_least("verified_per_s", 100_000),
    ),
    Goal(
        "the same on a bare Python, standard library alone",
        "≥ 30,000",
        _shown("{verified_per_s_stdlib:,}"),
        _at_least("verified_per_s_stdlib", 30_000),
    ),
    Goal(
        "memory of the verifier",
        "≤ 64 MB",
        _shown("{verifier_rss_mb} MB"),
        _at_most("verifier_rss_mb", 64),
    ),
    Goal(
        "finding and proving one record of them",
        "≤ 50 ms",
        _shown("{proof_ms} ms"),
        _at_most("proof_ms", 50),
    ),
    Goal(
        "kill of an agent to its last effect, 1,000 calls/s, p99",
        "≤ 1,000 ms",
        _shown(
            "{kill_effect_p99_ms} ms (p50 {kill_effect_p50_ms}, max {kill_effect_max_ms}; "
            "{kill_calls_per_s:,} calls/s)"
        ),
        _at_most("kill_effect_p99_ms", 1_000),
    ),
    Goal(
        "the same until it is answered, durable and on record, p99",
        "",
        _shown("{kill_answer_p99_ms} ms (p50 {kill_answer_p50_ms})"),
    ),
    Goal(
        "the same by another process that shares the state, p99",
        "≤ 1,000 ms",
        _shown("{kill_elsewhere_p99_ms} ms (p50 {kill_elsewhere_p50_ms})"),
        _at_most("kill_elsewhere_p99_ms", 1_000),
    ),
    Goal(
        "CPU to believe a token that is known",
        "≤ 5 µs",
        _shown("{token_cached_us} µs"),
        _at_most("token_cached_us", 5),
    ),
    Goal(
        "CPU to believe a token that is not",
        "≤ 150 µs",
        _shown("{token_uncached_us} µs"),
        _at_most("token_uncached_us", 150),
    ),
    Goal(
        "CPU to check ten argument constraints and a window",
        "≤ 20 µs",
        _shown("{constraints_us} µs"),
        _at_most("constraints_us", 20),
    ),
    Goal(
        "tokens exchanged per second, one worker, 16 callers",
        "≥ 1,000",
        _shown("{token_exchanges_per_s:,}"),
        _at_least("token_exchanges_per_s", 1_000),
    ),
    Goal(
        "CPU of history, provenance, policy input and charge, after 500 calls of a run ÷ after 40",
        "≤ 1.2",
        _shown("{history_growth} ({history_us_40} and {history_us_500} µs)"),
        _at_most("history_growth", 1.2),
    ),
    Goal("CPU to look through an answer of 2 KB", "", _shown("{history_read_us} µs")),
    Goal(
        "recorded decisions put to other policies, per second of one core",
        "≥ 10,000",
        _shown("{replay_per_s_core:,} ({replay_distinct:,} of {replay_decisions:,} distinct)"),
        _at_least("replay_per_s_core", 10_000),
    ),
    Goal(
        "the same, every one evaluated, as where no two are alike",
        "≥ 10,000",
        _shown("{replay_evaluated_per_s_core:,}"),
        _at_least("replay_evaluated_per_s_core", 10_000),
    ),
    Goal(
        "p50 of a live decision beside a shadow ÷ without, 8 callers",
        "",
        _shown("{shadow_slowdown} (telling it: {shadow_observe_ns} ns)"),
    ),
)


def build_table(results: Results) -> str:
    """Return the table in Markdown, goal and measured value side by side."""
    lines = ["| what | goal | measured | met |", "|---|---|---|---|"]
    for goal in GOALS:
        met = "" if goal.met is None else ("yes" if goal.met(results) else "**no**")
        lines.append(f"| {goal.label} | {goal.goal} | {goal.measured(results)} | {met} |")
    for key in results:
        callers = key.removeprefix("governed_calls_per_s_")
        if callers != key:
            rates = f"{results[key]:,} against {results[f'bare_calls_per_s_{callers}']:,}"
            lines.append(f"| governed against bare calls/s, {callers} callers | | {rates} | |")
    lines += ["", _build_circumstances(results)]
    return "\n".join(lines)


def _build_circumstances(results: Results) -> str:
    kind = "A short run" if results["quick"] else "A full run"
    refused = ""
    if results["refused_calls"]:
        refused = f" {results['refused_calls']} were refused ({results['refused_because']})."
    return (
        f"{kind} of {results['date']} on {results['cpus']} cores that gateway, policy worker, "
        f"upstream and load generator ({results['load_generator']}) share; "
        f"Python {results['python']}; results of {results['result_bytes']} bytes. "
        f"{results['governed_calls']:,} governed calls, each with an intent and an outcome in the "
        f"log, which verified.{refused}"
    )


def write_page(page: Path, table: str) -> None:
    """Put the table between the markers of a page. Raises `ValueError` when they are not there."""
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"`{page.name}` has no `{BEGIN}` … `{END}`; put them back")
    page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
