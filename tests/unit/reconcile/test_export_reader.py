from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.audit.export_reader import Digest, Source, open_export
from gateway.core.errors import RequestError


def read(place: Path | str, *columns: str, digest: Digest | None = None, **more: Any) -> list[Any]:  # noqa: ANN401 - of `Source`
    with open_export(Source(place=str(place), **more), columns, digest or Digest()) as rows:
        return list(rows)


def export(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refusal(*args: Any, **more: Any) -> str:  # noqa: ANN401 - of `read`
    with pytest.raises(RequestError) as raised:
        read(*args, **more)
    return str(raised.value)


@pytest.mark.req("AUD-14")
def test_csv_is_read_with_its_quotes_marks_and_line_ends(tmp_path: Path) -> None:
    text = '\ufeffop,note\r\na,"x, ""y""\r\nz"\r\n\r\nb,é\r\n'
    path, digest = export(tmp_path, "e.csv", text), Digest()
    assert read(path, "op", digest=digest) == [
        {"op": "a", "note": 'x, "y"\r\nz'},
        {"op": "b", "note": "é"},
    ]
    assert digest.hex == hashlib.sha256(text.encode()).hexdigest()


def test_csv_of_another_country_has_another_delimiter(tmp_path: Path) -> None:
    path = export(tmp_path, "e.txt", "op;n\na;1,5\n")
    assert read(path, "op", format="csv", delimiter=";") == [{"op": "a", "n": "1,5"}]


def test_a_long_field_is_read_whole(tmp_path: Path) -> None:
    assert len(read(export(tmp_path, "e.csv", "op\n" + "x" * 200_000), "op")[0]["op"]) == 200_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"id,op2\n1,2\n", "no column `op`; it has id, op2"),
        (b"op,op\n1,2\n", "two columns `op`"),
        (b"op,x\n1\n", "line 2 of the export has 1 fields, not the 2"),
        (b'op\n"1\n', "is not CSV"),
        (b'op\n"1"2\n', "line 2 of the export is not CSV"),
        (b"op\n\xff\n", "cannot be read"),
    ],
)
def test_csv_that_is_none_is_refused_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refusal(export(tmp_path, "e.csv", data), "op")


@pytest.mark.req("AUD-14")
def test_json_lines_keep_numbers_as_they_were_written(tmp_path: Path) -> None:
    line = '{"op":"a","n":12.50,"i":9007199254740993,"t":true,"z":null,"l":[1,{"a":"b"}]}\n\n'
    found = read(export(tmp_path, "e.ndjson", line + '{"op":"b"}'), "op", "n", "i", "t", "z", "l")
    assert list(found[0].values()) == [
        "a",
        "12.50",
        "9007199254740993",
        "true",
        None,
        '[1,{"a":"b"}]',
    ]
    assert {type(value) for value in found[0].values()} == {str, type(None)}
    assert set(found[1].values()) == {"b", None}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"op":1}\n{"op":', "line 2 of the export is not JSON"),
        ('{"op":1,"op":2}', "a key is there twice"),
        ("[1]", "line 1 of the export is no JSON object"),
        ('{"id":1}\n{"id":2}', "no row of the export has `op`"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_lines_that_are_none_are_refused(tmp_path: Path, data: str, said: str) -> None:
    assert said in refusal(export(tmp_path, "e.jsonl", data), "op")


def test_an_export_without_rows_is_one(tmp_path: Path) -> None:
    assert read(export(tmp_path, "e.jsonl", ""), "op") == []
    assert read(export(tmp_path, "e.csv", "op\n"), "op") == []


def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    assert "add `format: csv` or `jsonl`" in refusal(export(tmp_path, "e.dat", "op\n"), "op")
    assert "cannot be read" in refusal(tmp_path / "none.csv", "op")
    assert "…" in refusal("x" * 5_000 + ".csv", "op")


@pytest.mark.req("AUD-14")
def test_sqlite_is_asked_by_a_query_and_only_read(tmp_path: Path) -> None:
    path = tmp_path / "shop #1.db"
    place = f"sqlite:///{path}"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE t (op, n, b); INSERT INTO t VALUES ('a', 1.5, x'ff')"
        )
    connection.close()
    assert read(place, "op", query="SELECT * FROM t;") == [{"op": "a", "n": "1.5", "b": "ff"}]
    assert "no column `x`" in refusal(place, "x", query="SELECT op FROM t")
    assert "readonly" in refusal(place, "op", query="DELETE FROM t RETURNING op")
    assert "no such table" in refusal(place, "op", query="SELECT op FROM u")
    assert "unable to open" in refusal(f"{place}x", "op", query="SELECT 1")
    assert "add the `query`" in refusal(place, "op")


def test_a_password_is_not_taken_from_a_command_line() -> None:
    for place in ("postgresql://a:b@c/d", "postgres://c/d?user=a&password=b"):
        said = refusal(place, "op", query="SELECT 1")
        assert "~/.pgpass" in said
        assert "b@c" not in said


def test_postgresql_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "is not installed" in refusal("postgresql:///x", "op", query="SELECT 1")
