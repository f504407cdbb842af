"""Replays a log: each recorded input is put again to the very policies that decided on it."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.audit.audit_query import Found
from gateway.adapters.audit.audit_values import ValueReader
from gateway.adapters.policy.bundle_store import load_bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.errors import CountersignError, PolicyError
from gateway.core.policy.decision import Decision
from gateway.core.records.replay import (
    EVALUATION,
    Kind,
    Question,
    Verdict,
    compare,
    compare_evaluation,
    find_evaluations,
    is_decided,
    read_question,
)

_INPUT: Final = "policy.input"
_BATCH_RECORDS: Final = 512
_BATCH_BYTES: Final = 8 << 20
_ENGINES_MAX: Final = 2
_DEADLINE_MS: Final = 5_000
_WORKERS_MAX: Final = 4
_CROWDED: Final = frozenset({"policy_worker_died", "policy_overloaded", "policy_unavailable"})
"""Codes that can be another question's fault, asked in the same batch."""


class Replayed(Struct, frozen=True):
    """One recorded decision, and what replay says of it."""

    seq: int
    op: str
    type: str
    rev: str
    kind: Kind
    what: str = ""


class Tally:
    """How many decisions came to which end, and for which reasons where they did not agree."""

    def __init__(self) -> None:
        self.kinds: Counter[Kind] = Counter()
        self.reasons: Counter[tuple[Kind, str]] = Counter()

    def add(self, item: Replayed) -> None:
        """Count one decision. Differences are told one by one, so their words are not kept."""
        self.kinds[item.kind] += 1
        if item.kind not in {"agreed", "differs"}:
            self.reasons[item.kind, item.what] += 1

    @property
    def total(self) -> int:
        """How many decisions there were."""
        return self.kinds.total()


class _Asked(Struct):
    """A decision on its way: its input once opened, or already a verdict."""

    found: Found
    rev: str
    item: Mapping[str, Any] | None = None  # of a question that was answered
    document: bytes = b""
    question: Question | None = None
    verdict: Verdict | None = None


