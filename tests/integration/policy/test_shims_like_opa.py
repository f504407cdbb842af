"""The functions that we add to the embedded engine, held against a real OPA's.

What ours return, OPA returns. Where ours fail, the decision is a deny, whatever OPA says: those are
counted, and regular arguments are none of them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import regorus

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.regorus.engine_shims import SHIMS, install_shims, prepare_shims
from tests.integration.policy.token_vectors import (
    CLAIMS,
    PANICS,
    SECRET,
    Value,
    encode,
    jwk,
    mangle,
    odd_keys,
    pem,
    sign,
)
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.req("POL-05"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
MISSING = object()
TEXTS: list[Value] = ["", "a", "ü\u0000\n", "x" * 1000, "😀", None, True, 0, 1.5, [], {}, ["a"]]
KEYED = [name.removeprefix("io.jwt.verify_") for name in SHIMS if "verify_" in name]
Arguments = list[Value]


def ask_opa(name: str, vectors: list[Arguments]) -> list[object]:
    """Return OPA's answer to each; `MISSING` where it has none."""
    arity = SHIMS[name][0]
    operands = ", ".join(f"v[{n}]" for n in range(arity))
    query = f"[[i, {name}({operands})] | some i, v in input.all]"
    assert OPA is not None
    done = subprocess.run(
        [OPA, "eval", "--format=raw", "--stdin-input", query],
        input=json.dumps({"all": vectors}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[int, object] = dict(json.loads(done.stdout))
    return [found.get(number, MISSING) for number in range(len(vectors))]


def ask_ours(name: str, vectors: list[Arguments]) -> list[object]:
    """Return our answer to each; `MISSING` where the decision fails."""
    operands = ", ".join(f"input.v[{n}]" for n in range(SHIMS[name][0]))
    engine = regorus.Engine()
    install_shims(engine)
    prepare_shims([name])
    engine.add_policy("t.rego", f"package t\n\nx := [{name}({operands})]\n")
    return [_ask(engine, vector) for vector in vectors]


def _ask(engine: regorus.Engine, vector: Arguments) -> object:
    engine.set_input_json(json.dumps({"v": vector}))
    try:
        answer = engine.eval_rule_as_json("data.t.x")
    except RuntimeError:
        return MISSING
    return MISSING if answer == '"<undefined>"' else json.loads(answer)[0]


def compare(name: str, vectors: list[Arguments]) -> list[int]:
    """Return the vectors to which OPA has an answer and we have none; fail on other differences."""
    opa, ours = ask_opa(name, vectors), ask_ours(name, vectors)
    wrong = [
        (vectors[n], opa[n], ours[n])
        for n in range(len(vectors))
        if ours[n] is not MISSING and ours[n] != opa[n]
    ]
    assert not wrong, wrong[:3]
    return [n for n in range(len(vectors)) if ours[n] is MISSING and opa[n] is not MISSING]


def test_every_added_function_may_be_called_and_is_one_of_opas() -> None:
    assert OPA is not None
    listed = subprocess.run(
        [OPA, "capabilities", "--current"], capture_output=True, text=True, check=True
    )
    known = {each["name"]: each["decl"] for each in json.loads(listed.stdout)["builtins"]}
    assert set(SHIMS) <= ALLOWED
    for name, (arity, _) in SHIMS.items():
        assert len(known[name]["args"]) == arity


@pytest.mark.parametrize("name", [each for each in SHIMS if each.startswith("crypto.")])
def test_hashes_and_macs_are_opas(name: str) -> None:
    if SHIMS[name][0] == 1:
        vectors = [[text] for text in TEXTS]
    else:
        vectors = [[one, other] for one in TEXTS for other in TEXTS]
    assert compare(name, vectors) == []


def test_tokens_are_read_as_opa_reads_them() -> None:
    regular: list[Arguments] = [[sign(kind)] for kind in KEYED]
    odd: list[Arguments] = [[each] for each in mangle(sign("hs256"))]
    assert compare("io.jwt.decode", regular) == []
    refused = compare("io.jwt.decode", odd)
    assert ask_ours("io.jwt.decode", regular)[0][1] == CLAIMS  # type: ignore[index]
    # Numbers that engines write differently, half characters, and a token within a token.
    assert len(refused) <= 20, [odd[n] for n in refused]


def test_a_header_at_which_opa_panics_is_an_error_here() -> None:
    token = f"{encode(PANICS)}.{encode(b'{}')}."
    assert ask_ours("io.jwt.decode", [[token]]) == [MISSING]


def keys_of(kind: str, folder: Path) -> Iterator[Value]:
    if kind.startswith("hs"):
        yield from (SECRET, "", "another", None, 7, [], {})
    else:
        yield from odd_keys(kind, folder)


@pytest.mark.parametrize("kind", KEYED)
def test_signatures_are_believed_where_opa_believes_them(kind: str, tmp_path: Path) -> None:
    name = f"io.jwt.verify_{kind}"
    good = SECRET if kind.startswith("hs") else pem(kind)
    tokens: list[Value] = [
        sign(kind),
        sign(kind, {"kid": "a"}),
        sign(kind, {"kid": "b"}),
        sign(kind, {"alg": "none"}),
        sign(kind, {"crit": ["exp"]}),
        *(sign(other) for other in KEYED if other != kind),
    ]
    refused: list[int] = []
    vectors: list[Arguments] = [[token, good] for token in (*tokens, *mangle(sign(kind)))]
    refused += compare(name, vectors)
    keys = list(keys_of(kind, tmp_path))
    for token in tokens[:3]:
        refused += compare(name, [[token, key] for key in keys])
    assert compare(name, [[token, good] for token in tokens]) == []
    answers: list[Any] = ask_ours(name, [[tokens[0], good], [sign("hs256"), good]])
    assert answers[0] is True
    if not kind.startswith("hs"):
        sets = [json.dumps(jwk(kind)), json.dumps({"keys": [jwk("rs256", kid="z"), jwk(kind)]})]
        assert ask_ours(name, [[tokens[0], key] for key in sets]) == [True, True]
    assert len(refused) <= 30
