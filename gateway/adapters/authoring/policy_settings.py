"""Settings that nothing reads, or that are of another type than the one that is read.

Left out, a setting is as shipped; misspelled, or a text where a list is read, it mostly is too, and
nobody is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from gateway.adapters.authoring.policy_notes import read_notes
from gateway.adapters.policy.gate.policy_names import suggest
from gateway.adapters.policy.policy_bundle import Bundle, default_pack
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.core.errors import ConfigurationError

_FILE: Final = "data.json"
_READ: Final = ("data", "settings")
_LISTS: Final = {("personal_data", "servers"), ("personal_data", "roles")}
"""As shipped they are null: nothing. Who sets them gives a list."""

Path = tuple[str, ...]


def find_setting_faults(bundle: Bundle, sources: Iterable[Source], written: str) -> list[Mistake]:
    """Return a warning for each setting that is unknown or of another type than the shipped one.

    What the folder's own modules read below `data.settings`, and what annotations declare under
    `custom.settings`, is known too. `written` is the text of `data.json`, for the rows.
    """
    settings = json.loads(bundle.data).get("settings")
    if settings is None:
        return []
    sources = list(sources)
    shipped = _shipped()
    declared = _merge(shipped, _declared((each.path, each.text) for each in sources))
    own = [each for each in sources if shipped_text(each.path) != each.text]
    read = {use.path[2:] for each in own for use in each.module.refs if use.path[:2] == _READ}
    found = _type_fault((), settings, {}) or _faults((), settings, declared, read)
    told = [
        Mistake(_FILE, _row(written, path), 1, code, message, hint, "warning")
        for path, code, message, hint in found
    ]
    return sorted(told, key=lambda each: each.row)


def shipped_text(path: str) -> str | None:
    """Return the module of the default pack at a path, if there is one."""
    file = default_pack() / path
    return file.read_text() if file.is_file() else None


@cache
def _shipped() -> dict[str, Any]:
    pack = default_pack()
    modules = sorted(each for each in pack.rglob("*.rego") if not each.stem.endswith("_test"))
    return _declared((each.name, each.read_text()) for each in modules)


def _declared(modules: Iterable[tuple[str, str]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path, text in modules:
        try:
            settings = read_notes(path, text).package.custom.get("settings")
        except ConfigurationError:
            continue  # an annotation that says nothing declares nothing
        if isinstance(settings, dict):
            merged = _merge(merged, settings)
    return merged


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        mine = merged.setdefault(name, value)
        if isinstance(mine, dict) and isinstance(value, dict):
            merged[name] = _merge(mine, value)
    return merged


def _faults(
    path: Path, given: Mapping[str, Any], declared: Mapping[str, Any], read: set[Path]
) -> Iterator[tuple[Path, str, str, str]]:
    for name, value in given.items():
        here = (*path, name)
        if name in declared:
            wrong = _type_fault(here, value, declared[name])
            if wrong:
                yield from wrong
            elif isinstance(value, dict) and declared[name]:
                yield from _faults(here, value, declared[name], read)
        elif not _is_read(here, read):
            shown = ".".join(here)
            hint = suggest(name, [*declared, *_read_below(path, read)])
            near = hint or "`docs/policy-pack.md` has all that the default pack reads"
            yield here, "setting_unknown", f"nothing reads the setting `{shown}`", near
        elif isinstance(value, dict) and not _is_whole(here, read):
            yield from _faults(here, value, {}, read)


def _is_read(path: Path, read: set[Path]) -> bool:
    """Whether a module reads it, all above it, or something below it."""
    return any(_meet(path, each) for each in read if each or len(path) == 1)


def _is_whole(path: Path, read: set[Path]) -> bool:
    return any(len(each) <= len(path) and _meet(path, each) for each in read)


def _meet(path: Path, other: Path) -> bool:
    return all(b in ("", a) for a, b in zip(path, other, strict=False))


def _read_below(path: Path, read: set[Path]) -> Iterator[str]:
    for each in read:
        if len(each) > len(path) and each[: len(path)] == path:
            yield each[len(path)]


def _type_fault(path: Path, value: object, shipped: object) -> list[tuple[Path, str, str, str]]:
    wanted = "a list" if path in _LISTS else _type(shipped)
    if value is None or wanted in {"null", _type(value)}:
        return []
    shown = f"`{'.'.join(path)}`" if path else "`settings`"
    message = f"{shown} is {_type(value)}, and what reads it wants {wanted}"
    hint = f"write {json.dumps([value])}" if wanted == "a list" and _is_word(value) else ""
    return [(path, "setting_type", message, hint or f"write {wanted}, or leave it out")]


def _is_word(value: object) -> bool:
    return isinstance(value, str)


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    for kind, name in ((str, "a text"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return name
    return "null"


def _row(written: str, path: Path) -> int:
    """Return the row at which a setting's name stands, as far as its names come in that order."""
    at = 0
    for name in ("settings", *path):
        found = re.compile(rf"{re.escape(json.dumps(name))}\s*:").search(written, at)
        if found is None:
            return 0
        at = found.start()
    return written.count("\n", 0, at) + 1
