"""One list for both engines: what the gate lets policies call, OPA does too, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.policy.policy_bundle import build_bundle, default_pack, find_rego_root
from gateway.adapters.policy.policy_capabilities import build_capabilities, main
from gateway.core.errors import ConfigurationError
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.req("POL-12", "POL-05"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
FILE = find_rego_root() / "capabilities.json"
SYNTAX = {"assign", "eq", "internal.member_2", "internal.member_3", "internal.print"}


def opa(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert OPA is not None
    command = [OPA, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def current() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(opa("capabilities", "--current").stdout)
    return found


def call(builtin: dict[str, Any]) -> str:
    """Return a package that calls a function, whatever it takes."""
    operands = ", ".join(f"input.x[{n}]" for n in range(len(builtin["decl"].get("args", []))))
    if builtin["name"] == "count":  # of what may be a text, it is refused
        operands = f"[{operands}]"
    elif builtin["name"] in {"max", "min", "sort", "to_number"}:  # and these of any type
        operands = operands.replace("input", "data")
    elif builtin["name"] == "bits.lsh":  # by places that are written out
        operands = "input.x[0], 3"
    elif builtin["name"] == "walk":  # its answer is taken apart where it is asked
        return "\n\nx contains y if walk(input.x, [_, y])\n"
    called = f"{builtin['name']}({operands})"
    body = f"y := {called}" if "result" in builtin["decl"] else called
    return (
        f"\n\nx contains y if {{\n\ty := 1\n\t{called}\n}}\n" if body == called else f"\n\n{body}\n"
    )


def is_let_through(source: str) -> bool:
    try:
        build_bundle({"t.rego": f"package policies.t{source}"}, {})
    except ConfigurationError:
        return False
    return True


def test_the_file_is_made_of_opas_own_list(
    current: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(FILE.read_text()) == build_capabilities(current)
    monkeypatch.setattr("sys.stdin", _Text(json.dumps(current)))
    main()
    assert capsys.readouterr().out == FILE.read_text()


class _Text:
    def __init__(self, text: str) -> None:
        self.read = lambda: text


def test_the_gate_and_opa_let_the_same_functions_through(
    current: dict[str, Any], tmp_path: Path
) -> None:
    named = [
        each for each in current["builtins"] if each["name"] not in SYNTAX and "infix" not in each
    ]
    accepted, refused = tmp_path / "accepted", tmp_path / "refused"
    for number, each in enumerate(named):
        source = call(each)
        folder = accepted if is_let_through(source) else refused
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}.rego").write_text(f"package policies.t{number}{source}")
    done = opa("check", "--capabilities", FILE, accepted)
    assert done.returncode == 0, done.stderr
    done = opa("check", "--max-errors", "0", "--capabilities", FILE, refused)
    told = set(re.findall(r"/(f\d+\.rego):\d+: ", done.stderr))
    assert told == {file.name for file in refused.iterdir()}
    assert {named[int(file.stem[1:])]["name"] for file in accepted.iterdir()} == ALLOWED


@pytest.mark.parametrize(
    "source",
    ['\n\nx := $"a {input.b} c"\n', "\n\nx := $`a {input.b} c`\n", "\n\nx if print(1)\n"],
)
def test_what_the_embedded_engine_cannot_do_is_refused_by_both(source: str, tmp_path: Path) -> None:
    assert not is_let_through(source)
    (tmp_path / "t.rego").write_text(f"package policies.t{source}")
    assert opa("check", tmp_path).returncode == 0
    assert opa("check", "--capabilities", FILE, tmp_path).returncode == 1


@pytest.mark.parametrize("words", ["not", "and", "or"])
def test_words_of_another_rego_are_imported_on_neither_engine(words: str, tmp_path: Path) -> None:
    source = f"\n\nimport future.keywords.{words}\n\nx if input.a == 1\n"
    assert not is_let_through(source)
    (tmp_path / "t.rego").write_text(f"package policies.t{source}")
    assert opa("check", tmp_path).returncode == 0
    assert opa("check", "--capabilities", FILE, tmp_path).returncode == 1


@pytest.mark.parametrize(
    "path", ["rego.v1", *(f"future.keywords.{word}" for word in ("contains", "every", "if", "in"))]
)
def test_imports_that_change_nothing_are_let_through_by_both(path: str, tmp_path: Path) -> None:
    source = f"\n\nimport {path}\n\nx if input.a == 1\n"
    assert is_let_through(source)
    (tmp_path / "t.rego").write_text(f"package policies.t{source}")
    assert opa("check", "--capabilities", FILE, tmp_path).returncode == 0


def test_string_interpolation_is_refused_with_its_place_and_what_to_write_instead() -> None:
    with pytest.raises(ConfigurationError, match=r"t\.rego:3:6: .*`sprintf`"):
        build_bundle({"t.rego": 'package policies.t\n\nx := $"a {input.b} c"\n'}, {})


def test_the_shipped_policies_are_built_under_the_list(tmp_path: Path) -> None:
    root = find_rego_root()
    done = opa(
        *("build", "--capabilities", FILE, "--output", tmp_path / "bundle.tar.gz"),
        *("--ignore", "*_test.rego", "--ignore", "authority.json"),
        *(root / "countersign", default_pack()),
    )
    assert done.returncode == 0, done.stderr
