"""Plain answers: what packages said, combined as `rego/countersign/main.rego` combines it.

In the embedded engine the entry point costs more than the packages themselves. An engine that is
built for known packages is therefore asked only what they say, and reads only the part of the input
that they read; the answer is put together here. What is not plain is left to the entry point: a
hold of a result or under conditions that cannot be read, obligations of several packages, claims
that a package reads, an input of another kind, anything that cannot be read.

INVARIANT: `MIRRORED` names the one entry point whose answers these are. A bundle that brings
another one is answered by that alone (`regorus_policy`), so a bundle's revision still determines
its answers.

Imported by the worker: nothing else of the gateway, and no package but msgspec.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

MIRRORED: Final = "2909e2b4a3c3af34db77a02be98f77496ee349981f88c2a176666225ac6c16d6"
"""SHA-256 of the entry point that `combine` mirrors. Change both together."""

SAID: Final = "data.countersign.voices.said"
"""The generated rule. Its package lies below one that no bundle's data may have."""

ASKED: Final = "data.countersign.voices.asked"
"""Generated beside it: what JSON does not tell of the stages that holds ask for."""

BOTH: Final = "data.countersign.voices.both"
"""The two in one: asking twice would evaluate the packages twice."""

_SETS: Final = ("deny", "hold", "permit", "obligation")
_REASONS_MAX: Final = 32
_CLIPPED: Final = (256, 128, 85, 64)
_MESSAGE_MAX_BYTES: Final = 258  # the most that 344 characters of base64 hold
_MEMO_MAX_CHARACTERS: Final = 4096
_PHASES: Final = {
    b'"%b"' % phase: phase == b"result"
    for phase in (b"issue", b"list", b"call", b"result", b"resume")
}
_CONTAINERS: Final = frozenset(
    {
        *((name,) for name in ("subject", "action", "resource", "context")),
        *(("context", name) for name in ("args", "token", "run", "family")),
    }
)
"""Members of the input that are objects wherever the gateway builds one."""

_CLAIMED: Final = ("context", "claimed")
_DEFAULT_STAGES: Final = b'[{"any_of":[{"approve":1,"deny":1,"who":{"groups":["approver"]}}]}]'
_EXECUTES: Final = frozenset({"on_approval", "on_redeem"})
_TTL: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_decode_both: Final = msgspec.json.Decoder(tuple[Raw, Raw]).decode
_decode_said: Final = msgspec.json.Decoder(list[list[Raw]]).decode
_decode_rows: Final = msgspec.json.Decoder(list[Raw]).decode
_decode: Final = msgspec.json.decode
_encode: Final = msgspec.json.Encoder().encode

Read = Callable[[bytes], "tuple[str, bool, bytes] | None"]


class Voices:
    """Packages by name, in order, with the sets that each defines and the servers it may permit."""

    def __init__(
        self, heard: Mapping[str, Collection[str]], authority: Mapping[str, Iterable[str]]
    ) -> None:
        """`heard`: package → its decision sets; `authority`: package → servers."""
        self.rows = [
            (name, each) for name in sorted(heard) for each in _SETS if each in heard[name]
        ]
        self._owned = {name: frozenset(authority.get(name, ())) for name in heard}

    def source(self) -> str:
        """Return the module that lists what they say.

        It evaluates every rule of every package, so what fails in the entry point fails here.
        """
        sets = "".join(f'\tp["{name}"].{each},\n' for name, each in self.rows)
        holds = "".join(f'\tp["{name}"].hold,\n' for name, each in self.rows if each == "hold")
        return f"""package countersign.voices

said := [
{sets}] if p := data.policies

# How many lists of stages there are, and how many of them are no arrays.
asked := [count({{s | some s in stages}}), count([s | some s in stages; not is_array(s)])]

stages := [s | some items in holds; some item in items; s := item.approval.stages]

holds := [
{holds}] if p := data.policies

both := [said, asked]
"""

    def owns(self, name: str, server: bytes) -> bool:
        """Whether a package may permit on a server (JSON; empty when there is none)."""
        owned = self._owned[name]
        return "*" in owned or (server[:1] == b'"' and _decode(server) in owned)


def split_both(text: str) -> tuple[str, str]:
    """Return the values of `SAID` and `ASKED` out of that of `BOTH`."""
    said, asked = _decode_both(text)
    return bytes(said).decode(), bytes(asked).decode()


