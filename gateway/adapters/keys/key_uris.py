"""How a configuration names token keys.

`file:PATH` and `env:NAME` hold one key in PEM (PKCS#8), `dir:PATH` one in each file, as Kubernetes
mounts secrets, and `pkcs11:…` names one in an HSM (RFC 7512).
"""

from __future__ import annotations

import re
from typing import Final

from gateway.adapters.keys.pkcs11_uri import SCHEME as PKCS11
from gateway.adapters.keys.pkcs11_uri import parse_pkcs11_uri
from gateway.core.errors import ConfigurationError

FILE, ENV, DIR = "file:", "env:", "dir:"
_KNOWN: Final = "`file:PATH`, `env:NAME`, `dir:PATH` and `pkcs11:…`"
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

__all__ = ["DIR", "ENV", "FILE", "PKCS11", "check_uri", "shown"]


def check_uri(uri: str) -> None:
    """Raise `ConfigurationError` for a URI that names no key source, without looking there."""
    if uri.startswith(PKCS11):
        parse_pkcs11_uri(uri)
    elif uri.startswith(ENV):
        if not _ENV_NAME.fullmatch(uri.removeprefix(ENV)):
            raise ConfigurationError("`env:` needs the name of a variable, such as `env:TOKEN_KEY`")
    elif not uri.startswith((FILE, DIR)) or not uri.partition(":")[2]:
        raise ConfigurationError(f"it is no key source; there are {_KNOWN}")


def shown(source: str) -> str:
    """Return a source as people may see it: where a PIN is kept is left out."""
    return source.partition("?")[0]
