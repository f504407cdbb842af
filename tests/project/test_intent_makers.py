"""Who may make proof of a record, who may reach a tool, and that the path stays on one page."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.req("GW-05")

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "connectors")
MAKERS = {"gateway/adapters/audit/file_audit.py", "gateway/adapters/audit/memory_audit.py"}
"""Only a log, once a record is durable, may say that it is."""

PROOFS = {"RecordedIntent", "RecordedOutcome"}
COPIERS = {"replace", "convert", "copy", "deepcopy", "force_setattr", "from_builtins"}


@cache
def shipped() -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def name_of(node: ast.expr) -> str:
    """Last name of `x`, `a.x` or `"x"`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def find_makers(tree: ast.Module) -> set[str]:
    """Return the proofs that a module constructs, by whatever name or way it does."""
    aliases = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname and alias.name in PROOFS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and name_of(node.value) in PROOFS:
            aliases |= {name_of(target): name_of(node.value) for target in node.targets}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = aliases.get(name_of(node.func), name_of(node.func))
        if called in PROOFS:
            found.add(called)
        if called in COPIERS | {"getattr", "Decoder", "decode"}:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            found |= {aliases.get(name_of(arg), name_of(arg)) for arg in given} & PROOFS
    return found


def test_only_logs_make_proof_of_a_record() -> None:
    makers = {path: found for path, tree in shipped() if (found := find_makers(tree))}
    assert makers.keys() == MAKERS
    assert all(found == PROOFS for found in makers.values())


@pytest.mark.parametrize(
    "source",
    [
        "RecordedIntent(intent, 0, b'')",
        "call.RecordedIntent(intent, 0, b'')",
        "from gateway.core.calls.call import RecordedIntent as R\nR(intent, 0, b'')",
        "Proof = RecordedIntent\nProof(intent, 0, b'')",
        "getattr(call, 'RecordedIntent')(intent, 0, b'')",
        "msgspec.convert(data, RecordedIntent)",
        "msgspec.convert(data, type=RecordedIntent)",
        "msgspec.json.Decoder(RecordedIntent)",
    ],
)
def test_a_maker_is_found_however_it_spells_it(source: str) -> None:
    assert find_makers(ast.parse(source)) == {"RecordedIntent"}


@pytest.mark.parametrize("source", ["x: RecordedIntent", "isinstance(x, RecordedIntent)"])
def test_naming_a_proof_is_not_making_one(source: str) -> None:
    assert find_makers(ast.parse(source)) == set()


def find_transport_calls(tree: ast.Module) -> list[int]:
    """Return the lines that call `.call` of something named like a transport."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "call"
        and "transport" in ast.unparse(node.func.value).lower()
    ]


def test_only_the_enforcement_point_reaches_a_tool() -> None:
    calls = {path: lines for path, tree in shipped() if (lines := find_transport_calls(tree))}
    assert {path: len(lines) for path, lines in calls.items()} == {"gateway/enforce.py": 1}


def test_whoever_else_knows_a_transport_only_lists_starts_or_ends_it() -> None:
    """`ToolTransport` is named where transports are handed on; each such place is looked at."""
    named = {
        path
        for path, tree in shipped()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.alias)
        and (node.id if isinstance(node, ast.Name) else node.name) == "ToolTransport"
    }
    assert "gateway/enforce.py" in named
    assert not {path for path in named if path.startswith(("gateway/http", "gateway/cli"))}


SNIPPET = """
from gateway.core.calls.call import Intent, RecordedIntent
from gateway.core.ports import ToolTransport


async def reach(transport: ToolTransport, intent: {accepted}) -> None:
    await transport.call(intent, None)
"""


@pytest.mark.slow
def test_a_type_checker_rejects_a_call_without_a_record(tmp_path: Path) -> None:
    for name in ("Intent", "RecordedIntent"):
        (tmp_path / f"with_{name}.py").write_text(SNIPPET.format(accepted=name))
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            f"--cache-dir={tmp_path}",
            *sorted(str(path) for path in tmp_path.glob("*.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    errors = [line for line in found.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, found.stdout + found.stderr
    assert "with_Intent.py:7" in errors[0]
    assert 'incompatible type "Intent"; expected "RecordedIntent"' in errors[0]


def functions(tree: ast.Module) -> dict[str, ast.AsyncFunctionDef | ast.FunctionDef]:
    return {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }


def test_the_enforcement_point_is_read_on_one_page() -> None:
    source = (ROOT / "gateway" / "enforce.py").read_text()
    assert len(source.splitlines()) <= 300
    found = functions(ast.parse(source))
    for name in ("call", "_govern", "execute"):
        node = found[name]
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno < 45, name


def test_the_stages_of_a_call_are_taken_in_order() -> None:
    """`_govern`: believed, resolved, judged, held or executed; nothing before its turn."""
    story = functions(ast.parse((ROOT / "gateway" / "enforce.py").read_text()))["_govern"]
    called = [
        node.func.attr
        for node in sorted(
            (n for n in ast.walk(story) if isinstance(n, ast.Call)), key=lambda n: n.lineno
        )
        if isinstance(node.func, ast.Attribute)
    ]
    stages = [
        name for name in called if name in {"authenticate", "resolve", "judge", "_hold", "execute"}
    ]
    assert stages == ["authenticate", "resolve", "judge", "_hold", "execute"]