class Replay:
    """Recomputes decisions. One engine per bundle revision, of which few run at a time.

    Engines are told of no tools, so the bundle's own entry point gives every answer, and none of
    the shortcuts by which a gateway saves time.
    """

    def __init__(self, values: ValueReader, bundles: Path) -> None:
        """`bundles`: where every bundle that ever decided is kept (`bundle_store`)."""
        self._values: Final = values
        self._bundles: Final = bundles
        self._engines: Final[OrderedDict[str, RegorusPolicy | Verdict]] = OrderedDict()

    async def run(self, records: Iterable[Found]) -> AsyncGenerator[Replayed]:
        """Yield each recorded decision among `records`, in order, recomputed.

        Memory does not grow with their number. Close with `close`.
        """
        asked = (each for found in records if is_decided(found.record) for each in self._ask(found))
        for batch in _batches(asked):
            for rev, same in groupby(batch, key=lambda each: each.rev):
                for item in await self._judge(rev, list(same)):
                    yield item

    async def close(self) -> None:
        """End every engine."""
        while self._engines:
            await self._end(self._engines.popitem()[1])

    def _ask(self, found: Found) -> Iterator[_Asked]:
        """Yield what a record says was put to policy: one decision, or answers to questions."""
        rev = found.record["policy"].get("rev")
        if found.record.get("type") != EVALUATION:
            yield self._open(_Asked(found, rev if isinstance(rev, str) else ""), _INPUT)
            return
        for place, item in find_evaluations(found.record):
            own = item.get("rev", rev)
            asked = _Asked(found, own if isinstance(own, str) else "", item)
            yield self._open(asked, f"inputs.{place}")

    def _open(self, asked: _Asked, path: str) -> _Asked:
        """Open a policy input, or say why it cannot be put again."""
        found = asked.found
        try:
            value = self._values.open(found.record, found.segment, path)
        except LookupError:
            asked.verdict = Verdict("unreplayable", "no policy input was recorded")
            return asked
        if value.opened is None:
            assert value.why  # noqa: S101 - there is no value without a reason
            asked.verdict = Verdict(value.why, value.what)
            return asked
        try:
            asked.question = read_question(value.opened)
            asked.document = value.opened
        except ValueError as error:
            asked.verdict = Verdict("unreplayable", f"the recorded input is none: {error}")
        return asked

    async def _judge(self, rev: str, batch: Sequence[_Asked]) -> list[Replayed]:
        """Decide on many inputs at once under one revision."""
        open_ = [each for each in batch if each.verdict is None]
        if open_:
            engine = await self._engine(rev)
            if isinstance(engine, Verdict):
                for each in open_:
                    each.verdict = engine
            else:
                await _decide(engine, open_)
        return [_tell(each) for each in batch]

    async def _engine(self, rev: str) -> RegorusPolicy | Verdict:
        """Return a running engine of this revision, or why there can be none."""
        engine = self._engines.get(rev)
        if engine is None:
            engine = await self._start(rev)
            self._engines[rev] = engine
            if len(self._engines) > _ENGINES_MAX:
                await self._end(self._engines.popitem(last=False)[1])
        self._engines.move_to_end(rev)
        return engine

    async def _start(self, rev: str) -> RegorusPolicy | Verdict:
        try:
            engine = RegorusPolicy(
                load_bundle(self._bundles, rev), workers=_workers(), deadline_ms=_DEADLINE_MS
            )
            await engine.start()
        except (CountersignError, KeyError, ValueError, OSError) as error:
            code = error.code if isinstance(error, CountersignError) else "policy_bundle_unreadable"
            kind: Kind = "altered" if code == "policy_bundle_altered" else "unreplayable"
            return Verdict(kind, f"{code}: {str(error).splitlines()[0]}")
        return engine

    @staticmethod
    async def _end(engine: RegorusPolicy | Verdict) -> None:
        if isinstance(engine, RegorusPolicy):
            await engine.stop()


def _workers() -> int:
    """Return how many processes decide: one core is left to this one."""
    return max(1, min(_WORKERS_MAX, len(os.sched_getaffinity(0)) - 1))


def _batches(asked: Iterator[_Asked]) -> Iterator[list[_Asked]]:
    batch: list[_Asked] = []
    size = 0
    for each in asked:
        batch.append(each)
        size += len(each.document)
        if len(batch) >= _BATCH_RECORDS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


async def _decide(engine: RegorusPolicy, batch: Sequence[_Asked]) -> None:
    """Fill in the verdict of each."""
    questions = [(each, each.question) for each in batch if each.question is not None]
    answers = await asyncio.gather(
        *(engine.decide(q.tool_id, q.phase, each.document) for each, q in questions),
        return_exceptions=True,
    )
    for (each, question), answer in zip(questions, answers, strict=True):
        again = _answered(answer)
        if isinstance(again, str) and again in _CROWDED:
            again = await _decide_alone(engine, each.document, question)
        if each.item is None:
            each.verdict = compare(each.found.record, question, again)
        else:
            each.verdict = compare_evaluation(each.item, question, again)


async def _decide_alone(
    engine: RegorusPolicy, document: bytes, question: Question
) -> Decision | str:
    try:
        return await engine.decide(question.tool_id, question.phase, document)
    except PolicyError as error:
        return error.code


def _answered(answer: Decision | BaseException) -> Decision | str:
    if isinstance(answer, PolicyError):
        return answer.code
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _tell(asked: _Asked) -> Replayed:
    record, verdict = asked.found.record, asked.verdict
    assert verdict is not None  # noqa: S101 - every one was judged
    return Replayed(
        record["seq"],
        str(record.get("op", "")),
        str(record.get("type", "")),
        asked.rev,
        verdict.kind,
        verdict.what,
    )
