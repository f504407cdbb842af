"""`policy.shadow`: a candidate began or ceased to be evaluated beside the policies in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gateway.core.entry import Entry


def build_shadow(
    op: str,
    what: Literal["start", "stop"],
    *,
    revision: str,
    counts: Mapping[str, int] | None = None,
) -> Entry:
    """Build the record. `counts`, at the end: what was seen and what would have changed."""
    fields: dict[str, object] = {"state": what, "rev": revision}
    if counts is not None:
        fields["counts"] = dict(counts)
    return Entry(type="policy.shadow", op=op, fields=fields)
