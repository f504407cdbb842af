"""Builds audit logs from docs/spec/audit-log-v1.md: honest histories first, then one thing broken.

It shares no code with the verifier or the gateway, so that the three have to agree on the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Json = dict[str, Any]
ORIGIN = "log.example.com/audit"
START = 1_700_000_000_000_000  # µs
SECOND = 1_000_000
DIGEST = "ab" * 32


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_of(line: bytes) -> bytes:
    return hashlib.sha256(b"\0" + line).digest()


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + tree_root(leaves[:half]) + tree_root(leaves[half:])).digest()


def inclusion_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1."""
    if len(leaves) <= 1:
        return []
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    if index < half:
        return [*inclusion_path(index, leaves[:half]), tree_root(leaves[half:])]
    return [*inclusion_path(index - half, leaves[half:]), tree_root(leaves[:half])]


class TestKey:
    """An Ed25519 key with a C2SP name; `algorithm` 4 is a witness's."""

    __test__ = False

    def __init__(self, seed: str, name: str = ORIGIN, algorithm: int = 1) -> None:
        self.name = name
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        self.public = self.private.public_key().public_bytes_raw()
        data = bytes([algorithm]) + self.public
        self.id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
        self.vkey = f"{name}+{self.id.hex()}+{b64(data)}"

    def line(self, text: str) -> str:
        """A signature line under a note's text."""
        return f"— {self.name} {b64(self.id + self.private.sign(text.encode()))}\n"

    def note(self, size: int, root: bytes, origin: str = ORIGIN) -> str:
        text = f"{origin}\n{size}\n{b64(root)}\n"
        return f"{text}\n{self.line(text)}"

    def cosignature(self, text: str, seconds: int = 1_700_000_100) -> str:
        """What stands behind a witness's name (§4.3)."""
        signature = self.private.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
        return b64(self.id + seconds.to_bytes(8, "big") + signature)


def cp_line(note: str) -> bytes:
    return canonical({"cp": note})


def commitment(fill: str = "c") -> Json:
    return {"c": fill * 43, "bytes": 42}


TOOL: Json = {"id": "billing.refund", "server": "billing", "def": DIGEST, "effect": "money"}
READ: Json = {"id": "crm.lookup", "server": "crm", "def": DIGEST, "effect": "read"}
ACTOR: Json = {
    "agent": "invoice-bot",
    "client": "workflow",
    "run": "run-1",
    "root": "jti-1",
    "jti": "jti-1",
    "depth": 0,
}
Edit = Callable[[Json], object]


