"""Reading a running gateway's log is announced to it first, and it writes the record.

Without an address nothing records the reading: a copy, or the log of a gateway that is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from gateway.cli.admin_api import ask
from gateway.cli.audit_filters import fail, warn
from gateway.cli.exits import Exit
from gateway.core.records.audit_access import Span, What

UrlOption = Annotated[
    str,
    typer.Option(
        envvar="COUNTERSIGN_URL",
        help="The running gateway, which records the reading before anything is shown.",
    ),
]
PurposeOption = Annotated[str, typer.Option(help="Why, for the log; needed with `--url`.")]

_UNRECORDED: Final = "no record says that these records were read; give `--url` for a live log"


class Announcer:
    """Tells the gateway at `url` what is about to be read; where there is none, warns people.

    INVARIANT: where a gateway is named and does not record the reading, the command ends there.
    """

    def __init__(self, url: str, purpose: str, filters: Mapping[str, str]) -> None:
        self._url: Final = url
        self._said: Final[dict[str, str | int]] = {"purpose": purpose.strip()}
        if filters:
            self._said["filters"] = json.dumps(dict(filters), sort_keys=True)
        if not self.is_recorded:
            warn(_UNRECORDED)
        elif not self._said["purpose"]:
            raise fail("say why with `--purpose`: the reading is recorded", Exit.USAGE)

    @property
    def is_recorded(self) -> bool:
        """Whether a gateway records the reading."""
        return bool(self._url)

    def read(self, what: What, span: Span) -> None:
        """Have `audit.read` written. Exits where that fails: nothing is shown then."""
        self._tell({"what": what}, span)

    def export(self, form: str, digest: str, span: Span) -> None:
        """Have `audit.export` written. Exits where that fails: no file is handed over then."""
        self._tell({"what": "export", "format": form, "digest": digest}, span)

    def _tell(self, what: Mapping[str, str], span: Span) -> None:
        if not self.is_recorded:
            return
        body = {**self._said, **what, "records": span.records}
        if span.first is not None and span.last is not None:
            body |= {"first": span.first, "last": span.last}
        ask("POST", "/v1/audit/reads", body=body, url=self._url)
