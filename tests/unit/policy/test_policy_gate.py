from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    load_bundle_dir,
    restore_bundle,
)
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("GW-11")

OWNED = {"authority": {"policies": {"a": ["*"]}}}
HEAD = "package policies.a\n"
PERMIT = HEAD + 'permit contains {"code": "ok"} if input.resource.effect == "read"\n'


def build(source: str = PERMIT, data: Mapping[str, Any] = OWNED, **more: str) -> Bundle:
    others = {f"{name}.rego": text for name, text in more.items()}
    return build_bundle({"a.rego": source, **others}, data)


def faults(source: str = PERMIT, data: Mapping[str, Any] = {}, **more: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        build(source, data, **more)
    assert caught.value.code == "policy_invalid"
    return str(caught.value).splitlines()


def test_the_default_pack_passes() -> None:
    bundle = load_bundle_dir(default_pack())
    assert {"reads", "writes", "high_risk", "egress", "runs", "unreviewed"} <= set(bundle.packages)
    assert bundle.revision.startswith("sha256:")
    files = [path for path, _ in bundle.files if not path.startswith("countersign/lib/")]
    policies = [f"policies/{name}.rego" for name in sorted(bundle.packages)]
    assert files == ["countersign/main.rego", "data.json", *policies]


def test_no_policies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no policies: the folder has no \.rego file"):
        load_bundle_dir(tmp_path)


def test_a_folder_of_tests_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a_test.rego").write_text("package a_test\n")
    with pytest.raises(ConfigurationError, match="no policies"):
        load_bundle_dir(tmp_path)


def test_a_link_to_a_folder_is_told_for_it_is_not_followed(tmp_path: Path) -> None:
    policies, team = tmp_path / "policies", tmp_path / "team"
    for folder in (policies, team):
        folder.mkdir()
        (folder / "a.rego").write_text('package policies.a\n\ndeny contains {"code": "no"}\n')
    (policies / "team").symlink_to(team)
    with pytest.raises(ConfigurationError, match=r"^team: a link to a folder, which is not follow"):
        load_bundle_dir(policies)


def test_a_folder_as_kubernetes_mounts_it_is_read_once(tmp_path: Path) -> None:
    real = tmp_path / "..2026_11_22"
    real.mkdir()
    (tmp_path / "..data").symlink_to(real.name)
    for name, text in (("a.rego", PERMIT), ("authority.json", '{"policies": {"a": ["shop"]}}')):
        (real / name).write_text(text)
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert dict(load_bundle_dir(tmp_path).files).keys() >= {"policies/a.rego", "data.json"}
    assert not [path for path, _ in load_bundle_dir(tmp_path).files if ".." in path]


WITHOUT_OVERRIDE = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: nothing is closed to root
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text('package policies.a\n\ndeny contains {"code": "no"}\n')
    (tmp_path / "team").mkdir(mode=0)
    check = ["-c", "from gateway.cli import main; main()", "policy", "check", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OVERRIDE, *check],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "team: cannot be read: Permission denied; let the gateway's" in done.stdout + done.stderr


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        load_bundle_dir(tmp_path / "gone")


def test_a_file_that_cannot_be_parsed_is_named_with_line_and_column() -> None:
    (fault,) = faults(HEAD + "deny contains 1 if {\n")
    assert fault.startswith("a.rego:3:")
    assert "expecting" in fault


def test_every_mistake_of_every_file_is_told_at_once() -> None:
    found = faults(
        HEAD + "deny := true\nx := time.now_ns()\n",
        b="package other.b\n",
        c='package policies.c\nx := $"{input.x}"\n',
    )
    assert [fault.split(" ")[0] for fault in found] == [
        "b.rego:1:1:",
        "c.rego:2:6:",
        "a.rego:2:1:",
        "a.rego:3:6:",
    ]


def test_string_interpolation_is_refused_with_a_remedy() -> None:
    (fault,) = faults(HEAD + 'x := $"{input.x}"\n')
    assert fault.endswith("string interpolation is not supported, use `sprintf`")


@pytest.mark.parametrize(
    "rule",
    [
        "permit := true",
        "default deny := false",
        'deny["x"] if input.x',
        'hold.now contains "x" if input.x',
        "obligation := {1}",
        "permit(x) := x",
        "deny if input.x",
    ],
)
def test_the_four_names_are_partial_sets_or_refused(rule: str) -> None:
    (fault,) = faults(HEAD + rule + "\n", OWNED)
    assert fault.startswith("a.rego:2:1: ")
    assert "is not a partial set; write" in fault


@pytest.mark.parametrize(
    "package", ["policies", "policies.a.b", "countersign", "policies.Big", "policies.a-b"]
)
def test_only_flat_packages_below_policies_are_policies(package: str) -> None:
    name = package if "-" not in package else 'policies["a-b"]'
    (fault,) = faults(f"package {name}\nx := 1\n")
    assert fault.startswith("a.rego:1:1: package ")
    assert "rename it" in fault


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        ("time.now_ns()", "input.context.now_ns"),
        ('http.send({"url": "x"})', "reach nothing outside"),
        ("opa.runtime()", "reach nothing outside"),
        ('rand.intn("x", 5)', "the same when it is recomputed"),
        ('uuid.rfc4122("x")', "the same when it is recomputed"),
        ("print(input)", "write arguments into logs"),
        ("cuont([1])", "did you mean `count`?"),
        ("unheard_of(1)", "countersign policy builtins"),
        ("data.policies.b.f(1)", "unknown package"),
    ],
)
def test_functions_outside_the_list_are_refused(call: str, remedy: str) -> None:
    (fault,) = faults(HEAD + f"x if {{\n\t{call}\n}}\n")
    assert fault.startswith("a.rego:3:2: ")
    assert remedy in fault


