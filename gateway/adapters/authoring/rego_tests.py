"""Runs the `test_*` rules of policies as `opa test` does."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal

import regorus
from msgspec import Struct, structs

from gateway.adapters.authoring.rego_cases import Case, read_cases, write_case_rule
from gateway.adapters.authoring.rego_failures import FailedTest, Failure, find_failures
from gateway.adapters.authoring.rego_suite import Suite, load_suite
from gateway.adapters.policy.policy_ast import Module
from gateway.adapters.policy.policy_syntax import Node, head_of, is_literal, place, unwrap
from gateway.adapters.regorus.regorus_worker import describe

_PREFIX: Final = "test_"
_TODO_PREFIX: Final = "todo_test_"
_CASES: Final = "cases_of_countersign_test"
_PLACE: Final = re.compile(r"--> (\S+?):(\d+):(\d+)")
_EXPLAINED_MAX: Final = 20
"""Of so many failing tests, and so many cases of each, is said why. Those are enough to begin."""

Outcome = Literal["PASS", "FAIL", "ERROR", "SKIPPED"]


class RuleOutcome(Struct, frozen=True):
    """What became of one test. `output` is what it printed; `name` begins with `data.`.

    `package` is the front of the name. `at`: where an error arose, as far as the engine says.
    `failures`: where it and its cases stopped, for those who want to be told.
    """

    name: str
    package: str
    file: str
    row: int
    col: int
    outcome: Outcome
    duration_ns: int = 0
    message: str = ""
    output: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    at: tuple[str, int, int] | None = None
    failures: tuple[Failure, ...] = ()


class _Test(Struct, frozen=True):
    """A test as found. `alias`: the path of its rule in the engine."""

    file: str
    package: str
    name: str
    alias: str
    row: int
    col: int
    rule: Node
    tail: list[str | Node]
    refusal: str = ""
    case_rule: str = ""


class TestRun(Struct, frozen=True):
    """Outcomes in order of file and line; `covered`: rows that were evaluated, by file."""

    __test__ = False  # for pytest: this is none

    outcomes: list[RuleOutcome]
    modules: Mapping[str, Module]
    sources: Mapping[str, str]
    covered: Mapping[str, frozenset[int]]


def run_tests(path: Path) -> list[RuleOutcome]:
    """Run every test in a folder of policies, in order of file and line."""
    return run_folder(path).outcomes


def run_folder(
    path: Path, wanted: str = "", *, coverage: bool = False, explained: bool = False
) -> TestRun:
    """Run the tests whose full name (`data.…`) `wanted` is found in.

    `explained`: say of the first that fail where they stopped, and on what values.
    Raises `ConfigurationError` (`policy_invalid`) when the files cannot be loaded, `re.error` when
    `wanted` is no regular expression.
    """
    pattern = re.compile(wanted)
    suite = load_suite(path)
    tests = list(_find(suite.sources, suite.modules))
    engine = suite.build_engine(_rewrite(suite.sources, tests).items())
    engine.set_enable_coverage(coverage)
    chosen = [each for each in tests if pattern.search(f"{each.package}.{each.name}")]
    outcomes = [_run(engine, each) for each in chosen]
    if explained:
        outcomes = _explain(suite, chosen, outcomes)
    return TestRun(outcomes, suite.modules, suite.sources, _covered(engine) if coverage else {})


def _covered(engine: regorus.Engine) -> dict[str, frozenset[int]]:
    report = json.loads(engine.get_coverage_report_as_json())
    return {file["path"]: frozenset(file["covered"]) for file in report["files"]}


# --- finding ------------------------------------------------------------------------------------


def _find(sources: Mapping[str, str], modules: Mapping[str, Module]) -> Iterator[_Test]:
    copies: Counter[tuple[str, str]] = Counter()
    for file, module in modules.items():
        package = ".".join(("data", *module.package))
        for rule in module.tree:
            parts, tail = _split(head_of(rule)[1]["refr"])
            name = ".".join(parts)
            if not parts or not parts[-1].startswith((_PREFIX, _TODO_PREFIX)):
                continue
            copies[package, name] += 1
            copy = copies[package, name] - 1
            yield _describe(file, package, name, copy, rule, tail, sources[file].encode())


def _describe(  # noqa: PLR0917 - a test has as many parts
    file: str, package: str, name: str, copy: int, rule: Node, tail: list[str | Node], text: bytes
) -> _Test:
    # Copies of one name are tests of their own, as they are for OPA; one would hide the other.
    row, col = place(text, head_of(rule)[1]["span"])
    kind, head = head_of(rule)
    alias = f"{name}_copy_{copy}" if copy else name
    case_rule, refusal = "", ""
    if kind == "Func" or head.get("args"):
        refusal = "a test takes no arguments; remove them"
    elif kind != "Set" and any(isinstance(part, dict) and not is_literal(part) for part in tail):
        bodies = rule["Spec"]["bodies"]
        statements = bodies[0]["query"]["stmts"] if bodies else []
        written = write_case_rule(f"{_CASES}_{head['span']['start']}", tail, statements, text)
        case_rule = written or ""
        if written is None or len(bodies) > 1:
            refusal = "cannot enumerate its cases; bind their names first: `some name, tc in cases`"
    shown = f"{name}#{copy:02}" if copy else name
    return _Test(file, package, shown, alias, row, col, rule, tail, refusal, case_rule)


def _split(reference: Node) -> tuple[list[str], list[str | Node]]:
    """Return the static front of a head up to the test's own name, and what stands behind it."""
    parts = list(_parts(reference))
    static = list(takewhile(lambda each: isinstance(each, str), parts))
    for number, part in enumerate(static, start=1):
        if str(part).startswith((_PREFIX, _TODO_PREFIX)):
            return [str(each) for each in static[:number]], parts[number:]
    return [], []


