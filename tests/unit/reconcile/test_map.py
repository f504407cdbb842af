from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.reconcile_map import load_map
from gateway.core.errors import ConfigurationError
from gateway.core.reconcile.reconcile import Rules
from gateway.core.reconcile.reconcile_rows import Ignore, Layout, TimeColumn
from gateway.core.reconcile.reconcile_values import Field

WHOLE = """\
tools:
  - name: billing.refund
    arguments:
      /amount: {column: amount, type: decimal_minor, digits: 3}
      /to/0: recipient
  - name: billing.reversal
    rows: many
    arguments:
      /note: {column: recipient, default: none}
operation_id: op
row_id: id
time: {column: at, format: iso, zone: utc}
skew_s: 2
ignore:
  - {column: source, is: [import, ""], why: the nightly import}
format: csv
delimiter: ";"
query: SELECT 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "map.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_map(write(folder, text))
    return str(raised.value).replace(f"{folder}/map.yaml:", "")


@pytest.mark.req("AUD-14")
def test_a_map_says_what_columns_mean(tmp_path: Path) -> None:
    said = load_map(write(tmp_path, WHOLE))
    assert said.tools == {
        "billing.refund": Rules(
            (Field("/amount", 0, "decimal_minor", 3), Field("/to/0", 1)), many=False
        ),
        "billing.reversal": Rules((Field("/note", 1, default="none"),), many=True),
    }
    assert said.layout == Layout(
        operation_id="op",
        time=TimeColumn("at", "iso", naive_utc=True),
        row_id="id",
        columns=("amount", "recipient"),
        ignore=(Ignore("source", frozenset({"import", ""}), "the nightly import"),),
    )
    assert said.layout.names() == ("op", "amount", "recipient", "source", "at", "id")
    assert (said.skew_us, said.format, said.delimiter, said.query) == (
        2_000_000,
        "csv",
        ";",
        "SELECT 1",
    )


def test_the_least_map_names_a_tool_and_a_column(tmp_path: Path) -> None:
    said = load_map(write(tmp_path, "tools: [{name: a.b}]\noperation_id: op\n"))
    assert said.tools == {"a.b": Rules()}
    assert said.layout.names() == ("op",)
    assert (said.skew_us, said.format, said.delimiter) == (5_000_000, None, ",")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("operation_id: op", "1: `tools` is missing"),
        ("tools: []\noperation_id: op", "1: name at least one tool"),
        ("tools: [{}]\noperation_id: op", "the tool has no `name`"),
        ("tools: [{name: refund}]\noperation_id: op", "write `server.tool`"),
        ("tools: [{name: a.b}, {name: a.b}]\noperation_id: op", "`a.b` is there twice"),
        ("tools: [{name: a.b, colums: x}]\noperation_id: op", "unknown key `colums`"),
        ("- x", "expected a mapping"),
        ("tools:\n- name: a.b\n  arguments: {amount: x}\noperation_id: op", "3: `amount` is no"),
        ("tools:\n- name: a.b\n  arguments: {'': x}\noperation_id: op", "one by one"),
        (
            "tools:\n- name: a.b\n  arguments: {/a: {type: integer}}\noperation_id: op",
            "no `column`",
        ),
        ("tools:\n- name: a.b\n  arguments: {/a: {column: x, type: int}}", "`int` is none of"),
        ("tools:\n- name: a.b\n  arguments: {/a: {column: x, digits: 19}}", "0 to 18"),
        ("tools:\n- name: a.b\n  arguments: {/a: {column: x, digits: true}}", "0 to 18"),
        ("tools: [{name: a.b}]\noperation_id: op\ntime: {format: iso}", "3: the time has no"),
        ("tools: [{name: a.b}]\noperation_id: op\ntime: {column: t, zone: cet}", "`cet` is none"),
        ("tools: [{name: a.b}]\noperation_id: op\nignore: [{column: x}]", "a filter needs"),
        (
            "tools: [{name: a.b}]\noperation_id: op\nignore: [{column: x, is: [1], why: y}]",
            "put it in quotes",
        ),
        ("tools: [{name: a.b}]\noperation_id: op\ndelimiter: tab", "expected one character"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in mistakes(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "tools: [{name: a}]\noperation_id: ''\nskew_s: -1\nformat: xml\n"
    assert [line[:1] for line in mistakes(tmp_path, text).splitlines()] == ["1", "2", "3", "4"]
