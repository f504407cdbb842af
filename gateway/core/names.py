"""Names of tools: one identity, three spellings (DESIGN §2).

A tool of server `billing` named `refund` upstream is `billing.refund` in policy and
`billing__refund` on the wire, because model APIs accept only `[A-Za-z0-9_-]{1,64}`.
"""

from __future__ import annotations

import re
from typing import Final

SERVER_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
WIRE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
RESERVED_PREFIX: Final = "countersign_"
STATUS_TOOL: Final = "countersign_approval_status"
"""The read-only tool by which an agent asks after a held call."""


def build_policy_id(server: str, tool: str) -> str:
    """`billing`, `refund` → `billing.refund`."""
    return f"{server}.{tool}"


def build_wire_name(server: str, tool: str, *, prefix: bool) -> str:
    """`billing`, `refund` → `billing__refund`, or the bare name where `prefix` is off."""
    return f"{server}__{tool}" if prefix else tool


def is_server_id(text: str) -> bool:
    """Whether `text` may name a server."""
    return SERVER_ID.fullmatch(text) is not None


def is_wire_name(text: str) -> bool:
    """Whether `text` may name a tool to a model API and is not reserved for the gateway."""
    return WIRE_NAME.fullmatch(text) is not None and not text.startswith(RESERVED_PREFIX)
