"""A policy bundle: what is read from a folder, gated, named by its content and given to engines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.adapters.policy.gate.input_types import SCHEMA_PATH, published
from gateway.adapters.policy.gate.policy_authority import expand_authority
from gateway.adapters.policy.gate.policy_gate import read_packages
from gateway.adapters.policy.policy_faults import Mistake, in_file
from gateway.adapters.policy.policy_library import PREFIX as LIBRARY_PREFIX
from gateway.adapters.policy.policy_library import parse_library
from gateway.adapters.policy.policy_package import Package
from gateway.adapters.policy.policy_silence import is_silent
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
    silent: frozenset[str] = frozenset()
    """Packages that can say nothing over this data (`policy_silence`)."""

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
    found = gate_folder(path)
    if not isinstance(found, Bundle):
        raise invalid(found)
    return found


def gate_folder(path: Path) -> Bundle | list[Mistake]:
    """Return the bundle that a folder holds, or every reason why it holds none."""
    faults: list[Mistake] = []
    sources, data = read_folder(path, faults)
    return _build(sources, data, faults) if path.is_dir() else faults


def read_folder(
    path: Path, faults: list[Mistake], *, tests: bool = False
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the sources (path → Rego) and the merged data of a folder; add what is wrong."""
    if not path.is_dir():
        text = "there is no such folder; name the one with the policies (`policy.path`)"
        faults.append(in_file(str(path), "folder_missing", text))
        return {}, {}
    faults += [
        _data_fault(_name(file, path), "YAML data is not read; convert it to data.json")
        for file in find_files(path, "data.y*ml", faults)
    ]
    faults += [
        in_file(_name(file, path), "file_unreadable", "its name is no UTF-8; rename it")
        for names in ("*.rego", "data.json")
        for file in find_files(path, names)
        if not _is_named(file, path)
    ]
    return read_sources(path, faults, tests=tests), _read_data(path, faults)


