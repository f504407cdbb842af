"""A kill switch over the shipped twins, with a clock moved by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_kills import MemoryKills
from gateway.core.errors import CountersignError
from gateway.core.kills.kill import Kill, read_kill
from gateway.core.tokens.token import Claims
from gateway.kill_switch import KillSwitch
from tests.fixed import NOW_S, CountingIds, HandClock


class FailingKills(MemoryKills):
    """A store that does not answer while told to."""

    failing = False
    loads = 0

    async def put(self, kill: Kill) -> int:
        self._check()
        return await super().put(kill)

    async def end(self, kill_ids: Sequence[str]) -> int:
        self._check()
        return await super().end(kill_ids)

    async def drop(self, kill_ids: Sequence[str]) -> int:
        self._check()
        return await super().drop(kill_ids)

    async def load(self, known: int | None) -> tuple[int, list[Kill]] | None:
        self._check()
        found = await super().load(known)
        self.loads += found is not None
        return found

    def _check(self) -> None:
        if self.failing:
            raise CountersignError("as asked", code="state_unavailable", retryable=True)


def build_claims(**changes: object) -> Claims:
    """A token of `worker`, in run `run-1` of `lars`, for olga."""
    claims = Claims(
        issuer="https://gw.example",
        audience="https://gw.example",
        subject="worker",
        client_id="lars",
        jti="jti-1",
        issued_at=NOW_S,
        expires_at=NOW_S + 300,
        scopes=frozenset({"tools:call"}),
        grants=(),
        environment="test",
        run_id="run-1",
        root_jti="run-1",
        sid="run-1",
        on_behalf_of="olga",
    )
    return replace(claims, **changes)


class Place:
    """State and logs that outlive a gateway; `switch` starts one over them."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = FailingKills()
        self.log = MemoryAuditLog(now_us=lambda: self.clock.ns // 1000)
        self._starts = itertools.count(1)

    def build(self, log: MemoryAuditLog | None = None) -> KillSwitch:
        return KillSwitch(
            store=self.store,
            log=log or self.log,
            clock=self.clock,
            ids=CountingIds(next(self._starts) << 64),
            credentials=lambda server: (f"env:{server.upper()}_TOKEN",),
        )

    async def start(self, log: MemoryAuditLog | None = None) -> KillSwitch:
        switch = self.build(log)
        await switch.start(self.recorded(log))
        return switch

    async def stored(self) -> list[Kill]:
        """What the state holds."""
        return (await self.store.load(None) or (0, []))[1]

    def recorded(self, log: MemoryAuditLog | None = None) -> Mapping[str, Kill | None]:
        """What the log says of kills, as recovery reads it."""
        found: dict[str, Kill | None] = {}
        for record in (log or self.log).records:
            if record["type"] in {"kill.set", "token.revoke"} and (kill := read_kill(record)):
                found[kill.id] = kill
            elif record["type"] == "kill.lift":
                found[record["kill"]] = None
        return found

    def kinds(self, log: MemoryAuditLog | None = None) -> list[str]:
        """The types of the records after the two that begin a log."""
        return [record["type"] for record in (log or self.log).records][2:]


@pytest.fixture
def place() -> Place:
    return Place()
