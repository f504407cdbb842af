from __future__ import annotations

import sys

import pytest

from gateway.adapters.policy.policy_ast import Fault, Module, parse_module
from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.adapters.policy.policy_depth import find_unparsable
from tests.unit.policy.test_policy_gate import faults

HEAD = "package policies.a\n\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in vain is not waited for long."""
    monkeypatch.setattr("gateway.adapters.policy.policy_depth.PARSE_S", 0.5)


def lines(text: str, times: int) -> str:
    """The engine reads no line of more than 1024 bytes."""
    return "\n".join([text * 50] * (times // 50))


@pytest.mark.parametrize(
    "value",
    [
        lines("-", 10_000) + "1",
        "1" + lines(" + 1", 10_000),
        "1" + lines(" == 1", 10_000),
        lines("abs(", 10_000) + "1" + lines(")", 10_000),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_module_that_would_end_the_process_is_refused(value: str) -> None:
    (fault,) = faults(f"{HEAD}x := {value}\n")
    assert fault.startswith("a.rego:1:1: nested ")
    assert fault.endswith(
        "nest lists, objects and operators less deeply, or put values into data.json"
    )


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a": ', "}")])
@pytest.mark.usefixtures("impatient")
def test_a_module_that_takes_for_ever_to_parse_is_refused(begin: str, end: str) -> None:
    (fault,) = faults(f'{HEAD}x := "]" == {begin * 40}1{end * 40} # [\n')
    assert fault.startswith("a.rego:1:1: nested so deeply that parsing it takes more than ")


@pytest.mark.parametrize(
    "rest",
    [
        "x := " + "[" * 8 + "1" + "]" * 8,
        'x := "' + "[" * 200 + '\\"[[[' + '"',
        "y := `" + "[\n" * 200 + "`",
        "# " + "[" * 200 + "\nx := 1",
        "x := [\n" + '\t{"a": [1, 2], "b": {"c": "d"}},\n' * 1000 + "]",
        "# +\n" * 3000 + "x := `" + "-\n" * 3000 + "`",
    ],
)
def test_what_people_write_is_parsed(rest: str) -> None:
    assert isinstance(parse_module("a.rego", f"{HEAD}{rest}\n"), Module)


def test_what_python_cannot_read_back_is_told_alike() -> None:
    found = parse_module("a.rego", f"{HEAD}x := 1{lines(' + 1', 1000)}\n")
    assert isinstance(found, Fault)
    assert "recursion depth exceeded" in found.text


def test_what_is_shipped_is_parsed_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes as long as starting a gateway's policies."""
    monkeypatch.setattr(sys, "executable", "/nowhere")
    modules = [*find_rego_root().rglob("*.rego")]
    assert len(modules) > 30
    for module in modules:
        assert find_unparsable(module.read_text(encoding="utf-8")) is None, module
