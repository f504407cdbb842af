"""Where the command line keeps what `countersign login` got: one file, for its owner only."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final, TypedDict

_DIR_MODE: Final = 0o700


class Credential(TypedDict):
    """A session at one gateway. `expires_at` in seconds since the epoch."""

    token: str
    person: str
    expires_at: int


def credentials_path() -> Path:
    """Return the file: in `$XDG_CONFIG_HOME`, else in `~/.config`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "countersign" / "credentials.json"


def load_credential(url: str) -> Credential | None:
    """Return what is kept for a gateway, if it is not over and nobody else can read it."""
    found = _load().get(url) or {}
    try:
        credential = Credential(
            token=str(found["token"]),
            person=str(found["person"]),
            expires_at=int(found["expires_at"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return credential if time.time() < credential["expires_at"] else None


def save_credential(url: str, credential: Credential | None) -> None:
    """Keep a credential for a gateway; None forgets it. The file is replaced as a whole."""
    path = credentials_path()
    if credential is None and not path.exists():
        return
    kept = {known: value for known, value in _load().items() if known != url}
    if credential is not None:
        kept[url] = credential
    path.parent.mkdir(mode=_DIR_MODE, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # for its owner only, from the first byte
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(kept, file, indent=1)
    Path(name).replace(path)


def _load() -> dict[str, Any]:
    path = credentials_path()
    try:
        if path.stat().st_mode & 0o077:
            return {}  # somebody else could have read it, or put something there
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
