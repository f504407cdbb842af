"""Policies with a hole planted in each, and the search that has to find it (POL-09)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-09")

app = build("policy")

MANIFEST: Final = """\
id: bank
transport: http
egress: [127.0.0.1]
auth: none
tools:
  - {name: pay, effect: money, sums: [/amount]}
  - {name: tip, effect: money}
  - {name: inbox, effect: read, labels: [untrusted]}
  - {name: close, effect: delete}
  - {name: export, effect: external_send, sinks: [/country]}
"""
NUMBER: Final = {"type": "number"}
TEXT: Final = {"type": "string"}
TOOLS: Final = {
    "pay": {"amount": {"type": "number", "minimum": 0}, "to": TEXT, "memo": TEXT},
    "tip": {"amount": {"type": ["number", "null"]}, "to": TEXT},
    "inbox": {"folder": TEXT},
    "close": {"account": TEXT, "amount": {}},
    "export": {"country": TEXT, "note": TEXT},
}
HEAD: Final = """package policies.bank

acting if input.phase in {"call", "resume"}

called(name) if {
	acting
	input.resource.id == sprintf("bank.%s", [name])
}

amount := input.context.args.amount

spent := object.get(input.context.run.sums, "bank.pay#/amount", 0)
"""
CAPPED: Final = """
permit contains {"code": "small"} if {
	called("pay")
	is_number(amount)
	amount <= 3000
	%s
}
"""

Hole = tuple[str, str, str, str]
HOLES: Final[list[Hole]] = [
    (
        "null among the amounts",
        """
permit contains {"code": "tip"} if {
	called("tip")
	input.context.args.amount in {null, 1, 2, 3}
}""",
        """
permit contains {"code": "tip"} if {
	called("tip")
	is_number(input.context.args.amount)
	input.context.args.amount <= 100
}""",
        "no agent can call bank.tip with /amount is null",
    ),
    (
        "one zero too many",
        """
permit contains {"code": "close"} if called("close")
deny contains {"code": "large"} if {
	called("close")
	is_number(amount)
	amount > 1000
}
deny contains {"code": "unclear"} if {
	called("close")
	not counted
}
counted if is_number(amount)""",
        """
small if {
	is_number(amount)
	amount <= 100
}
permit contains {"code": "close"} if {
	called("close")
	small
}""",
        "no agent can call bank.close with /amount not <= 100",
    ),
    (
        "a missing cumulative cap",
        CAPPED % "amount >= 0",
        CAPPED % "is_number(spent); spent + amount <= 10000",
        "no agent can move more than 10,000 in a run without a hold",
    ),
    (
        "a cap per call only",
        CAPPED % "amount <= 2500",
        CAPPED % "is_number(spent); spent + amount <= 5000",
        "no agent can move more than 5,000 in a run through bank.pay",
    ),
    (
        "an environment misspelt",
        """
permit contains {"code": "close"} if called("close")
deny contains {"code": "not_here"} if {
	called("close")
	input.environment == "production"
}""",
        """
permit contains {"code": "close"} if called("close")
deny contains {"code": "not_here"} if {
	called("close")
	input.environment == "prod"
}""",
        "no agent can use delete tools in prod",
    ),
    (
        "the case of strings",
        """
permit contains {"code": "export"} if called("export")
deny contains {"code": "embargo"} if {
	called("export")
	input.context.args.country == "kp"
}""",
        """
country := trim_space(lower(input.context.args.country)) if is_string(input.context.args.country)
permit contains {"code": "export"} if called("export")
deny contains {"code": "embargo"} if {
	called("export")
	country == "kp"
}""",
        "no agent can call bank.export with /country like kp",
    ),
    (
        "a phase forgotten",
        """
permit contains {"code": "payment"} if {
	called("pay")
	is_number(amount)
}
hold contains {"code": "ask"} if {
	called("pay")
	is_number(amount)
	amount > 100
}
deny contains {"code": "too_much"} if {
	input.phase == "call"
	called("pay")
	is_number(amount)
	is_number(spent)
	spent + amount > 10000
}""",
        """
permit contains {"code": "payment"} if {
	called("pay")
	is_number(amount)
}
hold contains {"code": "ask"} if {
	called("pay")
	is_number(amount)
	amount > 100
}
deny contains {"code": "too_much"} if {
	called("pay")
	is_number(amount)
	is_number(spent)
	spent + amount > 10000
}""",
        "no agent can move more than 10,000 in a run",
    ),
    (
        "a label forgotten",
        """
