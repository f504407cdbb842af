"""The command on a log from the real writer and an export in a file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_files import Files, lock
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.cli.audit_reconcile import Reading
from gateway.cli.audit_reconcile import run as reconcile
from gateway.cli.exits import Exit
from gateway.cli.reconcile_map import load_map
from gateway.core.calls.call import Intent, Outcome
from gateway.core.entry import Entry, Opening
from gateway.core.reconcile.reconcile import Scope
from tests.fixed import FixedClock
from tests.integration.reconcile.bank import Said, run
from tests.patience import PATIENT

MAP = """\
tools:
  - name: bank.pay
    arguments:
      /to: recipient
      /amount: {column: amount, type: integer}
operation_id: op
row_id: id
time: {column: at, format: epoch_s}
ignore:
  - {column: source, is: [import], why: the nightly import}
"""
HEAD = "id,op,recipient,amount,at,source\n"
T0 = 1_700_000_000


class Desk:
    """A folder with a log of calls that paid, each for a data subject of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.audit, self.kek = folder, folder / "audit", folder / "kek"
        self.map = self.write("map.yaml", MAP)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def pay(self, *payees: str, segment_max_bytes: int = 1 << 20, amount: int = 5) -> None:
        """Log one call each, `op-<payee>`, of this amount."""
        clock = FixedClock(T0)
        log = FileAuditLog.open(
            self.audit,
            origin="bank/audit",
            signer=Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
            kek=load_or_create_kek(self.kek),
            clock=clock,
            limits=PATIENT,
            deployment={},
            segment_max_bytes=segment_max_bytes,
        )
        await log.start()
        nothing = cast("Any", None)
        for payee in payees:
            clock.now_s += 1
            entry = Entry(
                type="call.intent",
                op=f"op-{payee}",
                fields={"tool": {"id": "bank.pay"}},
                openings=(
                    Opening("note", b"x" * 50, "bank"),
                    Opening("args", orjson.dumps({"to": payee, "amount": amount}), payee),
                ),
            )
            recorded = await log.record_intent(
                Intent(
                    resolved=nothing,
                    decision=nothing,
                    entry=entry,
                    idempotency_key="k",
                    deadline_ms=1,
                    find_stop=lambda: None,
                )
            )
            clock.now_s += 1
            fields = {"intent": recorded.seq, "status": "ok", "delivery": "sent"}
            end = Entry(type="call.outcome", op=entry.op, fields=fields)
            await log.record_outcome(
                Outcome(intent=recorded, status="ok", delivery="sent", entry=end)
            )
        await log.close()

    def row(self, payee: str, number: int = 1, **changes: object) -> str:
        """Return the line of an effect as it should be."""
        row = {
            "id": 100 + number,
            "op": f"op-{payee}",
            "recipient": payee,
            "amount": 5,
            "at": T0 + 2 * number,
            "source": "bank",
        } | changes
        return ",".join(map(str, row.values())) + "\n"

    def export(self, *rows: str) -> Path:
        return self.write("payments.csv", HEAD + "".join(rows))

    def run(self, export: object, *more: object, kek: bool = True) -> Said:
        key = ("--kek", self.kek) if kek else ()
        return run(export, "--map", self.map, "--log", self.audit, *key, *more)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.req("AUD-14")
async def test_what_agrees_is_reconciled(desk: Desk) -> None:
    await desk.pay("ann", "ben")
    said = desk.run(desk.export(desk.row("ann"), desk.row("ben", 2)))
    assert said.code == Exit.OK
    assert "rows          2: 2 belong to calls that were sent\n" in said.out
    assert "calls         2: 2 have their effect\n" in said.out
    assert "arguments     2 rows compared\n" in said.out
    assert said.out.endswith(
        "reconciled: the log explains every row, and every call has its effect\n"
    )
    assert "UNPINNED_KEY" in said.err


@pytest.mark.req("AUD-14")
async def test_what_does_not_agree_is_told_row_by_row(desk: Desk) -> None:
    await desk.pay("ann", "ben", "cem")
    rows = [desk.row("ann", amount=6), desk.row("ben", 2), desk.row("ben", 3)]
    said = desk.run(desk.export(*rows, desk.row("dan", 4, op="\x1b[2J" + "x" * 100, id=4)))
    assert said.code == Exit.VERIFICATION_FAILED
    assert said.out.splitlines()[-5:] == [
        (
            "effect_differs          row 1 (id 101); op op-ann; record 2; not what was called for "
            "(/amount)"
        ),
        "effect_twice            row 2 (id 102), 3 (id 103); op op-ben; record 4; one call, 2 rows",
        (
            f"effect_without_intent   row 4 (id 4); op \\u001b[2J{'x' * 76}; the log knows no such "
            "operation"
        ),
        "intent_without_effect   op op-cem; record 6; sent and answered, and not in the export",
        "NOT RECONCILED: 4 findings",
    ]


