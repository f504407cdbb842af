"""Calls and the kill switch: those that went although they had been stopped, and honest ones."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.audit.case import Case
from tests.conformance.audit.rules_calls import breach
from tests.conformance.audit.stories import TOOL, Story
from tests.conformance.audit.valid import sound


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _broken()
    yield from _honest()


KILLS: dict[str, str] = {
    "agent": "bot",
    "client": "desk",
    "run": "run-1",
    "actor": "run-1/bot",
    "tool": TOOL["id"],
    "server": TOOL["server"],
    "all": "*",
}


def kill(story: Story, kind: str, target: str, name: str = "kill-1") -> None:
    story.put("kill.set", kill=name, kind=kind, target=target, event=f"kill.set:{name}")


def lift(story: Story, kind: str, target: str, name: str = "kill-1") -> None:
    fields = {"kill": name, "kind": kind, "target": target, "why": "command"}
    story.put("kill.lift", event=f"kill.lift:{name}", **fields)


def _broken() -> Iterator[Case]:
    rule = "effect_despite_kill"
    for kind, target in KILLS.items():
        story = Story().ready()
        kill(story, kind, target)
        seq = story.intent("op-1")
        story.outcome("op-1")
        yield breach(rule, kind, f"A call was sent although its {kind} was stopped.", story, seq)
    story = Story().ready()
    kill(story, "agent", "bot", "kill-1")
    kill(story, "agent", "bot", "kill-2")
    lift(story, "agent", "bot", "kill-1")
    seq = story.intent("op-1")
    story.outcome("op-1")
    yield breach(rule, "twice", "Of two kills of an agent only one was lifted.", story, seq)
    story = Story().ready()
    kill(story, "all", "*")
    seq = story.intent("op-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    yield breach(rule, "unknown", "A call was perhaps sent after a kill.", story, seq)
    story = Story().ready()
    kill(story, "all", "*")
    seq = story.intent("op-1")
    what = "A call after a kill is open where the log ends: it counts as sent."
    yield breach(rule, "open", what, story, seq)
    story = Story().ready().held("ap-1", op="op-1")
    kill(story, "agent", "bot")
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    yield breach(rule, "held", "A held call was sent after its agent was stopped.", story, seq)


def _honest() -> Iterator[Case]:
    story = Story().ready()
    story.intent("op-1")
    kill(story, "all", "*")
    story.outcome("op-1")
    yield sound("killed-under-way", "A call was under way when everything was stopped.", story)
    story = Story().ready()
    kill(story, "agent", "bot")
    story.intent("op-1")
    story.outcome("op-1", status="failed", delivery="not_sent", result=...)
    yield sound("killed-not-sent", "A call after a kill that was not sent.", story)
    story = Story().ready()
    kill(story, "agent", "bot")
    lift(story, "agent", "bot")
    story.intent("op-1")
    story.outcome("op-1")
    yield sound("killed-lifted", "A call after the kill of its agent was lifted.", story)
    story = Story().ready()
    others = {"agent": "desk", "client": "bot", "run": "run-7", "tool": "crm.read", "server": "x"}
    silent = {"human": "0" * 32, "credential": "env:CRM_TOKEN", "actor": "run-7/bot"}
    for kind, target in (others | silent).items():
        kill(story, kind, target, f"kill-of-{kind}")
    story.intent("op-1")
    story.outcome("op-1")
    what = "A call while others were stopped, and some of whom the log does not tell."
    yield sound("killed-other", what, story)
    story = Story().ready()
    lift(story, "all", "*", "kill-of-nobody")
    story.intent("op-1")
    story.outcome("op-1")
    yield sound("killed-never", "The end of a kill that the log does not know.", story)