permit contains {"code": "export"} if called("export")
permit contains {"code": "inbox"} if called("inbox")
deny contains {"code": "tainted"} if {
	called("export")
	"secret" in input.context.run.labels
}""",
        """
permit contains {"code": "export"} if called("export")
permit contains {"code": "inbox"} if called("inbox")
deny contains {"code": "tainted"} if {
	called("export")
	"untrusted" in input.context.run.labels
}""",
        "no agent can use external_send tools after reading untrusted data",
    ),
]
NAMES: Final = [hole[0].replace(" ", "-") for hole in HOLES]


class Bank:
    """A folder with a manifest, definitions and policies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.policies, self.out = folder, folder / "policies", folder / "found"
        self.policies.mkdir()
        (folder / "bank.yaml").write_text(MANIFEST)
        offered = [
            {"name": name, "inputSchema": {"type": "object", "properties": properties}}
            for name, properties in TOOLS.items()
        ]
        (folder / "bank.json").write_text(json.dumps({"tools": offered}))
        (self.policies / "authority.json").write_text('{"policies": {"bank": ["bank"]}}')

    def write(self, rules: str) -> Bank:
        (self.policies / "bank.rego").write_text(HEAD + rules)
        return self

    def arguments(self, *statements: str, tries: int = 3_000) -> list[str]:
        options = ["--manifest", str(self.folder / "bank.yaml"), "--out", str(self.out)]
        options += ["--definitions", f"bank={self.folder / 'bank.json'}", "--tries", str(tries)]
        for each in statements:
            options += ["-s", each]
        return ["policy", "search", str(self.policies), *options]

    def search(self, *statements: str, tries: int = 3_000) -> tuple[int, list[dict[str, Any]]]:
        arguments = [*self.arguments(*statements, tries=tries), "-o", "json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in {Exit.OK, Exit.TEST_FAILED}, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return result.exit_code, found


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path)


@pytest.mark.parametrize(("name", "planted", "fixed", "statement"), HOLES, ids=NAMES)
def test_a_planted_hole_is_found_minimised_and_none_is_reported_once_it_is_closed(
    bank: Bank, name: str, planted: str, fixed: str, statement: str
) -> None:
    code, (found,) = bank.write(planted).search(statement)
    assert (code, found["found"]) == (Exit.TEST_FAILED, True), name
    last = found["moments"][-1]
    evaluated = CliRunner().invoke(
        app, ["policy", "eval", str(bank.policies), "--input", last["input"], "-o", "json"]
    )
    assert evaluated.stdout, (evaluated.output, evaluated.exception)
    assert json.loads(evaluated.stdout)["outcome"] == {"approved": "hold"}.get(
        last["goes"], last["goes"]
    )
    assert found["world"] == PLAIN
    code, (none,) = bank.write(fixed).search(statement, tries=500)
    assert (code, none["found"]) == (Exit.OK, False), none


PLAIN: Final[dict[str, Any]] = {
    "environment": "prod",
    "agent": "agent",
    "owner": "",
    "roles": [],
    "human": None,
    "client": "launcher",
    "workflow": "",
    "origin": "launcher",
    "allowed_values": {},
    "labels": [],
    "start_s": 1_795_518_000,
}


def test_four_payments_of_3000_are_found_where_each_alone_is_small(bank: Bank) -> None:
    bank.write(CAPPED % "amount >= 0")
    _, (found,) = bank.search("no agent can move more than 10,000 in a run without a hold")
    amounts = [moment["args"]["amount"] for moment in found["moments"]]
    assert len(amounts) == 4
    assert sum(amounts) == 10_001
    assert all(set(moment["args"]) == {"amount"} for moment in found["moments"])


def test_people_who_agree_one_by_one_are_found_where_resume_was_forgotten(bank: Bank) -> None:
    bank.write(HOLES[6][1])
    _, (found,) = bank.search(HOLES[6][3])
    assert [moment["goes"] for moment in found["moments"]][-1] == "approved"
    assert [moment["phase"] for moment in found["moments"]].count("resume") >= 2
    assert sum(m["args"]["amount"] for m in found["moments"] if m["phase"] == "resume") == 10_001