async def test_json_lines_end_with_the_summary(desk: Desk) -> None:
    await desk.pay("ann")
    export = desk.export(desk.row("x", source="import"), desk.row("y", 2, op=""))
    said = desk.run(export, "-o", "jsonl")
    first, second, last = map(orjson.loads, said.out.splitlines())
    assert (first["kind"], first["rows"]) == ("effect_without_intent", [{"row": 2, "id": "102"}])
    assert second["kind"] == "intent_without_effect"
    assert last["summary"]["counts"]["ignored"][0]["rows"] == 1
    assert last["summary"]["records"] == 5
    assert len(last["summary"]["sha256"]) == 64
    assert "hint: no row names an operation" in said.err


@pytest.mark.req("AUD-14")
async def test_a_log_that_does_not_verify_is_not_believed(desk: Desk) -> None:
    await desk.pay("ann")
    segment = next(desk.audit.glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"op":"op-ann"', b'"op":"op-eve"'))
    export = desk.export(desk.row("eve", recipient="ann"))
    said = desk.run(export)
    assert (said.code, said.out) == (Exit.VERIFICATION_FAILED, "")
    assert "edited at record 2" in said.err
    assert "nothing was reconciled" in said.err
    loud = desk.run(export, "--unverified")
    assert loud.code == Exit.OK
    assert "warning: UNVERIFIED" in loud.err
    assert "NOT VERIFIED" in loud.out


async def test_the_key_that_was_kept_elsewhere_is_asked_for(desk: Desk) -> None:
    await desk.pay("ann")
    key = desk.audit / "log.vkey"
    said = desk.run(desk.export(desk.row("ann")), "--vkey", key)
    assert (said.code, "UNPINNED" in said.err) == (Exit.OK, False)
    assert desk.run(desk.export(), "--vkey", desk.folder / "none").code == Exit.USAGE
    assert desk.run(desk.export(), "--vkey", "no+key").code == Exit.USAGE


@pytest.mark.req("AUD-14")
async def test_what_was_erased_cannot_be_compared_and_is_no_difference(desk: Desk) -> None:
    await desk.pay("ann", "ben")
    vault = Vault(desk.audit / "openings" / "keys", load_or_create_kek(desk.kek), "", Files())
    assert vault.erase("ben")
    said = desk.run(desk.export(desk.row("ann"), desk.row("ben", 2, amount=9)), "-o", "json")
    assert said.code == Exit.OK
    assert (said.report["compared"], said.report["not_comparable"]) == (1, 1)
    table = desk.run(desk.export(desk.row("ann")), kek=False)
    assert "1 not comparable: no key was given, or they were erased" in table.out


@pytest.mark.req("AUD-14")
async def test_openings_of_many_segments_are_found(desk: Desk) -> None:
    payees = [f"p{number}" for number in range(30)]
    await desk.pay(*payees, segment_max_bytes=4_000)
    assert len(list(desk.audit.glob("*.jsonl"))) > 3
    rows = [desk.row(name, n + 1) for n, name in enumerate(payees) if n in {3, 4, 20}]
    until = ("--until", "2023-11-14T22:13:20Z")
    said = desk.run(desk.export(*rows), *until, "-o", "json")
    assert (said.code, said.report["compared"]) == (Exit.OK, 3)
    counts = said.report["counts"]
    assert (counts["calls_outside"], counts["at_edge"]) == (25, 2)


@pytest.mark.req("AUD-14")
async def test_nothing_is_opened_before_the_reading_is_recorded(desk: Desk) -> None:
    await desk.pay("ann", "ben", "cem")
    said, readings = load_map(desk.map), list[Reading]()

    def refuse(reading: Reading) -> None:
        readings.append(reading)
        raise PermissionError("no")

    vault = Vault(desk.audit / "openings" / "keys", load_or_create_kek(desk.kek), "", Files())
    reconciled: Callable[..., object] = reconcile
    with pytest.raises(PermissionError):
        reconciled(
            str(desk.export(desk.row("ann"), desk.row("cem", 3))),
            said,
            Scope(tools=said.tools),
            directory=desk.audit,
            vault=vault,
            records=None,
            announce=refuse,
        )
    assert readings == [Reading(records=2, first=2, last=6)]


async def test_the_range_is_told_and_what_lies_at_its_edge(desk: Desk) -> None:
    await desk.pay("ann", "ben", "cem", "dan", "eve")
    rows = [desk.row("old", at=T0 - 500), desk.row("odd", 2, at="soon", op="")]
    range_ = ("--since", "2023-11-14T22:13:20Z", "--until", "2023-11-14T22:13:27+00:00")
    said = desk.run(desk.export(*rows), *range_)
    assert "covers        2023-11-14T22:13:20Z to 2023-11-14T22:13:27Z" in said.out
    assert "1 left out, their time is not covered" in said.out
    assert "1 without a time that can be read, looked at" in said.out
    assert "5 have none, at the edge of what is covered" in said.out


async def test_rows_in_sqlite_are_asked_for_by_the_maps_query(desk: Desk) -> None:
    await desk.pay("ann")
    with sqlite3.connect(desk.folder / "shop.db") as connection:
        connection.execute("CREATE TABLE pay (id, op, recipient, amount, at, source)")
        row = (1, "op-ann", "ann", 5, T0, "bank")
        connection.execute("INSERT INTO pay VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.close()
    desk.write("map.yaml", f"{MAP}query: SELECT * FROM pay\n")  # noqa: S608 - written above
    said = desk.run(f"sqlite:///{desk.folder / 'shop.db'}")
    assert said.code == Exit.OK
    assert "sha256" not in said.out


async def test_a_call_without_arguments_to_compare_is_explained_by_its_operation(
    desk: Desk,
) -> None:
    await desk.pay("ann")
    desk.write("map.yaml", "tools: [{name: bank.pay}]\noperation_id: op\n")
    said = desk.run(desk.export(desk.row("ann", recipient="who")), "-o", "json")
    assert (said.code, said.report["not_comparable"], said.err.count("opened")) == (Exit.OK, 0, 0)


async def test_openings_that_hold_no_arguments_cannot_be_compared(desk: Desk) -> None:
    await desk.pay("ann")
    for file in (desk.audit / "openings").glob("*.jsonl"):
        file.write_bytes(b'{"seq":2,"n":0,"key":"00","boot":"x","ct":""}\ntorn')
    assert "1 not comparable" in desk.run(desk.export(desk.row("ann"))).out


@pytest.mark.req("AUD-14")
async def test_openings_that_somebody_put_in_their_place_are_not_believed(desk: Desk) -> None:
    await desk.pay("ann")
    genuine = desk.audit.rename(desk.folder / "genuine")
    await desk.pay("ann", amount=6)
    (genuine / "openings").rename(desk.folder / "away")
    (desk.audit / "openings").rename(genuine / "openings")
    said = desk.run(desk.export(desk.row("ann", amount=6)), "--log", genuine, "-o", "json")
    assert (said.report["compared"], said.report["not_comparable"]) == (0, 1)


@pytest.mark.req("AUD-14")
async def test_what_no_checkpoint_covers_yet_explains_nothing(desk: Desk) -> None:
    await desk.pay("ann")
    segment = next(desk.audit.glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    until = next(n for n, line in enumerate(lines) if b'"call.intent"' in line)
    segment.write_bytes(b"".join(lines[: until + 1]))
    (desk.audit / "checkpoint").unlink()
    holder = lock(desk.audit)
    try:
        said = desk.run(desk.export(desk.row("ann")), "-o", "json")
    finally:
        os.close(holder)
    assert [one["kind"] for one in said.report["findings"]] == ["effect_without_intent"]
    assert said.report["records"] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--since", "yesterday"], Exit.USAGE, "--since: `yesterday` is no time"),
        (["--until", "2023-11-14T22:13:20"], Exit.USAGE, "is no time"),
        (
            ["--since", "2026-06-01T00:00:00Z", "--until", "2026-05-01T00:00:00Z"],
            Exit.USAGE,
            "`--since` is not before `--until`",
        ),
        (["--kek", "none"], Exit.USAGE, "key file `none` is not there"),
        (["--log", "none"], Exit.NOT_FOUND, "`none` holds no audit log"),
        (["--map", "none"], Exit.USAGE, "none: cannot be read"),
        (["-o", "xml"], Exit.USAGE, "xml"),
    ],
)
async def test_wrong_usage_is_answered_plainly(
    desk: Desk, words: list[str], code: Exit, said: str
) -> None:
    await desk.pay("ann")
    answer = desk.run(desk.export(desk.row("ann")), *words)
    assert (answer.code, said in answer.err) == (code, True), answer.err


async def test_an_export_that_cannot_be_read_is_an_error(desk: Desk) -> None:
    await desk.pay("ann")
    answer = desk.run(desk.write("e.csv", "a,b\n"))
    assert (answer.code, "no column `op`" in answer.err) == (Exit.ERROR, True)
    desk.write("map.yaml", "tools: [{name: x}]\n")
    answer = desk.run(desk.export())
    assert answer.code == Exit.USAGE
    assert f"error: {desk.map}:1: `operation_id` is missing" in answer.err
    assert f"error: {desk.map}:1: `x` is no policy id" in answer.err


async def test_the_log_is_looked_for_where_a_gateway_keeps_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.pay("ann")
    export = desk.export(desk.row("ann"))
    monkeypatch.chdir(desk.folder)
    assert run(export, "--map", desk.map).code == Exit.OK
