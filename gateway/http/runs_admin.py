"""Runs as people see them: all of them, what each has spent, and the end of one (`/v1/runs`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi import Request
from starlette.responses import Response

from gateway.core.calls.family import Family
from gateway.core.calls.ledger import Ledger, view_budget
from gateway.core.errors import RequestError
from gateway.core.ports import Clock, RunStore
from gateway.core.tokens.token import Run
from gateway.http.admin_route import REASON_MAX_CHARS, reply, require_role, tell
from gateway.http.humans import Admit
from gateway.http.run_views import read_close, view_run

LIST_MAX: Final = 1_000
READERS: Final = ("operator", "auditor", "admin")
CLOSERS: Final = ("operator", "admin")


class Closer(Protocol):
    """Ends runs: `IssueDesk`."""

    async def close(self, run: Run, outcome: str, *, by: str = "", reason: str = "") -> Run:
        """End a run, durably and on record."""
        ...


def is_person(request: Request) -> bool:
    """Whether a person asks: launchers prove themselves by Basic, or an assertion, with dots."""
    header = request.headers.get("authorization", "")
    return header.lower().startswith("bearer ") and "." not in header


@dataclass(frozen=True, kw_only=True)
class RunsDesk:
    """What people may do with runs."""

    admit: Admit
    runs: RunStore
    ledger: Ledger
    closer: Closer
    clock: Clock

    async def find(self, request: Request) -> Response:
        """List runs, newest first: `agent`, `client`, `all=true` for those that have ended."""
        await require_role(self.admit, request, *READERS)
        asked = request.query_params
        now_ns = self.clock.now_ns()
        found = await self.runs.find_runs(
            now_s=now_ns // 1_000_000_000,
            live=asked.get("all") != "true",
            agent=asked.get("agent", ""),
            launcher=asked.get("client", ""),
            limit=LIST_MAX + 1,
        )
        views = [view_run(run, now_ns) for run in found[:LIST_MAX]]
        return reply({"runs": views, "more": len(found) > LIST_MAX})

    async def show(self, request: Request, run_id: str) -> Response:
        """Show one run and what its whole family has spent."""
        await require_role(self.admit, request, *READERS)
        run = await self.runs.get_run(run_id)
        if run is None:
            return tell("run_unknown", "there is no such run")
        now_ns = self.clock.now_ns()
        return reply({**view_run(run, now_ns), "spent": self._spent(run, now_ns)})

    async def close(self, request: Request, run_id: str) -> Response:
        """End a run."""
        human = await require_role(self.admit, request, *CLOSERS)
        body = await read_close(request)
        if not body.reason.strip() or len(body.reason) > REASON_MAX_CHARS:
            raise RequestError("say why in `reason`", code="request_invalid")
        run = await self.runs.get_run(run_id)
        if run is None:
            return tell("run_unknown", "there is no such run")
        closed = await self.closer.close(run, body.outcome, by=human.id, reason=body.reason)
        return reply(view_run(closed, self.clock.now_ns()))

    def _spent(self, run: Run, now_ns: int) -> Mapping[str, Any] | None:
        """What a run has spent; None for one that is over, whose totals were forgotten."""
        family = self.ledger.find(run.id)
        if family is None and now_ns // 1_000_000_000 >= run.deadline:
            return None
        family = family or Family(run.id)
        return {**family.view(), "budget": view_budget(run.budget, family)}