def test_own_functions_and_those_of_other_packages_may_be_called() -> None:
    bundle = build(
        PERMIT + "f(x) := lower(x)\ny := f(input.phase)\nz := data.policies.b.g(1)\n",
        b="package policies.b\nimport data.policies.a as other\ng(x) := x + 1\nw := other.f(1)\n",
    )
    assert bundle.packages["a"].requires == {"b"}
    assert bundle.packages["b"].requires == {"a"}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("data[input.phase]", "reads all of `data`"),
        ("count(data)", "reads all of `data`"),
        ("data.policies[input.phase]", "reads all of `data.policies`"),
        ("data.countersign.decision", "decides about it"),
        ("data.applies_to.a", "decides about it"),
        ("data.policies.gone.x", "unknown package `policies.gone`"),
    ],
)
def test_reading_what_decides_about_the_policy_is_refused(expression: str, text: str) -> None:
    (fault,) = faults(HEAD + f"x := {expression}\n")
    assert text in fault


@pytest.mark.parametrize(
    "expression",
    [
        "not input.resource.effect in {1}",
        "not startswith(input.phase, 1)",
        "not input.context.args.n > 3",
        "not f(maybe)",
        "not input.resource[input.phase]",
        "not f(input.phase) == 2",
    ],
)
def test_a_negated_call_of_something_undefined_is_refused(expression: str) -> None:
    (fault,) = faults(
        HEAD + f"f(x) := x\nmaybe := 1 if input.phase\ndeny contains 1 if {expression}\n"
    )
    assert fault.startswith("a.rego:4:")
    assert "below `not` may be undefined, which engines treat differently" in fault


def test_a_negation_of_what_is_certainly_defined_passes() -> None:
    build(
        PERMIT
        + "limit := 3\nnames := {1, 2}\ndefault size := 0\nf(x) if x == 1\nsome_set contains 1\n"
        "deny contains 1 if not input.resource.effect\n"
        'deny contains 2 if not input.resource.effect == "read"\n'
        "deny contains 3 if not limit in names\n"
        "deny contains 4 if not f(size)\n"
        "deny contains 5 if {\n\tx := input.phase\n\tnot f(x)\n}\n"
        "deny contains 6 if not count([x | some x in input.resource.sinks]) > 3\n"
        "deny contains 7 if not 1 in some_set\n"
    )


def test_a_value_that_may_be_undefined_before_an_else_is_refused() -> None:
    (fault,) = faults(HEAD + "x := input.phase if { true } else := 2\n")
    assert fault.startswith("a.rego:2:6: `input.phase` in the value of a rule with `else`")


def test_permits_need_an_owner_of_their_servers() -> None:
    (fault,) = faults(PERMIT, {})
    assert fault.startswith("authority.json: is missing")
    (fault,) = faults(PERMIT, {"authority": {"policies": {}}})
    assert fault.startswith("a.rego:2:1: `permit` of `policies.a` can never count")
    (fault,) = faults(PERMIT, {"authority": {"policies": {"a": ["*"]}, "teams": {}}})
    assert fault.startswith("authority.json: is missing or malformed")


