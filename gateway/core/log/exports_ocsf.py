"""Records as events of the Open Cybersecurity Schema Framework: API Activity (6003), schema 1.8.0.

With the profile `security_control`, for what was decided. What the schema has no place for stands
under `unmapped`; `raw_data` is the record's line, whose leaf hash is `metadata.uid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.core.log.audit_filter import reasons_of
from gateway.core.log.exports import Line

VERSION: Final = "1.8.0"
"""The schema that events are of (ocsf/ocsf-schema, tag 1.8.0)."""

CLASS_UID: Final = 6003
_OTHER: Final = 99
_ACTIVITIES: Final = {"create": 1, "read": 2, "update": 3, "delete": 4}
_TYPES: Final = {
    "run.create": "create",
    "token.issue": "create",
    "authorization.grant": "create",
    "client.register": "create",
    "policy.activate": "update",
    "config.change": "update",
    "key.rotate": "update",
    "token_key.change": "update",
    "token.revoke": "delete",
    "kill.set": "update",
    "kill.lift": "update",
    "registry.change": "update",
    "human.change": "update",
    "redact": "delete",
    "tools.list": "read",
    "audit.read": "read",
    "audit.export": "read",
}
"""What a record does that is about no call."""

_ACTIONS: Final = {"permit": (1, "Allowed"), "deny": (2, "Denied"), "hold": (_OTHER, "Held")}
_DISPOSITIONS: Final = {
    "permit": (1, "Allowed"),
    "deny": (2, "Blocked"),
    "hold": (14, "Delayed"),
}
_FAILED: Final = frozenset(
    {"authorization.refused", "call.refused", "run.refused", "token.refused"}
)
_SUCCESS, _FAILURE, _UNKNOWN = (1, "Success"), (2, "Failure"), (0, "Unknown")
_SEVERITIES: Final = {"call.orphan": 3, "clock.step": 3, **dict.fromkeys(_FAILED, 2)}
_GATEWAY: Final = "countersign"
_PRODUCT: Final = {"name": "Countersign", "vendor_name": "Countersign"}


def write_ocsf(line: Line) -> bytes:
    """Return a record as one OCSF event, JSON ended by LF."""
    return orjson.dumps(build_event(line)) + b"\n"


def build_event(line: Line) -> dict[str, Any]:
    """Return a record as one OCSF event."""
    kind = line.text("type")
    activity, name = _activity(line, kind)
    status, status_name = _status(line, kind)
    ts = line.record.get("ts")
    event = {
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": CLASS_UID,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": name,
        "type_uid": CLASS_UID * 100 + activity,
        "type_name": f"API Activity: {name if activity != _OTHER else 'Other'}",
        "time": ts // 1000 if isinstance(ts, int) else 0,
        "severity_id": _SEVERITIES.get(kind, 1),
        "status_id": status,
        "status": status_name,
        "status_code": line.text("reason"),
        "status_detail": " ".join(reasons_of(line.record)),
        "metadata": _metadata(line, kind),
        "actor": _actor(line),
        "src_endpoint": {"name": line.text("actor", "client") or line.text("client") or _GATEWAY},
        "api": _api(line, kind),
        "raw_data": line.raw.decode(),
        "unmapped": {"log": line.text("log"), "seq": line.record.get("seq"), "leaf": line.leaf},
        **_target(line),
        **_control(line),
    }
    return {key: value for key, value in event.items() if value is not None and value != ""}


def _activity(line: Line, kind: str) -> tuple[int, str]:
    effect = _TYPES.get(kind) or line.text("tool", "effect")
    if effect in _ACTIVITIES:
        return _ACTIVITIES[effect], effect.capitalize()
    return _OTHER, effect or kind


def _status(line: Line, kind: str) -> tuple[int, str]:
    if kind in _FAILED:
        return _FAILURE
    if kind == "call.outcome":
        if line.text("delivery") == "unknown":
            return _UNKNOWN
        return _SUCCESS if line.text("status") == "ok" else _FAILURE
    return _UNKNOWN if kind.startswith(("call.", "approval.")) else _SUCCESS


def _metadata(line: Line, kind: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "profiles": ["security_control"],
        "product": _PRODUCT,
        "uid": line.leaf,
        "original_event_uid": line.text("seq"),
        "sequence": line.record.get("seq"),
        "event_code": kind,
        "correlation_uid": line.text("op"),
        "log_name": line.text("log"),
        "log_provider": _GATEWAY,
        "log_version": "countersign.audit/v1",
        "original_time": line.time,
    }


def _actor(line: Line) -> dict[str, Any]:
    agent = line.text("actor", "agent") or line.text("agent")
    run = line.text("actor", "run") or line.text("run")
    actor: dict[str, Any] = {"app_name": agent or _GATEWAY}
    if agent:
        actor["app_uid"] = agent
    if run:
        actor["session"] = {"uid": run}
    return actor


def _api(line: Line, kind: str) -> dict[str, Any]:
    api: dict[str, Any] = {"operation": line.text("tool", "id") or kind}
    if op := line.text("op"):
        api["request"] = {"uid": op}
    if server := line.text("tool", "server"):
        api["service"] = {"name": server}
    if kind == "call.outcome":
        reason = line.text("reason")
        response = {"message": line.text("status"), **({"error": reason} if reason else {})}
        api["response"] = response
    return api


def _target(line: Line) -> dict[str, Any]:
    tool = line.text("tool", "id")
    if not tool:
        return {}
    resource = {"uid": tool, "name": tool, "type": "tool"}
    server = line.text("tool", "server")
    return {"resources": [resource], **({"dst_endpoint": {"svc_name": server}} if server else {})}


def _control(line: Line) -> dict[str, Any]:
    """Return what policy decided, and by which bundle."""
    outcome = line.text("decision", "outcome")
    if outcome not in _ACTIONS:
        return {}
    action, disposition = _ACTIONS[outcome], _DISPOSITIONS[outcome]
    rev = line.text("policy", "rev")
    policy: Mapping[str, object] = {"name": "bundle", "uid": rev, "is_applied": True}
    return {
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "authorizations": [{"decision": outcome}],
        **({"policy": policy} if rev else {}),
    }
