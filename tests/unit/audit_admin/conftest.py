"""The admin API of a log over in-memory twins, and its people."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_holds import MemoryHolds
from gateway.core.entry import Entry, Opening, Receipt
from gateway.custody import Custody, rotate_key
from gateway.http.audit_admin import AuditAdminDeps, build_audit_admin_routers
from gateway.http.humans import HumanEntry, Humans, build_admit
from tests.fixed import NOW_S, CountingIds, FixedClock

ROLES = {
    "ada": ("admin",),
    "abe": ("admin",),
    "ADA": ("admin",),
    "aud": ("auditor",),
    "otto": ("operator",),
    "ann": ("approver",),
}


class Keys:
    """A log whose key changes when told, and nothing more."""

    def __init__(self) -> None:
        self.epoch_us = NOW_S * 1_000_000
        self.epochs: tuple[str, ...] = ("first-key",)
        self.entries: list[Entry] = []

    async def rotate_key(self, entry: Entry, now_us: int) -> Receipt:
        self.entries.append(entry)
        self.epochs += (f"key-{len(self.epochs)}",)
        self.epoch_us = now_us
        return Receipt(len(self.entries), bytes(32))


class Desk:
    """The API, and what came of it."""

    def __init__(self) -> None:
        self.clock, self.ids = FixedClock(), CountingIds()
        self.log, self.holds, self.keys = MemoryAuditLog(), MemoryHolds(), Keys()
        self.sensitive: dict[str, Sequence[str]] = {"pay.transfer": ("/iban",)}
        self.sensitive_out: dict[str, Sequence[str]] = {"pay.transfer": ()}
        self.custody = Custody(
            log=self.log,
            holds=self.holds,
            clock=self.clock,
            ids=self.ids,
            sensitive=self.sensitive.get,
            sensitive_out=self.sensitive_out.get,
        )
        people = Humans(
            HumanEntry(name, roles, "sha256:" + hashlib.sha256(secret_of(name)).hexdigest())
            for name, roles in ROLES.items()
        )
        deps = AuditAdminDeps(
            custody=self.custody,
            keys=self.keys,
            rotate=lambda by: rotate_key(self.keys, self.clock, self.ids, "command", by),
            key_max_age_h=24,
            admit=build_admit(people, self._refuse),
        )
        api = FastAPI()
        self.routers = build_audit_admin_routers(deps)
        for router in self.routers:
            api.include_router(router)
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")

    async def _refuse(self, stage: str, reason: str) -> None:
        """Nothing is recorded here."""

    async def post(self, who: str, route: str, /, **body: object) -> httpx.Response:
        return await self.client.post(route, json=body, headers=auth(who))

    async def get(self, who: str, path: str) -> httpx.Response:
        return await self.client.get(path, headers=auth(who))

    async def keep(self, subject: str = "olga", **openings: bytes) -> int:
        """Record a call of `subject` with these values; return the record's number."""
        entry = Entry(
            type="call.intent",
            op=self.ids.new(),
            fields={"tool": {"id": "pay.transfer"}},
            openings=tuple(
                Opening(path.replace("__", "."), value, subject)
                for path, value in (openings or {"args": b'{"iban":"DE1","note":"x"}'}).items()
            ),
        )
        return (await self.log.record(entry)).seq

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        return [record for record in self.log.records if not kinds or record["type"] in kinds]


def secret_of(name: str) -> bytes:
    return f"secret-of-{name}".encode()


def auth(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret_of(who).decode()}"}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.client.aclose()
