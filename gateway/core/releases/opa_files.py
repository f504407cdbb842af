"""The list of files that OPA signs in `.signatures.json`, and how it is held against a bundle.

Source: OPA, Management: Bundles, Signing; the bytes that are hashed were taken from what `opa sign`
1.22 makes (tests/integration/releases). A JSON document is hashed in a form of its own: members
sorted, no white space, numbers as they were written, strings as Go's `encoding/json` writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.core.errors import RequestError
from gateway.core.releases.archive import CODE

SIGNATURES: Final = ".signatures.json"
MANIFEST: Final = ".manifest"
DATA: Final = "data.json"
YAML_DATA: Final = ("data.yaml", "data.yml")
_DEPTH_MAX: Final = 512
_HASHES: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "SHA-256": hashlib.sha256,
    "SHA-384": hashlib.sha384,
    "SHA-512": hashlib.sha512,
}
"""MD5 and SHA-1, which OPA takes as well, do not name a file any more."""


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def list_files(files: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return the `files` claim for a bundle: all but the signatures themselves, sorted."""
    return [
        {"name": path, "hash": hash_file(path, content, "SHA-256"), "algorithm": "SHA-256"}
        for path, content in sorted(files.items())
        if path != SIGNATURES
    ]


def hash_file(path: str, content: bytes, algorithm: str) -> str:
    """Return the hex hash of a file as OPA works it out. Raises `RequestError`."""
    name = path.rpartition("/")[2]
    if name in YAML_DATA:
        raise _invalid(f"`{path}`: YAML data is not read; convert it to data.json")
    plain = canonical_json(path, content) if name in (DATA, MANIFEST) else content
    return str(_HASHES[algorithm](plain).hexdigest())


def find_list_fault(listed: object, files: Mapping[str, bytes]) -> str | None:
    """Say where a `files` claim and a bundle differ, or return None.

    Every file must be listed, once, and every listed file be there, with the same content.
    """
    if not isinstance(listed, list):
        return "it lists no files; sign the bundle with `countersign policy sign` or `opa sign`"
    seen: set[str] = set()
    for item in listed:
        fault = _find_item_fault(item, files, seen)
        if fault is not None:
            return fault
    if extra := sorted(files.keys() - seen - {SIGNATURES}):
        return f"`{extra[0]}` is not among the signed files; take it out, or sign anew"
    return None


def _find_item_fault(item: object, files: Mapping[str, bytes], seen: set[str]) -> str | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return "its list of files cannot be read; sign anew"
    name, algorithm = item["name"], item.get("algorithm", "SHA-256")
    if name in seen:
        return f"`{name[:64]}` is listed twice; sign anew"
    if algorithm not in _HASHES:
        return f"`{name[:64]}` is named by a weak or unknown hash; sign with SHA-256"
    if name not in files:
        return f"`{name[:64]}` is signed and missing; put it back"
    if hash_file(name, files[name], algorithm) != item.get("hash"):
        return f"`{name[:64]}` was changed since it was signed; build and sign anew"
    seen.add(name)
    return None


def canonical_json(path: str, content: bytes) -> bytes:
    """Return the bytes that OPA hashes of a JSON document. Raises `RequestError`.

    A document with the same member twice is refused: OPA would hash, and use, only the last.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse,
            object_pairs_hook=_unique,
        )
        return _write(value, 0).encode("utf-8")
    except (ValueError, RecursionError):
        raise _invalid(f"`{path}` is no JSON document that two readers read alike") from None


def _write(value: object, depth: int) -> str:
    if depth > _DEPTH_MAX:
        raise ValueError(depth)
    if isinstance(value, dict):
        members = (f"{_text(key)}:{_write(value[key], depth + 1)}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    if isinstance(value, _Number):
        return str(value)
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """Write a string as Go does without HTML escapes: U+2028 and U+2029 are written out."""
    plain = json.dumps(value, ensure_ascii=False)
    return plain.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _refuse(_name: str) -> Any:  # noqa: ANN401 - it never returns
    raise ValueError


def _invalid(why: str) -> RequestError:
    return RequestError(why, code=CODE)
