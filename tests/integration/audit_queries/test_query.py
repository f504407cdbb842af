"""`countersign audit query` and `export` on a log from the real writer."""

from __future__ import annotations

import csv
import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from gateway.adapters.audit import audit_query, audit_reader
from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import find_records
from gateway.cli.exits import Exit
from gateway.core.log.audit_filter import Filter, Selection
from tests.integration.audit_queries.desk import T0, Desk, Json, audit

pytestmark = pytest.mark.req("AUD-09")


def query(desk: Desk, *options: str) -> list[Json]:
    """Return what `-o jsonl` prints, having seen that it is lines of the log, byte for byte."""
    result = audit("query", desk.audit, "-o", "jsonl", *options)
    assert result.exit_code == Exit.OK, result.output
    lines = result.stdout_bytes.splitlines()
    assert set(lines) <= set(desk.lines())
    return [orjson.loads(line) for line in lines]


def kinds(found: list[Json]) -> list[str]:
    return [record["type"] for record in found]


def at(seconds: int) -> str:
    return datetime.fromtimestamp(T0 + seconds, UTC).isoformat()


def test_without_filters_every_record_is_printed_as_it_stands(desk: Desk) -> None:
    result = audit("query", desk.audit, "-o", "jsonl")
    assert result.stdout_bytes.splitlines() == desk.lines()
    assert len(list_segments(desk.audit)) > 2
    assert "no record says that these records were read" in result.stderr


@pytest.mark.parametrize(
    ("options", "types", "count"),
    [
        (("--agent", "clerk"), {"call.intent", "call.outcome"}, 6),
        (("--agent", "bot"), {"call.intent", "call.outcome", "call.refused", "approval.vote"}, 18),
        (("--tool", "shop.refund"), {"call.intent", "call.outcome"}, 12),
        (("--tool", "shop.pay"), {"call.refused"}, 6),
        (("--rule", "shop:large"), {"call.refused"}, 6),
        (("--rule", "shop:"), {"call.intent", "call.outcome", "call.refused"}, 18),
        (("--rule", "large"), {"call.refused"}, 6),
        (("--op", "op-3"), {"call.intent", "call.outcome"}, 2),
        (("--run", "run-of-clerk"), {"call.intent", "call.outcome"}, 6),
        (("--decision", "deny"), {"call.refused"}, 6),
        (("--decision", "permit", "--type", "call.intent"), {"call.intent"}, 6),
        (("--type", "approval.*", "--type", "boot"), {"approval.vote", "boot"}, 7),
        (("--agent", "bot", "--decision", "hold"), set(), 0),
    ],
)
def test_a_filter_finds_what_fits_and_nothing_else(
    desk: Desk, options: tuple[str, ...], types: set[str], count: int
) -> None:
    found = query(desk, *options)
    assert set(kinds(found)) == types
    assert len(found) == count
    assert [record["seq"] for record in found] == sorted(record["seq"] for record in found)


def test_a_human_is_found_by_the_key_of_their_values(desk: Desk) -> None:
    kek = ("--kek", str(desk.kek))
    alice = query(desk, "--human", "alice", *kek)
    assert set(kinds(alice)) == {"call.intent", "call.outcome"}
    assert {record["op"] for record in alice} == {"op-0", "op-2", "op-4"}
    assert set(kinds(query(desk, "--human", "human:Dana", *kek))) == {"approval.vote"}
    assert query(desk, "--human", "nobody", *kek) == []


def test_an_erased_human_is_found_still(desk: Desk) -> None:
    """The key's id stays in the openings; what it opened is gone."""
    before = query(desk, "--human", "alice", "--kek", str(desk.kek))
    kek = load_or_create_kek(desk.kek)
    Vault(desk.audit / "openings" / "keys", kek, "", Files()).erase("alice")
    assert query(desk, "--human", "alice", "--kek", str(desk.kek)) == before


def test_a_time_is_from_the_first_moment_to_before_the_last(desk: Desk) -> None:
    everything = desk.records()
    since, until = T0 + 4, T0 + 9
    expected = [r["seq"] for r in everything if since * 10**6 <= r["ts"] < until * 10**6]
    assert 0 < len(expected) < len(everything)
    found = query(desk, "--since", at(4), "--until", at(9))
    assert [record["seq"] for record in found] == expected
    assert query(desk, "--until", "2020-01-01") == []
    assert query(desk, "--since", "1h") == []


def test_segments_outside_the_time_are_not_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    lines = audit_reader.read_lines

    def watched(segment: Path):  # type: ignore[no-untyped-def] # noqa: ANN202 - as it is there
        for number, line in enumerate(lines(segment)):
            if number:
                read.append(segment.name)
            yield line

    monkeypatch.setattr(audit_query, "read_lines", watched)
    starts = [orjson.loads(next(lines(s)))["ts"] for s in list_segments(desk.audit)]
    wanted = Filter(since_us=starts[1] + 1, until_us=starts[2])
    found = list(find_records(desk.audit, Selection(wanted)))
    assert found
    assert set(read) == {list_segments(desk.audit)[1].name}


def test_a_limit_ends_the_search(desk: Desk) -> None:
    assert [record["seq"] for record in query(desk, "--limit", "3")] == [0, 1, 2]


def test_json_is_one_list(desk: Desk) -> None:
    result = audit("query", desk.audit, "-o", "json", "--op", "op-1")
    assert kinds(orjson.loads(result.stdout)) == ["call.intent", "call.outcome"]
    assert orjson.loads(audit("query", desk.audit, "-o", "json", "--op", "x").stdout) == []


