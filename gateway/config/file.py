"""Reading `countersign.yaml` and what overrides it, remembering where each value came from.

Order: file, then `COUNTERSIGN__A__B`, then `COUNTERSIGN__A__B_FILE` (a file that holds the value,
for secrets). YAML is read as a tree of nodes: a value no longer knows its line, and a mapping no
longer knows that a key was there twice.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from gateway.core.errors import ConfigurationError

PREFIX: Final = "COUNTERSIGN__"
FILE_SUFFIX: Final = "_FILE"

Key = str | int
KeyPath = tuple[Key, ...]

_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = ("binary", "omap", "pairs", "set", "timestamp")
_DEPTH_MAX: Final = 16
_INDEX: Final = re.compile(r"[0-9]{1,4}")
_FLAGS: Final = {"true": True, "false": False}
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_QUOTED: Final = re.compile(r" '[^<'\\][^']+'")


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
        told = f"{spot}{self.message}; {self.hint}"
        return " ".join(told.splitlines())  # a value may have several lines, a mistake has one


class Source:
    """Plain data with the place of each value, and the mistakes found so far."""

    def __init__(self, path: Path) -> None:
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.broken: dict[KeyPath, str] = {}
        """Why a text that begins like YAML is none."""
        self._texts: dict[KeyPath, str] = {}
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
        value = self._value(root, (), set(), None)
        if isinstance(value, dict):
            self.data = value
        else:
            self.note((), "the file is no mapping", "write `key: value` lines")

    def override(self, env: Mapping[str, str]) -> None:
        """Lay the `COUNTERSIGN__…` variables over the file; `…_FILE` ones last."""
        names = sorted(name for name in env if name.startswith(PREFIX))
        for name in sorted(names, key=lambda name: name.endswith(FILE_SUFFIX)):
            self._override_one(name, env[name])

    def read_as_text(self, path: KeyPath) -> bool:
        """Take a variable for the text that it is, and say whether it was read otherwise.

        `{…}` may be a mapping, or a text that begins so: only who knows the key can tell.
        """
        if path not in self._texts:
            return False
        place, text = self.place(path), self._texts.pop(path)
        self.problems = [one for one in self.problems if one.place != place]
        holder: Any = self.data
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = text
        self._check_text(text, path, place)
        return True

    def _override_one(self, name: str, text: str) -> None:
        place = Place(name)
        parts = name.removeprefix(PREFIX).split("__")
        if parts[-1].endswith(FILE_SUFFIX) and not self._has(parts):
            parts[-1] = parts[-1].removesuffix(FILE_SUFFIX)
            try:
                content = (self._path.parent / text).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError, ValueError):
                hint = "name a readable UTF-8 file"
                self.note((), "the file it names cannot be read", hint, place)
                return
            text = content.rstrip("\r\n")
        if not all(parts):
            self.note((), "the name has an empty part", f"write {PREFIX}SECTION__KEY", place)
            return
        self._set(parts, text, place)

    def _has(self, parts: list[str]) -> bool:
        """Whether the file has a key of this very name: `jwks_file` is one."""
        holder: Any = self.data
        for part in parts:
            key = _match(holder, part)
            if not isinstance(holder, dict | list) or not _holds(holder, key):
                return False
            holder = holder[key]  # type: ignore[index]
        return True

    def _set(self, parts: list[str], text: str, place: Place) -> None:
        holder: Any = self.data
        path: KeyPath = ()
        for part, following in pairwise(parts):
            key = _match(holder, part)
            path = (*path, key)
            self._texts.pop(path, None)  # a part of it is set, so it is no text
            missing = isinstance(holder, dict) and holder.get(key) is None
            if missing and not _INDEX.fullmatch(following):
                holder[key] = {}
                self._places[path] = place
            holder = _member(holder, key)
        key = _match(holder, parts[-1])
        if _is_environment(path) and isinstance(holder, dict) and key not in holder:
            key = parts[-1]
        if isinstance(holder, dict) or (isinstance(holder, list) and _holds(holder, key)):
            holder[key] = self._read_variable(text, (*path, key), place)  # type: ignore[index]
            self._places[*path, key] = place
        else:
            hint = "override whole values, or items that the file has"
            self.note((*path, key), "there is nothing to override", hint, place)

    def _read_variable(self, text: str, path: KeyPath, place: Place) -> Any:  # noqa: ANN401 - YAML
        """Read lists and mappings (`[a, b]`); anything else is a text, which pydantic converts."""
        self._texts = {p: t for p, t in self._texts.items() if p[: len(path)] != path}
        self.broken.pop(path, None)
        if text.lstrip()[:1] in ("[", "{"):
            try:
                root = _compose(text)
            except ValueError as error:
                self.broken[path] = str(error)
            else:
                self._texts[path] = text
                return self._value(root, path, set(), place)
        self._check_text(text, path, place)
        return text

    def _check_text(self, text: str, path: KeyPath, place: Place | None = None) -> None:
        if _UNSEEN.search(text):
            hint = "write what can be seen"
            self.note(path, "a text with control characters is not expected", hint, place)

    def _value(self, node: Any, path: KeyPath, seen: set[int], place: Place | None) -> Any:  # noqa: ANN401 - YAML
        """Return what a node says. `place` is the variable that it came from, if it did."""
        self._places[path] = place or self._line(node)
        if id(node) in seen or len(path) > _DEPTH_MAX:
            hint = "write the value out where it is needed"
            self.note(path, "aliases and deep nesting are not read", hint)
            return None
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        kind = str(node.tag).removeprefix(_TAG)
        if kind not in ("map", "seq"):
            self._refuse_kind(path, kind, "remove the tag")
        if isinstance(node, MappingNode):
            return self._mapping(node, path, seen, place)
        items = enumerate(node.value)
        return [self._value(item, (*path, n), seen, place) for n, item in items]

    def _mapping(
        self, node: MappingNode, path: KeyPath, seen: set[int], place: Place | None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            # A mapping starts on the line after its key; a reader looks for the key.
            spot = place or self._line(key)
            if name in found:
                first = self.place((*path, name)).line
                hint = f"keep one; the first is on line {first}" if first else "keep one"
                self.note((*path, name), f"`{name}` is given twice", hint, spot)
                continue
            found[name] = self._value(value, (*path, name), seen, place)
            self._places[*path, name] = spot
        return found

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:  # noqa: ANN401 - YAML has any type
        text = str(node.value)
        kind = str(node.tag).removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "str":
            self._check_text(text, path)
        elif (value := _read_plain(kind, text)) is not None:
            return value
        elif kind == "bool":
            self.note(path, "a flag of this form is not expected", "write `true` or `false`")
        elif kind in ("int", "float"):  # infinities, and numbers of older YAML
            self.note(path, "a number of this form is not expected", "write it in quotes")
        else:
            self._refuse_kind(path, kind)
        return text

    def _refuse_kind(self, path: KeyPath, kind: str, hint: str = "write it in quotes") -> None:
        named = kind if kind in _TAGS else "tag of this form"
        self.note(path, f"a {named} is not expected", hint)

    def _line(self, node: Node) -> Place:
        return Place(str(self._path), node.start_mark.line + 1)


def load_source(path: Path, env: Mapping[str, str]) -> Source:
    """Read a file and its overrides. Mistakes wait in `problems`.

    Raises `ConfigurationError` for a file that cannot be read or is not YAML at all.
    """
    source = Source(path)
    try:
        root = _compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{path}: cannot be read: {error.strerror}; `countersign init` writes a first one"
        raise ConfigurationError(text) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except _NotYamlError as error:
        hint = "mend this line" if error.line else "mend it"
        text = f"{Place(str(path), error.line)}: is not YAML: {error}; {hint}"
        raise ConfigurationError(text) from None
    if root is not None:
        source.read_tree(root)
    source.override(env)
    return source


class _NotYamlError(ValueError):
    """A text that cannot be read. What it says holds nothing of the text but single characters.

    `line`: 1 and up, or 0 where nothing says which.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def _compose(text: str) -> Node | None:
    """Return the tree of a YAML document. Raises `_NotYamlError`."""
    try:
        with warnings.catch_warnings():  # one repeats what is called twice
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            return YAML(typ="safe", pure=True).compose(text)  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        message = _QUOTED.sub("", str(error.problem)).removeprefix("but ")
        raise _NotYamlError(message, line) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _NotYamlError("there are control characters in it", line) from None
    except RecursionError:
        raise _NotYamlError("it is nested too deep") from None
    except (YAMLError, ValueError):  # `"\U00110000"`
        raise _NotYamlError("an escape in it names no character") from None


