"""What no single key can tell of keys that sign: files of two purposes, publishers of one key."""

from __future__ import annotations

import os
from collections.abc import Iterator

from gateway.adapters.keys.key_uris import FILE, check_uri
from gateway.config.file import KeyPath, format_path
from gateway.config.models import ConfigShape
from gateway.core.errors import ConfigurationError
from gateway.core.releases.publisher_keys import read_key

Finding = tuple[KeyPath, str, str]
"""Path, message, hint."""


def find_key_faults(config: ConfigShape) -> Iterator[Finding]:
    """Yield every mistake about keys. No file is opened."""
    for number, uri in enumerate(config.tokens.keys):
        try:
            check_uri(uri)
        except ConfigurationError as error:
            yield ("tokens", "keys", number), str(error), "docs/token-keys.md shows one of each"
    seen: dict[str, str] = {}
    for path, file in _list_files(config):
        if (other := seen.setdefault(file, format_path(path))) != format_path(path):
            yield path, f"shares its file with `{other}`", "give each its own file"
    yield from _check_publishers(config)


def _list_files(config: ConfigShape) -> Iterator[tuple[KeyPath, str]]:
    """Yield where each key is. One key for two purposes makes what signs one sign the other."""
    audit, tokens = config.audit, config.tokens
    found = {
        ("audit", "key"): audit.key,
        ("audit", "kek"): audit.kek,
        ("tokens", "key"): None if tokens.keys else tokens.key,
        ("tokens", "ring"): tokens.ring,
        ("audit", "witness", "key"): audit.witness.key,
        ("credentials", "assertion_key"): config.credentials.assertion_key,
    }
    yield from ((path, os.path.realpath(file)) for path, file in found.items() if file)
    for number, uri in enumerate(tokens.keys):
        file = os.path.realpath(uri.removeprefix(FILE)) if uri.startswith(FILE) else uri
        yield ("tokens", "keys", number), file


def _check_publishers(config: ConfigShape) -> Iterator[Finding]:
    seen: set[str] = set()
    for number, one in enumerate(config.policy.publishers):
        path = ("policy", "publishers", number, "key")
        try:
            kid = read_key(one.key).kid
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            yield path, message, hint or "copy the line that `countersign policy keygen` prints"
            continue
        if kid in seen:
            yield path, "another publisher has this key", "one each"
        seen.add(kid)
