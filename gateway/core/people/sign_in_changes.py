"""What the log says of sign-ins that the state may have forgotten: it was put back from a backup.

The state knows up to which record it was kept last. Where the log says of later ones that somebody
signed out, or that what somebody signs in with changed, the state perhaps undid it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CHANGES: Final = frozenset({"human.sign_out", "human.change"})
"""Records after which a state from before them lets somebody in who should not be."""


class SignInChanges:
    """What was read behind the place up to which the state was kept.

    `count`: records of `CHANGES`. `issued`: by run, when its agent itself last got a token, in
    µs.
    """

    def __init__(self) -> None:
        self.count = 0
        self.issued: dict[str, int] = {}

    def fold(self, record: Mapping[str, Any]) -> None:
        """Note a record of the log."""
        if record["type"] in CHANGES:
            self.count += 1
        elif record["type"] == "token.issue" and not record.get("depth"):
            self.issued[record["run"]] = record["ts"]
