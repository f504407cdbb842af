"""The logs that the structural cases start from."""

from __future__ import annotations

from tests.conformance.audit.stories import Story


def plain() -> Story:
    """22 records, 11 batches, 3 segments, one epoch; the story of a working day.

    Batches end after 1, 3, 4, 5, 8, 9, 12, 13, 15, 18 and 21; segments begin at 0, 6 and 14.
    """
    story = Story().start()
    story.activate()
    story.token("t1")
    story.seal()  # 3
    story.intent("op-1")
    story.seal()  # 4
    story.outcome("op-1")
    story.seal()  # 5
    story.new_segment()
    story.intent("op-2")
    story.intent("op-3")
    story.outcome("op-2")
    story.seal()  # 8
    story.outcome("op-3")
    story.seal()  # 9
    story.request("ap-1", op="op-4")
    story.vote("ap-1", "alice")
    story.state("grant", "ap-1")
    story.seal()  # 12
    story.held_intent("ap-1")
    story.seal()  # 13
    story.new_segment()
    story.outcome("op-4")
    story.refused("op-5")
    story.seal()  # 15
    story.put(
        "tools.list", actor=story.actors["t1"], policy={"rev": "rev-1"}, catalog="c1", shown=2
    )
    story.put("config.change", setting="log.level", before="sha256:1", after="sha256:2")
    story.refused("op-6")
    story.seal()  # 18
    story.refused("op-7")
    story.put("run.end", agent="bot", client="desk", run="run-1", root="t1")
    story.put("shutdown")
    story.seal()  # 21
    return story


def rotated() -> Story:
    """Three epochs: records 0 to 5, 6 to 9 and 10 to 13; `key.rotate` is 5 and 9."""
    story = Story().ready()  # 3
    story.intent("op-1")
    story.rotate()  # 5
    story.outcome("op-1")
    story.seal()  # 6
    story.new_segment()
    story.refused("op-2")
    story.seal()  # 7
    story.intent("op-3")
    story.rotate(why="command")  # 9
    story.outcome("op-3")
    story.seal()  # 10
    story.refused("op-4")
    story.refused("op-5")
    story.seal()  # 12
    story.put("shutdown")
    story.seal()  # 13
    return story


SHORT = (4, 5, 6, 8, 9, 10)
"""Of the short log: in the middle of a batch, last of a batch, first of a segment, and the three
of the last batch."""


def short() -> Story:
    """11 records, 5 batches, 2 segments; batches end after 1, 3, 5, 7 and 10."""
    story = Story().start()
    story.activate()
    story.token("t1")
    story.seal()  # 3
    story.intent("op-1")
    story.outcome("op-1")
    story.seal()  # 5
    story.new_segment()
    story.refused("op-2")
    story.refused("op-3")
    story.seal()  # 7
    story.refused("op-4")
    story.refused("op-5")
    story.put("shutdown")
    story.seal()  # 10
    return story
