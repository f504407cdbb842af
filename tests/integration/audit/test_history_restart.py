"""What a run has done and read is rebuilt from a real log, by a gateway that starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.calls.ledger import Ledger
from gateway.core.entry import Entry
from tests.integration.audit_queries.desk import Desk

pytestmark = [pytest.mark.req("POL-02")]

CHARGE = {
    "family": "run-1",
    "tool": "mail.send",
    "sums": {"mail.send#/amount": "5"},
    "labels": ["pii"],
    "at": 1_700_000_000,
    "payer": "lars bot",
    "sinks": "unseen",
}


def entries() -> list[Entry]:
    """A run with labels of its own, a call, what its result added, and a call that never left."""
    create = {"agent": "bot", "client": "lars", "run": "run-1", "root": "run-1"}
    sent = {"intent": 1, "status": "ok", "delivery": "sent"}
    return [
        Entry(type="run.create", op="r", fields={**create, "labels": ["untrusted"]}),
        Entry(type="call.intent", op="a", fields={"charge": CHARGE}),
        Entry(
            type="call.outcome",
            op="a",
            fields={**sent, "family": "run-1", "labels": ["confidential"]},
        ),
        Entry(type="call.intent", op="b", fields={"charge": {**CHARGE, "labels": ["secret"]}}),
        Entry(type="call.outcome", op="b", fields={"intent": 4, "delivery": "not_sent"}),
    ]


@pytest.mark.parametrize("known", range(8))
async def test_labels_egress_and_days_come_back_from_any_snapshot(
    known: int, tmp_path: Path
) -> None:
    """`known`: how many records the snapshot had seen, the two that begin a log among them."""
    desk = Desk(tmp_path)
    log = desk.open()
    await log.start()
    for entry in entries():
        await log.record(entry)
    await log.close()
    before = Ledger()
    records = desk.records()
    for record in records[:known]:
        if record["type"] in {"run.create", "call.intent", "call.outcome"}:
            before.replay(record)
    ledger = Ledger()
    ledger.restore(before.snapshot())
    again = desk.open(fold=ledger.replay, fold_from=known)
    family = ledger.family("run-1")
    assert family.labels == {"untrusted", "pii", "confidential", "secret"}
    assert family.sightings.doubt
    assert family.step == 2
    if known != 6:  # between the second intent and its end, the snapshot knows no operation
        assert family.calls == 1
        assert family.egress == {"servers": {"mail": 1}, "classes": {"unseen": 1}}
        assert ledger.day("lars bot", 1_700_000_000).view()["sums"] == {"mail.send#/amount": 5}
    else:  # then it counts: never too little
        assert family.calls == 2
    await again.start()
    await again.close()
