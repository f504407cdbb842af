"""Replay over several bundles, and over openings in every state that they can be in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import orjson
import pytest

from gateway.adapters.audit import audit_replay
from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import Found, find_records
from gateway.adapters.audit.audit_values import Value, ValueReader, commitments_of
from gateway.adapters.policy.bundle_store import save_bundle
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.policy.policy_sample import build_sample
from gateway.cli import audit_replay as command
from gateway.cli.exits import Exit
from gateway.core.entry import Entry, Opening
from gateway.core.log.audit_filter import Filter, Selection
from tests.integration.audit_queries.desk import Desk, audit

pytestmark = pytest.mark.req("AUD-05")

REGO = 'package policies.p{number}\n\ndeny contains {{"code": "no"}} if input.version == 1\n'


def bundle(number: int) -> Bundle:
    return build_bundle({f"p{number}.rego": REGO.format(number=number)}, {})


def decided(number: int, rev: str, document: bytes, subject: str = "alice") -> Entry:
    return Entry(
        type="call.refused",
        op=f"op-{number}",
        fields={
            "decision": {"outcome": "deny", "reasons": [f"p{number}:no"]},
            "policy": {"rev": rev},
        },
        openings=(Opening("policy.input", document, subject),) if document else (),
    )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def write(desk: Desk, *entries: Entry) -> None:
    log = desk.open()
    await log.start()
    for entry in entries:
        await log.record(entry)
    await log.close()


def replay(desk: Desk, *options: str) -> dict[str, object]:
    result = audit("replay", "--dir", desk.audit, "--kek", desk.kek, "-o", "json", *options)
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_more_bundles_than_engines_run_are_replayed_in_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_replay, "_ENGINES_MAX", 1)
    monkeypatch.setattr(audit_replay, "_BATCH_RECORDS", 3)
    monkeypatch.setattr(command, "_PROGRESS_S", 0.0)
    entries = []
    for number in (1, 2, 1):
        save_bundle(desk.audit / "bundles", found := bundle(number))
        entries += [decided(number, found.revision, build_sample("call"))] * 2
    asyncio.run(write(desk, *entries))
    result = audit("replay", "--dir", desk.audit, "--kek", desk.kek)
    assert result.exit_code == Exit.OK, result.output
    assert "agreed               6" in result.stdout
    assert "6 decisions, to record" in result.stderr


def test_what_cannot_be_put_again_is_told_apart(desk: Desk) -> None:
    save_bundle(desk.audit / "bundles", found := bundle(1))
    (desk.audit / "bundles" / ("0" * 64)).mkdir()
    revisions = ("sha256:" + "1" * 64, "no revision", "sha256:" + "0" * 64, found.revision)
    entries = [decided(1, revision, build_sample("call")) for revision in revisions]
    entries += [decided(1, found.revision, b"nonsense"), decided(1, found.revision, b"")]
    asyncio.run(write(desk, *entries))
    told = replay(desk)
    assert (told["agreed"], told["unreplayable"], told["altered"]) == (1, 4, 1)
    reasons = json.dumps(told["reasons"])
    for what in ("the recorded input is none", "no policy input was recorded", "is no revision"):
        assert what in reasons


def evaluated(items: list[dict[str, str]], rev: str, *documents: bytes) -> Entry:
    """Return the record of questions: the first of them were put to policy."""
    openings = [
        Opening(f"inputs.q{at}", document, "alice") for at, document in enumerate(documents)
    ]
    fields = {"client": "lars", "evaluations": items, "policy": {"rev": rev}}
    return Entry(type="policy.evaluate", op="op-q", fields=fields, openings=tuple(openings))


@pytest.mark.req("POL-10")
def test_answers_to_questions_are_recomputed_each_by_what_decided_on_it(desk: Desk) -> None:
    for number in (1, 2):
        save_bundle(desk.audit / "bundles", bundle(number))
    one, two = bundle(1).revision, bundle(2).revision
    no = {"outcome": "deny", "code": "no"}
    unknown = {"outcome": "deny", "code": "tool_unknown"}
    sample = build_sample("call")
    entries = (
        evaluated([no, no | {"rev": two}, unknown], one, sample, sample),
        evaluated([{"outcome": "permit"}, {"outcome": "permit"}], one, sample),
    )
    asyncio.run(write(desk, *entries))
    result = audit("replay", "--dir", desk.audit, "--kek", desk.kek, "-o", "json")
    assert result.exit_code == Exit.VERIFICATION_FAILED
    told = json.loads(result.stdout)
    assert (told["agreed"], told["differs"], told["unreplayable"]) == (2, 1, 1)


BOMB = """package policies.p1

deny contains {"code": "no"} if input.version == 1

