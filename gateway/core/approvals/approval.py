"""Held calls: states and their moves, what approvers sign, when votes suffice (DESIGN §5).

Pure. The stores in `gateway/adapters` make these functions durable; `docs/approvals.md` draws
`TRANSITIONS`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals import seating
from gateway.core.approvals.seating import STRONGEST, Voter, is_member, is_met, may_fill
from gateway.core.canonical import digest, digest_of
from gateway.core.errors import ApprovalError
from gateway.core.policy.decision import ApprovalSpec, Obligation, Reason, Stage

DOMAIN: Final = "countersign.approval/v1"
"""What a binding is a digest of; no other digest of the gateway starts from this object."""

APPROVER: Final = seating.APPROVER
"""The role without which nobody votes, and the group of a stage that names no group."""

State = Literal[
    "PENDING",
    "APPROVED",
    "CLAIMED",
    "DISPATCHED",
    "EXECUTED",
    "FAILED",
    "DENIED",
    "EXPIRED",
    "CANCELLED",
    "STALE",
    "UNKNOWN",
]

Move = Literal[
    "approve",
    "deny",
    "expire",
    "cancel",
    "claim",
    "release",
    "stale",
    "dispatch",
    "take_over",
    "unsent",
    "succeed",
    "fail",
    "lose",
    "found_run",
    "found_not_run",
]

_ENDS: Final[Mapping[Move, State]] = {"expire": "EXPIRED", "cancel": "CANCELLED"}

TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = MappingProxyType(
    {
        "PENDING": {"approve": "APPROVED", "deny": "DENIED", **_ENDS},
        "APPROVED": {"claim": "CLAIMED", "stale": "STALE", **_ENDS},
        "CLAIMED": {"dispatch": "DISPATCHED", "release": "APPROVED", "stale": "STALE", **_ENDS},
        "DISPATCHED": {
            "succeed": "EXECUTED",
            "fail": "FAILED",
            "lose": "UNKNOWN",
            "unsent": "APPROVED",
            "take_over": "DISPATCHED",
        },
        "UNKNOWN": {"found_run": "EXECUTED", "found_not_run": "FAILED"},
        "EXECUTED": {},
        "FAILED": {},
        "DENIED": {},
        "EXPIRED": {},
        "CANCELLED": {},
        "STALE": {},
    }
)
"""Every legal move. A state without moves is terminal: it never changes.

