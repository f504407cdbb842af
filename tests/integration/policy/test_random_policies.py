"""Policies that a generator writes and the gate lets through mean the same to both engines.

What OPA does not compile is left out: it says so, aloud. COUNTERSIGN_FAULT_FACTOR multiplies the
number of policies; `random_rego` says what they are made of.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import regorus

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle, gate_folder
from gateway.adapters.regorus.engine_shims import install_shims
from gateway.core.errors import ConfigurationError
from tests.effort import share
from tests.integration.policy.random_rego import Author, Caller
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.req("POL-05"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
FACTOR = int(os.environ.get("COUNTERSIGN_FAULT_FACTOR", "1"))
WRITTEN = share(200) * FACTOR
AT_ONCE = 50
"""How many OPA loads at a time: it compiles all of them whenever one fails the query."""
INPUTS = 40
SEED = 2026
ALIKE = {
    "limit_silenced",
    "obligation_unknown",
    "order_untyped",
    "unguarded_comparison",
    "unguarded_conversion",
}
"""What the gate refuses although engines read it alike: here it is compared as well."""
QUERY = """[[number, name, said] |
	some number, document in input.many
	some name in input.names
	said := data.policies[name] with input as document
]"""
UNDEFINED = "undefined"
FAILED = "failed"
BROKEN = "broken"
"""OPA's own mistake, told aloud: `test_what_opa_cannot_evaluate_it_says_aloud`."""
Answers = dict[tuple[int, str], object]


def opa(*arguments: str | Path, document: object = None) -> subprocess.CompletedProcess[str]:
    assert OPA is not None
    command = [OPA, *map(str, arguments)]
    given = json.dumps(document)
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def _passes(folder: Path, name: str, source: str) -> bool:
    """Whether the gate finds nothing that engines would read differently."""
    authority = {"authority": {"policies": {name: ["*"]}}} if "permit " in source else {}
    folder.mkdir(parents=True)
    (folder / f"{name}.rego").write_text(source)
    (folder / "data.json").write_text(json.dumps(authority))
    found = gate_folder(folder)
    return isinstance(found, Bundle) or {mistake.code for mistake in found} <= ALIKE


def write_policies(folder: Path, author: Author, numbers: range) -> dict[str, str]:
    """Write what passes the gate and OPA's compiler; return it by package."""
    passed = {}
    written = folder / "written"
    written.mkdir(parents=True)
    for number in numbers:
        name = f"p{number}"
        source = author.package(name)
        if not _passes(folder / "gated" / name, name, source):
            continue
        passed[name] = source
        (written / f"{name}.rego").write_text(source)
    # Mistakes of one stage of OPA's compiler hide those of the next.
    while refused := set(re.findall(r"/(p\d+)\.rego:\d+", opa("check", "-m", "0", written).stderr)):
        for name in refused:
            del passed[name]
            (written / f"{name}.rego").unlink()
    return passed


def ask_opa(folder: Path, names: list[str], documents: list[Any], first: int = 0) -> Answers:
    """Return what packages say. One that fails fails the query, so it is asked for alone."""
    asked = {"many": documents, "names": names}
    done = opa("eval", "-f", "raw", "-d", folder, "--stdin-input", QUERY, document=asked)
    if done.returncode == 0:
        return {(first + number, name): value for number, name, value in json.loads(done.stdout)}
    if len(names) > 1:
        half = len(names) // 2
        return ask_opa(folder, names[:half], documents) | ask_opa(folder, names[half:], documents)
    if len(documents) > 1:
        half = len(documents) // 2
        rest = ask_opa(folder, names, documents[half:], first + half)
        return ask_opa(folder, names, documents[:half], first) | rest
    return {(first, names[0]): BROKEN if "requires evaluation" in done.stderr else FAILED}


