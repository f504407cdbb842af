"""Turns of the client against witnesses that keep to the book."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.log import note as notes
from gateway.core.log.cosignature import is_cosigned, parse_cosignature, split_witnessed_note
from tests.integration.witness.conftest import Build

pytestmark = [pytest.mark.network, pytest.mark.req("AUD-08")]

SECOND_NS = 1_000_000_000


def witnessed(build: Build) -> list[dict[str, Any]]:
    return [one for one in build.log.audit.records if one["type"] == "checkpoint.witnessed"]


def events(logs: list[Any], *names: str) -> list[Any]:
    return [line["event"] for line in logs if line["event"] in names]


async def test_a_quorum_is_recorded_and_kept_in_the_file(build: Build) -> None:
    note = build.log.newest()
    signed = notes.parse(note)
    client = build()
    await client.turn()

    (record,) = witnessed(build)
    assert record["seq"] == record["size"] == signed.checkpoint.size
    assert record["root"] == signed.checkpoint.root.hex()
    found = [parse_cosignature(entry) for entry in record["cosignatures"]]
    keys = [one.identity.key for one in build.served]
    assert all(is_cosigned(signed.text, *pair) for pair in zip(found, keys, strict=True))

    whole = (build.directory / "witness" / "checkpoint").read_text()
    assert split_witnessed_note(whole) == (note, found)
    assert client.status() == {
        "size": 5,
        "age_s": 0,
        "records_beyond": 0,
        "behind_s": 0,
        "behind": False,
        "problems": {},
    }


async def test_its_own_record_is_no_reason_for_another_turn(build: Build) -> None:
    client = build()
    for _ in range(5):
        await client.turn()
    assert len(witnessed(build)) == 1
    assert [len(one.requests) for one in build.served] == [1, 1, 1]
    await build.log.grow(1)
    assert client.status()["records_beyond"] == 1
    for _ in range(3):
        await client.turn()
    assert [one["size"] for one in witnessed(build)] == [5, 7]
    assert [len(one.requests) for one in build.served] == [2, 2, 2]
    assert b"old 5\n" in build.served[0].requests[1]


async def test_records_that_came_meanwhile_are_told_apart_from_its_own(build: Build) -> None:
    client = build()
    slow = build.served[0]

    async def late(writer: asyncio.StreamWriter, body: bytes) -> None:
        await build.log.grow(2)
        slow.behave = None
        status, _, lines = slow.answer(body)
        head = f"HTTP/1.1 {status} OK\r\ncontent-length: {len(lines)}\r\n\r\n"
        writer.write(head.encode() + lines)

    slow.behave = late
    await client.turn()
    assert client.status()["records_beyond"] == 2
    await client.turn()
    assert [one["size"] for one in witnessed(build)] == [5, 8]
    assert client.status()["records_beyond"] == 0


async def test_below_the_quorum_nothing_is_recorded_and_the_next_turn_asks_again(
    build: Build,
) -> None:
    for one in build.served[:2]:
        one.behave = _hang_up
    client = build()
    with capture_logs() as logs:
        await client.turn()
        await client.turn()
    assert witnessed(build) == []
    told = [(line["witness"], line["reason"]) for line in logs if line["event"] == "witness_failed"]
    assert told == [("w1", "unreachable"), ("w2", "unreachable")]  # once, not every turn
    assert client.status()["problems"] == {"w1": "unreachable", "w2": "unreachable"}
    build.served[0].behave = None
    with capture_logs() as logs:
        await client.turn()
    assert events(logs, "witness_answers_again") == ["witness_answers_again"]
    (record,) = witnessed(build)
    assert [entry.split()[0] for entry in record["cosignatures"]] == [
        "witness.example/1",
        "witness.example/3",
    ]


async def test_a_window_that_stays_open_is_told_once_and_so_is_its_end(build: Build) -> None:
    client = build(quorum=3)
    await client.turn()
    build.served[2].behave = _hang_up
    build.clock.ns += 7_200 * SECOND_NS  # nothing happened: nothing is uncovered
    with capture_logs() as logs:
        await client.turn()
    assert logs == []
    assert (client.status()["age_s"], client.status()["behind_s"]) == (7_200, 0)
    await build.log.grow(4)
    with capture_logs() as logs:
        for _ in range(8):
            build.clock.ns += 60 * SECOND_NS
            await client.turn()
    (line,) = (line for line in logs if line["event"] == "witness_behind")
    assert (line["records"], line["size"], line["log_level"]) == (4, 5, "warning")
    assert 300 < line["seconds"] <= 360
    assert client.status()["behind"] is True
    build.served[2].behave = None
    with capture_logs() as logs:
        await client.turn()
    assert events(logs, "witness_caught_up", "witness_behind") == ["witness_caught_up"]
    assert client.status()["behind"] is False


async def test_a_restart_goes_on_from_the_file(build: Build) -> None:
    await build().turn()
    await build.log.grow(2)
    build.clock.ns += 400 * SECOND_NS
    client = build()
    assert client.status()["size"] == 5
    assert client.status()["age_s"] == client.status()["behind_s"] == 400
    await client.turn()
    assert b"old 5\n" in build.served[0].requests[1]
    assert [len(one.requests) for one in build.served] == [2, 2, 2]


@pytest.mark.parametrize("fault", ["gone", "torn", "forged", "other log"])
async def test_a_file_that_cannot_be_believed_is_no_memory(build: Build, fault: str) -> None:
    await build().turn()
    path = build.directory / "witness" / "checkpoint"
    whole = path.read_text()
    path.write_text(
        {
            "gone": "",
            "torn": whole[:-40],
            "forged": whole.replace("log.example/audit\n5\n", "log.example/audit\n6\n"),
            "other log": whole.replace("log.example", "log.other"),
        }[fault]
    )
    client = build()
    assert client.status()["size"] == 0
    await client.turn()  # the witnesses remember: each tells its size and is asked once more
    assert client.status()["problems"] == {}
    assert [len(one.requests) for one in build.served] == [3, 3, 3]


async def test_a_log_cut_back_below_what_was_witnessed_is_told(build: Build) -> None:
    await build.log.grow(5)
    await build().turn()
    cut = Build(
        await type(build.log)().grow(2), build.served, build.http, build.clock, build.directory
    )
    with capture_logs() as logs:
        client = cut()
        await client.turn()
    assert events(logs, "witness_ahead") == ["witness_ahead"]
    refused = [line for line in logs if line["event"] == "witness_saw_other_history"]
    assert {(line["reason"], line["log_level"]) for line in refused} == {("ahead", "error")}
    assert len(refused) == 3
    assert witnessed(cut) == []


async def test_a_log_that_takes_no_record_stops_no_later_turn(build: Build) -> None:
    client = build()
    build.log.audit.overload()
    running = asyncio.create_task(client.run())
    with capture_logs() as logs:
        while not logs:  # noqa: ASYNC110 - what another task logs
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert events(logs, "witness_turn_failed") == ["witness_turn_failed"]
    build.log.audit.overload(overloaded_now=False)
    await client.turn()
    assert len(witnessed(build)) == 1


async def test_what_a_slow_witness_takes_of_the_interval_is_not_waited_for_once_more(
    build: Build,
) -> None:
    slow = build.served[0]

    async def late(writer: asyncio.StreamWriter, _body: bytes) -> None:
        build.clock.ns += 60 * SECOND_NS
        await build.log.grow(1)
        writer.close()

    slow.behave = late
    running = asyncio.create_task(build().run())
    async with asyncio.timeout(5):
        while len(slow.requests) < 3:  # noqa: ASYNC110 - what another task asks
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_before_the_first_checkpoint_there_is_nothing_to_do(build: Build) -> None:
    client = build()
    object.__setattr__(client, "_newest", lambda: None)
    await client.turn()
    assert build.served[0].requests == []


async def _hang_up(writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.close()
