"""Logs whose chain is whole, signed by the log's own key, and whose calls no honest gateway makes.

Each story breaks one rule of section 6.2, or the two that its case names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.conformance.audit.case import Case, Finding
from tests.conformance.audit.stories import ALLOW, DENY, HOLD, READ_TOOL, TOOL, Story
from tests.conformance.audit.writer import EPOCHS, STRANGER


def breach(rule: str, name: str, what: str, story: Story, seq: int, *also: str) -> Case:
    """Return a case in which the record `seq` breaks a rule; the last batch is sealed here."""
    story.seal()
    finding = Finding("semantic", seq, rule)
    case_name = f"{rule.replace('_', '-')}-{name}"
    return Case(case_name, what, story.files(), finding, also=also)


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _boots()
    yield from _boot_counts()
    yield from _outcomes()
    yield from _outcomes_twice()
    yield from _second_intents()
    yield from _left_open()
    yield from _denied()
    yield from _policies()
    yield from _tokens()
    yield from _revoked()
    yield from _scopes()
    yield from _runs()
    yield from _events()


def _boots() -> Iterator[Case]:
    rule = "boot_unknown"
    story = Story().ready()
    seq = story.refused("op-1", boot="boot-7")
    story.refused("op-2")
    yield breach(rule, "other", "A record of a boot that never was.", story, seq)
    story = Story().ready()
    story.restart("boot-2")
    seq = story.refused("op-1", boot="boot-1")
    yield breach(rule, "earlier", "A record of the boot before the last one.", story, seq)
    story = Story()
    story.boot = "boot-1"
    deployment = {"environment": "test"}
    key, profile = EPOCHS[0].vkey, "countersign.audit/v1"
    seq = story.put("genesis", boot="boot-0", profile=profile, key=key, deployment=deployment)
    story.restart("boot-1", seal=False)
    yield breach(rule, "genesis", "The first record is not of the boot that follows.", story, seq)
    story = Story().ready()
    story.boot = "boot-2"
    fields: dict[str, Any] = {"op": "boot-2", "key": EPOCHS[0].vkey, "cut": None}
    seq = story.put("boot", boot="boot-1", open_intents=0, **fields)
    yield breach(rule, "itself", "A boot that is written under the boot before.", story, seq)


def _boot_counts() -> Iterator[Case]:
    rule = "boot_count"
    story = Story().ready()
    story.intent("op-1")
    seq = story.restart("boot-2", seal=False)
    story.orphan("op-1")
    yield breach(rule, "fewer", "One intent is open, the boot says none.", story, seq)
    story = Story().ready()
    story.call("op-1")
    seq = story.restart("boot-2", seal=False, open_intents=1)
    yield breach(rule, "more", "No intent is open, the boot says one.", story, seq)
    rule = "key_mismatch"
    story = Story().ready()
    seq = story.restart("boot-2", seal=False, key=STRANGER.vkey)
    yield breach(rule, "stranger", "A boot names a stranger's key.", story, seq)
    story = Story().ready()
    story.rotate()
    seq = story.restart("boot-2", seal=False, key=EPOCHS[0].vkey)
    yield breach(rule, "old", "A boot names the key of the epoch before.", story, seq)


def _outcomes() -> Iterator[Case]:
    rule = "outcome_without_intent"
    story = Story().ready()
    seq = story.outcome("op-1", intent=3)
    yield breach(rule, "none", "An outcome whose call has no intent.", story, seq)
    story = Story().ready()
    story.call("op-1")
    story.intents["op-2"] = story.intents["op-1"]
    seq = story.orphan("op-2")
    yield breach(rule, "orphan", "An orphan whose call has no intent.", story, seq)
    story = Story().ready()
    story.refused("op-1")
    seq = story.outcome("op-1", intent=4)
    yield breach(rule, "refused", "An outcome of a call that was refused.", story, seq)
    rule = "outcome_mismatch"
    story = Story().ready()
    story.intent("op-1")
    seq = story.outcome("op-1", intent=3)
    yield breach(rule, "number", "An outcome names a record that is no intent.", story, seq)
    story = Story().ready()
    story.intent("op-1")
    story.intent("op-2")
    story.outcome("op-2")
    seq = story.outcome("op-1", intent=story.intents["op-2"])
    yield breach(rule, "other-call", "An outcome names the intent of another call.", story, seq)
    story = Story().ready()
    first = story.intent("op-1")
    story.not_sent("op-1")
    story.intent("op-1")
    seq = story.outcome("op-1", intent=first)
    yield breach(rule, "earlier", "An outcome names an earlier intent of its call.", story, seq)
    story = Story().ready()
    first = story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    seq = story.orphan("op-1", intent=first + 1)
    yield breach(rule, "orphan", "An orphan names another record.", story, seq)


def _outcomes_twice() -> Iterator[Case]:
    rule = "second_outcome"
    story = Story().ready()
    story.call("op-1")
    seq = story.outcome("op-1")
    yield breach(rule, "same", "A call has two outcomes.", story, seq)
    story = Story().ready()
    story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.orphan("op-1")
    seq = story.outcome("op-1")
    yield breach(rule, "after-orphan", "A call has an orphan and then an outcome.", story, seq)
    story = Story().ready()
    story.call("op-1")
    story.restart("boot-2")
    seq = story.orphan("op-1")
    yield breach(rule, "orphan", "A call has an outcome and then an orphan.", story, seq)
    story = Story().ready()
    story.intent("op-1")
    story.not_sent("op-1")
    seq = story.outcome("op-1")
    what = "A call that was not sent has another outcome, which says that it was."
    yield breach(rule, "sent-after-all", what, story, seq)


def _second_intents() -> Iterator[Case]:
    rule = "second_intent"
    story = Story().ready()
    story.intent("op-1")
    seq = story.intent("op-1")
    story.outcome("op-1")
    yield breach(rule, "open", "A call has a second intent while the first is open.", story, seq)
    story = Story().ready()
    story.call("op-1")
    seq = story.intent("op-1")
    yield breach(rule, "sent", "A call that was sent has a second intent.", story, seq)
    story = Story().ready()
    story.intent("op-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    seq = story.intent("op-1")
    yield breach(rule, "unknown", "A call that was perhaps sent has another intent.", story, seq)
    story = Story().ready()
    story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.orphan("op-1")
    seq = story.intent("op-1")
    yield breach(rule, "orphan", "A call that became an orphan has a second intent.", story, seq)


def _left_open() -> Iterator[Case]:
    rule = "orphan_open"
    story = Story().ready()
    seq = story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.put("shutdown")
    yield breach(
        rule, "shutdown", "An intent of an earlier boot is open at a shutdown.", story, seq
    )
    story = Story().ready()
    seq = story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.wait(62)
    story.refused("op-2")
    what = "An intent of an earlier boot is open a minute after the next one."
    yield breach(rule, "late", what, story, seq)
    story = Story().ready()
    story.intent("op-1")
    seq = story.intent("op-2")
    story.restart("boot-2", open_intents=2)
    story.orphan("op-1")
    story.put("shutdown")
    what = "Of two intents of an earlier boot one is open at a shutdown."
    yield breach(rule, "one-of-two", what, story, seq)
    rule = "intent_open"
    story = Story().ready()
    seq = story.intent("op-1")
    story.put("shutdown")
    yield breach(rule, "shutdown", "An intent is open at the shutdown of its boot.", story, seq)
    story = Story().ready()
    story.call("op-1")
    seq = story.intent("op-2")
    story.seal()
    story.put("shutdown")
    story.restart("boot-2", open_intents=1)
    story.orphan("op-2")
    what = "An intent is open at the shutdown of its boot, and an orphan afterwards."
    yield breach(rule, "orphan-later", what, story, seq)


def _denied() -> Iterator[Case]:
    rule = "effect_despite_deny"
    for name, decision, what in (
        ("deny", DENY, "An intent although the decision is to deny."),
        ("hold", HOLD, "An intent although the decision is to hold."),
        ("gone", ..., "An intent without a decision."),
        ("word", {"outcome": "allow", "reasons": []}, "An intent with an unknown decision."),
    ):
        story = Story().ready()
        seq = story.intent("op-1", decision=decision)
        story.outcome("op-1")
        yield breach(rule, name, what, story, seq)
    story = Story().ready()
    story.refused("op-1", stage="decide", reason="policy", decision=DENY)
    seq = story.intent("op-1")
    story.outcome("op-1")
    yield breach(rule, "refused", "An intent of a call that was refused before.", story, seq)


def _policies() -> Iterator[Case]:
    rule = "policy_unknown"
    story = Story().ready()
    seq = story.intent("op-1", policy={"rev": "rev-2"})
    story.outcome("op-1")
    yield breach(rule, "intent", "A call decided by a policy never activated.", story, seq)
    story = Story().ready()
    seq = story.token("t2", policy={"rev": "rev-2"})
    yield breach(rule, "token", "A token decided by a policy never activated.", story, seq)
    story = Story().ready()
    seq = story.intent("op-1", policy={"rev": "rev-2"})
    story.activate("rev-2")
    story.outcome("op-1")
    yield breach(rule, "later", "A call decided by a policy activated only later.", story, seq)
    story = Story().ready()
    policy = {"rev": "rev-0"}
    seq = story.refused("op-1", stage="decide", reason="policy", decision=DENY, policy=policy)
    yield breach(rule, "refused", "A refusal decided by a policy never activated.", story, seq)
    story = Story().ready()
    seq = story.request("ap-1", op="op-1", policy={"rev": "rev-9"})
    yield breach(rule, "request", "A call held by a policy never activated.", story, seq)


def _tokens() -> Iterator[Case]:
    rule = "token_unknown"
    story = Story().ready()
    actor = story.actors["t1"]
    seq = story.intent("op-1", actor=actor | {"jti": "t9"})
    story.outcome("op-1")
    yield breach(rule, "never", "A call with a token that was never issued.", story, seq)
    story = Story().ready()
    seq = story.intent("op-1", actor=actor | {"jti": "t2"})
    story.outcome("op-1")
    story.token("t2")
    yield breach(rule, "later", "A call with a token that was issued only later.", story, seq)
    rule = "token_mismatch"
    for field, value in (("agent", "other-bot"), ("run", "run-9"), ("root", "t0")):
        story = Story().ready()
        seq = story.intent("op-1", actor=actor | {field: value})
        story.outcome("op-1")
        what = f"A call under a token that was issued for another {field}."
        yield breach(rule, field, what, story, seq)
    rule = "token_expired"
    for name, seconds in (("minute", 361), ("long", 1800)):
        story = Story().ready()
        story.wait(seconds)
        seq = story.intent("op-1")
        story.outcome("op-1")
        what = f"A call {seconds - 300} s after its token ended."
        yield breach(rule, name, what, story, seq)


def _revoked() -> Iterator[Case]:
    rule = "token_revoked"
    names = {"jti": "t1", "root": "t1", "run": "run-1", "agent": "bot", "client": "desk"}
    for name, value in names.items():
        story = Story().ready()
        story.put("token.revoke", reason="killed", **{name: value})
        seq = story.intent("op-1")
        story.outcome("op-1")
        yield breach(rule, name, f"A call was sent after its {name} was revoked.", story, seq)
    story = Story().ready()
    story.put("token.revoke", reason="killed", jti="t1")
    seq = story.intent("op-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    yield breach(rule, "unknown", "A call was perhaps sent after a revocation.", story, seq)
    story = Story().ready()
    story.put("token.revoke", reason="killed", jti="t1")
    seq = story.intent("op-1")
    what = "A call after a revocation is open where the log ends: it counts as sent."
    yield breach(rule, "open", what, story, seq)
    story = Story().ready().held("ap-1", op="op-1")
    story.put("token.revoke", reason="killed", run="run-1")
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    yield breach(rule, "held", "A held call was sent after its run was revoked.", story, seq)
    story = Story().ready()
    story.put("token.revoke", reason="killed", agent="bot", run="run-7")
    seq = story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.orphan("op-1")
    what = "A call became an orphan after its agent was revoked."
    yield breach(rule, "orphan", what, story, seq)


def _scopes() -> Iterator[Case]:
    rule = "token_scope"
    stories: list[tuple[str, dict[str, Any], str]] = [
        ("scope", {"scopes": ["tools:list"]}, "The token's scopes do not have calls."),
        ("no-scope", {"scopes": []}, "The token has no scope."),
        ("tool", {"allow": [{"server": "crm", "tool": "read"}]}, "The token is for another tool."),
        ("server", {"allow": [{"server": "erp", "tool": "*"}]}, "The token is for another server."),
        (
            "effect",
            {"allow": [{"server": "crm", "tool": "*", "effects": ["read"]}]},
            "The token is for another effect.",
        ),
        ("nothing", {"allow": []}, "The token is for no tool."),
    ]
    for name, over, what in stories:
        story = Story().ready(**over)
        seq = story.intent("op-1")
        story.outcome("op-1")
        yield breach(rule, name, what, story, seq)
    story = Story().ready(allow=[*ALLOW[1:], {"server": "crm", "tool": "*", "effects": ["read"]}])
    story.call("op-1", tool=READ_TOOL)
    seq = story.intent("op-2", tool=TOOL)
    story.outcome("op-2")
    yield breach(rule, "second-call", "The token covers the first call alone.", story, seq)


def _runs() -> Iterator[Case]:
    rule = "run_ended"
    ended = {"agent": "bot", "client": "desk", "run": "run-1", "root": "t1"}
    story = Story().ready()
    story.put("run.end", **ended)
    seq = story.intent("op-1")
    story.outcome("op-1")
    yield breach(rule, "call", "A call was sent after its run ended.", story, seq)
    story = Story().ready()
    story.put("run.end", **ended)
    seq = story.token("t2")
    yield breach(rule, "token", "A token was issued after its run ended.", story, seq)
    story = Story().ready().held("ap-1", op="op-1")
    story.put("run.end", **ended)
    seq = story.held_intent("ap-1")
    story.outcome("op-1")
    yield breach(rule, "held", "A held call was sent after its run ended.", story, seq)


def _events() -> Iterator[Case]:
    rule = "event_twice"
    story = Story().ready()
    story.put("config.change", setting="a", before="1", after="2", event="e-1")
    story.refused("op-1", event="e-2")
    seq = story.put("config.change", setting="a", before="1", after="2", event="e-1")
    yield breach(rule, "same", "A record was written twice for one event.", story, seq)
    story = Story().ready()
    story.refused("op-1", event="e-1")
    story.seal()
    story.restart("boot-2")
    seq = story.refused("op-2", event="e-1")
    yield breach(rule, "restart", "Two records of two boots have one event.", story, seq)