def ask_regorus(name: str, source: str, documents: list[Any]) -> Answers:
    engine = regorus.Engine()
    install_shims(engine)
    engine.add_policy(f"{name}.rego", source)
    found: Answers = {}
    for number, document in enumerate(documents):
        engine.set_input_json(json.dumps(document))
        try:
            answer = json.loads(engine.eval_query_as_json(f"x = data.policies.{name}"))
        except RuntimeError:
            found[number, name] = FAILED
            continue
        rows = answer.get("result")
        found[number, name] = rows[0]["bindings"]["x"] if rows else UNDEFINED
    return found


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _in_one_order(value: object) -> object:
    """Return an answer as it is, but lists of lists and objects in one order.

    A set that holds sets and objects is written as such a list: sets first here, last by OPA.
    """
    if isinstance(value, dict):
        return {name: _in_one_order(each) for name, each in value.items()}
    if not isinstance(value, list):
        return value
    items = [_in_one_order(each) for each in value]
    mixed = {dict, list} <= {type(each) for each in items}
    return sorted(items, key=_written) if mixed else items


def test_random_policies_mean_the_same_to_both_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    author, caller = Author(SEED), Caller(SEED)
    documents = [{"context": {"args": caller.arguments()}} for _ in range(INPUTS)]
    counted: Counter[str] = Counter()
    for first in range(0, WRITTEN, AT_ONCE):
        folder, numbers = tmp_path / str(first), range(first, min(first + AT_ONCE, WRITTEN))
        policies = write_policies(folder, author, numbers)
        counted["compared"] += len(policies)
        expected = ask_opa(folder / "written", list(policies), documents)
        for name, source in policies.items():
            for key, answer in ask_regorus(name, source, documents).items():
                if answer == FAILED:
                    counted["engine_error"] += 1
                    continue
                said = expected.get(key, UNDEFINED)
                if said == BROKEN:
                    counted["opa_broken"] += 1
                    continue
                assert _in_one_order(answer) == _in_one_order(said), (source, documents[key[0]])
                counted["equal"] += 1
    with capsys.disabled():
        told = f"of {WRITTEN} policies, {INPUTS} inputs each, {dict(counted)}"
        print(f"\nrandom policies: {told}")  # noqa: T201 - the count is wanted
    assert counted["equal"] > counted["engine_error"] > 0
    assert counted["compared"] > WRITTEN * 3 / 4, "most of what is written should be compared"


DIFFERENT = {
    "union_first": "x if { {input.a} | {2} == {5} }",
    "in_mixed": 'x if input.a in ["u", input.b]',
    "iteration_in_head": "h contains input.list[_] if input.a\n\nx if count(h) == 0",
    "object assigned": 'x := n if { {"a": n} := input.o }',
    "object unified": 'x := n if { input.o = {"a": n} }',
    "object in a list": 'x := n if { [n, {"a": 1}] = [3, input.o] }',
    "object as a member": 'x if { some {"a": 1} in [input.o] }',
    "object as an argument": 'f({"a": n}) := n\n\nx := f(input.o)',
    "object that walk finds": 'x if walk(input.o, [_, {"a": 1}])',
    "object as an index": 's contains y if some y in [input.o]\n\nx := n if s[{"a": n}]',
    "object as an answer": 'f(a) := a\n\nx if f(input.o, {"a": 1})',
    "equals in every": "x if { every y in [1] { y = 2 } }",
    "equals in every, of a name around it": "x if { y := 1; every z in [2] { z = y } }",
    "a comprehension in every": "x if { every y in [1] { count([1 | [y] = [2]]) == 1 } }",
    "walk in every": "x if { every y in [3] { walk([1], [_, y]) } }",
    "a list as an index in every": "s contains [3, 2]\n\nx if { every y in [1] { s[[y, 2]] } }",
    "walk of one argument": "x := [n | [_, n] := walk(input.o)]",
    "a name of two arguments": "f(n, n) := n\n\nx := f(1, 2)",
    "a name of key and value": "x := [n | some n, n in [1, 2]]",
    "some, of a name around it": "x := y if { i := 1; y := [v | some i; v := input.two[i]] }",
    "some, of a name found around it": (
        "x := y if { input.two[i] == 6; y := [v | some i; v := input.two[i]] }"
    ),
    "some, of an argument": "f(i) := [v | some i; v := input.two[i]]\n\nx := f(1)",
    "some, of a rule": "x contains v if { some i; v := input.two[i] }\n\ni := 1",
    "some, of an import": "import input.one as i\n\nx contains v if { some i; v := input.two[i] }",
    "some, in every": "x if { i := 1; every v in input.two { some i; input.two[i] == v } }",
    "a head, undefined for one of several": "x contains v.a if some v in input.many",
    "a head, undefined for one of them": "x[i] := v.a if some i, v in input.many",
    "a head that iterates": "h contains input.list[i] if input.a\n\nx if count(h) == 0",
    "an index below not, bound below it": 'x if { not input.o[y]; y = "c" }',
    "an index below not, found below it": "x if { not input.o[y]; input.list == []; [y] = [7] }",
    "an import and a rule": "import input.a as g\n\ng := 3\n\nx := g",
    "another not": "import future.keywords.not\n\nx if { n := false; not {n} }",
    "another not, among all words": "import future.keywords\n\nx if { n := false; not {n} }",
    "another not, of another Rego": "import rego.v2\n\nx if { n := false; not {n} }",
}


