"""Types that values of a policy have, and what built-in functions make of them.

A function that takes one type only fails on any other, so what it answers is as good as what it
was given. Others make one type of all: `to_number(null)` is 0, `count` counts lists, objects and
letters, `sprintf` writes everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NUMBER: Final = 1
TEXT: Final = 2
"""A text that somebody may have chosen so that it sorts well, or that reads like a number."""
WORD: Final = 4
"""A text that a policy, its data or the gateway gives, and that reads like no number."""
BOOLEAN: Final = 8
NULL: Final = 16
ARRAY: Final = 32
OBJECT: Final = 64
SET: Final = 128
OPEN: Final = 256
"""Of a type that is not known here, given by somebody who is trusted: `data`, mostly."""
TEXTS: Final = TEXT | WORD
COLLECTION: Final = ARRAY | OBJECT | SET
"""What can be iterated."""
SCALARS: Final = NUMBER | TEXTS | BOOLEAN | NULL

CHECKS: Final[Mapping[tuple[str, ...], int]] = {
    ("is_number",): NUMBER,
    ("is_string",): TEXT,
    ("is_boolean",): BOOLEAN,
    ("is_null",): NULL,
    ("is_array",): ARRAY,
    ("is_object",): OBJECT,
    ("is_set",): SET,
}
TYPE_NAMES: Final = {name[0].removeprefix("is_"): kind for name, kind in CHECKS.items()}
"""What `type_name` answers."""

_NAMES: Final = {
    NUMBER: "a number",
    TEXT: "a text",
    WORD: "a text",
    BOOLEAN: "true or false",
    NULL: "null",
    ARRAY: "a list",
    OBJECT: "an object",
    SET: "a set",
}
_LIKE_NUMBER: Final = re.compile(r"[\s+-]*[.,]?\d[\d.,_' ]*([eE][+-]?\d*)?\s*(%|[A-Za-z]{0,3})?")
"""Such texts are compared where a number was meant: `"200"`, `"1.5e3"`, `"10 EUR"`."""

ORDERING: Final = frozenset({("max",), ("min",), ("sort",)})
"""Functions that compare what they are given."""
CONVERTING: Final = ("to_number",)
UNPACKING: Final = frozenset({"json.unmarshal", "yaml.unmarshal", "io.jwt.decode"})
"""Functions whose answer is whatever a text says."""
COUNTING: Final = "count"
MIXING: Final = frozenset({"sprintf", "type_name", "urlquery.encode_object"})
"""Functions that make a text of whatever they are given, so that types can no longer be told."""

_CONTAINERS: Final = {
    ARRAY: ("sort", "array.concat", "array.reverse", "array.slice", "walk"),
    OBJECT: (
        *("object.union", "object.union_n", "object.filter", "object.remove"),
        *("json.filter", "json.remove"),
    ),
    SET: ("union", "intersection", "graph.reachable", "graph.reachable_paths", "object.keys"),
    OPEN: ("json.patch",),
}
HANDING_ON: Final = {name: kind for kind, names in _CONTAINERS.items() for name in names}
"""Functions that answer a list, object or set, with the members that they were given."""

_ANSWERS: Final = {
    NUMBER: (
        *("abs", "bits.and", "bits.lsh", "bits.negate", "bits.or", "bits.rsh", "bits.xor", "ceil"),
        *("count", "floor", "indexof", "product", "round", "semver.compare", "strings.count"),
        *("sum", "time.add_date", "time.parse_duration_ns", "time.parse_ns", "to_number"),
        *("time.parse_rfc3339_ns", "units.parse", "units.parse_bytes"),
    ),
    TEXT: (
        *("base64.decode", "base64.encode", "base64url.decode", "base64url.encode", "concat"),
        *("base64url.encode_no_pad", "crypto.hmac.md5", "crypto.hmac.sha1", "crypto.hmac.sha256"),
        *("crypto.hmac.sha512", "crypto.md5", "crypto.sha1", "crypto.sha256", "format_int"),
        *("glob.quote_meta", "hex.decode", "hex.encode", "json.marshal", "lower", "replace"),
        *("json.marshal_with_options", "regex.replace", "sprintf", "strings.replace_n"),
        *("strings.reverse", "substring", "time.format", "time.weekday", "trim", "trim_left"),
        *("trim_prefix", "trim_right", "trim_space", "trim_suffix", "type_name", "upper"),
        *("urlquery.decode", "urlquery.encode", "urlquery.encode_object", "yaml.marshal"),
    ),
    ARRAY: (
        *("indexof_n", "numbers.range", "numbers.range_step", "regex.find_n", "regex.split"),
        *("regex.find_all_string_submatch_n", "split", "time.clock", "time.date", "time.diff"),
    ),
    OBJECT: ("urlquery.decode_object", "uuid.parse"),
    SET: ("net.cidr_expand",),
}
ANSWERS: Final = {name: kind for kind, names in _ANSWERS.items() for name in names}
"""What else functions answer; those that are in no table answer true or false."""
MEMBERS: Final = {
    **dict.fromkeys(("regex.find_n", "regex.split", "split", "net.cidr_expand"), TEXT),
    **dict.fromkeys(("indexof_n", "numbers.range", "numbers.range_step", "time.date"), NUMBER),
    **dict.fromkeys(("time.clock", "time.diff"), NUMBER),
    "regex.find_all_string_submatch_n": TEXT,
}


def is_like_number(text: str) -> bool:
    """Whether a text reads like a number, so that its letters were not meant to be compared."""
    return _LIKE_NUMBER.fullmatch(text) is not None


def kind_of(value: object) -> int:
    """Return the type of a JSON value that a policy or its data gives."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, str):
        return TEXT if is_like_number(value) else WORD
    if isinstance(value, int | float):
        return NUMBER
    if value is None:
        return NULL
    return ARRAY if isinstance(value, list | tuple) else OBJECT


def only(kinds: int) -> int:
    """Return the type of members that all are of one, else `OPEN`: each may be another one."""
    return kinds if kinds.bit_count() == 1 or kinds in {0, TEXTS} else OPEN


def named(kinds: int) -> str:
    """Say which types these are, for a reader."""
    return " or ".join(dict.fromkeys(name for kind, name in _NAMES.items() if kinds & kind))


def order_fault(one: int, other: int) -> str:
    """Say what keeps two types from being ordered as a limit means it; nothing if nothing does."""
    both = one | other
    for kind in (NULL, BOOLEAN, ARRAY, OBJECT, SET):
        if both & kind:
            return f"it may be {named(kind)}, which is never within a limit"
    if both & NUMBER and both & TEXTS:
        return "one is a number, the other a text, and every number is below every text"
    # Letter by letter, "1000000" is below "200".
    if both & TEXT and WORD not in {one, other}:
        return 'texts are compared letter by letter: `"1000000" <= "200"` is true'
    return ""


def instead_of(kinds: int) -> str:
    """Say what to compare in place of two values that are of these types."""
    if kinds & TEXTS:
        return "compare numbers: `is_number(x)`, or `is_string(x)` and then `to_number(x)`"
    return "compare numbers, and leave out what is none: `is_number(x)` in the same body"
