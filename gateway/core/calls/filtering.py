"""What of a tool's answer may reach the agent: obligations applied to a CallToolResult."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.core.calls.call import FilteredResult, Status, UpstreamResult
from gateway.core.pointer import split
from gateway.core.policy.decision import Obligation

REDACTED: Final = "[redacted]"
_INDEX_MAX_CHARS: Final = 9


def apply_obligations(answer: UpstreamResult, obligations: Sequence[Obligation]) -> FilteredResult:
    """Fulfil every obligation, or withhold the result.

    `redact` takes `pointers` into `structuredContent`; text that is the same JSON is redacted
    alike, and other text is replaced whole, because nobody can tell what it repeats. Where a result
    has no structured content, the pointers lead into each text that is JSON. `limit_result` takes
    `max_bytes`. `annotate` asks nothing of the result. A redacting obligation hides errors too.
    """
    result, error = answer.result, answer.error
    for obligation in obligations:
        match obligation.type:
            case "redact":
                if error is not None or result is None:
                    return _withheld(answer, obligations)
                result = _redact(result, obligation.spec.get("pointers"))
            case "limit_result":
                limit = obligation.spec.get("max_bytes")
                if not isinstance(limit, int) or len(result or error or b"") > limit:
                    return _withheld(answer, obligations)
            case "annotate":
                pass
            case _:  # INVARIANT: an obligation that is not understood withholds
                return _withheld(answer, obligations)
        if result is None and error is None:
            return _withheld(answer, obligations)
    return FilteredResult(
        result=result, error=error, is_error=answer.is_error, applied=tuple(obligations)
    )


def withhold(code: str | None) -> FilteredResult:
    """Nothing of an answer, or no answer at all; `code` says why."""
    return FilteredResult(result=None, error=None, is_error=True, withheld=code or "internal_error")


def status_of(answer: UpstreamResult | None, filtered: FilteredResult) -> Status:
    """How a call ended, as its outcome is recorded."""
    if answer is None:
        return "failed"
    if filtered.withheld is not None:
        return "withheld"
    return "tool_error" if answer.is_error or answer.error is not None else "ok"


def _withheld(answer: UpstreamResult, obligations: Sequence[Obligation]) -> FilteredResult:
    return FilteredResult(
        result=None,
        error=None,
        is_error=answer.is_error,
        withheld="result_withheld",
        applied=tuple(obligations),
    )


def _redact(raw: bytes, pointers: object) -> bytes | None:
    """Return the result with nothing at `pointers`, and with nothing that could repeat it.

    INVARIANT: what is kept was looked into. Members and blocks of other kinds are left out.
    """
    if not isinstance(pointers, list) or not all(isinstance(p, str) for p in pointers):
        return None
    try:
        body = orjson.loads(raw)
        paths = [split(pointer) for pointer in pointers]
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    structured, blocks = body.get("structuredContent"), body.get("content")
    known = None if structured is None else orjson.dumps(structured, option=orjson.OPT_SORT_KEYS)
    kept: dict[str, Any] = {
        "content": [
            {"type": "text", "text": _redact_text(block, paths, known)}
            for block in (blocks if isinstance(blocks, list) else ())
        ]
    }
    if structured is not None:
        kept["structuredContent"] = _without(structured, paths)
    if "isError" in body:
        kept["isError"] = body["isError"] is not False
    return orjson.dumps(kept)


def _redact_text(block: object, paths: Sequence[tuple[str, ...]], known: bytes | None) -> str:
    """Return what may be seen of a block: JSON that repeats or replaces the structured content.

    Any other text could say what is redacted, at a place of its own.
    """
    text = block.get("text") if isinstance(block, dict) else None
    try:
        document = orjson.loads(text) if isinstance(text, str) else None
    except ValueError:
        return REDACTED
    if not isinstance(document, dict):
        return REDACTED
    if known is not None and orjson.dumps(document, option=orjson.OPT_SORT_KEYS) != known:
        return REDACTED
    return orjson.dumps(_without(document, paths)).decode()


def _without(document: Any, paths: Sequence[tuple[str, ...]]) -> Any:  # noqa: ANN401 - any JSON
    for path in paths:
        document = _blot(document, path)
    return document


def _blot(value: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
    """Return `value` with what `path` leads to replaced.

    Where the shape is not the one that the path supposes, the last value on the way is replaced.
    """
    if not path:
        return REDACTED
    name, rest = path[0], path[1:]
    if value is None:
        return None
    if isinstance(value, dict):
        return value if name not in value else {**value, name: _blot(value[name], rest)}
    if isinstance(value, list) and name.isascii() and name.isdigit():
        index = int(name[:_INDEX_MAX_CHARS])
        return [_blot(item, rest) if at == index else item for at, item in enumerate(value)]
    return REDACTED
