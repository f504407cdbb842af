"""Erasing a data subject, at the door (AUD-06)."""

from __future__ import annotations

import pytest

from tests.unit.audit_admin.conftest import Desk

pytestmark = pytest.mark.req("AUD-06")
ROUTE = "/v1/audit/redactions"
ASK = {"subject": "olga", "basis": "request", "reason": "she asked for it"}


async def test_a_data_subject_is_erased_and_the_record_says_by_whom_and_why(desk: Desk) -> None:
    seq, other = await desk.keep(), await desk.keep("olaf")
    answer = await desk.post("ada", ROUTE, **ASK)
    assert answer.status_code == 200
    assert desk.log.read_opening(seq, "args") is None
    assert desk.log.read_opening(other, "args") is not None
    (record,) = desk.records("redact")
    assert (record["subject"], record["basis"], record["openings"]) == (
        desk.log.key_id("olga"),
        "request",
        1,
    )
    assert desk.log.read_opening(record["seq"], "by") == b"ada"
    assert desk.log.read_opening(record["seq"], "reason") == b"she asked for it"
    assert answer.json() == {
        "subject": record["subject"],
        "openings": 1,
        "record": record["seq"],
    }
    assert "olga" not in str(desk.records())


async def test_what_comes_after_an_erasure_is_kept_and_can_be_erased_again(desk: Desk) -> None:
    await desk.keep()
    await desk.post("ada", ROUTE, **ASK)
    later = await desk.keep("human:Olga")
    assert desk.log.read_opening(later, "args") is not None
    assert (await desk.post("abe", ROUTE, **ASK)).json()["openings"] == 1
    assert desk.log.read_opening(later, "args") is None


async def test_a_mistyped_id_is_no_erasure(desk: Desk) -> None:
    await desk.keep()
    answer = await desk.post("ada", ROUTE, **{**ASK, "subject": "olgaa"})
    assert (answer.status_code, answer.json()["code"]) == (404, "subject_not_found")
    await desk.post("ada", ROUTE, **ASK)
    assert (await desk.post("ada", ROUTE, **ASK)).status_code == 404
    assert len(desk.records("redact")) == 1


@pytest.mark.parametrize("who", ["aud", "otto", "ann"])
async def test_only_admins_erase(desk: Desk, who: str) -> None:
    seq = await desk.keep()
    assert (await desk.post(who, ROUTE, **ASK)).status_code == 403
    assert desk.log.read_opening(seq, "args") is not None


async def test_nobody_erases_their_own_traces(desk: Desk) -> None:
    await desk.keep("ada")
    for name in ("ada", "Ada ", "human:ada"):
        answer = await desk.post("ada", ROUTE, **{**ASK, "subject": name})
        assert (answer.status_code, answer.json()["code"]) == (403, "redact_own")
    assert (await desk.post("abe", ROUTE, **{**ASK, "subject": "ada"})).status_code == 200


async def test_an_erasure_that_cannot_be_recorded_does_not_happen(desk: Desk) -> None:
    seq = await desk.keep()
    desk.log.poison()
    answer = await desk.post("ada", ROUTE, **ASK)
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert desk.log.read_opening(seq, "args") is not None


@pytest.mark.parametrize(
    "change", [{"basis": "whim"}, {"reason": ""}, {"reason": "\n"}, {"subject": ""}, {"by": "x"}]
)
async def test_a_request_without_a_subject_a_basis_and_a_reason_is_refused(
    desk: Desk, change: dict[str, str]
) -> None:
    seq = await desk.keep()
    answer = await desk.post("ada", ROUTE, **{**ASK, **change})
    assert answer.status_code == 400
    assert desk.log.read_opening(seq, "args") is not None


async def test_a_body_that_is_too_large_or_no_json_is_refused(desk: Desk) -> None:
    large = await desk.post("ada", ROUTE, **{**ASK, "reason": "x" * 20_000})
    assert large.status_code == 413
    broken = await desk.client.post(
        ROUTE, content=b"{", headers={"Authorization": "Bearer secret-of-ada"}
    )
    assert broken.status_code == 400
