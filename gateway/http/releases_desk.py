"""The desk where releases are proposed, published and taken back (POL-07, docs/releases.md).

Each story: the signature read, judged under the rules (`core.releases.publishing`), the files kept,
the word on record, and only then anything put to use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct

from gateway.core.approvals.declined import Declined
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import ConfigurationError, RequestError
from gateway.core.ports import Clock, Ids
from gateway.core.records.release_records import build_propose, build_published
from gateway.core.releases.history import History, State
from gateway.core.releases.opa_signature import check_bundle, scope_of
from gateway.core.releases.publishing import Enough, Rules, Waits, judge
from gateway.core.releases.release import Release, read_archive
from gateway.core.releases.statement import Signed, read_statement

T = TypeVar("T")


class Releases(Protocol):
    """Where releases are kept (`adapters.policy.release_store`). Does I/O."""

    def has(self, revision: str) -> bool:
        """Whether a release is kept."""
        ...

    def save(self, release: Release) -> None:
        """Keep a release durably."""
        ...

    def load(self, revision: str) -> Release:
        """Return a release as it was signed. Raises `ConfigurationError`."""
        ...

    def save_signature(self, revision: str, number: int, kid: str, token: str) -> None:
        """Keep a signature in OPA's form."""
        ...

    def find_signatures(self, revision: str) -> list[str]:
        """Return the signatures in OPA's form, the newest first."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReleaseDeps:
    """What publishing needs.

    `try_out` raises for a release that could not decide here. `settle` puts to use what was
    published, and returns when that is done or is known to wait. `may_publish` says whether a
    person is an active publisher now. `is_open` is False where files decide (`dev`, or `off`).
    """

    rules: Rules
    history: History
    store: Releases
    record: Callable[[Entry], Awaitable[Receipt]]
    try_out: Callable[[Release], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]
    may_publish: Callable[[str], bool]
    clock: Clock
    ids: Ids
    is_open: bool = True


class Word(Struct, frozen=True):
    """What a publisher sends. `signature`: in OPA's form; `archive`: unless it is kept here."""

    statement: str
    signature: str = ""
    archive: bytes = b""


class Done(Struct, frozen=True):
    """What came of it. `state`: `proposed`, or how the publication stands now."""

    revision: str
    number: int
    state: State | str


class ReleaseDesk:
    """Publishes. See `ReleaseDeps`."""

    def __init__(self, deps: ReleaseDeps) -> None:
        self.deps: Final = deps
        # INVARIANT: words are judged one after the other, each on what the last one left.
        self._turn: Final = asyncio.Lock()

    async def publish(self, by: str, word: Word) -> Done | Declined:
        """Take the word of `by`, an authenticated person with the role."""
        if not self.deps.is_open:
            return Declined("release_closed", "here the files of the folder decide, no releases")
        return await self._unbroken(self._publish(by, word))

    async def read(self, revision: str) -> Release | Declined:
        """Return a release that is kept."""
        try:
            return await asyncio.to_thread(self.deps.store.load, revision)
        except ConfigurationError as error:
            return Declined(error.code, str(error))

    async def _publish(self, by: str, word: Word) -> Done | Declined:
        deps = self.deps
        try:
            signed = read_statement(word.statement, deps.rules.keys)
            said = signed.statement
            now_s = deps.clock.now_ns() // 1_000_000_000
            answer = judge(
                deps.rules, deps.history, signed, by=by, may_publish=deps.may_publish, now_s=now_s
            )
            if isinstance(answer, Declined):
                return answer
            release = await self._find(said.rev, word.archive)
            if isinstance(release, Declined):
                return release
            await self._check_signature(release, signed, word.signature)
            await deps.try_out(release)
        except (RequestError, ConfigurationError) as error:
            return Declined(error.code, str(error))
        await asyncio.to_thread(deps.store.save, release)
        if word.signature:
            kept = (said.rev, said.number, signed.key.kid, word.signature)
            await asyncio.to_thread(deps.store.save_signature, *kept)
        return await self._put_on_record(by, answer)

    async def _find(self, revision: str, archive: bytes) -> Release | Declined:
        if not archive:
            if not self.deps.store.has(revision):
                return Declined("release_missing", "the release is not known here; send its file")
            return await asyncio.to_thread(self.deps.store.load, revision)
        release = (await asyncio.to_thread(read_archive, archive)).release
        if release.revision != revision:
            return Declined("release_invalid", "the file is another release than the signed one")
        return release

    async def _check_signature(self, release: Release, signed: Signed, signature: str) -> None:
        """Hold OPA's signature against the files; the way back to what was signed needs none."""
        if not signature and signed.statement.act == "rollback":
            return
        scope = scope_of(self.deps.rules.environment)

        def check() -> None:
            check_bundle(signature, release.bundle(), signed.key, scope=scope)

        await asyncio.to_thread(check)

    async def _put_on_record(self, by: str, answer: Enough | Waits) -> Done:
        deps, op = self.deps, self.deps.ids.new()
        if isinstance(answer, Waits):
            said, entry = answer.signed.statement, build_propose(op, answer.signed, by)
        else:
            said = answer.statement
            people = [deps.rules.publishers[one.key.kid].id for one in answer.signed]
            entry = build_published(op, answer, people)
        await deps.record(entry)
        note(deps.history, entry, deps.clock)
        if isinstance(answer, Waits):
            return Done(said.rev, said.number, "proposed")
        await deps.settle()
        state = next(
            one.state for one in deps.history.standings() if one.publication.number == said.number
        )
        return Done(said.rev, said.number, state)

    async def _unbroken(self, story: Coroutine[Any, Any, T]) -> T:
        """Tell a story to its end, whoever stops listening, one at a time."""

        async def tell() -> T:
            async with self._turn:
                return await story

        return await asyncio.shield(asyncio.ensure_future(tell()))


def note(history: History, entry: Entry, clock: Clock) -> None:
    """Let the history know of a record that was made now, as a start would from the log."""
    now_us = clock.now_ns() // 1_000
    history.fold({**entry.fields, "type": entry.type, "op": entry.op, "ts": now_us})
