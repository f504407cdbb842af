"""What the pages list is what there is: keys, states, phases, modules, events, and the examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from connectors.manifest import load_manifest
from connectors.schema import compile_schema
from gateway.adapters.policy.policy_bundle import build_bundle, default_pack, load_bundle_dir
from gateway.config.checks import LIMIT_NAMES
from gateway.config.settings import config_schema
from gateway.core.catalog import Effect, Idempotency, Review, ToolState
from gateway.core.errors import ConfigurationError
from gateway.core.policy.decision import OBLIGATIONS, Phase
from gateway.core.tokens.token import Constraint, Range, Window

ROOT = Path(__file__).parents[2]


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def find_unnamed(page: str, names: Iterator[str] | tuple[str, ...] | frozenset[str]) -> list[str]:
    """Return the names that stand in no code span of a page."""
    spans = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`\n]+)`", read(page)))))
    return sorted(set(names) - spans)


def schema_keys(node: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield every key that a configuration may have, at any depth."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield from node.get("properties", {})
        for value in node.values():
            yield from schema_keys(value)
    elif isinstance(node, list):
        for item in node:
            yield from schema_keys(item)


@pytest.mark.req("GW-04")
def test_the_configuration_page_names_every_key_and_limit() -> None:
    keys = set(schema_keys(config_schema())) | set(LIMIT_NAMES)
    grant = {"server", "tool", "effects", "constraints", "max_calls"}  # docs/runs.md
    limits = {name for kind in (Constraint, Range, Window) for name in kind.__struct_fields__}
    limits |= {"constraints", "max_calls", "window"}  # docs/constraints.md
    keys -= grant | limits
    header = {"header", "value_from"}  # docs/manifests.md tells of credentials
    assert find_unnamed("docs/configuration.md", iter(keys - header)) == []
    assert find_unnamed("docs/manifests.md", iter(header)) == []
    assert find_unnamed("docs/runs.md", iter(grant - {"server", "tool"})) == []
    assert find_unnamed("docs/constraints.md", iter(limits)) == []


@pytest.mark.req("GW-08")
def test_the_manifest_page_names_every_key_state_and_value() -> None:
    fields = {"input_schema": "in", "output_schema": "out"}
    keys = {fields.get(name, name) for name in Review.__struct_fields__}
    keys |= {"id", "transport", "egress", "auth", "shared", "tools"}
    values = {*get_args(ToolState), *get_args(Effect), *get_args(Idempotency)} - {"unreviewed"}
    assert find_unnamed("docs/manifests.md", iter(keys | values | {"unreviewed"})) == []


@pytest.mark.req("GW-08")
def test_the_manifest_pages_example_loads(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("docs/manifests.md", "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        for review in load_manifest(path).tools:
            compile_schema({"type": "object"}, review.input_schema)
    assert (tmp_path / "0.yaml").exists()


@pytest.mark.req("GW-11")
def test_the_policy_page_names_phases_obligations_packs_and_inputs() -> None:
    packs = load_bundle_dir(default_pack()).packages
    schema = json.loads(read("rego/schemas/input.v1.json"))
    context = schema["properties"]["context"]["properties"]
    subject = schema["properties"]["subject"]["properties"]
    names = {*get_args(Phase), *OBLIGATIONS, *packs, *schema["properties"], *context, *subject}
    names -= {"type"}
    assert find_unnamed("docs/policies.md", iter(names)) == []


@pytest.mark.req("GW-11")
def test_the_policy_pages_example_passes_the_gate() -> None:
    source, written = blocks("docs/policies.md", "rego")[0], blocks("docs/policies.md", "json")
    owned = next(found for found in map(json.loads, written) if "policies" in found)
    assert owned["policies"]["refunds"] == ["billing"]
    reads = (default_pack() / "reads.rego").read_text()
    bundle = build_bundle({"refunds.rego": source, "reads.rego": reads}, {"authority": owned})
    assert not bundle.packages["refunds"].reads_ledger


@pytest.mark.req("GW-11")
@pytest.mark.parametrize(
    "body",
    [
        'deny contains {"code": "x"} if not lower(input.x) == "a"',
        "y := input.a if input.b else := 1",
    ],
)
def test_what_the_policy_page_says_engines_differ_in_is_refused(body: str) -> None:
    with pytest.raises(ConfigurationError, match="engines treat differently"):
        build_bundle({"x.rego": f"package policies.x\n\n{body}\n"}, {})


@pytest.mark.req("GW-02")
def test_the_architecture_page_names_every_module_between_the_layers() -> None:
    names = {path.stem for path in (ROOT / "gateway").glob("*.py")} - {"__init__"}
    page = read("docs/architecture.md")
    missing = [name for name in names if f"{name}.py" not in page]
    assert missing == []
    for name in re.findall(r"`(\w+\.py)`", page):
        assert any(list((ROOT / part).rglob(name)) for part in ("gateway", "connectors")), name


@pytest.mark.req("GW-14")
def test_the_events_of_the_operations_page_are_logged() -> None:
    table = read("docs/operations.md").split("| event | means |", 1)[1].split("\n\n", 1)[0]
    events = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:]))
    assert len(events) >= 8
    code = "".join(
        path.read_text()
        for part in ("gateway", "connectors")
        for path in (ROOT / part).rglob("*.py")
    )
    assert [event for event in events if f'"{event}"' not in code] == []


@pytest.mark.req("GW-02")
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda p: p.stem)
def test_a_decision_says_when_why_what_and_what_would_change_it(page: Path) -> None:
    text = page.read_text()
    assert re.match(rf"# {page.stem[:4]} .+\n\n(?:Accepted|Superseded)", text)
    for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
        assert part in text, part


@pytest.mark.req("GW-02")
def test_every_page_is_reached_from_the_readme_or_the_architecture_page() -> None:
    told = read("README.md") + read("docs/architecture.md")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"{page.name})" not in told]
    assert missing == []
