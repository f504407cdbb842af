"""Sees every change that this process makes to files below a folder, whoever makes it.

The functions of `os` through which Python changes files are replaced, not those of `Files`: so
nothing that goes past `Files` is missed. `operation` decides what becomes of each change.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

_CREATING: Final = os.O_CREAT | os.O_TRUNC
_REAL: Final = {
    name: getattr(os, name)
    for name in (
        "open", "close", "write", "pwrite", "fsync", "fdatasync", "truncate", "ftruncate", "unlink",
        "remove", "rename", "replace", "link", "mkdir", "posix_fallocate",
    )
}  # fmt: skip
_REAL_IO_OPEN: Final = io.open


class Op(NamedTuple):
    """One change. `fd` of an open file, or `path`; `to` of a rename or a link.

    `size` of a write is its offset; -1: where the file ends, or where the last write ended.
    """

    name: str
    fd: int = -1
    path: str = ""
    to: str = ""
    data: bytes = b""
    size: int = 0


class Tap:
    """Stands between the process and its files, while it is entered. Thread-safe if `operation` is.

    `operation(op, do)` does the change by calling `do` and returns what that returns. Opening a
    file that stands there, without truncating it, is told as `open` and changes nothing.
    """

    def __init__(self, root: Path) -> None:
        self._root: Final = str(root)
        self.paths: Final[dict[int, str]] = {}
        """Descriptors of files below the folder, and the names that they were opened under."""

    def operation(self, op: Op, do: Callable[[], Any]) -> Any:  # noqa: ANN401, ARG002 - as `os`
        """See above."""
        return do()

    def __enter__(self) -> Self:
        for name in _REAL:
            setattr(os, name, getattr(self, f"_{name}"))
        setattr(io, "open", self._io_open)  # noqa: B010 - pathlib opens files through it
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, function in _REAL.items():
            setattr(os, name, function)
        setattr(io, "open", _REAL_IO_OPEN)  # noqa: B010 - as above

    def _is_ours(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._root)

    # Each is what `os` has under this name

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:  # noqa: ANN401
        def do() -> int:
            descriptor: int = _REAL["open"](path, flags, mode, **more)
            if self._is_ours(path):
                self.paths[descriptor] = os.fspath(path)
            return descriptor

        if not self._is_ours(path):
            return do()
        name = "open"
        if flags & _CREATING and not os.path.lexists(path):
            name = "create"
        elif flags & os.O_TRUNC:
            name = "empty"
        result: int = self.operation(Op(name, path=os.fspath(path), size=flags), do)
        return result

    def _close(self, descriptor: int) -> None:
        def do() -> None:
            self.paths.pop(descriptor, None)
            _REAL["close"](descriptor)

        if descriptor in self.paths:
            self.operation(Op("close", descriptor), do)
        else:
            do()

    def _write(self, descriptor: int, data: Any) -> int:  # noqa: ANN401
        def do() -> int:
            written: int = _REAL["write"](descriptor, data)
            return written

        if descriptor not in self.paths:
            return do()
        result: int = self.operation(Op("write", descriptor, data=bytes(data), size=-1), do)
        return result

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:  # noqa: ANN401
        def do() -> int:
            written: int = _REAL["pwrite"](descriptor, data, offset)
            return written

        if descriptor not in self.paths:
            return do()
        op = Op("write", descriptor, data=bytes(data), size=offset)
        result: int = self.operation(op, do)
        return result

    def _fsync(self, descriptor: int) -> None:
        self._on_descriptor(Op("sync", descriptor), lambda: _REAL["fsync"](descriptor))

    def _fdatasync(self, descriptor: int) -> None:
        self._on_descriptor(Op("sync", descriptor), lambda: _REAL["fdatasync"](descriptor))

    def _ftruncate(self, descriptor: int, size: int) -> None:
        self._on_descriptor(
            Op("resize", descriptor, size=size), lambda: _REAL["ftruncate"](descriptor, size)
        )

    def _posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        self._on_descriptor(
            Op("allocate", descriptor, size=offset + size),
            lambda: _REAL["posix_fallocate"](descriptor, offset, size),
        )

    def _on_descriptor(self, op: Op, do: Callable[[], Any]) -> None:
        if op.fd in self.paths:
            self.operation(op, do)
        else:
            do()

    def _truncate(self, path: Any, size: int) -> None:  # noqa: ANN401
        if isinstance(path, int):
            self._ftruncate(path, size)
        else:
            self._on_path(Op("resize", path=os.fspath(path), size=size), "truncate", path, size)

    def _unlink(self, path: Any, **more: Any) -> None:  # noqa: ANN401
        self._on_path(Op("unlink", path=os.fspath(path)), "unlink", path, **more)

    _remove = _unlink

    def _mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:  # noqa: ANN401
        self._on_path(Op("mkdir", path=os.fspath(path)), "mkdir", path, mode, **more)

    def _rename(self, path: Any, to: Any, **more: Any) -> None:  # noqa: ANN401
        op = Op("rename", path=os.fspath(path), to=os.fspath(to))
        self._on_path(op, "replace", path, to, **more)

    _replace = _rename

    def _link(self, path: Any, to: Any, **more: Any) -> None:  # noqa: ANN401
        op = Op("link", path=os.fspath(path), to=os.fspath(to))
        self._on_path(op, "link", path, to, **more)

    def _on_path(self, op: Op, name: str, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        if self._is_ours(arguments[0]):
            self.operation(op, lambda: _REAL[name](*arguments, **more))
        else:
            _REAL[name](*arguments, **more)

    def _io_open(self, file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        if not self._is_ours(file) or not set(mode) & set("wax+"):
            return _REAL_IO_OPEN(file, mode, *arguments, **more)
        assert mode in {"wb", "ab", "xb"}, f"the suite does not see files opened with {mode!r}"
        flags = {"w": os.O_TRUNC, "a": os.O_APPEND, "x": os.O_EXCL}[mode[0]]
        return io.BufferedWriter(_Raw(os.open(file, os.O_WRONLY | os.O_CREAT | flags, 0o666)))


class _Raw(io.RawIOBase):
    """A file for writing whose bytes go through `os.write`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        return os.write(self._descriptor, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)
