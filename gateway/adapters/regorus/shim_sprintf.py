"""`sprintf` as OPA 1.22 answers it: Go's `fmt.Sprintf`, for the verbs that messages are made of.

Texts and numbers are handed to Go as they are, everything else as Rego writes it. Verbs, flags and
values beyond those here are an error, which denies.
INVARIANT: what this returns, OPA returns for the same arguments.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.policy.policy_patterns import VERB
from gateway.adapters.regorus.shim_natives import RefusedError
from gateway.adapters.regorus.shim_numbers import number

_SHORT: Final = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
    '"': r"\"", "\\": r"\\",
}  # fmt: skip
_SMALL: Final = 1e-4
_LARGE: Final = 1e6
_LATIN: Final = 0x80
_WIDE: Final = 0x10000


def sprintf(form: object, values: object) -> str:
    """Return a text with values put into it."""
    if not isinstance(form, str) or not isinstance(values, list):
        raise TypeError("a text and a list are needed")
    literals, verbs = _read_form(form)
    if len(values) == len(verbs):
        written = map(_write, values, verbs)
        return "".join(
            piece for pair in zip(literals, (*written, ""), strict=True) for piece in pair
        )
    return _write_unevenly(literals, verbs, values)


class _Verb(Struct, frozen=True):
    flag: str
    width: int
    digits: int | None
    letter: str
    bare: bool


@lru_cache(maxsize=512)
def _read_form(form: str) -> tuple[tuple[str, ...], tuple[_Verb, ...]]:
    """Return what stands around the verbs, and the verbs."""
    literals, verbs, at, literal = [], [], 0, ""
    for found in VERB.finditer(form):
        literal += form[at : found.start()]
        at = found.end()
        if found[0] == "%%":
            literal += "%"
            continue
        flag, width, digits, letter = found.groups()
        if letter is None:
            raise RefusedError("`sprintf` is given a verb that engines write differently")
        cut = None if digits is None else int(digits)
        bare = not flag and width is None and cut is None
        literals.append(literal)
        verbs.append(_Verb(flag, int(width or 0), cut, letter, bare))
        literal = ""
    return (*literals, literal + form[at:]), tuple(verbs)


def _write_unevenly(
    literals: Sequence[str], verbs: Sequence[_Verb], values: Sequence[object]
) -> str:
    """Write what has too few values, or too many."""
    missing = verbs[len(values) :]
    if any(not verb.bare for verb in missing):
        raise RefusedError("`sprintf` has fewer values than verbs")
    written = [*map(_write, values, verbs), *(f"%!{verb.letter}(MISSING)" for verb in missing)]
    text = "".join(piece for pair in zip(literals, (*written, ""), strict=True) for piece in pair)
    given = map(_handed, values[len(verbs) :])
    extra = ", ".join(f"{_kind(value)}={_plain(value)}" for value in given)
    return f"{text}%!(EXTRA {extra})" if extra else text


def _handed(value: object) -> str | int | float:
    """Return a value as Go gets it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        checked = number(value)
        if isinstance(checked, float) and abs(checked) < _SMALL:
            raise RefusedError("a number is too small to be written alike")
        return checked
    return _rego(value)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "string"
    return "int64" if isinstance(value, int) else "float64"


def _plain(value: str | float) -> str:
    """Return a value as `%v` writes it: fractions of a million and more with their exponent."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) < _LARGE:
        return repr(value)
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    return f"{mantissa}e+{int(exponent):02d}"


def _write(given: object, verb: _Verb) -> str:
    value = _handed(given)
    if verb.bare and verb.letter in "sv" and isinstance(value, str):
        return value
    text = _verb(value, verb.letter, verb.digits)
    if text is None:
        if not verb.bare:
            raise RefusedError("`sprintf` is given a value that its verb does not write")
        return f"%!{verb.letter}({_kind(value)}={_plain(value)})"
    if verb.flag == "0":
        if isinstance(value, str):
            raise RefusedError("`sprintf` fills texts differently")
        return text.zfill(verb.width)
    return text.ljust(verb.width) if verb.flag else text.rjust(verb.width)


def _verb(value: str | float, verb: str, digits: int | None) -> str | None:
    """Return what a verb makes of a value; None if it is not made for it."""
    if digits is not None and not (verb == "f" and isinstance(value, float)):
        if verb == "s" and isinstance(value, str):
            return value[:digits]
        raise RefusedError("`sprintf` cuts that differently")
    if verb == "v":
        return _plain(value)
    if isinstance(value, str):
        return _text_verb(value, verb)
    if isinstance(value, int):
        if verb == "q":
            raise RefusedError("`sprintf` quotes numbers differently")
        return format(value, verb) if verb in "dxX" else None
    if verb in "xXq":
        raise RefusedError("`sprintf` writes fractions differently")
    return f"{value:.{6 if digits is None else digits}f}" if verb == "f" else None


def _text_verb(value: str, verb: str) -> str | None:
    if verb == "s":
        return value
    if verb == "q":
        return _quote(value)
    if verb in "xX":
        written = value.encode().hex()
        return written if verb == "x" else written.upper()
    return None


def _rego(value: object) -> str:
    """Return a value as Rego writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_rego, value))}]"
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise RefusedError("an object has names that are no texts")
        names = sorted(value, key=str.encode)
        return "{" + ", ".join(f"{_quote(name)}: {_rego(value[name])}" for name in names) + "}"
    if isinstance(value, set | frozenset):
        return _set(value)
    return str(_handed(value))


def _set(values: Iterable[Any]) -> str:
    found = list(values)
    if all(isinstance(each, str) for each in found):
        found.sort(key=str.encode)
    elif all(type(each) is int for each in found):
        found.sort()
    else:
        raise RefusedError("a set of unlike things is written differently")
    return "{" + ", ".join(map(_rego, found)) + "}" if found else "set()"


def _quote(text: str) -> str:
    """Return a text in quotes (Go's `strconv.Quote`)."""
    return '"' + "".join(map(_quote_one, text)) + '"'


def _quote_one(sign: str) -> str:
    if sign in _SHORT:
        return _SHORT[sign]
    if sign.isprintable():
        return sign
    code = ord(sign)
    if unicodedata.category(sign) == "Cn":
        raise RefusedError("a character that Unicode may have named since")
    if code < _LATIN:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _WIDE else f"\\U{code:08x}"


SHIMS: Final[dict[str, tuple[int, Any]]] = {"sprintf": (2, sprintf)}