@pytest.mark.parametrize("form", DIFFERENT)
def test_what_the_engines_read_differently_is_refused(form: str, tmp_path: Path) -> None:
    """Each still differs: one that does not any more may be let through again."""
    source = f"package policies.t\n\n{DIFFERENT[form]}\n"
    with pytest.raises(ConfigurationError, match=r"t\.rego:[35]:"):
        build_bundle({"t.rego": source}, {})
    (tmp_path / "t.rego").write_text(source)
    document = {"a": "k", "b": "k", "list": [], "o": {"a": 1, "b": 2}, "one": 1, "two": [5, 6]}
    document["many"] = [{"a": 1}, {}]
    ours = ask_regorus("t", source, [document])[0, "t"]
    theirs = ask_opa(tmp_path, ["t"], [document])[0, "t"]
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert ours.get("x") != theirs.get("x")


def test_what_opa_cannot_evaluate_it_says_aloud(tmp_path: Path) -> None:
    """OPA 1.22 loses a name of around a set comprehension; one that does not needs no `BROKEN`."""
    body = "v := input.a; s := {input.o[v] | is_array(v)}; s == set()"
    source = f"package policies.t\n\nx if {{ {body} }}\n"
    (tmp_path / "t.rego").write_text(source)
    document = {"a": "k", "o": {}}
    assert ask_regorus("t", source, [document])[0, "t"] == {"x": True}
    assert ask_opa(tmp_path, ["t"], [document])[0, "t"] == BROKEN


def test_a_rule_named_internal_is_refused_as_opa_refuses_it(tmp_path: Path) -> None:
    source = "package policies.t\n\ninternal := 1\n\nx if input.a in [1]\n"
    with pytest.raises(ConfigurationError, match=r"t\.rego:3:1: .*`internal`"):
        build_bundle({"t.rego": source}, {})
    (tmp_path / "t.rego").write_text(source)
    assert opa("check", tmp_path).returncode != 0


@pytest.mark.parametrize(
    "form",
    [
        "import data.settings as input\n\nx := input.v",
        "import input.context as data\n\nx := data.v",
        "f(input) := input\n\nx := f(1)",
        "f([data, _]) := data.v\n\nx := f([{}, 1])",
        "x if { every input in [1] { input == 1 } }",
    ],
)
def test_other_things_named_input_or_data_are_refused_as_opa_refuses_them(
    form: str, tmp_path: Path
) -> None:
    source = f"package policies.t\n\n{form}\n"
    with pytest.raises(ConfigurationError, match=r"t\.rego:3:.* is given, and cannot be the name"):
        build_bundle({"t.rego": source}, {})
    (tmp_path / "t.rego").write_text(source)
    assert opa("check", tmp_path).returncode != 0


def test_iteration_below_not_is_refused_as_opa_refuses_it(tmp_path: Path) -> None:
    source = "package policies.t\n\nx if not input.list[_]\n"
    with pytest.raises(ConfigurationError, match=r"t\.rego:3:"):
        build_bundle({"t.rego": source}, {})
    (tmp_path / "t.rego").write_text(source)
    assert "unsafe" in opa("check", tmp_path).stderr
