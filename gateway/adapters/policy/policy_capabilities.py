"""`rego/capabilities.json`: what policies may call, in the words of `opa check --capabilities`.

Made of OPA's own list: `opa capabilities --current` goes in, the file comes out.

    opa capabilities --current |
        python -m gateway.adapters.policy.policy_capabilities > rego/capabilities.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from gateway.adapters.policy.policy_builtins import ALLOWED

_SYNTAX: Final = frozenset({"assign", "eq", "internal.member_2", "internal.member_3"})
"""Functions that no policy names, and that others write as `:=`, `=` and `in`."""

_FEATURES: Final = ("rego_v1",)
_DESCRIBING: Final = ("description", "categories")


def build_capabilities(current: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of OPA's capabilities policies may use: no network, no other version of Rego."""
    return {
        "builtins": [
            {key: value for key, value in each.items() if key not in _DESCRIBING}
            for each in current["builtins"]
            if each["name"] in ALLOWED or each["name"] in _SYNTAX or "infix" in each
        ],
        # They give `not` another meaning; and an OPA that lacks one refuses the whole list.
        "future_keywords": [],
        "features": list(_FEATURES),
        "allow_net": [],
    }


def main() -> None:
    """Write the file to stdout."""
    found = build_capabilities(json.load(sys.stdin))
    sys.stdout.write(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