`release`: the claimer's lease was lost. `unsent`: recovery found no intent in the log. `take_over`:
recovery sends again under the same idempotency key. `found_*`: a human resolved what happened.
"""

TERMINAL: Final[frozenset[State]] = frozenset(state for state, to in TRANSITIONS.items() if not to)
LIVE: Final[frozenset[State]] = frozenset(TRANSITIONS) - TERMINAL
EXPIRABLE: Final[frozenset[State]] = frozenset(
    state for state, to in TRANSITIONS.items() if "expire" in to
)
CHANGEABLE: Final = frozenset({"claim_token", "lease_until", "outcome", "result"})
"""What a move may change besides the state. Nothing that the binding covers is among them."""

_HELD: Final[frozenset[State]] = frozenset({"CLAIMED", "DISPATCHED"})
_VOTED: Final[frozenset[tuple[State, State]]] = frozenset(
    {
        ("PENDING", "APPROVED"),
        ("PENDING", "DENIED"),
    }
)


class ApprovalRequest(Struct, frozen=True, kw_only=True):
    """A held call as stored. Times in seconds since the epoch; `arguments` are the exact bytes.

    `binding` is what approvers vote on: SHA-256 over everything in DESIGN §5 (`build_binding`).
    `separation` are the people and agents who may not vote. `actor_chain` is the agent and whoever
    it acts through. `caller` is what a resumed call is checked against: agent, run, token family.
    `effect` is what the tool's manifest said when the call was held.
    """

    id: str
    op: str
    state: State
    version: int
    agent: str
    run_id: str
    root_jti: str
    on_behalf_of: str | None
    launcher: str
    server: str
    tool: str
    tool_id: str
    wire_name: str
    definition_digest: str
    endpoint_digest: str
    arguments: bytes
    arguments_digest: str
    join_digest: str
    obligations: tuple[Obligation, ...]
    reasons: tuple[Reason, ...]
    spec: ApprovalSpec
    spec_digest: str
    policy_revision: str
    binding: str
    nonce: str
    separation: tuple[str, ...]
    created_at: int
    expires_at: int
    claims: dict[str, Any]
    meta: dict[str, Any]
    actor_chain: tuple[str, ...] = ()
    effect: str | None = None
    claim_token: str | None = None
    lease_until: int | None = None
    outcome: str | None = None
    result: bytes | None = None
    updated_at: int = 0


class Vote(Struct, frozen=True, kw_only=True):
    """One human's word on one binding. `groups` are the voter's at the time of the vote.

    `assurance` is how surely it was they (`core.sessions.LEVELS`).
    """

    request_id: str
    voter: str
    decision: Literal["approve", "deny"]
    binding: str
    groups: tuple[str, ...]
    reason: str
    voted_at: int
    assurance: str = "session"


# --- states


def next_state(state: State, move: Move) -> State:
    """Return where `move` leads. Raises `ApprovalError` `approval_illegal_move` off the table."""
    try:
        return TRANSITIONS[state][move]
    except KeyError:
        raise _illegal(f"`{move}` is no move of state `{state}`") from None


def seen_at(request: ApprovalRequest, now_s: int) -> ApprovalRequest:
    """Return the request as it stands at `now_s`: expired where its time is over, swept or not."""
    if request.state in EXPIRABLE and now_s >= request.expires_at:
        return replace(request, state="EXPIRED")
    return request


def moved(
    request: ApprovalRequest,
    *,
    source: State,
    target: State,
    now_s: int,
    claim_token: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ApprovalRequest | None:
    """Return the request after `source` → `target`; None where it is not in `source` any more.

    Time is part of the compare: what is past its expiry can only become EXPIRED, and nothing
    becomes EXPIRED before. Raises `ApprovalError` `approval_illegal_move` for a pair off the table,
    for one that only votes make, and for a change beyond `CHANGEABLE`.
    """
    _check_pair(source, target, changes or {})
    if target == "EXPIRED":
        # No claim outlives the expiry, so the sweep needs no claim token.
        due = request.state == source and now_s >= request.expires_at
        return _changed(request, target, now_s, {}) if due else None
    if seen_at(request, now_s).state != source:
        return None
    if source in _HELD and request.claim_token != claim_token:
        return None
    return _changed(request, target, now_s, {**_claim(target, claim_token), **(changes or {})})


def _claim(target: State, claim_token: str | None) -> dict[str, Any]:
    if target == "CLAIMED" and not claim_token:
        raise _illegal("a claim needs a claim token")
    if target in _HELD:
        return {"claim_token": claim_token}
    return {"claim_token": None, "lease_until": None}


def _check_pair(source: State, target: State, changes: Mapping[str, Any]) -> None:
    if target not in TRANSITIONS[source].values():
        raise _illegal(f"no move leads from `{source}` to `{target}`")
    # INVARIANT: only votes approve, so every effect has a vote set that satisfies its spec.
    if (source, target) in _VOTED:
        raise _illegal(f"only votes lead from `{source}` to `{target}`")
    if not changes.keys() <= CHANGEABLE:
        raise _illegal(f"a move changes only {', '.join(sorted(CHANGEABLE))}")


def _changed(
    request: ApprovalRequest, state: State, now_s: int, changes: Mapping[str, Any]
) -> ApprovalRequest:
    fields = {**changes, "state": state, "version": request.version + 1, "updated_at": now_s}
    return replace(request, **fields)


def _illegal(message: str) -> ApprovalError:
    return ApprovalError(message, code="approval_illegal_move")


# --- what approvers sign


def spec_digest(spec: ApprovalSpec) -> str:
    """Digest of who must agree, how long it may take and who sends."""
    return digest_of(msgspec.to_builtins(spec))


def obligations_digest(obligations: Sequence[Obligation]) -> str:
    """Digest of what the gateway must do to the result, in order."""
    return digest_of([obligation.spec for obligation in obligations])


def display_digest(request: ApprovalRequest) -> str:
    """Digest of what is put before an approver: the tool, the raw arguments and the reasons."""
    shown = {
        "agent": request.agent,
        "arguments": digest(request.arguments),
        "launcher": request.launcher,
        "reasons": [[reason.code, reason.message, reason.policy] for reason in request.reasons],
        "tool": request.wire_name,
    }
    return digest_of(shown)


def build_binding(
    request: ApprovalRequest, *, issuer: str, environment: str, log_origin: str
) -> str:
    """Digest over everything that an approver agrees to (DESIGN §5), `sha256:` and 64 hex digits.

    Computed from the bytes and objects in `request`, never from digests stored beside them, so a
    stored request that was tampered with no longer has its own binding. Ignores `request.binding`
    and everything in which a request changes over its life.
    """
    return digest_of(
        {
            "domain": DOMAIN,
            "issuer": issuer,
            "environment": environment,
            "log_origin": log_origin,
            "request": request.id,
            "actor_chain": list(request.actor_chain or (request.agent,)),
            "on_behalf_of": request.on_behalf_of,
            "run": request.run_id,
            "server": request.server,
            "endpoint_digest": request.endpoint_digest,
            "tool": request.tool_id,
            "definition_digest": request.definition_digest,
            "arguments_digest": digest(request.arguments),
            "obligations_digest": obligations_digest(request.obligations),
            "policy_revision": request.policy_revision,
            "spec_digest": spec_digest(request.spec),
            "display_digest": display_digest(request),
            "nonce": request.nonce,
            "expires_at": request.expires_at,
        }
    )


def binding_words(binding: str) -> str:
    """First 64 bits of a binding as four pronounceable words, to compare by eye or by voice.

    Proquints (Wilkerson, arXiv:0901.4016): 16 bits are consonant-vowel-consonant-vowel-consonant.
    Not a substitute for comparing the digest.
    """
    number = int(binding.removeprefix("sha256:")[:16], 16)
    return "-".join(_proquint(number >> shift & 0xFFFF) for shift in (48, 32, 16, 0))


def _proquint(number: int) -> str:
    consonants, vowels = "bdfghjklmnprstvz", "aiou"
    return (
        consonants[number >> 12]
        + vowels[number >> 10 & 3]
        + consonants[number >> 6 & 15]
        + vowels[number >> 4 & 3]
        + consonants[number & 15]
    )


# --- votes


def person(subject: str) -> str:
    """Return the one name of a subject: `human:Alice`, `alice` and `ALICE` are one person."""
    name = unicodedata.normalize("NFKC", subject).strip().casefold()
    return name.removeprefix("human:")


def is_separated(voter: str, separation: Sequence[str]) -> bool:
    """Whether a voter is on the requester's side under any of their names."""
    return person(voter) in {person(member) for member in separation}


