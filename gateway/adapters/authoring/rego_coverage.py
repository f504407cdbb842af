"""What tests reached, in the shape of `opa test --coverage`.

The embedded engine tells rows, not columns: a row counts as covered when anything on it was
evaluated. So percentages are near those of OPA, not the same.
"""

from __future__ import annotations

from typing import Any

from gateway.adapters.authoring.rego_tests import TestRun
from gateway.adapters.policy.policy_ast import Module
from gateway.adapters.policy.policy_syntax import Node, head_of

_PERCENT = 100.0


def report_coverage(found: TestRun) -> dict[str, Any]:
    """Return the coverage report of a run, files with their rows and all together."""
    files = {}
    covered = missed = 0
    for path, module in found.modules.items():
        lines = found.sources[path].splitlines()
        rows = _rows(module)
        reached = sorted(row for row in found.covered.get(path, ()) if row <= len(lines))
        left = sorted(rows - set(reached))
        if not reached and not left:
            continue
        covered, missed = covered + len(reached), missed + len(left)
        shown: dict[str, Any] = {"covered": [_range(row, lines) for row in reached]}
        if left:
            shown["not_covered"] = [_range(row, lines) for row in left]
        files[path] = shown | _totals(len(reached), len(left))
    return {"files": files, **_totals(covered, missed)}


def _totals(covered: int, missed: int) -> dict[str, Any]:
    share = _PERCENT * covered / (covered + missed) if covered + missed else 0.0
    shown: dict[str, Any] = {"covered_lines": covered}
    if missed:
        shown["not_covered_lines"] = missed
    return shown | {"coverage": round(share, 2)}


def _range(row: int, lines: list[str]) -> dict[str, Any]:
    line = lines[row - 1]
    first = len(line) - len(line.lstrip()) + 1
    return {"start": {"row": row, "col": first}, "end": {"row": row, "col": max(len(line), 1)}}


def _rows(module: Module) -> set[int]:
    """Return the rows on which a rule or a statement begins."""
    found = set()
    for rule in module.tree:
        found.add(head_of(rule)[1]["span"]["line"])
        found |= _statement_rows(rule)
    return found


def _statement_rows(node: object) -> set[int]:
    if isinstance(node, list):
        return set().union(*map(_statement_rows, node))
    if not isinstance(node, dict):
        return set()
    here = _own_rows(node)
    return here.union(*(_statement_rows(body) for key, body in node.items() if key != "span"))


def _own_rows(node: Node) -> set[int]:
    statements = node.get("stmts")
    return {item["span"]["line"] for item in statements} if isinstance(statements, list) else set()
