"""A policy input as bytes, and the little of it that says who is to be heard about it."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.policy.decision import Phase


class Asked(Struct, frozen=True):
    """A policy input (JSON), and what of it says who is to be heard."""

    document: bytes
    phase: Phase
    tool_id: str = ""
    server: str = ""
    effect: str = ""
    agent: str = ""
    spec_digest: str | None = None


class _Resource(Struct, frozen=True):
    id: str = ""
    server: str = ""
    effect: str = ""


class _Subject(Struct, frozen=True):
    id: str = ""


class _Approval(Struct, frozen=True):
    spec_digest: str | None = None


class _Context(Struct, frozen=True):
    approval: _Approval | None = None


class _Document(Struct, frozen=True):
    phase: Phase
    subject: _Subject = _Subject()
    resource: _Resource = _Resource()
    context: _Context = _Context()


_decode: Final = msgspec.json.Decoder(_Document).decode


def read_asked(document: bytes) -> Asked:
    """Return a policy input with what routes it. Raises `ValueError` for what is none."""
    found = _decode(document)
    resource, approval = found.resource, found.context.approval
    return Asked(
        document,
        found.phase,
        resource.id,
        resource.server,
        resource.effect,
        found.subject.id,
        None if approval is None else approval.spec_digest,
    )
