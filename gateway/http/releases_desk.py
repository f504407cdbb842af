"""The desk where releases are proposed, withdrawn, published and taken back (docs/releases.md).

Each story: the signature read, judged under the rules (`core.releases.publishing`), the files kept,
the word on record, and only then anything put to use (POL-07).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from msgspec import Struct

from gateway.core.approvals.declined import Declined
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import ConfigurationError, RequestError
from gateway.core.ports import Clock, Ids
from gateway.core.records.release_records import build_propose, build_published, build_withdraw
from gateway.core.releases.history import History, State
from gateway.core.releases.opa_signature import check_bundle, scope_of
from gateway.core.releases.publishing import Enough, Rules, Waits, judge, judge_withdrawal
from gateway.core.releases.release import Release, read_archive
from gateway.core.releases.statement import Signed, read_statement


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

    def load_impact(self, digest: str) -> dict[str, Any] | None:
        """Return what a proposal would have changed, in full; None where that is not kept."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReleaseDeps:
    """What publishing needs.

    `try_out` raises for a release that could not decide here. `settle` puts to use what was
    published, and returns when that is done or is known to wait. `may_publish` says whether what a
    person said at a time (seconds) still is the word of a publisher. `is_open` is False where files
    decide (`dev`, or `off`). `measure` tells what a release would change, or why nobody knows
    (`core.records.impact_told`). `row` is held by whoever judges the row and adds to it.
    """

    rules: Rules
    history: History
    store: Releases
    record: Callable[[Entry], Awaitable[Receipt]]
    try_out: Callable[[Release], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]
    may_publish: Callable[[str, int], bool]
    measure: Callable[[Release], Awaitable[Mapping[str, Any] | None]]
    clock: Clock
    ids: Ids
    is_open: bool = True
    row: asyncio.Lock = field(default_factory=asyncio.Lock)


_UNSEEN: Final = Declined(
    "release_unseen",
    "look at what it would change first, and say that you did: `countersign policy publish` "
    "shows it",
)


class Word(Struct, frozen=True):
    """What a publisher sends. `signature`: in OPA's form; `archive`: unless it is kept here.

    `seen`: the digest of the impact that the publisher was shown, where the proposal has one.
    """

    statement: str
    signature: str = ""
    archive: bytes = b""
    seen: str = ""


class Done(Struct, frozen=True):
    """What came of it. `state`: `proposed`, `withdrawn`, or how the publication stands now."""

    revision: str
    number: int
    state: State | str
    impact: Mapping[str, Any] | None = None


