"""What becomes of an authorization after the browser: its refresh tokens, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import AuthorizationStore, Consent, Refresh
from gateway.core.ports import AuditLog, Clock, Ids, RunStore
from gateway.core.records.authorization_records import build_refused
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.token import Run
from gateway.http.issue_desk import IssueDesk

CONSENT_ORIGIN: Final = "consent"
"""The `origin` of runs that people consented to; policies see it."""


@dataclass(frozen=True, kw_only=True)
class Authorizations:
    """What is stored of authorizations, and what ends them."""

    store: AuthorizationStore
    runs: RunStore
    desk: IssueDesk
    audit: AuditLog
    clock: Clock
    ids: Ids

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
        """Return what takes the place of a refresh token; None if somebody was faster."""
        token = self.ids.secret()
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
        return token if await self.store.rotate_refresh(old.token_hash, successor) else None

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
