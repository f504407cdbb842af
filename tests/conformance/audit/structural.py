"""Cases in which lines were edited, deleted, inserted or moved."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.audit.bases import plain, rotated
from tests.conformance.audit.case import Case, Finding
from tests.conformance.audit.tampering import Draft, forged
from tests.conformance.audit.writer import EPOCHS, STRANGER, Files

LAST = 21
END = 13
"""The last record of the log with three epochs."""


def draft() -> Draft:
    """Return the plain log, to be changed; without copies that would tell of the change too."""
    return Draft(plain().files(copy=False))


def broken(name: str, what: str, files: Draft | Files, kind: str, seq: int) -> Case:
    """Return a case that must fail."""
    content = files.files() if isinstance(files, Draft) else files
    return Case(name, what, content, Finding(kind, seq))


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _edits()
    yield from _reserved()
    yield from _deleted()
    yield from _inserted()
    yield from _moved()
    yield from _stray_checkpoints()
    yield from _joined()
    yield from _covered_up()
    yield from _segments()


EDITS: list[tuple[str, int, str, dict[str, object]]] = [
    ("first-record", 0, "the deployment in the first record", {"deployment__environment": "prod"}),
    ("genesis-profile", 0, "the profile in the first record", {"profile": "countersign.audit/v2"}),
    ("boot-cut", 1, "what a boot says was cut", {"cut": {"segment": "x", "bytes": 1}}),
    ("middle-of-batch", 7, "the tool of an intent in the middle of a batch", {"tool__id": "a.b"}),
    ("first-of-batch", 6, "the agent of an intent that begins a batch", {"actor__agent": "eve"}),
    ("first-of-segment", 14, "the delivery of an outcome", {"delivery": "not_sent"}),
    ("last-of-segment", 5, "the status of an outcome that ends a segment", {"status": "failed"}),
    ("last-of-batch", 8, "the latency of an outcome that ends a batch", {"latency_us": 1}),
    ("last-record", LAST, "a field was added to the last record", {"note": "x"}),
    (
        "only-of-batch",
        4,
        "the decision of an intent alone in its batch",
        {"decision__outcome": "deny"},
    ),
    ("commitment", 6, "a commitment", {"args__c": "A" * 43}),
    ("commitment-length", 7, "the length in a commitment", {"args__bytes": 99}),
    ("policy-input", 4, "the commitment of a policy input", {"policy__input__c": "B" * 43}),
    ("voter-tag", 11, "the tag of a voter", {"voter_tag": "C" * 22}),
    ("quorum", 10, "the quorum of an approval", {"quorum": 0}),
    ("token-scope", 3, "the scopes of a token", {"scopes": ["tools:call", "admin"]}),
    ("field-gone", 15, "a field of a refusal is gone", {"reason": ...}),
    ("nested-gone", 13, "a nested field is gone", {"tool__effect": ...}),
]


def _edits() -> Iterator[Case]:
    for name, seq, what, changes in EDITS:
        tampered = draft().edit(seq, **changes)
        yield broken(f"edit-{name}", f"Changed: {what}.", tampered, "edited", seq)


RESERVED: list[tuple[str, object, str]] = [
    ("v", 2, "edited"),
    ("log", "other.example.com/audit", "wrong_log"),
    ("seq", 40, "edited"),
    ("prev", "ab" * 32, "edited"),
    ("ts", 1_699_999_999_000_000, "edited"),
    ("boot", "boot-9", "edited"),
    ("type", "call.refused", "edited"),
    ("op", "op-99", "edited"),
]


def _reserved() -> Iterator[Case]:
    for field, value, kind in RESERVED:
        what = f"Changed: `{field}` of a record in the middle of a batch."
        yield broken(f"edit-reserved-{field}", what, draft().edit(7, **{field: value}), kind, 7)
    for field, value, kind in RESERVED:
        what = f"Changed: `{field}` of the last record of the log."
        tampered = draft().edit(LAST, **{field: value})
        yield broken(f"edit-reserved-{field}-last", what, tampered, kind, LAST)
    what = "Changed: `seq` of a record to that of the one before."
    yield broken("edit-reserved-seq-lower", what, draft().edit(11, seq=10), "edited", 11)
    for seq in (11, LAST):
        what = "Changed: `seq` of a record to the next number."
        tampered = draft().edit(seq, seq=seq + 1)
        yield broken(f"edit-reserved-seq-next-{seq}", what, tampered, "edited", seq)
    what = "Changed: the key in the first record, so that it is none."
    tampered = draft().edit(0, key=EPOCHS[0].vkey[:-4])
    yield broken("edit-key-of-genesis", what, tampered, "edited", 0)
    what = "Changed: `ts` of a record to a later time than that of the next one."
    tampered = draft().edit(7, ts=1_700_000_900_000_000)
    yield broken("edit-reserved-ts-later", what, tampered, "edited", 7)
    what = "Changed: `prev` of a record that begins a batch."
    yield broken("edit-reserved-prev-first", what, draft().edit(16, prev="cd" * 32), "edited", 16)
    what = "Changed: `cp` of a record."
    yield broken("edit-reserved-cp", what, draft().edit(6, cp="ef" * 32), "edited", 6)
    what = "Taken away: `cp` of a record."
    yield broken("edit-reserved-cp-gone", what, draft().edit(10, cp=...), "edited", 10)
    what = "Added: `cp` in a record that follows no checkpoint line."
    yield broken("edit-reserved-cp-added", what, draft().edit(11, cp="ef" * 32), "edited", 11)
    what = "Added: `event` in a record."
    yield broken("edit-reserved-event", what, draft().edit(17, event="e-1"), "edited", 17)
    what = "Changed: the log's name in the first record."
    tampered = draft().edit(0, log="other.example.com/audit")
    yield broken("edit-origin-of-genesis", what, tampered, "wrong_log", 0)
    what = "Changed: the type of the first record."
    yield broken("edit-genesis-type", what, draft().edit(0, type="boot"), "edited", 0)


def _deleted() -> Iterator[Case]:
    single = [(0, "first"), (7, "middle"), (6, "first-of-segment"), (8, "last-of-batch")]
    for seq, where in [*single, (11, "approval-vote"), (LAST, "last-before-checkpoint")]:
        yield broken(f"delete-{where}", "One record is gone.", draft().delete(seq), "deleted", seq)
    what = "Several records of a batch are gone."
    yield broken("delete-several", what, draft().delete(10, 11), "deleted", 10)
    what = "Several records over the border of a batch are gone, with the checkpoint line there."
    yield broken("delete-over-border", what, draft().delete(8, 10), "deleted", 8)
    what = "A whole batch is gone, its checkpoint line too."
    tampered = draft()
    del tampered.lines[tampered.at(10) : tampered.after(10) + 1]
    yield broken("delete-batch", what, tampered, "deleted", 10)
    what = "Two whole batches over the border of a segment are gone."
    tampered = draft()
    del tampered.lines[tampered.at(13) : tampered.after(14) + 1]
    yield broken("delete-batches-over-segment", what, tampered, "deleted", 13)
    what = "A checkpoint line is gone, the records around it stand."
    tampered = draft()
    del tampered.lines[tampered.after(9)]
    yield broken("delete-checkpoint-line", what, tampered, "deleted", 9)
    what = "The first checkpoint line is gone."
    tampered = draft()
    del tampered.lines[tampered.after(1)]
    yield broken("delete-first-checkpoint-line", what, tampered, "deleted", 1)
    what = "The last record of a batch of one is gone, its checkpoint line stands."
    yield broken("delete-only-of-batch", what, draft().delete(9), "deleted", 9)
    what = "A record is gone and the later ones are renumbered, but not linked anew."
    tampered = draft().delete(15)
    for at, line in enumerate(tampered.lines):
        if line.is_record and line.record["seq"] > 15:
            tampered.lines[at].data = line.data.replace(
                b'"seq":%d,' % line.record["seq"], b'"seq":%d,' % (line.record["seq"] - 1)
            )
    yield broken("delete-renumber", what, tampered, "deleted", 15)


def _inserted() -> Iterator[Case]:
    for seq in (1, 8, 16, LAST):
        tampered = draft()
        at = tampered.at(seq)
        tampered.insert(at + 1, tampered.lines[at].data)
        what = "A record stands twice, one after the other."
        yield broken(f"insert-duplicate-{seq}", what, tampered, "inserted", seq + 1)
    tampered = draft()
    tampered.insert(tampered.at(17), tampered.lines[tampered.at(7)].data)
    what = "A copy of a record stands a second time, far behind the first."
    yield broken("insert-duplicate-later", what, tampered, "inserted", 17)
    tampered = draft()
    tampered.insert(tampered.at(7), tampered.lines[tampered.at(17)].data)
    what = "A copy of a record stands a second time, far before the first."
    yield broken("insert-duplicate-earlier", what, tampered, "inserted", 7)
    for seq, where in ((7, "in the middle of a batch"), (17, "in the last segment")):
        tampered = draft()
        tampered.insert(tampered.at(seq), forged(tampered, seq, op="op-x"))
        what = f"A forged record that fits the one before it stands {where}; the real one follows."
        yield broken(f"insert-forged-{seq}", what, tampered, "inserted", seq)
    tampered = draft()
    tampered.insert(tampered.at(11), forged(tampered, 11, seq=900))
    what = "A forged record with a number beyond the log's end."
    yield broken("insert-forged-number", what, tampered, "inserted", 11)
    tampered = draft()
    at = tampered.after(9)
    tampered.insert(at + 1, tampered.lines[at].data)
    yield broken("insert-checkpoint-again", "A checkpoint line twice.", tampered, "inserted", 9)
    tampered = draft()
    last = tampered.lines[-1].data
    tampered.insert(len(tampered.lines), last)
    what = "The last checkpoint line stands twice."
    yield broken("insert-checkpoint-at-end", what, tampered, "inserted", LAST)
    tampered = draft()
    tampered.insert(tampered.at(3), forged(tampered, 0))
    yield broken("insert-genesis", "The first record a second time.", tampered, "inserted", 3)
    tampered = draft()
    first, last_place = tampered.at(10), tampered.after(10)
    for line in reversed(tampered.lines[first : last_place + 1]):
        tampered.insert(last_place + 1, line.data)
    what = "A whole batch stands twice, with its checkpoint line."
    yield broken("insert-batch-again", what, tampered, "inserted", 13)


def _moved() -> Iterator[Case]:
    pairs = [(6, 7, "neighbours"), (7, 17, "far apart"), (8, 9, "neighbours of two batches")]
    pairs += [(5, 6, "neighbours of two segments"), (0, 1, "the first two"), (20, LAST, "the last")]
    for one, other, what in pairs:
        tampered = draft()
        tampered.swap(tampered.at(one), tampered.at(other))
        text = f"Two records have changed places: {what}."
        yield broken(f"swap-{one}-{other}", text, tampered, "reordered", one)
    tampered = draft()
    line = tampered.lines.pop(tampered.at(7))
    tampered.insert(tampered.at(17), line.data)
    yield broken("move-later", "A record was moved to a later place.", tampered, "reordered", 7)
    tampered = draft()
    line = tampered.lines.pop(tampered.at(17))
    tampered.insert(tampered.at(7), line.data)
    yield broken("move-earlier", "A record was moved to an earlier one.", tampered, "reordered", 7)
    tampered = draft()
    tampered.swap(tampered.after(9), tampered.after(10))
    what = "Two checkpoint lines have changed places."
    yield broken("swap-checkpoint-lines", what, tampered, "reordered", 9)
    tampered = draft()
    first = tampered.lines[tampered.at(9) : tampered.after(9) + 1]
    second = tampered.lines[tampered.at(10) : tampered.after(10) + 1]
    tampered.lines[tampered.at(9) : tampered.after(10) + 1] = second + first
    yield broken("swap-batches", "Two batches have changed places.", tampered, "reordered", 9)


def _stray_checkpoints() -> Iterator[Case]:
    tampered = draft()
    line = tampered.lines.pop(tampered.at(8))
    tampered.insert(tampered.at(16), line.data)
    what = "The last record of a batch was moved to a later batch."
    yield broken("move-last-of-batch", what, tampered, "reordered", 8)
    tampered = draft()
    tampered.insert(tampered.at(6) + 1, tampered.lines[tampered.after(12)].data)
    what = "A copy of a later checkpoint line stands in the middle of a batch."
    yield broken("insert-later-checkpoint", what, tampered, "inserted", 6)
    tampered = draft()
    tampered.insert(tampered.at(16) + 1, tampered.lines[tampered.after(1)].data)
    what = "A copy of an earlier checkpoint line stands in the middle of a batch."
    yield broken("insert-earlier-checkpoint", what, tampered, "inserted", 16)
    tampered = Draft(rotated().files(copy=False))
    tampered.insert(tampered.at(11) + 1, tampered.lines[tampered.after(3)].data)
    what = "A copy of a checkpoint line of an earlier epoch stands in the middle of a batch."
    yield broken("insert-old-epoch-checkpoint", what, tampered, "inserted", 11)
    tampered = Draft(rotated().files(copy=False))
    tampered.insert(tampered.at(END), tampered.lines[tampered.at(5)].data)
    what = "A copy of a rotation stands a second time, far behind the first."
    yield broken("insert-rotate-again", what, tampered, "inserted", END)
    tampered = draft()
    line = tampered.lines.pop(tampered.after(9))
    tampered.insert(tampered.at(10) + 1, line.data)
    what = "A checkpoint line was moved behind the next record."
    yield broken("move-checkpoint-later", what, tampered, "reordered", 9)
    tampered = draft()
    line = tampered.lines.pop(tampered.after(12))
    tampered.insert(tampered.at(10) + 1, line.data)
    what = "A checkpoint line was moved to before the last records of its batch."
    yield broken("move-checkpoint-earlier", what, tampered, "reordered", 10)
    tampered = Draft(rotated().files(copy=False))
    del tampered.lines[tampered.at(4) : tampered.at(6) + 1]
    what = "Everything from a batch with a rotation to the first record behind it is gone."
    yield broken("delete-over-rotation", what, tampered, "deleted", 4)


def _joined() -> Iterator[Case]:
    for at, kind in ((draft().after(9), "checkpoint line"), (draft().at(7), "record")):
        tampered = draft()
        tampered.lines[at].data = tampered.lines[at].data[:90]
        seq = 9 if kind == "checkpoint line" else 7
        what = f"The end of a {kind} is gone with its LF, so the next line is joined to it."
        yield broken(f"joined-{seq}", what, tampered, "edited", seq)


def _covered_up() -> Iterator[Case]:
    for seq in (0, 7, LAST):
        tampered = draft().edit(seq, op="op-z").relink()
        batch_end = {0: 1, 7: 8, LAST: LAST}[seq]
        what = (
            "A record was changed and every later link and root worked out again; the signatures "
            "are the old ones, so the first changed checkpoint line is what can be told."
        )
        yield broken(f"rehash-old-signatures-{seq}", what, tampered, "edited", batch_end)
    for seq in (2, 18):
        tampered = draft().delete(seq)
        tampered.relink(renumber=True)
        what = "A record is gone, all later ones renumbered and linked; old signatures."
        yield broken(f"rehash-deleted-{seq}", what, tampered, "edited", {2: 2, 18: 17}[seq])
    tampered = draft().edit(7, op="op-z").relink(key=STRANGER)
    what = "A record was changed, everything worked out again and signed with a stranger's key."
    yield broken("rehash-stranger", what, tampered, "wrong_key", 1)
    tampered = draft().edit(0, key=STRANGER.vkey).edit(1, key=STRANGER.vkey).relink(key=STRANGER)
    what = "A log that is whole, but of another key than the pinned one."
    yield broken("rehash-other-genesis-key", what, tampered, "wrong_key", 0)
    tampered = Draft(plain().files(tiles=True, copy=False)).edit(7, op="op-z").relink()
    what = "A record was changed and all worked out again, but the level-0 tile is the old one."
    yield broken("rehash-with-tiles", what, tampered, "edited", 7)
    tampered = Draft(plain().files(tiles=True, copy=False)).edit(7, op="op-z").relink(key=EPOCHS[0])
    what = "Changed and signed again with the log's own key, but the level-0 tile is the old one."
    yield broken("rehash-own-key-with-tiles", what, tampered, "edited", 7)
    tampered = Draft(rotated().files(copy=False)).edit(2, rev="rev-2")
    what = "A record of the first of three epochs was changed."
    yield broken("edit-in-old-epoch", what, tampered, "edited", 2)


def _segments() -> Iterator[Case]:
    names = ["00000000000000000000", "00000000000000000006", "00000000000000000014"]
    for at, first in enumerate((0, 6)):
        files = plain().files(copy=False)
        del files[f"{names[at]}.jsonl"]
        what = f"The whole segment from record {first} on is gone, a later one stands."
        yield broken(f"delete-segment-{first}", what, files, "deleted", first)
    files = plain().files(copy=False)
    files[f"{names[1]}.jsonl"] = b""
    what = "A segment in the middle is empty."
    yield broken("empty-segment-in-the-middle", what, files, "deleted", 6)
    files = plain().files(copy=False)
    one, two = f"{names[0]}.jsonl", f"{names[1]}.jsonl"
    files[one], files[two] = files[two], files[one]
    what = "The names of two segments were exchanged."
    yield broken("swap-segments", what, files, "reordered", 0)
    files = plain().files(copy=False)
    files[two] = b"".join(files[two].splitlines(keepends=True)[:-1])
    what = "A segment in the middle was cut before its last checkpoint line."
    yield broken("cut-segment-in-the-middle", what, files, "deleted", 13)
