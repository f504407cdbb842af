"""Rego that tests load again and again is parsed once: the default pack, the library, the example.

What a module says hangs on its text alone, and nobody changes it. To be imported before whoever
parses, who would else have the function as it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gateway.adapters.policy import policy_ast

MODULES_KEPT: Final = 96
"""A few more than are shipped. The tree of each takes a megabyte."""

setattr(  # noqa: B010 - no seam is for this
    policy_ast, "parse_module", lru_cache(MODULES_KEPT)(policy_ast.parse_module)
)
