"""Other people's checks of policies, where they are installed: `opa` and `regal`.

Their findings are warnings. A tool that is missing, fails or says what nobody can read is told in
one line and changes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.adapters.policy.policy_bundle import AUTHORITY_FILE, find_rego_root
from gateway.adapters.policy.policy_faults import Mistake

_TIMEOUT_S: Final = 30
_SHOWN_MAX: Final = 200
_MISSING: Final = {
    "opa": "strict check and formatting (`opa check --strict`, `opa fmt`)",
    "regal": "style (`regal lint`)",
}


class _Unreadable(Exception):  # noqa: N818 - an answer, not a mistake
    """A tool did not answer as it should."""


def ask_linters(folder: Path, notes: list[str]) -> list[Mistake]:
    """Return what `opa check --strict`, `opa fmt` and `regal lint` find; add notes on tools."""
    missing = [f"{name}: {what}" for name, what in _MISSING.items() if shutil.which(name) is None]
    if missing:
        notes.append(f"not on PATH, so not asked for: {'; '.join(missing)}")
    found: list[Mistake] = []
    for name, ask in (("opa", _check), ("opa", _format), ("regal", _lint)):
        program = shutil.which(name)
        if program is None:
            continue
        try:
            found += list(ask(program, folder))[:_SHOWN_MAX]
        except (_Unreadable, OSError, subprocess.TimeoutExpired, KeyError, TypeError) as error:
            notes.append(
                f"`{name}` gave no usable answer ({type(error).__name__}); run it yourself"
            )
    return found


def _check(program: str, folder: Path) -> Iterator[Mistake]:
    arguments = ["check", "--strict", "--format", "json", "--ignore", AUTHORITY_FILE]
    # Calls into the library are unknown functions without it.
    library = find_rego_root() / "countersign"
    others = [] if library.is_relative_to(folder.resolve()) else [str(library)]
    done = _run(program, [*arguments, str(folder), *others])
    for error in _read(done.stderr or done.stdout or b"{}").get("errors", ()):
        place = error.get("location") or {}
        yield _warning(folder, place, f"opa_{error['code']}", error["message"], "opa check")


def _format(program: str, folder: Path) -> Iterator[Mistake]:
    done = _run(program, ["fmt", "--list", str(folder)])
    for line in done.stdout.decode().splitlines():
        hint = f"see `opa fmt --diff {line}`, then `opa fmt --write {line}`"
        yield Mistake(_name(folder, line), 0, 0, "format", "is not formatted", hint, "warning")


def _lint(program: str, folder: Path) -> Iterator[Mistake]:
    done = _run(program, ["lint", "--format", "json", str(folder)])
    for found in _read(done.stdout or b"{}").get("violations", ()):
        text = f"{found['description']} ({found['category']}/{found['title']})"
        code = f"regal_{found['title']}"
        yield _warning(folder, found["location"], code, text, "regal lint")


def _warning(folder: Path, place: dict[str, Any], code: str, text: str, tool: str) -> Mistake:
    file = _name(folder, str(place.get("file", folder)))
    row, col = int(place.get("row", 0)), int(place.get("col", 0))
    message = " ".join(text.split())
    return Mistake(file, row, col, code, message, f"found by `{tool}`", "warning")


def _name(folder: Path, file: str) -> str:
    """Return a file's path below the folder, as the gate names it."""
    path = Path(file)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file


def _run(program: str, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603 - found on PATH by its name, given fixed arguments
        [program, *arguments],
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
        env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")},
    )


def _read(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _Unreadable from None
    if not isinstance(value, dict):
        raise _Unreadable
    return value
