"""The decision log: events in OPA's shape, masked; nothing waits, what is lost is counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.adapters.policy import decision_log
from gateway.adapters.policy.decision_log import BATCH_MAX, BUFFER_MAX, DecisionLog
from gateway.adapters.policy.decision_sinks import FileSink
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.core.errors import PolicyError
from gateway.core.pointer import split
from gateway.core.policy.decision import (
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.core.policy.decision_event import MASK, Logged, build_event, erase, format_time
from tests.effort import share
from tests.fixed import CountingIds, HandClock

pytestmark = pytest.mark.req("POL-10")

REV = "sha256:" + "1" * 64
CANARY = "canary"
PERMIT = Permit((Reason("fine", CANARY),), (Obligation("notify", {"type": "notify"}),), REV)
INPUT: dict[str, Any] = {
    "version": 1,
    "phase": "call",
    "subject": {"id": "bot", "owner": CANARY, "on_behalf_of": CANARY},
    "resource": {"id": "billing.refund"},
    "context": {
        "args": {"to": CANARY},
        "result": {"text": [CANARY]},
        "claimed": {"intent": CANARY},
        "token": {"allowed_values": {"to": [CANARY]}, "constraints": [{"one_of": [CANARY]}]},
        "run": {"id": "run-1"},
    },
}


def event_of(decision: Decision = PERMIT, mask: Sequence[str] = MASK) -> dict[str, Any]:
    logged = Logged(
        "billing.refund", "call", orjson.dumps(INPUT), decision, 1_700_000_000_000_000_001
    )
    labels = {"app": "countersign"}
    found: dict[str, Any] = orjson.loads(
        build_event(logged, decision_id="d-1", labels=labels, mask=mask, number=7)
    )
    return found


def test_an_event_has_the_members_of_opas_decision_logs() -> None:
    event = event_of()
    assert {name: event[name] for name in event if name not in {"input", "result", "erased"}} == {
        "labels": {"app": "countersign"},
        "decision_id": "d-1",
        "bundles": {"countersign": {"revision": REV}},
        "path": "countersign/decision",
        "timestamp": "2023-11-14T22:13:20.000000001Z",
        "req_id": 7,
    }
    assert event["result"] == {
        "outcome": "permit",
        "reasons": [{"code": "fine"}],
        "obligations": [{"type": "notify"}],
    }


def test_no_value_of_a_call_and_no_person_is_in_an_event_by_default() -> None:
    event = event_of()
    assert CANARY.encode() not in orjson.dumps(event)
    assert event["erased"] == list(MASK)
    assert event["input"]["context"] == {"token": {}, "run": {"id": "run-1"}}
    assert event["input"]["subject"] == {"id": "bot"}


def test_a_mask_of_ones_own_replaces_the_default() -> None:
    event = event_of(mask=("/input/context/args/to", "/input/nothing"))
    assert event["erased"] == ["/input/context/args/to"]
    assert event["input"]["context"]["args"] == {}
    assert event["input"]["subject"]["owner"] == CANARY
    assert "erased" not in event_of(mask=())


def test_holds_and_denies_are_told_as_what_they_are() -> None:
    hold = event_of(Hold((), (), REV, ApprovalSpec(((Stage(groups=("finance",)),),), ttl_s=60)))
    assert hold["result"]["outcome"] == "hold"
    assert hold["result"]["approval"]["ttl_s"] == 60
    deny = event_of(Deny((Reason("no", CANARY, "house"),), REV))
    assert deny["result"] == {"outcome": "deny", "reasons": [{"code": "no", "policy": "house"}]}


@pytest.mark.parametrize(
    ("document", "pointer", "left", "found"),
    [
        ({"a": {"b": 1, "c": 2}}, "/a/b", {"a": {"c": 2}}, True),
        ({"a": [1, 2, 3]}, "/a/1", {"a": [1, None, 3]}, True),
        ({"a": [{"b": 1}, {"b": 2}, {}]}, "/a/*/b", {"a": [{}, {}, {}]}, True),
        ({"a": {"x": {"b": 1}, "y": {"b": 2}}}, "/a/*/b", {"a": {"x": {}, "y": {}}}, True),
        ({"a": [1, 2]}, "/a/*", {"a": []}, True),
        ({"a": {"x": 1}}, "/a/*", {"a": {}}, True),
        ({"a": [{"b": 1}]}, "/a/0/b", {"a": [{}]}, True),
        ({"a": [1]}, "/a/1", {"a": [1]}, False),
        ({"a": [1]}, "/a/x", {"a": [1]}, False),
        ({"a": 1}, "/a/b", {"a": 1}, False),
        ({"a": 1}, "/b", {"a": 1}, False),
        ({"a": 1}, "", {"a": 1}, False),
    ],
)
def test_what_a_pointer_leads_to_is_taken_out(
    document: Any,  # noqa: ANN401 - any JSON
    pointer: str,
    left: object,
    *,
    found: bool,
) -> None:
    assert erase(document, split(pointer)) is found
    assert document == left


@settings(max_examples=share(60), deadline=None)
@given(
    names=st.lists(st.sampled_from(["a", "b", "0"]), min_size=1, max_size=4),
    stars=st.sets(st.integers(0, 3)),
    wide=st.integers(1, 3),
)
def test_a_masked_value_is_gone_however_deep(names: list[str], stars: set[int], wide: int) -> None:
    value: Any = CANARY
    for at, name in reversed(list(enumerate(names))):
        value = [value] * wide if at in stars and name == "0" else {name: value}
    document = orjson.loads(orjson.dumps(value))
    path = tuple("*" if at in stars else name for at, name in enumerate(names))
    assert erase(document, path)
    assert CANARY.encode() not in orjson.dumps(document)


def test_times_are_rfc_3339() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000000000Z"


class Taking:
    """A sink that takes, or does not."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.batches: list[int] = []
        self.willing = True

    async def write(self, events: Sequence[bytes]) -> bool:
        if self.willing:
            self.taken += events
            self.batches.append(len(events))
        return self.willing