class Log:
    """A log being written: `records` and checkpoint lines in the order of the file.

    Each method that adds a record takes fields that override the honest ones (None removes one).
    `batch()` ends a batch; `segment()` lets a new segment begin.
    """

    def __init__(self, origin: str = ORIGIN, key: TestKey | None = None) -> None:
        self.origin = origin
        self.key = self.first_key = key or TestKey("epoch 0", origin)
        self.vkeys = [self.key.vkey]
        self.ts = START
        self.boot_id = ""
        self.boots = 0
        self.epoch = 0
        self.lines: list[list[bytes]] = [[]]  # by segment
        self.firsts = [0]
        self.leaves: list[bytes] = []
        self.prev = "0" * 64
        self.pending: str | None = None
        self.open: dict[str, int] = {}
        self.requests: dict[str, Json] = {}
        self.last_note = ""
        self.in_batch = 0

    # Lines

    def add(self, kind: str, /, **fields: Any) -> Self:  # noqa: ANN401 (a field of any form)
        """One record; `after` is by how many seconds it comes later, `...` leaves a field out."""
        after = fields.pop("after", 0.001)
        self.ts += int(after * SECOND)
        record: Json = {
            "v": 1,
            "log": self.origin,
            "seq": len(self.leaves),
            "prev": self.prev,
            "ts": self.ts,
            "boot": self.boot_id,
            "type": kind,
            "op": "op-x",
        }
        if self.pending:
            record["cp"] = self.pending
        record |= fields
        return self.put({name: item for name, item in record.items() if item is not ...})

    def put(self, record: Json) -> Self:
        return self.put_line(canonical(record))

    def put_line(self, line: bytes) -> Self:
        self.lines[-1].append(line)
        self.leaves.append(leaf_of(line))
        self.prev, self.pending = self.leaves[-1].hex(), None
        self.in_batch += 1
        return self

    def batch(self, key: TestKey | None = None) -> Self:
        """End the batch with a checkpoint line."""
        note = (key or self.key).note(len(self.leaves), tree_root(self.leaves), self.origin)
        return self.checkpoint(note)

    def checkpoint(self, note: str) -> Self:
        self.last_note = note
        line = cp_line(note)
        self.lines[-1].append(line)
        self.pending = hashlib.sha256(line).hexdigest()
        self.in_batch = 0
        return self

    def segment(self) -> Self:
        """Let a new segment begin."""
        self.lines.append([])
        self.firsts.append(len(self.leaves))
        return self

    # Honest records

    def start(self, **fields: object) -> Self:
        """Genesis, boot, a policy, a token; one batch."""
        self.boot_id = "boot-0"
        self.add(
            "genesis",
            op=self.boot_id,
            **{"profile": "countersign.audit/v1", "key": self.key.vkey, "deployment": {}} | fields,
        )
        return self.boot("boot-0").policy().token().batch()

    def boot(self, name: str = "", **fields: object) -> Self:
        self.boots += 1
        self.boot_id = name or f"boot-{self.boots}"
        honest = {"key": self.key.vkey, "cut": None, "open_intents": len(self.open)}
        return self.add("boot", op=self.boot_id, **honest | fields)

    def shutdown(self, **fields: object) -> Self:
        return self.add("shutdown", op=self.boot_id, **fields)

    def policy(self, rev: str = DIGEST, **fields: object) -> Self:
        return self.add("policy.activate", **{"rev": rev, "packages": 3} | fields)

    def token(self, jti: str = "jti-1", run: str = "run-1", **fields: object) -> Self:
        honest = {
            "agent": "invoice-bot",
            "client": "workflow",
            "run": run,
            "root": jti,
            "jti": jti,
            "scopes": ["tools:call"],
            "grants": DIGEST,
            "allow": [{"server": "billing", "tool": "refund"}, {"server": "crm", "tool": "*"}],
            "exp": self.ts // SECOND + 300,
            "decision": {"outcome": "permit", "reasons": []},
            "policy": {"rev": DIGEST, "input": commitment()},
        }
        return self.add("token.issue", **honest | fields)

    def intent(self, op: str, **fields: object) -> Self:
        self.open[op] = len(self.leaves)
        honest = {
            "actor": ACTOR,
            "tool": TOOL,
            "policy": {"rev": DIGEST, "input": commitment("d")},
            "decision": {"outcome": "permit", "reasons": ["billing:small"]},
            "args": commitment(),
            "charge": {"family": "jti-1", "tool": "billing.refund", "sums": {"/amount": 250}},
            "surface": "mcp",
        }
        if asked := self.requests.get(str(fields.get("approval"))):
            honest["args_tag"] = asked["args_tag"]
        return self.add("call.intent", op=op, **honest | fields)

    def outcome(self, op: str, **fields: object) -> Self:
        intent = self.open.pop(op, 0)
        honest = {"intent": intent, "status": "ok", "delivery": "sent", "latency_us": 1200}
        return self.add("call.outcome", op=op, **honest | fields)

    def orphan(self, op: str, **fields: object) -> Self:
        intent = self.open.pop(op, 0)
        return self.add("call.orphan", op=op, **{"intent": intent, "effect": "unknown"} | fields)

    def call(self, op: str, **fields: object) -> Self:
        """A whole call in two batches."""
        return self.intent(op, **fields).batch().outcome(op).batch()

    def refused(self, op: str, **fields: object) -> Self:
        return self.add("call.refused", op=op, **{"stage": "decide", "reason": "denied"} | fields)

    def request(self, name: str, op: str, **fields: object) -> Self:
        honest: Json = {
            "approval": name,
            "binding": f"binding of {name}",
            "agent": "invoice-bot",
            "run": "run-1",
            "tool": TOOL,
            "state": "PENDING",
            "actor": ACTOR,
            "decision": {"outcome": "hold", "reasons": []},
            "policy": {"rev": DIGEST, "input": commitment()},
            "spec": DIGEST,
            "quorum": 1,
            "sod": ["tag-launcher"],
            "expires": self.ts // SECOND + 900,
            "args": commitment(),
            "args_tag": f"args of {name}",
        }
        self.requests[name] = honest | fields
        return self.add("approval.request", op=op, **self.requests[name])

    def vote(self, name: str, voter: str = "tag-anna", **fields: object) -> Self:
        honest = {
            "decision": "approve",
            "stage": 1,
            "at": self.ts // SECOND,
            "voter_tag": voter,
            "voter": commitment("v"),
        }
        return self.add("approval.vote", **self._about(name) | honest | fields)

    def state(self, name: str, state: str, **fields: object) -> Self:
        honest = self._about(name) | {"state": state.upper()}
        if state in {"grant", "deny"}:
            honest["at"] = self.ts // SECOND
        return self.add(f"approval.{state}", **honest | fields)

    def _about(self, name: str) -> Json:
        asked = self.requests.get(name, {"binding": "b", "agent": "a", "run": "r", "tool": TOOL})
        return {"approval": name} | {
            part: asked[part] for part in ("binding", "agent", "run", "tool")
        }

    def granted(self, name: str, op: str, **fields: object) -> Self:
        """A held call up to its grant."""
        return self.request(name, op, **fields).vote(name).state(name, "grant").batch()

    def revoke(self, **fields: object) -> Self:
        return self.add("token.revoke", **{"reason": "command"} | fields)

    def kill(self, kind: str, target: str, name: str = "kill-1") -> Self:
        return self.add("kill.set", kill=name, kind=kind, target=target)

    def lift(self, name: str = "kill-1") -> Self:
        return self.add("kill.lift", kill=name, why="command")

    def run_end(self, run: str = "run-1") -> Self:
        return self.add("run.end", agent="invoice-bot", client="workflow", run=run, root="jti-1")

    def hold(self, what: str, name: str = "hold-1", **fields: object) -> Self:
        honest = {"hold": name, "subject": "s" * 32, "by": [commitment(), commitment()]}
        return self.add(f"hold.{what}", **honest | {"persons": ["tag-a", "tag-b"]} | fields)

    def redact(self, subject: str = "s" * 32) -> Self:
        return self.add("redact", subject=subject, basis="request", openings=4, by=commitment())

    def rotate(self, seed: str = "", **fields: object) -> Self:
        """End the epoch: the record, its batch under the old key, the next key from then on."""
        self.epoch += 1
        key = TestKey(seed or f"epoch {self.epoch}", self.origin)
        self.add("key.rotate", **{"epoch": self.epoch, "key": key.vkey, "why": "schedule"} | fields)
        self.batch()
        self.key = key
        self.vkeys.append(key.vkey)
        return self

    def witnessed(self, *witnesses: TestKey, **fields: object) -> Self:
        root = tree_root(self.leaves)
        text = f"{self.origin}\n{len(self.leaves)}\n{b64(root)}\n"
        lines = [f"{key.name} {key.cosignature(text)}" for key in witnesses]
        honest = {"size": len(self.leaves), "root": root.hex(), "cosignatures": lines}
        return self.add("checkpoint.witnessed", **honest | fields)

    # Files

    @property
    def text(self) -> list[bytes]:
        """Each segment's bytes."""
        return [b"".join(line + b"\n" for line in lines) for lines in self.lines]

    def write(self, folder: Path, *, copy: bool = True, tiles: bool = False) -> Path:
        """Write the directory."""
        folder.mkdir(parents=True, exist_ok=True)
        for first, text in zip(self.firsts, self.text, strict=True):
            (folder / f"{first:020d}.jsonl").write_bytes(text)
        (folder / "log.vkey").write_text("".join(f"{vkey}\n" for vkey in self.vkeys))
        if copy and self.last_note:
            (folder / "checkpoint").write_text(self.last_note, encoding="utf-8")
        if tiles:
            write_tiles(folder, self.leaves)
        return folder


def write_tiles(folder: Path, leaves: list[bytes]) -> None:
    """All levels of tiles over these leaves (§5)."""
    hashes, level = leaves, 0
    while hashes:
        for at in range(0, len(hashes), 256):
            part = hashes[at : at + 256]
            index, name = at // 256, ""
            name = f"{index % 1000:03d}"
            if index >= 1000:
                name = f"x{index // 1000:03d}/{name}"
            path = folder / "tile" / str(level) / name
            if len(part) < 256:
                path = path.with_suffix(".p") / str(len(part))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(part))
        full = len(hashes) // 256
        hashes = [tree_root(hashes[256 * i : 256 * i + 256]) for i in range(full)]
        level += 1


def proof_text(log: Log, index: int) -> str:
    """A `.tlog-proof` of one record under the last checkpoint."""
    path = "".join(f"{b64(node)}\n" for node in inclusion_path(index, log.leaves))
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{path}\n{log.last_note}"
