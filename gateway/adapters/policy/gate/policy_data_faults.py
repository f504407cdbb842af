"""What is wrong with the data of policies: reserved names, and an authority that nobody can use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.adapters.policy.gate.policy_authority import find_authority_faults
from gateway.adapters.policy.policy_faults import Mistake, in_file
from gateway.adapters.policy.policy_package import Source

_RESERVED: Final = ("policies", "countersign", "applies_to")


def find_data_faults(data: Mapping[str, Any], found: list[Source]) -> Iterator[Mistake]:
    """Yield mistakes in the merged data and in `authority`, for these policies."""
    for key in _RESERVED:
        if key in data:
            text = f"`{key}` is reserved for the gateway; rename it"
            yield in_file("data.json", "data_reserved", text)
    yield from find_authority_faults(data.get("authority"), found)
