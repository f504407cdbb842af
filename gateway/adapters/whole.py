"""Files and folders that are put in place durably: whole or not at all, whatever ends the process.

What is written, the names in every folder that was made for it, and the name that it gets last are
on the disk before anybody is told that it is kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def put_folder(place: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Put a folder of these files, by their paths in it, at `place`. Raises `OSError`.

    One that stands there stays as it is; whoever made it may have been killed before its name was
    on the disk. INVARIANT: what has this name is complete. It gets the name last.
    """
    _make(place.parent)
    if not place.is_dir():
        new = place.with_name(f".{os.urandom(8).hex()}.new")
        try:
            for path, content in files:
                _write(new / path, content)
            _sync_folders(new)
            _rename(new, place)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    _sync(place.parent)


def put_file(path: Path, content: bytes) -> None:
    """Put a file in place of one that may be there; one writer at a time. Raises `OSError`."""
    _make(path.parent)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    _write(new, content)
    new.replace(path)
    _sync(path.parent)


def _make(folder: Path) -> None:
    """Make a folder and those above it, and have their names on the disk."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # above what is ours; made by someone else
        _sync(folder.parent)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # another process was faster, with the same content
            raise


def _sync_folders(top: Path) -> None:
    for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
