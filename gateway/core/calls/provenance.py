"""Where a value in the arguments was seen before: the run's allowed values, or what it has read.

An agent that was talked into something sends data to an address out of the text that talked it
into that. So each family remembers what its tools answered, as numbers that lead back to no text,
and a call's recipients, URLs and accounts (`sinks` of the manifest) are looked up there.

========== =====================================================================================
allowed    the launcher named it in the run's allowed values
trusted    a trusted output of the family held it
unseen     nothing that the gateway has seen held it
untrusted  only outputs labelled `untrusted` held it
========== =====================================================================================

INVARIANT: nothing is ever said to be better than it is, in this order. What is forgotten (the
memory is bounded, a restart empties it) makes values look worse: `trusted` becomes `unseen`, and
what is unknown becomes `untrusted` in a family that has read something untrusted. What the family
wrote itself does not become trusted by being read again.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from msgspec import Struct

from gateway.core.pointer import split

Class = Literal["allowed", "trusted", "unseen", "untrusted"]
WORST_LAST: Final[tuple[Class, ...]] = ("allowed", "trusted", "unseen", "untrusted")
UNTRUSTED: Final = "untrusted"
"""The label of outputs that hold what strangers wrote."""

READ_MAX_BYTES: Final = 131_072
"""An output that is larger is not looked through."""

INLINE_MAX_BYTES: Final = 4_096
"""An output up to this size is looked through at once, a larger one beside the loop."""

_PIECE_CHARS: Final = 8_192
"""So much of a text is searched at once, for nothing else runs meanwhile."""

_VALUE_MAX_CHARS: Final = 256
_SET_MAX: Final = 8_192
_VALUES_MAX: Final = 256
_DEPTH_MAX: Final = 64

_EMAIL: Final = r"(?<![\w.%+'-])[\w.%+'-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}"
_URL: Final = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+://[^\s\"'<>|\\^`{}]{1,2000}+"
_IBAN: Final = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}+(?: ?[A-Z0-9]{1,3})?\b"
_NUMBER: Final = r"(?<!\w)\+?\d(?:[ ()./-]{0,2}+\d){4,30}+"
_PATH: Final = r"(?<![\w.~/])(?:~|\.{1,2})?(?:/[\w.@%+~-]{1,255}+){1,32}+/?"
_DOTTED: Final = r"(?<![\w.@-])[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}+"
_TOKEN: Final = re.compile(f"{_URL}|{_EMAIL}|{_IBAN}|{_NUMBER}|{_PATH}|{_DOTTED}")
_KINDS: Final = (
    (re.compile("://"), re.compile(_URL)),
    (re.compile("@"), re.compile(_EMAIL)),
    (re.compile(r"[A-Z]{2}\d\d"), re.compile(_IBAN)),
    (re.compile(r"\d"), re.compile(_NUMBER)),
    (re.compile("/"), re.compile(_PATH)),
    (re.compile(r"\w\.\w"), re.compile(_DOTTED)),
)
"""What tells that a text may hold a kind of token, and the kind."""

_QUOTED: Final = re.compile(r"'([^'\n]{1,256})'|\"([^\"\n]{1,256})\"|`([^`\n]{1,256})`")
_LINE: Final = re.compile(r"\s*(?:[-*]\s+)?(?:[\w .-]{1,64}?:\s+)?(.*?)\s*")
_WORD: Final = re.compile(r"\w{1,256}")
_HOST: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}://(?:[^/?#@]*@)?([^/?#:]+)")
_JOINTS: Final = re.compile(r"[\s,;<>()\[\]\"']*")
_EMAIL_ONLY: Final = re.compile(_EMAIL)
_URL_ONLY: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,15}://[^/?#]*)(.*)", re.DOTALL)
_IBAN_ONLY: Final = re.compile(_IBAN)
_NUMBER_ONLY: Final = re.compile(_NUMBER)
_NO_DIGIT: Final = re.compile(r"[ ()./-]")
_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Output(Struct, frozen=True):
    """What one output says. `whole`: all of it was looked through.

    `trusted` has each value as it is, and its words in small letters.
    """

    trusted: Mapping[int, tuple[int, ...]]
    untrusted: frozenset[int]
    whole: bool = True


class Sightings:
    """What one family has seen.

    `trusted` and `untrusted` are what outputs held, `own` is what it wrote itself. `doubt`: some of
    the untrusted is not remembered. `settled`: some of its own is not, so nothing more is trusted.
    """

    __slots__ = ("doubt", "own", "settled", "trusted", "untrusted")

    def __init__(self, *, doubt: bool = False) -> None:
        """`doubt`: the family has a past that is not remembered."""
        self.trusted: set[int] = set()
        self.untrusted: set[int] = set()
        self.own: set[int] = set()
        self.doubt = doubt
        self.settled = doubt

    @property
    def size(self) -> int:
        """How many values are remembered."""
        return len(self.trusted) + len(self.untrusted) + len(self.own)

    def say(self, arguments: Mapping[str, Any]) -> None:
        """Remember what the family writes: before it is sent, so that no answer comes first."""
        said, whole = _seen(arguments)
        self.own |= said
        self.settled = self.settled or not whole or len(self.own) > _SET_MAX

    def learn(self, output: Output, spoken: Mapping[str, Any]) -> None:
        """Remember an output that answers a call with the arguments `spoken`."""
        self.untrusted |= output.untrusted
        if not output.whole or len(self.untrusted) > _SET_MAX:
            self.doubt = True
        if len(self.untrusted) > _SET_MAX:
            self.untrusted = set(list(self.untrusted)[:_SET_MAX])
        if not output.trusted or self.settled:
            return
        # 1. An address that an output only echoes, or that the family itself put there.
        echoed, _ = _seen(spoken) if spoken else (frozenset[int](), True)
        said = self.own | echoed if echoed else self.own
        found = [value for value, words in output.trusted.items() if not said.issuperset(words)]
        if len(self.trusted) + len(found) <= _SET_MAX:
            self.trusted.update(found)

    def classify(
        self,
        arguments: Mapping[str, Any],
        sinks: Iterable[str],
        allowed: Collection[str],
        *,
        tainted: bool,
    ) -> dict[str, Class]:
        """Return the worst class of the values at each pointer of `sinks` that holds any.

        `allowed`: what the launcher named, as `canonical` has it. `tainted`: the family has read
        something untrusted, remembered or not.
        """
        doubt = self.doubt and tainted
        found: dict[str, Class] = {}
        for pointer in sinks:
            values = list(_values_at(arguments, pointer))
            if values:
                classes = {self._class_of(value, allowed, doubt) for value in values[:_VALUES_MAX]}
                if len(values) > _VALUES_MAX:
                    classes.add("untrusted" if tainted else "unseen")
                found[pointer] = max(classes, key=WORST_LAST.index)
        return found

    def _class_of(self, value: str, allowed: Collection[str], doubt: bool) -> Class:  # noqa: FBT001
        whole = self._class_of_one(value, allowed)
        if whole in {"allowed", "trusted"}:
            return whole
        # 2. Several addresses in one text: each counts, and so does what is between them.
        parts = {
            self._class_of_one(match[0], allowed)
            for match in _TOKEN.finditer(value[:_VALUE_MAX_CHARS])
        }
        if parts and len(value) <= _VALUE_MAX_CHARS and _is_joint(value):
            whole = max(parts, key=WORST_LAST.index)
        elif whole == "untrusted" or "untrusted" in parts or self._is_out_of(value):
            whole = "untrusted"
        return "untrusted" if whole == "unseen" and doubt else whole

    def _class_of_one(self, value: str, allowed: Collection[str]) -> Class:
        exact = canonical(value)
        if exact in allowed:
            return "allowed"
        if len(exact) > _VALUE_MAX_CHARS:
            return "unseen"
        if hash(exact) in self.trusted:
            return "trusted"
        if not self.untrusted:
            return "unseen"
        if {hash(exact.casefold()), hash(_loose(exact).casefold())} & self.untrusted:
            return "untrusted"
        host = _HOST.match(exact)
        if host is None or hash(host[1]) in self.trusted or host[1] in allowed:
            return "unseen"
        return "untrusted" if hash(host[1].casefold()) in self.untrusted else "unseen"

    def _is_out_of(self, value: str) -> bool:
        """Whether every word of a value stood in something untrusted."""
        words = _WORD.findall(value[:_VALUE_MAX_CHARS].casefold())
        return bool(words) and self.untrusted.issuperset(map(hash, words))


def build_allowed(values: Mapping[str, Sequence[str]], tool_id: str) -> frozenset[str]:
    """Return what the launcher named for this tool: the values of every key that concerns it."""
    return frozenset(
        canonical(value)
        for key, listed in values.items()
        if "#" not in key or key.startswith(("/", f"{tool_id}#"))
        for value in listed
    )


def read_output(body: bytes, *, untrusted: bool, trusted_at: Sequence[str] = ()) -> Output:
    """Return what a CallToolResult (JSON) says.

    `untrusted`: strangers write to where it comes from, but for what `trusted_at` leads to: JSON
    Pointers into the structured content and into texts that are JSON, `*` for each of a list.
    """
    if len(body) > READ_MAX_BYTES:
        return Output({}, frozenset(), whole=False)
    try:
        document = orjson.loads(body)
    except ValueError:
        return Output({}, frozenset(), whole=False)
    if not untrusted:
        return Output(_strict(document), frozenset())
    seen, whole = _seen(document)
    return Output(_trusted_in(document, trusted_at), seen, whole)


def canonical(value: str) -> str:
    """Return one way to write an address, URL, account or number; anything else as it is."""
    text = value.strip()
    if len(text) > _VALUE_MAX_CHARS:
        return text
    # Letters of other alphabets that fold to ours, and digits that a sign parts, are others.
    if "@" in text and _EMAIL_ONLY.fullmatch(text):
        return text.translate(_SMALL)
    if "://" in text and (url := _URL_ONLY.fullmatch(text)):
        return url[1].translate(_SMALL) + ("" if url[2] == "/" else url[2])
    if _IBAN_ONLY.fullmatch(text):
        return text.replace(" ", "")
    if _NUMBER_ONLY.fullmatch(text):
        return _loose(text) if text[0] == "+" else text.replace(" ", "")
    return text


def _loose(text: str) -> str:
    """Return a number without what parts its digits: alike is enough to be suspected."""
    return _NO_DIGIT.sub("", text) if _NUMBER_ONLY.fullmatch(text) else text


def worst(classes: Iterable[Class]) -> Class | None:
    """Return the worst of some classes; None for none."""
    return max(classes, key=WORST_LAST.index, default=None)


def _is_joint(value: str) -> bool:
    """Whether there is nothing between a value's tokens but what joins them."""
    return _JOINTS.fullmatch(_TOKEN.sub(" ", value)) is not None