def stage_of(spec: ApprovalSpec, groups: Sequence[str]) -> int | None:
    """Return the number (from 1) of the first stage that `groups` have a say in, or None."""
    for number, stage in enumerate(spec.stages, start=1):
        if any(is_member(alternative, groups) for alternative in stage):
            return number
    return None


def tally(
    spec: ApprovalSpec, votes: Sequence[Vote], separation: Sequence[str], *, binding: str
) -> Literal["PENDING", "APPROVED", "DENIED"]:
    """Say what the votes on exactly `binding` amount to, in whichever order they came.

    Every stage must be met, each by one of its alternatives, and a person counts once in all of
    them: whoever may sign two stages fills one. Any alternative's deny threshold denies, whatever
    else was met. Votes of the separation set do not count. A spec without stages, and a stage
    without alternatives, is never met.
    """
    counted = [
        vote
        for vote in votes
        if vote.binding == binding and not is_separated(vote.voter, separation)
    ]
    denials = {person(vote.voter): vote.groups for vote in counted if vote.decision == "deny"}
    if any(_is_refused(one, denials) for stage in spec.stages for one in stage):
        return "DENIED"
    return "APPROVED" if is_met(spec.stages, _approvals(counted, denials)) else "PENDING"


def quorum(spec: ApprovalSpec) -> int:
    """Return the least number of different people whose votes can approve."""
    least = [min((max(1, one.approve) for one in stage), default=0) for stage in spec.stages]
    return sum(least)


