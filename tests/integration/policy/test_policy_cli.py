from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack, find_rego_root, load_bundle_dir
from gateway.cli import build
from gateway.cli.exits import Exit

app = build()

pytestmark = pytest.mark.req("GW-11")
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "acme" / "policies"


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


HELD = """package policies.a

permit contains {"code": "ok"}

hold contains {"code": "ask", "message": "two of them", "approval": {
	"stages": [
		{"any_of": [
			{"approve": 2, "who": {"groups": ["finance"]}},
			{"who": {"groups": ["cfo", "board"]}, "min_assurance": "strong"},
		]},
		{"any_of": [{"who": {"groups": ["legal"]}}]},
	],
	"ttl": "10m",
}}

obligation contains {"type": "notify", "channel": "security"}
"""


def ask(folder: Path, effect: str, phase: str = "call") -> Path:
    document = {
        "version": 1,
        "phase": phase,
        "resource": {"id": "shop.act", "server": "shop", "effect": effect},
        "context": {"args": {}, "token": {"scopes": ["tools:call"]}},
    }
    path = folder / "input.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("folder", [default_pack(), EXAMPLES])
def test_the_shipped_policies_pass_check(folder: Path) -> None:
    code, out, err = run("check", folder, "--no-tools")
    assert (code, err) == (Exit.OK, "")
    assert load_bundle_dir(folder).revision in out


def test_check_speaks_json() -> None:
    code, out, _ = run("check", default_pack(), "-o", "json")
    assert code == Exit.OK
    assert json.loads(out)["packages"] == sorted(load_bundle_dir(default_pack()).packages)


def test_check_tells_every_mistake_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text("package policies.a\ndeny := 1\nx := time.now_ns()\n")
    code, out, err = run("check", tmp_path, "--no-tools")
    assert (code, out) == (Exit.ERROR, "")
    assert [line.split(" ")[1] for line in err.splitlines()] == ["a.rego:2:1:", "a.rego:3:6:"]


def test_check_runs_the_policies_too(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text("package policies.a\nx := 1 if true\nx := 2 if true\n")
    code, _, err = run("check", tmp_path)
    assert code == Exit.ERROR
    assert "a.rego:3" in err


@pytest.mark.parametrize("folder", [find_rego_root(), EXAMPLES])
def test_the_shipped_tests_pass(folder: Path) -> None:
    code, out, err = run("test", folder)
    assert (code, err) == (Exit.OK, "")
    assert "FAIL" not in out
    assert "ERROR" not in out


def test_a_failing_test_exits_with_9_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_test.rego").write_text(
        'package a_test\ntest_ok := true\ntest_no if {\n\tprint("seen")\n\t1 == 2\n}\n'
        'test_error if to_number("x")\ntodo_test_later := true\n'
    )
    code, out, _ = run("test", tmp_path)
    assert code == Exit.TEST_FAILED
    assert "a_test.rego:3: data.a_test.test_no: FAIL" in out
    assert "  a_test.rego:4: seen" in out
    assert out.endswith("PASS: 1/4\nFAIL: 1/4\nERROR: 1/4\nSKIPPED: 1/4\n")
    code, out, _ = run("test", tmp_path, "-o", "json")
    assert code == Exit.TEST_FAILED
    found = {item["name"]: item for item in json.loads(out)}
    assert found["test_no"]["fail"]
    assert found["test_error"]["error"]["code"] == "eval_internal_error"
    assert found["todo_test_later"]["skip"]
    assert found["test_ok"]["package"] == "data.a_test"


def test_a_folder_without_tests_says_so(tmp_path: Path) -> None:
    code, out, err = run("test", tmp_path)
    assert code == Exit.OK
    assert "PASS: 0/0" in out
    assert "no tests found" in err


def test_tests_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a_test.rego").write_text("package {")
    code, _, err = run("test", tmp_path)
    assert code == Exit.ERROR
    assert "a_test.rego:1:9" in err


@pytest.mark.parametrize(
    ("effect", "exit_code", "outcome"),
    [("read", Exit.OK, "permit"), ("money", Exit.PENDING, "hold"), ("update", Exit.DENIED, "deny")],
)
def test_eval_prints_the_decision_and_exits_by_it(
    tmp_path: Path, effect: str, exit_code: Exit, outcome: str
) -> None:
    document = ask(tmp_path, effect)
    code, out, _ = run("eval", default_pack(), "--input", document, "-o", "json")
    assert code == exit_code
    assert json.loads(out)["outcome"] == outcome
    code, out, _ = run("eval", default_pack(), "--input", document)
    assert (code, out.splitlines()[0]) == (exit_code, outcome)


def test_eval_tells_people_who_is_asked_and_what_must_be_done(tmp_path: Path) -> None:
    (tmp_path / "authority.json").write_text('{"policies": {"a": ["shop"]}}')
    (tmp_path / "a.rego").write_text(HELD)
    code, out, _ = run("eval", tmp_path, "--input", ask(tmp_path, "money"))
    assert code == Exit.PENDING
    assert out.splitlines() == [
        "hold",
        "  ask: two of them (a)",
        "  asks 2 of finance, or 1 of cfo, board (strong) within 600 s",
        "  asks 1 of legal within 600 s",
        '  obligation: {"channel":"security","type":"notify"}',
    ]


def test_eval_refuses_what_is_no_input(tmp_path: Path) -> None:
    missing = tmp_path / "gone.json"
    assert run("eval", default_pack(), "--input", missing)[0] == Exit.USAGE
    broken = tmp_path / "broken.json"
    for text in ("{", "[]", '{"phase": "dance"}', '{"phase": "call", "phase": "list"}'):
        broken.write_text(text)
        code, out, err = run("eval", default_pack(), "--input", broken)
        assert (code, out) == (Exit.USAGE, "")
        assert err.startswith("error: ")


def test_eval_needs_policies_that_load(tmp_path: Path) -> None:
    code, _, err = run("eval", tmp_path, "--input", ask(tmp_path, "read"))
    assert code == Exit.ERROR
    assert "no policies" in err


def test_the_functions_of_policies_are_listed() -> None:
    code, out, _ = run("builtins")
    assert code == Exit.OK
    assert "sprintf" in out.split()
    assert "http.send" not in out.split()
