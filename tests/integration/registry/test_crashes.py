"""State and log agree, wherever a change was cut off: the real store under the real log."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_registry import SqlRegistry
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock, SystemIds
from gateway.core.people.registry import Member
from gateway.core.people.registry_checks import Deployment
from gateway.core.ports import OutboxEvent
from gateway.core.tokens.clients import Agent
from gateway.http.registry_desk import RegistryDeps, RegistryDesk
from tests.patience import PATIENT
from tests.unit.registry.desk import human

pytestmark = pytest.mark.req("TOK-01")
OF_FILE = [human("ada", "admin"), Member(kind="agent", body=Agent(id="bot"), origin="file")]


class CrashError(Exception):
    """The process is gone."""


class Crashing(SqlRegistry):
    """Ends before or after one of its steps."""

    crash: str = ""

    def _at(self, step: str) -> None:
        if self.crash == step:
            raise CrashError

    async def commit(self, event: OutboxEvent, **kept: object) -> None:
        self._at("before commit")
        await super().commit(event, **kept)  # type: ignore[arg-type]
        self._at("after commit")

    async def relayed(self, event_ids: Sequence[str]) -> None:
        if event_ids:
            self._at("after the log")
        await super().relayed(event_ids)
        if event_ids:
            self._at("after all")


class House:
    """One gateway's registry, started as often as it takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = Ed25519PrivateKey.generate()

    @contextlib.asynccontextmanager
    async def start(self, crash: str = "") -> AsyncIterator[RegistryDesk]:
        state = SqlState(f"sqlite:///{self._folder / 'state.db'}")
        await state.open(environment="test", log_origin="test.example/log")
        audit = FileAuditLog.open(
            self._folder / "audit",
            origin="test.example/log",
            signer=self._key,
            kek=bytes(32),
            clock=SystemClock(),
            limits=PATIENT,
            deployment={"environment": "test"},
        )
        await audit.start()
        store = Crashing(state)
        desk = RegistryDesk(
            RegistryDeps(
                store=store,
                relay=OutboxRelay(store, audit).drain,
                key_id=audit.key_id,
                changed=lambda _member: None,
                deployment=Deployment(environment="test", servers=frozenset()),
                clock=SystemClock(),
                ids=SystemIds(),
            )
        )
        try:
            self.older = (await desk.start(OF_FILE, audit.recovered.registered))[1]
            store.crash = crash
            with contextlib.suppress(CrashError):
                yield desk
        finally:
            await audit.close()
            await state.close()

    def changes(self) -> list[tuple[str, str]]:
        records = read_records(self._folder / "audit")
        found = [one for one in records if one["type"] == "registry.change"]
        return [(one["entry"], one["change"]) for one in found]

    def forget(self) -> None:
        """Put back a state from before anything was registered."""
        for path in self._folder.glob("state.db*"):
            path.unlink()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize(
    ("crash", "made"),
    [
        ("before commit", False),
        ("after commit", True),
        ("after the log", True),
        ("after all", True),
    ],
)
async def test_after_a_crash_at_any_step_state_and_log_say_the_same(
    house: House, crash: str, *, made: bool
) -> None:
    async with house.start(crash) as desk:
        await desk.create("ada", "agent", Agent(id="sub"), secret=False, reason="")
    for _ in range(2):
        async with house.start() as desk:
            assert desk.registry.is_active_agent("sub") is made
        assert house.changes() == ([("agent:sub", "create")] if made else [])
        assert house.older == []


@pytest.mark.parametrize("crash", ["after commit", "after the log", "after all"])
async def test_a_stop_that_was_kept_holds_after_the_crash(house: House, crash: str) -> None:
    async with house.start(crash) as desk:
        await desk.step("ada", "agent", "bot", "suspend", "case 7")
    async with house.start() as desk:
        assert not desk.registry.is_active_agent("bot")
    assert house.changes() == [("agent:bot", "suspend")]


async def test_a_state_from_a_backup_lets_nobody_back_in(house: House) -> None:
    async with house.start() as desk:
        await desk.step("ada", "agent", "bot", "suspend", "case 7")
    house.forget()
    async with house.start() as desk:
        assert house.older == ["bot"]
        assert not desk.registry.is_active_agent("bot")
        await desk.step("ada", "agent", "bot", "resume", "looked at")
    async with house.start() as desk:
        assert house.older == []
        assert desk.registry.is_active_agent("bot")