def test_the_same_seed_finds_the_same_run(bank: Bank) -> None:
    bank.write(CAPPED % "amount >= 0")
    sentence = "no agent can move more than 10,000 in a run"
    _, (first,) = bank.search(sentence)
    _, (again,) = bank.search(sentence)
    assert first == again


def test_what_is_not_found_is_told_with_how_far_was_looked(bank: Bank) -> None:
    bank.write(CAPPED % "is_number(spent); spent + amount <= 10000")
    result = CliRunner().invoke(
        app, bank.arguments("no agent can move more than 10,000 in a run", tries=200)
    )
    assert result.exit_code == Exit.OK
    assert "none found" in result.stdout
    assert "tried 200 runs (" in result.stdout
    assert "that proves nothing" in result.stdout
    assert "proven" not in result.stdout


LIST: Final = """\
statements:
  - no agent can use delete tools
  - id: big
    text: no agent can move more than 3,000 in one call
  - id: own
    never:
      outcome: [permit, hold]
      when:
        effect: money
        "run.sums + args[/amount]": "> 5000"
"""


def test_a_list_of_statements_is_gone_through_in_ci(bank: Bank) -> None:
    bank.write(CAPPED % "amount >= 0")
    file = bank.folder / "statements.yaml"
    file.write_text(LIST)
    result = CliRunner().invoke(app, [*bank.arguments(str(file), tries=800), "--all"])
    assert result.exit_code == Exit.TEST_FAILED
    assert result.stdout.count("none found") == 2
    assert result.stdout.count("counterexample:") == 1
    assert (bank.out / "own").is_dir()


WRONG: Final = [
    ("agents should be nice", "is no sentence that is understood"),
    ("no agent can call bank.nothing", "no tool of the catalog"),
    ("no agent can use privilege tools", "no tool of the catalog"),
    ("no agent can call bank.pay with /amount is funny", "`is funny`"),
    ("no agent can call bank.pay with /amount > ten", "`ten` is no number"),
]


@pytest.mark.parametrize(("statement", "words"), WRONG)
def test_a_statement_that_means_nothing_is_refused(bank: Bank, statement: str, words: str) -> None:
    bank.write(CAPPED % "amount >= 0")
    result = CliRunner().invoke(app, bank.arguments(statement))
    assert result.exit_code == Exit.USAGE
    assert words in result.stderr


