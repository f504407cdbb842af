"""What authors type: check, test, eval, bench, new, question; and what they get wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack, find_rego_root
from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-06")

OPA = os.environ.get("COUNTERSIGN_OPA") or shutil.which("opa")
PERMIT = 'permit contains {"code": "ok"} if input.resource.effect == "read"\n'
OK = f"package policies.a\n\n{PERMIT}"


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), ["policy", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def write(folder: Path, **files: str) -> Path:
    (folder / "authority.json").write_text('{"policies": {"a": ["shop"]}}')
    for name, text in {"a": OK, **files}.items():
        (folder / f"{name}.rego").write_text(text)
    return folder


def report(folder: Path, *arguments: str) -> dict[str, Any]:
    code, out, _ = run("check", folder, "-o", "json", "--no-tools", *arguments)
    found: dict[str, Any] = json.loads(out)
    assert code == (Exit.OK if found["ok"] else Exit.ERROR)
    return found


def test_a_report_for_machines_names_every_part_of_a_fault(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a=OK + 'deny contains {"code": "no"} if {\n\tinput.context.args.n <= 100\n}\n',
        b="package policies.b.c\nx := 1\n",
        c="package policies.c\nx {\n\ttrue\n}\n",
    )
    found = report(folder)
    assert (found["ok"], found["revision"], found["packages"]) == (False, None, [])
    places = [(each["file"], each["row"], each["col"], each["code"]) for each in found["faults"]]
    assert places == [
        ("b.rego", 1, 1, "package_name"),
        ("c.rego", 2, 3, "v0_syntax"),
        ("a.rego", 5, 2, "unguarded_comparison"),
    ]
    assert all(each["message"] and each["hint"] for each in found["faults"])
    assert {each["severity"] for each in found["faults"]} == {"error"}


def test_warnings_are_told_and_do_not_fail_unless_asked_to(tmp_path: Path) -> None:
    folder = write(tmp_path, a=OK + "x if {\n\tunused := 1\n}\n")
    found = report(folder)
    assert (found["ok"], found["packages"]) == (True, ["a"])
    assert found["revision"].startswith("sha256:")
    (fault,) = found["faults"]
    assert (fault["severity"], fault["code"], fault["row"]) == ("warning", "unused_variable", 5)
    code, out, err = run("check", folder, "--no-tools")
    assert code == Exit.OK
    assert out.startswith("ok: 1 packages (a)")
    assert (
        err == "warning: a.rego:5:2: `unused` is declared and never used; write `_`, or remove it\n"
    )
    assert run("check", folder, "--no-tools", "--strict")[0] == Exit.ERROR


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "place", "remedy"),
    [
        ("deny[x] {\n\tx := 1\n}", "a.rego:5:9", "write `if` before the body"),
        ("deny contains x if {\n\tx := 1", "a.rego:7:1", "a `}` is missing"),
        ("x if y\ny if x", "a.rego:5:1", "take one of these out of the other"),
        ("x := 1\nx := 2", "a.rego:6:1", "write `default x := 1`"),
        ("x := 1 if true\nx := 2 if true", "a.rego:6", "exclude each other"),
        ("x contains 1\nx := 2", "a.rego:6:1", "another name"),
        ("x if input.context.args.n <= 100", "a.rego:5:6", "write `is_number("),
        ("x if not lower(input.x) == 1", "a.rego:5:16", "negate that"),
        ('deny := {"code": "no"}', "a.rego:5:1", "write `deny contains"),
        ('obligation contains {"type": "explode"}', "a.rego:5:30", "use one of add_label"),
        ('deny contains {"code": "NO"}', "a.rego:5:24", "`[a-z][a-z0-9_]*`"),
        ("x := data.policies.gone.x", "a.rego:5:6", "add it"),
        ("x := http.send({})", "a.rego:5:6", "put what they need into data.json"),
        ('x := $"{input.a}"', "a.rego:5:6", "sprintf"),
        ("x if recieve\nreceive if true", "a.rego:5:6", "did you mean `receive`?"),
    ],
)
def test_bad_input_is_refused_with_file_line_and_remedy(
    tmp_path: Path, rules: str, place: str, remedy: str
) -> None:
    code, out, err = run("check", write(tmp_path, a=f"{OK}\n{rules}\n"), "--no-tools")
    assert (code, out) == (Exit.ERROR, "")
    (line,) = [each for each in err.splitlines() if each.startswith("error: ")]
    assert line.startswith(f"error: {place}")
    assert remedy in line


def test_a_folder_or_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    code, _, err = run("check", tmp_path / "gone")
    assert code == Exit.ERROR
    assert "there is no such folder; name the one with the policies" in err
    (tmp_path / "a.rego").write_text(OK)
    code, _, err = run("check", tmp_path, "--no-tools")
    assert code == Exit.ERROR
    assert "authority.json: is missing" in err
    assert '{"policies": {"a": ["server"]}}' in err


def test_ten_megabytes_of_data_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    rows = {f"customer-{number}": {"limit": number, "note": "x" * 1100} for number in range(9_500)}
    (folder / "data.json").write_text(json.dumps({"customers": rows}))
    assert (folder / "data.json").stat().st_size > 10 << 20
    assert report(folder)["ok"]


@pytest.mark.parametrize("name", [b"\xff.rego", b"\xff_test.rego", b"\xff/data.json"])
def test_a_file_whose_name_is_no_text_is_told(tmp_path: Path, name: bytes) -> None:
    folder = write(tmp_path)
    file = folder / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}" if name.endswith(b"json") else "package policies.ff\n")
    (fault,) = report(folder)["faults"]
    assert fault["file"] == name.decode(errors="backslashreplace")
    assert (fault["code"], fault["hint"]) == ("file_unreadable", "rename it")


def test_data_larger_than_anybody_reads_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with (folder / "data.json").open("wb") as file:
        file.truncate((64 << 20) + 1)  # a hole: it takes no room
    (fault,) = report(folder)["faults"]
    assert (fault["file"], fault["code"], fault["hint"]) == (
        "data.json",
        "file_unreadable",
        "split it",
    )


def test_data_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "data.json").write_text('{"a": 1, "a": 2}')
    (fault,) = report(folder)["faults"]
    assert (fault["file"], fault["code"]) == ("data.json", "data_invalid")


def test_an_obligation_that_only_the_answer_shows_is_denied(tmp_path: Path) -> None:
    folder = write(tmp_path, a=OK + 'obligation contains {"type": concat("", ["expl", "ode"])}\n')
    code, out, _ = run("question", "shop.look")
    assert code == Exit.OK
    (tmp_path / "question.json").write_text(out)
    code, out, _ = run("eval", folder, "--input", tmp_path / "question.json", "-o", "json")
    assert code == Exit.DENIED
    assert json.loads(out)["reasons"][0]["code"] == "obligation_unknown"


# --- other people's tools -----------------------------------------------------------------------


def test_missing_tools_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run("check", default_pack())
    assert code == Exit.OK
    (line,) = err.splitlines()
    assert line.startswith("note: not on PATH, so not asked for: opa: ")
    assert "regal: style" in line


@pytest.mark.skipif(OPA is None, reason="no opa: set COUNTERSIGN_OPA or install it on PATH")
def test_what_opa_finds_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools := tmp_path / "bin").mkdir()
    (tools / "opa").symlink_to(str(OPA))
    monkeypatch.setenv("PATH", str(tools))
    (folder := tmp_path / "policies").mkdir()
    rules = 'import data.countersign.lib.args\nx if {\n\tunused := args.number("n")\n    true\n}\n'
    write(folder, a=OK.replace("\n\n", f"\n{rules}\n", 1))
    code, out, _ = run("check", folder, "-o", "json")
    assert code == Exit.OK
    found = json.loads(out)
    by_opa = {
        each["code"]: each for each in found["faults"] if not each["code"].startswith("unused")
    }
    assert by_opa["opa_rego_compile_error"]["message"] == "assigned var unused unused"
    assert (by_opa["opa_rego_compile_error"]["file"], by_opa["opa_rego_compile_error"]["row"]) == (
        "a.rego",
        4,
    )
    assert "opa fmt --diff" in by_opa["format"]["hint"]
    assert [note for note in found["notes"] if "regal" in note]


REGAL = """#!/bin/sh
echo '{"violations": [{"title": "prefer-snake-case", "description": "Prefer snake_case for names",
 "category": "style", "level": "error",
 "location": {"file": "'"$4"'/a.rego", "row": 3, "col": 1}}]}'
