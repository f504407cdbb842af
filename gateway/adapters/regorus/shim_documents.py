"""`json.*` as OPA 1.22 answers them (v1/topdown/json.go, encoding.go).

INVARIANT: what these return, OPA returns for the same arguments. Else they raise, which denies.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from gateway.adapters.regorus.shim_natives import RefusedError
from gateway.adapters.regorus.shim_numbers import number

_PLAIN_FROM: Final = 1e-4
_ESCAPED: Final = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)
Keep = dict[Any, Any]
"""A tree of paths; what ends one is None."""


def marshal(value: object) -> str:
    """Return a value as JSON, names in order."""
    check_written(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.translate(_ESCAPED)


def check_written(value: object) -> None:
    """Refuse values that engines write differently."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                raise RefusedError("a name is no text")
            check_written(each)
    elif isinstance(value, list):
        for each in value:
            check_written(each)
    elif isinstance(value, float):
        if number(value) and abs(value) < _PLAIN_FROM:
            raise RefusedError("a number is too small to be written alike")
    elif type(value) is int:
        number(value)
    elif not (value is None or isinstance(value, str | bool)):
        raise RefusedError("a value is none of JSON's")


def unmarshal(text: object) -> object:
    """Return what JSON means; of members of one name, the last."""
    if not isinstance(text, str):
        raise TypeError("a text is needed")
    try:
        found = json.loads(
            text, parse_int=_integer, parse_float=_fraction, parse_constant=_refuse_constant
        )
        if "\\u" in text:
            # INVARIANT: no text with half a character goes to the engine, which would crash.
            json.dumps(found, ensure_ascii=False).encode()
    except (RecursionError, json.JSONDecodeError, UnicodeEncodeError):
        # Their words quote the text.
        raise RefusedError("a text is no JSON") from None
    return found


def is_valid(text: object) -> bool:
    """Whether a text is JSON. Where it holds what engines read differently, it is an error."""
    if not isinstance(text, str):
        return False
    try:
        json.loads(text, parse_int=_integer, parse_float=_fraction, parse_constant=_not_json)
    except json.JSONDecodeError:
        return False
    except RecursionError:
        raise RefusedError("JSON is nested too deep") from None
    return True


def _integer(text: str) -> int | float:
    if len(text) > 17:  # noqa: PLR2004 - 2^53 and its sign
        raise RefusedError("a number is beyond 2^53")
    return number(int(text))


def _fraction(text: str) -> int | float:
    value = float(text)
    written = "".join(each for each in text.lower().partition("e")[0] if each.isdigit())
    if len(written.strip("0")) > 15:  # noqa: PLR2004 - what a double keeps
        raise RefusedError("a number has more digits than both engines keep")
    if value == 0 and written.strip("0"):
        raise RefusedError("a number is too small")
    return number(value)


def _refuse_constant(_text: str) -> NoReturn:
    raise RefusedError("a text is no JSON")


def _not_json(_text: str) -> NoReturn:
    raise json.JSONDecodeError("a constant", "", 0)


def remove(document: object, paths: object) -> object:
    """Return an object without what paths name."""
    if not isinstance(document, dict):
        raise TypeError("an object is needed")
    return _without(document, _tree(paths))


def keep(document: object, paths: object) -> object:
    """Return an object with only what paths name."""
    if not isinstance(document, dict):
        raise TypeError("an object is needed")
    return _only(document, _tree(paths))


def _tree(paths: object) -> Keep:
    if not isinstance(paths, list | set):
        raise TypeError("a list of paths is needed")
    root: Keep = {}
    for path in paths:
        node, steps = root, _steps(path)
        for step in steps[:-1]:
            following = node.setdefault(step, {})
            if following is None:
                break
            node = following
        else:
            if steps:
                node[steps[-1]] = None
    return root


def _steps(path: object) -> list[str]:
    if isinstance(path, str):
        if not path:
            return []
        given = path.lstrip("/").split("/")
        return [step.replace("~1", "/").replace("~0", "~") for step in given]
    if not isinstance(path, list) or not all(isinstance(step, str) for step in path):
        raise RefusedError("a path is a text, or a list of texts")
    return path


def _without(value: object, paths: Keep) -> object:
    if isinstance(value, dict):
        return {
            name: _without(each, paths.get(name) or {})
            for name, each in value.items()
            if paths.get(name, paths) is not None
        }
    if isinstance(value, list):
        return [
            _without(each, paths.get(str(at)) or {})
            for at, each in enumerate(value)
            if paths.get(str(at), paths) is not None
        ]
    return _plain(value, paths)


def _only(value: object, paths: Keep | None) -> object:
    if paths is None:
        return value
    if isinstance(value, dict):
        return {name: _only(each, paths[name]) for name, each in value.items() if name in paths}
    if isinstance(value, list):
        return [_only(each, paths[str(at)]) for at, each in enumerate(value) if str(at) in paths]
    return _plain(value, paths)


def _plain(value: object, paths: Keep) -> object:
    if isinstance(value, set | frozenset | tuple) and paths:
        raise RefusedError("a path leads into a set")
    return value


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "json.filter": (2, keep),
    "json.is_valid": (1, is_valid),
    "json.marshal": (1, marshal),
    "json.remove": (2, remove),
    "json.unmarshal": (1, unmarshal),
}
