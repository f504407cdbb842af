"""Releases on disk: one folder per revision, laid out as a bundle that a stock OPA loads.

`<store>/<64 hex digits>/…`, and beside it `<store>/signatures/<hex>/<number>-<kid>.jwt`: what OPA
would find in `.signatures.json`, of each publisher; `<store>/impacts/<hex>.json`: what proposals
would have changed, under its digest; old ones go. Nothing here is believed when it is read.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import Any, Final

from gateway.adapters.whole import put_file, put_folder
from gateway.core import canonical
from gateway.core.errors import ConfigurationError, PolicyError, RequestError
from gateway.core.records import impact_told
from gateway.core.releases.release import REVISION, Release, read_files

SIGNATURES_FOLDER: Final = "signatures"
IMPACTS_FOLDER: Final = "impacts"
IMPACTS_KEPT: Final = 32
"""Impacts that are kept besides those that a publication may still name."""


class ReleaseStore:
    """Keeps releases. Does I/O: not for the loop. Publishers may speak at the same moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one_by_one = Lock()

    def place(self, revision: str) -> Path:
        """Return the folder of a release."""
        return self._folder / _hex(revision)

    def has(self, revision: str) -> bool:
        """Whether a release is kept."""
        return REVISION.fullmatch(revision) is not None and self.place(revision).is_dir()

    def save(self, release: Release) -> None:
        """Keep a release durably, unless it is kept already and whole.

        Raises `PolicyError` (`release_unwritable`): one that cannot be kept is not published.
        """
        place = self.place(release.revision)
        if place.is_dir():
            self.load(release.revision)
        try:
            put_folder(place, release.bundle().items())
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def load(self, revision: str) -> Release:
        """Return a release, byte for byte as it was signed.

        Raises `ConfigurationError`: `release_missing`, or `release_altered` for files that are not
        those that the revision names.
        """
        if not self.has(revision):
            raise ConfigurationError(
                f"the release `{revision[:80]}` is not kept here; restore `audit/releases` from a "
                "backup, or publish it anew",
                code="release_missing",
            )
        place = self.place(revision)
        try:
            files = {
                file.relative_to(place).as_posix(): file.read_bytes()
                for file in sorted(place.rglob("*"))
                if not file.is_dir()
            }
            release = read_files(files).release
        except (RequestError, OSError) as error:
            raise _altered(place, str(error)) from None
        if release.revision != revision:
            raise _altered(place, "its files are others than were signed")
        return release

    def save_signature(self, revision: str, number: int, kid: str, token: str) -> None:
        """Keep a publisher's signature in OPA's form. Raises `PolicyError`."""
        path = self._signatures(revision) / f"{number:06d}-{kid}.jwt"
        try:
            with self._one_by_one:
                if not path.is_file():
                    put_file(path, token.encode())
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def find_signatures(self, revision: str) -> list[str]:
        """Return the signatures of a release in OPA's form, the newest first."""
        found = sorted(self._signatures(revision).glob("*.jwt"), reverse=True)
        return [file.read_text(encoding="ascii") for file in found]

    def save_impact(self, digest: str, document: bytes) -> None:
        """Keep what a proposal would change, under its digest. Raises `PolicyError`."""
        path = self._impact(digest)
        try:
            with self._one_by_one:
                if path.is_file():
                    os.utime(path)  # it is a new one again
                else:
                    put_file(path, document)
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def load_impact(self, digest: str) -> dict[str, Any] | None:
        """Return what a proposal would have changed; None where it is not kept, or was changed."""
        if not REVISION.fullmatch(digest):
            return None
        try:
            document = self._impact(digest).read_bytes()
        except OSError:
            return None
        is_whole = hmac.compare_digest(canonical.digest(document), digest)
        return impact_told.read(document) if is_whole else None

    def prune_impacts(self, named: Collection[str]) -> None:
        """Remove impacts, but those with these digests and the newest `IMPACTS_KEPT` others.

        Killed on the way it leaves more, and the next time removes that. Raises `OSError`.
        """
        # 1. What waits for a second publisher is never removed, however old: nobody could be
        #    shown what they agree to. 2. What was measured a moment ago and is not on record yet
        #    is among the newest: a publisher has one word under way at a time.
        kept = {f"{_hex(digest)}.json" for digest in named}
        with self._one_by_one:
            found = list((self._folder / IMPACTS_FOLDER).iterdir())
            others = [file for file in found if file.suffix == ".json" and file.name not in kept]
            others.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
            torn = [file for file in found if file.suffix == ".new"]  # killed while it was written
            for file in (*others[IMPACTS_KEPT:], *torn):
                file.unlink()

    def _impact(self, digest: str) -> Path:
        return self._folder / IMPACTS_FOLDER / f"{_hex(digest)}.json"

    def _signatures(self, revision: str) -> Path:
        return self._folder / SIGNATURES_FOLDER / _hex(revision)


def _hex(revision: str) -> str:
    if not REVISION.fullmatch(revision):
        raise ConfigurationError(
            f"`{revision[:80]}` is no revision; give `sha256:` and 64 hex digits",
            code="release_missing",
        )
    return revision.partition(":")[2]


def _unwritable(folder: Path, error: OSError) -> PolicyError:
    return PolicyError(
        f"cannot keep the release in {folder}: {error.strerror}; make room, then publish again",
        code="release_unwritable",
    )


def _altered(place: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the release in {place} was changed: {why}; restore it from a backup",
        code="release_altered",
    )
