"""What the annotations of policies and of the library say (OPA's `# METADATA` comments). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Final

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.core.errors import ConfigurationError

_METADATA: Final = re.compile(r"#\s*METADATA\s*")
_CODE: Final = re.compile(r'"code": (?:"(\w+)"|sprintf\("([^"]+)")')
_HEAD: Final = re.compile(r"\w+(?:\([^)]*\))?")


class Note(Struct, frozen=True):
    """One annotation. `rule` is the rule as its head writes it, empty for the package.

    `code`: the reason code that the rule gives, `…` where it is put together; empty for none.
    """

    rule: str
    line: int
    title: str
    description: str = ""
    custom: dict[str, Any] = {}
    code: str = ""


class Notes(Struct, frozen=True):
    """All annotations of one module, in order. `package` has none where nobody wrote one."""

    name: str
    package: Note
    rules: tuple[Note, ...]


def read_notes(path: str, text: str) -> Notes:
    """Return the annotations of a module.

    Raises `ConfigurationError` (`policy_invalid`) with file:line where the module or an annotation
    cannot be read, or where an annotation stands above no rule.
    """
    module = parse_module(path, text)
    if isinstance(module, Fault):
        raise _invalid(f"{path}:{module.line}: {module.text}")
    package = Note("", module.package_line, "")
    rules: list[Note] = []
    starts = sorted({rule.line for rule in module.rules})
    for line, block in _blocks(path, text):
        if line < module.package_line:
            package = _note("", line, block)
            continue
        below = next((start for start in starts if start > line), None)
        if below is None:
            raise _invalid(f"{path}:{line}: there is no rule below this annotation; remove it")
        source = text.splitlines()[below - 1 :]
        rules.append(_note(_head(source[0]), below, block, _code(source)))
    return Notes(module.package[-1], package, tuple(rules))


def _note(rule: str, line: int, block: dict[str, Any], code: str = "") -> Note:
    title, description = (
        " ".join(str(block.get(key, "")).split()) for key in ("title", "description")
    )
    custom = block.get("custom")
    return Note(rule, line, title, description, custom if isinstance(custom, dict) else {}, code)


def _head(line: str) -> str:
    found = _HEAD.match(line)
    return found[0] if found else ""


def _code(source: list[str]) -> str:
    """Return the code that stands before the rule's body."""
    head = "\n".join(takewhile(lambda line: not line.startswith("} if"), source[:12]))
    found = _CODE.search(head)
    return "" if found is None else found[1] or found[2].replace("%s", "…").replace("%v", "…")


def _blocks(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if _METADATA.fullmatch(line):
            comments = takewhile(lambda each: each.startswith("#"), lines[number:])
            try:
                block = YAML(typ="safe", pure=True).load("\n".join(each[1:] for each in comments))
            except YAMLError:
                raise _invalid(f"{path}:{number}: the annotation is not valid YAML") from None
            if not isinstance(block, dict):
                raise _invalid(f"{path}:{number}: the annotation says nothing")
            yield number, block


def _invalid(text: str) -> ConfigurationError:
    return ConfigurationError(text, code="policy_invalid")
