"""Runs the `test_*` rules of policies as `opa test` does."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import regorus
from msgspec import Struct

from gateway.adapters.policy.policy_ast import Fault, Module, Rule, parse_module
from gateway.adapters.policy.policy_bundle import (
    MAIN_PATH,
    find_rego_root,
    invalid,
    load_library,
    read_folder,
)
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.regorus_worker import build_engine, describe

_PREFIX: Final = "test_"
_TODO_PREFIX: Final = "todo_test_"


class RuleOutcome(Struct, frozen=True):
    """What became of one test. `output` is what it printed; `name` begins with `data.`."""

    name: str
    file: str
    row: int
    outcome: Literal["PASS", "FAIL", "ERROR", "SKIPPED"]
    duration_ns: int = 0
    message: str = ""
    output: tuple[str, ...] = ()


def run_tests(path: Path) -> list[RuleOutcome]:
    """Run every test in a folder of policies, in order of file and line.

    Raises `ConfigurationError` (`policy_invalid`) when the files cannot be loaded.
    """
    faults: list[Mistake] = []
    sources, data = read_folder(path, faults, tests=True)
    modules: dict[str, Module] = {}
    for name, text in sources.items():
        module = parse_module(name, text)
        if isinstance(module, Fault):
            faults.append(Mistake(name, module.line, module.column, "syntax", module.text))
        else:
            modules[name] = module
    if faults:
        raise invalid(faults)
    engine = _load(sources, data, modules)
    return [result for name in modules for result in _run_module(engine, name, modules)]


def _load(
    sources: Mapping[str, str], data: Mapping[str, Any], modules: Mapping[str, Module]
) -> regorus.Engine:
    texts = list(sources.items())
    if not any(module.package == ("countersign",) for module in modules.values()):
        texts.append((MAIN_PATH, (find_rego_root() / MAIN_PATH).read_text(encoding="utf-8")))
    given = {module.package for module in modules.values()}
    texts += [
        (path, text)
        for path, text in load_library(find_rego_root()).items()
        if tuple(path.removesuffix(".rego").split("/")) not in given
    ]
    engine = build_engine(texts, json.dumps(data))
    engine.set_gather_prints(True)
    return engine


def _run_module(
    engine: regorus.Engine, file: str, modules: Mapping[str, Module]
) -> Iterator[RuleOutcome]:
    package = modules[file].package
    siblings = [module for module in modules.values() if module.package == package]
    copies = Counter(rule.name for module in siblings for rule in module.rules)
    for rule in modules[file].rules:
        if rule.name.startswith((_PREFIX, _TODO_PREFIX)):
            name = ".".join(("data", *package, rule.name))
            refusal = _refusal(rule, copies[rule.name])
            if rule.name.startswith(_TODO_PREFIX):
                yield RuleOutcome(name, file, rule.line, "SKIPPED")
            elif refusal:
                # A case or a copy that fails would hide behind one that passes.
                yield RuleOutcome(name, file, rule.line, "ERROR", message=refusal)
            else:
                yield _run(engine, name, file, rule)


def _refusal(rule: Rule, copies: int) -> str | None:
    if not rule.plain or rule.kind in {"set", "object"}:
        return "cannot enumerate the cases of a parameterised test; write one test per case"
    if rule.kind == "function":
        return "a test takes no arguments; remove them"
    if copies > 1:
        return "several rules have this name; give each test its own"
    return None


def _run(engine: regorus.Engine, name: str, file: str, rule: Rule) -> RuleOutcome:
    engine.set_input_json("{}")
    began = time.perf_counter_ns()
    message = ""
    outcome: Literal["PASS", "FAIL", "ERROR"]
    try:
        outcome = "PASS" if engine.eval_rule_as_json(name) == "true" else "FAIL"
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        outcome, message = "ERROR", describe(error)
    duration_ns = time.perf_counter_ns() - began
    output = tuple(engine.take_prints())
    return RuleOutcome(name, file, rule.line, outcome, duration_ns, message, output)
