"""Whatever people try in whatever order: nothing under a hold is erased, and no hold is one's own.

The oracle reads the log alone, as an auditor would, and the requests that were made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.approvals.holds import WAIT_S
from tests.effort import share
from tests.unit.audit_admin.conftest import Desk

pytestmark = pytest.mark.req("AUD-06")
PEOPLE = ["ada", "ADA", "human:ada", "abe", "aud"]
SUBJECTS = ["olga", "human:Olga", "olaf"]
Step = tuple[str, str, int, str]
FIRST: list[Step] = [
    ("keep", "ada", 0, "olga"),
    ("propose", "aud", 0, "olga"),
    ("confirm", "ada", 0, "olga"),
]
RELEASING: list[Step] = [*FIRST, ("release", "abe", 0, "olga")]
"""What some histories begin with, so that they get further."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["keep", "propose", "confirm", "confirm", "release", "end", "redact", "redact", "wait"]
        ),
        st.sampled_from(PEOPLE),
        st.integers(0, 2),
        st.sampled_from([*SUBJECTS, "*"]),
    ),
    min_size=15,
    max_size=40,
)


class History:
    """Takes steps, and keeps by hand what must not be erased."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.holds: list[str] = []
        self.proposed: dict[str, tuple[str, int]] = {}
        self.asked: dict[str, str] = {}

    async def take(self, step: Step) -> None:
        kind, who, number, subject = step
        desk, custody = self.desk, self.desk.custody
        hold = self.holds[number] if number < len(self.holds) else "none"
        match kind:
            case "keep":
                await desk.keep(subject)
            case "propose":
                found = await custody.propose_hold(who, None if subject == "*" else subject, "why")
                self.holds.append(found.id)
                self.proposed[found.id] = (found.subject, desk.clock.now_s)
                self.asked[found.id] = who
            case "confirm":
                self._check_second(hold, who, await custody.confirm_hold(who, hold))
            case "release":
                if not isinstance(await custody.ask_release(who, hold, "why"), Declined):
                    self.asked[hold] = who
            case "end":
                self._check_second(hold, who, await custody.confirm_release(who, hold))
            case "redact":
                await self._redact(who, subject)
            case _:
                desk.clock.now_s += number * WAIT_S // 2

    def _check_second(self, hold: str, who: str, answer: object) -> None:
        if not isinstance(answer, Declined):
            assert person(who) != person(self.asked[hold])

    async def _redact(self, who: str, subject: str) -> None:
        key = self.desk.log.key_id(subject)
        held = self._held(key)
        answer = await self.desk.custody.redact(who, subject, "request", "why")
        if held:
            assert isinstance(answer, Declined)

    def _held(self, key: str) -> bool:
        """Whether a hold protects, by the log's records and by what was asked within a day."""
        held: dict[str, str] = {}
        for record in self.desk.records("hold.set", "hold.release"):
            if record["type"] == "hold.set":
                held[record["hold"]] = record["subject"]
            else:
                del held[record["hold"]]
        now_s = self.desk.clock.now_s
        decided = {record["hold"] for record in self.desk.records("hold.set")}
        waiting = [
            subject
            for hold, (subject, at) in self.proposed.items()
            if hold not in decided and now_s < at + WAIT_S
        ]
        return any(subject in {key, "*"} for subject in (*held.values(), *waiting))


@settings(max_examples=share(120), deadline=None)
@given(st.sampled_from([(), FIRST, RELEASING]), STEPS)
def test_no_history_erases_under_a_hold_or_sets_one_with_one_person(
    first: Sequence[Step], steps: Sequence[Step]
) -> None:
    desk = Desk()

    async def run() -> None:
        history = History(desk)
        for step in (*first, *steps):
            await history.take(step)
        await desk.client.aclose()

    asyncio.run(run())
    for record in desk.records("hold.set", "hold.release"):
        assert len(set(record["persons"])) == 2
    records = desk.records()
    for at, record in enumerate(records):
        if record["type"] == "redact":
            before = records[:at]
            ended = {one["hold"] for one in before if one["type"] == "hold.release"}
            held = [
                one["subject"]
                for one in before
                if one["type"] == "hold.set" and one["hold"] not in ended
            ]
            assert not {"*", record["subject"]} & set(held)
