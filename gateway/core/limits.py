"""Every limit of the call path, named, with its unit."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Bounds that hold for every call. Sizes in bytes, times in milliseconds unless named else."""

    body_max_bytes: int = 327_680
    arguments_max_bytes: int = 262_144
    claimed_max_bytes: int = 4_096
    json_max_depth: int = 64
    result_max_bytes: int = 8_388_608
    watched_result_max_bytes: int = 262_144
    tool_name_max_chars: int = 64
    policy_deadline_ms: int = 50
    audit_wait_ms: int = 500
    audit_queue_max: int = 10_000
    record_max_bytes: int = 16_384
    upstream_timeout_ms: int = 60_000
    access_token_max_s: int = 300
    reasons_max: int = 32
    reason_max_bytes: int = 256
    pending_per_agent_max: int = 100
    shown_cache_max: int = 4096
    strangers_per_window_max: int = 20
    inline_wait_ms: int = 0
