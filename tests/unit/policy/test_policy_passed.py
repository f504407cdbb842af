"""What passed the gate before passes again, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.gate.policy_passed import passed
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.core.errors import ConfigurationError

_ASKS_B: Final = """package policies.a

permit contains {"code": "small"} if {
	is_number(input.context.args.amount)
	input.context.args.amount <= data.policies.b.limit
}
"""
_TYPED_BY_B: Final = """package policies.a

permit contains {"code": "large"} if {
	data.policies.b.is_amount(input.context.args.amount)
	input.context.args.amount > 100
}
"""
_B: Final = "package policies.b\n\nlimit := 100\n\nis_amount(x) if is_number(x)\n"
_LIBRARY: Final = """package policies.c

import data.countersign.lib.args

deny contains {"code": "no"} if "no" in args.strings
"""
FILES: Final = {
    "a.rego": [
        'package policies.a\n\npermit contains {"code": "read"} if input.phase == "list"\n',
        _ASKS_B,
        _TYPED_BY_B,
        "package policies.a\n\nlimit := data.policies.b.limit\n",
        "package policies.a\n\ndeny := true\n",
        "package policies.a\n\ndeny {\n",
    ],
    "more_of_a.rego": [
        "",
        "package policies.a\n\nlimit := 7\n",
        "# METADATA\n# custom:\n#   applies_to: {tools: [x.y]}\npackage policies.a\n",
        'package policies.a\n\ndeny contains {"code": "far"} if distance > 3\n',
    ],
    "b.rego": [
        "",
        _B,
        "package policies.b\n\nlimit := data.policies.a.limit\n",
        "package policies.b\n\nlimit := input.context.args.limit\n\nis_amount(x) if x\n",
        "package policies.b\n\nlimits := 1\n",
    ],
    "c.rego": ["", _LIBRARY, _LIBRARY.replace("args.strings", "args.nothing")],
}
DATA: Final = {"authority": {"policies": {"a": ["*"]}}}
FOLDERS: Final = st.fixed_dictionaries(
    {path: st.sampled_from([*each[:3], *each]) for path, each in FILES.items()}
)


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    passed.forget()
    yield
    passed.forget()


def gate(folder: dict[str, str]) -> Bundle | str:
    try:
        return build_bundle({path: text for path, text in folder.items() if text}, DATA)
    except ConfigurationError as error:
        return str(error)


@given(st.lists(FOLDERS, min_size=2, max_size=5))
def test_what_is_remembered_changes_no_answer(folders: list[dict[str, str]]) -> None:
    passed.forget()
    remembered = [gate(folder) for folder in folders]
    for folder, found in zip(folders, remembered, strict=True):
        passed.forget()
        as_before = gate(folder) == found
        assert as_before  # a bundle is too long to be shown


def test_a_package_is_judged_anew_when_one_that_it_reads_changes() -> None:
    folder = {"a.rego": _TYPED_BY_B, "b.rego": _B}
    assert isinstance(gate(folder), Bundle)
    found = gate(folder | {"b.rego": FILES["b.rego"][3]})
    assert isinstance(found, str)
    assert found.startswith("a.rego:5:")
    assert isinstance(gate(folder), Bundle)


def test_of_a_folder_in_which_one_file_changed_that_file_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    parse = policy_ast.parse_module

    def note(path: str, source: str) -> policy_ast.Module | policy_ast.Fault:
        read.append(path)
        return parse(path, source)

    folder = {f"{name}.rego": f"package policies.{name}\n" for name in "pqrst"} | {"b.rego": _B}
    gate(folder)
    monkeypatch.setattr(policy_ast, "parse_module", note)
    gate(folder)
    assert read == []
    gate(folder | {"q.rego": "package policies.q\n\nx := 1\n"})
    assert read == ["q.rego"]
    # What a changed package reads is read too, for it is judged by that.
    gate(folder | {"q.rego": "package policies.q\n\nx := data.policies.b.limit\n"})
    assert read == ["q.rego", "q.rego", "b.rego"]