def test_without_schemas_arguments_are_taken_from_what_policies_name(bank: Bank) -> None:
    bank.write(CAPPED % "amount >= 0")
    manifest = str(bank.folder / "bank.yaml")
    arguments = ["policy", "search", str(bank.policies), "--manifest", manifest]
    arguments += ["--out", str(bank.out), "-s", "no agent can move more than 10,000 in a run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.TEST_FAILED
    assert "the schema of `bank.pay` is not known" in result.stderr


def test_the_smallest_counterexample_has_no_word_and_no_member_too_many(bank: Bank) -> None:
    bank.write(
        """
permit contains {"code": "close"} if {
	called("close")
	object.get(input.context.args, "account", "") != "keep"
}"""
    )
    _, (found,) = bank.search("no agent can call bank.close with /account is string")
    assert [moment["args"] for moment in found["moments"]] == [{"account": ""}]


def test_what_a_money_tool_without_sums_moves_is_said_not_to_be_seen(bank: Bank) -> None:
    bank.write(CAPPED % "amount >= 0")
    result = CliRunner().invoke(app, bank.arguments("no agent can use delete tools", tries=50))
    assert "`bank.tip` has no `sums`" in result.stderr
    assert "bank.pay` has no" not in result.stderr


def test_who_may_call_is_searched_among_the_names_that_policies_name(bank: Bank) -> None:
    bank.write(
        """
permit contains {"code": "close"} if {
	called("close")
	input.subject.id in {"ann", "mallory"}
}"""
    )
    _, (found,) = bank.search("only ann can call bank.close")
    assert found["world"]["agent"] == "mallory"


def test_what_is_given_wrongly_is_told(bank: Bank, tmp_path: Path) -> None:
    bank.write(CAPPED % "amount >= 0")
    sentence = "no agent can use delete tools"
    arguments = bank.arguments(sentence)
    for options, code, words in (
        (["--definitions", "bank"], Exit.ERROR, "is not SERVER=FILE"),
        (["--definitions", "bank=nowhere"], Exit.ERROR, "cannot be read"),
        (["--config", str(tmp_path / "none.yaml")], Exit.ERROR, "none.yaml"),
        (["--recorded"], Exit.USAGE, "countersign.yaml"),
    ):
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == code, result.output
        assert words in result.stderr
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    result = CliRunner().invoke(app, [*arguments, "--definitions", f"bank={empty}"])
    assert "has no `tools`" in result.stderr
    no_tools = ["policy", "search", str(bank.policies), "-s", sentence]
    assert CliRunner().invoke(app, no_tools).exit_code == Exit.USAGE
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("a: [")
    assert CliRunner().invoke(app, bank.arguments(str(wrong))).exit_code == Exit.USAGE
    wrong.write_text("statements: {}")
    assert "has no list of statements" in CliRunner().invoke(app, bank.arguments(str(wrong))).stderr
    (bank.policies / "bank.rego").write_text("package policies.bank\npermit := 1\n")
    assert CliRunner().invoke(app, arguments).exit_code == Exit.ERROR


@pytest.mark.req("POL-09")
def test_the_files_of_a_counterexample_are_for_their_owner_alone_wherever_they_are_put(
    bank: Bank,
) -> None:
    """With `--recorded` they hold what somebody called a tool with."""
    bank.write(HOLES[0][1])
    bank.search(HOLES[0][3])
    files = sorted(bank.out.rglob("*.json"))
    assert files
    (mine := bank.folder / "mine").write_text("mine")
    files[0].unlink()
    files[0].symlink_to(mine)
    files[0].parent.chmod(0o755)
    bank.search(HOLES[0][3])
    assert mine.read_text() == "mine"
    assert {file.lstat().st_mode & 0o077 for file in files} == {0}


def test_a_search_leaves_no_files_that_nobody_asked_for(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    (away := bank.folder / "away").mkdir()
    monkeypatch.chdir(away)
    arguments = bank.write(HOLES[0][1]).arguments(HOLES[0][3])
    at = arguments.index("--out")
    del arguments[at : at + 2]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.TEST_FAILED
    assert "01-call  bank." in result.stdout
    assert "`--out DIR`" in result.stdout
    assert list(away.iterdir()) == []
    assert not bank.out.exists()


PACK: Final = Path(__file__).parents[3] / "rego/policies"
AFTER: Final = "no agent can use external_send tools after reading {} data"


@pytest.mark.parametrize("unless", ["", " without a hold"])
def test_the_default_pack_breaks_the_sentence_about_labels_within_few_runs(
    bank: Bank, unless: str
) -> None:
    arguments = bank.arguments(AFTER.format("untrusted") + unless, tries=300)
    arguments[2] = str(PACK)
    result = CliRunner().invoke(app, [*arguments, "-o", "json"])
    (found,) = json.loads(result.stdout)
    assert result.exit_code == Exit.TEST_FAILED, found
    assert found["premise_reached"]
    assert found["ended"] == "found"
    assert [moment["tool"] for moment in found["moments"]][:2] == ["bank.inbox", "bank.export"]


def test_what_policies_permit_because_a_grant_names_the_tool_is_searched(bank: Bank) -> None:
    notes = bank.folder / "notes.yaml"
    notes.write_text(
        "id: notes\ntransport: http\negress: [127.0.0.1]\nauth: none\n"
        "tools:\n  - {name: add, effect: create}\n"
    )
    sentence = "no agent can call notes.add without a hold"
    asked = ["search", str(PACK), "--manifest", str(notes), "-s", sentence, "--tries", "60"]
    result = CliRunner().invoke(app, ["policy", *asked, "-o", "json"])
    (found,) = json.loads(result.stdout)
    assert result.exit_code == Exit.TEST_FAILED, found
    assert found["moments"][0]["reasons"] == ["writes:write_granted"]


def test_labels_that_only_a_policy_gives_are_searched_too(bank: Bank) -> None:
    bank.write(
        """
permit contains {"code": "close"} if called("close")
permit contains {"code": "export"} if called("export")
obligation contains {"type": "add_label", "labels": ["secret"]} if called("close")
"""
    )
    _, (found,) = bank.search(AFTER.format("secret"), tries=300)
    assert [moment["tool"] for moment in found["moments"]] == ["bank.close", "bank.export"]


def test_a_premise_that_no_run_reached_is_said_not_to_have_been_put_to_the_test(
    bank: Bank,
) -> None:
    bank.write('permit contains {"code": "any"} if acting')
    label = bank.arguments(AFTER.format("confidental"), tries=60)
    result = CliRunner().invoke(app, label)
    assert result.exit_code == Exit.OK
    assert "none with `run.labels has confidental`" in result.stdout
    assert "not put to the test" in result.stdout
    assert "no manifest gives the label `confidental`" in result.stdout
    assert "of bank.export, also after bank." in result.stdout
    _, (number,) = bank.search("no agent can call bank.pay with /amount < 0", tries=60)
    assert number["premise_reached"] is False
    assert "`args[/amount] < 0`" in number["notes"][0]


def test_a_premise_that_was_reached_and_held_is_not_said_to_be_missing(bank: Bank) -> None:
    _, (none,) = bank.write(HOLES[7][2]).search(HOLES[7][3], tries=60)
    assert (none["found"], none["premise_reached"], none["ended"]) == (False, True, "tries")
    assert none["notes"] == []


def test_a_search_that_time_ended_says_so_and_how_far_it_came(bank: Bank) -> None:
    bank.write('permit contains {"code": "any"} if acting')
    arguments = bank.arguments("no agent can call bank.pay with /amount < 0", tries=1_000_000)
    result = CliRunner().invoke(app, [*arguments, "--seconds", "0.2"])
    assert result.exit_code == Exit.OK
    assert "`--seconds 0.2` ended it after " in result.stdout
    assert " of 1,000,000 runs" in result.stdout


CONFIG: Final = """public_url: https://gateway.example
environment: staging
policy: {path: %s}
servers:
  bank: {manifest: bank.yaml, transport: http, url: "http://127.0.0.1:1/mcp"}
"""


@pytest.mark.parametrize("by", ["above", "named", "variable"])
def test_the_configuration_is_found_as_check_finds_it(
    bank: Bank, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bank.write('permit contains {"code": "any"} if acting')
    file = bank.folder / ("countersign.yaml" if by == "above" else "other.yaml")
    file.write_text(CONFIG % bank.policies)
    arguments = ["policy", "search", str(bank.policies), "-s", "no agent can use delete tools"]
    if by == "named":
        arguments += ["--config", str(file)]
    if by == "variable":
        monkeypatch.setenv("COUNTERSIGN_CONFIG", str(file))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.TEST_FAILED, result.output
    assert "agent `agent` without roles, in staging" in result.stdout
    assert (f"are those of {file}" in result.stderr) == (by != "named")


def test_the_configuration_of_other_policies_is_not_asked(bank: Bank) -> None:
    bank.write('permit contains {"code": "any"} if acting')
    (bank.folder / "countersign.yaml").write_text(CONFIG % (bank.folder / "away"))
    arguments = ["policy", "search", str(bank.policies), "-s", "no agent can use delete tools"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.USAGE
    assert "there are no tools" in result.stderr


def test_who_it_was_that_broke_a_statement_is_told(bank: Bank) -> None:
    bank.write(
        """
permit contains {"code": "close"} if {
	called("close")
	"clerk" in input.subject.roles
	input.subject.owner == "finance"
}"""
    )
    result = CliRunner().invoke(app, bank.arguments("no agent can use delete tools"))
    assert result.exit_code == Exit.TEST_FAILED
    assert "agent `agent` with the roles clerk, in prod, of the owner finance" in result.stdout


UNNAMED: Final = [
    (
        "outcome: goes, when: {tool: bank.pay, 'args[/amount]': not <= 5}",
        "goes",
        "tool is bank.pay",
    ),
    ("when: {tool: bank.pay, 'args[/to]': null}", "goes unasked", "args[/to] is null"),
    ("outcome: [hold, deny], when: {tool: [bank.pay, bank.tip]}", "is held or is denied", "one of"),
]


@pytest.mark.parametrize(("never", "goes", "where"), UNNAMED)
def test_a_statement_without_words_is_told_as_a_sentence(
    bank: Bank, never: str, goes: str, where: str
) -> None:
    bank.write("")
    file = bank.folder / "statements.yaml"
    file.write_text(f"[{{never: {{{never}}}}}]")
    _, (found,) = bank.search(str(file), tries=20)
    assert found["statement"].startswith(f"no call {goes} where ")
    assert where in found["statement"]
    assert "{" not in found["statement"]
