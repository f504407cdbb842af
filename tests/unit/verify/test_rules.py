"""§6.2: an honest history, and then one thing in it that no honest gateway would have written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.audit.releases import ENVIRONMENT, PAUL, PIA, Publisher, statement
from tests.unit.verify.conftest import Judge, found
from tests.unit.verify.logbuilder import ACTOR, READ, SECOND, START, TOOL, Log, TestKey

pytestmark = pytest.mark.req("AUD-04")

OTHER = {**ACTOR, "jti": "jti-2", "root": "jti-2", "run": "run-2"}
EXP = START // SECOND + 300
Build = Callable[[Log], Log]


def held(log: Log) -> Log:
    return log.granted("ap-1", "op-1")


def reboot(log: Log) -> Log:
    return (log.batch() if log.in_batch else log).boot("boot-1").batch()


# The name of the rule, the record that breaks it (from 4 on, behind the start), the history.
def trusting(log: Log) -> Log:
    """Say that only what Pia and Paul sign decides."""
    named = [one.named() for one in (PIA, PAUL)]
    fields = {"mode": "required", "rollback": "two", "publishers": named}
    return log.add("policy.trust", environment=ENVIRONMENT, **fields)


def decides(log: Log, number: int, *publishers: Publisher) -> Log:
    """Let a release decide that they signed."""
    release = f"sha256:{number:064d}"
    said, by = statement(release, number), publishers or (PIA, PAUL)
    words = {"kids": [one.kid for one in by], "statements": [one.sign(said) for one in by]}
    fields = {"rev": f"rev-{number}", "packages": [], "release": release, "number": number}
    return log.add("policy.activate", **fields, **words)


def withdraws(log: Log, number: int, by: Publisher) -> Log:
    """Let a publisher take a release back."""
    release = f"sha256:{number:064d}"
    word = by.sign(statement(release, number, act="withdraw"))
    fields = {"release": release, "number": number, "action": "withdraw", "proposals": ["op-9"]}
    return log.add("policy.withdraw", kids=[by.kid], statements=[word], **fields)


VIOLATIONS: dict[str, tuple[str, int, Build]] = {
    "boot-of-nobody": ("boot_unknown", 4, lambda log: log.add("custom", boot="boot-9")),
    "boot-of-the-past": (
        "boot_unknown",
        5,
        lambda log: reboot(log).add("custom", boot="boot-0"),
    ),
    "boot-that-names-another": ("boot_unknown", 4, lambda log: log.boot("boot-1", boot="boot-0")),
    "count-too-high": ("boot_count", 4, lambda log: log.boot("boot-1", open_intents=1)),
    "count-too-low": (
        "boot_count",
        5,
        lambda log: log.intent("op-1").boot("boot-1", open_intents=0).orphan("op-1"),
    ),
    "boot-with-another-key": (
        "key_mismatch",
        4,
        lambda log: log.boot("boot-1", key=TestKey("other").vkey),
    ),
    "outcome-alone": ("outcome_without_intent", 4, lambda log: log.outcome("op-1")),
    "orphan-alone": ("outcome_without_intent", 4, lambda log: log.orphan("op-1")),
    "outcome-of-a-refusal": (
        "outcome_without_intent",
        5,
        lambda log: log.refused("op-1").outcome("op-1"),
    ),
    "outcome-of-another-seq": (
        "outcome_mismatch",
        5,
        lambda log: log.intent("op-1").outcome("op-1", intent=3),
    ),
    "outcome-of-the-first-try": (
        "outcome_mismatch",
        7,
        lambda log: (
            log.intent("op-1")
            .outcome("op-1", delivery="not_sent", status="failed")
            .intent("op-1")
            .outcome("op-1", intent=4)
        ),
    ),
    "orphan-of-another-seq": (
        "outcome_mismatch",
        6,
        lambda log: log.intent("op-1").boot("boot-1").orphan("op-1", intent=0),
    ),
    "two-outcomes": (
        "second_outcome",
        6,
        lambda log: log.intent("op-1").outcome("op-1").outcome("op-1", intent=4),
    ),
    "orphan-after-outcome": (
        "second_outcome",
        7,
        lambda log: log.intent("op-1").outcome("op-1").boot("boot-1").orphan("op-1", intent=4),
    ),
    "outcome-of-one-not-sent-again": (
        "second_outcome",
        6,
        lambda log: (
            log.intent("op-1")
            .outcome("op-1", delivery="not_sent")
            .outcome("op-1", intent=4, delivery="not_sent")
        ),
    ),
    "two-intents-open": (
        "second_intent",
        5,
        lambda log: log.intent("op-1").intent("op-1").outcome("op-1"),
    ),
    "intent-after-sent": (
        "second_intent",
        6,
        lambda log: log.intent("op-1").outcome("op-1").intent("op-1").outcome("op-1"),
    ),
    "intent-after-unknown": (
        "second_intent",
        6,
        lambda log: (
            log.intent("op-1").outcome("op-1", delivery="unknown").intent("op-1").outcome("op-1")
        ),
    ),
    "orphan-never-closed": (
        "orphan_open",
        4,
        lambda log: reboot(log.intent("op-1")).policy(after=61),
    ),
    "orphan-open-at-shutdown": (
        "orphan_open",
        4,
        lambda log: reboot(log.intent("op-1")).shutdown(),
    ),
    "open-at-shutdown": ("intent_open", 4, lambda log: log.intent("op-1").shutdown()),
    "intent-denied": (
        "effect_despite_deny",
        4,
        lambda log: log.intent("op-1", decision={"outcome": "deny", "reasons": []}),
    ),
    "intent-held": (
        "effect_despite_deny",
        4,
        lambda log: log.intent("op-1", decision={"outcome": "hold", "reasons": []}),
    ),
    "intent-undecided": ("effect_despite_deny", 4, lambda log: log.intent("op-1", decision=...)),
    "intent-after-refusal": (
        "effect_despite_deny",
        5,
        lambda log: log.refused("op-1").intent("op-1"),
    ),
    "policy-of-nobody": (
        "policy_unknown",
        4,
        lambda log: log.intent("op-1", policy={"rev": "ef" * 32}),
    ),
    "policy-of-later": (
        "policy_unknown",
        4,
        lambda log: log.refused("op-1", policy={"rev": "ef" * 32}).policy("ef" * 32),
    ),
    "policy-of-a-token": (
        "policy_unknown",
        4,
        lambda log: log.token("jti-2", policy={"rev": "ef" * 32}),
    ),
    "token-of-nobody": (
        "token_unknown",
        4,
        lambda log: log.intent("op-1", actor={**ACTOR, "jti": "jti-9"}),
    ),
    "token-of-later": (
        "token_unknown",
        4,
        lambda log: log.intent("op-1", actor=OTHER).token("jti-2", "run-2"),
    ),
    "intent-without-actor": ("token_unknown", 4, lambda log: log.intent("op-1", actor=...)),
    "token-of-another-agent": (
        "token_mismatch",
        4,
        lambda log: log.intent("op-1", actor={**ACTOR, "agent": "other"}),
    ),
    "token-of-another-run": (
        "token_mismatch",
        4,
        lambda log: log.intent("op-1", actor={**ACTOR, "run": "other"}),
    ),
    "token-of-another-family": (
        "token_mismatch",
        4,
        lambda log: log.intent("op-1", actor={**ACTOR, "root": "other"}),
    ),
    "token-expired": ("token_expired", 4, lambda log: log.intent("op-1", after=361)),
    "token-expired-long-ago": (
        "token_expired",
        5,
        lambda log: log.token("jti-2", "run-2", after=5000).intent("op-1"),
    ),
    "killed-agent": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("agent", "invoice-bot").intent("op-1").outcome("op-1"),
    ),
    "killed-client": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("client", "workflow").intent("op-1").outcome("op-1"),
    ),
    "killed-run": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("run", "run-1").intent("op-1").outcome("op-1"),
    ),
    "killed-family": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("run", "jti-1").intent("op-1").outcome("op-1"),
    ),
    "killed-tool": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("tool", "billing.refund").intent("op-1").outcome("op-1"),
    ),
    "killed-server": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("server", "billing").intent("op-1").outcome("op-1"),
    ),
    "killed-actor": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("actor", "run-1/invoice-bot").intent("op-1").outcome("op-1"),
    ),
    "killed-all": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("all", "*").intent("op-1").outcome("op-1"),
    ),
    "killed-and-open-at-the-end": (
        "effect_despite_kill",
        5,
        lambda log: log.kill("all", "*").intent("op-1"),
    ),
    "killed-twice-lifted-once": (
        "effect_despite_kill",
        7,
        lambda log: (
            log.kill("all", "*").kill("all", "*", "kill-2").lift().intent("op-1").outcome("op-1")
        ),
    ),
    "revoked-token": (
        "token_revoked",
        5,
        lambda log: log.revoke(jti="jti-1").intent("op-1").outcome("op-1"),
    ),
    "revoked-family": (
        "token_revoked",
        5,
        lambda log: log.revoke(root="jti-1").intent("op-1").outcome("op-1", delivery="unknown"),
    ),
    "revoked-run": (
        "token_revoked",
        5,
        lambda log: log.revoke(run="run-1").intent("op-1").outcome("op-1"),
    ),
    "revoked-agent": (
        "token_revoked",
        5,
        lambda log: log.revoke(agent="invoice-bot").intent("op-1").outcome("op-1"),
    ),
    "revoked-client": (
        "token_revoked",
        5,
        lambda log: log.revoke(client="workflow").intent("op-1").outcome("op-1"),
    ),
    "revoked-again": (
        "token_revoked",
        7,
        lambda log: (
            log.revoke(agent="invoice-bot")
            .token("jti-2", "run-2")
            .revoke(agent="invoice-bot")
            .intent("op-1", actor=OTHER)
            .outcome("op-1")
        ),
    ),
    "scope-by-the-full-name": (
        "token_scope",
        5,
        lambda log: log.token(
            "jti-2", "run-2", allow=[{"server": "billing", "tool": "billing.refund"}]
        ).intent("op-1", actor=OTHER),
    ),
    "revoked-and-an-orphan": (
        "token_revoked",
        5,
        lambda log: log.revoke(jti="jti-1").intent("op-1").boot("boot-1").orphan("op-1"),
    ),
    "revoked-and-open-at-the-end": (
        "token_revoked",
        5,
        lambda log: log.revoke(jti="jti-1").intent("op-1"),
    ),
    "revoked-and-held": (
        "token_revoked",
        8,
        lambda log: held(log).revoke(run="run-1").intent("op-1", approval="ap-1").outcome("op-1"),
    ),
    "scope-lacks-calls": (
        "token_scope",
        5,
        lambda log: log.token("jti-2", "run-2", scopes=["tools:list"]).intent("op-1", actor=OTHER),
    ),
    "scope-lacks-server": (
        "token_scope",
        4,
        lambda log: log.intent("op-1", tool={**TOOL, "server": "hr", "id": "hr.refund"}),
    ),
    "scope-lacks-tool": (
        "token_scope",
        4,
        lambda log: log.intent("op-1", tool={**TOOL, "id": "billing.charge"}),
    ),
    "scope-lacks-effect": (
        "token_scope",
        5,
        lambda log: log.token(
            "jti-2", "run-2", allow=[{"server": "*", "tool": "*", "effects": ["read", "create"]}]
        ).intent("op-1", actor=OTHER),
    ),
    "scope-of-nothing": (
        "token_scope",
        5,
        lambda log: log.token("jti-2", "run-2", allow=[]).intent("op-1", actor=OTHER),
    ),
    "call-after-run": (
        "run_ended",
        5,
        lambda log: log.run_end().intent("op-1").outcome("op-1"),
    ),
    "token-after-run": ("run_ended", 5, lambda log: log.run_end().token("jti-2", "run-1")),
    "vote-for-nothing": ("approval_unknown", 4, lambda log: log.vote("ap-9")),
    "grant-of-nothing": ("approval_unknown", 4, lambda log: log.state("ap-9", "grant")),
    "intent-of-nothing": (
        "approval_unknown",
        4,
        lambda log: log.intent("op-1", approval="ap-9"),
    ),
    "vote-on-another-binding": (
        "approval_mismatch",
        5,
        lambda log: log.request("ap-1", "op-1").vote("ap-1", binding="other"),
    ),
    "grant-of-another-tool": (
        "approval_mismatch",
        6,
        lambda log: log.request("ap-1", "op-1").vote("ap-1").state("ap-1", "grant", tool=READ),
    ),
    "deny-of-another-agent": (
        "approval_mismatch",
        5,
        lambda log: log.request("ap-1", "op-1").state("ap-1", "deny", agent="other"),
    ),
    "expiry-of-another-run": (
        "approval_mismatch",
        5,
        lambda log: log.request("ap-1", "op-1").state("ap-1", "expire", run="other"),
    ),
    "intent-of-another-tool": (
        "approval_mismatch",
        7,
        lambda log: held(log).intent("op-1", approval="ap-1", tool=READ).outcome("op-1"),
    ),
    "intent-of-another-op": (
        "approval_mismatch",
        7,
        lambda log: held(log).intent("op-2", approval="ap-1").outcome("op-2"),
    ),
    "intent-of-another-agent": (
        "approval_mismatch",
        7,
        lambda log: held(log).intent("op-1", approval="ap-1", actor={**ACTOR, "agent": "x"}),
    ),
    "intent-of-another-run": (
        "approval_mismatch",
        7,
        lambda log: held(log).intent("op-1", approval="ap-1", actor={**ACTOR, "run": "x"}),
    ),
    "intent-before-grant": (
        "approval_missing",
        6,
        lambda log: log.request("ap-1", "op-1").vote("ap-1").intent("op-1", approval="ap-1"),
    ),
    "intent-past-the-approval": (
        "approval_missing",
        5,
        lambda log: log.request("ap-1", "op-1").intent("op-1"),
    ),
    "intent-with-other-arguments": (
        "approval_args",
        7,
        lambda log: held(log).intent("op-1", approval="ap-1", args_tag="other").outcome("op-1"),
    ),
    "vote-too-late": (
        "approval_late",
        5,
        lambda log: log.request("ap-1", "op-1").vote("ap-1", at=START // SECOND + 901),
    ),
    "vote-after-grant": ("approval_late", 7, lambda log: held(log).vote("ap-1", "tag-bert")),
    "vote-after-deny": (
        "approval_late",
        6,
        lambda log: log.request("ap-1", "op-1").state("ap-1", "deny").vote("ap-1"),
    ),
    "grant-too-late": (
        "approval_late",
        6,
        lambda log: (
            log.request("ap-1", "op-1")
            .vote("ap-1")
            .state("ap-1", "grant", at=START // SECOND + 901)
        ),
    ),
    "call-after-expiry": (
        "approval_expired",
        7,
        lambda log: held(log).intent("op-1", approval="ap-1", after=961).outcome("op-1"),
    ),
    "self-approval": (
        "approval_self",
        5,
        lambda log: log.request("ap-1", "op-1").vote("ap-1", "tag-launcher"),
    ),
    "one-person-twice": (
        "approval_twice",
        6,
        lambda log: log.request("ap-1", "op-1").vote("ap-1").vote("ap-1"),
    ),
    "no-votes": (
        "approval_quorum",
        5,
        lambda log: log.request("ap-1", "op-1").state("ap-1", "grant"),
    ),
    "votes-against": (
        "approval_quorum",
        6,
        lambda log: (
            log.request("ap-1", "op-1").vote("ap-1", decision="deny").state("ap-1", "grant")
        ),
    ),
    "one-of-two": (
        "approval_quorum",
        6,
        lambda log: log.request("ap-1", "op-1", quorum=2).vote("ap-1").state("ap-1", "grant"),
    ),
    "grant-after-deny": (
        "approval_decided",
        7,
        lambda log: (
            log.request("ap-1", "op-1").vote("ap-1").state("ap-1", "deny").state("ap-1", "grant")
        ),
    ),
    "deny-after-grant": ("approval_decided", 7, lambda log: held(log).state("ap-1", "deny")),
    "grant-twice": ("approval_decided", 7, lambda log: held(log).state("ap-1", "grant")),
    "stale-before-grant": (
        "approval_decided",
        5,
        lambda log: log.request("ap-1", "op-1").state("ap-1", "stale"),
    ),
    "unknown-without-call": ("approval_decided", 7, lambda log: held(log).state("ap-1", "unknown")),
    "resolve-without-unknown": (
        "approval_decided",
        9,
        lambda log: (
            held(log)
            .intent("op-1", approval="ap-1")
            .outcome("op-1", delivery="unknown")
            .state("ap-1", "resolve")
        ),
    ),
    "expire-after-sent": (
        "approval_decided",
        9,
        lambda log: (
            held(log).intent("op-1", approval="ap-1").outcome("op-1").state("ap-1", "expire")
        ),
    ),
    "request-again": (
        "approval_decided",
        5,
        lambda log: log.request("ap-1", "op-1").request("ap-1", "op-1"),
    ),
    "call-after-deny": (
        "approval_missing",
        6,
        lambda log: (
            log.request("ap-1", "op-1")
            .state("ap-1", "deny")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "call-after-expire": (
        "approval_decided",
        6,
        lambda log: (
            log.request("ap-1", "op-1")
            .state("ap-1", "expire")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "call-after-cancel": (
        "approval_decided",
        8,
        lambda log: (
            held(log).state("ap-1", "cancel").intent("op-1", approval="ap-1").outcome("op-1")
        ),
    ),
    "hold-by-one": (
        "hold_persons",
        4,
        lambda log: log.hold("set", persons=["tag-a"]),
    ),
    "hold-by-one-twice": (
        "hold_persons",
        5,
        lambda log: log.hold("set").hold("release", persons=["tag-a", "tag-a"]),
    ),
    "decides-unsigned": (
        "release_unsigned",
        5,
        lambda log: trusting(log).add("policy.activate", rev="rev-1", packages=[]),
    ),
    "decides-signed-by-one": ("release_unsigned", 5, lambda log: decides(trusting(log), 1, PIA)),
    "decides-again": (
        "release_replayed",
        7,
        lambda log: decides(decides(decides(trusting(log), 1), 2), 1),
    ),
    "decides-withdrawn": (
        "release_withdrawn",
        6,
        lambda log: decides(withdraws(trusting(log), 1, PAUL), 1),
    ),
    "withdrawn-by-a-stranger": (
        "release_withdrawn",
        5,
        lambda log: withdraws(trusting(log), 1, Publisher("stranger")),
    ),
    "erased-under-hold": ("hold_broken", 5, lambda log: log.hold("set").redact()),
    "erased-under-a-hold-of-all": (
        "hold_broken",
        5,
        lambda log: log.hold("set", subject="*").redact(),
    ),
    "erased-under-one-of-two-holds": (
        "hold_broken",
        7,
        lambda log: log.hold("set").hold("set", "hold-2").hold("release").redact(),
    ),
    "event-twice": (
        "event_twice",
        5,
        lambda log: log.add("custom", event="e-1").add("other", event="e-1"),
    ),
}

# Histories that break more than one rule at one record: each is said.
SEVERAL: dict[str, tuple[list[tuple[str, int]], Build]] = {
    "approval-used-twice-at-once": (
        [("second_intent", 8), ("approval_reused", 8)],
        lambda log: (
            held(log)
            .intent("op-1", approval="ap-1")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "approval-used-again": (
        [("second_intent", 9), ("approval_reused", 9)],
        lambda log: (
            held(log)
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "approval-used-after-unknown": (
        [("second_intent", 9), ("approval_reused", 9)],
        lambda log: (
            held(log)
            .intent("op-1", approval="ap-1")
            .outcome("op-1", delivery="unknown")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "call-after-resolve": (
        [("second_intent", 11), ("approval_decided", 11), ("approval_reused", 11)],
        lambda log: (
            held(log)
            .intent("op-1", approval="ap-1")
            .outcome("op-1", delivery="unknown")
            .state("ap-1", "unknown")
            .state("ap-1", "resolve")
            .intent("op-1", approval="ap-1")
            .outcome("op-1")
        ),
    ),
    "revoked-and-over": (
        [("token_revoked", 6), ("run_ended", 6)],
        lambda log: log.revoke(jti="jti-1").run_end().intent("op-1").outcome("op-1"),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_the_only_finding_and_in_its_place(judge: Judge, name: str) -> None:
    rule, seq, build = VIOLATIONS[name]
    report = judge(build(Log().start()).batch())
    assert found(report) == [(rule, seq)]
    assert (report["exit"], report["findings"][0]["kind"]) == (1, "semantic")


@pytest.mark.parametrize("name", SEVERAL)
def test_each_rule_that_a_record_breaks_is_said(judge: Judge, name: str) -> None:
    expected, build = SEVERAL[name]
    assert found(judge(build(Log().start()).batch())) == expected


def test_there_are_cases_for_every_rule_of_the_page(script: object) -> None:
    rules = {rule for rule, _, _ in VIOLATIONS.values()}
    rules |= {rule for broken, _ in SEVERAL.values() for rule, _ in broken}
    assert rules | {"malformed"} == set(script.RULES)  # type: ignore[attr-defined]
    assert len(VIOLATIONS) >= 40


def test_genesis_names_the_boot_that_follows_and_the_first_key(judge: Judge) -> None:
    log = Log()
    log.boot_id = "boot-x"
    log.add("genesis", op="boot-x", key=log.key.vkey).boot("boot-0").batch()
    assert found(judge(log)) == [("boot_unknown", 0)]


def test_a_log_may_end_before_its_first_boot_record(judge: Judge) -> None:
    log = Log()
    log.boot_id = "boot-0"
    log.add("genesis", op="boot-0", key=log.key.vkey).batch()
    assert judge(log)["valid"]


def test_records_before_the_first_boot_are_of_nobody(judge: Judge) -> None:
    log = Log()
    log.boot_id = "boot-0"
    log.add("genesis", op="boot-0", key=log.key.vkey).policy().boot("boot-0").batch()
    assert found(judge(log)) == [("boot_unknown", 1)]


def test_the_rules_can_be_left_out(judge: Judge) -> None:
    log = Log().start().outcome("op-1").batch()
    assert judge(log, "--no-semantics")["valid"]


HONEST: dict[str, Build] = {
    "killed-not-sent": lambda log: (
        log.kill("all", "*").intent("op-1").outcome("op-1", delivery="not_sent")
    ),
    "killed-under-way": lambda log: log.intent("op-1").kill("all", "*").outcome("op-1"),
    "killed-and-lifted": lambda log: (
        log.kill("agent", "invoice-bot").lift().intent("op-1").outcome("op-1")
    ),
    "killed-another": lambda log: (
        log.kill("agent", "workflow").kill("human", "*", "k2").intent("op-1").outcome("op-1")
    ),
    "not-sent-may-be-tried-again": lambda log: (
        log.intent("op-1").outcome("op-1", delivery="not_sent").intent("op-1").outcome("op-1")
    ),
    "revoked-in-time": lambda log: (
        log.intent("op-1")
        .revoke(jti="jti-1")
        .outcome("op-1")
        .intent("op-2")
        .outcome("op-2", delivery="not_sent")
    ),
    "run-over-in-time": lambda log: (
        log.intent("op-1")
        .run_end()
        .outcome("op-1")
        .intent("op-2")
        .outcome("op-2", delivery="not_sent")
    ),
    "another-token-revoked": lambda log: (
        log.revoke(jti="jti-9", client="other").revoke(run="run-9").intent("op-1").outcome("op-1")
    ),
    "let-in-again": lambda log: (
        log.revoke(agent="invoice-bot", client="workflow")
        .token("jti-2", "run-2")
        .intent("op-1", actor=OTHER)
        .outcome("op-1")
    ),
    "let-in-again-and-held-for-long": lambda log: (
        log.revoke(agent="invoice-bot")
        .token("jti-2", "run-2")
        .request("ap-1", "op-1", actor=OTHER, run="run-2", expires=EXP + 9000)
        .vote("ap-1")
        .state("ap-1", "grant")
        .token("jti-3", "run-3", after=8000)
        .intent("op-1", actor=OTHER, approval="ap-1")
        .outcome("op-1")
    ),
    "orphan-closed": lambda log: (
        log.intent("op-1")
        .batch()
        .boot("boot-1")
        .orphan("op-1")
        .batch()
        .policy(after=100)
        .shutdown()
    ),
    "orphan-not-yet-closed": lambda log: log.intent("op-1").batch().boot("boot-1").policy(after=59),
    "open-at-the-end": lambda log: log.intent("op-1").policy(after=1000),
    "held-and-sent": lambda log: held(log).intent("op-1", approval="ap-1").outcome("op-1"),
    "held-and-sent-with-an-old-token": lambda log: (
        log.granted("ap-1", "op-1", expires=EXP + 9000)
        .token("jti-2", "run-2", after=8000)
        .intent("op-1", approval="ap-1")
        .outcome("op-1")
    ),
    "held-not-sent-then-sent": lambda log: (
        held(log)
        .intent("op-1", approval="ap-1")
        .outcome("op-1", delivery="not_sent")
        .intent("op-1", approval="ap-1")
        .outcome("op-1")
    ),
    "held-not-sent-then-stale": lambda log: (
        held(log)
        .intent("op-1", approval="ap-1")
        .outcome("op-1", delivery="not_sent")
        .state("ap-1", "stale")
    ),
    "held-unknown-resolved": lambda log: (
        held(log)
        .intent("op-1", approval="ap-1")
        .outcome("op-1", delivery="unknown")
        .state("ap-1", "unknown")
        .state("ap-1", "resolve")
    ),
    "held-orphaned-resolved": lambda log: (
        held(log)
        .intent("op-1", approval="ap-1")
        .batch()
        .boot("boot-1")
        .orphan("op-1", approval="ap-1")
        .state("ap-1", "unknown")
        .state("ap-1", "resolve")
    ),
    "held-denied": lambda log: (
        log.request("ap-1", "op-1").vote("ap-1", decision="deny").state("ap-1", "deny")
    ),
    "held-expired": lambda log: log.request("ap-1", "op-1").state("ap-1", "expire", after=901),
    "granted-cancelled": lambda log: held(log).state("ap-1", "cancel"),
    "two-approve": lambda log: (
        log.request("ap-1", "op-1", quorum=2)
        .vote("ap-1", "tag-anna")
        .vote("ap-1", "tag-bert", stage=2)
        .state("ap-1", "grant")
        .intent("op-1", approval="ap-1", after=10)
        .outcome("op-1")
    ),
    "two-requests-of-one-person": lambda log: (
        log.granted("ap-1", "op-1").granted("ap-2", "op-2").state("ap-1", "expire")
    ),
    "in-the-last-minute-of-grace": lambda log: log.intent("op-1", after=358).outcome("op-1"),
    "scope-of-all": lambda log: (
        log.token("jti-2", "run-2", allow=[{"server": "*", "tool": "*"}])
        .intent("op-1", actor=OTHER)
        .outcome("op-1")
    ),
    "scope-by-effect": lambda log: (
        log.token(
            "jti-2", "run-2", allow=[{"server": "billing", "tool": "refund", "effects": ["money"]}]
        )
        .intent("op-1", actor=OTHER)
        .outcome("op-1")
    ),
    "hold-and-release": lambda log: log.hold("set").hold("release").redact(),
    "hold-of-another": lambda log: log.hold("set", subject="z" * 32).redact(),
    "two-events": lambda log: log.add("custom", event="e-1").add("custom", event="e-2"),
    "unknown-type": lambda log: log.add("future.thing", actor=[1], policy=None, approval=7),
    "policy-changes": lambda log: (
        log.policy("cd" * 32)
        .refused("op-1", policy={"rev": "cd" * 32})
        .intent("op-2")
        .outcome("op-2")
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_history_raises_no_alarm(judge: Judge, name: str) -> None:
    report = judge(HONEST[name](Log().start()).batch())
    assert found(report) == []


def test_a_scope_that_was_left_out_is_counted_as_unchecked(judge: Judge) -> None:
    log = Log().start().token("jti-2", "run-2", allow=...)
    for op in ("op-1", "op-2"):
        log.intent(op, actor=OTHER).outcome(op)
    report = judge(log.batch())
    assert report["valid"]
    assert any("scope of 2 calls" in what for what in report["not_checked"])


MALFORMED: dict[str, Build] = {
    "list-as-op": lambda log: log.add("call.outcome", op=["x"]),
    "list-as-event": lambda log: log.add("custom", event=[]),
    "list-as-policy": lambda log: log.add("custom", policy=[1]),
    "list-as-revision": lambda log: log.add("custom", policy={"rev": []}),
    "number-as-persons": lambda log: log.hold("set", persons=3),
    "text-as-expiry": lambda log: log.token("jti-2", "run-2", exp="soon").token("jti-3", "run-3"),
    "text-as-quorum": lambda log: log.request("ap-1", "op-1", quorum="two"),
    "list-as-quorum": lambda log: log.request("ap-1", "op-1", quorum=[1]),
    "text-as-allow": lambda log: log.token("jti-2", "run-2", allow="all").intent(
        "op-1", actor=OTHER
    ),
    "no-boot": lambda log: log.policy().add("custom", boot=...),
    "no-run": lambda log: log.add("run.end"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_field_of_a_strange_form_is_a_finding_and_no_crash(judge: Judge, name: str) -> None:
    report = judge(MALFORMED[name](Log().start()).batch())
    assert report["exit"] == 1
    assert "malformed" in {rule for rule, _ in found(report)}


def test_what_lies_behind_a_break_is_not_judged(judge: Judge) -> None:
    log = Log().start().call("op-1").intent("op-2").batch().outcome("op-2").batch()
    del log.lines[0][-4]
    assert found(judge(log)) == [("deleted", 6)]


def test_tokens_are_forgotten_an_hour_past_their_end_and_not_before(judge: Judge) -> None:
    log = Log().start()
    log.token("jti-2", "run-2", after=3800).batch().intent("op-1").outcome("op-1").batch()
    assert found(judge(log)) == [("token_expired", 5)]
    log.token("jti-3", "run-3", after=4000).batch().intent("op-2").outcome("op-2").batch()
    assert found(judge(log)) == [("token_expired", 5), ("token_expired", 8)]


def test_many_ids_are_kept_apart(judge: Judge) -> None:
    log = Log().start()
    for index in range(1500):
        log.refused(f"op {index}", event=f"event {index}", after=0)
    log.batch().refused("op", event="event 0").batch()
    assert found(judge(log)) == [("event_twice", 1504)]
