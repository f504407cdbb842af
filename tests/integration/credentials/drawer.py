"""A keyring for a gateway in a process of its own (PYTHON_KEYRING_BACKEND), kept in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend


class Drawer(KeyringBackend):
    """Reads what the file at `DRAWER` holds: service and user, with a slash between, to secret."""

    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        """Return the secret, if there is one."""
        held: dict[str, str] = json.loads(Path(os.environ["DRAWER"]).read_text(encoding="utf-8"))
        return held.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Refuse: nothing here writes."""
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        """Refuse: nothing here writes."""
        raise NotImplementedError