deny contains {"code": "bombed"} if {
	items := input.context.args.items
	count([1 | some a in items; some b in items; some c in items; a + b + c == -1]) > 0
}
"""


def test_inputs_that_no_engine_answers_do_not_take_others_with_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_replay, "_DEADLINE_MS", 400)
    save_bundle(desk.audit / "bundles", found := build_bundle({"p1.rego": BOMB}, {}))
    sample = orjson.loads(build_sample("call"))
    sample["context"]["args"] = {"items": list(range(600))}
    bomb = decided(1, found.revision, orjson.dumps(sample))
    bomb.fields["decision"] = {"outcome": "deny", "reasons": ["policy_timeout"]}
    calm = decided(1, found.revision, build_sample("call"))
    asyncio.run(write(desk, bomb, bomb, calm, bomb, calm))
    told = replay(desk)
    assert (told["agreed"], told["gateway"], told["decisions"]) == (2, 3, 5)


def found_in(desk: Desk) -> Found:
    """Return the one record with a decision."""
    records = find_records(desk.audit, Selection(Filter(decision="deny")))
    return next(iter(records))


def read(desk: Desk, kek: bytes | None = None) -> Value:
    found, key = found_in(desk), kek or load_or_create_kek(desk.kek)
    vault = Vault(desk.audit / "openings" / "keys", key, "", Files())
    return ValueReader(desk.audit, vault).open(found.record, found.segment, "policy.input")


async def test_a_value_is_opened_with_its_salt(desk: Desk) -> None:
    await write(desk, decided(1, "r", b"value"))
    value = read(desk)
    assert (value.opened, len(value.salt), value.why) == (b"value", 32, "")
    assert list(commitments_of(found_in(desk).record)) == ["policy.input"]


async def test_a_record_that_commits_to_nothing_there_is_an_error(desk: Desk) -> None:
    await write(desk, decided(1, "r", b""))
    with pytest.raises(LookupError):
        read(desk)


async def test_a_person_erased_who_came_back_is_erased_and_not_altered(desk: Desk) -> None:
    await write(desk, decided(1, "r", b"value"))
    await desk.erase("alice")
    assert (read(desk).why, read(desk).what) == ("erased", "its subject's key is gone")
    again = Entry(type="x", op="y", fields={}, openings=(Opening("args", b"new", "alice"),))
    await write(desk, again)
    assert read(desk).why == "erased"
    assert "has a new key since" in read(desk).what


async def test_a_key_that_somebody_deleted_is_nobodys_erasure(desk: Desk) -> None:
    """Whoever has the disk can delete one; that a person was erased, a record says."""
    kek = load_or_create_kek(desk.kek)
    await write(desk, decided(1, "r", b"value"))
    vault = Vault(desk.audit / "openings" / "keys", kek, "", Files())
    vault.erase("alice")
    gone = "its subject's key is gone, and no record says that it was erased"
    assert (read(desk).why, read(desk).what) == ("lost", gone)
    again = Entry(type="x", op="y", fields={}, openings=(Opening("args", b"new", "alice"),))
    await write(desk, again)
    assert read(desk).why == "altered"
    redact = {"subject": vault.key_id("alice"), "basis": "request", "openings": 1}
    await write(desk, Entry(type="redact", op="z", fields=redact))
    assert read(desk).why == "erased"


async def test_another_kek_opens_nothing_and_says_why(desk: Desk) -> None:
    await write(desk, decided(1, "r", b"value"))
    value = read(desk, bytes(32))
    assert (value.why, value.what) == ("lost", "its subject's key is not under this KEK")


async def test_an_opening_of_another_record_is_not_believed(desk: Desk) -> None:
    """Moved to another number it does not decrypt; of another value it does not fit."""
    await write(desk, decided(1, "r", b"value"), decided(2, "r", b"other"))
    file = list_segments(desk.audit / "openings")[-1]
    first, second = (orjson.loads(line) for line in file.read_bytes().splitlines())
    moved = {**second, "seq": first["seq"]}
    file.write_bytes(orjson.dumps(moved) + b"\n")
    assert read(desk).why == "altered"
    moved["boot"] = "of another process"
    file.write_bytes(b"\ntorn{\n" + orjson.dumps(moved) + b"\n" + b'{"seq":')
    assert read(desk).why == "lost"
    file.unlink()
    assert read(desk).why == "lost"


async def test_a_value_that_the_record_does_not_commit_to_is_altered(desk: Desk) -> None:
    await write(desk, decided(1, "r", b"value"))
    found = found_in(desk)
    found.record["policy"]["input"]["c"] = "x"
    vault = Vault(desk.audit / "openings" / "keys", load_or_create_kek(desk.kek), "", Files())
    value = ValueReader(desk.audit, vault).open(found.record, found.segment, "policy.input")
    assert (value.why, value.what) == ("altered", "the opening is not what the record commits to")


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "."},
        {"key": "\0"},
        {"key": "a" * 300},
        {"key": "../../kek"},
        {"ct": {}},
        {"boot": 5},
    ],
    ids=str,
)
def test_an_opening_that_somebody_made_up_is_altered_and_ends_no_command(
    desk: Desk, changed: dict[str, object]
) -> None:
    asyncio.run(write(desk, decided(1, "r", b"{}")))
    file, lines = find_opening(desk)
    made_up = orjson.loads(lines[0]) | changed
    file.write_bytes(b"".join([orjson.dumps(made_up) + b"\n", *lines[1:]]))
    done = audit("replay", "--dir", desk.audit, "--kek", desk.kek, "-o", "json")
    assert done.exit_code == Exit.VERIFICATION_FAILED
    assert orjson.loads(done.stdout_bytes)["altered"] == 1
    out = desk.folder / "evidence.zip"
    opened = ("--openings", "--kek", desk.kek, "--purpose", "case")
    assert audit("bundle", desk.audit, "--out", out, *opened).exit_code == Exit.OK


async def test_lines_that_somebody_made_up_keep_nobody_from_being_erased(desk: Desk) -> None:
    await write(desk, decided(1, "r", b"{}"))
    log = desk.open()
    key_id, file = log.key_id("alice"), find_opening(desk)[0]
    before = log.count_openings(key_id)
    with file.open("ab") as openings:
        openings.write(b'x"key":"%b"\n{"seq":x,"key":"%b"}\n' % (2 * (key_id.encode(),)))
    assert log.count_openings(key_id) == before > 0
    await log.close()


def find_opening(desk: Desk) -> tuple[Path, list[bytes]]:
    """Return a file of openings, and its lines."""
    file = list_segments(desk.audit / "openings")[0]
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.strip()]
    return file, lines
