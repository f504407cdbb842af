from __future__ import annotations

from pathlib import Path

import pytest

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import Manifest, load_auth_headers, load_manifest
from gateway.core.errors import ConfigurationError

ACME = Path(__file__).parents[3] / "examples" / "acme" / "manifests"
DIGEST = "sha256:" + "0" * 64

pytestmark = pytest.mark.req("GW-08")

EVERY_KEY = f"""
id: billing
transport: stdio
egress: [billing.example]
auth: {{header: Authorization, value_from: env:BILLING}}
shared: true
tools:
  - name: refund
    in: {{type: object, properties: {{amount: {{type: integer, maximum: 500}}}}}}
    out: {{type: object}}
    effect: money
    reversible_by: unrefund
    undo: {{tool: unrefund, arguments: {{id: /id}}}}
    idempotency: key
    preview: quote
    prestate: balance
    sensitive: [/note]
    sensitive_out: [/rows/*/iban]
    labels: [pii]
    sinks: [/to]
    texts: [/body]
    sums: [/amount, /tip]
    sums_optional: [/tip]
    operation_id_at: refunds.op
    cost: 0.5
    rate: 10/min
    retry: safe
    definition_digest: {DIGEST}
    reviewed_by: Ann
"""


def write(path: Path, text: str) -> Path:
    manifest = path / "manifest.yaml"
    manifest.write_text(text, encoding="utf-8")
    return manifest


def load(path: Path, text: str) -> Manifest:
    return load_manifest(write(path, text))


def errors(path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, text)
    return [line.removeprefix(f"{path}/manifest.yaml:") for line in str(caught.value).split("\n")]


def test_every_key_is_understood(tmp_path: Path) -> None:
    manifest = load(tmp_path, EVERY_KEY)
    assert manifest.auth == UpstreamAuth("Authorization", "env:BILLING")
    assert manifest.shared
    (review,) = manifest.tools
    assert review.input_schema == {
        "type": "object",
        "properties": {"amount": {"type": "integer", "maximum": 500}},
    }
    assert review.undo == {"tool": "unrefund", "arguments": {"id": "/id"}}
    assert (review.cost, review.rate, review.retry) == (0.5, (10, 60), "safe")
    assert (review.sensitive, review.sensitive_out) == (("/note",), ("/rows/*/iban",))
    assert (review.sinks, review.texts) == (("/to",), ("/body",))
    assert (review.sums, review.sums_optional) == (("/amount", "/tip"), ("/tip",))
    assert (review.definition_digest, review.reviewed_by) == (DIGEST, "Ann")


@pytest.mark.parametrize("name", ["acme.yaml", "git.yaml"])
def test_the_examples_load(name: str) -> None:
    manifest = load_manifest(ACME / name)
    assert manifest.id == name.removesuffix(".yaml")
    assert manifest.tools


