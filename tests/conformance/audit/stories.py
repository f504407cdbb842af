"""What happens in the corpus's logs: starts, tokens, calls and approvals, each one plain call.

Every method takes `over`: fields to change, or to leave out with `...`.
"""

# ruff: noqa: ANN401 - `over` takes the fields of any record, whatever they are

from __future__ import annotations

import base64
from typing import Any, Final

from tests.conformance.audit.writer import Key, LogWriter, Record, commit, tag

TOOL: Final[Record] = {
    "id": "crm.update",
    "server": "crm",
    "def": "sha256:5d41402abc4b2a76",
    "effect": "update",
}
READ_TOOL: Final[Record] = TOOL | {"id": "crm.read", "effect": "read"}
PERMIT: Final[Record] = {"outcome": "permit", "reasons": []}
HOLD: Final[Record] = {"outcome": "hold", "reasons": ["crm:needs_person"]}
DENY: Final[Record] = {"outcome": "deny", "reasons": ["crm:too_much"]}
ALLOW: Final = [{"server": "crm", "tool": "*"}]
TTL_S: Final = 300
HELD_S: Final = 900


def person(approval: str, who: str) -> str:
    """Return the tag of a person within one approval or hold."""
    return tag(f"nonce of {approval}", "cs/person/v1", who)