def find_files(path: Path, names: str, faults: list[Mistake] | None = None) -> list[Path]:
    """Return the files of such names in a folder, at any depth; add what is not looked into.

    Those named `..x` are left out and not told: there Kubernetes keeps what it mounts, and the
    links beside them lead into it.
    """
    told = [] if faults is None else faults
    found: list[Path] = []

    def unread(folder: str, why: str) -> None:
        told.append(in_file(_name(Path(folder), path), "file_unreadable", why))

    def failed(error: OSError) -> None:
        unread(error.filename, f"cannot be read: {error.strerror}; let the gateway's user read it")

    for top, folders, files in os.walk(path, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for name in folders:
            if Path(top, name).is_symlink():
                text = "a link to a folder, which is not followed; put the files themselves here"
                unread(str(Path(top, name)), text)
        found += [file for file in (Path(top, name) for name in files) if file.match(names)]
    return sorted(found)


def _name(file: Path, folder: Path) -> str:
    """Return what a file of a folder is called, whatever bytes its name has."""
    return os.fsencode(os.path.relpath(file, folder)).decode(errors="backslashreplace")


def _is_named(file: Path, folder: Path) -> bool:
    """Whether a file's name is text: else no engine takes it, and no record can hold it."""
    return _name(file, folder) == os.path.relpath(file, folder)


def read_sources(path: Path, faults: list[Mistake], *, tests: bool = False) -> dict[str, str]:
    """Return the Rego of a folder (path → text), with `tests` that of its tests too."""
    return {
        file.relative_to(path).as_posix(): _read(file, faults)
        for file in find_files(path, "*.rego")
        if _is_named(file, path)
        and file.is_file()
        and (tests or not file.name.endswith("_test.rego"))
    }


def build_bundle(
    sources: Mapping[str, str],
    data: Mapping[str, Any],
    *,
    main: str | None = None,
    library: Mapping[str, str] | None = None,
) -> Bundle:
    """Gate sources (path → Rego) and data (with `authority`). Pure but for what is shipped.

    `main` and `library` (path → Rego): those of another version, to restore its bundle.
    Raises `ConfigurationError` (`policy_invalid`), one mistake per line.
    """
    found = _build(sources, data, [], main=main, library=library, lenient=main is not None)
    if not isinstance(found, Bundle):
        raise invalid(found)
    return found


def _build(
    sources: Mapping[str, str],
    data: Mapping[str, Any],
    faults: list[Mistake],
    *,
    main: str | None = None,
    library: Mapping[str, str] | None = None,
    lenient: bool = False,
) -> Bundle | list[Mistake]:
    shared = _shipped_library() if library is None else library
    # A bundle that once decided is restored as it was: it is recomputed, never used anew.
    types = None if lenient else published(_read_shipped(SCHEMA_PATH))
    every = read_packages(sources, data, faults, parse_library(shared, faults), types)
    if faults:
        return faults
    packages = {name: every[name] for name in every if "." not in name}
    read = frozenset[str]().union(*(package.requires for package in packages.values()))
    scopes = {p.name: p.scope.as_data() for p in packages.values() if p.scope is not None}
    merged = expand_authority(data)
    if scopes:
        merged["applies_to"] = scopes
    files = [
        (MAIN_PATH, (_read_shipped(MAIN_PATH) if main is None else main).encode()),
        (DATA_PATH, orjson.dumps(merged, option=orjson.OPT_SORT_KEYS)),
        *((path, source.encode()) for path, source in shared.items()),
        *((f"policies/{path}", source.encode()) for path, source in sources.items()),
    ]
    return Bundle(
        revision=build_revision(files),
        files=tuple(sorted(files)),
        packages=packages,
        library={name: every[name] for name in sorted(read - packages.keys())},
        silent=frozenset(name for name in packages if is_silent(packages[name].needs, merged)),
    )


def restore_bundle(files: Mapping[str, bytes], *, anew: bool = False) -> Bundle:
    """Return the bundle that was made of exactly these files, entry point and library included.

    What once decided is read leniently, so that it can be recomputed. With `anew` it is to decide
    from now on, and is gated as if it were written today.
    """
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
    main = files[MAIN_PATH].decode()
    found = _build(sources, data, [], main=main, library=library, lenient=not anew)
    if not isinstance(found, Bundle):
        raise invalid(found)
    return found


def _read_shipped(path: str) -> str:
    return (find_rego_root() / path).read_text(encoding="utf-8")


def _shipped_library() -> dict[str, str]:
    return load_library(find_rego_root())


def load_library(root: Path) -> dict[str, str]:
    """Return the library below a folder of Rego as path → source, without its tests."""
    return {
        file.relative_to(root).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted((root / LIBRARY_PREFIX).glob("*.rego"))
        if not file.name.endswith("_test.rego")
    }


def invalid(faults: Iterable[Mistake]) -> ConfigurationError:
    """Return what tells that a folder cannot be loaded: one mistake per line."""
    return ConfigurationError("\n".join(map(str, faults)), code="policy_invalid")


def _data_fault(file: str, text: str) -> Mistake:
    return in_file(file, "data_invalid", text)


def _read(file: Path, faults: list[Mistake]) -> str:
    try:
        if file.stat().st_size > _FILE_MAX_BYTES:
            text = f"larger than {_FILE_MAX_BYTES} bytes; split it"
            faults.append(in_file(file.name, "file_unreadable", text))
            return ""
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        text = f"cannot be read as UTF-8 text: {error}"
        faults.append(in_file(file.name, "file_unreadable", text))
        return ""


def _read_data(path: Path, faults: list[Mistake]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for file in find_files(path, "data.json"):
        if not _is_named(file, path):
            continue
        name = file.relative_to(path).as_posix()
        _merge(
            data, file.relative_to(path).parent.parts, _read_json(file, name, faults), name, faults
        )
    authority = path / AUTHORITY_FILE
    if authority.is_file():
        value = _read_json(authority, AUTHORITY_FILE, faults)
        _merge(data, ("authority",), value, AUTHORITY_FILE, faults)
    return data


def _read_json(file: Path, name: str, faults: list[Mistake]) -> dict[str, Any]:
    text = _read(file, faults)
    try:
        value = strict_json.parse(text.encode() or b"{}", max_depth=_JSON_MAX_DEPTH)
    except RequestError as error:
        faults.append(_data_fault(name, str(error)))
        return {}
    if not isinstance(value, dict):
        faults.append(_data_fault(name, "is not a JSON object; wrap it in one"))
        return {}
    return value


def _merge(
    data: dict[str, Any],
    parts: tuple[str, ...],
    value: dict[str, Any],
    name: str,
    faults: list[Mistake],
) -> None:
    for part in parts:
        below: object = data.setdefault(part, {})
        if not isinstance(below, dict):
            text = f"`{part}` is no object in another file; give it once"
            faults.append(_data_fault(name, text))
            return
        data = below
    for key, item in value.items():
        if key in data:
            text = f"`{key}` is given by another file too; give it once"
            faults.append(_data_fault(name, text))
        data[key] = item
