"""The rules of publishing: whose word counts, and when there are enough of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.errors import RequestError
from gateway.core.releases.history import History, Publication
from gateway.core.releases.publisher_keys import PublisherKey
from gateway.core.releases.release import REVISION
from gateway.core.releases.statement import SHADOW_MAX_S, Signed, Statement, read_statement

PUBLISHER: Final = "policy_publisher"
Mode = Literal["dev", "off", "required"]


class Publisher(Struct, frozen=True):
    """A person and the key with which they publish."""

    id: str
    key: PublisherKey


class Rules(Struct, frozen=True, kw_only=True):
    """What this deployment asks for. `publishers` by kid; a proposal waits `ttl_s` seconds."""

    environment: str
    log: str
    publishers: Mapping[str, Publisher]
    rollback: Literal["one", "two"] = "two"
    ttl_s: int = 86_400
    can_shadow: bool = False

    @property
    def keys(self) -> dict[str, PublisherKey]:
        """Keys by kid."""
        return {kid: one.key for kid, one in self.publishers.items()}


class Enough(Struct, frozen=True):
    """The words that make a release decide, the one that came last behind the others."""

    statement: Statement
    signed: tuple[Signed, ...]


class Waits(Struct, frozen=True):
    """One word, which waits for another publisher's."""

    signed: Signed


class Withdrawn(Struct, frozen=True):
    """The word that takes proposals back; `proposals` are their ids."""

    signed: Signed
    proposals: tuple[str, ...]


def judge_withdrawal(
    rules: Rules, history: History, signed: Signed, *, by: str
) -> Withdrawn | Declined:
    """Say what the word of a publisher takes back. `by`: who brings it, authenticated."""
    foreign = _find_foreign(rules, signed, by)
    if foreign is not None:
        return foreign
    said = signed.statement
    fault = _find_elsewhere(rules, said)
    if fault is not None:
        return fault
    found = [one.id for one in history.proposals.values() if one.said == said.said]
    if said.act != "withdraw" or not found or said.prev != _replaced(history):
        return Declined(
            "release_conflict", "no such proposal waits here; see `countersign policy history`"
        )
    return Withdrawn(signed, tuple(found))


def judge(
    rules: Rules,
    history: History,
    signed: Signed,
    *,
    by: str,
    may_publish: Callable[[str, int], bool],
    now_s: int,
) -> Enough | Waits | Declined:
    """Say what the word of a publisher does. `by`: who brings it, authenticated.

    `may_publish`: whether a word that a person gave at that time (seconds) still counts.
    """
    foreign = _find_foreign(rules, signed, by)
    if foreign is not None:
        return foreign
    said = signed.statement
    fault = find_fault(rules, history, said)
    if fault is not None:
        return fault
    alone = said.act == "rollback" and rules.rollback == "one"
    if alone and history.may_return_alone(said.rev):
        return Enough(said, (signed,))
    others = list(_find_equal(rules, history, signed, may_publish, now_s))
    return Enough(signed.statement, (others[0], signed)) if others else Waits(signed)


def find_fault(rules: Rules, history: History, statement: Statement) -> Declined | None:
    """Say why a statement cannot be followed now, or return None. Numbered by attack."""
    # 1. A signature for a test environment, brought to production.
    elsewhere = _find_elsewhere(rules, statement)
    if elsewhere is not None:
        return elsewhere
    # 2. An old signature, brought again: what was published once counts once.
    if statement.number != history.number + 1:
        return Declined(
            "release_stale", f"the next release here is number {history.number + 1}; sign that"
        )
    # 3. A signature for a step from something else than what decides now.
    if statement.prev != _replaced(history):
        return Declined("release_stale", "another release decides by now; look at it, sign anew")
    # 4. What was withdrawn, brought again by who kept the signature.
    said = statement.said
    if said.again != history.count_withdrawn(said.number, said.revision, said.shadow_s):
        return Declined("release_withdrawn", "this was withdrawn; who still wants it signs it anew")
    if not REVISION.fullmatch(statement.rev) or not 0 <= statement.shadow_s <= SHADOW_MAX_S:
        return Declined("release_invalid", "the statement names no release; sign anew")
    # 5. A word of taking back, brought as one of publishing.
    if statement.act == "withdraw":
        return Declined("release_conflict", "this takes a proposal back: use `policy withdraw`")
    # 6. A step back that looks like one ahead, and a step "back" to what never decided. What
    #    decides may be signed anew: its publishers' keys may be about to go.
    is_back = statement.rev != statement.prev and history.was_active(statement.rev)
    if (statement.act == "rollback") != is_back:
        hint = "it decided here before: use `policy rollback`"
        if statement.act == "rollback":
            hint = "it never decided here: use `policy publish`"
        return Declined("release_conflict", hint)
    if statement.shadow_s and not rules.can_shadow:
        return Declined("release_no_shadow", "nothing can be evaluated beside here; leave it out")
    return None


def find_unsigned(rules: Rules, publication: Publication) -> str | None:
    """Say why a publication of the log may not decide here, or return None.

    Asked at every start: the keys may have changed since, and so may the log's holder.
    """
    statements: dict[str, Statement] = {}
    for token in publication.tokens:
        try:
            signed = read_statement(token, rules.keys)
        except RequestError as error:
            return str(error)
        statements[person(rules.publishers[signed.key.kid].id)] = signed.statement
    if len({*statements.values()}) != 1:
        return "its signatures are not of one statement"
    said = next(iter(statements.values()))
    here = Statement(
        act=said.act,
        env=rules.environment,
        log=rules.log,
        number=publication.number,
        prev=publication.replaces,
        rev=publication.revision,
        shadow_s=publication.shadow_s,
        again=publication.again,
    )
    if said != here or said.act != publication.act:
        return "its signatures are for another environment, log, place or release"
    if publication.is_withdrawn:
        return "it was withdrawn before"
    alone = said.act == "rollback" and rules.rollback == "one" and publication.is_return
    if len(statements) < (1 if alone else 2):
        return "it was not signed by two publishers"
    return None


def _find_foreign(rules: Rules, signed: Signed, by: str) -> Declined | None:
    """Refuse somebody who signed with a key that they were lent, or found."""
    if person(rules.publishers[signed.key.kid].id) == person(by):
        return None
    return Declined(
        "release_key_foreign",
        f"this key is not that of `{by[:64]}`, who is signed in; sign with your own, or sign in as "
        "yourself",
    )


def _find_elsewhere(rules: Rules, statement: Statement) -> Declined | None:
    if (statement.env, statement.log) == (rules.environment, rules.log):
        return None
    return Declined(
        "release_elsewhere",
        f"this was signed for `{statement.env[:64]}`, `{statement.log[:64]}`; "
        f"here is `{rules.environment}`, `{rules.log}`",
    )


def _replaced(history: History) -> str:
    """Return what a statement has to say that it takes the place of."""
    return "" if history.target is None else history.target.revision


def _find_equal(
    rules: Rules,
    history: History,
    signed: Signed,
    may_publish: Callable[[str, int], bool],
    now_s: int,
) -> Iterator[Signed]:
    """Yield the same word of other publishers, who still are publishers."""
    for proposal in history.proposals.values():
        owner = rules.publishers.get(proposal.kid)
        if owner is None or now_s >= proposal.at + rules.ttl_s:
            continue
        if not may_publish(owner.id, proposal.at):
            continue
        # One person with two keys, or under two spellings, is one publisher.
        if person(owner.id) == person(rules.publishers[signed.key.kid].id):
            continue
        try:
            other = read_statement(proposal.token, rules.keys)
        except RequestError:
            continue
        if other.statement == signed.statement:
            yield other
