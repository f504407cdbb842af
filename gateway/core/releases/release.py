"""A release: rego, data, manifests, endpoints and roles under one name, in OPA's bundle layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.core import canonical, strict_json
from gateway.core.errors import RequestError
from gateway.core.releases.archive import CODE, pack, unpack
from gateway.core.releases.opa_files import DATA, MANIFEST, SIGNATURES, YAML_DATA

MANIFESTS: Final = "manifests/"
ENDPOINTS: Final = "deployment/endpoints.json"
ROLES: Final = "deployment/roles.json"
REVISION: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DEPTH_MAX: Final = 64
_PACKAGE: Final = re.compile(rb"^package\s+([A-Za-z_]\w*)", re.MULTILINE)
_POLICY_FOLDERS: Final = ("countersign/", "policies/")


class Release(Struct, frozen=True):
    """What is published as one. `files` are (path → content) without OPA's own two.

    `revision` is `sha256:` and the SHA-256 of the canonical JSON list of [path, SHA-256 of the
    file], sorted. `.manifest` follows from the files and stands under it as well.
    """

    revision: str
    files: Mapping[str, bytes]

    @property
    def policy_files(self) -> dict[str, bytes]:
        """The files of which an engine's bundle is made."""
        return {path: content for path, content in self.files.items() if is_policy(path)}

    @property
    def manifests(self) -> dict[str, bytes]:
        """Manifest (YAML) by server id."""
        return {
            path.removeprefix(MANIFESTS).removesuffix(".yaml"): content
            for path, content in self.files.items()
            if path.startswith(MANIFESTS)
        }

    @property
    def endpoints(self) -> dict[str, Any]:
        """Server id → where it is, and the names of what it is given from the environment."""
        return dict(orjson.loads(self.files[ENDPOINTS]))

    @property
    def roles(self) -> dict[str, Any]:
        """`humans` and `clients`: id → what they may do; no secret and no hash of one."""
        return dict(orjson.loads(self.files[ROLES]))

    def bundle(self, signature: str | None = None) -> dict[str, bytes]:
        """Return every file of the OPA bundle, `.manifest` and, if given, the signature's too."""
        found = {**self.files, MANIFEST: build_manifest(self.revision, self.files)}
        if signature is not None:
            found[SIGNATURES] = canonical.canonicalize({"signatures": [signature]})
        return found


class ReadArchive(Struct, frozen=True):
    """A release from an archive, and OPA's signature of it, if it carried one."""

    release: Release
    signature: str | None = None


def is_policy(path: str) -> bool:
    """Whether a file of a release is read by the engine."""
    return path == DATA or path.startswith(_POLICY_FOLDERS)


def name_files(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the revision of exactly these files."""
    listing = [[path, hashlib.sha256(content).hexdigest()] for path, content in sorted(files)]
    return canonical.digest_of(listing)


def build_release(
    policy: Mapping[str, bytes],
    *,
    manifests: Mapping[str, bytes],
    endpoints: Mapping[str, Any],
    roles: Mapping[str, Any],
) -> Release:
    """Return the release of these parts. `policy`: the files of a bundle that passed the gate."""
    files = {
        **policy,
        **{f"{MANIFESTS}{server}.yaml": content for server, content in manifests.items()},
        ENDPOINTS: canonical.canonicalize(dict(endpoints)),
        ROLES: canonical.canonicalize(dict(roles)),
    }
    return Release(name_files(files.items()), files)


def build_manifest(revision: str, files: Mapping[str, bytes]) -> bytes:
    """Return `.manifest`: whose revision this is, and which packages and data it owns."""
    roots = {
        found[1].decode()
        for path, content in files.items()
        if path.endswith(".rego") and (found := _PACKAGE.search(content))
    } | set(_read_object(DATA, files.get(DATA, b"{}")))
    return canonical.canonicalize(
        {
            "revision": revision,
            "rego_version": 1,
            "roots": sorted(roots),
            "metadata": {"countersign": {"release": 1}},
        }
    )


def write_archive(release: Release, signature: str | None = None) -> bytes:
    """Return the release as a tar.gz; the same release gives the same bytes."""
    return pack(release.bundle(signature))


def read_archive(archive: bytes) -> ReadArchive:
    """Return the release in an archive that `write_archive` made.

    Raises `RequestError` (`release_invalid`). INVARIANT: an archive has one spelling, so that
    whatever changes a byte of it, also one that means nothing to a reader, is refused.
    """
    files = unpack(archive)
    found = read_files(files)
    if write_archive(found.release, found.signature) != archive:
        raise _invalid("the archive was changed, or packed by another program; build it anew")
    return found


def read_files(files: Mapping[str, bytes]) -> ReadArchive:
    """Return the release that the files of a bundle are. Raises `RequestError`."""
    own = {path: content for path, content in files.items() if path not in (MANIFEST, SIGNATURES)}
    for path in own:
        _check_place(path)
    for path in (ENDPOINTS, ROLES, DATA):
        if path not in own:
            raise _invalid(
                f"`{path}` is missing; build the release with `countersign policy build`"
            )
        _read_object(path, own[path])
    release = Release(name_files(own.items()), own)
    if files.get(MANIFEST) != build_manifest(release.revision, own):
        raise _invalid("the files are not those that `.manifest` names; build the release anew")
    return ReadArchive(release, read_signature(files.get(SIGNATURES)))


def _check_place(path: str) -> None:
    name = path.rpartition("/")[2]
    is_known = is_policy(path) or path in (ENDPOINTS, ROLES)
    if not is_known and not (path.startswith(MANIFESTS) and path.endswith(".yaml")):
        raise _invalid(f"`{path[:64]}` has no place in a release; take it out")
    if name in YAML_DATA or (name == DATA and path != DATA):
        raise _invalid(f"`{path[:64]}`: data stands in one `data.json` at the top; merge it there")


def read_signature(document: bytes | None) -> str | None:
    """Return the one JWT of a `.signatures.json`; None where there is none.

    Raises `RequestError`.
    """
    if document is None:
        return None
    signatures = _read_object(SIGNATURES, document).get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise _invalid(f"`{SIGNATURES}` holds no one signature; sign the release anew")
    if not isinstance(signatures[0], str):
        raise _invalid(f"`{SIGNATURES}` cannot be read; sign the release anew")
    return signatures[0]


def _read_object(path: str, content: bytes) -> dict[str, Any]:
    try:
        value = strict_json.parse(content, max_depth=_DEPTH_MAX)
    except RequestError as error:
        raise _invalid(f"`{path}`: {error}") from None
    if not isinstance(value, dict):
        raise _invalid(f"`{path}` is no JSON object; build the release anew")
    return value


def _invalid(why: str) -> RequestError:
    return RequestError(why, code=CODE)