class ReleaseDesk:
    """Publishes. See `ReleaseDeps`."""

    def __init__(self, deps: ReleaseDeps) -> None:
        self.deps: Final = deps
        # Trying out and measuring take workers and time: one release after the other. Who waits to
        # be measured keeps nobody from trying out, so that a proposal delays no way back.
        self._turn: Final = asyncio.Lock()
        self._measuring: Final = asyncio.Lock()
        self._under_way: Final[set[str]] = set()

    async def publish(self, by: str, word: Word) -> Done | Declined:
        """Take the word of `by`, an authenticated person with the role."""

        async def publish() -> Done | Declined:
            if by in self._under_way:
                why = "your last word is still looked at; wait for its answer"
                return Declined("release_busy", why)
            self._under_way.add(by)
            try:
                return await self._publish(by, word)
            finally:
                self._under_way.discard(by)

        return await self._unbroken(publish())

    async def withdraw(self, by: str, statement: str) -> Done | Declined:
        """Take a proposal back by the word of `by`, an authenticated person with the role.

        Waits for nothing that is being tried out: that is judged again before it is on record.
        """
        return await self._unbroken(self._withdraw(by, statement))

    async def read(self, revision: str) -> Release | Declined:
        """Return a release that is kept."""
        try:
            return await asyncio.to_thread(self.deps.store.load, revision)
        except ConfigurationError as error:
            return Declined(error.code, str(error))

    async def _publish(self, by: str, word: Word) -> Done | Declined:
        try:
            signed = read_statement(word.statement, self.deps.rules.keys)
            async with self._turn:
                release = await self._try_out(by, signed, word)
        except (RequestError, ConfigurationError) as error:
            return Declined(error.code, str(error))
        if isinstance(release, Declined):
            return release
        impact = None
        if isinstance(self._judge(by, signed), Waits):
            async with self._measuring:
                impact = await self.deps.measure(release)
        return await self._put_on_record(by, signed, impact, word.seen)

    async def _try_out(self, by: str, signed: Signed, word: Word) -> Release | Declined:
        """Return the release of a word once it is known to fit here, and is kept."""
        deps, said = self.deps, signed.statement
        answer = self._judge(by, signed)
        if isinstance(answer, Declined):
            return answer
        if isinstance(answer, Enough) and not self._is_seen(answer, word.seen):
            return _UNSEEN
        release = await self._find(said.rev, word.archive)
        if isinstance(release, Declined):
            return release
        await self._check_signature(release, signed, word.signature)
        await deps.try_out(release)
        await asyncio.to_thread(deps.store.save, release)
        if word.signature:
            kept = (said.rev, said.number, signed.key.kid, word.signature)
            await asyncio.to_thread(deps.store.save_signature, *kept)
        return release

    def _judge(self, by: str, signed: Signed) -> Enough | Waits | Declined:
        deps = self.deps
        return judge(
            deps.rules,
            deps.history,
            signed,
            by=by,
            may_publish=deps.may_publish,
            now_s=deps.history.see(deps.clock.now_ns() // 1_000_000_000),
        )

    def _is_seen(self, answer: Enough, seen: str) -> bool:
        """Whether who comes second knows what the first one was told that it would change."""
        told = self._impact_of(answer)
        digest = "" if told is None else str(told.get("digest", ""))
        return not digest or digest == seen

    def _impact_of(self, answer: Enough) -> Mapping[str, Any] | None:
        tokens = {one.token for one in answer.signed}
        found = self.deps.history.proposals.values()
        return next((one.impact for one in found if one.token in tokens), None)

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

    async def _put_on_record(
        self, by: str, signed: Signed, impact: Mapping[str, Any] | None, seen: str
    ) -> Done | Declined:
        deps, op, said = self.deps, self.deps.ids.new(), signed.statement
        async with deps.row:
            # Judged again: while it was tried out, a halt may have changed what it takes the
            # place of, and another publisher may have said the same and be the first.
            # INVARIANT: nothing comes between this judgement and its record.
            answer = self._judge(by, signed)
            if isinstance(answer, Declined):
                return answer
            if isinstance(answer, Enough) and not self._is_seen(answer, seen):
                return _UNSEEN
            if isinstance(answer, Waits):
                entry = build_propose(op, signed, by, impact)
            else:
                people = [deps.rules.publishers[one.key.kid].id for one in answer.signed]
                impact = self._impact_of(answer)
                entry = build_published(op, answer, people, impact)
            await deps.record(entry)
            note(deps.history, entry, deps.clock)
        if isinstance(answer, Waits):
            return Done(said.rev, said.number, "proposed", impact)
        await deps.settle()
        state = next(
            one.state for one in deps.history.standings() if one.publication.number == said.number
        )
        return Done(said.rev, said.number, state, impact)

    async def _withdraw(self, by: str, statement: str) -> Done | Declined:
        deps = self.deps
        try:
            signed = read_statement(statement, deps.rules.keys)
        except RequestError as error:
            return Declined(error.code, str(error))
        async with deps.row:
            answer = judge_withdrawal(deps.rules, deps.history, signed, by=by)
            if isinstance(answer, Declined):
                return answer
            entry = build_withdraw(deps.ids.new(), answer, by)
            await deps.record(entry)
            note(deps.history, entry, deps.clock)
        said = signed.statement
        return Done(said.rev, said.number, "withdrawn")

    async def _unbroken(self, story: Coroutine[Any, Any, Done | Declined]) -> Done | Declined:
        """Tell a story to its end, whoever stops listening."""
        if not self.deps.is_open:
            story.close()
            return Declined("release_closed", "here the files of the folder decide, no releases")
        return await asyncio.shield(asyncio.ensure_future(story))


def note(history: History, entry: Entry, clock: Clock) -> None:
    """Let the history know of a record that was made now, as a start would from the log.

    Its time is raised to the latest one, as the log does: else what is proposed after a clock ran
    ahead would be over at once.
    """
    now_us = max(clock.now_ns() // 1_000, history.latest_s * 1_000_000)
    history.fold({**entry.fields, "type": entry.type, "op": entry.op, "ts": now_us})
