"""Reading `countersign.yaml` and what overrides it, remembering where each value came from.

Order: file, then `COUNTERSIGN__A__B`, then `COUNTERSIGN__A__B_FILE` (a file that holds the value,
for secrets). YAML is read as a tree of nodes: a value no longer knows its line, and a mapping no
longer knows that a key was there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.core.errors import ConfigurationError

PREFIX: Final = "COUNTERSIGN__"
FILE_SUFFIX: Final = "_FILE"

Key = str | int
KeyPath = tuple[Key, ...]

_TAG: Final = "tag:yaml.org,2002:"
_DEPTH_MAX: Final = 16
_TRUE: Final = ("true", "True", "TRUE")


class Place(NamedTuple):
    """Where a value was written: a line of the file (1 and up), or a variable (line 0)."""

    where: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


class Problem(NamedTuple):
    """One mistake. `hint` says what to do about it."""

    place: Place
    path: KeyPath
    message: str
    hint: str

    def __str__(self) -> str:
        spot = f"{self.place}: " + (f"{format_path(self.path)}: " if self.path else "")
        return f"{spot}{self.message}; {self.hint}"


class Source:
    """Plain data with the place of each value, and the mistakes found so far."""

    def __init__(self, path: Path) -> None:
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._path = path
        self._places: dict[KeyPath, Place] = {(): Place(str(path), 1)}

    def place(self, path: KeyPath) -> Place:
        """Return where `path` was written, or the nearest thing around it."""
        while path not in self._places:
            path = path[:-1]
        return self._places[path]

    def note(self, path: KeyPath, message: str, hint: str, place: Place | None = None) -> None:
        """Remember a mistake."""
        self.problems.append(Problem(place or self.place(path), path, message, hint))

    def check(self) -> None:
        """Raise `ConfigurationError` with every mistake in the order of the lines, if any."""
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: (problem.place.line, str(problem)))
            raise ConfigurationError("\n".join(str(problem) for problem in ordered))

    def read_tree(self, root: Node) -> None:
        """Take over the values of a YAML document."""
        value = self._value(root, (), set())
        if isinstance(value, dict):
            self.data = value
        else:
            self.note((), "the file is no mapping", "write `key: value` lines")

    def override(self, env: Mapping[str, str]) -> None:
        """Lay the `COUNTERSIGN__…` variables over the file; `…_FILE` ones last."""
        names = sorted(name for name in env if name.startswith(PREFIX))
        for name in sorted(names, key=lambda name: name.endswith(FILE_SUFFIX)):
            self._override_one(name, env[name])

    def _override_one(self, name: str, text: str) -> None:
        place = Place(name)
        spoken = name.removeprefix(PREFIX)
        if name.endswith(FILE_SUFFIX):
            spoken = spoken.removesuffix(FILE_SUFFIX)
            try:
                text = Path(text).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError, ValueError):
                hint = "name a readable UTF-8 file"
                self.note((), "the file it names cannot be read", hint, place)
                return
        parts = spoken.split("__")
        if not all(parts):
            self.note((), "the name has an empty part", f"write {PREFIX}SECTION__KEY", place)
            return
        self._set(parts, text, place)

    def _set(self, parts: list[str], text: str, place: Place) -> None:
        holder: Any = self.data
        path: KeyPath = ()
        for part in parts[:-1]:
            key = _match(holder, part)
            path = (*path, key)
            if isinstance(holder, dict) and holder.get(key) is None:
                holder[key] = {}
                self._places[path] = place
            holder = _member(holder, key)
        key = _match(holder, parts[-1])
        if isinstance(holder, dict) or (isinstance(holder, list) and _holds(holder, key)):
            holder[key] = _read_flow(text)  # type: ignore[index]
            self._places[*path, key] = place
        else:
            hint = "override whole values, or items that the file has"
            self.note((*path, key), "there is nothing to override", hint, place)

    def _value(self, node: Node, path: KeyPath, seen: set[int]) -> Any:  # noqa: ANN401 - YAML
        self._places[path] = Place(str(self._path), node.start_mark.line + 1)
        if id(node) in seen or len(path) > _DEPTH_MAX:
            hint = "write the value out where it is needed"
            self.note(path, "aliases and deep nesting are not read", hint)
            return None
        seen.add(id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, path, seen)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, n), seen) for n, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath, seen: set[int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            if name in found:
                place = Place(str(self._path), key.start_mark.line + 1)
                first = self.place((*path, name)).line
                hint = f"keep one; the first is on line {first}"
                self.note((*path, name), f"`{name}` is given twice", hint, place)
                continue
            found[name] = self._value(value, (*path, name), seen)
            # A mapping starts on the line after its key; a reader looks for the key.
            self._places[*path, name] = Place(str(self._path), key.start_mark.line + 1)
        return found

    def _scalar(self, node: Node, path: KeyPath) -> Any:  # noqa: ANN401 - YAML has any type
        text = node.value
        kind = str(node.tag).removeprefix(_TAG)
        try:
            if kind == "int":
                return int(text.replace("_", ""), 0)
            if kind == "float":
                return float(text.replace("_", ""))
        except ValueError:  # infinities, and numbers of older YAML
            kind = "number of this form"
        if kind in ("bool", "null"):
            return None if kind == "null" else text in _TRUE
        if kind != "str":
            self.note(path, f"a {kind} is not expected", "write it in quotes")
        return text


def load_source(path: Path, env: Mapping[str, str]) -> Source:
    """Read a file and its overrides. Mistakes wait in `problems`.

    Raises `ConfigurationError` for a file that cannot be read or is not YAML at all.
    """
    source = Source(path)
    try:
        root = YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{path}: cannot be read: {error.strerror}; `countersign init` writes a first one"
        raise ConfigurationError(text) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        text = f"{path}:{line}: is not YAML: {error.problem}; mend this line"
        raise ConfigurationError(text) from None
    except YAMLError:
        raise ConfigurationError(f"{path}: is not YAML; remove control characters") from None
    if root is not None:
        source.read_tree(root)
    source.override(env)
    return source


def format_path(path: KeyPath) -> str:
    """(`clients`, 0, `id`) → `clients[0].id`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _match(holder: object, part: str) -> Key:
    """Return the key that a variable's `part` means: `_` may stand for `-`, digits for an index."""
    if isinstance(holder, list) and part.isascii() and part.isdigit():
        return int(part)
    spoken = part.lower()
    if isinstance(holder, dict):
        for key in holder:
            if key.lower().replace("-", "_") == spoken:
                return str(key)
    return spoken


def _member(holder: object, key: Key) -> Any:  # noqa: ANN401 - YAML has any type
    if isinstance(holder, dict):
        return holder.get(key)
    return holder[key] if isinstance(holder, list) and _holds(holder, key) else None  # type: ignore[index]


def _holds(holder: list[Any], key: Key) -> bool:
    return isinstance(key, int) and key < len(holder)


def _read_flow(text: str) -> Any:  # noqa: ANN401 - YAML has any type
    """Read lists and mappings (`[a, b]`); anything else is a text, which pydantic converts."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text
