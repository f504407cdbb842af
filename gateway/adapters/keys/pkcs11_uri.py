"""Names of keys in PKCS#11 tokens (RFC 7512), as far as they name one private key and no secret.

::

    pkcs11:token=gateway;object=tokens-2026?module-path=/usr/lib/…/libsofthsm2.so&pin-source=env:PIN
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from gateway.core.errors import ConfigurationError

SCHEME: Final = "pkcs11:"
_PATH: Final = frozenset({"token", "serial", "object", "id", "type"})
_QUERY: Final = frozenset({"module-path", "pin-source"})
_PIN_SOURCE: Final = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_HINTS: Final = {
    "pin-value": "a PIN does not stand in the configuration; use `pin-source=env:NAME`",
    "module-name": "name the library by `module-path`",
    "slot-id": "slots are numbered anew by some modules; name the `token` or its `serial`",
}


class Pkcs11Key(Struct, frozen=True, kw_only=True):
    """Where a private key is; what is empty is not said. `pin_source`: `env:NAME`, `file:PATH`."""

    module_path: str
    token: str = ""
    serial: str = ""
    object: str = ""
    id: bytes = b""
    pin_source: str = ""


def parse_pkcs11_uri(uri: str) -> Pkcs11Key:
    """Return what a URI names. Raises `ConfigurationError` for one that names no single key."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    found = _read(path, ";", _PATH) | _read(query, "&", _QUERY)
    texts = {name: _text(name, value) for name, value in found.items() if name != "id"}
    if texts.get("type", "private") != "private":
        raise _bad("`type` must be `private`: only a private key signs")
    if not texts.get("module-path", "").startswith("/"):
        raise _bad("`module-path` must be the absolute path of the PKCS#11 library")
    if not (texts.get("token") or texts.get("serial")):
        raise _bad("it names no token; add `token=` or `serial=`")
    if not (texts.get("object") or found.get("id")):
        raise _bad("it names no key; add `object=` or `id=`")
    if "pin-source" in texts and not _PIN_SOURCE.fullmatch(texts["pin-source"]):
        raise _bad("`pin-source` must be `env:NAME` or `file:PATH`")
    return Pkcs11Key(
        module_path=texts["module-path"],
        token=texts.get("token", ""),
        serial=texts.get("serial", ""),
        object=texts.get("object", ""),
        id=found.get("id", b""),
        pin_source=texts.get("pin-source", ""),
    )


def _read(part: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for attribute in part.split(separator) if part else ():
        name, equals, value = attribute.partition("=")
        if name not in known or not equals:
            hint = _HINTS.get(name, "known are " + ", ".join(sorted(_PATH | _QUERY)))
            raise _bad(f"`{name}` is not understood; {hint}")
        if name in found:
            raise _bad(f"`{name}` stands there twice")
        if re.search(r"%(?![0-9A-Fa-f]{2})", value):
            raise _bad(f"`{name}` has a `%` without two hex digits; write it `%25`")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _bad(f"`{name}` is not UTF-8") from None
    if "\x00" in text:
        raise _bad(f"`{name}` holds a NUL")
    return text


def _bad(why: str) -> ConfigurationError:
    return ConfigurationError(f"the `pkcs11:` URI cannot be used: {why}")
