"""Cases about who signed, and about what the reader has from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial

from tests.conformance.audit.bases import plain, rotated
from tests.conformance.audit.case import Case, Finding
from tests.conformance.audit.stories import Story, witness_fields
from tests.conformance.audit.structural import END, LAST, broken
from tests.conformance.audit.tampering import Draft, resign
from tests.conformance.audit.writer import (
    EPOCHS,
    STRANGER,
    WITNESS,
    Files,
    Key,
    note_text,
)


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _epochs()
    yield from _rotations()
    yield from _known()
    yield from _copies()
    yield from _rewound()
    yield from _tiles()
    yield from _witnesses()


def _epochs() -> Iterator[Case]:
    for seq, epoch, what in (
        (6, 0, "The first checkpoint line of a new epoch is signed by the old key"),
        (7, 0, "A checkpoint line of epoch 1 is signed by the key of epoch 0"),
        (12, 0, "A checkpoint line of epoch 2 is signed by the key of epoch 0"),
        (END, 1, "The last checkpoint line is signed by the key of the epoch before"),
        (3, 1, "A checkpoint line of epoch 0 is signed by the key of epoch 1"),
        (5, 1, "The checkpoint line of a rotation is signed by the new key, not the old one"),
        (9, 2, "The checkpoint line of the second rotation is signed by the new key"),
    ):
        draft = Draft(rotated().files(copy=False))
        draft.note(seq, partial(resign, key=EPOCHS[epoch]))
        yield broken(f"epoch-{seq}-signed-by-{epoch}", f"{what}.", draft, "out_of_epoch", seq)
    for seq in (5, END):
        draft = Draft(rotated().files(copy=False))
        draft.note(seq, lambda note: resign(note, STRANGER))
        what = "A checkpoint line of a log with three epochs is signed by a stranger."
        yield broken(f"epoch-{seq}-signed-by-stranger", what, draft, "wrong_key", seq)
    what = "A record of the last epoch was changed and all signed again with the key of epoch 0."
    draft = Draft(rotated().files(copy=False)).edit(11, op="op-z").relink(key=EPOCHS[0])
    yield broken("rehash-old-epoch-key", what, draft, "out_of_epoch", 6)
    what = "The log was written on after two rotations by one who has the key of epoch 1."
    story = rotated()
    story.refused("op-9")
    story.seal(key=EPOCHS[1])
    yield broken("written-on-with-old-key", what, story.files(copy=False), "out_of_epoch", 14)


def _rotations() -> Iterator[Case]:
    story = Story().ready()
    story.rotate(epoch=2)
    _go_on(story)
    yield broken("rotate-skips", "A rotation skips an epoch.", story.files(), "out_of_epoch", 4)
    story = Story().ready()
    story.rotate(epoch=0)
    _go_on(story)
    what = "A rotation names the epoch that it ends."
    yield broken("rotate-same-epoch", what, story.files(), "out_of_epoch", 4)
    story = Story(keys=[EPOCHS[0], EPOCHS[0]]).ready()
    story.rotate()
    _go_on(story)
    what = "A rotation to the key that the log has already."
    yield broken("rotate-same-key", what, story.files(), "out_of_epoch", 4)
    story = Story(keys=[EPOCHS[0], EPOCHS[1], EPOCHS[0]]).ready()
    story.rotate()
    story.refused("op-1")
    story.seal()
    story.rotate()
    _go_on(story)
    what = "A rotation back to the key of an earlier epoch."
    yield broken("rotate-back", what, story.files(copy=False), "out_of_epoch", 6)
    story = Story().ready()
    story.rotate(seal=False)
    story.refused("op-1")
    story.seal(key=EPOCHS[0])
    _go_on(story)
    what = "A rotation is not the last record of its batch."
    yield broken("rotate-not-last", what, story.files(copy=False), "out_of_epoch", 4)
    story = Story().ready()
    story.rotate(key="not a key")
    _go_on(story)
    what = "A rotation whose key cannot be read."
    yield broken("rotate-no-key", what, story.files(copy=False), "out_of_epoch", 4)
    named = Key("epoch 1", name="other.example.com/audit")
    story = Story().ready()
    story.rotate(key=named.vkey)
    _go_on(story)
    what = "A rotation to a key of another name than the log's."
    yield broken("rotate-other-name", what, story.files(copy=False), "out_of_epoch", 4)
    draft = Draft(rotated().files(copy=False)).edit(5, epoch=2)
    yield broken("edit-rotate", "The number in a rotation was changed.", draft, "edited", 5)
    draft = Draft(rotated().files(copy=False)).edit(5, key=STRANGER.vkey)
    yield broken("edit-rotate-key", "The key in a rotation was changed.", draft, "edited", 5)
    draft = Draft(rotated().files(copy=False))
    del draft.lines[draft.at(5) : draft.after(5) + 1]
    what = "A rotation is gone with its checkpoint line; the intent of its batch stands."
    yield broken("delete-rotate", what, draft, "deleted", 5)


def _go_on(story: Story) -> None:
    story.refused("op-8")
    story.seal()


def _other_history() -> Story:
    """Return a log that has the same beginning as the plain one and another end."""
    story = Story().start()
    story.activate()
    story.token("t1")
    story.seal()
    for number in range(8):
        story.refused(f"other-{number}")
        story.seal()
    return story


def _known() -> Iterator[Case]:
    files, other = plain().files(), _other_history()
    for number in (2, 9):
        what = "A checkpoint from elsewhere, signed by the log's key, has another root."
        finding = Finding("forked", _size(other.notes[number]) - 1)
        known: tuple[str, ...] = (other.notes[number],)
        yield Case(f"known-forked-{number}", what, files, finding, known=known)
    what = "Of three checkpoints from elsewhere one has another root."
    known = (plain().notes[0], other.notes[4], plain().notes[-1])
    finding = Finding("forked", _size(other.notes[4]) - 1)
    yield Case("known-forked-one-of-three", what, files, finding, known=known)
    for last in (18, 12, 1):
        draft = Draft(plain().files(copy=False))
        draft.cut(draft.after(last) + 1)
        what = "Whole batches are gone at the end; a checkpoint from elsewhere counts them."
        known = (plain().notes[-1],)
        finding = Finding("truncated", last + 1)
        yield Case(f"known-truncated-{last}", what, draft.files(), finding, known=known)
    what = "A checkpoint from elsewhere is signed by a stranger."
    known = (resign(plain().notes[3], STRANGER),)
    finding = Finding("wrong_key", _size(plain().notes[3]) - 1)
    yield Case("known-stranger", what, files, finding, known=known)
    what = "A checkpoint from elsewhere whose signature is not good."
    text = plain().notes[3].split("\n\n")[0] + "\n"
    known = (f"{text}\n{EPOCHS[0].line(text, signed='x')}",)
    yield Case("known-bad-signature", what, files, finding, known=known)
    what = "A checkpoint from elsewhere is of another log."
    name = "other.example.com/audit"
    text, key = note_text(5, b"\7" * 32, origin=name), Key("other", name=name)
    known = (f"{text}\n{key.line(text)}",)
    yield Case("known-other-log", what, files, Finding("wrong_key", 4), known=known)
    what = "A log of three epochs, forked in the first; the checkpoint is of the first epoch's key."
    known = (other.notes[2],)
    finding = Finding("forked", _size(other.notes[2]) - 1)
    yield Case("known-forked-old-epoch", what, rotated().files(), finding, known=known)


def _size(note: str) -> int:
    return int(note.split("\n")[1])


def _copies() -> Iterator[Case]:
    other = _other_history()
    files = plain().files() | {"checkpoint": other.notes[-1].encode()}
    finding = Finding("forked", _size(other.notes[-1]) - 1)
    yield Case("copy-other-root", "The `checkpoint` copy has another root.", files, finding)
    draft = Draft(plain().files())
    draft.cut(draft.after(15) + 1)
    what = "The last batches are gone, the `checkpoint` copy counts them."
    yield broken("copy-ahead", what, draft, "truncated", 16)
    draft = Draft(plain().files())
    draft.cut(draft.at(14))
    what = "The last segment is gone, the `checkpoint` copy counts it."
    yield broken("copy-ahead-of-segment", what, draft, "truncated", 14)
    story = plain()
    files = story.files() | {"checkpoint": resign(story.notes[-1], STRANGER).encode()}
    what = "The `checkpoint` copy is signed by a stranger."
    yield broken("copy-stranger", what, files, "wrong_key", LAST)
    files = story.files() | {"checkpoint": resign(story.notes[2], STRANGER).encode()}
    what = "The `checkpoint` copy is of an earlier line and signed by a stranger."
    yield broken("copy-stranger-earlier", what, files, "wrong_key", 4)
    forked = Draft(plain().files()).edit(16, catalog="c2").relink(key=EPOCHS[0])
    what = "All was written again with the log's own key; the `checkpoint` copy is the old one."
    yield broken("copy-older-history", what, forked, "forked", LAST)
    story = _other_history()
    known = (plain().notes[-1],)
    what = "A log of the same key with another history than a checkpoint from elsewhere tells."
    short = story.files(copy=False)
    finding = Finding("truncated", story.size)
    yield Case("known-other-and-shorter", what, short, finding, known=known)


def _rewound() -> Iterator[Case]:
    whole = plain().files()
    for last in (18, 5):
        draft = Draft(plain().files(copy=False))
        draft.cut(draft.after(last) + 1)
        what = "The log is shorter than when the same reader last read it, and has an older copy."
        files = draft.files() | {"checkpoint": draft.lines[-1].note.encode()}
        finding = Finding("rewound", last + 1)
        yield Case(f"rewound-{last}", what, files, finding, before=whole)
    what = "The log has another history than when the same reader last read it."
    other = Draft(plain().files(copy=False)).edit(7, surface="rest").relink(key=EPOCHS[0])
    yield Case("seen-forked", what, other.files(), Finding("forked", LAST), before=whole)


def _many() -> Story:
    """Return a log of 300 records, so that level 1 of the tiles has a hash."""
    story = Story().start()
    while story.size < 300:
        story.put("x.tick")
    story.seal()
    return story


def _changed(files: Files, name: str, at: int) -> Files:
    data = bytearray(files[name])
    data[at] ^= 1
    return files | {name: bytes(data)}


def _tiles() -> Iterator[Case]:
    files = plain().files(tiles=True)
    tile = f"tile/0/000.p/{LAST + 1}"
    for seq in (0, 9, LAST):
        what = "A hash in the partial tile of level 0 was changed."
        changed = _changed(files, tile, seq * 32 + 5)
        yield broken(f"tile-partial-{seq}", what, changed, "edited", seq)
    what = "The log was cut back to an earlier checkpoint, but the tile has hashes beyond it."
    draft = Draft(plain().files(tiles=True, copy=False))
    end = draft.after(12) + 1
    size = sum(line.is_record for line in draft.lines[:end])
    yield broken("tile-beyond", what, draft.cut(end), "truncated", size)
    what = "A record was changed, and its hash in the tile too."
    draft = Draft(files).edit(7, surface="rest")
    yield broken("tile-and-record", what, draft, "edited", 7)
    what = (
        "A record is gone, later ones renumbered, linked and signed with the log's key; old tiles."
    )
    draft = Draft(plain().files(tiles=True, copy=False)).delete(20)
    draft.relink(renumber=True, key=EPOCHS[0])
    yield broken("tile-deleted-relinked", what, draft, "edited", 20)
    many = _many().files(tiles=True)
    what = "A hash in a full tile of level 0 was changed."
    changed = _changed(many, "tile/0/000", 200 * 32)
    yield broken("tile-full", what, changed, "edited", 200)
    what = "The hash in the partial tile of level 1 was changed: it stands for records 0 to 255."
    changed = _changed(many, "tile/1/000.p/1", 0)
    yield broken("tile-level-1", what, changed, "edited", 0)


def witnessed() -> Story:
    """Return a log in which a witness cosigned the checkpoints at 4 and 7 records."""
    story = Story().ready()
    story.refused("op-1")
    story.witnessed(1, key=WITNESS, time=1_700_000_060)
    story.refused("op-2")
    story.seal()
    story.witnessed(2, key=WITNESS, time=1_700_000_120)
    story.seal()
    return story


def _witnesses() -> Iterator[Case]:
    known = (WITNESS.vkey,)
    for name, over, what in (
        ("size", {"size": 3}, "A cosigned checkpoint of a size that none of the log's has"),
        ("root", {"root": "ab" * 32}, "A cosigned checkpoint with another root"),
        ("garbage", {"cosignatures": ["witness.example.net/w1 AAAA"]}, "A cosignature too short"),
        ("no-name", {"cosignatures": ["AAAA"]}, "A cosignature without a name"),
    ):
        story = Story().ready()
        seq = story.witnessed(1, key=WITNESS, time=1_700_000_060, **over)
        story.seal()
        finding = Finding("edited", seq)
        yield Case(f"witness-{name}", f"{what}.", story.files(), finding, witnesses=known)
    story = Story().ready()
    text = story.notes[1].split("\n\n")[0] + "\n"
    forged = Key("not the witness", name=WITNESS.name, algorithm=4)
    name, encoded = forged.cosign(text, 1_700_000_060).split(" ")
    fields = witness_fields(text, [f"{name} {_with_id(encoded, WITNESS)}"])
    seq = story.put("checkpoint.witnessed", **fields)
    story.seal()
    what = "A cosignature under the name and key id of a known witness, but not by its key."
    finding = Finding("edited", seq)
    yield Case("witness-forged", what, story.files(), finding, witnesses=known)
    story = Story().ready()
    story.refused("op-1")
    story.seal()
    text = note_text(9, b"\1" * 32)
    fields = witness_fields(text, [WITNESS.cosign(text, 1_700_000_060)])
    seq = story.put("checkpoint.witnessed", **fields)
    story.seal()
    what = "A cosigned checkpoint of a size that the log has not reached: of another history."
    finding = Finding("edited", seq)
    yield Case("witness-ahead", what, story.files(), finding, witnesses=known)
    draft = Draft(witnessed().files(copy=False)).edit(5, cosignatures=[])
    what = "The cosignatures were taken out of a record."
    yield Case("witness-edited", what, draft.files(), Finding("edited", 5), witnesses=known)


def _with_id(encoded: str, key: Key) -> str:
    blob = base64.b64decode(encoded)
    return base64.b64encode(key.id + blob[4:]).decode()
