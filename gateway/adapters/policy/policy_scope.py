"""What a policy package concerns, by its own annotation, and which packages one call needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, get_args

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.core.catalog import Effect
from gateway.core.policy.decision import Phase

PHASES: Final[tuple[str, ...]] = get_args(Phase)
EFFECTS: Final[tuple[str, ...]] = get_args(Effect)
_SELECTORS: Final = ("tools", "servers", "effects", "phases")
_METADATA: Final = re.compile(r"\s*#\s*METADATA\s*")
_MEANT: Final = re.compile(r"\s*#[#\s]*[\"']?applies[-_ ]?to[\"']?\s*:\s*(\{.*)?", re.IGNORECASE)
"""A line of a comment that is no prose: the key, with nothing or a mapping behind it."""
_GLOB: Final = re.compile(r"[A-Za-z0-9_.*-]{1,128}")


class Scope(Struct, frozen=True, omit_defaults=True):
    """An annotation `custom.applies_to`. Selectors that are given must all match.

    `tools` are globs over tool ids, in which `*` is any run of characters. None selects all.
    """

    tools: tuple[str, ...] | None = None
    servers: tuple[str, ...] | None = None
    effects: tuple[str, ...] | None = None
    phases: tuple[str, ...] | None = None

    def matches(self, tool_id: str, server: str, effect: str, phase: str) -> bool:
        """Whether the package concerns this call: the same as `concerns` in main.rego."""
        return (
            (self.phases is None or phase in self.phases)
            and (self.servers is None or server in self.servers)
            and (self.effects is None or effect in self.effects)
            and (
                self.tools is None
                or any(re.fullmatch(_pattern(glob), tool_id) for glob in self.tools)
            )
        )

    def as_data(self) -> dict[str, Any]:
        """Return what main.rego reads under `data.applies_to.<package>`."""
        given = {name: getattr(self, name) for name in _SELECTORS}
        found = {name: list(values) for name, values in given.items() if values is not None}
        if self.tools is not None:
            found["tools"] = [rf"\A{_pattern(glob)}\z" for glob in self.tools]
        return found


def _pattern(glob: str) -> str:
    """Return a regular expression that means the same to Python, Go and Rust."""
    parts = (re.escape(part).replace(r"\-", "-") for part in glob.split("*"))
    return "(?s:" + ".*".join(parts) + ")"


def read_scope(given: object) -> tuple[Scope | None, list[str]]:
    """Return the scope that an annotation says, and what is wrong with it."""
    if not isinstance(given, dict):
        return None, ["`applies_to` is not a mapping; give tools, servers, effects or phases"]
    faults = [
        f"`applies_to` has no selector `{key}`; use one of {', '.join(_SELECTORS)}"
        for key in given
        if key not in _SELECTORS
    ]
    for name in _SELECTORS:
        if name in given:
            faults += _selector_faults(name, given[name])
    if faults:
        return None, faults
    return Scope(**{name: tuple(values) for name, values in given.items()}), []


def _selector_faults(name: str, values: object) -> Iterable[str]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        return [f"`applies_to.{name}` is not a list of at least one name"]
    known = {"phases": PHASES, "effects": EFFECTS}.get(name)
    if known is not None:
        return [
            f"`applies_to.{name}` has an unknown `{value}`; use {', '.join(known)}"
            for value in values
            if value not in known
        ]
    return [
        f"`applies_to.{name}` has `{value}`; use letters, digits, `_ . -`, and `*` for tools"
        for value in values
        if _GLOB.fullmatch(value) is None or (name == "servers" and "*" in value)
    ]


def read_annotations(
    text: str, package_line: int, faults: list[tuple[int, str]]
) -> Iterator[tuple[int, object]]:
    """Yield (line, `custom.applies_to`) of a module's package annotation; add what is wrong."""
    for line, block in _metadata_blocks(text):
        value, wrong_line = _read_yaml(block)
        if wrong_line is not None:
            faults.append((line + 1 + wrong_line, "the annotation is not valid YAML; mend it"))
            continue
        custom = _custom(value)
        if "applies_to" not in custom:
            continue
        if line > package_line:
            text = "`applies_to` belongs to the package, not to a rule; move it above `package`"
            faults.append((line, text))
        else:
            yield line, custom["applies_to"]


def find_unread(text: str) -> Iterator[int]:
    """Yield the lines that are meant for an `applies_to` and stand where nobody reads one.

    A package that was to concern one tool would concern every tool, and permit them.
    """
    read: set[int] = set()
    for line, block in _metadata_blocks(text):
        value, wrong_line = _read_yaml(block)
        if wrong_line is not None or "applies_to" in _custom(value):  # told, or read
            read.update(range(line + 1, line + 2 + block.count("\n")))
    for number, line_text in enumerate(text.splitlines(), start=1):
        if number not in read and _MEANT.fullmatch(line_text):
            yield number


def _custom(value: object) -> dict[Any, Any]:
    """Return the member `custom` of what a block says, or nothing."""
    custom = value.get("custom") if isinstance(value, dict) else None
    return custom if isinstance(custom, dict) else {}


@lru_cache(maxsize=1024)
def _read_yaml(block: str) -> tuple[Any, int | None]:
    """Return what a block says, or in which of its lines it is wrong. Reloads repeat most of them.

    Nobody may change the value.
    """
    try:
        return YAML(typ="safe", pure=True).load(block), None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        return None, mark.line if mark else 0


def _metadata_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, YAML) of each comment block that begins with `# METADATA`."""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if _METADATA.fullmatch(line):
            comments = takewhile(lambda each: each.lstrip().startswith("#"), lines[number:])
            yield number, "\n".join(comment.lstrip()[1:] for comment in comments)
