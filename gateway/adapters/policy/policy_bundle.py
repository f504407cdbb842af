"""A policy bundle: what is read from a folder, gated, named by its content and given to engines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.adapters.policy.policy_gate import read_packages
from gateway.adapters.policy.policy_library import PREFIX as LIBRARY_PREFIX
from gateway.adapters.policy.policy_library import parse_library
from gateway.adapters.policy.policy_package import Package
from gateway.core import canonical, strict_json
from gateway.core.errors import ConfigurationError, RequestError

MAIN_PATH: Final = "countersign/main.rego"
DATA_PATH: Final = "data.json"
AUTHORITY_FILE: Final = "authority.json"
_JSON_MAX_DEPTH: Final = 64
_FILE_MAX_BYTES: Final = 64 << 20


class Bundle(Struct, frozen=True):
    """Policies that passed the gate, with everything that decides.

    `files` are (path, bytes), sorted: `countersign/main.rego`, the library below
    `countersign/lib`, `policies/<path>.rego` and `data.json`, the one merged document. Laid out in
    a folder they are a bundle that a stock OPA loads with `opa eval -b`. `revision` is `sha256:`
    and the SHA-256 of the canonical JSON list of [path, SHA-256 of the file].
    """

    revision: str
    files: tuple[tuple[str, bytes], ...]
    packages: Mapping[str, Package]
    library: Mapping[str, Package] = {}
    """What of the library the packages read, by `countersign.lib.<name>`."""

    @property
    def data(self) -> str:
        """The merged data document, JSON."""
        return dict(self.files)[DATA_PATH].decode()

    def modules(self) -> dict[str, list[tuple[str, str]]]:
        """Return (path, source) of every module by package name; the entry point under `""`.

        Of the library only what is read: an engine pays for each module that it holds.
        """
        sources = dict(self.files)
        found = {
            name: [(path, sources[path].decode()) for path in package.paths]
            for name, package in (*self.packages.items(), *self.library.items())
        }
        return {"": [(MAIN_PATH, sources[MAIN_PATH].decode())], **found}


def find_rego_root() -> Path:
    """Return the folder of the shipped Rego: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "rego"
    return shipped if shipped.is_dir() else package.parent / "rego"


def default_pack() -> Path:
    """Return the folder of the default policies."""
    return find_rego_root() / "policies"