def _parts(reference: Node) -> Iterator[str | Node]:
    kind, body = unwrap(reference)
    if kind == "Var":
        yield body["value"]
        return
    yield from _parts(body["refr"])
    yield body["field"][1] if kind == "RefDot" else body["index"]


# --- running ------------------------------------------------------------------------------------


def _rewrite(sources: Mapping[str, str], tests: list[_Test]) -> dict[str, str]:
    """Return the sources with a name of its own for each copy, and a rule that names the cases."""
    texts = {file: text.encode() for file, text in sources.items()}
    for test in reversed(tests):
        text, reference = texts[test.file], head_of(test.rule)[1]["refr"]
        if not test.name.endswith(test.alias.rpartition(".")[2]):
            start, end = _name_span(reference, test.name.partition("#")[0].rpartition(".")[2])
            text = text[:start] + test.alias.rpartition(".")[2].encode() + text[end:]
        texts[test.file] = text
    for test in tests:
        texts[test.file] += b"\n" + test.case_rule.encode()
    return {file: text.decode() for file, text in texts.items()}


def _name_span(reference: Node, name: str) -> tuple[int, int]:
    kind, body = unwrap(reference)
    if kind == "Var":
        return body["span"]["start"], body["span"]["end"]
    if kind == "RefDot" and body["field"][1] == name:
        return body["field"][0]["start"], body["field"][0]["end"]
    return _name_span(body["refr"], name)


def _run(engine: regorus.Engine, test: _Test) -> RuleOutcome:
    name = f"{test.package}.{test.name}"
    known = (name, test.package, test.file, test.row, test.col)
    if test.name.rpartition(".")[2].startswith(_TODO_PREFIX):
        return RuleOutcome(*known, "SKIPPED")
    if test.refusal:
        return RuleOutcome(*known, "ERROR", message=test.refusal)
    engine.set_input_json("{}")
    began = time.perf_counter_ns()
    cases: tuple[Case, ...] = ()
    try:
        value = _ask(engine, f"{test.package}.{test.alias}")
        duration_ns = time.perf_counter_ns() - began
        output = tuple(engine.take_prints())
        if test.case_rule:
            rule = f"{test.package}.{test.case_rule.partition(' ')[0]}"
            cases = read_cases(value, _ask(engine, rule) or [])
            engine.take_prints()
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        found = _PLACE.search(str(error))
        at = (found[1], int(found[2]), int(found[3])) if found else None
        duration_ns, output = time.perf_counter_ns() - began, tuple(engine.take_prints())
        return RuleOutcome(*known, "ERROR", duration_ns, describe(error), output, at=at)
    if test.case_rule and not cases:
        # OPA passes it. What tests nothing must not look as if it had.
        return RuleOutcome(*known, "ERROR", duration_ns, "it has no cases; give it some", output)
    failed = any(case.failed for case in cases) if test.case_rule else value is not True
    return RuleOutcome(*known, "FAIL" if failed else "PASS", duration_ns, "", output, cases)


def _explain(suite: Suite, tests: list[_Test], outcomes: list[RuleOutcome]) -> list[RuleOutcome]:
    """Return the outcomes, the first that failed with the reason why."""
    told = 0
    found = []
    for test, outcome in zip(tests, outcomes, strict=True):
        whole = outcome
        if outcome.outcome == "FAIL" and told < _EXPLAINED_MAX:
            told += 1
            cases = [*_failed(outcome.cases)] if test.case_rule else [()]
            failed = FailedTest(test.file, test.rule, test.tail, cases[:_EXPLAINED_MAX])
            whole = structs.replace(outcome, failures=tuple(find_failures(suite, failed)))
        found.append(whole)
    return found


def _failed(cases: Iterable[Case], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for case in cases:
        name = (*above, case.name)
        if case.cases:
            yield from _failed(case.cases, name)
        elif case.failed:
            yield name


def _ask(engine: regorus.Engine, path: str) -> Any:  # noqa: ANN401
    """Return the value of a rule; None where it has none."""
    found = json.loads(engine.eval_query_as_json(path))
    rows = found.get("result") or [{"expressions": [{"value": None}]}]
    return rows[0]["expressions"][0]["value"]
