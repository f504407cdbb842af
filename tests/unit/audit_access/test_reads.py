"""Reading the log is logged before anything is read."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.core.records.audit_access import Span, build_export, build_read
from gateway.http.admin_route import BODY_MAX_BYTES
from gateway.http.audit_access import build_audit_access_router
from gateway.http.humans import HumanEntry, Humans, build_admit

pytestmark = pytest.mark.req("AUD-09")

ROLES = {"Aud": ("auditor",), "adam": ("admin",), "otto": ("operator",)}
QUERY = {"purpose": "case 7", "what": "query", "records": 2, "first": 3, "last": 9}
EXPORT = {**QUERY, "what": "export", "format": "csv", "digest": "ab" * 32}


class NumberedIds:
    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"op-{self.count}"

    def secret(self) -> str:
        raise AssertionError


class Door:
    """The route over an in-memory log."""

    def __init__(self) -> None:
        self.audit = MemoryAuditLog()
        self.refused: list[str] = []
        digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ROLES}
        people = Humans(HumanEntry(name, ROLES[name], f"sha256:{digest[name]}") for name in ROLES)
        api = FastAPI()
        api.include_router(
            build_audit_access_router(
                admit=build_admit(people, self.refuse), record=self.audit.record, ids=NumberedIds()
            )
        )
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")

    async def refuse(self, _stage: str, reason: str) -> None:
        self.refused.append(reason)

    async def announce(self, body: object, who: str = "Aud") -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {who}"}
        return await self.client.post("/v1/audit/reads", content=content, headers=headers)

    def records(self) -> list[dict[str, Any]]:
        return [one for one in self.audit.records if one["type"].startswith("audit.")]


@pytest.fixture
def door() -> Door:
    return Door()


async def test_a_query_is_recorded_before_it_is_answered(door: Door) -> None:
    answer = await door.announce({**QUERY, "filters": "agent=bot"})
    assert answer.status_code == 200
    (read,) = door.records()
    assert answer.json()["seq"] == read["seq"]
    assert (read["type"], read["what"], read["op"]) == ("audit.read", "query", "op-1")
    assert (read["records"], read["first"], read["last"]) == (2, 3, 9)
    assert set(read["by"]) == set(read["purpose"]) == set(read["filters"]) == {"c", "bytes"}
    opened = {path: door.audit.read_opening(read["seq"], path) for path in ("by", "purpose")}
    assert opened == {"by": b"aud", "purpose": b"case 7"}
    assert door.audit.read_opening(read["seq"], "filters") == b"agent=bot"


async def test_an_export_is_recorded_with_its_digest(door: Door) -> None:
    assert (await door.announce(EXPORT, "adam")).status_code == 200
    (made,) = door.records()
    assert (made["type"], made["format"], made["digest"]) == ("audit.export", "csv", "ab" * 32)
    assert "what" not in made
    assert "filters" not in made


async def test_a_reading_without_a_record_found_has_no_place(door: Door) -> None:
    nothing = {"purpose": "p", "what": "opening", "records": 0}
    assert (await door.announce(nothing)).status_code == 200
    assert "first" not in door.records()[0]


async def test_only_auditors_and_admins_read_the_log(door: Door) -> None:
    assert (await door.announce(QUERY, "otto")).status_code == 403
    assert (await door.announce(QUERY, "mallory")).status_code == 401
    assert door.refused == ["token_invalid"]
    assert door.records() == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        {**QUERY, "purpose": " "},
        {**QUERY, "purpose": ""},
        {**QUERY, "what": "everything"},
        {**QUERY, "other": 1},
        {**QUERY, "last": None},
        {**QUERY, "records": 0},
        {**QUERY, "records": -1},
        {"purpose": "p", "what": "query", "records": 3},
        {**EXPORT, "digest": "AB"},
        {**EXPORT, "format": None},
        {**QUERY, "filters": {"agent": "bot"}},
    ],
)
async def test_what_does_not_fit_is_refused(door: Door, body: object) -> None:
    assert (await door.announce(body)).status_code == 400
    assert door.records() == []


async def test_a_large_body_is_refused(door: Door) -> None:
    assert (await door.announce(b" " * (BODY_MAX_BYTES + 1))).status_code == 413


async def test_nothing_may_be_read_when_the_log_cannot_be_written(door: Door) -> None:
    door.audit.poison()
    assert (await door.announce(QUERY)).status_code == 503


def test_no_record_of_a_reading_names_a_person_or_a_purpose() -> None:
    span = Span(1, 4, 4)
    read = build_read("o", by="Ann", purpose="x", what="opening", span=span)
    made = build_export("o", by="Ann", purpose="x", format="csv", digest="d", span=span)
    for entry in (read, made):
        assert b"ann" not in orjson.dumps(entry.fields).lower()
        assert {opening.subject for opening in entry.openings} == {"ann"}