def build_revision(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the name of exactly these files."""
    listing = [[path, hashlib.sha256(content).hexdigest()] for path, content in sorted(files)]
    return canonical.digest_of(listing)


def load_bundle_dir(path: Path) -> Bundle:
    """Read, gate and name the policies in a folder.

    Read are `**/*.rego` (but `*_test.rego`), `**/data.json` (placed as OPA places them) and
    `authority.json` (becomes `data.authority`). Raises `ConfigurationError` (`policy_invalid`)
    whose every line is one mistake, with file:line and what to do.
    """
    faults: list[str] = []
    sources, data = read_folder(path, faults)
    return build_bundle(sources, data, faults=faults)


def read_folder(
    path: Path, faults: list[str], *, tests: bool = False
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the sources (path → Rego) and the merged data of a folder; add what is wrong."""
    if not path.is_dir():
        raise _invalid([f"{path}: there is no such folder; set `policy.path`"])
    sources = {
        file.relative_to(path).as_posix(): _read(file, faults)
        for file in sorted(path.rglob("*.rego"))
        if file.is_file() and (tests or not file.name.endswith("_test.rego"))
    }
    faults += [
        f"{file.relative_to(path)}: YAML data is not read; convert it to data.json"
        for file in sorted(path.rglob("data.y*ml"))
    ]
    return sources, _read_data(path, faults)


def build_bundle(
    sources: Mapping[str, str],
    data: Mapping[str, Any],
    *,
    main: str | None = None,
    library: Mapping[str, str] | None = None,
    faults: Iterable[str] = (),
) -> Bundle:
    """Gate sources (path → Rego) and data (with `authority`). Pure but for what is shipped.

    `main` and `library` (path → Rego): those of another version, to restore its bundle.
    Raises `ConfigurationError` (`policy_invalid`), one mistake per line, with `faults` first.
    """
    found = list(faults)
    shared = _shipped_library() if library is None else library
    every = read_packages(sources, data, found, parse_library(shared, found))
    if found:
        raise _invalid(found)
    packages = {name: every[name] for name in every if "." not in name}
    read = frozenset[str]().union(*(package.requires for package in packages.values()))
    scopes = {p.name: p.scope.as_data() for p in packages.values() if p.scope is not None}
    merged = {**data, "applies_to": scopes} if scopes else dict(data)
    files = [
        (MAIN_PATH, (_shipped_main() if main is None else main).encode()),
        (DATA_PATH, orjson.dumps(merged, option=orjson.OPT_SORT_KEYS)),
        *((path, source.encode()) for path, source in shared.items()),
        *((f"policies/{path}", source.encode()) for path, source in sources.items()),
    ]
    return Bundle(
        revision=build_revision(files),
        files=tuple(sorted(files)),
        packages=packages,
        library={name: every[name] for name in sorted(read - packages.keys())},
    )


def restore_bundle(files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle that was made of exactly these files, entry point and library included."""
    sources = {
        path.removeprefix("policies/"): content.decode()
        for path, content in files.items()
        if path.startswith("policies/")
    }
    library = {
        path: content.decode() for path, content in files.items() if path.startswith(LIBRARY_PREFIX)
    }
    data = json.loads(files[DATA_PATH])
    data.pop("applies_to", None)
    return build_bundle(sources, data, main=files[MAIN_PATH].decode(), library=library)


def _shipped_main() -> str:
    return (find_rego_root() / MAIN_PATH).read_text(encoding="utf-8")


def _shipped_library() -> dict[str, str]:
    return load_library(find_rego_root())


def load_library(root: Path) -> dict[str, str]:
    """Return the library below a folder of Rego as path → source, without its tests."""
    return {
        file.relative_to(root).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted((root / LIBRARY_PREFIX).glob("*.rego"))
        if not file.name.endswith("_test.rego")
    }


def _invalid(faults: list[str]) -> ConfigurationError:
    return ConfigurationError("\n".join(faults), code="policy_invalid")


def _read(file: Path, faults: list[str]) -> str:
    try:
        if file.stat().st_size > _FILE_MAX_BYTES:
            faults.append(f"{file.name}: larger than {_FILE_MAX_BYTES} bytes; split it")
            return ""
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{file.name}: cannot be read as UTF-8 text: {error}")
        return ""


def _read_data(path: Path, faults: list[str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for file in sorted(path.rglob("data.json")):
        name = file.relative_to(path).as_posix()
        _merge(
            data, file.relative_to(path).parent.parts, _read_json(file, name, faults), name, faults
        )
    authority = path / AUTHORITY_FILE
    if authority.is_file():
        value = _read_json(authority, AUTHORITY_FILE, faults)
        _merge(data, ("authority",), value, AUTHORITY_FILE, faults)
    return data


def _read_json(file: Path, name: str, faults: list[str]) -> dict[str, Any]:
    text = _read(file, faults)
    try:
        value = strict_json.parse(text.encode() or b"{}", max_depth=_JSON_MAX_DEPTH)
    except RequestError as error:
        faults.append(f"{name}: {error}")
        return {}
    if not isinstance(value, dict):
        faults.append(f"{name}: is not a JSON object; wrap it in one")
        return {}
    return value


def _merge(
    data: dict[str, Any],
    parts: tuple[str, ...],
    value: dict[str, Any],
    name: str,
    faults: list[str],
) -> None:
    for part in parts:
        below: object = data.setdefault(part, {})
        if not isinstance(below, dict):
            faults.append(f"{name}: `{part}` is no object in another file; give it once")
            return
        data = below
    for key, item in value.items():
        if key in data:
            faults.append(f"{name}: `{key}` is given by another file too; give it once")
        data[key] = item
