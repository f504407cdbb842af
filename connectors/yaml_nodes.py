"""Reading YAML with the place of every mistake: all mistakes at once, none of them guessed away.

YAML is read as a tree of nodes rather than as values, because a value no longer knows its line,
and a mapping no longer knows that a key was there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.core.errors import ConfigurationError

T = TypeVar("T")
Read = Callable[["Place"], T]
"""Turns a node into a value; raises `Mistake` when it cannot."""

_TAG: Final = "tag:yaml.org,2002:"
_DEPTH_MAX: Final = 32


class Mistake(Exception):  # noqa: N818 - it is one, and is never seen outside the reader
    """What is wrong with one node, and what to do about it."""


class Problems:
    """Every mistake in one file, in the order of its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[tuple[int, str]] = []

    def add(self, node: Node | int, text: str) -> None:
        """Note a mistake at a node, or at a line counted from 1."""
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self._found.append((line, text))

    def check(self) -> None:
        """Raise `ConfigurationError` with every mistake, if there is any."""
        if self._found:
            lines = (f"{self.path}:{line}: {text}" for line, text in sorted(self._found))
            raise ConfigurationError("\n".join(lines))


class Place(Struct):
    """A node and where to note what is wrong with it."""

    node: Node
    problems: Problems

    def read(self, read: Read[T], default: T) -> T:
        """Return what `read` makes of this node; note its mistake and return `default` if any."""
        try:
            return read(self)
        except Mistake as mistake:
            self.problems.add(self.node, str(mistake))
            return default

    def members(self) -> dict[str, Place]:
        """Return the members of a mapping. Keys that are there twice, or are no text, are noted.

        Raises `Mistake` for any other node.
        """
        if not isinstance(self.node, MappingNode):
            raise Mistake("expected a mapping; write `key: value` lines")
        found: dict[str, Place] = {}
        for key, value in self.node.value:
            if not isinstance(key, ScalarNode):
                self.problems.add(key, "a key is one text; write `key: value`")
                continue
            name = key.value
            if name in found:
                self.problems.add(key, f"`{name}` is given twice; keep one of them")
            found.setdefault(name, Place(value, self.problems))
        return found

    def known(self, keys: Mapping[str, object]) -> dict[str, Place]:
        """Like `members`, noting every key that is not one of `keys`."""
        found = self.members()
        for name in found.keys() - keys.keys():
            line = self._line_of(name)
            self.problems.add(line, f"unknown key `{name}`; known are {', '.join(sorted(keys))}")
        return found

    def _line_of(self, name: str) -> int:
        pairs: Iterator[tuple[Node, Node]] = iter(self.node.value)
        return next(int(key.start_mark.line) + 1 for key, _ in pairs if key.value == name)

    def items(self) -> list[Place]:
        """Return the items of a list. Raises `Mistake` for any other node."""
        if not isinstance(self.node, SequenceNode):
            raise Mistake("expected a list; write `[a, b]` or `- ` lines")
        return [Place(item, self.problems) for item in self.node.value]

    def value(self, depth: int = 0) -> Any:  # noqa: ANN401 - YAML has any type
        """Return the JSON value of this node. Raises `Mistake` for what JSON cannot say."""
        if depth > _DEPTH_MAX:
            raise Mistake(f"nested more than {_DEPTH_MAX} deep; flatten it")
        if isinstance(self.node, MappingNode):
            return {name: item.value(depth + 1) for name, item in self.members().items()}
        if isinstance(self.node, SequenceNode):
            return [item.value(depth + 1) for item in self.items()]
        kind = str(self.node.tag).removeprefix(_TAG)
        reader = _SCALARS.get(kind)
        if reader is None:
            raise Mistake(f"a `{kind}` is not expected here; write it in quotes")
        try:
            return reader(self.node.value)
        except ValueError:
            raise Mistake(f"`{self.node.value}` is no number of JSON") from None


_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
}


def load_tree(path: Path) -> Place:
    """Read a YAML file into its root node.

    Raises `ConfigurationError` for a file that cannot be read, is empty or is not YAML.
    """
    problems = Problems(path)
    try:
        node = YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8") from None
    except MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigurationError(f"{path}:{line}: not YAML: {error.problem}") from None
    except YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from None
    if node is None:
        raise ConfigurationError(f"{path}: is empty; write `key: value` lines")
    _refuse_aliases(node, problems)
    problems.check()
    return Place(node, problems)


def _refuse_aliases(root: Node, problems: Problems) -> None:
    """Refuse aliases: a node reached twice can grow without bound, or contain itself."""
    seen: set[int] = set()
    level = [root]
    while level:
        node = level.pop()
        if id(node) in seen:
            problems.add(node, "this is used again by an alias; write it out where it is needed")
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            level += [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            level += node.value


def read_text(place: Place) -> str:
    """Read a text that is not empty."""
    value = place.value()
    if not isinstance(value, str) or not value:
        raise Mistake("expected a text; put it in quotes if it looks like something else")
    return value


def read_flag(place: Place) -> bool:
    """Read `true` or `false`."""
    value = place.value()
    if not isinstance(value, bool):
        raise Mistake("expected `true` or `false`")
    return value


def read_choice(*choices: str) -> Read[Any]:
    """Return a reader of one of `choices`."""

    def read(place: Place) -> str:
        value = place.value()
        if value not in choices:
            raise Mistake(f"`{value}` is none of {', '.join(choices)}")
        return str(value)

    return read


def read_list(read: Read[T]) -> Read[tuple[T, ...]]:
    """Return a reader of a list; each item's mistake is noted at its own line."""

    def read_all(place: Place) -> tuple[T, ...]:
        missing = object()
        found: list[Any] = [item.read(read, missing) for item in place.items()]
        return tuple(item for item in found if item is not missing)

    return read_all
