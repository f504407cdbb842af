"""The keys that sign access tokens while the gateway runs: one ring, followed by all who use it.

Every change goes the same way: it is on record, then in the ring's file, then in force. A crash in
between leaves the ring as it was, and the change is made, and recorded, once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec.structs import replace

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.key_ring_file import KeyRingStore
from gateway.adapters.keys.key_sources import Found, KeySource, destroy_own
from gateway.adapters.keys.key_uris import shown
from gateway.adapters.keys.token_keys import read_public_key
from gateway.core.approvals.declined import Declined
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.ports import Clock, Ids, Signer
from gateway.core.tokens import key_ring
from gateway.core.tokens.key_ring import PUBLISHED, KeyRing, RingKey, Timing, Why, build_key_change

DRAIN_S: Final = 30
"""How long a retired key may still finish the signatures that it began."""

_log: Final = structlog.get_logger("gateway.keys")

Record = Callable[[Entry], Awaitable[Receipt]]


class TokenKeys:
    """The ring of a running gateway, with the issuer and the verifier that follow it.

    INVARIANT: what signs is believed: the verifier knows a key before the issuer uses it. Both
    change in one step of the loop.
    """

    def __init__(
        self,
        *,
        store: KeyRingStore,
        source: KeySource,
        record: Record,
        clock: Clock,
        ids: Ids,
        timing: Timing,
        environment: str,
        folder: Path,
        files: Files | None = None,
    ) -> None:
        """`folder`: where the files of keys are that the gateway made."""
        self._store = store
        self._source = source
        self._record = record
        self._clock = clock
        self._ids = ids
        self._timing = timing
        self._folder = folder
        self._files = files or Files()
        self._ring = KeyRing(environment=environment)
        self._signers: dict[str, Signer] = {}
        self._turn = asyncio.Lock()
        self._issuer: JoseIssuer | None = None
        self._verifiers: list[JoseVerifier] = []
        self._told_old = False

    async def open(self) -> None:
        """Find the keys. Raises `ConfigurationError` where none can sign, or one is not ours."""
        ring = self._store.load()
        if ring is not None:
            self._ring = ring
        await self._take_in(await self._source.find(self._ring), "start")
        active = self._ring.active
        if active is None or active.kid not in self._signers:
            await self._take_over(active)
        self._follow()
        await self.turn()

    @property
    def issuer(self) -> JoseIssuer:
        """What signs with the active key."""
        assert self._issuer is not None  # noqa: S101 - `open` comes first
        return self._issuer

    @property
    def ring(self) -> KeyRing:
        """The keys as they are now."""
        return self._ring

    def build_verifier(self, *, issuer: str, audience: str) -> JoseVerifier:
        """Return a verifier that believes the keys of the ring, now and later."""
        environment = self._ring.environment
        verifier = JoseVerifier((), issuer=issuer, audience=audience, environment=environment)
        self._verifiers.append(verifier)
        self._follow()
        return verifier

    async def turn(self) -> None:
        """Do what time has come for. Called every few seconds.

        Raises `CountersignError` where a record or the ring could not be written; what was not
        done is due again at the next turn.
        """
        async with self._turn:
            try:
                found = await self._source.find_again()
            except ConfigurationError as error:  # a bad file in a folder stops no rotation
                _log.warning("token_key_unusable", problem=str(error))
                found = None
            if found is not None:
                await self._take_in(found, "schedule")
            await self._do_what_is_due()

    async def rotate(self, by: str) -> Declined | None:
        """Have the next key take over as soon as every cache knows it. `by` asked for that.

        Raises `CountersignError` as `turn` does.
        """
        async with self._turn:
            coming = self._ring.find("next")
            if coming:
                ring = replace(self._ring, wanted=True)
                await self._commit(ring, coming[0], why="command", by=by)
            elif not await self._make("command", by):
                return Declined(
                    "token_key_missing",
                    "there is no next key; add one to `tokens.keys` and start again, or put one "
                    "into its folder",
                )
            await self._do_what_is_due()
        return None

    def view(self) -> dict[str, Any]:
        """Return the ring as people see it; no private half, no PIN is in it."""
        timing = self._timing
        return {
            "environment": self._ring.environment,
            "max_age_h": timing.max_age_s // 3600,
            "rotating": self._ring.wanted,
            "keys": [_view(key, self._ring.wanted, timing) for key in self._ring.keys],
        }

    async def close(self) -> None:
        """Let go of all keys."""
        signers, self._signers = self._signers, {}
        for signer in signers.values():
            await signer.close()

    async def _take_in(self, found: list[Found], why: Why) -> None:
        """Bring the ring to the keys that were found."""
        for source, signer in found:
            known = self._ring.get(signer.kid)
            if known is None:
                await self._add(self._ring, source, signer, own=self._source.own, why=why)
            elif known.state in {"next", "active"}:
                self._signers.setdefault(signer.kid, signer)
            elif known.state == "gone":
                _log.warning("token_key_spent", kid=signer.kid, source=shown(source))
            if self._signers.get(signer.kid) is not signer:
                await signer.close()
        there = {signer.kid for _, signer in found}
        for key in self._ring.find("next"):
            if key.kid not in there:
                await self._end(key_ring.withdraw(self._ring, key.kid, self._now_s()), key, why)

    async def _add(
        self,
        before: KeyRing,
        source: str,
        signer: Signer,
        *,
        own: bool,
        why: Why,
        by: str | None = None,
    ) -> None:
        ring = key_ring.add(
            before,
            kid=signer.kid,
            source=source,
            public=signer.public,
            now_s=self._now_s(),
            own=own,
        )
        await self._commit(ring, ring.keys[-1], why=why, by=by)
        self._signers[signer.kid] = signer

    async def _take_over(self, missing: RingKey | None) -> None:
        """Have a key sign at once: the first one ever, or because the active one is not there.

        Whoever cached the key set may not know it yet; the alternative is that nothing signs.
        """
        coming = [key for key in self._ring.find("next") if key.kid in self._signers]
        if not coming:
            raise ConfigurationError("tokens.keys: no key can sign; name one that never signed yet")
        if missing is not None:
            _log.warning("token_key_lost", kid=missing.kid, follows=coming[0].kid)
        await self._promote(coming[0].kid, "start")

    async def _do_what_is_due(self) -> None:
        now_s = self._now_s()
        ring = key_ring.set_back(self._ring, now_s)
        if ring is not self._ring:
            await asyncio.to_thread(self._store.save, ring)
            self._ring = ring
        for key in self._ring.find("retired"):
            if key.kid in self._signers and now_s >= key.retired_at + DRAIN_S:
                await self._signers.pop(key.kid).close()
        due = key_ring.find_due(self._ring, now_s, self._timing)
        for kid in due.drop:
            await self._drop(kid)
        if due.make:
            made = await self._make("schedule")
            if not made and not self._told_old:
                _log.warning("token_key_old", hint="add the next key to `tokens.keys`")
            self._told_old = not made
        if due.promote is not None:
            await self._promote(due.promote, "command" if self._ring.wanted else "schedule")

    async def _make(self, why: Why, by: str | None = None) -> bool:
        made = await self._source.make()
        if made is None:
            return False
        before = replace(self._ring, wanted=self._ring.wanted or by is not None)
        try:
            await self._add(before, made.source, made.signer, own=True, why=why, by=by)
        except CountersignError:  # no ring names it: the next turn makes another one
            await made.signer.close()
            await asyncio.to_thread(self._source.discard, made)
            raise
        return True

    async def _promote(self, kid: str, why: Why) -> None:
        former = self._ring.active
        ring = key_ring.promote(self._ring, kid, self._now_s())
        changed = [kid] if former is None else [former.kid, kid]
        await self._commit(ring, *(key for key in ring.keys if key.kid in changed), why=why)
        _log.info("token_key_active", kid=kid)

    async def _drop(self, kid: str) -> None:
        key = self._ring.get(kid)
        assert key is not None  # noqa: S101 - it is due
        await self._end(key_ring.drop(self._ring, kid, self._now_s()), key, "schedule")

    async def _end(self, ring: KeyRing, key: RingKey, why: Why) -> None:
        gone = ring.get(key.kid)
        assert gone is not None  # noqa: S101 - gone keys stay known
        await self._commit(ring, gone, why=why)
        if key.kid in self._signers:
            await self._signers.pop(key.kid).close()
        await asyncio.to_thread(destroy_own, key, self._folder, self._files)

    async def _commit(
        self, ring: KeyRing, *changed: RingKey, why: Why, by: str | None = None
    ) -> None:
        for key in changed:
            entry = build_key_change(self._ids.new(), key, ring.environment, why, by=by)
            await self._record(entry)
        await asyncio.to_thread(self._store.save, ring)
        self._ring = ring
        self._follow()

    def _follow(self) -> None:
        """Put the ring in force."""
        published = [key.public for key in self._ring.find(*PUBLISHED)]
        believed = [read_public_key(public) for public in published]
        for verifier in self._verifiers:
            verifier.use(believed)
        active = self._ring.active
        signer = None if active is None else self._signers.get(active.kid)
        if signer is None:
            return
        if self._issuer is None:
            self._issuer = JoseIssuer(signer)
        self._issuer.use(signer, published)

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000


def _view(key: RingKey, wanted: bool, timing: Timing) -> dict[str, Any]:  # noqa: FBT001 - a fact
    due = {
        "next": key.published_at + timing.publish_s if wanted else 0,
        "retired": key.retired_at + timing.keep_s,
    }
    return {
        "kid": key.kid,
        "state": key.state,
        "source": shown(key.source),
        "published_at": key.published_at,
        "activated_at": key.activated_at,
        "retired_at": key.retired_at,
        "gone_at": key.gone_at,
        "due_at": due.get(key.state, 0),
    }
