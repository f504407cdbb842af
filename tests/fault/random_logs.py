"""Honest logs of random stories, and what can be done to one, with what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, NamedTuple

from tests.conformance.audit.stories import HOLD, Story
from tests.conformance.audit.tampering import Draft, forged, resign
from tests.conformance.audit.writer import EPOCHS, STRANGER, WITNESS, Files, encode
from tests.fault.verifiers import Found

_STEPS_MOST: Final = 12


class RandomStory(Story):
    """A story of chance that breaks no rule."""

    def __init__(self, random: Random, *, epochs: int = 4) -> None:
        super().__init__()
        self._random: Final = random
        self._epochs: Final = epochs
        self._number = 0
        self._boots = 1

    def tell(self) -> RandomStory:
        """Tell all of it."""
        self.start()
        self.put("policy.activate", op=self._op(), rev="rev-1", packages=["crm"])
        self.token("t1", op=self._op(), exp=self.now_s + 10**6)
        self._pause()
        for _ in range(self._random.randint(1, _STEPS_MOST)):
            self._random.choice(
                (self._call, self._calls, self._plain, self._plain, self._held, self._denied,
                 self._rotate, self._segment, self._crash, self._keep, self._witness)
            )()  # fmt: skip
            self._pause()
        if self._random.random() < 0.5:
            self.put("shutdown", op=self.boot)
        self.seal()
        return self

    def _op(self) -> str:
        self._number += 1
        return f"op-{self._number}"

    def _pause(self) -> None:
        """Perhaps end the batch, and let time pass."""
        self.wait(self._random.choice((0, 0.001, 2)))
        if self._random.random() < 0.6:
            self.seal()

    def _call(self) -> None:
        op = self._op()
        self.intent(op)
        self._pause()
        self._random.choice((self.outcome, self.not_sent))(op)

    def _calls(self) -> None:
        ops = [self._op() for _ in range(self._random.randint(2, 4))]
        for op in ops:
            self.intent(op)
        self._pause()
        for op in self._random.sample(ops, len(ops)):
            self.outcome(op)

    def _plain(self) -> None:
        if self._random.random() < 0.5:
            self.refused(self._op(), count=self._random.randint(1, 9))
        else:
            self.put("config.change", op=self._op(), setting="log.level", before="a", after="ä\t")

    def _request(self) -> str:
        approval = f"ap-{self._number}"
        self.request(approval, op=self._op(), decision=HOLD)
        self._pause()
        return approval

    def _held(self) -> None:
        approval = self._request()
        self.vote(approval, "alice")
        self.state("grant", approval)
        self._pause()
        self.held_intent(approval)
        self._pause()
        self.outcome(self.requests[approval]["op"])

    def _denied(self) -> None:
        approval = self._request()
        if self._random.random() < 0.5:
            self.vote(approval, "alice", decision="deny")
            self.state("deny", approval)
        else:
            self.state(self._random.choice(("cancel", "expire")), approval)

    def _rotate(self) -> None:
        if self.epoch + 1 < self._epochs:
            self.rotate(op=self._op())

    def _segment(self) -> None:
        self.seal()
        if max(self.segments) < self.size:
            self.new_segment()
            self._plain()

    def _crash(self) -> None:
        ops = [self._op() for _ in range(self._random.randint(0, 3))]
        for op in ops:
            self.intent(op)
        self.seal()
        self._boots += 1
        self.restart(f"boot-{self._boots}", open_intents=len(ops))
        for op in ops:
            self.orphan(op)

    def _keep(self) -> None:
        name = f"hold-{self._op()}"
        self.hold("set", name, "ab" * 16, ["ann", "ben"], op=self._op())
        self.hold("release", name, "ab" * 16, ["ann", "ben"], op=self._op())
        by = {"bytes": 3, "c": "A" * 43}
        self.put("redact", op=self._op(), subject="ab" * 16, basis="request", openings=1, by=by)

    def _witness(self) -> None:
        number = self._random.randrange(len(self.notes))
        self.witnessed(number, key=WITNESS, time=1_700_000_000, op=self._op())


class Tampered(NamedTuple):
    """A log that somebody changed, what a reader has of it from elsewhere, and the truth."""

    files: Files
    truth: Found
    known: tuple[str, ...] = ()


class Target:
    """A log of several batches, and the places in it."""

    def __init__(self, random: Random, *, epochs: int = 4) -> None:
        self.random: Final = random
        self.story = RandomStory(random, epochs=epochs).tell()
        while len(self.story.notes) < 4:
            self.story = RandomStory(random, epochs=epochs).tell()
        self.size: Final = self.story.size
        self.ends: Final = [int(note.split("\n")[1]) - 1 for note in self.story.notes]

    def draft(self, *, copy: bool = False, tiles: bool = False) -> Draft:
        """Return the log, to be changed."""
        return Draft(self.story.files(copy=copy, tiles=tiles))

    def seq(self, first: int = 0, end: int | None = None) -> int:
        """Return the number of some record."""
        return self.random.randrange(first, self.size if end is None else end)

    def end_of(self, seq: int) -> int:
        """Return the number of the last record of the batch that a record is in."""
        return next(end for end in self.ends if end >= seq)


def _edit(target: Target) -> Tampered:
    seq = target.seq(1)
    change = target.random.choice(({"op": "x"}, {"note": "x"}, {"boot": "x"}, {"ts": 2**50}))
    return Tampered(target.draft().edit(seq, **change).files(), Found("edited", seq))


def _delete(target: Target) -> Tampered:
    seq = target.seq(1)
    last = min(seq + target.random.choice((0, 0, 1, 5)), target.size - 1)
    return Tampered(target.draft().delete(seq, last).files(), Found("deleted", seq))


def _delete_checkpoint(target: Target) -> Tampered:
    draft, end = target.draft(), target.random.choice(target.ends[:-1])
    del draft.lines[draft.after(end)]
    return Tampered(draft.files(), Found("deleted", end))


def _insert(target: Target) -> Tampered:
    draft, seq = target.draft(), target.seq(1)
    draft.insert(draft.at(seq), forged(draft, seq, op="op-x"))
    return Tampered(draft.files(), Found("inserted", seq))


def _duplicate(target: Target) -> Tampered:
    draft, seq = target.draft(), target.seq()
    at = draft.at(seq)
    draft.insert(at + 1, draft.lines[at].data)
    return Tampered(draft.files(), Found("inserted", seq + 1))


def _duplicate_checkpoint(target: Target) -> Tampered:
    draft, end = target.draft(), target.random.choice(target.ends)
    at = draft.after(end)
    draft.insert(at + 1, draft.lines[at].data)
    return Tampered(draft.files(), Found("inserted", end))


def _swap(target: Target) -> Tampered:
    draft = target.draft()
    one, other = sorted(target.random.sample(range(target.size), 2))
    draft.swap(draft.at(one), draft.at(other))
    return Tampered(draft.files(), Found("reordered", one))


def _swap_batches(target: Target) -> Tampered:
    draft, number = target.draft(), target.random.randrange(len(target.ends) - 2)
    first, middle, last = target.ends[number : number + 3]
    one, two = draft.at(first + 1), draft.at(middle + 1)
    end = draft.after(last) + 1
    data = [line.data for line in (*draft.lines[two:end], *draft.lines[one:two])]
    for line, content in zip(draft.lines[one:end], data, strict=True):
        line.data = content
    return Tampered(draft.files(), Found("reordered", first + 1))


def _truncate(target: Target) -> Tampered:
    """Cut off batches, but no change of keys: whose the later checkpoint is would be gone too."""
    target = Target(target.random, epochs=1)
    draft = target.draft(copy=True)
    end = target.random.choice(target.ends[:-1])
    return Tampered(draft.cut(draft.after(end) + 1).files(), Found("truncated", end + 1))


def _truncate_known(target: Target) -> Tampered:
    target = Target(target.random, epochs=1)
    draft, end = target.draft(), target.random.choice(target.ends[:-1])
    files = draft.cut(draft.after(end) + 1).files()
    return Tampered(files, Found("truncated", end + 1), (target.story.notes[-1],))


def _cut_line(target: Target) -> Tampered:
    draft, seq = target.draft(), target.seq(1)
    at = draft.at(seq)
    draft.cut(at + 1)
    data = draft.lines[at].data
    draft.lines[at].data = data[: target.random.randrange(7, len(data) - 1)]
    return Tampered(draft.files(), Found("torn", seq))


def _splice(target: Target) -> Tampered:
    """Put a record of another log of the same name and keys in the place of one."""
    other = Target(target.random)
    seq = target.seq(2, min(target.size, other.size))
    draft, donor = target.draft(), other.draft()
    data = donor.lines[donor.at(seq)].data
    if data == draft.lines[draft.at(seq)].data:
        data = encode(donor.lines[donor.at(seq)].record | {"op": "y"}) + b"\n"
    draft.lines[draft.at(seq)].data = data
    return Tampered(draft.files(), Found("edited", seq))


def _rehash(target: Target) -> Tampered:
    seq = target.seq(1)
    return Tampered(
        target.draft().edit(seq, note="x").relink().files(), Found("edited", target.end_of(seq))
    )


def _rehash_tiled(target: Target) -> Tampered:
    seq = target.seq(1)
    draft = target.draft(tiles=True).edit(seq, note="x")
    return Tampered(draft.relink().files(), Found("edited", seq))


def _rehash_delete(target: Target) -> Tampered:
    """Take one away that does not end its batch, and renumber and link all that follow."""
    while not (seqs := [seq for seq in range(1, target.size) if seq not in target.ends]):
        target = Target(target.random)
    seq = target.random.choice(seqs)
    draft = target.draft(tiles=True).delete(seq).relink(renumber=True)
    return Tampered(draft.files(), Found("edited", seq))


def _wrong_key(target: Target) -> Tampered:
    draft, end = target.draft(), target.random.choice(target.ends)
    draft.note(end, lambda note: resign(note, STRANGER))
    return Tampered(draft.files(), Found("wrong_key", end))


def _rehash_stranger(target: Target) -> Tampered:
    draft = target.draft().edit(target.seq(1), note="x").relink(key=STRANGER)
    return Tampered(draft.files(), Found("wrong_key", target.ends[0]))


def _old_epoch(target: Target) -> Tampered:
    while not target.story.epoch:
        target = Target(target.random)
    draft = target.draft()
    turns = [seq for seq in range(target.size) if _kind(draft, seq) == "key.rotate"]
    end = target.random.choice([end for end in target.ends if end > turns[0]] or [turns[0]])
    epoch = sum(end > turn for turn in turns)
    if not epoch:
        return _old_epoch(Target(target.random))
    draft.note(end, partial(resign, key=EPOCHS[target.random.randrange(epoch)]))
    return Tampered(draft.files(), Found("out_of_epoch", end))


def _kind(draft: Draft, seq: int) -> str:
    return str(draft.lines[draft.at(seq)].record["type"])


def _fork(target: Target) -> Tampered:
    """Write another history with the right key; somebody kept a checkpoint of the first one."""
    target = Target(target.random, epochs=1)
    while b"checkpoint.witnessed" in b"".join(target.story.files().values()):
        target = Target(target.random, epochs=1)  # what witnesses saw would tell as well
    seq = target.seq(1)
    draft = target.draft().edit(seq, note="x").relink(key=EPOCHS[0])
    number = target.random.randrange(target.ends.index(target.end_of(seq)), len(target.ends))
    known = target.story.notes[number]
    return Tampered(draft.files(), Found("forked", target.ends[number]), (known,))


TAMPERINGS: Final[dict[str, Callable[[Target], Tampered]]] = {
    "a record edited": _edit,
    "records deleted": _delete,
    "a checkpoint line deleted": _delete_checkpoint,
    "a record inserted": _insert,
    "a record duplicated": _duplicate,
    "a checkpoint line duplicated": _duplicate_checkpoint,
    "two records swapped": _swap,
    "two batches swapped": _swap_batches,
    "truncated, the copy tells": _truncate,
    "truncated, a known checkpoint tells": _truncate_known,
    "cut within a line": _cut_line,
    "spliced with another log": _splice,
    "edited, all rehashed, old signatures": _rehash,
    "edited, all rehashed, tiles tell": _rehash_tiled,
    "deleted, renumbered, rehashed, tiles tell": _rehash_delete,
    "a checkpoint line of a wrong key": _wrong_key,
    "edited, all signed by a stranger": _rehash_stranger,
    "a checkpoint line of an old epoch's key": _old_epoch,
    "forked with the right key": _fork,
}
