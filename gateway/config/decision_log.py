"""Where decisions are logged besides, for those who read OPA's decision logs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.config.base import LocalPath, SecretFrom, Section, Whole
from gateway.core.policy.decision_event import MASK

Mask = Annotated[str, StringConstraints(pattern=r"^/(input|result)(/([^~/]|~[01])*)+$")]


class DecisionLogSection(Section):
    """A copy of every decision in OPA's format; off unless it has a `file` or a `url`."""

    file: LocalPath | None = Field(None, description="a file that JSON lines are appended to")
    rotate_bytes: Whole = Field(
        100_000_000, ge=1_000_000, description="past so many bytes a new file is begun, from 1 MB"
    )
    keep: Whole = Field(5, ge=0, le=100, description="older files that are kept, 0 to 100")
    url: str | None = Field(
        None,
        pattern=r"^(https://[^\s@]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/[^\s@]*)?)$",
        description="`https://…` (http only on loopback) that takes POSTs as OPA sends them",
    )
    token_from: SecretFrom | None = Field(
        None, description="a bearer token for `url`, `env:NAME` or `file:PATH`"
    )
    mask: tuple[Mask, ...] = Field(
        MASK, max_length=64, description="JSON Pointers below `/input` and `/result` to leave out"
    )
