from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.releases.history import History
from tests.unit.releases.made import PAUL, PIA, publish, record, say

pytestmark = pytest.mark.req("POL-07")

REVISIONS = [f"sha256:{digit * 64}" for digit in "0123456789"]
ONE, TWO, THREE = REVISIONS[1:4]


def halt(history: History, number: int) -> None:
    history.fold({"type": "policy.halt", "op": "h", "ts": 0, "number": number, "release": ""})


def states(history: History) -> list[tuple[int, str]]:
    return [(one.publication.number, one.state) for one in history.standings()]


def revision_of(publication: Any) -> str | None:  # noqa: ANN401 - or None
    return None if publication is None else str(publication.revision)


def test_before_the_first_release_nothing_decides() -> None:
    history = History()
    assert (history.target, history.active, history.number) == (None, None, 0)
    assert not history.is_waiting


def test_records_without_a_release_say_nothing_of_releases() -> None:
    history = History()
    history.fold({"type": "policy.activate", "op": "a", "ts": 0, "rev": "r", "packages": []})
    history.fold({"type": "call.intent", "op": "a", "ts": 0, "number": 1})
    assert history.standings() == []


def test_what_was_published_waits_until_it_is_active() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO, active=False)
    assert revision_of(history.target) == TWO
    assert revision_of(history.active) == ONE
    assert states(history) == [(2, "published"), (1, "active")]


def test_a_release_in_the_shadow_is_shown_as_that() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO, active=False, shadow_s=60)
    assert states(history) == [(2, "shadow"), (1, "active")]


def test_a_halted_release_gives_way_to_the_one_before() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    halt(history, 2)
    assert revision_of(history.target) == ONE
    history.fold(record("policy.activate", 1, ONE))
    assert states(history) == [(2, "halted"), (1, "active")]
    assert (history.number, history.is_waiting) == (2, False)


def test_a_release_that_never_decided_is_not_gone_back_to() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO, active=False)
    publish(history, THREE)
    halt(history, 3)
    assert revision_of(history.target) == ONE
    history.fold(record("policy.activate", 1, ONE))
    assert states(history) == [(3, "halted"), (2, "superseded"), (1, "active")]
    assert not history.was_active(TWO)


def test_after_a_halt_the_next_release_decides() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO)
    halt(history, 2)
    history.fold(record("policy.activate", 1, ONE))
    publish(history, THREE)
    assert revision_of(history.active) == THREE
    halt(history, 3)
    assert revision_of(history.target) == ONE


def test_a_release_that_could_not_be_put_to_use_leaves_what_decides() -> None:
    history = History()
    publish(history, ONE)
    publish(history, TWO, active=False)
    halt(history, 2)
    assert revision_of(history.target) == ONE
    assert not history.is_waiting


def test_proposals_end_with_the_next_publication() -> None:
    history = History()
    signed = say(PIA, ONE)
    history.fold(record("policy.propose", 1, ONE, signed))
    assert list(history.proposals) == ["op-policy.propose-1"]
    publish(history, TWO)
    assert history.proposals == {}


STEPS = st.lists(st.sampled_from(["publish", "activate", "halt", "restart"]), max_size=25)


class Row:
    """A log of releases, and the history that was folded as it was written."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.history = History()

    def write(self, fields: dict[str, Any]) -> None:
        self.log.append(fields)
        self.history.fold(fields)

    def publish(self) -> None:
        number = self.history.number + 1
        revision = REVISIONS[number % 10]
        words = [say(key, revision, number) for key in (PIA, PAUL)]
        self.write(record("policy.publish", number, revision, *words))

    def activate(self) -> None:
        target = self.history.target
        if target is not None and self.history.is_waiting:
            self.write(record("policy.activate", target.number, target.revision))

    def halt(self) -> None:
        active = self.history.active
        if active is not None and self.history.find_before(active.number) is not None:
            self.write({"type": "policy.halt", "op": "h", "ts": 0, "number": active.number})

    def restart(self) -> None:
        again = History()
        for fields in self.log:
            again.fold(fields)
        assert states(again) == states(self.history)
        assert again.target == self.history.target
        self.history = again
        self.activate()


@given(STEPS)
def test_folding_the_log_anew_gives_the_same_and_something_always_decides(
    steps: list[str],
) -> None:
    row = Row()
    for step in steps:
        getattr(row, step)()
        # INVARIANT: never none, once there was one.
        assert (row.history.target is None) == (row.history.number == 0)
