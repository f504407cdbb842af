"""Built-in functions that regorus lacks, and those that it answers otherwise than OPA does.

Each answers as OPA does, or raises: then the decision fails and the call is denied. A policy can
read tokens and check their signatures; what looks at the clock (`io.jwt.decode_verify`), signs, or
handles private keys is not here. An extension goes before the engine's own function of its name.
Imported by workers: no cryptography until a signature is checked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.adapters.regorus import (
    shim_documents,
    shim_networks,
    shim_numbers,
    shim_regex,
    shim_sprintf,
    shim_texts,
    shim_times,
    shim_tokens,
)
from gateway.adapters.regorus.shim_natives import prepare_natives

Shim = Callable[..., Any]


def install_shims(engine: Any) -> None:  # noqa: ANN401 - regorus has no types
    """Add every function to an engine; its clones have them too. About 60 µs."""
    for name, (arity, shim) in SHIMS.items():
        engine.add_extension(name, arity, shim)


def prepare_shims(sources: Iterable[str]) -> None:
    """Load what the functions that these policies call will need: later it would cost a call."""
    prepare_natives()
    if any("io.jwt.verify_" in source for source in sources):
        shim_tokens.prepare()


def _hash(name: str) -> Shim:
    def digest(text: object) -> str:
        return hashlib.new(name, _bytes(text), usedforsecurity=False).hexdigest()

    return digest


def _mac(name: str) -> Shim:
    def mac(text: object, key: object) -> str:
        return hmac.new(_bytes(key), _bytes(text), name).hexdigest()

    return mac


def _equal(one: object, other: object) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value.encode()


ADDED: Final[dict[str, tuple[int, Shim]]] = {
    **{f"crypto.{name}": (1, _hash(name)) for name in ("md5", "sha1", "sha256")},
    **{f"crypto.hmac.{name}": (2, _mac(name)) for name in ("md5", "sha1", "sha256", "sha512")},
    "crypto.hmac.equal": (2, _equal),
    "io.jwt.decode": (1, shim_tokens.decode),
    **{f"io.jwt.verify_{name}": (2, shim) for name, shim in shim_tokens.VERIFIERS.items()},
}
"""What regorus lacks, by name, each with the number of its arguments."""

REPLACED: Final[dict[str, tuple[int, Shim]]] = {
    **shim_documents.SHIMS,
    **shim_networks.SHIMS,
    **shim_numbers.SHIMS,
    **shim_regex.SHIMS,
    **shim_sprintf.SHIMS,
    **shim_texts.SHIMS,
    **shim_times.SHIMS,
}
"""What regorus has, and answers otherwise than OPA for some arguments."""

SHIMS: Final = ADDED | REPLACED
