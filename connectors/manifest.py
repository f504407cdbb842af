"""Connector manifests: what reviewers say of an upstream server and of each of its tools.

One YAML file per server; `docs/manifests.md` explains each key. Nothing is guessed: an unknown or
repeated key is an error, and a file's errors are told all at once, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from connectors.auth_binding import KINDS as AUTH_KINDS
from connectors.auth_binding import UpstreamAuth, find_fault
from connectors.yaml_nodes import (
    Mistake,
    Place,
    Read,
    load_tree,
    read_choice,
    read_flag,
    read_list,
    read_text,
)
from gateway.core import names
from gateway.core.catalog import Review
from gateway.core.errors import ConfigurationError
from gateway.core.pointer import split

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/(s|min|h|day)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "day": 86_400}


class Manifest(Struct, frozen=True, kw_only=True):
    """One reviewed server. `shared`: one stdio process for all runs instead of one for each."""

    id: str
    transport: Literal["http", "stdio"]
    egress: tuple[str, ...] = ()
    auth: UpstreamAuth | None = None
    shared: bool = False
    tools: tuple[Review, ...] = ()
    path: Path = Path()


def load_manifest(path: Path) -> Manifest:
    """Read one manifest. Raises `ConfigurationError`, one line for each mistake in the file."""
    root = load_tree(path)
    nothing: dict[str, Place] = {}
    found = root.read(lambda place: place.known(_SERVER_KEYS), nothing)
    for key in ("id", "transport", "tools"):
        if key not in found:
            root.problems.add(root.node, f"`{key}` is missing; add it")
    values = _read_members(found, _SERVER_KEYS)
    root.problems.check()
    return Manifest(path=path, **values)


def _read_members(found: Mapping[str, Place], keys: Mapping[str, Read[Any]]) -> dict[str, Any]:
    return {name: place.read(keys[name], None) for name, place in found.items() if name in keys}


def _read_server_id(place: Place) -> str:
    text = read_text(place)
    if not names.is_server_id(text):
        raise Mistake(f"`{text}` cannot name a server; use lower-case letters, digits and `-`")
    return text


def _read_auth(place: Place) -> UpstreamAuth | None:
    if place.value() in ("none", None):
        return None
    found = place.known(_AUTH_KEYS)
    values = _read_members(found, _AUTH_KEYS)
    if None in values.values():
        return None  # noted where it is
    auth = UpstreamAuth(**values)
    fault = find_fault(auth, values.keys())
    if fault is None:
        return auth
    name, why = fault
    if name not in found:
        raise Mistake(f"`{name}` of `auth` {why}; or say `auth: none`")
    place.problems.add(found[name].node, f"`{name}` {why}")
    return None


def _matching(pattern: re.Pattern[str], problem: str, *, echo: bool = True) -> Read[str]:
    def read(place: Place) -> str:
        text = read_text(place)
        if not pattern.fullmatch(text):
            raise Mistake(f"`{text}` {problem}" if echo else f"this {problem}")
        return text

    return read


def _read_pointer(place: Place) -> str:
    text = read_text(place)
    try:
        split(text)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return text


def _read_object(place: Place) -> dict[str, Any]:
    value = place.value()
    if not isinstance(value, dict):
        raise Mistake("expected a mapping; write `key: value` lines")
    return value


def _read_template(place: Place) -> str | dict[str, Any]:
    """Read the name of a tool, or a mapping with the name and a template of its arguments."""
    value = place.value()
    if isinstance(value, dict) and isinstance(value.get("tool"), str):
        return value
    if isinstance(value, str) and value:
        return value
    raise Mistake("expected the name of a tool, or a mapping with `tool` and `arguments`")


def _read_cost(place: Place) -> int | float:
    value = place.value()
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise Mistake("expected a number that is not negative")
    return value


def _read_rate(place: Place) -> tuple[int, int]:
    found = _RATE.fullmatch(read_text(place))
    if found is None:
        raise Mistake("expected calls per time, such as `10/min`; use s, min, h or day")
    return int(found[1]), _SECONDS[found[2]]


def _read_tool(place: Place) -> Review | None:
    found = place.known(_TOOL_KEYS)
    for key in ("name", "effect"):
        if key not in found:
            raise Mistake(f"the tool has no `{key}`; add it")
    values = _read_members(found, _TOOL_KEYS)
    if None in values.values():
        return None  # noted where it is
    for key, field in (("in", "input_schema"), ("out", "output_schema")):
        if key in values:
            values[field] = values.pop(key)
    review = Review(**values)
    _check_sums(review)
    repeatable = review.effect == "read" or review.idempotency != "none"
    if review.retry == "safe" and not repeatable:
        raise Mistake(f"`{review.name}` cannot be `retry: safe`; it is no read and not idempotent")
    return review


def _check_sums(review: Review) -> None:
    for pointer in review.sums:
        if "*" in split(pointer):
            raise Mistake(f"`{pointer}` of `sums` leads to no one amount; name one without `*`")
    for pointer in review.sums_optional:
        if pointer not in review.sums:
            raise Mistake(f"`{pointer}` of `sums_optional` is none of `sums`; name it there too")


def _read_tools(place: Place) -> tuple[Review, ...]:
    found: dict[str, Review] = {}
    for item in place.items():
        review = item.read(_read_tool, None)
        if review is None:
            continue
        if review.name in found:
            item.problems.add(item.node, f"`{review.name}` is described twice; keep one of them")
        found[review.name] = review
    return tuple(found.values())


_TOOL_KEYS: Final[dict[str, Read[Any]]] = {
    "name": read_text,
    "in": _read_object,
    "out": _read_object,
    "effect": read_choice(
        "read", "create", "update", "delete", "external_send", "money", "privilege"
    ),
    "reversible_by": read_text,
    "undo": _read_template,
    "idempotency": read_choice("key", "natural", "none"),
    "preview": _read_template,
    "prestate": _read_template,
    "sensitive": read_list(_read_pointer),
    "sensitive_out": read_list(_read_pointer),
    "labels": read_list(read_text),
    "sinks": read_list(_read_pointer),
    "texts": read_list(_read_pointer),
    "sums": read_list(_read_pointer),
    "sums_optional": read_list(_read_pointer),
    "trusted": read_list(_read_pointer),
    "operation_id_at": read_text,
    "cost": _read_cost,
    "rate": _read_rate,
    "retry": read_choice("never", "safe"),
    "definition_digest": _matching(
        _DIGEST, "is no digest; let `countersign tools approve` write it"
    ),
    "reviewed_by": read_text,
}

_AUTH_KEYS: Final[dict[str, Read[Any]]] = {
    **dict.fromkeys(UpstreamAuth.__struct_fields__, read_text),
    "kind": read_choice(*AUTH_KINDS),
    "client_auth": read_choice("basic", "post"),
    "grant": read_choice("token_exchange", "jwt_bearer"),
    "subject": read_choice("person", "agent"),
    "listing": read_choice("none", "client"),
}

_SERVER_KEYS: Final[dict[str, Read[Any]]] = {
    "id": _read_server_id,
    "transport": read_choice("http", "stdio"),
    "egress": read_list(read_text),
    "auth": _read_auth,
    "shared": read_flag,
    "tools": _read_tools,
}


def load_auth_headers(auth: UpstreamAuth | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header of a credential that is read once, at the start (`env:`, `file:`).

    Raises `ConfigurationError` if there is none. Upstreams have a broker instead.
    """
    if auth is None:
        return {}
    kind, _, where = auth.value_from.partition(":")
    try:
        value = environ[where] if kind == "env" else Path(where).read_text(encoding="utf-8")
    except KeyError:
        raise ConfigurationError(f"environment variable `{where}` is not set; set it") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"secret file `{where}` cannot be read; provide it") from None
    value = value.strip()
    if not value or not value.isprintable() or not value.isascii():
        raise ConfigurationError(f"the secret in `{auth.value_from}` is empty or no header value")
    return {auth.header: value}
