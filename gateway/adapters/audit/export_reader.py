"""Reads a system of record's own export: CSV, JSON lines, or one query run on its database.

Rows come one at a time, as texts by column; the bytes they were read from are hashed on the way, so
that a report can say which export it is about.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

from msgspec import Struct

from gateway.core.errors import RequestError
from gateway.core.reconcile.reconcile_rows import Row

Format = Literal["csv", "jsonl"]

_FIELD_MAX_CHARS: Final = 16 << 20
_SUFFIXES: Final[dict[str, Format]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_POSTGRES: Final = re.compile(r"postgres(?:ql)?://(?:([^@/?]*)@)?.*", re.DOTALL)
_SQLITE: Final = "sqlite:///"
_PASSWORD: Final = re.compile(r"[?&]password=")
_SAID_MAX_CHARS: Final = 500


class _Number(str):
    """A number of JSON as it was written."""

    __slots__ = ()


class Source(Struct, frozen=True, kw_only=True):
    """Where an export is: a file, `-` for stdin, `sqlite:///FILE` or `postgresql://…`.

    `format` overrides what a file's name says; `query` is run on a database.
    """

    place: str
    format: Format | None = None
    delimiter: str = ","
    query: str | None = None


class Digest:
    """SHA-256 over the bytes read, in hex once they all are; None for what comes without bytes."""

    def __init__(self) -> None:
        self._hash: Final = hashlib.sha256()
        self.hex: str | None = None

    def add(self, data: bytes) -> None:
        """Take the next bytes; none mark the end."""
        self._hash.update(data)
        if not data:
            self.hex = self._hash.hexdigest()


class _Hashed(io.RawIOBase):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO, digest: Digest) -> None:
        self._stream: Final = stream
        self._digest: Final = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a buffer, as the base class has it
        data = self._stream.read(len(buffer))
        self._digest.add(data)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_export(source: Source, columns: Sequence[str], digest: Digest) -> Iterator[Iterator[Row]]:
    """Yield the rows of an export, each with at least `columns`.

    Raises `RequestError` for what cannot be read or lacks a column, with the line where there is
    one; also while the rows are taken.
    """
    try:
        if source.place.startswith(_SQLITE):
            with closing(_open_sqlite(source)) as connection:
                yield _read_sqlite(connection, source, columns)
        elif _POSTGRES.fullmatch(source.place):
            with _run_psql(source) as stream:
                yield _read_csv(_text(stream, digest), ",", columns)
        else:
            with _open_file(source.place) as stream:
                yield _read_text(source, _text(stream, digest), columns)
    except (OSError, UnicodeDecodeError, sqlite3.Error) as error:
        raise RequestError(f"the export `{_shown(source.place)}` cannot be read: {error}") from None


def _read_text(source: Source, lines: io.TextIOWrapper, columns: Sequence[str]) -> Iterator[Row]:
    form = source.format or _SUFFIXES.get(Path(source.place).suffix.lower())
    if form is None:
        raise RequestError(
            f"`{source.place}` does not say what it is; add `format: csv` or `jsonl` to the map"
        )
    if form == "csv":
        return _read_csv(lines, source.delimiter, columns)
    return _read_jsonl(lines, columns)


@contextmanager
def _open_file(place: str) -> Iterator[BinaryIO]:
    if place == "-":
        yield sys.stdin.buffer
    else:
        with Path(place).open("rb") as stream:
            yield stream


def _text(stream: BinaryIO, digest: Digest) -> io.TextIOWrapper:
    buffered = io.BufferedReader(_Hashed(stream, digest), 1 << 16)
    return io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")


def _read_csv(lines: io.TextIOWrapper, delimiter: str, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_MAX_CHARS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise RequestError("the export is empty; its first line must name the columns")
        _check_header(header, columns)
        for row in reader:
            if not row:
                continue  # an empty line
            if len(row) != len(header):
                raise RequestError(
                    f"line {reader.line_num} of the export has {len(row)} fields, not the "
                    f"{len(header)} of its first line"
                )
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise RequestError(
            f"line {reader.line_num} of the export is not CSV: {error}; see `delimiter` in the map"
        ) from None


def _check_header(header: Sequence[str], columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise RequestError(
            f"the export has no column `{'`, `'.join(missing)}`; it has {', '.join(header)}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RequestError(f"the export has two columns `{twice[0]}`; rename one of them")


def _read_jsonl(lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """A member that is not there is null; one that no row has is a mistake in the map."""
    never, rows = set(columns), 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        value = _decode(line, number)
        rows += 1
        never -= value.keys()
        yield {name: _as_text(value.get(name)) for name in columns}
    if never and rows:
        raise RequestError(f"no row of the export has `{'`, `'.join(sorted(never))}`")


def _decode(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(
            line,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise RequestError(f"line {number} of the export is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"line {number} of the export is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _as_text(value: object) -> str | None:
    """Return a value as a text: numbers as they were written, true and false as JSON has them."""
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)  # no longer a `_Number`
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int | float):
        return repr(value)
    return _compact(value)


def _compact(value: object) -> str:
    if isinstance(value, dict):
        members = ",".join(f"{json.dumps(k)}:{_compact(v)}" for k, v in value.items())
        return f"{{{members}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_compact, value))}]"
    return value if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)


def _open_sqlite(source: Source) -> sqlite3.Connection:
    """Open a database that must be there, for reading only."""
    path = Path(source.place.removeprefix(_SQLITE)).absolute()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def _read_sqlite(
    connection: sqlite3.Connection, source: Source, columns: Sequence[str]
) -> Iterator[Row]:
    cursor = connection.execute(_query(source))
    header = [column[0] for column in cursor.description or ()]
    _check_header(header, columns)
    return (dict(zip(header, map(_as_text, row), strict=True)) for row in cursor)


@contextmanager
def _run_psql(source: Source) -> Iterator[BinaryIO]:
    """Run the query by PostgreSQL's own client, read-only and one statement only.

    The password comes from where `psql` looks for it: an argument could be read by everybody.
    """
    user = _POSTGRES.fullmatch(source.place)
    if ":" in ((user and user[1]) or "") or _PASSWORD.search(source.place):
        raise RequestError(
            "a password does not belong on a command line; put it into ~/.pgpass or PGPASSWORD"
        )
    copy = f"COPY (\n{_query(source)}\n) TO STDOUT WITH (FORMAT csv, HEADER true)"
    command = ["psql", "-X", "-w", "-q", "-v", "ON_ERROR_STOP=1", "-d", source.place, "-c", copy]
    read_only = f"{os.environ.get('PGOPTIONS', '')} -c default_transaction_read_only=on"
    environ = {**os.environ, "PGOPTIONS": read_only, "PGCLIENTENCODING": "UTF8"}
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: S603 - a fixed program; the query is the auditor's
                command, env=environ, stdout=subprocess.PIPE, stderr=said
            )
        except FileNotFoundError:
            raise RequestError(
                "PostgreSQL's client `psql` is not installed; install it, or export to a file"
            ) from None
        with process:
            stream = cast("io.BufferedReader", process.stdout)
            answered = bool(stream.peek(1))  # waits for the first byte
            try:
                if answered:
                    yield cast("BinaryIO", stream)
            except BaseException:
                process.kill()
                raise
        if process.returncode or not answered:
            said.seek(0)
            words = said.read(_SAID_MAX_CHARS).decode(errors="replace").strip()
            raise RequestError(f"the query failed: {words}")


def _query(source: Source) -> str:
    if source.query is None:
        raise RequestError("add the `query` that the database is to be asked to the map")
    return source.query.strip().rstrip(";")


def _shown(place: str) -> str:
    return place if len(place) < _SAID_MAX_CHARS else place[:_SAID_MAX_CHARS] + "…"