def test_five_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """id: Billing
transport: smoke
surprise: 1
tools:
  - name: refund
    effect: giving
    sums: [amount, /ok]
    colour: red
    name: again
"""
    found = errors(tmp_path, text)
    assert [line.split(":")[0] for line in found] == ["1", "2", "3", "6", "7", "8", "9"]
    assert "`surprise`" in found[2]
    assert "known are" in found[2]
    assert "start it with `/`" in found[4]
    assert "`name` is given twice" in found[6]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("[]", "expected a mapping"),
        ("id: a", "`transport` is missing"),
        ("id: a\ntransport: http", "`tools` is missing"),
        ("id: a\ntransport: http\ntools: {}", "expected a list"),
        ("id: a\ntransport: http\ntools: [x]", "expected a mapping"),
        ("id: a\ntransport: http\ntools: [{name: x}]", "has no `effect`"),
        ("id: a\ntransport: http\ntools: [{name: '', effect: read}]", "expected a text"),
        ("id: a\ntransport: http\ntools: [{name: 1, effect: read}]", "expected a text"),
        (
            "id: a\ntransport: http\ntools: [{name: x, effect: read}, {name: x, effect: read}]",
            "`x` is described twice",
        ),
        ("id: a\ntransport: http\ntools: []\nshared: 1", "`true` or `false`"),
        ("id: a\ntransport: http\ntools: []\nauth: {header: a b, value_from: env:X}", "no name"),
        (
            "id: a\ntransport: http\ntools: []\nauth: {header: X}",
            "`value_from` of `auth` is missing",
        ),
        ("id: a\ntransport: http\ntools: []\negress: [2001-01-01]", "in quotes"),
        ("id: a\ntransport: http\ntools: []\negress: &a [x]\nauth: *a", "alias"),
        ("id: a\ntransport: http\ntools: []\negress: &a [*a]", "alias"),
        ("id: a\ntransport: http\ntools: []\nauth: {[kind]: basic}", "a key is one text"),
        ("id: a\ntransport: http\ntools: []\n? {a: b}\n: c", "a key is one text"),
        ("id: a\n  b: c", "not YAML"),
        ("id: a\n--- \nid: b", "not YAML"),
        ("id: '\x01'", "not YAML"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, text: str, problem: str) -> None:
    assert any(problem in line for line in errors(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("cost: -1", "not negative"),
        ("cost: true", "not negative"),
        ("cost: .nan", "no number of JSON"),
        ("cost: 0x", "not negative"),
        ("cost: 0o8", "not negative"),
        ("rate: 10", "expected a text"),
        ("rate: fast", "10/min"),
        ("retry: safe", "cannot be `retry: safe`"),
        ("sums: [/items/*/price]", "`/items/*/price` of `sums` leads to no one amount"),
        ("sums_optional: [/tip]", "`/tip` of `sums_optional` is none of `sums`"),
        ("in: [1]", "expected a mapping"),
        ("undo: []", "name of a tool"),
        ("undo: {arguments: {}}", "name of a tool"),
        ("definition_digest: md5", "countersign tools approve"),
        ("in: " + "{a: " * 40 + "1" + "}" * 40, "nested more than"),
        ("labels: [{a: 1}]", "expected a text"),
        ("undo: ~", "name of a tool"),
    ],
)
def test_a_mistake_in_a_tool_is_told(tmp_path: Path, key: str, problem: str) -> None:
    text = f"id: a\ntransport: http\ntools:\n  - name: x\n    effect: update\n    {key}\n"
    (found,) = errors(tmp_path, text)
    assert problem in found


def test_a_secret_in_a_manifest_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = "id: a\ntransport: http\ntools: []\nauth: {header: X, value_from: s3cr3t}"
    (found,) = errors(tmp_path, text)
    assert "does not belong here" in found
    assert "s3cr3t" not in found


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_manifest(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"id: \xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_manifest(tmp_path / "latin.yaml")


def test_no_auth_is_no_header() -> None:
    assert load_auth_headers(None, {}) == {}


def test_a_credential_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Bearer f\n", encoding="utf-8")
    of_environment = UpstreamAuth("Authorization", "env:BILLING")
    assert load_auth_headers(of_environment, {"BILLING": "Bearer e"}) == {
        "Authorization": "Bearer e"
    }
    assert load_auth_headers(UpstreamAuth("X-Key", f"file:{secret}"), {}) == {"X-Key": "Bearer f"}


@pytest.mark.parametrize(
    ("value_from", "environ"),
    [
        ("env:BILLING", {}),
        ("env:BILLING", {"BILLING": " "}),
        ("env:BILLING", {"BILLING": "a\r\nX-Evil: 1"}),
        ("env:BILLING", {"BILLING": "t\u00f6ken"}),
        ("file:/nonexistent", {}),
    ],
)
def test_a_credential_that_is_no_header_value_is_refused(
    value_from: str, environ: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError):
        load_auth_headers(UpstreamAuth("X", value_from), environ)
