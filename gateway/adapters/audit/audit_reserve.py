"""Space kept back, so that a disk that fills up still takes what must be written.

While there is room, the file `reserve` holds some of it. When the disk is full, the file is given
up: what was admitted before is written into the room that it leaves, and nothing new is admitted
until the reserve could be taken again.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_files import Files

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk, or the share of it that this user may have, has no room left."""


class Reserve:
    """`size` bytes in a file at `path`; a size of 0 keeps nothing. Not for two threads at once."""

    def __init__(self, path: Path, size: int, files: Files) -> None:
        self._path: Final = path
        self._size: Final = size
        self._files: Final = files
        self.is_spent = size > 0
        """Whether the reserve is being used up. Safe to read from any thread."""

    def refill(self) -> None:
        """Take the reserve where it is spent and the disk has room for it again.

        Raises `OSError` for trouble other than a full disk.
        """
        if not self.is_spent:
            return
        try:
            self._files.allocate(self._path, self._size)
            self.is_spent = False
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise

    def spend(self) -> bool:
        """Give the space to whoever writes next. Return False where there is none left."""
        if self.is_spent or not self._size:
            return False
        self.is_spent = True
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        return True