exit 3
"""


def test_what_regal_finds_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers as `regal lint --format json` does stands in for it."""
    (tools := tmp_path / "bin").mkdir()
    (tools / "regal").write_text(REGAL)
    (tools / "regal").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    (folder := tmp_path / "policies").mkdir()
    code, out, _ = run("check", write(folder), "-o", "json")
    assert code == Exit.OK
    (fault,) = [each for each in json.loads(out)["faults"] if each["code"].startswith("regal")]
    assert fault == {
        "file": "a.rego",
        "row": 3,
        "col": 1,
        "code": "regal_prefer-snake-case",
        "message": "Prefer snake_case for names (style/prefer-snake-case)",
        "hint": "found by `regal lint`",
        "severity": "warning",
    }


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\necho nonsense\n", "#!/bin/sh\necho '[]'\n", "no program"]
)
def test_a_tool_that_fails_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tools := tmp_path / "bin").mkdir()
    (tools / "regal").write_text(text)
    (tools / "regal").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    (folder := tmp_path / "policies").mkdir()
    code, _, err = run("check", write(folder))
    assert code == Exit.OK
    assert "`regal` gave no usable answer" in err


# --- test ---------------------------------------------------------------------------------------

TESTS = """package a_test

import data.policies.a

test_reads if count(a.permit) == 1 with input.resource.effect as "read"

test_cases[name] if {
	some name, n in {"one": 1, "two": 2}
	print("case", name)
	n == 1
}
"""


