"""Checkpoints dropped as files, for whatever carries them away: a WORM mount, a backup."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.bounded_http import TIMEOUT_S
from gateway.adapters.witness.witnessing import Kept
from gateway.aside import Aside
from gateway.core.log.cosignature import split_witnessed_note
from gateway.core.log.note import parse

_READ_ONLY: Final = 0o444


class FileAnchor:
    """A directory with one file `<size>.checkpoint` for each checkpoint kept."""

    def __init__(
        self, directory: Path, *, files: Files | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._directory: Final = directory
        self._files: Final = files or Files()
        self._timeout_s: Final = timeout_s
        # What carries it away may hang. Then it is asked no more until it goes on.
        self._aside: Final = Aside(stuck_max=1)
        self.name: Final = f"file:{directory}"

    async def keep(self, size: int, note: str) -> Kept:
        """Write the note into a file of its own, durably. What is there already stays."""
        try:
            work = partial(self._keep, size, note)
            return await self._aside.run(work, timeout_s=self._timeout_s)
        except TimeoutError:
            return "timed_out"
        except OSError:
            return "unreachable"

    def _keep(self, size: int, note: str) -> Kept:
        path = self._directory / f"{size}.checkpoint"
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _READ_ONLY)
        except FileExistsError:
            return compare(path.read_bytes(), note)
        try:
            self._files.write(descriptor, note.encode())
            os.fsync(descriptor)
        except OSError:  # a part of it would stand in the way of all of it
            with suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(descriptor)
        self._files.sync_directory(self._directory)
        return "kept"


def compare(kept: bytes, note: str) -> Kept:
    """Say whether a note kept before is of the same checkpoint, whoever cosigned which."""
    try:
        text = parse(split_witnessed_note(kept.decode())[0]).text
    except ValueError:
        return "unreadable"
    ours = parse(split_witnessed_note(note)[0]).text
    return "kept" if text == ours else "other_history"