def _trusted_in(document: Any, pointers: Sequence[str]) -> dict[int, tuple[int, ...]]:  # noqa: ANN401
    if not pointers or not isinstance(document, dict):
        return {}
    bodies = [document.get("structuredContent")]
    blocks = document.get("content")
    for block in blocks if isinstance(blocks, list) else ():
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str) and (inner := _as_json(text)) is not None:
            bodies.append(inner)
    values = [part for body in bodies for p in pointers for part in _parts_at(body, split(p))]
    return _strict(values)


def _strict(document: Any) -> dict[int, tuple[int, ...]]:  # noqa: ANN401 - any JSON
    """What an output may vouch for: values, and addresses and the like within texts."""
    found: set[str] = set()
    for text in _texts(document):
        if len(text) <= _VALUE_MAX_CHARS:
            found.add(canonical(text))
        if (inner := _as_json(text)) is not None:
            found.update(map(canonical, _short(_texts(inner))))
        for piece, _ in _pieces(text):
            found.update(_tokens(piece))
    return {hash(value): _words(value) for value in found}


def _words(value: str) -> tuple[int, ...]:
    """Name a value by its words, in small letters; one without words by itself."""
    folded = _loose(value).casefold()
    return tuple(map(hash, _WORD.findall(folded) or (folded,)))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces that end between words, each with whether it does."""
    begin = 0
    while len(text) - begin > _PIECE_CHARS:
        least = begin + _PIECE_CHARS // 2
        end = 1 + max(
            text.rfind(" ", least, begin + _PIECE_CHARS),
            text.rfind("\n", least, begin + _PIECE_CHARS),
        )
        yield text[begin : end or begin + _PIECE_CHARS], bool(end)
        begin = end or begin + _PIECE_CHARS
    yield text[begin:], True


def _tokens(text: str) -> Iterator[str]:
    for sign, kind in _KINDS:
        if sign.search(text) is not None:
            for token in kind.findall(text):
                yield canonical(token.rstrip(".,;:!?)"))
                if "://" in token and (host := _HOST.match(token)):
                    yield host[1].translate(_SMALL)
    if "'" in text or '"' in text or "`" in text:
        for quoted in _QUOTED.finditer(text):
            yield canonical(quoted[quoted.lastindex or 0])
    if "\n" in text or ": " in text:
        for line in text.splitlines():
            if len(line) <= _VALUE_MAX_CHARS and (match := _LINE.fullmatch(line)):
                yield canonical(match[1].strip("'\""))


def _seen(document: Any) -> tuple[frozenset[int], bool]:  # noqa: ANN401 - any JSON
    """Everything that can be made out in a document, in small letters; and whether that is all."""
    found: set[str] = set()
    whole = True
    for text in _texts(document):
        if len(text) <= _VALUE_MAX_CHARS:
            found.add(whole_text := _loose(canonical(text)).casefold())
            found.update(_WORD.findall(whole_text))
        for piece, ends in _pieces(text):
            whole = whole and ends
            found.update(_WORD.findall(piece.casefold()))
            for token in _tokens(piece):
                found.add(_loose(token).casefold())
                found.update(_WORD.findall(_loose(token).casefold()))
        if (inner := _as_json(text)) is not None:
            for each in _short(_texts(inner)):
                found.add(_loose(canonical(each)).casefold())
                found.update(_WORD.findall(_loose(canonical(each)).casefold()))
        if len(found) > _SET_MAX:
            return frozenset(map(hash, found)), False
    return frozenset(map(hash, found)), whole


def _short(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if len(text) <= _VALUE_MAX_CHARS)


def _as_json(text: str) -> Any:  # noqa: ANN401 - any JSON
    if text[:1] not in "{[" or not text:
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _texts(document: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yield each string and number of a document, and the names of its members."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield _number(value)


def _values_at(arguments: Mapping[str, Any], pointer: str) -> Iterator[str]:
    """Yield each value at a sink. Names of members count where they hold addresses themselves."""
    for part in _parts_at(arguments, split(pointer)):
        waiting = [part]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting.extend(value.values())
                yield from (name for name in value if _TOKEN.search(name))
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, str):
                yield value
            elif value is not None:
                yield _number(value)


def _parts_at(value: Any, path: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    """Yield what a path leads to; `*` leads to each of a list."""
    if not path:
        if value is not None:
            yield value
        return
    name, rest = path[0], path[1:]
    if isinstance(value, dict):
        if name in value:
            yield from _parts_at(value[name], rest)
    elif isinstance(value, list):
        if name == "*":
            for each in value:
                yield from _parts_at(each, rest)
        elif name.isascii() and name.isdigit() and int(name[:9]) < len(value):
            yield from _parts_at(value[int(name[:9])], rest)


def _number(value: Any) -> str:  # noqa: ANN401 - a number, or true and false
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