def test_cases_are_counted_and_output_is_shown_where_it_matters(tmp_path: Path) -> None:
    folder = write(tmp_path, a_test=TESTS)
    code, out, _ = run("test", folder)
    assert code == Exit.TEST_FAILED
    assert "data.a_test.test_cases: FAIL" in out
    assert "  one: PASS\n  two: FAIL\n" in out
    assert "a_test.rego:9: case one" in out
    assert out.endswith("PASS: 2/3\nFAIL: 1/3\n")
    (folder / "a_test.rego").write_text(TESTS.replace("n == 1", "n < 3"))
    assert "case one" not in run("test", folder)[1]
    assert "case one" in run("test", folder, "-v")[1]


FAILING = """package a_test

import data.policies.a

test_cases[name] if {
	some name, effect in {"a read": "read", "a payment": "money"}
	ask := {"effect": effect}
	count(a.permit) == 1 with input.resource as ask
}

test_all if count(a.permit) == 1 with input as {"resource": {}}
"""


def test_failing_tests_show_the_values_at_which_they_stopped(tmp_path: Path) -> None:
    code, out, _ = run("test", write(tmp_path, a_test=FAILING))
    assert code == Exit.TEST_FAILED
    assert (
        """  a payment: FAIL
  a read: PASS
  a payment: stopped at a_test.rego:8: count(a.permit) == 1 with input.resource as ask
      count(a.permit) = 0
      a.permit = []
      ask = {"effect":"money"}
      permit a.rego:3 stopped at 3:35: input.resource.effect == "read"
          input.resource.effect = "money"
"""
        in out
    )
    assert "          input.resource.effect = undefined: `input.resource` has no `effect`\n" in out


def test_a_new_package_can_ask_what_all_packages_say(tmp_path: Path) -> None:
    shutil.copytree(default_pack(), folder := tmp_path / "policies")
    run("new", folder, "mine", "--tool", "bank.pay", "--effect", "money", "--role", "clerk")
    path = folder / "mine_test.rego"
    path.write_text(
        f'{path.read_text()}\ntest_all if decision("call", ["clerk"], {{}}).outcome == "permit"\n'
    )
    code, out, _ = run("test", folder, "-r", "mine_test.test_all")
    assert code == Exit.TEST_FAILED
    assert 'decision("call", ["clerk"], {}) = hold: money_needs_approval (high_risk)' in out
    (folder / "data.json").write_text('{"settings": {"high_risk": {"except": ["bank.pay"]}}}')
    assert run("test", folder, "-r", "mine_test")[0] == Exit.OK


def test_tests_are_chosen_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path, a_test=TESTS)
    code, out, _ = run("test", folder, "-r", r"a_test\.test_r")
    assert (code, "test_cases" in out) == (Exit.OK, False)
    code, _, err = run("test", folder, "-r", "(")
    assert code == Exit.USAGE
    assert "`--run` is no regular expression" in err
    assert run("test", folder, "-r", "nobody")[0] == Exit.OK
    assert run("test", folder, "-r", "nobody", "--fail-on-empty")[0] == Exit.TEST_FAILED