class Story(LogWriter):
    """A log told in the words of the gateway."""

    def __init__(self, *, origin: str | None = None, keys: list[Key] | None = None) -> None:
        if origin is None:
            super().__init__(keys=keys)
        else:
            super().__init__(origin=origin, keys=keys)
        self.intents: dict[str, int] = {}
        self.actors: dict[str, Record] = {}
        self.requests: dict[str, Record] = {}

    @property
    def now_s(self) -> int:
        """The clock in seconds."""
        return self.now_us // 1_000_000

    def start(self, boot: str = "boot-1", *, seal: bool = True) -> Story:
        """Write `genesis` and the first `boot`."""
        self.boot = boot
        deployment = {"environment": "test"}
        key, profile = self.key.vkey, "countersign.audit/v1"
        self.put("genesis", op=boot, profile=profile, key=key, deployment=deployment)
        self.restart(boot, seal=seal)
        return self

    def restart(self, boot: str, *, seal: bool = True, **over: Any) -> int:
        """Write a `boot`; with `open_intents` in `over` where calls were under way."""
        self.boot = boot
        fields: Record = {"op": boot, "key": self.key.vkey, "cut": None, "open_intents": 0}
        seq = self.put("boot", **(fields | over))
        if seal:
            self.seal()
        return seq

    def ready(self, **over: Any) -> Story:
        """Begin a log in which token `t1` may call."""
        self.start().activate()
        self.token("t1", **over)
        self.seal()
        return self

    def activate(self, rev: str = "rev-1") -> int:
        """Write `policy.activate`."""
        return self.put("policy.activate", rev=rev, packages=["crm"])

    def token(self, jti: str, /, *, run: str = "run-1", agent: str = "bot", **over: Any) -> int:
        """Write `token.issue`; the token's actor is kept for its calls."""
        actor = {"agent": agent, "client": "desk", "run": run, "root": jti, "jti": jti, "depth": 0}
        self.actors[jti] = actor
        fields = {name: value for name, value in actor.items() if name != "depth"} | {
            "scopes": ["tools:call"],
            "grants": "sha256:0cc175b9c0f1b6a8",
            "allow": ALLOW,
            "exp": self.now_s + TTL_S,
            "decision": PERMIT,
            "policy": {"rev": "rev-1", "input": commit("policy.input", f"issue {jti}")},
        }
        return self.put("token.issue", **(fields | over))

    def intent(self, op: str, /, *, jti: str = "t1", **over: Any) -> int:
        """Write `call.intent`."""
        fields: Record = {
            "op": op,
            "actor": self.actors.get(jti, {}),
            "tool": TOOL,
            "policy": {"rev": "rev-1", "input": commit("policy.input", f"call {op}")},
            "decision": PERMIT,
            "args": commit("args", f'{{"id":"{op}"}}'),
            "charge": {"family": jti, "tool": "crm.update", "sums": {}},
            "surface": "mcp",
        }
        record = fields | over
        self.intents[record["op"]] = seq = self.put("call.intent", **record)
        return seq

    def outcome(self, op: str, /, **over: Any) -> int:
        """Write `call.outcome` of the last intent of `op`."""
        fields: Record = {
            "op": op,
            "intent": self.intents.get(op, 0),
            "status": "ok",
            "delivery": "sent",
            "result": commit("result", f"done {op}"),
            "latency_us": 1200,
            "reason": None,
            "obligations": [],
        }
        return self.put("call.outcome", **(fields | over))

    def not_sent(self, op: str) -> int:
        """Write the outcome of an intent whose call never left."""
        reason = "audit_overloaded"
        return self.outcome(op, status="failed", delivery="not_sent", reason=reason, result=...)

    def orphan(self, op: str, /, **over: Any) -> int:
        """Write `call.orphan` of the last intent of `op`."""
        fields: Record = {"op": op, "intent": self.intents[op], "effect": "unknown"}
        return self.put("call.orphan", **(fields | over))

    def refused(self, op: str, /, **over: Any) -> int:
        """Write `call.refused`."""
        fields: Record = {"op": op, "stage": "authenticate", "reason": "token_expired", "count": 1}
        return self.put("call.refused", **(fields | over))

    def call(self, op: str, /, **over: Any) -> int:
        """Write a call that went well, in two batches; return the number of its intent."""
        seq = self.intent(op, **over)
        self.seal()
        self.outcome(op)
        self.seal()
        return seq

    def request(self, approval: str, /, *, op: str, jti: str = "t1", **over: Any) -> int:
        """Write `approval.request`."""
        actor = self.actors[jti]
        fields: Record = {
            "op": op,
            "approval": approval,
            "binding": f"sha256:{approval:0>16}",
            "agent": actor["agent"],
            "run": actor["run"],
            "tool": TOOL,
            "state": "PENDING",
            "actor": actor,
            "decision": HOLD,
            "policy": {"rev": "rev-1", "input": commit("policy.input", f"call {op}")},
            "spec": "sha256:92eb5ffee6ae2fec",
            "quorum": 1,
            "sod": sorted([person(approval, "owner"), person(approval, "launcher")]),
            "expires": self.now_s + HELD_S,
            "args": commit("args", f'{{"id":"{op}"}}'),
            "args_tag": tag(f"nonce of {approval}", "cs/args/v1", op),
        } | over
        self.requests[approval] = fields
        return self.put("approval.request", **fields)

    def vote(self, approval: str, who: str, /, *, stage: int = 1, **over: Any) -> int:
        """Write `approval.vote`."""
        fields: Record = {
            "op": f"vote-{approval}-{who}-{stage}",
            "decision": "approve",
            "stage": stage,
            "at": self.now_s,
            "voter_tag": person(approval, who),
            "voter": commit("voter", who),
        }
        return self.put("approval.vote", **(self._of(approval) | fields | over))

    def state(self, kind: str, approval: str, /, **over: Any) -> int:
        """Write `approval.<kind>`, a state that a held call came to."""
        fields: Record = {"op": self.requests[approval]["op"], "state": kind.upper()}
        if kind in {"grant", "deny"}:
            fields["at"] = self.now_s
        return self.put(f"approval.{kind}", **(self._of(approval) | fields | over))

    def held(self, approval: str, /, *, op: str, **over: Any) -> Story:
        """Write a request, one vote and the grant, sealed."""
        self.request(approval, op=op, **over)
        self.seal()
        self.vote(approval, "alice")
        self.state("grant", approval)
        self.seal()
        return self

    def held_intent(self, approval: str, /, **over: Any) -> int:
        """Write the intent of a held call."""
        request = self.requests[approval]
        fields: Record = {"approval": approval, "args_tag": request["args_tag"]}
        jti = request["actor"]["jti"]
        return self.intent(request["op"], jti=jti, **(fields | over))

    def rotate(self, *, seal: bool = True, **over: Any) -> int:
        """Write `key.rotate` and seal it under the old key; the new epoch begins."""
        following = self.keys[self.epoch + 1]
        fields: Record = {"epoch": self.epoch + 1, "key": following.vkey, "why": "schedule"}
        seq = self.put("key.rotate", **(fields | over))
        if seal:
            self.seal()
        self.epoch += 1
        return seq

    def witnessed(self, number: int, *, key: Key, time: int, **over: Any) -> int:
        """Write `checkpoint.witnessed` for the checkpoint line of this number."""
        text = self.notes[number].split("\n\n")[0] + "\n"
        fields = witness_fields(text, [key.cosign(text, time)])
        return self.put("checkpoint.witnessed", **(fields | over))

    def hold(self, kind: str, name: str, subject: str, who: list[str], **over: Any) -> int:
        """Write `hold.set` or `hold.release`."""
        fields: Record = {
            "hold": name,
            "subject": subject,
            "by": [commit(f"by.{at}", one) for at, one in enumerate(who)],
            "persons": [person(name, one) for one in who],
            "reason": commit("reason", "litigation"),
        }
        return self.put(f"hold.{kind}", **(fields | over))

    def redact(self, subject: str) -> int:
        """Write `redact`."""
        by = commit("by", "dpo")
        return self.put("redact", subject=subject, basis="request", openings=3, by=by)

    def _of(self, approval: str) -> Record:
        names = ("approval", "binding", "agent", "run", "tool")
        return {name: self.requests[approval][name] for name in names}


def witness_fields(text: str, cosignatures: list[str]) -> Record:
    """Return the fields of `checkpoint.witnessed` for a checkpoint's text."""
    _, size, root = text.splitlines()
    return {"size": int(size), "root": b64_hex(root), "cosignatures": cosignatures}


def b64_hex(text: str) -> str:
    """Return base64 as hex."""
    return base64.b64decode(text).hex()
