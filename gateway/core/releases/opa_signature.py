"""OPA's signature of a bundle: a JWT over its list of files, with the environment as its scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.errors import RequestError
from gateway.core.releases.opa_files import find_list_fault, list_files
from gateway.core.releases.publisher_keys import (
    UNSIGNED,
    PrivateKey,
    PublisherKey,
    read_jwt,
    sign_jwt,
)

TYP: Final = "JWT"


def scope_of(environment: str) -> str:
    """Return what OPA is told with `--scope`, so that a signature for one environment is for it."""
    return f"countersign:{environment}"


def sign_bundle(private: PrivateKey, files: Mapping[str, bytes], *, scope: str = "") -> str:
    """Return the one signature of `.signatures.json` over these files. Raises `RequestError`."""
    claims: dict[str, Any] = {"files": list_files(files)}
    return sign_jwt(private, {**claims, "scope": scope} if scope else claims, TYP)


def check_bundle(token: str, files: Mapping[str, bytes], key: PublisherKey, *, scope: str) -> None:
    """Check a signature as OPA does with `--verification-key` and `--scope`.

    Raises `RequestError` (`signature_invalid`, `release_invalid`) with what is wrong.
    """
    claims = read_jwt(token, key, TYP)
    if claims.get("scope", "") != scope:
        raise RequestError(
            f"the signature is for `{str(claims.get('scope', ''))[:80]}`, not for `{scope}`",
            code=UNSIGNED,
        )
    fault = find_list_fault(claims.get("files"), files)
    if fault is not None:
        raise RequestError(f"the signature does not fit: {fault}", code=UNSIGNED)
