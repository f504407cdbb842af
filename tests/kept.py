"""What tests would make again and again, and always alike, is made once in a process.

To be imported before whoever uses it, who would else have the functions as they are.
"""

from __future__ import annotations

import os
import ssl
from functools import cache, lru_cache
from typing import Any, Final

import typer.main
from httpx import _config
from httpx._transports import default

from gateway.adapters.policy import policy_ast

MODULES_KEPT: Final = 96
"""A few more than are shipped. The tree of each takes a megabyte."""

_create_context: Final = cache(_config.create_ssl_context)


def create_context(
    verify: Any = True,  # noqa: ANN401, FBT002 - as httpx has it
    cert: Any = None,  # noqa: ANN401 - as above
    trust_env: bool = True,  # noqa: FBT001, FBT002 - as above
) -> ssl.SSLContext:
    """Return what `httpx` checks servers by: reading all authorities takes longer than a call."""
    plain = isinstance(verify, bool) and cert is None
    if plain and not os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        return _create_context(verify)
    return _config.create_ssl_context(verify, cert, trust_env)


# No seam is for any of these.
setattr(default, "create_ssl_context", create_context)  # noqa: B010
# A test that drives the command line puts all of it together anew: its parameters are read once.
setattr(  # noqa: B010
    typer.main,
    "get_params_from_function",
    cache(typer.main.get_params_from_function),  # type: ignore[attr-defined] # not exported
)
# What a module says hangs on its text alone, and nobody changes it: the default pack, the library.
setattr(policy_ast, "parse_module", lru_cache(MODULES_KEPT)(policy_ast.parse_module))  # noqa: B010
