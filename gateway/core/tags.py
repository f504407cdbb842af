"""Tags: what lets a reader of the log compare values that it must not hold (spec §7).

A tag is keyed with a secret of one approval that stands in no record. Two equal tags of one
approval mean the same person, or the same arguments; a tag alone confirms no guess.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Iterable
from typing import Final

_CHARS: Final = 22
"""128 bits and a little."""


def tag(secret: str, label: str, value: bytes) -> str:
    """Return the tag of `value`: 22 characters of base64url."""
    message = b"%b\0%b" % (label.encode(), value)
    mac = hmac.digest(secret.encode(), message, "sha256")
    return binascii.b2a_base64(mac, newline=False).decode().translate(_URL_SAFE)[:_CHARS]


def person_tag(secret: str, name: str) -> str:
    """Return the tag of a person, by the one name that stands for all their names."""
    return tag(secret, "cs/person/v1", name.encode())


def person_tags(secret: str, names: Iterable[str]) -> list[str]:
    """Return the tags of several people, sorted, each once."""
    return sorted({person_tag(secret, name) for name in names})


def arguments_tag(secret: str, arguments: bytes) -> str:
    """Return the tag of a call's argument bytes."""
    return tag(secret, "cs/args/v1", arguments)


_URL_SAFE: Final = str.maketrans("+/", "-_")
