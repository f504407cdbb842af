"""Ports: what the enforcement point needs of the world. Each docstring is a promise.

Adapters in `gateway/adapters` and `connectors` keep them, each with an in-memory twin that passes
the same contract tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from gateway.core.approvals.approval import ApprovalRequest, State, Vote
from gateway.core.calls.call import (
    Intent,
    Outcome,
    RecordedIntent,
    RecordedOutcome,
    Relay,
    UpstreamResult,
)
from gateway.core.catalog import Tool
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from gateway.core.entry import Entry, Receipt
from gateway.core.oauth.client_assertion import AssertionClaims
from gateway.core.oauth.dpop import Proof
from gateway.core.oauth.federation import TrustedIssuer
from gateway.core.policy.decision import Decision, Phase
from gateway.core.tokens.token import Claims, Run


class Clock(Protocol):
    """The time. Read once per call and passed down."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back; only differences mean anything."""
        ...


class Ids(Protocol):
    """New identifiers."""

    def new(self) -> str:
        """Return a unique id of 32 lower-case hex digits, sorting by the time it was made."""
        ...

    def secret(self) -> str:
        """Return 256 fresh random bits as 43 URL-safe characters."""
        ...


class PolicyEngine(Protocol):
    """Judges policy inputs. Never blocks the loop."""

    @property
    def revision(self) -> str:
        """`sha256:…` of the active bundle."""
        ...

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """Whether any package that concerns (tool, phase) may read counts, sums or budgets.

        Where True, decisions of one token family must be taken one after the other.
        """
        ...

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """Whether any of them may read what other runs of the same agent and launcher spent.

        Where True, decisions of all these runs must be taken one after the other.
        """
        ...

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """Whether any package names this (tool, phase) at all. `result` is skipped where False."""
        ...

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        """Evaluate one policy input (JSON, input v1) and return its strictly read answer.

        Undefined, malformed and unknown answers are `Deny` values with a reason code saying which.
        Raises `PolicyError` when no answer came: deadline passed, engine dead, no bundle.
        """
        ...

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:
        """Evaluate (tool id, input) pairs in one round; same order, same promises."""
        ...


class AuditLog(Protocol):
    """The tamper-evident log (DESIGN §6). Every method returns only once its record is durable.

    Raises `AuditError`: `audit_overloaded` (retryable; a record that becomes durable after the
    wait is closed `not_sent` by the log itself) or `audit_unavailable` (poisoned; nothing more is
    written until restart).
    """

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        """Write `intent.entry`; the one maker of `RecordedIntent`."""
        ...

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        """Write `outcome.entry`. Waits as long as it takes: an outcome is never given up."""
        ...

    async def record(self, entry: Entry) -> Receipt:
        """Write any other record."""
        ...

    async def prove(self, record: Receipt) -> str:
        """Return the C2SP tlog-proof of a durable record, under the newest checkpoint.

        Raises `AuditError` `audit_unproven` where what is kept of the tree does not add up.
        """
        ...

    def knows(self, event_id: str) -> bool:
        """Whether the log holds an entry of this event id."""
        ...

    @property
    def healthy(self) -> bool:
        """False once poisoned."""
        ...

    @property
    def size(self) -> int:
        """Number of durable records: the next sequence number."""
        ...


