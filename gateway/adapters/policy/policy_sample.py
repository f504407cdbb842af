"""A complete policy input of each phase, on which a bundle is tried before it is used."""

from __future__ import annotations

from typing import Any, Final

import orjson

SELF_TEST_TOOL: Final = "countersign-selftest.unreviewed"

_RESOURCE: Final[dict[str, Any]] = {
    "type": "tool",
    "id": SELF_TEST_TOOL,
    "server": "countersign-selftest",
    "effect": "unreviewed",
    "reversible": False,
    "idempotency": "none",
    "sensitive": [],
    "sensitive_out": [],
    "labels": [],
    "sinks": [],
    "texts": [],
    "sums": [],
    "definition_digest": "sha256:" + "0" * 64,
}
_CONTEXT: Final[dict[str, Any]] = {
    "now_ns": 1_700_000_000_000_000_000,
    "token": {
        "scopes": ["tools:call", "tools:list"],
        "constraints": [],
        "allowed_values": {},
        "depth": 0,
        "expires_in_s": 300,
        "origin": "launcher",
        "narrowed": [],
    },
    "run": {
        "id": "selftest",
        "workflow": "",
        "calls": 0,
        "step": 1,
        "counts": {},
        "sums": {},
        "labels": [],
        "egress": {"servers": {}, "classes": {}},
        "recent": [],
    },
    "family": {"counts": {}, "sums": {}, "last_24h": {"counts": {}, "sums": {}}},
    "budget": {},
    "client": {"id": "selftest"},
    "claimed": {},
    "approval": None,
}
_SUBJECT: Final[dict[str, Any]] = {
    "type": "agent",
    "id": "selftest",
    "version": "",
    "owner": "",
    "roles": [],
    "on_behalf_of": None,
    "act": [],
}
_RESULT: Final[dict[str, Any]] = {"is_error": False, "bytes": 2, "structured": None, "text": []}


def build_sample(phase: str) -> bytes:
    """Return an input of this phase about a tool that nobody reviewed, or for `issue` a run."""
    context: dict[str, Any] = dict(_CONTEXT)
    resource: dict[str, Any] = dict(_RESOURCE)
    action = "tools/call"
    if phase == "issue":
        resource, action = {"type": "run", "id": "selftest", "server": ""}, "runs/create"
    if phase != "list":
        context["args"] = {}
    if phase == "result":
        context["result"] = _RESULT
    return orjson.dumps(
        {
            "version": 1,
            "phase": phase,
            "environment": "selftest",
            "subject": _SUBJECT,
            "action": {"name": action},
            "resource": resource,
            "context": context,
        }
    )
