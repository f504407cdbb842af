"""Every bundle that was ever active, by its revision, so that decisions can be recomputed.

One folder per revision, named by its 64 hex digits, laid out as a bundle that a stock OPA loads:
`opa eval --bundle <store>/<hex> --input input.json data.countersign.decision`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import orjson

from gateway.adapters.policy.policy_bundle import Bundle, build_revision, restore_bundle
from gateway.adapters.whole import put_folder
from gateway.core.errors import PolicyError

_MANIFEST: Final = ".manifest"
_REVISION: Final = re.compile(r"sha256:([0-9a-f]{64})")


def save_bundle(store: Path, bundle: Bundle) -> Path:
    """Write a bundle durably, unless it is there already, and return its folder.

    Raises `PolicyError` (`policy_bundle_unwritable`): a bundle that cannot be kept is not used.
    """
    folder = store / _hex(bundle.revision)
    manifest = {"revision": bundle.revision, "rego_version": 1}
    try:
        put_folder(folder, (*bundle.files, (_MANIFEST, orjson.dumps(manifest))))
    except OSError as error:
        raise PolicyError(
            f"cannot keep the policy bundle in {store}: {error.strerror}",
            code="policy_bundle_unwritable",
        ) from None
    return folder


def load_bundle(store: Path, revision: str) -> Bundle:
    """Return the bundle of this revision, byte for byte as it was.

    Raises `PolicyError`: `policy_bundle_missing`, or `policy_bundle_altered` when what is stored
    is not what the revision names.
    """
    folder = store / _hex(revision)
    if not folder.is_dir():
        raise PolicyError(
            f"`{revision}` is not in {store}; restore it from a backup",
            code="policy_bundle_missing",
        )
    files = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != _MANIFEST
    }
    if build_revision(files.items()) != revision:
        raise PolicyError(
            f"the files of `{revision}` in {store} were changed; restore them from a backup",
            code="policy_bundle_altered",
        )
    return restore_bundle(files)


def _hex(revision: str) -> str:
    found = _REVISION.fullmatch(revision)
    if found is None:
        raise PolicyError(
            f"`{revision}` is no revision; give `sha256:` and 64 hex digits",
            code="policy_bundle_missing",
        )
    return found[1]
