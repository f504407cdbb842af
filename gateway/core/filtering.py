"""What of a tool's answer may reach the agent: obligations applied to a CallToolResult."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.core.call import FilteredResult, UpstreamResult
from gateway.core.decision import Obligation
from gateway.core.pointer import replace

REDACTED: Final = "[redacted]"


def apply_obligations(answer: UpstreamResult, obligations: Sequence[Obligation]) -> FilteredResult:
    """Fulfil every obligation, or withhold the result.

    `redact` takes `pointers` into `structuredContent`; text that is JSON is redacted alike, and
    other text is replaced whole, because nobody can tell what it repeats. `limit_result` takes
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


def _withheld(answer: UpstreamResult, obligations: Sequence[Obligation]) -> FilteredResult:
    return FilteredResult(
        result=None,
        error=None,
        is_error=answer.is_error,
        withheld="result_withheld",
        applied=tuple(obligations),
    )


def _redact(raw: bytes, pointers: object) -> bytes | None:
    if not isinstance(pointers, list) or not all(isinstance(p, str) for p in pointers):
        return None
    try:
        body = orjson.loads(raw)
        if not isinstance(body, dict):
            return None
        structured = body.get("structuredContent")
        for pointer in pointers:
            replace(structured, pointer, REDACTED)
        blocks = body.get("content")
        body["content"] = (
            [_redact_block(block, pointers) for block in blocks] if isinstance(blocks, list) else []
        )
        body.pop("_meta", None)
    except ValueError:
        return None
    return orjson.dumps(body)


def _redact_block(block: Any, pointers: list[str]) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    if not isinstance(block, dict) or not isinstance(block.get("text"), str):
        return {"type": "text", "text": REDACTED}
    try:
        document = orjson.loads(block["text"])
    except ValueError:
        return {"type": "text", "text": REDACTED}
    if not isinstance(document, dict):
        return {"type": "text", "text": REDACTED}
    for pointer in pointers:
        replace(document, pointer, REDACTED)
    return {"type": "text", "text": orjson.dumps(document).decode()}