def test_too_little_coverage_fails(tmp_path: Path) -> None:
    folder = write(
        tmp_path, a_test=TESTS.replace("n == 1", "n < 3"), b="package policies.b\nx if input.y\n"
    )
    code, out, _ = run("test", folder, "--coverage")
    assert code == Exit.OK
    files = json.loads(out)["files"]
    assert files["a.rego"]["coverage"] == 100
    assert [each["start"]["row"] for each in files["b.rego"]["not_covered"]] == [2]
    assert run("test", folder, "--threshold", "50")[0] == Exit.OK
    code, _, err = run("test", folder, "--threshold", "99")
    assert code == Exit.TEST_FAILED
    assert re.search(r"error: \d+\.\d\d % of the lines are reached, 99\.00 % are asked for", err)


# --- eval and bench -----------------------------------------------------------------------------


def ask(folder: Path, *arguments: str, tool: str = "shop.look") -> Path:
    _, out, _ = run("question", tool, *arguments)
    path = folder / "question.json"
    path.write_text(out)
    return path


def test_an_explanation_can_be_read_by_machines(tmp_path: Path) -> None:
    folder = write(tmp_path)
    question = ask(tmp_path, "--effect", "money")
    code, out, _ = run("eval", folder, "--input", question, "--explain", "-o", "json")
    found = json.loads(out)
    assert (code, found["decision"]["outcome"]) == (Exit.DENIED, "deny")
    (rule,) = found["heard"][0]["rules"]
    assert (rule["rule"], rule["file"], rule["row"], rule["items"]) == ("permit", "a.rego", 3, [])
    assert rule["stopped"]["values"] == {"input.resource.effect": ["money"]}


def test_an_explanation_says_why_a_permit_does_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "authority.json").write_text('{"policies": {"a": ["bank"]}}')
    code, out, _ = run("eval", folder, "--input", ask(tmp_path), "--explain")
    assert code == Exit.DENIED
    assert "permit a.rego:3 holds: ok" in out
    assert "does not count: authority.json does not give this server to the package" in out


def test_a_bench_tells_what_each_package_adds(tmp_path: Path) -> None:
    folder = write(
        tmp_path, b='package policies.b\ndeny contains {"code": "no"} if input.phase == "x"\n'
    )
    code, out, _ = run("bench", folder, "--input", ask(tmp_path), "--count", "40", "-o", "json")
    assert code == Exit.OK
    found = json.loads(out)
    assert 0 < found["p50_us"] <= found["p99_us"]
    assert found["packages"].keys() == {"a", "b"}


# --- new and question ---------------------------------------------------------------------------


