"""What a log's files tell the clients of its witnesses: its newest checkpoint, and how it grew."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_tiles import TileReader
from gateway.core.log.merkle import consistency_proof, is_consistent, root_of
from gateway.core.log.note import Checkpoint


class LogFiles:
    """The directory of a log that some process may be writing. For any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def newest(self) -> str | None:
        """Return the note in `checkpoint`: a second behind the log at most, never ahead of it."""
        try:
            return (self._directory / "checkpoint").read_bytes().decode()
        except FileNotFoundError:
            return None

    def prove(self, old: int, new: Checkpoint) -> list[bytes]:
        """Return the proof that `new` grew from the log's first `old` records.

        Raises `LookupError` or `OSError` where the records are not there, and `ValueError` where
        what is there does not add up to the checkpoint.
        """
        node = TileReader(self._directory).node
        proof = consistency_proof(old, new.size, node)
        if not is_consistent(old, root_of(old, node), new.size, new.root, proof):
            raise ValueError("the tiles do not add up to the checkpoint; delete `tile/`, restart")
        return proof
