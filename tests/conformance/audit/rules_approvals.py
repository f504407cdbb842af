"""Logs whose chain is whole and whose held calls, legal holds and erasures break a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.conformance.audit.case import Case
from tests.conformance.audit.rules_calls import breach
from tests.conformance.audit.stories import HELD_S, READ_TOOL, Story
from tests.conformance.audit.writer import tag


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _unknown()
    yield from _mismatches()
    yield from _missing()
    yield from _late()
    yield from _votes()
    yield from _quorums()
    yield from _decided()
    yield from _after_the_call()
    yield from _reused()
    yield from _holds()


def asked(**over: Any) -> Story:  # noqa: ANN401 - fields of any record
    """Return a log in which a call was held as `ap-1`."""
    story = Story().ready()
    story.request("ap-1", op="op-1", **over)
    story.seal()
    return story


def granted() -> Story:
    """Return a log in which a held call was granted."""
    return Story().ready().held("ap-1", op="op-1")


def _unknown() -> Iterator[Case]:
    rule = "approval_unknown"
    for kind in ("vote", "grant", "expire"):
        story = asked()
        story.requests["ap-2"] = story.requests["ap-1"] | {"approval": "ap-2"}
        seq = story.vote("ap-2", "alice") if kind == "vote" else story.state(kind, "ap-2")
        what = f"approval.{kind} for a request that is not in the log."
        yield breach(rule, kind, what, story, seq)
    story = granted()
    seq = story.held_intent("ap-1", approval="ap-7", op="op-7")
    story.outcome("op-7")
    what = "An intent names an approval that is not in the log."
    yield breach(rule, "intent", what, story, seq)


def _mismatches() -> Iterator[Case]:
    rule = "approval_mismatch"
    changes: list[tuple[str, dict[str, Any]]] = [
        ("binding", {"binding": "sha256:0"}),
        ("tool", {"tool": READ_TOOL}),
        ("agent", {"agent": "eve"}),
        ("run", {"run": "run-9"}),
    ]
    for name, over in changes:
        story = asked()
        seq = story.vote("ap-1", "alice", **over)
        yield breach(rule, f"vote-{name}", f"A vote with another {name}.", story, seq)
    for name, over in changes:
        story = asked()
        story.vote("ap-1", "alice")
        seq = story.state("grant", "ap-1", **over)
        yield breach(rule, f"grant-{name}", f"A grant with another {name}.", story, seq)
    story = asked()
    seq = story.state("cancel", "ap-1", binding="sha256:1")
    yield breach(rule, "cancel", "A cancellation with another binding.", story, seq)
    for name in ("agent", "run"):
        story = granted()
        actor = story.actors["t1"] | {name: "other"}
        seq = story.held_intent("ap-1", actor=actor)
        story.outcome("op-1")
        yield breach(rule, f"intent-{name}", f"The held call is of another {name}.", story, seq)
    story = granted()
    seq = story.held_intent("ap-1", tool=READ_TOOL)
    story.outcome("op-1")
    yield breach(rule, "intent-tool", "The held call is of another tool.", story, seq)
    story = granted()
    changed = story.requests["ap-1"]["tool"] | {"def": "sha256:0000000000000000"}
    seq = story.held_intent("ap-1", tool=changed)
    story.outcome("op-1")
    what = "The definition of the tool is another than the one approved."
    yield breach(rule, "intent-definition", what, story, seq)
    story = granted()
    seq = story.held_intent("ap-1", op="op-2")
    story.outcome("op-2")
    yield breach(rule, "intent-op", "The approval of one call is used for another.", story, seq)


def _missing() -> Iterator[Case]:
    rule = "approval_missing"
    story = asked()
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    yield breach(rule, "asked", "The call went out while it was held.", story, seq)
    story = asked()
    story.vote("ap-1", "alice", decision="deny")
    story.state("deny", "ap-1")
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    what = "The call went out although it was denied."
    yield breach(rule, "denied", what, story, seq, "approval_decided")
    story = asked()
    seq = story.intent("op-1")
    story.outcome("op-1")
    what = "A held call went out with an intent that does not tell of the approval."
    yield breach(rule, "untold", what, story, seq)
    story = granted()
    seq = story.intent("op-1")
    story.outcome("op-1")
    what = "An approved call went out with an intent that does not tell of the approval."
    yield breach(rule, "untold-granted", what, story, seq)
    rule = "approval_args"
    story = granted()
    seq = story.held_intent("ap-1", args_tag=tag("nonce of ap-1", "cs/args/v1", "other"))
    story.outcome("op-1")
    yield breach(rule, "other", "The arguments are not the approved ones.", story, seq)
    story = granted()
    seq = story.held_intent("ap-1", args_tag=...)
    story.outcome("op-1")
    what = "The intent of a held call does not say which arguments it has."
    yield breach(rule, "gone", what, story, seq)


def _late() -> Iterator[Case]:
    rule = "approval_late"
    story = asked()
    story.wait(HELD_S + 1)
    seq = story.vote("ap-1", "alice")
    yield breach(rule, "vote", "A vote after the request's time.", story, seq)
    story = asked()
    story.vote("ap-1", "alice")
    story.wait(HELD_S + 1)
    seq = story.state("grant", "ap-1")
    yield breach(rule, "grant", "A grant after the request's time.", story, seq)
    story = granted()
    seq = story.vote("ap-1", "bob")
    yield breach(rule, "vote-after-grant", "A vote after the grant.", story, seq)
    for kind in ("deny", "expire", "cancel"):
        story = asked()
        story.state(kind, "ap-1")
        seq = story.vote("ap-1", "alice")
        what = f"A vote after approval.{kind}."
        yield breach(rule, f"vote-after-{kind}", what, story, seq)
    rule = "approval_expired"
    story = granted()
    story.wait(HELD_S + 62)
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    what = "A held call went out more than a minute after the request's time."
    yield breach(rule, "late", what, story, seq)


def _votes() -> Iterator[Case]:
    rule = "approval_self"
    for who in ("owner", "launcher"):
        story = asked()
        seq = story.vote("ap-1", who)
        what = f"The {who} of the call, who may not, votes on it."
        yield breach(rule, who, what, story, seq)
    story = asked(quorum=1)
    story.vote("ap-1", "alice")
    seq = story.vote("ap-1", "owner")
    story.state("grant", "ap-1")
    yield breach(rule, "beside", "One who may not votes beside one who may.", story, seq)
    rule = "approval_twice"
    story = asked(quorum=2)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob")
    seq = story.vote("ap-1", "alice")
    story.state("grant", "ap-1")
    yield breach(rule, "approve", "One voter approves twice.", story, seq)
    story = asked(quorum=2)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob", stage=2)
    seq = story.vote("ap-1", "bob", stage=2, decision="deny")
    what = "One voter votes twice, once for and once against."
    yield breach(rule, "both-ways", what, story, seq)
    story = asked(quorum=3)
    story.vote("ap-1", "alice")
    seq = story.vote("ap-1", "alice", stage=2)
    what = "One voter votes in two stages: a person counts once in all of them."
    yield breach(rule, "two-stages", what, story, seq)


def _quorums() -> Iterator[Case]:
    rule = "approval_quorum"
    story = asked()
    seq = story.state("grant", "ap-1")
    yield breach(rule, "none", "A grant without any vote.", story, seq)
    story = asked(quorum=2)
    story.vote("ap-1", "alice")
    seq = story.state("grant", "ap-1")
    yield breach(rule, "one-of-two", "A grant with one vote of two.", story, seq)
    story = asked(quorum=3)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob", stage=2)
    seq = story.state("grant", "ap-1")
    yield breach(rule, "two-of-three", "A grant with two votes of three.", story, seq)
    story = asked(quorum=2)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob", decision="deny")
    seq = story.state("grant", "ap-1")
    yield breach(rule, "deny-counted", "A grant for which a vote against counts.", story, seq)


ENDS = ("deny", "expire", "cancel")


def _decided() -> Iterator[Case]:
    rule = "approval_decided"
    for end in ENDS:
        story = asked()
        story.vote("ap-1", "alice")
        story.state(end, "ap-1")
        seq = story.state("grant", "ap-1")
        yield breach(rule, f"grant-after-{end}", f"A grant after approval.{end}.", story, seq)
    for kind in ("deny", "grant"):
        story = granted()
        seq = story.state(kind, "ap-1")
        yield breach(rule, f"{kind}-after-grant", f"approval.{kind} after a grant.", story, seq)
    for first, second in (("expire", "cancel"), ("cancel", "expire"), ("deny", "expire")):
        story = asked()
        story.state(first, "ap-1")
        seq = story.state(second, "ap-1")
        what = f"approval.{second} after approval.{first}."
        yield breach(rule, f"{second}-after-{first}", what, story, seq)
    for end in ("expire", "cancel", "stale"):
        story = granted()
        story.state(end, "ap-1")
        seq = story.held_intent("ap-1")
        story.outcome("op-1")
        what = f"The call went out after approval.{end}."
        yield breach(rule, f"intent-after-{end}", what, story, seq)
    story = asked()
    seq = story.state("stale", "ap-1")
    yield breach(rule, "stale-before-grant", "Stale before it was granted.", story, seq)


def _after_the_call() -> Iterator[Case]:
    rule = "approval_decided"
    for kind in ("expire", "cancel", "stale", "unknown"):
        story = granted()
        story.held_intent("ap-1")
        story.outcome("op-1")
        seq = story.state(kind, "ap-1")
        what = f"approval.{kind} after the call went well."
        yield breach(rule, f"{kind}-after-call", what, story, seq)
    story = granted()
    seq = story.state("unknown", "ap-1")
    yield breach(rule, "unknown-without-call", "Unknown before any intent.", story, seq)
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    seq = story.state("resolve", "ap-1")
    yield breach(rule, "resolve-too-early", "Resolved without having been unknown.", story, seq)
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    story.state("unknown", "ap-1")
    story.state("resolve", "ap-1")
    seq = story.state("resolve", "ap-1")
    yield breach(rule, "resolve-twice", "Resolved twice.", story, seq)


def _reused() -> Iterator[Case]:
    rule = "approval_reused"
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1")
    seq = story.held_intent("ap-1")
    what = "One approval is used for a second sending of the call."
    yield breach(rule, "sent", what, story, seq, "second_intent")
    story = granted()
    story.held_intent("ap-1")
    seq = story.held_intent("ap-1")
    what = "One approval has two intents that are open."
    yield breach(rule, "open", what, story, seq, "second_intent")
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1")
    seq = story.held_intent("ap-1", op="op-2")
    story.outcome("op-2")
    what = "One approval is used again under another operation id."
    yield breach(rule, "other-op", what, story, seq, "approval_mismatch")


def _holds() -> Iterator[Case]:
    rule = "hold_persons"
    for name, who, what in (
        ("one", ["dpo"], "A legal hold by one person."),
        ("same", ["dpo", "dpo"], "A legal hold by one person, named twice."),
        ("none", [], "A legal hold by nobody."),
    ):
        story = Story().ready()
        seq = story.hold("set", "h-1", "subject-1", who)
        yield breach(rule, name, what, story, seq)
    story = Story().ready()
    story.hold("set", "h-1", "subject-1", ["dpo", "counsel"])
    seq = story.hold("release", "h-1", "subject-1", ["dpo"])
    yield breach(rule, "release", "A legal hold released by one person.", story, seq)
    rule = "hold_broken"
    for subject, what in (("subject-1", "the subject"), ("*", "everyone")):
        story = Story().ready()
        story.hold("set", "h-1", subject, ["dpo", "counsel"])
        seq = story.redact("subject-1")
        name = "subject" if subject == "subject-1" else "everyone"
        yield breach(rule, name, f"A subject was erased under a hold on {what}.", story, seq)
    story = Story().ready()
    story.hold("set", "h-1", "subject-1", ["dpo", "counsel"])
    story.hold("set", "h-2", "subject-1", ["dpo", "counsel"])
    story.hold("release", "h-1", "subject-1", ["dpo", "counsel"])
    seq = story.redact("subject-1")
    yield breach(rule, "second", "A subject was erased under the second of two holds.", story, seq)
