"""What another bundle would change: its decision beside the one that was made (POL-08).

The measure is the decision as it was recorded. Nothing that followed from it is computed again: a
call that a candidate denies would have spent nothing, so later calls of its run would have been
judged on other sums. Each decision is compared on the very input that it was made on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct

from gateway.core.approvals.approval import spec_digest
from gateway.core.policy.decision import Decision, Deny, Hold, Phase, duties_digest, pick
from gateway.core.policy.obligations import Limit
from gateway.core.records.call_records import codes
from gateway.core.records.replay import SPENT, UNANSWERED, outcome_of

Kind = Literal[
    "newly_denied",
    "newly_held",
    "newly_permitted",
    "approval",
    "obligations",
    "reasons",
    "unchanged",
    "gateway",
    "unanswered",
    "error",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CHANGES: Final[tuple[Kind, ...]] = KINDS[:6]
"""The kinds that are changes. The others: the same again; refused by the ledger, whatever policy
permits; denied for want of an answer then; no answer from the candidate now."""

STALE: Final = "approval_stale"
"""What people agreed to is no more what policy asks for: the held call would not be sent."""

_OBLIGED: Final = frozenset({"idempotency_key_required", "limit_exhausted", "obligation_unmet"})
"""Denials by the ledger for the sake of an obligation: policy can lift them."""

_EXAMPLES: Final = 3
_GROUPS_MAX: Final = 1_000
_AGENTS_MAX: Final = 1_000
_NAMED_MAX: Final = 10_000
"""Of each kind: groups, agents of a group, and agents of all groups. INVARIANT: counted per kind,
so that what there is much of hides nothing of another kind."""

_OTHERS: Final = "(others)"


class Told(Struct, frozen=True):
    """A decision in the words of records. `spec`: digest of what approval a hold asks for.

    `obligations` by type; `duties`: their digest, None where there are none, or an earlier version
    recorded none. `limits`: how many calls within how many seconds (None: in all).
    """

    outcome: str
    reasons: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    spec: str | None = None
    duties: str | None = None
    limits: tuple[tuple[int, int | None], ...] = ()


class Change(Struct, frozen=True):
    """What becomes of one decision, and the rules (`package:code`) that make it so.

    `by_type`: no more than the types of obligations could be compared.
    """

    kind: Kind
    was: str = ""
    now: str = ""
    rules: tuple[str, ...] = ()
    by_type: bool = False


_UNCHANGED: Final = Change("unchanged")
_SAME_TYPES: Final = Change("unchanged", by_type=True)


class Example(Struct, frozen=True, omit_defaults=True):
    """Where to look: a record of the log. `file`: its input, where one was written out."""

    seq: int
    op: str
    was: str
    now: str
    file: str = ""


class Row(Struct, frozen=True):
    """So many decisions change alike."""

    kind: Kind
    tool: str
    rule: str
    count: int
    agents: dict[str, int]
    examples: tuple[Example, ...]


class _Limit(Struct, frozen=True):
    max_calls: int
    window_s: int | None = None


def told_by_record(record: Mapping[str, Any]) -> Told | None:
    """Return the decision that a record tells of; None where its words are none of ours."""
    told = record["decision"]
    outcome, reasons = told.get("outcome"), told.get("reasons")
    obligations, spec = told.get("obligations", []), record.get("spec")
    lists = isinstance(reasons, list) and isinstance(obligations, list)
    if outcome not in {"permit", "deny", "hold"} or not lists:
        return None
    if not all(isinstance(each, str) for each in (*reasons, *obligations)):
        return None
    duties = told.get("obligations_digest")
    return Told(
        outcome,
        tuple(reasons),
        tuple(obligations),
        spec if isinstance(spec, str) else None,
        duties if isinstance(duties, str) else None,
        _read_limits(told.get("limits")),
    )


def _read_limits(told: object) -> tuple[tuple[int, int | None], ...]:
    try:
        found = msgspec.convert(told or (), tuple[_Limit, ...])
    except msgspec.ValidationError:
        return ()
    return tuple((each.max_calls, each.window_s) for each in found)


def told_by(decision: Decision) -> Told:
    """Return a decision in the words of records."""
    reasons = tuple(codes(decision.reasons))
    duties = decision.unmet if isinstance(decision, Deny) else decision.obligations
    spec = spec_digest(decision.approval) if isinstance(decision, Hold) else None
    if not duties:
        return Told(outcome_of(decision), reasons, (), spec)
    return Told(
        outcome_of(decision),
        reasons,
        tuple(each.type for each in duties),
        spec,
        duties_digest(duties),
        tuple((each.max_calls, each.window_s) for each in pick(duties, Limit)),
    )


def compare(was: Told, now: Told, phase: Phase, agreed: str | None = None) -> Change:
    """Compare what was decided with what a candidate decides on the same input.

    `agreed`: in phase `resume`, digest of the approval that people gave; a hold that asks for the
    same lets the call go, another does not.
    """
    if was == now and was.outcome == "permit":  # most of them: at a tenth of the price
        return _UNCHANGED
    was, now = settle(was, phase, agreed), settle(now, phase, agreed)
    if was.outcome == "deny" and len(was.reasons) == 1:
        if was.reasons[0] in UNANSWERED:
            return Change("unanswered")
        # The ledger refused what policy permitted. It would again, unless policy has it let go.
        if was.reasons[0] in SPENT and now.outcome != "hold":
            if now.outcome == "permit" and _is_let_go(was, now):
                return _turned(was, now)
            by_type = was.reasons[0] in _OBLIGED and now.duties is not None and was.duties is None
            return Change("gateway", by_type=by_type)
    return _turned(was, now) if was.outcome != now.outcome else _compare_alike(was, now)


def _compare_alike(was: Told, now: Told) -> Change:
    """Compare decisions of one outcome."""
    if was.outcome == "hold" and was.spec is not None and was.spec != now.spec:
        return Change("approval", "hold", "hold", now.reasons)
    if was.obligations != now.obligations:
        return Change("obligations", _words(was.obligations), _words(now.obligations), now.reasons)
    if was.duties is not None and was.duties != now.duties:
        words = _words(was.obligations)
        return Change("obligations", words, f"{words} in other terms", now.reasons)
    if was.reasons != now.reasons:
        added = tuple(each for each in now.reasons if each not in was.reasons)
        return Change("reasons", was.outcome, now.outcome, added or now.reasons)
    return _UNCHANGED if was.duties == now.duties else _SAME_TYPES


def _is_let_go(was: Told, now: Told) -> bool:
    """Whether what an obligation had refused may go now; where that is not certain, it may.

    Of what an earlier version recorded it is known that an obligation is gone, and no more.
    """
    code = was.reasons[0]
    if code == "limit_exhausted":
        if not was.limits:
            return not now.limits
        # One of them was reached, and it is not known which: each must be as tight as it was.
        return not all(any(_is_as_tight(new, old) for new in now.limits) for old in was.limits)
    if code == "idempotency_key_required" and "require_idempotency_key" not in now.obligations:
        return True
    return code in _OBLIGED and was.duties is not None and was.duties != now.duties


def _is_as_tight(new: tuple[int, int | None], old: tuple[int, int | None]) -> bool:
    """Whether a limit is reached whenever the other one is."""
    longer = new[1] is None or (old[1] is not None and new[1] >= old[1])
    return new[0] <= old[0] and longer


def settle(told: Told, phase: Phase, agreed: str | None) -> Told:
    """Return what becomes of a decision: in phase `resume` people have agreed already."""
    if phase != "resume" or told.outcome != "hold":
        return told
    if told.spec != agreed:
        return Told("deny", (STALE, *told.reasons))
    return Told("permit", told.reasons, told.obligations, None, told.duties, told.limits)


def _turned(was: Told, now: Told) -> Change:
    kinds: dict[str, Kind] = {
        "deny": "newly_denied",
        "hold": "newly_held",
        "permit": "newly_permitted",
    }
    # What is now permitted is told by what stood in its way.
    rules = was.reasons if now.outcome == "permit" else now.reasons
    return Change(kinds[now.outcome], was.outcome, now.outcome, rules)


def _words(obligations: tuple[str, ...]) -> str:
    return ", ".join(obligations) or "none"


class Impact:
    """Counts of decisions by what became of them. Memory is bounded, however many there are.

    `errors`: codes for which the candidate gave no answer. `missing`: why inputs could not be had.
    `by_type`: of how many no more than the types of obligations could be compared.
    """

    def __init__(self) -> None:
        self.kinds: Final[Counter[Kind]] = Counter()
        self.phases: Final[Counter[str]] = Counter()
        self.errors: Final[Counter[str]] = Counter()
        self.missing: Final[Counter[str]] = Counter()
        self.by_type = 0
        self._groups: Final[dict[Kind, dict[tuple[str, str], _Group]]] = {}
        self._named: Final[Counter[Kind]] = Counter()

    @property
    def total(self) -> int:
        """How many decisions were compared."""
        return self.kinds.total()

    @property
    def changed(self) -> int:
        """How many of them changed."""
        return sum(self.kinds[kind] for kind in CHANGES)

    def add_error(self, code: str) -> None:
        """Count one that the candidate did not answer, and why."""
        self.kinds["error"] += 1
        self.errors[code] += 1

    def add(
        self,
        change: Change,
        *,
        tool: str,
        agent: str,
        seq: int | None = None,
        op: str = "",
        file: str = "",
    ) -> Example | None:
        """Count one; return the example that it became, if it did. `file`: see `Example`.

        Without `seq` it is in no record, and no example.
        """
        self.kinds[change.kind] += 1
        self.by_type += change.by_type
        if change.kind not in CHANGES:
            return None
        kept = None
        for rule in dict.fromkeys(change.rules or ("",)):
            group = self._group(change.kind, (tool, rule))
            group.count += 1
            is_full = self._named[change.kind] >= _NAMED_MAX
            self._named[change.kind] += group.add_agent(agent, is_full=is_full)
            if seq is not None and len(group.examples) < _EXAMPLES:
                kept = Example(seq, op, change.was, change.now, file)
                group.examples.append(kept)
        return kept

    def _group(self, kind: Kind, key: tuple[str, str]) -> _Group:
        groups = self._groups.setdefault(kind, {})
        if key not in groups and len(groups) >= _GROUPS_MAX:
            key = (_OTHERS, _OTHERS)
        return groups.setdefault(key, _Group())

    def rows(self) -> list[Row]:
        """Return what changed, by kind, tool and rule; the most frequent first.

        A decision with several rules is counted under each.
        """
        found = [
            Row(
                kind,
                tool,
                rule,
                group.count,
                dict(group.agents.most_common()),
                tuple(group.examples),
            )
            for kind, groups in self._groups.items()
            for (tool, rule), group in groups.items()
        ]
        return sorted(
            found, key=lambda row: (KINDS.index(row.kind), -row.count, row.tool, row.rule)
        )

    def by(self, member: Literal["tool", "agent", "rule"]) -> dict[Kind, dict[str, int]]:
        """Return how many changes each tool, agent or rule has a part in, by kind."""
        found: dict[Kind, Counter[str]] = {}
        for row in self.rows():
            counts = found.setdefault(row.kind, Counter())
            counts.update(row.agents if member == "agent" else {getattr(row, member): row.count})
        return {kind: dict(counts.most_common()) for kind, counts in found.items()}


class _Group:
    """What changes alike."""

    __slots__ = ("agents", "count", "examples")

    def __init__(self) -> None:
        self.count = 0
        self.agents: Counter[str] = Counter()
        self.examples: list[Example] = []

    def add_agent(self, agent: str, *, is_full: bool) -> bool:
        """Count one; return whether it is another name than before."""
        is_new = agent not in self.agents
        if is_new and (is_full or len(self.agents) >= _AGENTS_MAX):
            agent, is_new = _OTHERS, False
        self.agents[agent] += 1
        return is_new