def test_authority_names_packages_and_servers_that_can_exist() -> None:
    found = faults(PERMIT, {"authority": {"policies": {"a": ["No Server"], "gone": ["shop"]}}})
    assert len(found) == 2
    assert "`a` has no list of server ids" in found[0]
    assert "no package `policies.gone`" in found[1]


def test_a_package_that_only_denies_needs_no_authority() -> None:
    bundle = build(HEAD + 'deny contains {"code": "no"} if input.x\n', {})
    assert set(bundle.packages) == {"a"}


@pytest.mark.parametrize("key", ["policies", "countersign", "applies_to"])
def test_data_cannot_pretend_to_be_policy(key: str) -> None:
    assert f"data.json: `{key}` is reserved for the gateway; rename it" in faults(
        PERMIT, {**OWNED, key: {}}
    )


def annotated(applies_to: str) -> str:
    return f"# METADATA\n# custom:\n#   applies_to: {applies_to}\n{PERMIT}"


@pytest.mark.parametrize(
    ("applies_to", "text"),
    [
        ("7", "is not a mapping"),
        ("{colour: [red]}", "no selector `colour`"),
        ("{tools: []}", "is not a list of at least one name"),
        ("{tools: billing}", "is not a list of at least one name"),
        ("{phases: [someday]}", "unknown `someday`"),
        ("{effects: [fun]}", "unknown `fun`"),
        ("{tools: ['a b']}", "use letters"),
        ("{servers: ['*']}", "use letters"),
        ("[", "not valid YAML"),
    ],
)
def test_an_annotation_that_says_nothing_clear_is_refused(applies_to: str, text: str) -> None:
    (fault,) = faults(annotated(applies_to), OWNED)
    assert fault.startswith(("a.rego:1:1: ", "a.rego:3:1: ", "a.rego:4:1: "))
    assert text in fault


def test_an_annotation_on_a_rule_is_refused() -> None:
    rule = HEAD + "# METADATA\n# custom:\n#   applies_to: {phases: [call]}\ndeny contains 1\n"
    (fault,) = faults(rule)
    assert fault.startswith("a.rego:2:1: `applies_to` belongs to the package")


def test_a_package_says_once_what_it_concerns() -> None:
    one = annotated("{phases: [call]}")
    (fault,) = faults(one, OWNED, b=one)
    assert fault.startswith("b.rego:1:1: `policies.a` has a second `applies_to`")


@pytest.mark.parametrize(
    "above",
    [
        "# metadata\n# custom:\n#   applies_to:\n#     tools: [shop.act]\n",
        "# METADATA:\n# custom:\n#   applies_to: {tools: [shop.act]}\n",
        "## METADATA\n## custom:\n##   applies_to:\n##     tools: [shop.act]\n",
        "# METADATA\n# title: x\n\n# custom:\n#   applies_to:\n#     tools: [shop.act]\n",
        "# METADATA\n# applies_to:\n#   tools: [shop.act]\n",
        "# METADATA\n# custom:\n#   appliesTo:\n#     tools: [shop.act]\n",
        "# custom:\n#   applies-to:\n#     tools: [shop.act]\n",
    ],
)
def test_what_is_meant_to_narrow_a_package_and_is_not_read_is_refused(above: str) -> None:
    (fault,) = faults(above + PERMIT, OWNED)
    assert ": nobody reads an `applies_to` that stands here; write it as `# METADATA`" in fault
    line = next(n for n, text in enumerate(above.splitlines(), start=1) if "pplies" in text)
    assert fault.startswith(f"a.rego:{line}:1: ")


def test_prose_about_what_a_package_concerns_is_none() -> None:
    prose = "# applies_to: tools of the shop; see the handbook\n"
    bundle = build(
        f"# METADATA\n# title: x\n#\n# description: applies_to is left out\n{PERMIT}{prose}"
    )
    assert bundle.packages["a"].scope is None
    assert build(annotated("{phases: [call]}") + prose).packages["a"].scope is not None


def test_other_annotations_are_left_alone() -> None:
    bundle = build("# METADATA\n# title: x\n# custom:\n#   owner: me\n" + PERMIT)
    assert bundle.packages["a"].scope is None


