"""What of an opened value people see who need not see all of it (issue AUD-06).

Reviewers say in a manifest which arguments, and which parts of an answer, are sensitive, policies
which parts of a result an agent must not see. All of that is hidden here, too, from everyone who
has not asked for the whole value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.core.calls.rewriting import change_at, hide_at
from gateway.core.pointer import split

MASKED: Final = "[masked]"
_WHOLE: Final = orjson.dumps(MASKED)
_HARMLESS: Final = frozenset(
    {"add_label", "annotate", "limit", "limit_result", "notify", "require_idempotency_key"}
)
"""Obligations that hide nothing of a result that was handed out."""

_ANSWERS: Final = frozenset({"content", "structuredContent"})
"""Members of which a result has one at least."""


def mask_arguments(value: bytes, pointers: Iterable[str] | None) -> bytes:
    """Return arguments (JSON) without what `pointers` lead to; nothing where they are not known."""
    document = _load(value)
    if document is None or pointers is None:
        return _WHOLE
    return orjson.dumps(_without(document, pointers))


def mask_input(value: bytes, pointers: Iterable[str] | None) -> bytes:
    """Return a policy input with its arguments masked as `mask_arguments` does, and no result."""
    document = _load(value)
    context = document.get("context") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(context, dict):
        return _WHOLE
    shown = dict(context)
    if "args" in shown:
        shown["args"] = MASKED if pointers is None else _without(shown["args"], pointers)
    if "result" in shown:
        shown["result"] = MASKED
    return orjson.dumps({**document, "context": shown})


def mask_result(value: bytes, outcome: Mapping[str, Any]) -> bytes:
    """Return a result, or nothing of it where policy hid any part from the agent.

    The record says that something was hidden, and not where: so all of it is hidden here.
    """
    obligations = outcome.get("obligations")
    types = obligations if isinstance(obligations, list) else []
    is_hidden = outcome.get("status") == "withheld" or not _HARMLESS.issuperset(map(str, types))
    return _WHOLE if is_hidden else value


def mask_output(value: bytes, pointers: Sequence[str] | None) -> bytes:
    """Return a result without what `pointers` lead to, nor texts that could repeat it.

    Nothing of it where they are not known, or where it is none (an error may quote anything).
    """
    if pointers is not None and not pointers:
        return value
    document = _load(value)
    if pointers is None or not isinstance(document, dict) or not _ANSWERS & document.keys():
        return _WHOLE
    try:
        return hide_at(value, pointers, lambda _value: MASKED) or _WHOLE
    except ValueError:  # no pointer: what it was meant to hide is not known
        return _WHOLE


def read_sensitive(value: bytes | None) -> tuple[str, ...] | None:
    """Return the pointers that a recorded policy input names as sensitive; None without any."""
    return _read_pointers(value, "sensitive")


def read_sensitive_out(value: bytes | None) -> tuple[str, ...] | None:
    """Return the pointers into answers that a recorded policy input names; None without any."""
    return _read_pointers(value, "sensitive_out")


def _read_pointers(value: bytes | None, member: str) -> tuple[str, ...] | None:
    document = None if value is None else _load(value)
    resource = document.get("resource") if isinstance(document, dict) else None
    found = resource.get(member) if isinstance(resource, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _load(value: bytes) -> Any:  # noqa: ANN401 - JSON has any type
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def _without(document: Any, pointers: Iterable[str]) -> Any:  # noqa: ANN401 - any JSON
    for pointer in pointers:
        try:
            document = change_at(document, split(pointer), lambda _value: MASKED)
        except ValueError:  # no pointer: what it was meant to hide is not known
            return MASKED
    return document