def build(sink: decision_log.Sink) -> DecisionLog:
    return DecisionLog(sink, labels={}, mask=MASK, clock=HandClock(), ids=CountingIds())


def observe(log: DecisionLog, count: int = 1, document: bytes = b"{}") -> None:
    for _ in range(count):
        log.observe("billing.refund", "call", document, PERMIT)


async def test_what_was_observed_is_written_in_order_and_in_batches() -> None:
    sink = Taking()
    log = build(sink)
    observe(log, BATCH_MAX + 1)
    assert sink.taken == []
    assert await log.flush()
    assert sink.batches == [BATCH_MAX, 1]
    assert [orjson.loads(event)["req_id"] for event in sink.taken] == list(range(1, BATCH_MAX + 2))
    assert log.status() == {
        "logged": BATCH_MAX + 1,
        "dropped": 0,
        "failed_writes": 0,
        "waiting": 0,
    }


async def test_what_is_not_taken_is_sent_again_the_same() -> None:
    sink = Taking()
    log = build(sink)
    observe(log, 2)
    sink.willing = False
    assert not await log.flush()
    assert (log.status()["failed_writes"], log.status()["waiting"]) == (1, 2)
    sink.willing = True
    observe(log)
    assert await log.flush()
    assert [orjson.loads(event)["req_id"] for event in sink.taken] == [1, 2, 3]


async def test_past_the_room_decisions_are_dropped_and_counted() -> None:
    log = build(Taking())
    observe(log, BUFFER_MAX + 3)
    assert log.status()["dropped"] == 3
    assert await log.flush()
    observe(log, document=b" " * (33 << 20))
    assert log.status()["dropped"] == 4


async def test_an_input_that_cannot_be_masked_is_not_written() -> None:
    sink = Taking()
    log = build(sink)
    observe(log, document=b'{"args": "canary')
    observe(log)
    assert await log.flush()
    assert (len(sink.taken), log.status()["dropped"]) == (1, 1)


async def test_closing_writes_what_waits() -> None:
    sink = Taking()
    log = build(sink)
    log.start()
    observe(log)
    await log.close()
    assert len(sink.taken) == 1


class Stuck:
    """A sink that fails in a way nobody foresaw."""

    async def write(self, events: Sequence[bytes]) -> bool:
        raise RuntimeError(repr(events))


