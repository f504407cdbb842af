"""Replay of a log through a candidate bundle: what it would have decided, and what that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gateway.adapters.audit.audit_query import Found
from gateway.adapters.audit.replay_inputs import Inputs, Recorded
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.core.policy.asked import Asked
from gateway.core.policy.decision import Decision
from gateway.core.records.impact import Impact, Told, compare, told_by, told_by_record

Keep = Callable[[str, bytes], None]
"""Takes the name of a file and the policy input that belongs into it."""

_BATCH_RECORDS: Final = 512
_BATCH_BYTES: Final = 8 << 20
_TOLD_MAX: Final = 4096


class PolicyReplay:
    """Puts recorded inputs to a candidate that runs. Reads; changes nothing anywhere."""

    def __init__(self, candidate: Candidate, inputs: Inputs, *, keep: Keep | None = None) -> None:
        """`keep`: gets the inputs of the examples."""
        self.impact: Final = Impact()
        self._candidate: Final = candidate
        self._inputs: Final = inputs
        self._keep: Final = keep
        self._by_id: Final[dict[int, tuple[Decision, Told]]] = {}

    async def run(
        self, records: Iterable[Found], progress: Callable[[int], None] = lambda _seq: None
    ) -> Impact:
        """Compare every decision among `records`. `progress` is told the number of a record.

        A batch is evaluated by the workers while the next one is read here.
        """
        last: tuple[list[Recorded], asyncio.Task[list[Decision | str]]] | None = None
        for batch in _batches(self._inputs.read(records)):
            asked = [each.asked for each in batch if each.asked is not None]
            task = asyncio.create_task(self._candidate.decide(asked))
            for _ in range(2):  # the frames are written before the next batch is read
                await asyncio.sleep(0)
            if last is not None:
                self._count(last[0], await last[1])
                progress(last[0][-1].record["seq"])
            last = batch, task
        if last is not None:
            self._count(last[0], await last[1])
        return self.impact

    def _count(self, batch: list[Recorded], answers: list[Decision | str]) -> None:
        found = iter(answers)
        for each in batch:
            if each.asked is None:
                self.impact.missing[each.why] += 1
            else:
                self._compare(each, each.asked, next(found))

    def _compare(self, each: Recorded, asked: Asked, again: Decision | str) -> None:
        record, impact = each.record, self.impact
        was = told_by_record(record)
        if was is None:
            impact.missing["unreadable"] += 1
            return
        impact.phases[asked.phase] += 1
        if isinstance(again, str):
            impact.add_error(again)
            return
        change = compare(was, self._tell(again), asked.phase, asked.spec_digest)
        seq = record["seq"]
        name = f"{change.kind}-{seq}.json" if self._keep else ""
        kept = impact.add(
            change,
            tool=asked.tool_id if asked.phase != "issue" else "(issue)",
            agent=asked.agent,
            seq=seq,
            op=str(record.get("op", "")),
            file=name,
        )
        if kept is not None and self._keep is not None:
            self._keep(name, asked.document)

    def _tell(self, decision: Decision) -> Told:
        """Return a decision in the words of records; few answers are given often."""
        key = id(decision)
        found = self._by_id.get(key)
        if found is None or found[0] is not decision:
            found = decision, told_by(decision)
            if len(self._by_id) >= _TOLD_MAX:
                self._by_id.clear()
            self._by_id[key] = found
        return found[1]


def _batches(recorded: Iterator[Recorded]) -> Iterator[list[Recorded]]:
    batch: list[Recorded] = []
    size = 0
    for each in recorded:
        batch.append(each)
        size += 0 if each.asked is None else len(each.asked.document)
        if len(batch) >= _BATCH_RECORDS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