def stages_met(
    spec: ApprovalSpec, votes: Sequence[Vote], separation: Sequence[str], *, binding: str
) -> int:
    """Return how many stages, from the first on, are met; for people to see, never to decide."""
    for count in range(len(spec.stages), 0, -1):
        part = replace(spec, stages=spec.stages[:count])
        if tally(part, votes, separation, binding=binding) == "APPROVED":
            return count
    return 0


def is_satisfiable(
    spec: ApprovalSpec, people: Mapping[str, Sequence[str]], separation: Sequence[str]
) -> bool:
    """Whether `people` (id → groups) could approve at all. If not, deny: nobody can ever answer."""
    voters = {
        person(name): Voter(groups, STRONGEST)
        for name, groups in people.items()
        if APPROVER in groups and not is_separated(name, separation)
    }
    return is_met(spec.stages, voters)


def decide_vote(
    request: ApprovalRequest, votes: Sequence[Vote], vote: Vote, now_s: int
) -> State | None:
    """Judge one more vote: the state it leads to, or None where the same vote was cast before.

    Raises `ApprovalError`: `approval_forbidden` (separation set, no group of the spec),
    `approval_assurance` (a yes that is not sure enough for any stage), `approval_conflict`
    (another binding, another word by the same person, not PENDING any more).
    """
    # 1. The requester's side never votes: an agent's owner cannot wave the agent's call through.
    if is_separated(vote.voter, request.separation):
        raise ApprovalError(
            "the voter is on the requester's side of this call; ask someone else",
            code="approval_forbidden",
        )
    # 2. A vote counts for what the voter saw: a request swapped underneath does not inherit it.
    if vote.binding != request.binding:
        raise _conflict("the vote is for another binding; read the request again")
    # 3. One word per person: a repeated click is idempotent, a change of mind is refused.
    for earlier in votes:
        if person(earlier.voter) == person(vote.voter):
            if earlier.decision == vote.decision:
                return None
            raise _conflict(f"this person already voted `{earlier.decision}`")
    # 4. A late vote changes nothing.
    if (state := seen_at(request, now_s).state) != "PENDING":
        raise _conflict(f"the request is `{state}`; no vote counts any more")
    # 5. Only those whom policy named have a say.
    if stage_of(request.spec, vote.groups) is None:
        raise ApprovalError(
            "no stage of this request names a group of the voter", code="approval_forbidden"
        )
    # 6. A yes less sure than policy asks for. It is not kept: the same person may say it surely.
    if vote.decision == "approve" and not may_fill(request.spec.stages, _voter(vote)):
        raise ApprovalError(
            "this asks for a surer sign-in; run `countersign login --strong`, then vote",
            code="approval_assurance",
        )
    return tally(request.spec, [*votes, vote], request.separation, binding=request.binding)


def resolved(request: ApprovalRequest, state: State, now_s: int) -> ApprovalRequest:
    """Return the request after a vote that leads to `state` (from `decide_vote`)."""
    if state == request.state:
        return request
    return _changed(request, next_state("PENDING", _BY_VOTE[state]), now_s, {})


_BY_VOTE: Final[Mapping[State, Move]] = {"APPROVED": "approve", "DENIED": "deny"}


def _conflict(message: str) -> ApprovalError:
    return ApprovalError(message, code="approval_conflict")


def _voter(vote: Vote) -> Voter:
    return Voter(vote.groups, vote.assurance)


def _approvals(votes: Sequence[Vote], denials: Mapping[str, Sequence[str]]) -> dict[str, Voter]:
    given = {person(vote.voter): _voter(vote) for vote in votes if vote.decision == "approve"}
    return {name: voter for name, voter in given.items() if name not in denials}


def _is_refused(stage: Stage, denials: Mapping[str, Sequence[str]]) -> bool:
    against = sum(is_member(stage, groups) for groups in denials.values())
    return against >= max(1, stage.deny)
