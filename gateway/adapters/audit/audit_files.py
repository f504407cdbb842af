"""The file operations of the audit log, in one place so that tests can make them fail."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from gateway.core.errors import ConfigurationError

_PRIVATE: Final = 0o600
_SEQ_DIGITS: Final = 20
_HOLDER: Final = "process "
_LOCK_STEP_S: Final = 0.02
LOCK_PATIENCE_S: Final = 5.0
"""How long what keeps a log may take to end after the process that opened it."""


class Files:
    """What the log does to a disk. Every method raises `OSError` when it was not done."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist, durably, and return its descriptor for appending."""
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, _PRIVATE)
        try:
            self.sync_directory(path.parent)
        except OSError:  # so that it can be tried again
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def append_to(self, path: Path) -> int:
        """Open a file for appending, creating it where it is missing."""
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, _PRIVATE)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Return once the file's data is on the disk."""
        os.fdatasync(descriptor)

    def sync_path(self, path: Path) -> None:
        """Return once the data of the file of this name is on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def settle(self, path: Path) -> None:
        """Bring to the disk what a process that ended wrote to a file; have it read from there.

        A process that was killed leaves data that all can see and a power failure still takes. One
        whose sync failed leaves data in memory that counts as synced and is not: it is forgotten.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.sync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path, mode: int = 0o777) -> None:
        """Make a directory where there is none, and those above it, durably.

        Without its name, whatever is synced in it is lost. So the name of one that stands there is
        synced again: a process may have made it and been killed before it came to that.
        """
        if not path.is_dir():
            self.make_directory(path.parent)
            path.mkdir(mode=mode, exist_ok=True)
        with contextlib.suppress(PermissionError):  # above what is ours; made by someone else
            self.sync_directory(path.parent)

    def allocate(self, path: Path, size: int) -> None:
        """Make a file of `size` bytes for which the disk has set the room aside."""
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, _PRIVATE)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)

    def overwrite(self, path: Path) -> None:
        """Put zeros in the place of a file's bytes, durably."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            self.write(descriptor, bytes(os.fstat(descriptor).st_size))
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, path: Path, data: bytes) -> None:
        """Put a whole file in place: a reader sees the old or the new one, never a part."""
        self._replace(path, data, sync=True)

    def put(self, path: Path, data: bytes) -> None:
        """Put a whole file in place as `replace` does, but let a power failure tear it."""
        self._replace(path, data, sync=False)

    def _replace(self, path: Path, data: bytes, *, sync: bool) -> None:
        fresh = path.with_name(path.name + ".new")
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, _PRIVATE)
        try:
            self.write(descriptor, data)
            if sync:
                self.sync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)


def segment_name(first_seq: int) -> str:
    """Name of the segment (and of the openings file) that starts with this record."""
    return f"{first_seq:0{_SEQ_DIGITS}d}.jsonl"


def list_segments(directory: Path) -> list[Path]:
    """Return the segments of a log in order. Files of other names are no part of the log."""
    return sorted(
        path
        for path in directory.glob("*.jsonl")
        if len(path.stem) == _SEQ_DIGITS and path.stem.isascii() and path.stem.isdigit()
    )


def lock(directory: Path) -> int:
    """Take the log for this process alone and return the lock's descriptor.

    Raises `ConfigurationError` naming the holder. Closing the descriptor gives the lock back; so
    does the end of the process, however it ends. Of a process that has ended, what keeps its log
    may still be making the last batch durable: that is waited for, for a while.
    """
    descriptor = os.open(directory / "LOCK", os.O_CREAT | os.O_RDWR, _PRIVATE)
    patience_s = LOCK_PATIENCE_S
    while not _is_taken(descriptor):
        holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
        if patience_s <= 0 or _is_alive(holder):
            os.close(descriptor)
            raise ConfigurationError(
                f"audit directory `{directory}` is held by {holder or 'another process'}; stop it, "
                "or name another directory"
            )
        time.sleep(_LOCK_STEP_S)
        patience_s -= _LOCK_STEP_S
    _say_holder(descriptor, f"{_HOLDER}{os.getpid()}")
    return descriptor


def lock_log(directory: Path) -> tuple[int, int]:
    """Take the log as `lock` does, and its folder, too; return both descriptors.

    `LOCK` is what others ask and read, but a file can be deleted, as one that looks left over
    often is. Without the folder's lock, two processes would then write one log.
    """
    named = lock(directory)
    try:
        return named, _lock_folder(directory)
    except BaseException:
        os.close(named)
        raise


def _lock_folder(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    patience_s = LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if patience_s <= 0:
                os.close(descriptor)
                raise ConfigurationError(
                    f"audit directory `{directory}` is held by another process, whose `LOCK` was "
                    "deleted; stop it, or name another directory"
                ) from None
            time.sleep(_LOCK_STEP_S)
            patience_s -= _LOCK_STEP_S
        except OSError:  # a file system that locks files only
            return descriptor
        else:
            return descriptor


def name_keeper(descriptor: int, keeper: int) -> None:
    """Write into a lock that is ours which process keeps the log."""
    _say_holder(descriptor, f"{_HOLDER}{os.getpid()}, its log kept by process {keeper}")


def _say_holder(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{text}\n".encode(), 0)


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(holder: str) -> bool:
    """Whether the process that opened the log is there; where none is named it is taken for so."""
    number = holder.partition(",")[0].removeprefix(_HOLDER)
    if not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's; or a system without /proc
        return True
    return state.rpartition(")")[2].split()[0] != "Z"  # nobody has asked for its end yet


def is_locked(directory: Path) -> bool:
    """Whether some process has this log open for writing."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(directory / "LOCK", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
    return False
