"""Limits that load, on a real OPA: what they let pass there is within them, too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.core.errors import ConfigurationError
from tests.effort import share
from tests.opa_server import NO_OPA, OPA, run_opa
from tests.unit.policy.limit_forms import (
    ABSENT,
    BINDINGS,
    CHECKS,
    CONDITIONS,
    MADE,
    SHAPES,
    VALUES,
    is_odd,
    may_pass,
    module,
    passing,
    write,
)

pytestmark = [
    pytest.mark.req("POL-06"),
    pytest.mark.network,
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
DRAWN = share(260)
LOADED_MIN = share(40)


def load_those_that_pass() -> Iterator[str]:
    """Yield the rules, of those drawn, that the gate accepts. Always the same ones."""
    choose = random.Random(11)  # noqa: S311 - always the same ones
    for _ in range(DRAWN):
        binding, name = choose.choice(BINDINGS)
        check, made = choose.choice(CHECKS), choose.choice([*MADE, *CONDITIONS])
        plain = made in CONDITIONS or " with " in check
        rules = write(binding, name, check, made, SHAPES[0] if plain else choose.choice(SHAPES))
        if is_odd(binding, check, made):
            continue
        try:
            build_bundle({"a.rego": module(rules)}, {"authority": {"policies": {"a": ["*"]}}})
        except ConfigurationError:
            continue
        yield rules


def ask(opa: httpx.Client, package: str, value: object) -> bool:
    """Whether a package lets a value pass, asked as the gateway asks: an error denies."""
    args = {} if value == ABSENT else {"n": value}
    document = {"input": {"phase": "call", "context": {"args": args}}}
    said: dict[str, Any] = {}
    for name in ("permit", "deny", "hold"):
        path = f"/v1/data/policies/{package}/{name}?strict-builtin-errors=true"
        answer = opa.post(path, json=document)
        if answer.status_code != httpx.codes.OK:
            return False
        said[name] = answer.json().get("result")
    return bool(said["permit"]) and not said["deny"] and not said["hold"]


def test_no_limit_that_loads_lets_pass_on_opa_what_is_no_number_within_it() -> None:
    loaded = 0
    with run_opa() as server, httpx.Client(base_url=server.url.replace("opa:", "http:")) as opa:
        for number, rules in enumerate(load_those_that_pass()):
            package = f"a{number}"
            text = module(rules).replace("package policies.a\n", f"package policies.{package}\n")
            # OPA knows more of types, and refuses what can never be.
            if opa.put(f"/v1/policies/{package}", content=text).status_code != httpx.codes.OK:
                continue
            found = [value for value in VALUES if ask(opa, package, value)]
            assert all(may_pass(value, rules) for value in found), (found, rules)
            assert found == list(passing(rules)), rules
            opa.delete(f"/v1/policies/{package}")
            loaded += 5 in found
    assert loaded >= LOADED_MIN
