"""Legal holds take two people, and protect from the first one's word on (AUD-06)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.core.approvals.holds import TRANSITIONS, WAIT_S, Hold
from gateway.core.errors import CountersignError
from tests.unit.audit_admin.conftest import Desk
from tests.unit.audit_admin.test_redactions import ASK
from tests.unit.audit_admin.test_redactions import ROUTE as REDACTIONS

pytestmark = pytest.mark.req("AUD-06")
ROUTE = "/v1/audit/holds"


async def propose(desk: Desk, who: str = "aud", **body: Any) -> str:  # noqa: ANN401 - JSON
    asked = body or {"subject": "olga"}
    answer = await desk.post(who, ROUTE, reason="case 7", **asked)
    assert answer.status_code == 200, answer.text
    return cast("str", answer.json()["hold"])


async def step(desk: Desk, who: str, hold: str, name: str) -> tuple[int, str]:
    """Return the status, and the state or the code of what went wrong."""
    body = {"reason": "closed"} if name == "release" else {}
    answer = await desk.post(who, f"{ROUTE}/{hold}/{name}", **body)
    told = answer.json()
    return answer.status_code, told.get("state") or told["code"]


async def redact(desk: Desk, subject: str = "olga") -> int:
    return (await desk.post("ada", REDACTIONS, **{**ASK, "subject": subject})).status_code


async def test_two_people_set_a_hold_and_two_release_it(desk: Desk) -> None:
    await desk.keep()
    hold = await propose(desk)
    assert await step(desk, "ada", hold, "confirm") == (200, "set")
    assert await redact(desk) == 409
    assert await step(desk, "abe", hold, "release") == (200, "releasing")
    assert await redact(desk) == 409
    assert await step(desk, "aud", hold, "confirm-release") == (200, "released")
    assert await redact(desk) == 200
    kinds = [record["type"] for record in desk.records()][-5:]
    assert kinds == ["config.change", "hold.set", "config.change", "hold.release", "redact"]


async def test_the_records_name_both_people_by_commitments_and_tags(desk: Desk) -> None:
    hold = await propose(desk)
    await step(desk, "ada", hold, "confirm")
    (record,) = desk.records("hold.set")
    assert (record["hold"], record["subject"]) == (hold, desk.log.key_id("olga"))
    assert record["by"].keys() == {"asked", "confirmed"}
    assert len(set(record["persons"])) == 2
    assert desk.log.read_opening(record["seq"], "by.asked") == b"aud"
    assert desk.log.read_opening(record["seq"], "by.confirmed") == b"ada"
    assert desk.log.read_opening(record["seq"], "reason") == b"case 7"
    assert "case 7" not in str(desk.records())
    assert (await desk.holds.get(hold)).nonce not in str(desk.records())  # type: ignore[union-attr]


async def test_a_proposal_protects_at_once_and_lapses_after_a_day(desk: Desk) -> None:
    await desk.keep()
    hold = await propose(desk)
    assert await redact(desk) == 409
    desk.clock.now_s += WAIT_S - 1
    assert await redact(desk) == 409
    desk.clock.now_s += 1
    assert await step(desk, "ada", hold, "confirm") == (409, "hold_conflict")
    assert await redact(desk) == 200
    (listed,) = (await desk.get("aud", ROUTE)).json()["holds"]
    assert listed == {"hold": hold, "subject": desk.log.key_id("olga"), "state": "lapsed"}
    assert not desk.records("hold.set")


async def test_a_release_that_nobody_confirms_lapses_and_the_hold_stays(desk: Desk) -> None:
    await desk.keep()
    hold = await propose(desk)
    await step(desk, "ada", hold, "confirm")
    await step(desk, "ada", hold, "release")
    desk.clock.now_s += WAIT_S
    assert await step(desk, "aud", hold, "confirm-release") == (409, "hold_conflict")
    assert await redact(desk) == 409
    assert await step(desk, "ada", hold, "release") == (200, "releasing")


@pytest.mark.parametrize("alias", ["ada", "ADA"])
async def test_one_person_is_not_two(desk: Desk, alias: str) -> None:
    await desk.keep()
    hold = await propose(desk, "ada")
    assert await step(desk, alias, hold, "confirm") == (403, "hold_same_person")
    assert not desk.records("hold.set")
    await step(desk, "abe", hold, "confirm")
    await step(desk, "ada", hold, "release")
    assert await step(desk, alias, hold, "confirm-release") == (403, "hold_same_person")
    assert await redact(desk) == 409


async def test_a_hold_on_everybody_protects_everybody(desk: Desk) -> None:
    for subject in ("olga", "olaf"):
        await desk.keep(subject)
    hold = await propose(desk, everybody=True)
    await step(desk, "ada", hold, "confirm")
    assert [await redact(desk, name) for name in ("olga", "olaf")] == [409, 409]
    (record,) = desk.records("hold.set")
    assert record["subject"] == "*"


async def test_a_hold_protects_all_names_of_a_person_and_no_one_else(desk: Desk) -> None:
    for subject in ("olga", "olaf"):
        await desk.keep(subject)
    hold = await propose(desk, subject="human:Olga")
    answer = await desk.post("ada", REDACTIONS, **ASK)
    assert (answer.status_code, answer.json()["code"]) == (409, "redact_held")
    assert hold in answer.json()["detail"]
    assert await redact(desk, "olaf") == 200


async def test_of_two_holds_each_protects_by_itself(desk: Desk) -> None:
    await desk.keep()
    first, second = await propose(desk), await propose(desk, everybody=True)
    for hold in (first, second):
        await step(desk, "ada", hold, "confirm")
    await step(desk, "aud", first, "release")
    await step(desk, "ada", first, "confirm-release")
    assert await redact(desk) == 409


async def test_a_step_that_does_not_fit_the_state_is_refused_with_what_to_do(desk: Desk) -> None:
    hold = await propose(desk)
    conflict = (409, "hold_conflict")
    assert await step(desk, "ada", hold, "release") == conflict
    assert await step(desk, "ada", hold, "confirm-release") == conflict
    await step(desk, "ada", hold, "confirm")
    assert await step(desk, "abe", hold, "confirm") == conflict
    answer = await desk.post("abe", f"{ROUTE}/{hold}/confirm")
    assert "ask for its release" in answer.json()["detail"]
    assert await step(desk, "ada", "0" * 32, "confirm") == (404, "hold_not_found")


@pytest.mark.parametrize("who", ["otto", "ann"])
async def test_only_auditors_and_admins_hold(desk: Desk, who: str) -> None:
    hold = await propose(desk)
    assert (await desk.post(who, ROUTE, reason="x", subject="olga")).status_code == 403
    assert (await desk.get(who, ROUTE)).status_code == 403
    for name in ("confirm", "release", "confirm-release"):
        assert (await step(desk, who, hold, name))[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "x"},
        {"reason": "x", "subject": "olga", "everybody": True},
        {"reason": "", "subject": "olga"},
        {"reason": " ", "subject": "olga"},
        {"reason": "x", "subject": ""},
    ],
)
async def test_a_hold_is_for_one_subject_or_everybody_and_for_a_reason(
    desk: Desk, body: dict[str, object]
) -> None:
    assert (await desk.post("aud", ROUTE, **body)).status_code == 400
    assert (await desk.get("aud", ROUTE)).json() == {"holds": []}


async def test_what_waits_for_a_second_person_is_listed_with_who_asked(desk: Desk) -> None:
    hold = await propose(desk)
    (listed,) = (await desk.get("ada", ROUTE)).json()["holds"]
    assert (listed["hold"], listed["asked_by"], listed["reason"]) == (hold, "aud", "case 7")
    assert listed["lapses_at"] - listed["asked_at"] == WAIT_S


async def test_a_hold_that_cannot_be_recorded_is_not_set(desk: Desk) -> None:
    hold = await propose(desk)
    desk.log.overload()
    assert (await step(desk, "ada", hold, "confirm"))[0] == 503
    assert (await desk.post("aud", ROUTE, reason="x", subject="olga")).status_code == 503
    desk.log.overload(overloaded_now=False)
    (listed,) = (await desk.get("aud", ROUTE)).json()["holds"]
    assert listed["state"] == "proposed"


async def test_a_hold_on_record_protects_where_the_store_failed_to_keep_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.keep()
    hold = await propose(desk)

    async def fail(_hold: Hold) -> None:
        raise CountersignError("the disk is gone", code="state_unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(desk.holds, "put", fail)
        assert (await step(desk, "ada", hold, "confirm"))[0] == 503
    desk.clock.now_s += 2 * WAIT_S  # the store alone would say: lapsed
    assert await redact(desk) == 409


async def test_a_start_brings_the_store_to_what_the_log_says(desk: Desk) -> None:
    proposed, held, freed = [await propose(desk) for _ in range(3)]
    await step(desk, "ada", freed, "confirm")
    key = desk.log.key_id("olga")
    recorded = {held: key, freed: None, "f" * 32: "*", "e" * 32: None}
    await desk.custody.settle(recorded)
    states = {hold.id: (hold.state, hold.subject) for hold in await desk.holds.find()}
    assert states == {
        proposed: ("proposed", key),
        held: ("set", key),
        freed: ("released", key),
        "f" * 32: ("set", "*"),
    }
    before = await desk.holds.find()
    await desk.custody.settle(recorded)
    assert await desk.holds.find() == before


def test_every_state_has_its_moves_and_ends_have_none() -> None:
    reached = {to for moves in TRANSITIONS.values() for to in moves.values()} | {"proposed"}
    assert reached | {"lapsed"} == TRANSITIONS.keys()
    assert [state for state, moves in TRANSITIONS.items() if not moves] == ["released", "lapsed"]
