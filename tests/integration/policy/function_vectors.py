"""Arguments for every function that policies may call: such as agents send, usual and hostile.

They are drawn from `function_pools.json`: letters of many alphabets, combining ones, emoji, NUL,
blanks, digits that are none of ASCII's, mapped addresses, odd dates, patterns, globs, numbers.
Numbers are such as the gateway lets through (`gateway/core/strict_json.py`).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

POOLS: Final[dict[str, list[Any]]] = json.loads(
    Path(__file__).with_name("function_pools.json").read_text()
)
Arguments = list[Any]
_CHECKS: Final = ("array", "boolean", "null", "number", "object", "set", "string")
_ENCODINGS: Final = ("base64.encode", "base64url.encode", "base64url.encode_no_pad")
_PAIRS: Final = ("contains", "startswith", "endswith", "indexof", "indexof_n", "split")
_TRIMS: Final = ("trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix")
_OPERATIONS: Final = ("bits.and", "bits.or", "bits.xor")

TAKES: Final[dict[str, str]] = {
    **dict.fromkeys(("abs", "bits.negate", "ceil", "floor", "round"), "numbers"),
    **dict.fromkeys(_OPERATIONS, "numbers numbers"),
    **dict.fromkeys(("bits.lsh", "bits.rsh"), "numbers shifts"),
    **dict.fromkeys(("array.concat",), "arrays arrays"),
    **dict.fromkeys(("array.reverse", "max", "min", "sort", "count"), "arrays"),
    **dict.fromkeys(("sum", "product"), "added"),
    "array.slice": "arrays small small",
    **dict.fromkeys(("base64.decode", "base64.is_valid", "base64url.decode"), "base64_texts"),
    **dict.fromkeys(_ENCODINGS, "texts"),
    "concat": "texts arrays",
    **dict.fromkeys((*_PAIRS, *_TRIMS, "strings.count"), "texts texts"),
    "format_int": "numbers bases",
    "glob.match": "globs delimiters searched",
    "glob.quote_meta": "globs",
    "graph.reachable": "graphs nodes",
    "hex.decode": "hex_texts",
    "hex.encode": "texts",
    **{f"is_{kind}": "values" for kind in _CHECKS},
    "type_name": "values",
    **dict.fromkeys(("json.filter", "json.remove"), "objects paths"),
    **dict.fromkeys(("json.is_valid", "json.unmarshal"), "json_texts"),
    "json.marshal": "values",
    **dict.fromkeys(("lower", "upper", "trim_space", "strings.reverse"), "texts"),
    "net.cidr_contains": "networks addresses",
    "net.cidr_expand": "narrow_networks",
    "net.cidr_is_valid": "networks",
    "numbers.range": "small small",
    "numbers.range_step": "small small small",
    **dict.fromkeys(("object.filter", "object.remove"), "objects arrays"),
    "object.get": "objects keys defaults",
    "object.keys": "objects",
    "object.union": "objects objects",
    "object.union_n": "object_lists",
    "regex.find_all_string_submatch_n": "patterns searched limits",
    "regex.find_n": "patterns searched limits",
    "regex.is_valid": "patterns",
    "regex.match": "patterns searched",
    "regex.replace": "searched patterns replacements",
    "regex.split": "patterns searched",
    "replace": "texts texts texts",
    "semver.compare": "versions versions",
    "semver.is_valid": "versions",
    "sprintf": "formats format_values",
    **dict.fromkeys(("strings.any_prefix_match", "strings.any_suffix_match"), "affixes affixes"),
    "strings.replace_n": "changes texts",
    "substring": "texts small small",
    "time.add_date": "nanoseconds years months days",
    **dict.fromkeys(("time.clock", "time.date", "time.weekday"), "times"),
    "time.diff": "times times",
    "time.format": "formatted_times",
    "time.parse_duration_ns": "durations",
    "time.parse_ns": "layouts written_times",
    "time.parse_rfc3339_ns": "rfc3339",
    "to_number": "number_texts",
    **dict.fromkeys(("units.parse", "units.parse_bytes"), "units"),
    **dict.fromkeys(("urlquery.decode", "urlquery.decode_object", "urlquery.encode"), "queries"),
    "urlquery.encode_object": "fields",
}
"""What pools the arguments of each function are drawn from."""

SETS: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("max", "min", "sort", "sum", "product", "count"), (0,)),
    **dict.fromkeys(("concat", "json.filter", "json.remove"), (1,)),
    **dict.fromkeys(("object.filter", "object.remove", "graph.reachable"), (1,)),
    **dict.fromkeys(("strings.any_prefix_match", "strings.any_suffix_match"), (0, 1)),
}
"""Which arguments may be a set where lists stand in the pools."""


def draw(name: str, number: int, seed: int) -> list[Arguments]:
    """Return so many arguments of a function, or all that its pools make."""
    pools = [POOLS[pool] for pool in TAKES[name].split()]
    if math.prod(map(len, pools)) <= number:
        return [list(each) for each in product(*pools)]
    pick = random.Random(f"{seed} {name}")  # noqa: S311 - to be the same each time
    return [[pick.choice(pool) for pool in pools] for _ in range(number)]


def calls(number: int, seed: int) -> Iterator[tuple[str, list[Arguments]]]:
    """Yield every function as it is called, with what it is given as `v[0]`, `v[1]` …."""
    for name, pools in TAKES.items():
        vectors = draw(name, number, seed)
        arity = len(pools.split())
        yield _call(name, arity, ()), vectors
        for at in SETS.get(name, ()):
            listed = [vector for vector in vectors if isinstance(vector[at], list)]
            yield _call(name, arity, (at,)), listed
    for name in ("union", "intersection"):
        given = [[family] for family in POOLS["families"]]
        yield f"{name}({{{{y | some y in x}} | some x in v[0]}})", given
    yield "[y | walk(v[0], y)]", [[value] for value in POOLS["values"]]


def _call(name: str, arity: int, sets: tuple[int, ...]) -> str:
    given = (f"{{y | some y in v[{at}]}}" if at in sets else f"v[{at}]" for at in range(arity))
    return f"{name}({', '.join(given)})"
