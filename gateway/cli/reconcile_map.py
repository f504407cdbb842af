"""The map of a reconciliation: what an export's columns mean (`docs/reconcile.md`).

YAML, read strictly: unknown and repeated keys are errors, and all mistakes are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from connectors.yaml_nodes import (
    Mistake,
    Place,
    Read,
    load_tree,
    read_choice,
    read_list,
    read_text,
)
from gateway.core import pointer
from gateway.core.reconcile.reconcile import Rules
from gateway.core.reconcile.reconcile_rows import Ignore, Layout, TimeColumn
from gateway.core.reconcile.reconcile_values import Field

_SKEW_MAX_S: Final = 86_400
_DIGITS_MAX: Final = 18


class ExportMap(Struct, frozen=True, kw_only=True):
    """What a map file says. `skew_us`: how far the two clocks may be apart."""

    tools: Mapping[str, Rules]
    layout: Layout
    skew_us: int
    format: Literal["csv", "jsonl"] | None
    delimiter: str
    query: str | None


class _Argument(Struct, frozen=True):
    """One correspondence as the file has it, before columns have places."""

    column: str
    type: Any = "string"
    digits: int = 2
    default: str | None = None


class _Tool(Struct, frozen=True):
    name: str
    arguments: Mapping[str, _Argument] = {}
    rows: Literal["one", "many"] = "one"


def load_map(path: Path) -> ExportMap:
    """Read a map. Raises `ConfigurationError`, one line for each mistake in the file."""
    root = load_tree(path)
    nothing: dict[str, Place] = {}
    found = root.read(lambda place: place.known(_KEYS), nothing)
    for key in ("tools", "operation_id"):
        if key not in found:
            root.problems.add(root.node, f"`{key}` is missing; add it")
    values = _members(found, _KEYS)
    root.problems.check()
    tools: dict[str, _Tool] = values["tools"]
    columns = tuple(dict.fromkeys(a.column for t in tools.values() for a in t.arguments.values()))
    return ExportMap(
        tools={name: _rules(tool, columns) for name, tool in tools.items()},
        layout=Layout(
            operation_id=values["operation_id"],
            time=values.get("time"),
            row_id=values.get("row_id"),
            columns=columns,
            ignore=values.get("ignore", ()),
        ),
        skew_us=values.get("skew_s", 5) * 1_000_000,
        format=values.get("format"),
        delimiter=values.get("delimiter", ","),
        query=values.get("query"),
    )


def _rules(tool: _Tool, columns: tuple[str, ...]) -> Rules:
    fields = tuple(
        Field(name, columns.index(said.column), said.type, said.digits, said.default)
        for name, said in tool.arguments.items()
    )
    return Rules(fields, many=tool.rows == "many")


def _members(found: Mapping[str, Place], keys: Mapping[str, Read[Any]]) -> dict[str, Any]:
    return {name: place.read(keys[name], None) for name, place in found.items() if name in keys}


def _read_tools(place: Place) -> dict[str, _Tool]:
    found: dict[str, _Tool] = {}
    for item in place.items():
        tool = item.read(_read_tool, None)
        if tool is None:
            continue
        if tool.name in found:
            item.problems.add(item.node, f"`{tool.name}` is there twice; keep one of them")
        found[tool.name] = tool
    if not found:
        raise Mistake("name at least one tool, such as `- name: billing.refund`")
    return found


def _read_tool(place: Place) -> _Tool:
    found = place.known(_TOOL_KEYS)
    if "name" not in found:
        raise Mistake("the tool has no `name`; add it")
    return _Tool(**_members(found, _TOOL_KEYS))


def _read_tool_id(place: Place) -> str:
    text = read_text(place)
    server, dot, tool = text.partition(".")
    if not (server and dot and tool):
        raise Mistake(f"`{text}` is no policy id of a tool; write `server.tool`")
    return text


def _read_arguments(place: Place) -> dict[str, _Argument]:
    found: dict[str, _Argument] = {}
    for name, item in place.members().items():
        try:
            pointer.split(name)
        except ValueError as error:
            item.problems.add(item.node, str(error))
        if not name:
            item.problems.add(item.node, "compare the arguments one by one; name one, as `/amount`")
        found[name] = item.read(_read_argument, _Argument(""))
    return found


def _read_argument(place: Place) -> _Argument:
    if isinstance(place.value(), str):
        return _Argument(read_text(place))
    found = place.known(_ARGUMENT_KEYS)
    if "column" not in found:
        raise Mistake("the argument has no `column`; add it")
    return _Argument(**_members(found, _ARGUMENT_KEYS))


def _read_time(place: Place) -> TimeColumn | None:
    found = place.known(_TIME_KEYS)
    if "column" not in found:
        raise Mistake("the time has no `column`; add it")
    values = _members(found, _TIME_KEYS)
    return TimeColumn(values["column"], values.get("format", "iso"), values.get("zone") == "utc")


def _read_ignore(place: Place) -> Ignore:
    found = place.known(_IGNORE_KEYS)
    if found.keys() < _IGNORE_KEYS.keys():
        raise Mistake("a filter needs `column`, `is` (a list of values) and `why`")
    values = _members(found, _IGNORE_KEYS)
    return Ignore(values["column"], frozenset(values["is"] or ()), values["why"])


def _read_value(place: Place) -> str:
    value = place.value()
    if not isinstance(value, str):
        raise Mistake(f"`{value}` is no text; put it in quotes, as the export has it")
    return value


def _read_count(most: int) -> Read[int]:
    def read(place: Place) -> int:
        value = place.value()
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise Mistake(f"expected a whole number from 0 to {most}")
        return value

    return read


def _read_delimiter(place: Place) -> str:
    text = read_text(place)
    if len(text) != 1 or text in '"\r\n':
        raise Mistake("expected one character, such as `;`")
    return text


_TIME_KEYS: Final[dict[str, Read[Any]]] = {
    "column": read_text,
    "format": read_choice("iso", "epoch_s", "epoch_ms", "epoch_us"),
    "zone": read_choice("utc"),
}
_ARGUMENT_KEYS: Final[dict[str, Read[Any]]] = {
    "column": read_text,
    "type": read_choice("string", "integer", "number", "boolean", "decimal_minor"),
    "digits": _read_count(_DIGITS_MAX),
    "default": read_text,
}
_IGNORE_KEYS: Final[dict[str, Read[Any]]] = {
    "column": read_text,
    "is": read_list(_read_value),
    "why": read_text,
}
_TOOL_KEYS: Final[dict[str, Read[Any]]] = {
    "name": _read_tool_id,
    "arguments": _read_arguments,
    "rows": read_choice("one", "many"),
}
_KEYS: Final[dict[str, Read[Any]]] = {
    "tools": _read_tools,
    "operation_id": read_text,
    "row_id": read_text,
    "time": _read_time,
    "skew_s": _read_count(_SKEW_MAX_S),
    "ignore": read_list(_read_ignore),
    "format": read_choice("csv", "jsonl"),
    "delimiter": _read_delimiter,
    "query": read_text,
}