async def test_a_sink_that_breaks_ends_neither_the_log_nor_the_gateway(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = build(Stuck())
    log.start()
    observe(log, document=b'{"resource":"canary"}')
    await log.close()
    assert log.status()["waiting"] == 1
    said = capsys.readouterr()
    assert "canary" not in said.out + said.err


async def test_every_phase_and_every_failure_is_told(tmp_path: Any) -> None:  # noqa: ANN401
    file = tmp_path / "decisions.jsonl"
    log = build(FileSink(file, rotate_bytes=1_000_000, keep=1))

    def answer(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision:
        if phase == "resume":
            raise PolicyError("late", code="policy_timeout")
        return PERMIT

    engine = ObservedPolicy(MemoryPolicy(answer, concerns_result=True), log.observe)
    phases: tuple[Phase, ...] = ("issue", "call", "result")
    for phase in phases:
        await engine.decide("t", phase, orjson.dumps({"phase": phase}))
    await engine.decide_many([("t", b'{"phase":"list"}'), ("u", b'{"phase":"list"}')], "list")
    with pytest.raises(PolicyError):
        await engine.decide("t", "resume", b'{"phase":"resume"}')
    assert await log.flush()
    events = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert [event["input"]["phase"] for event in events] == [
        "issue",
        "call",
        "result",
        "list",
        "list",
        "resume",
    ]
    assert events[-1]["result"]["reasons"] == [{"code": "policy_timeout"}]


# Files


async def test_files_are_private_rotate_and_old_ones_go(tmp_path: Any) -> None:  # noqa: ANN401
    file = tmp_path / "d.jsonl"
    sink = FileSink(file, rotate_bytes=10, keep=2)
    for number in range(4):
        assert await sink.write([b"%d" % number * 10])
    assert file.stat().st_mode & 0o777 == 0o600
    kept = {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert kept == {"d.jsonl": b"3", "d.jsonl.1": b"2", "d.jsonl.2": b"1"}


async def test_without_older_files_a_full_one_is_begun_anew(tmp_path: Any) -> None:  # noqa: ANN401
    file = tmp_path / "d.jsonl"
    sink = FileSink(file, rotate_bytes=1, keep=0)
    assert await sink.write([b"1"])
    assert await sink.write([b"2"])
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
    assert file.read_bytes() == b"2\n"


async def test_a_place_that_is_a_link_or_not_there_takes_nothing(tmp_path: Any) -> None:  # noqa: ANN401
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place in (tmp_path / "link", tmp_path / "no" / "d.jsonl"):
        with capture_logs() as logs:
            assert not await FileSink(place, rotate_bytes=10, keep=1).write([b"1"])
        assert [line["event"] for line in logs] == ["decision_log_not_taken"]
        assert logs[0]["why"] in {"Too many levels of symbolic links", "No such file or directory"}
    assert not (tmp_path / "elsewhere").exists()


async def test_a_file_that_hangs_is_tried_again_and_holds_up_no_end(tmp_path: Any) -> None:  # noqa: ANN401
    pipe = tmp_path / "d.jsonl"
    os.mkfifo(pipe)  # whoever opens it waits for another end that is not there
    log = build(FileSink(pipe, rotate_bytes=10_000, keep=1, timeout_s=0.05))
    observe(log)
    async with asyncio.timeout(5):
        assert not await log.flush()
        assert log.status()["failed_writes"] == 1
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        while not await log.flush():  # noqa: ASYNC110 - the thread goes on by itself
            await asyncio.sleep(0)
        assert b'"req_id":1' in os.read(reader, 1 << 16)
        os.close(reader)
        # The loop's own threads are waited for when the gateway ends.
        await asyncio.get_running_loop().shutdown_default_executor()


async def test_nothing_waits_for_a_sink_that_hangs() -> None:
    class Hanging:
        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def write(self, events: Sequence[bytes]) -> bool:
            del events
            self.asked.set()
            await asyncio.Event().wait()
            return True

    sink = Hanging()
    log = build(sink)
    observe(log)
    flushing = asyncio.create_task(log.flush())
    await sink.asked.wait()
    observe(log, 5)  # returns at once
    assert log.status()["waiting"] == 6
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
