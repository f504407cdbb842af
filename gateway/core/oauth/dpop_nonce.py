"""Nonces for proofs of possession (RFC 9449 §8, §9): made from a secret and the time, not stored.

They stop proofs that somebody with the key for a moment makes in advance. Since the secret dies
with the process, they also stop a proof from being used again at a restarted gateway, or at
another replica, whose memory of used proofs is empty.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final, Literal

STEP_S: Final = 120
"""Seconds after which a new nonce is handed out. Each is accepted for one step more."""

Freshness = Literal["current", "last", "foreign"]


class Nonces:
    """Nonces of one process. `secret` is fresh at each start, and at least 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._made: dict[int, str] = {}

    def current(self, now_s: int) -> str:
        """Return the nonce to be used now: 22 URL-safe characters."""
        return self._make(now_s // STEP_S)

    def judge(self, nonce: str | None, now_s: int) -> Freshness:
        """Say whether a nonce is ours, and of which step. Constant time in the nonce."""
        given, step = (nonce or "").encode("utf-8", "replace"), now_s // STEP_S
        if hmac.compare_digest(given, self._make(step).encode()):
            return "current"
        return "last" if hmac.compare_digest(given, self._make(step - 1).encode()) else "foreign"

    def _make(self, step: int) -> str:
        made = self._made.get(step)
        if made is None:
            tag = hmac.digest(self._secret, b"countersign.dpop-nonce/v1 %d" % step, hashlib.sha256)
            made = base64.urlsafe_b64encode(tag[:16]).rstrip(b"=").decode()
            kept = {n: one for n, one in self._made.items() if abs(n - step) <= 1}
            self._made = {**kept, step: made}
        return made
