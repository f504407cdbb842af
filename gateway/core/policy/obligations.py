"""Obligations: what the gateway must do for an answer of policy to hold (DESIGN §3).

INVARIANT: an obligation whose words are not exactly those below is not understood, and an answer
that is not understood is a deny, before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from gateway.core.pointer import split

_WINDOW: Final = re.compile(r"([1-9][0-9]{0,4})([smh])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600}
_WINDOW_MAX_S: Final = 86_400
WINDOW_CALLS_MAX: Final = 256
"""Within a window, a limit counts to this at most: so many times are remembered."""

Pointers = Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Label = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_.-]{0,63}\Z")]


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    type: str


class Redact(_Strict, frozen=True, kw_only=True):
    """Take out of the result what the pointers lead to."""

    pointers: Pointers


class Mask(_Strict, frozen=True, kw_only=True):
    """Hide what the pointers lead to, but for its last characters; or put a tag in its place."""

    pointers: Pointers
    keep_last: Annotated[int, Meta(ge=0, le=16)] = 0
    tag: bool = False


class Truncate(_Strict, frozen=True, kw_only=True):
    """Cut texts of the result; with pointers, the texts that these lead to."""

    max_bytes: Bytes
    pointers: Pointers | None = None


class LimitResult(_Strict, frozen=True, kw_only=True):
    """Withhold a larger result."""

    max_bytes: Bytes


class AddLabel(_Strict, frozen=True, kw_only=True):
    """Give the run labels that its data has from now on."""

    labels: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=16)]


class Notify(_Strict, frozen=True, kw_only=True):
    """Tell people. `channel` is a word of the author's own."""

    channel: Label


class RequireIdempotencyKey(_Strict, frozen=True, kw_only=True):
    """Let the call go only if sending it twice would do it once.

    `pointer`: the argument in which the caller gives a key of its own.
    """

    pointer: str | None = None


class Limit(_Strict, frozen=True, kw_only=True):
    """Let the run call this tool so often. `window`: within such a time, up to a day."""

    max_calls: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    window: str | None = None

    @property
    def window_s(self) -> int | None:
        """The window in seconds."""
        found = _WINDOW.fullmatch(self.window or "")
        return int(found[1]) * _UNIT_S[found[2]] if found else None


KINDS: Final[Mapping[str, type[_Strict]]] = {
    "redact": Redact,
    "mask": Mask,
    "truncate": Truncate,
    "limit_result": LimitResult,
    "add_label": AddLabel,
    "notify": Notify,
    "require_idempotency_key": RequireIdempotencyKey,
    "limit": Limit,
}
"""All but `annotate`, which may say anything."""

ANNOTATE: Final = "annotate"
BEFORE_SENDING: Final = frozenset({"require_idempotency_key", "limit"})
"""Obligations on a call that can not be met any more once it was sent."""


def find_fault(spec: Mapping[str, Any]) -> str | None:
    """Say what about an obligation is not understood, or return None; no value is told."""
    if spec["type"] == ANNOTATE:
        return None
    if spec["type"] not in KINDS:
        return "it is none that the gateway can meet"
    try:
        found = read(spec)
        for pointer in _pointers(found):
            split(pointer)
    except msgspec.ValidationError as error:
        return f"`{spec['type']}`: {error}"
    except ValueError:
        return f"`{spec['type']}` has a pointer that does not begin with `/`"
    if isinstance(found, Limit) and found.window is not None:
        if found.window_s is None or found.window_s > _WINDOW_MAX_S:
            return "`limit`: `window` is a time such as `10m`, of at most a day"
        if found.max_calls > WINDOW_CALLS_MAX:
            return f"`limit`: within a window, `max_calls` is at most {WINDOW_CALLS_MAX}"
    if isinstance(found, Mask) and found.tag and found.keep_last:
        return "`mask` keeps the last characters or puts a tag, not both"
    return None


def read(spec: Mapping[str, Any]) -> _Strict:
    """Return an obligation that `find_fault` finds no fault with. Raises `ValidationError`."""
    return msgspec.convert(spec, KINDS[spec["type"]], strict=True)


def _pointers(found: _Strict) -> Iterable[str]:
    if isinstance(found, Redact | Mask | Truncate):
        return found.pointers or ()
    if isinstance(found, RequireIdempotencyKey) and found.pointer is not None:
        return (found.pointer,)
    return ()