def test_a_table_has_a_line_for_each(desk: Desk) -> None:
    lines = audit("query", desk.audit, "--agent", "clerk").stdout.splitlines()
    assert len(lines) == 6
    assert "call.intent" in lines[0]
    assert "permit shop.refund clerk" in lines[0]


def test_a_line_that_is_no_record_is_told(desk: Desk) -> None:
    segment = list_segments(desk.audit)[-1]
    segment.write_bytes(segment.read_bytes() + b"{nonsense}\n")
    result = audit("query", desk.audit)
    assert result.exit_code == Exit.OK
    assert f"{segment.name}:" in result.stderr
    assert "is no record" in result.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--human", "alice"), Exit.USAGE),
        (("--human", "alice", "--kek", "nowhere"), Exit.USAGE),
        (("--decision", "maybe"), Exit.USAGE),
        (("--since", "tomorrow"), Exit.USAGE),
        (("--since", "1d", "--until", "2d"), Exit.USAGE),
        (("--op", "\udcff"), Exit.USAGE),
        (("--url", "ftp://x", "--purpose", "p"), Exit.USAGE),
        (("--url", "http://gateway.example.com", "--purpose", "p"), Exit.USAGE),
        (("--url", "https://gateway.example.com"), Exit.USAGE),
        (("--url", "https://gateway.example.com", "--purpose", "p"), Exit.AUTH),
    ],
)
def test_wrong_usage_is_told(desk: Desk, options: tuple[str, ...], code: Exit) -> None:
    for command in (("query",), ("export", "--format", "csv")):
        result = audit(command[0], desk.audit, *command[1:], *options)
        assert result.exit_code == code
        assert result.stdout == ""
    assert audit("query", desk.folder / "nothing").exit_code == Exit.NOT_FOUND


def test_a_key_file_of_another_kind_is_told(desk: Desk) -> None:
    desk.kek.write_text("short")
    result = audit("query", desk.audit, "--human", "alice", "--kek", desk.kek)
    assert result.exit_code == Exit.USAGE


def test_an_export_of_lines_is_the_log(desk: Desk) -> None:
    result = audit("export", desk.audit, "--format", "jsonl")
    assert result.stdout_bytes.splitlines() == desk.lines()


def test_a_csv_is_safe_to_open(desk: Desk) -> None:
    result = audit("export", desk.audit, "--format", "csv", "--decision", "deny")
    rows = list(csv.DictReader(io.StringIO(result.stdout_bytes.decode(), newline="")))
    assert len(rows) == 6
    assert {row["reasons"] for row in rows} == {"shop:large =1+1 large"}
    assert result.stdout_bytes.count(b"\r\n") == 7


def test_a_file_is_private_whole_and_named_with_its_digest(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "export.jsonl"
    result = audit("export", desk.audit, "--format", "ocsf", "--out", out)
    assert result.exit_code == Exit.OK
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert f"{len(desk.lines())} records, SHA-256 {digest}" in result.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    assert all(orjson.loads(line)["class_uid"] == 6003 for line in out.read_bytes().splitlines())
    assert {path.name for path in tmp_path.iterdir()} == {"audit", "kek", "export.jsonl"}
    unwritable = audit("export", desk.audit, "--format", "csv", "--out", tmp_path / "no" / "x")
    assert unwritable.exit_code == Exit.ERROR


def test_nothing_that_stands_beside_a_file_is_written_into_or_removed(
    desk: Desk, tmp_path: Path
) -> None:
    (mine := tmp_path / "mine").write_text("mine", encoding="utf-8")
    for out, words in (("x.csv", ["export", "--format", "csv"]), ("x.zip", ["bundle"])):
        beside = tmp_path / f"{out}.new"
        beside.symlink_to(mine)
        done = audit(words[0], desk.audit, *words[1:], "--out", tmp_path / out)
        assert done.exit_code == Exit.OK
        assert (beside.is_symlink(), mine.read_text(encoding="utf-8")) == (True, "mine")
        assert (tmp_path / out).stat().st_mode & 0o777 == 0o600


def test_no_form_shows_what_stands_behind_a_commitment(desk: Desk) -> None:
    for form in ("jsonl", "csv", "ocsf", "cloudevents"):
        written = audit(
            "export", desk.audit, "--format", form, "--human", "alice", "--kek", desk.kek
        )
        assert b"secret" not in written.stdout_bytes
        assert b"alice" not in written.stdout_bytes
        assert len(written.stdout_bytes) > 1_000


@pytest.mark.parametrize(
    "changed",
    [
        {"ts": 10**18},
        {"ts": ["x"]},
        {"type": {}},
        {"op": None},
        {"op": "\x1b[31mred\u202e"},
        {"type": "call.outcome", "intent": ["x"]},
        {"subject": {}},
        {"tool": [], "actor": 5},
    ],
    ids=str,
)
def test_a_line_that_somebody_made_up_ends_no_command_and_moves_no_terminal(
    desk: Desk, changed: Json
) -> None:
    segment = list_segments(desk.audit)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    made_up = orjson.loads(lines[1]) | changed
    segment.write_bytes(b"".join([lines[0], orjson.dumps(made_up) + b"\n", *lines[2:]]))
    human = ("--human", "alice", "--kek", desk.kek)
    for words in (
        ("tail", desk.audit, "-n", "100"),
        ("show", desk.audit, "op-0", "-o", "table"),
        ("query", desk.audit),
        ("query", desk.audit, "--tool", "shop.refund"),
        ("query", desk.audit, *human),
        ("export", desk.audit, "--format", "ocsf"),
    ):
        done = audit(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        assert done.exit_code in {Exit.OK, Exit.NOT_FOUND}
        assert "\x1b" not in done.output
