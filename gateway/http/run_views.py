"""Runs on the wire, for launchers and for people."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request

from gateway.core import strict_json
from gateway.core.errors import RequestError
from gateway.core.tokens.token import Run
from gateway.http.client_auth import read_body

BODY_MAX_BYTES: Final = 16_384


class CloseBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/close`: how it ended, as its launcher or an operator sees it."""

    outcome: Literal["done", "failed", "cancelled"] = "done"
    reason: str = ""


async def read_close(request: Request) -> CloseBody:
    """Return how a run ended; `done` where nothing is said. Raises `RequestError`."""
    raw = await read_body(request, BODY_MAX_BYTES)
    if not raw:
        return CloseBody()
    try:
        return msgspec.convert(strict_json.parse(raw, max_depth=1), CloseBody)
    except msgspec.ValidationError as error:
        text = f"the body does not fit: {str(error)[:200]}"
        raise RequestError(text, code="request_invalid") from None


def view_run(run: Run, now_ns: int) -> dict[str, Any]:
    """Return a run as launchers and people see it; its credential is nowhere in it."""
    over = now_ns // 1_000_000_000 >= run.deadline
    return {
        "run_id": run.id,
        "agent": run.agent,
        "launcher": run.launcher,
        "state": "ended" if run.ended else "expired" if over else "active",
        "grants": msgspec.to_builtins(run.grants),
        "allowed_values": run.allowed_values,
        "created_at": run.created_at,
        "deadline": run.deadline,
        "workflow": run.workflow,
        "origin": run.origin,
        "on_behalf_of": run.on_behalf_of,
        "budget": msgspec.to_builtins(run.budget),
        "labels": list(run.labels),
        "max_depth": run.max_depth,
        "may_act": run.may_act,
        "outcome": run.outcome,
    }