def test_a_new_package_loads_and_passes_its_tests(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    code, out, _ = run("new", folder, "refunds", "--tool", "billing.refund")
    assert code == Exit.OK
    assert "next: countersign policy test" in out
    assert report(folder)["ok"]
    assert run("test", folder)[0] == Exit.OK
    assert run("new", folder, "payouts", "--tool", "bank.pay")[0] == Exit.OK
    owned = json.loads((folder / "authority.json").read_text())["policies"]
    assert owned == {"refunds": ["billing"], "payouts": ["bank"]}


def test_a_new_package_is_about_the_effect_and_the_role_that_are_given(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(default_pack(), folder)
    code, out, _ = run(
        *("new", folder, "vouchers", "--tool", "billing.voucher"),
        *("--effect", "money", "--role", "support"),
    )
    assert code == Exit.OK
    assert '"support" in input.subject.roles' in (folder / "vouchers.rego").read_text()
    assert '"effect": "money"' in (folder / "vouchers_test.rego").read_text()
    assert run("test", folder, "-r", "vouchers")[0] == Exit.OK
    # Whoever writes a package takes it for the only one.
    assert "also heard about `billing.voucher`: egress (deny, hold)" in out
    assert "high_risk (permit, hold)" in out
    assert "calendar" not in out, "it is off, and says nothing"
    settings = '{"settings": {"high_risk": {"except": ["billing.voucher"]}}}'
    assert f"write {settings} into {folder / 'data.json'}" in out
    (folder / "data.json").write_text(settings)
    question = ask(tmp_path, "--effect", "money", "--role", "support", tool="billing.voucher")
    assert run("eval", folder, "--input", question)[1].startswith("permit\n  vouchers_permitted")
    more = run("new", folder, "more", "--tool", "billing.voucher", "--effect", "money")[1]
    assert "high_risk` leaves it out" not in more


@pytest.mark.parametrize(("effect", "package"), [("read", "reads"), ("update", "writes")])
def test_a_new_package_is_told_who_permits_the_tool_too(
    tmp_path: Path, effect: str, package: str
) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(default_pack(), folder)
    out = run("new", folder, "mine", "--tool", "crm.find", "--effect", effect)[1]
    assert f"so `{package}` may permit it too; to refuse somebody, write a `deny`" in out


def test_a_new_package_replaces_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path)
    code, _, err = run("new", folder, "a", "--tool", "shop.look")
    assert code == Exit.CONFLICT
    assert "is there already" in err
    assert (folder / "a.rego").read_text() == OK
    (folder / "authority.json").write_text("[]")
    code, _, err = run("new", folder, "b", "--tool", "shop.look")
    assert code == Exit.ERROR
    assert "authority.json cannot be read" in err
    assert not (folder / "b.rego").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("new", ".", "No Name", "--tool", "shop.look"), "rename it"),
        (("new", ".", "name", "--tool", "shop"), "no tool id"),
        (("question", "shop"), "no tool id"),
        (("question", "shop.look", "--phase", "later"), "none of issue, list"),
        (("question", "shop.look", "--effect", "fun"), "none of read"),
        (("new", ".", "name", "--tool", "shop.look", "--effect", "fun"), "none of read"),
        (("new", ".", "name", "--tool", "shop.look", "--role", "a b"), "is no role"),
        (("question", "shop.look", "--now", "noon"), "write date, time, and `Z`"),
        (("question", "shop.look", "--now", "2026-11-21"), "write date, time, and `Z`"),
        (("question", "shop.look", "--now", "2026-02-30T00:00:00Z"), "is no time"),
        (("question", "shop.look", "--count", "many"), "`--count many` cannot be read"),
        (("question", "shop.look", "--count", "-1"), "cannot be read"),
        (("question", "shop.look", "--sum", "/amount=true"), "cannot be read"),
        (("question", "shop.look", "--sum", "/amount=["), "cannot be read"),
        (("question", "shop.look", "--sink", "/to=evil"), "one of allowed, trusted"),
        (("question", "shop.look", "--args", "["), "cannot be read"),
        (("question", "shop.look", "--args", "[]"), "no JSON object"),
    ],
)
def test_what_cannot_be_made_is_said(arguments: tuple[str, ...], text: str) -> None:
    code, _, err = run(*arguments)
    assert code == Exit.USAGE
    assert text in err


@pytest.mark.parametrize("phase", ["issue", "list", "call", "result", "resume"])
def test_a_question_of_any_phase_can_be_asked(tmp_path: Path, phase: str) -> None:
    question = ask(tmp_path, "--phase", phase, "--role", "clerk")
    assert run("eval", default_pack(), "--input", question)[0] in {
        Exit.OK,
        Exit.DENIED,
        Exit.PENDING,
    }


SCHEMA = json.loads((find_rego_root() / "schemas" / "input.v1.json").read_text())


def questioned(*arguments: str) -> dict[str, Any]:
    code, out, _ = run("question", "bank.pay", "--effect", "money", *arguments)
    assert code == Exit.OK
    found: dict[str, Any] = json.loads(out)
    jsonschema_rs.validator_for(SCHEMA).validate(found)
    return found


def test_a_question_says_at_what_time_it_is_asked() -> None:
    _, out, err = run("question", "bank.pay")
    assert err == "note: asked at 2023-11-15T12:00:00Z, a Wednesday; `--now` sets another time\n"
    assert json.loads(out)["context"]["now_ns"] == 1_700_049_600_000_000_000
    _, out, err = run("question", "bank.pay", "--now", "2026-11-21T18:30:00.5+01:00")
    assert err == "note: asked at 2026-11-21T18:30:00.500000+01:00, a Saturday\n"
    assert json.loads(out)["context"]["now_ns"] == 1_795_282_200_500_000_000


