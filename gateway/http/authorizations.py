"""What becomes of an authorization after the browser: its refresh tokens, and its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import AuthorizationStore, Consent, Refresh
from gateway.core.ports import AuditLog, Clock, Ids, RunStore
from gateway.core.records.authorization_records import build_refused
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.token import Run
from gateway.http.issue_desk import IssueDesk

GRACE_S: Final = 10
"""For so long a refresh token that was just spent is answered with the same next one (ADR 0034)."""


class NextTokens:
    """Which refresh token follows which, for `GRACE_S`; in memory, for only hashes are stored."""

    def __init__(self) -> None:
        # By the hash of the old one: when it was first asked for, and the next one. Oldest first.
        self._next: Final[dict[str, tuple[int, str]]] = {}

    def find(self, old_hash: str, now_s: int) -> str | None:
        """Return what follows a token that was spent a moment ago."""
        at_s, token = self._next.get(old_hash, (now_s, None))
        return token if 0 <= now_s - at_s < GRACE_S else None

    def keep(self, old_hash: str, token: str, now_s: int) -> None:
        """Remember what follows a token, and forget what is over."""
        for old, (at_s, _) in tuple(self._next.items()):
            if 0 <= now_s - at_s < GRACE_S:
                break
            del self._next[old]
        self._next.pop(old_hash, None)
        self._next[old_hash] = (now_s, token)


@dataclass(frozen=True, kw_only=True)
class Authorizations:
    """What is stored of authorizations, and what ends them."""

    store: AuthorizationStore
    runs: RunStore
    desk: IssueDesk
    audit: AuditLog
    clock: Clock
    ids: Ids
    next_tokens: NextTokens = field(default_factory=NextTokens)

    def now_s(self) -> int:
        """Return the time in seconds."""
        return self.clock.now_ns() // 1_000_000_000

    async def start_refreshing(self, run: Run, consent: Consent, jkt: str) -> str:
        """Return the first refresh token of a run. Bound to `jkt`, where its tokens are."""
        token = self.ids.secret()
        await self.store.put_refresh(
            Refresh(
                token_hash=hash_secret(token),
                run_id=run.id,
                client_id=consent.client_id,
                scopes=consent.scopes,
                resource=consent.resource,
                expires_at=run.deadline,
                jkt=jkt,
                issued_us=self.clock.now_ns() // 1_000,
            )
        )
        return token

    async def go_on_refreshing(self, old: Refresh) -> str | None:
        """Return what takes the place of a refresh token, the same to all who ask within `GRACE_S`.

        None where it is spent for good.
        """
        token = self.next_tokens.find(old.token_hash, self.now_s())
        if token is None:
            token = self.ids.secret()
            self.next_tokens.keep(old.token_hash, token, self.now_s())
        successor = Refresh(
            token_hash=hash_secret(token),
            run_id=old.run_id,
            client_id=old.client_id,
            scopes=old.scopes,
            resource=old.resource,
            expires_at=old.expires_at,
            jkt=old.jkt,
            issued_us=self.clock.now_ns() // 1_000,
        )
        if await self.store.rotate_refresh(old.token_hash, successor):
            return token
        return token if await self._is_unspent(token) else None

    async def is_spent(self, refresh: Refresh) -> bool:
        """Return whether a refresh token is good for nothing any more.

        One that was spent less than `GRACE_S` ago, and whose successor nobody has used, is still
        answered with that successor: an app that refreshes twice at once, or lost the answer, goes
        on. A thief gains nothing that lasts: he and the app then hold one token, and the second
        of them to use it ends the run.
        """
        if not refresh.spent:
            return False
        token = self.next_tokens.find(refresh.token_hash, self.now_s())
        return token is None or not await self._is_unspent(token)

    async def _is_unspent(self, token: str) -> bool:
        found = await self.store.get_refresh(hash_secret(token))
        return found is not None and not found.spent

    async def end_refresh(self, app: App, token: str) -> None:
        """End the run of a refresh token, which its app has no more use for (RFC 7009)."""
        found = await self.store.get_refresh(hash_secret(token))
        if found is None or found.client_id != app.id:
            return
        run = await self.runs.get_run(found.run_id)
        if run is not None and not run.ended:
            await self.desk.close(run, "done")

    async def end(self, run_id: str, client_id: str, reason: str) -> None:
        """End what somebody stole a part of, and record why. The run may not have begun yet."""
        await self.audit.record(build_refused(client_id, reason, self.ids.new(), run_id=run_id))
        run = await self.runs.get_run(run_id)
        if run is not None and not run.ended:
            await self.desk.close(run, "failed")
        elif run is None:
            self.desk.bar_run(run_id)
