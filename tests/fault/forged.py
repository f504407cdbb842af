"""Logs that somebody with the key wrote: one thing is wrong, and all that follows fits to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.conformance.audit.stories import Story
from tests.conformance.audit.writer import (
    EPOCHS,
    STRANGER,
    Files,
    checkpoint_line,
    leaf_hash,
    note_text,
    tree_root,
)

Forger = Callable[[], Files]
AB: Final = "ab" * 32


class Forging(Story):
    """Writes lines that are not as they should be."""

    def put_line(self, line: bytes) -> None:
        """Write a record line as it is."""
        self._lines().append(line + b"\n")
        self.leaves.append(leaf_hash(line))

    def spaced(self) -> None:
        """Write a record with a space in it."""
        self.put("config.change", op="o", setting="x")
        line = self._lines().pop().removesuffix(b"\n").replace(b":", b": ", 1)
        self.leaves.pop()
        self.put_line(line)

    def put_checkpoint(self, line: bytes) -> None:
        """End the batch with this line."""
        self.seal()
        self._lines()[-1] = line


def _told(**wrong: Any) -> Forger:  # noqa: ANN401 - the fields of any record
    """Return a maker of a log one of whose records has other fields, in the middle of a batch."""

    def forge() -> Files:
        story = Story().start()
        story.put("config.change", op="a", setting="x")
        story.put("config.change", **({"op": "b", "setting": "x"} | wrong))
        story.put("config.change", op="c", setting="x")
        story.seal()
        return story.files()

    return forge


def _first(**wrong: Any) -> Forger:  # noqa: ANN401 - as above
    """Return a maker of a log in which the first record of a batch has other fields."""

    def forge() -> Files:
        story = Story().start()
        story.put("config.change", **({"op": "a", "setting": "x"} | wrong))
        story.seal()
        return story.files()

    return forge


def _last(change: Callable[[Forging], None]) -> Forger:
    """Return a maker of a log to which something is done once it has two batches."""

    def forge() -> Files:
        story = Forging()
        story.start()
        story.put("config.change", op="a", setting="x")
        change(story)
        return story.files()

    return forge


def _rotated(**wrong: Any) -> Forger:  # noqa: ANN401 - as above
    def change(story: Forging) -> None:
        story.seal()
        story.rotate(**({"op": "r"} | wrong))
        story.put("config.change", op="b", setting="x")
        story.seal()

    return _last(change)


def _middle_of_batch(story: Forging) -> None:
    story.seal()
    story.rotate(seal=False, op="r")
    story.epoch -= 1
    story.put("config.change", op="b", setting="x")
    story.seal()
    story.epoch += 1
    story.put("config.change", op="c", setting="x")
    story.seal()


def _spaced(story: Forging) -> None:
    story.spaced()
    story.seal()


def _root_of_others(story: Forging) -> None:
    text = note_text(story.size, bytes(32))
    story.put_note(f"{text}\n{EPOCHS[0].line(text)}")


def _false_signature(story: Forging) -> None:
    text = note_text(story.size, tree_root(story.leaves))
    story.put_note(f"{text}\n{EPOCHS[0].line(text, signed=text + 'x')}")


def _old_key_goes_on(story: Forging) -> None:
    story.seal()
    story.rotate(op="r")
    story.put("config.change", op="b", setting="x")
    story.seal(key=EPOCHS[0])


def _copy_of(story: Forging, *more: str) -> None:
    """Leave a copy of the checkpoint of a log that went another way."""
    other = Story().start()
    for name in more:
        other.put("config.change", op=name, setting="y")
    other.seal()
    story.seal()
    story.notes.append(other.notes[-1])


def _two_segments(story: Forging) -> None:
    story.seal()
    story.segments[story.size + 1] = []
    story.put("config.change", op="b", setting="x")
    story.seal()


def _spelled_otherwise(story: Forging) -> None:
    story.put_checkpoint(checkpoint_line(story.note()).replace("—".encode(), b"\\u2014"))


FORGED: Final[dict[str, Forger]] = {
    "a seq too high": _told(seq=5),
    "a seq too low": _told(seq=2),
    "a prev": _told(prev=AB),
    "a time before the last": _told(ts=1),
    "another version": _told(v=2),
    "another log's name": _told(log="other.example.com/audit"),
    "a second genesis": _told(type="genesis", key=EPOCHS[2].vkey),
    "a cp where none belongs": _told(cp=AB),
    "no cp where one belongs": _first(cp=...),
    "another cp": _first(cp=AB),
    "a space in a line": _last(_spaced),
    "a checkpoint of fewer records": _last(lambda story: story.put_note(story.note(size=2))),
    "a root of other records": _last(_root_of_others),
    "a signature of a stranger": _last(lambda story: story.seal(key=STRANGER)),
    "a signature over something else": _last(_false_signature),
    "a checkpoint line spelled otherwise": _last(_spelled_otherwise),
    "an epoch left out": _rotated(epoch=2),
    "an old key again": _rotated(key=EPOCHS[0].vkey),
    "a change of keys in the middle of a batch": _last(_middle_of_batch),
    "an old key that goes on": _last(_old_key_goes_on),
    "a copy that is ahead": _last(lambda story: _copy_of(story, "b", "c", "d")),
    "a copy of another history": _last(lambda story: _copy_of(story, "b")),
    "a segment of another number": _last(_two_segments),
}


def put_files(folder: Path, files: Files) -> None:
    """Write a log's directory."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