def test_a_question_says_what_the_run_has_done() -> None:
    found = questioned("--count", "2", "--count", "mail.read=60", "--sum", "/amount=7.5")
    run_, family = found["context"]["run"], found["context"]["family"]
    assert run_["counts"] == {"bank.pay": 2, "mail.read": 60} == family["last_24h"]["counts"]
    assert (run_["calls"], run_["step"], len(run_["recent"])) == (62, 63, 50)
    assert run_["sums"] == {"bank.pay#/amount": 7.5} == family["sums"]
    assert found["resource"]["sums"] == ["/amount"]
    found = questioned("--repeats", "3", "--sum", "bank.move#/cents=1")
    assert (found["context"]["run"]["repeats"], found["context"]["run"]["calls"]) == (3, 3)
    assert found["resource"]["sums"] == []


def test_a_question_says_what_the_run_has_read() -> None:
    found = questioned("--label", "untrusted", "--sink", "/to=untrusted", "--sink", "/cc=trusted")
    assert found["context"]["run"]["labels"] == ["untrusted"]
    assert found["context"]["run"]["provenance"] == {"/to": "untrusted", "/cc": "trusted"}
    assert found["resource"]["sinks"] == ["/cc", "/to"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--count", "100"), "too_many_of_one"),
        (("--sum", "/amount=399999"), "amount_over_limit"),
        (("--sink", "/to=untrusted"), "recipient_untrusted"),
        (("--label", "secret", "--sink", "/to=unseen"), "secret_would_leave"),
    ],
)
def test_the_pack_can_be_tried_on_every_history(
    tmp_path: Path, options: tuple[str, ...], code: str
) -> None:
    arguments = ("--effect", "money", "--args", '{"amount": 2, "to": "x"}', *options)
    question = ask(tmp_path, *arguments, tool="bank.pay")
    exit_code, out, _ = run("eval", default_pack(), "--input", question)
    assert exit_code == Exit.DENIED
    assert code in out


# --- check, beside a configuration --------------------------------------------------------------

MANIFEST = """id: billing
transport: http
egress: [billing.example]
auth: none
tools:
  - name: refund
    effect: money
"""
SERVERS = """servers:
  billing: {transport: http, url: "http://127.0.0.1:9000/mcp", manifest: manifests/billing.yaml}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    folder = tmp_path / "my-gateway"
    assert CliRunner().invoke(build(), ["init", str(folder)]).exit_code == Exit.OK
    (folder / "manifests" / "billing.yaml").write_text(MANIFEST)
    config = folder / "countersign.yaml"
    config.write_text(config.read_text().replace("servers: {}\n", SERVERS))
    for tool in ("billing.refund", "billing.refnd"):
        run("new", folder / "policies", tool.partition(".")[2], "--tool", tool)
    return folder


def warned(*arguments: str | Path) -> list[str]:
    code, out, _ = run("check", *arguments, "--no-tools", "-o", "json")
    assert code == Exit.OK
    return [each["code"] for each in json.loads(out)["faults"]]


def test_check_asks_the_configuration_beside_the_policies(gateway: Path) -> None:
    assert warned(gateway / "policies") == ["tool_unknown"]
    _, _, err = run("check", gateway / "policies", "--no-tools")
    assert err == (
        "warning: refnd.rego:7:1: `applies_to` names `billing.refnd`, and no manifest of "
        "countersign.yaml has it; did you mean `billing.refund`?\n"
    )


def test_check_asks_the_configuration_that_is_given(gateway: Path, tmp_path: Path) -> None:
    shutil.copytree(gateway / "policies", elsewhere := tmp_path / "elsewhere")
    assert warned(elsewhere) == []
    assert warned(elsewhere, "--config", gateway / "countersign.yaml") == ["tool_unknown"]
    code, _, err = run("check", elsewhere, "--no-tools", "--config", tmp_path / "gone.yaml")
    assert code == Exit.ERROR
    assert "gone.yaml" in err


def test_a_configuration_of_other_policies_says_nothing(
    gateway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(gateway / "policies", beside := gateway / "candidate")
    assert warned(beside) == []
    monkeypatch.chdir(gateway)
    assert warned("policies") == ["tool_unknown"]
    (other := tmp_path / "other").mkdir()
    assert warned(write(other)) == []


def test_a_configuration_that_cannot_be_read_is_a_note(gateway: Path) -> None:
    (gateway / "manifests" / "billing.yaml").write_text("id: [")
    code, _, err = run("check", gateway / "policies", "--no-tools")
    assert code == Exit.OK
    assert "countersign.yaml cannot be read, so not asked" in err