class ToolTransport(Protocol):
    """Reaches one upstream server."""

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Send the call, once. `arguments.raw` goes out byte for byte.

        Whatever is waited for first (credentials, a session, a process), `intent.find_stop` is
        asked after it, right before the bytes leave. Raises `UpstreamError` with the honest
        `delivery`. Never retries a call that may have been delivered. Not cancelled when the agent
        disconnects (the caller shields it).
        """
        ...


class Barred(Protocol):
    """Says whether authority has been taken back before its time. Never blocks, never awaits."""

    def __call__(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """Return the refusal code that bars these claims, or these claims at `tool`; else None."""
        ...


class CredentialBroker(Protocol):
    """Has the credentials that upstreams ask for. May be a process of its own."""

    def held(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential | None:
        """Return what is in memory and may still be sent. A dictionary's time; never waits."""
        ...

    async def obtain(
        self, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        """Return the credential, asking for it where none is held. Never raises.

        INVARIANT: a failure is a failure; nobody else's credential is returned in its place.
        """
        ...

    def reject(self, ask: CredentialAsk, credential: UpstreamCredential, now_ns: int) -> bool:
        """Forget a credential that its upstream refused; return whether to try another one now.

        False where one was rejected a moment ago: an upstream that refuses everything must not
        make the gateway ask for credentials at the rate of the calls.
        """
        ...

    async def close(self) -> None:
        """Forget everything."""
        ...


class TokenVerifier(Protocol):
    """Believes or refuses access tokens."""

    def verify(self, token: bytes, now_s: int) -> Claims:
        """Return the claims of a genuine, live token for this gateway.

        Raises `CredentialError` (`token_missing`, `token_invalid`, `token_expired`,
        `token_audience`). May cache by SHA-256 of the token until `exp`.
        """
        ...


class Signer(Protocol):
    """One private key that signs access tokens. It may live in another process, or in an HSM."""

    @property
    def kid(self) -> str:
        """The key's RFC 7638 thumbprint."""
        ...

    @property
    def alg(self) -> Literal["ES256"]:
        """The one algorithm: ECDSA on P-256 with SHA-256 (RFC 7518 §3.4)."""
        ...

    @property
    def public(self) -> Mapping[str, str]:
        """The public key as a JWK (RFC 7517), with `kid`, `use` and `alg`."""
        ...

    async def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`: r and s, 64 bytes. Never blocks the loop.

        Raises `CountersignError` `signer_unavailable` (retryable) when the key cannot be reached
        in time; then nothing was signed that anybody got.
        """
        ...

    async def close(self) -> None:
        """Let go of the key. It signs nothing any more. Closing twice is harmless."""
        ...


class ProofReader(Protocol):
    """Reads proofs of possession (RFC 9449)."""

    def read(self, proof: bytes) -> Proof:
        """Return a proof whose signature is by the key that it shows; its claims are not judged.

        Raises `CredentialError` `proof_invalid`, whose message is safe to tell.
        """
        ...


Remembered = Literal["new", "seen", "full"]


class UsedProofs(Protocol):
    """Remembers proofs for as long as they could be used again."""

    def remember(self, name: bytes, until_s: int, now_s: int) -> Remembered:
        """Take note of `name` until after `until_s`.

        `seen`: it was noted before. `full`: it was not noted; what is noted is never dropped
        before its time to make room.
        """
        ...


class AssertionReader(Protocol):
    """Reads the assertions by which clients prove themselves (RFC 7523)."""

    def peek(self, assertion: bytes) -> str:
        """Return whose an assertion says to be. Raises `CredentialError` for what is no JWT."""
        ...

    def read(self, assertion: bytes, jwks: Sequence[dict[str, Any]]) -> AssertionClaims:
        """Return the claims of an assertion that one of these keys signed; they are not judged.

        Raises `CredentialError`.
        """
        ...


class SignedByIssuer(Protocol):
    """What a trusted issuer has signed. Times and audiences are not looked at yet."""

    @property
    def issuer(self) -> TrustedIssuer:
        """Who signed it."""
        ...

    @property
    def typ(self) -> str:
        """The type in its header, or empty."""
        ...

    @property
    def claims(self) -> Mapping[str, Any]:
        """What it says."""
        ...


class IssuerTokenReader(Protocol):
    """Reads tokens of trusted issuers."""

    async def read(self, token: str) -> SignedByIssuer:
        """Return what a trusted issuer has signed under a pinned algorithm.

        Raises `CredentialError` for anything else, and `CountersignError` `provider_unavailable`
        where the issuer's keys cannot be had.
        """
        ...


class SpentNames(Protocol):
    """Durable names that may be used once: `jti`s of assertions."""

    async def spend(self, name: bytes, until_s: int, now_s: int) -> bool:
        """Return True for the first who spends `name`, until after `until_s`; False from then on.

        Durable when it returns. Raises `CountersignError` `state_unavailable`.
        """
        ...


class TokenIssuer(Protocol):
    """Makes access tokens."""

    async def issue(self, claims: Claims) -> str:
        """Return a signed `at+jwt` (RFC 9068) that says exactly `claims`.

        Raises `CountersignError` `signer_unavailable` (retryable): no token then.
        """
        ...

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517)."""
        ...


class RunStore(Protocol):
    """Durable runs."""

    async def create_run(self, run: Run) -> None:
        """Store a new run durably."""
        ...

    async def get_run(self, run_id: str) -> Run | None:
        """Return a run, ended or not."""
        ...

    async def end_run(self, run_id: str, outcome: str = "") -> None:
        """End a run: no token is issued for it and nothing held in it is dispatched any more.

        `outcome` stays as it was first said.
        """
        ...

    async def find_runs(
        self,
        *,
        now_s: int,
        live: bool = True,
        agent: str = "",
        launcher: str = "",
        limit: int = 100,
    ) -> list[Run]:
        """Return runs, newest first; with `live` only those that have not ended."""
        ...


class OutboxEvent(Struct, frozen=True, kw_only=True):
    """An audit entry committed together with a state change, to be relayed once (by `event_id`)."""

    event_id: str
    entry: Entry


class ApprovalStore(Protocol):
    """Durable held calls. Every change is one transaction with its outbox event.

    INVARIANT: a state changes only by compare-and-set along `approval.TRANSITIONS`; terminal
    states never change. Expiry is part of every compare.
    """

    async def create(self, request: ApprovalRequest, event: OutboxEvent) -> ApprovalRequest:
        """Store a PENDING request; or return the live one that it joins.

        Joins by (agent, run, tool, join_digest) with a request that is not terminal.
        Raises `ApprovalError` `too_many_pending` past the agent's cap.
        """
        ...

    async def get(self, request_id: str) -> ApprovalRequest | None:
        """Return one request as stored."""
        ...

    async def get_by_op(self, op: str) -> ApprovalRequest | None:
        """Return the request that a call of this operation id became."""
        ...

    async def find(
        self, *, states: Sequence[State] = (), after: str = "", limit: int = 100
    ) -> list[ApprovalRequest]:
        """Return requests, oldest first: those after the one whose id is `after`, if given."""
        ...

    async def votes(self, request_id: str) -> list[Vote]:
        """Return the votes on a request in order."""
        ...

    async def vote(
        self, vote: Vote, now_s: int, events: Mapping[str, OutboxEvent]
    ) -> ApprovalRequest:
        """Count a vote and move the state if it decides. `events` by resulting state.

        Raises `ApprovalError`: `approval_not_found`, `approval_conflict` (not PENDING, other
        binding, a second, different vote), `approval_forbidden` (separation, no group).
        """
        ...

    async def move(
        self,
        request_id: str,
        *,
        source: State,
        target: State,
        now_s: int,
        event: OutboxEvent | None,
        claim_token: str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> ApprovalRequest | None:
        """Compare-and-set `source` → `target`; None when the row was not in `source` any more.

        From CLAIMED and DISPATCHED the stored claim token must equal `claim_token`.
        """
        ...

    async def expire_due(self, now_s: int) -> list[ApprovalRequest]:
        """Move everything past its expiry to EXPIRED, each with its event; return what moved."""
        ...

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in order."""
        ...

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        ...


class StoredReply(Struct, frozen=True, kw_only=True):
    """The reply kept under an Idempotency-Key. `state`: running until the call ended."""

    request_digest: str
    op: str
    state: Literal["running", "done"]
    status: int = 0
    body: bytes = b""


class IdempotencyStore(Protocol):
    """Durable Idempotency-Keys of REST callers, each within one agent and run."""

    async def begin(
        self, scope: str, key: str, request_digest: str, op: str, now_s: int
    ) -> StoredReply | None:
        """Claim `key` durably, or return what is stored under it already."""
        ...

    async def forget(self, scope: str, key: str) -> None:
        """Give back a claimed key whose call was refused before anything was executed."""
        ...

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None:
        """Store the reply of a claimed key."""
        ...
