"""What rules put into the decision sets, as far as it is written out.

An answer that the gateway does not understand is a deny, whatever the author meant. Where an item
is written as an object, that is seen here, with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import Node, head_of, place, unwrap, whole_span
from gateway.core.policy.decision import OBLIGATIONS

_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REASONS: Final = ("permit", "deny", "hold")


def find_item_faults(source: Source) -> Iterator[Mistake]:
    """Yield items without a usable code, and obligations that nobody enforces."""
    for rule in source.module.tree:
        kind, head = head_of(rule)
        name = unwrap(head["refr"])[1].get("value")
        if kind != "Set" or unwrap(head["key"])[0] != "Object":
            continue
        members = _members(head["key"])
        if name in _REASONS:
            yield from _code_faults(source, head["key"], members)
        elif name == "obligation":
            yield from _type_faults(source, head["key"], members)


def _members(item: Node) -> dict[str, Node]:
    """Return the members whose names are written out."""
    fields = unwrap(item)[1]["fields"]
    named = ((unwrap(field[-2]), field[-1]) for field in fields)
    return {
        body["value"]: value for (kind, body), value in named if kind in {"String", "RawString"}
    }


def _code_faults(source: Source, item: Node, members: dict[str, Node]) -> Iterator[Mistake]:
    hint = 'write `"code": "why_it_is_so"`: `[a-z][a-z0-9_]*`, at most 64 characters'
    if "code" not in members:
        yield _fault(source, item, "code_invalid", "the item has no `code`", hint)
        return
    kind, body = unwrap(members["code"])
    if kind == "String" and _CODE.fullmatch(body["value"]) is None:
        message = f"the code `{body['value'][:64]}` cannot be told to an agent"
        yield _fault(source, members["code"], "code_invalid", message, hint)


def _type_faults(source: Source, item: Node, members: dict[str, Node]) -> Iterator[Mistake]:
    known = f"use one of {', '.join(sorted(OBLIGATIONS))}"
    if "type" not in members:
        message = "the obligation has no `type`"
        yield _fault(source, item, "obligation_unknown", message, known)
        return
    kind, body = unwrap(members["type"])
    if kind == "String" and body["value"] not in OBLIGATIONS:
        near = get_close_matches(body["value"], OBLIGATIONS, n=1)
        message = f"the gateway does not know the obligation `{body['value'][:64]}`, and would deny"
        hint = f"did you mean `{near[0]}`?" if near else known
        yield _fault(source, members["type"], "obligation_unknown", message, hint)


def _fault(source: Source, node: Node, code: str, message: str, hint: str) -> Mistake:
    row, col = place(
        source.text.encode(), whole_span({"span": unwrap(node)[1]["span"], "of": node})
    )
    return Mistake(source.path, row, col, code, message, hint)