def _read_plain(kind: str, text: str) -> bool | float | None:
    """Return the flag or the number that a plain text is; None for one of another form."""
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0)
        if kind == "float" and math.isfinite(number := float(text.replace("_", ""))):
            return number
    except ValueError:
        return None
    return _FLAGS.get(text.lower()) if kind == "bool" else None


def format_path(path: KeyPath) -> str:
    """(`clients`, 0, `id`) → `clients[0].id`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _match(holder: object, part: str) -> Key:
    """Return the key that a variable's `part` means: `_` may stand for `-`, digits for an index."""
    if not isinstance(holder, dict):
        return int(part) if _INDEX.fullmatch(part) else part.lower()
    spoken = part.lower()
    return next((key for key in holder if key.lower().replace("-", "_") == spoken), spoken)


def _member(holder: object, key: Key) -> Any:  # noqa: ANN401 - YAML has any type
    if isinstance(holder, dict):
        return holder.get(key)
    return holder[key] if isinstance(holder, list) and _holds(holder, key) else None  # type: ignore[index]


def _holds(holder: dict[str, Any] | list[Any], key: Key) -> bool:
    if isinstance(holder, dict):
        return key in holder
    return isinstance(key, int) and key < len(holder)


def _is_environment(path: KeyPath) -> bool:
    """Whether the keys of `path` are names of variables, in which case matters."""
    return len(path) == 3 and (path[0], path[2]) == ("servers", "env")  # noqa: PLR2004 - servers.ID.env