@pytest.mark.parametrize(
    ("expression", "reads"),
    [
        ('input.phase == "call"', False),
        ("is_number(input.context.args.amount)", False),
        ('input["context"]["token"].depth > 3', False),
        ("input.subject.roles[_] == 1", False),
        ("input.context.run.id", False),
        ('"pii" in input.context.run.labels', False),
        ('input.context.run.provenance["/to"] == "trusted"', False),
        ("input.context.run", True),
        ("input.context.run[input.phase]", True),
        ("input.context.run.calls > 3", True),
        ("input.context.family.sums", True),
        ("input.context.budget", True),
        ("input.context[input.phase]", True),
        ("input.context", True),
        ("some x in input", True),
        ("input[input.phase]", True),
        ("x := input", True),
        ("recent", True),
        ("data.policies.b.spent", True),
    ],
)
def test_reading_the_ledger_is_seen_however_it_is_written(expression: str, *, reads: bool) -> None:
    bundle = build(
        "package policies.a\nimport input.context.run.recent as recent\n" * (expression == "recent")
        + (PERMIT.removeprefix(HEAD) if expression == "recent" else PERMIT)
        + f'deny contains {{"code": "no"}} if {{\n\t{expression}\n}}\n',
        b="package policies.b\nspent := input.context.family.counts\n",
    )
    assert bundle.packages["a"].reads_ledger is reads


@pytest.mark.req("POL-02")
@pytest.mark.parametrize(
    ("expression", "reads"),
    [
        ("input.context.family.last_24h.sums", True),
        ("input.context.family[input.phase]", True),
        ("input.context.family", True),
        ("input.context", True),
        ("input.context.family.sums", False),
        ("input.context.run.sums", False),
        ("input.phase", False),
    ],
)
def test_reading_what_other_runs_spent_is_seen(expression: str, *, reads: bool) -> None:
    bundle = build(PERMIT + f'deny contains {{"code": "no"}} if {expression}\n')
    assert bundle.packages["a"].reads_day is reads


def test_the_revision_names_every_byte_that_decides() -> None:
    first = build()
    assert build().revision == first.revision
    assert build(PERMIT + "\n").revision != first.revision
    assert build(data={**OWNED, "limits": {"x": 1}}).revision != first.revision
    assert build_bundle({"b.rego": PERMIT}, OWNED).revision != first.revision
    other_main = build_bundle({"a.rego": PERMIT}, OWNED, main="package countersign\n")
    assert other_main.revision != first.revision


def test_a_bundle_is_restored_from_its_files() -> None:
    bundle = build(annotated("{phases: [call], tools: ['shop.*']}"))
    assert restore_bundle(dict(bundle.files)) == bundle


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_is_read_as_opa_reads_one(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "deep/er/a.rego": PERMIT,
            "deep/er/a_test.rego": "package broken {",
            "authority.json": '{"policies": {"a": ["shop"]}}',
            "data.json": '{"limits": {"eur": 5}}',
            "limits/us/data.json": '{"usd": 6}',
        },
    )
    bundle = load_bundle_dir(folder)
    assert bundle.data == (
        '{"authority":{"policies":{"a":["shop"]}},"limits":{"eur":5,"us":{"usd":6}}}'
    )
    assert dict(bundle.files)["policies/deep/er/a.rego"].decode() == PERMIT


def test_data_that_means_two_things_is_refused(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "a.rego": PERMIT,
            "authority.json": '{"policies": {"a": ["*"]}, "policies": {}}',
            "data.json": '{"authority": {"policies": {"a": ["*"]}}, "limits": 3}',
            "limits/data.json": '{"usd": 6}',
            "more/data.json": "[1]",
            "data.yaml": "a: 1",
        },
    )
    with pytest.raises(ConfigurationError) as caught:
        load_bundle_dir(folder)
    text = str(caught.value)
    assert "authority.json: an object has the same key twice" in text
    assert "limits/data.json: `limits` is no object in another file" in text
    assert "more/data.json: is not a JSON object" in text
    assert "data.yaml: YAML data is not read" in text


def test_a_value_given_by_two_files_is_refused(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "a.rego": PERMIT,
            "authority.json": '{"policies": {"a": ["*"]}}',
            "data.json": '{"authority": {"policies": {"a": ["*"]}}}',
        },
    )
    with pytest.raises(ConfigurationError, match="`policies` is given by another file too"):
        load_bundle_dir(folder)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_bytes(b"package \xff\n")
    with pytest.raises(ConfigurationError, match=r"a\.rego: cannot be read as UTF-8 text"):
        load_bundle_dir(tmp_path)
