"""`witness/checkpoint`: the last checkpoint that witnesses cosigned, for other programs and us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_files import Files
from gateway.core.log import note as notes
from gateway.core.log.cosignature import Cosignature, is_cosigned, split_witnessed_note
from gateway.core.log.note import Checkpoint, NoteKey

_PRIVATE: Final = 0o700


class WitnessFile:
    """The file in the directory of the log `origin`."""

    def __init__(self, directory: Path, *, origin: str, files: Files | None = None) -> None:
        self._path: Final = directory / "witness" / "checkpoint"
        self._origin: Final = origin
        self._files: Final = files or Files()

    def write(self, whole: str) -> None:
        """Put a cosigned note in place. A reader sees the old or the new one, never a part."""
        self._path.parent.mkdir(mode=_PRIVATE, exist_ok=True)
        self._files.replace(self._path, whole.encode())

    def read(self, keys: Sequence[NoteKey]) -> tuple[Checkpoint, list[Cosignature]] | None:
        """Return the checkpoint and what `keys` cosigned of it.

        None for a file that is not there, cannot be read or is another log's: it is a memory, and
        the witnesses have a better one.
        """
        try:
            note, cosignatures = split_witnessed_note(self._path.read_bytes().decode())
            signed = notes.parse(note)
        except (OSError, ValueError):
            return None
        if signed.checkpoint.origin != self._origin:
            return None
        good = {
            key.id: one
            for one in cosignatures
            for key in keys
            if is_cosigned(signed.text, one, key)
        }
        return signed.checkpoint, list(good.values())