def read_authority(data: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """Return package → servers; None when the data says it in a way that only Rego can tell."""
    try:
        return msgspec.convert(data.get("authority", {"policies": {}}), _Authority).policies
    except msgspec.ValidationError:
        return None


class _Authority(msgspec.Struct):
    policies: dict[str, list[str]]


class _Hold(msgspec.Struct):
    approval: Raw | UnsetType = UNSET


class _Approval(msgspec.Struct, forbid_unknown_fields=True):
    stages: Raw | UnsetType = UNSET
    ttl: str = "15m"
    execute: str = "on_approval"


_decode_hold: Final = msgspec.json.Decoder(_Hold).decode
_decode_approval: Final = msgspec.json.Decoder(_Approval).decode


# --- what the packages said, combined -----------------------------------------------------------


class Combined(msgspec.Struct, frozen=True):
    """An answer; `lists` tells how many lists of stages it asks for, which `ASKED` must confirm."""

    answer: bytes
    lists: int | None = None

    def is_as(self, asked: str) -> bool:
        """Whether the stages are what they look like as JSON: arrays, and equal where they look it.

        `asked` is the value of `ASKED`.
        """
        return bool(_decode(asked) == [self.lists, 0])


def combine(voices: Voices, said: str, *, released: bool, server: bytes) -> Combined | None:
    """Return the entry point's answer as JSON; None where only the entry point can tell.

    `said` is the value of `SAID`; `released`: the phase is `result`; `server`: see `Voices.owns`.
    """
    if len(said) > _MEMO_MAX_CHARACTERS:
        return _combine(voices, said, released, server)
    return _remembered(voices, said, released, server)


def _combine(voices: Voices, said: str, released: bool, server: bytes) -> Combined | None:  # noqa: FBT001
    try:
        found: dict[str, dict[str, list[Raw]]] = {each: {} for each in _SETS}
        for (name, each), members in zip(voices.rows, _decode_said(said), strict=True):
            if members:
                found[each][name] = members
        if found["deny"]:
            return Combined(_answer("deny", _listed(found["deny"].items())))
        # 1. Obligations of several packages: equal ones are one, in the engine's own order.
        if len(found["obligation"]) > 1 or (found["hold"] and released):
            return None
        # 2. A package permits only where it has authority.
        owned = [row for row in found["permit"].items() if voices.owns(row[0], server)]
        obligations = found["obligation"].values()
        if not found["hold"] and (owned or released):
            return Combined(_answer("permit", _listed(owned), *obligations))
        if not found["hold"]:
            return Combined(_answer("deny", _not_permitted(found["permit"])))
        # 3. Whatever is held is never permitted, and a hold that cannot be read is no hold.
        merged = _merge_approvals(found["hold"].values())
        if merged is None:
            return None
        approval, lists = merged
        answer = _answer("deny", _not_permitted(found["permit"]))
        if owned:
            answer = _held(_listed(found["hold"].items()), approval, *obligations)
        return Combined(answer, lists)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


_remembered = lru_cache(maxsize=1024)(_combine)
"""Packages answer in few words, so the same words are combined once."""


def _answer(outcome: str, reasons: list[dict[str, str]], obligations: Iterable[Raw] = ()) -> bytes:
    return b'{"outcome":"%b","reasons":%b,"obligations":[%b]}' % (
        outcome.encode(),
        _encode(reasons),
        b",".join(map(bytes, obligations)),
    )


def _held(reasons: list[dict[str, str]], approval: bytes, obligations: Iterable[Raw] = ()) -> bytes:
    return b'{"outcome":"hold","reasons":%b,"obligations":[%b],"approval":%b}' % (
        _encode(reasons),
        b",".join(map(bytes, obligations)),
        approval,
    )


def _merge_approvals(holds: Iterable[list[Raw]]) -> tuple[bytes, int] | None:
    """Return what all holds ask for together, and how many lists of stages of their own they have.

    Every stage of all, each list of stages once, the least time; redeemed by the agent if one says
    so. None where a condition is not one of the usual ones.
    """
    given: dict[bytes, None] = {}
    asked: dict[bytes, None] = {}
    ttl_s: list[int] = []
    executes: set[str] = set()
    for item in (item for items in holds for item in items):
        found = _read_approval(bytes(item))
        if found is None:
            return None
        listed, seconds, execute, own = found
        asked[listed] = None
        if own:
            given[listed] = None
        ttl_s.append(seconds)
        executes.add(execute)
    if _DEFAULT_STAGES in asked and len(asked) > 1:  # are they written like ours?
        return None
    approval = b'{"stages":[%b],"ttl":"%ds","execute":"%b"}' % (
        b",".join(listed.strip()[1:-1] for listed in asked),
        min(ttl_s),
        b"on_redeem" if "on_redeem" in executes else b"on_approval",
    )
    return approval, len(given)


def _read_approval(item: bytes) -> tuple[bytes, int, str, bool] | None:
    """Return the stages (JSON), seconds and execution of a hold, and whether it names stages.

    None for conditions that cannot be met.
    """
    given = _decode_hold(item).approval if item[:1] == b"{" else UNSET
    if isinstance(given, UnsetType):
        return _DEFAULT_STAGES, 900, "on_approval", False
    approval = _decode_approval(given)
    ttl, own = _TTL.fullmatch(approval.ttl), not isinstance(approval.stages, UnsetType)
    listed = _DEFAULT_STAGES if isinstance(approval.stages, UnsetType) else bytes(approval.stages)
    if ttl is None or approval.execute not in _EXECUTES:
        return None
    if listed[:1] != b"[" or not _decode(listed):
        return None
    return listed, int(ttl[1]) * _UNIT_S[ttl[2]], approval.execute, own


def _listed(rows: Iterable[tuple[str, list[Raw]]]) -> list[dict[str, str]]:
    pairs = [(name, item) for name, items in rows for item in items[:_REASONS_MAX]]
    return [_reason(name, _decode(item)) for name, item in pairs[:_REASONS_MAX]]


def _reason(name: str, item: object) -> dict[str, str]:
    code = item.get("code") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(code, str):
        return {"code": "reason_invalid", "policy": name}
    message = item.get("message")
    if not isinstance(message, str):
        return {"code": code, "policy": name}
    return {"code": code, "message": _clipped(message), "policy": name}


def _clipped(text: str) -> str:
    if len(text) <= _CLIPPED[-1]:
        return text
    lengths = (each for each in _CLIPPED if len(text[:each].encode()) <= _MESSAGE_MAX_BYTES)
    return text[: next(lengths)]


def _not_permitted(overreaching: Iterable[str]) -> list[dict[str, str]]:
    reasons = [{"code": "permit_without_authority", "policy": name} for name in overreaching]
    return [{"code": "no_policy_permits"}, *reasons[: _REASONS_MAX - 1]]


# --- what some of them said, put together with what the others say ------------------------------


def pick(order: Sequence[bool], said: str) -> str:
    """Return those rows of a value of `SAID` that `order` marks."""
    rows = zip(order, _decode_rows(said), strict=True)
    return f"[{','.join(bytes(row).decode() for marked, row in rows if marked)}]"


def weave(order: tuple[bool, ...], marked: str, others: str) -> str:
    """Return the value of `SAID` of which `pick` took the rows `marked`, and left the others."""
    if len(marked) + len(others) > _MEMO_MAX_CHARACTERS:
        return _weave(order, marked, others)
    return _woven(order, marked, others)


def _weave(order: tuple[bool, ...], marked: str, others: str) -> str:
    ones, rest = iter(_decode_rows(marked)), iter(_decode_rows(others))
    rows = (next(ones if each else rest) for each in order)
    return f"[{','.join(bytes(row).decode() for row in rows)}]"


_woven = lru_cache(maxsize=1024)(_weave)


# --- the part of an input that they read --------------------------------------------------------


class _Resource(msgspec.Struct):
    server: Raw | UnsetType = UNSET


class _Context(msgspec.Struct):
    claimed: Raw | UnsetType = UNSET


class _Head(msgspec.Struct):
    version: Raw
    phase: Raw
    resource: _Resource
    context: _Context | UnsetType = UNSET


_decode_head: Final = msgspec.json.Decoder(_Head).decode


def build_reader(paths: Iterable[Sequence[str]] | None) -> Read:
    """Return what reads an input: (the part at these paths, `released`, server), or None.

    None stands for an input that only the entry point should see. Without `paths` the part is the
    whole input. Values are passed on as they are written.
    """
    decode: Callable[[str], Any] | None = None
    hears_claims = True
    if paths is not None:
        paths = list(paths)
        decode = msgspec.json.Decoder(_shape(paths)).decode
        hears_claims = any(_CLAIMED[: len(path)] == tuple(path)[: len(_CLAIMED)] for path in paths)

    def read(document: bytes) -> tuple[str, bool, bytes] | None:
        try:
            text = document.decode()  # all of it, as the engine would
            head = _decode_head(text)
            part = text if decode is None else _encode(decode(text)).decode()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if hears_claims and _is_claiming(head.context):
            return None  # judged twice, by the entry point
        released = _PHASES.get(bytes(head.phase))
        if released is None or bytes(head.version) != b"1":
            return None
        server = head.resource.server
        return part, released, b"" if isinstance(server, UnsetType) else bytes(server)

    return read


def build_part(paths: Iterable[Sequence[str]]) -> Callable[[bytes], bytes]:
    """Return what takes the part at these paths out of an input. Raises `MsgspecError`."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(_shape(paths)).decode

    def take(document: bytes) -> bytes:
        return _encode(decode(document))

    return take


def _is_claiming(context: _Context | UnsetType) -> bool:
    claimed = UNSET if isinstance(context, UnsetType) else context.claimed
    return not isinstance(claimed, UnsetType) and bytes(claimed) != b"{}"


def _shape(paths: Iterable[Sequence[str]], at: tuple[str, ...] = ()) -> type:
    """Return a type of the members that `paths` name, nested where the input certainly is."""
    members: dict[str, list[Sequence[str]]] = {}
    for first, *rest in paths:
        members.setdefault(first, []).append(rest)
    fields: list[Any] = []
    for number, (name, below) in enumerate(members.items()):
        whole = [] in below or (*at, name) not in _CONTAINERS
        inner = Raw if whole else _shape(below, (*at, name))
        fields.append((f"member_{number}", inner | UnsetType, UNSET))
    names = {f"member_{number}": name for number, name in enumerate(members)}
    return msgspec.defstruct("Part", fields, rename=names)
