"""Records what a process does to its files, and what it promised in between, to be played again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.fault.disk import Change, Disk, File, Folder, State
from tests.fault.story import Ack
from tests.fault.tap import Op, Tap

Event = Callable[[Disk], None] | Ack
"""A change of the disk, or a promise."""


class Recorder(Tap):
    """Records the changes below `root`, which begins as `disk` is seen. `events` is what it saw."""

    def __init__(self, root: Path, disk: Disk) -> None:
        super().__init__(root)
        self._base: Final = str(root)
        self._now: Final = disk.copy()
        self._nodes: Final[dict[int, int]] = {}
        self._lock: Final = threading.RLock()
        self.events: Final[list[Event]] = []

    def tell(self, ack: Ack) -> None:
        """Record a promise."""
        with self._lock:
            self.events.append(ack)

    def operation(self, op: Op, do: Callable[[], Any]) -> Any:  # noqa: ANN401 - as `os`
        with self._lock:
            result = do()
            if op.name == "close":
                self._nodes.pop(op.fd, None)
            elif op.name in {"open", "create", "empty"}:
                self._opened(op, result)
            else:
                self._changed(op, result)
            return result

    def unseen(self) -> list[str]:
        """Return the files that are not as they should be by all that was seen."""
        found, expected = read_state(Path(self._base)), self._now.seen()
        paths = found.keys() | expected.keys()
        return sorted(p for p in paths if found.get(p, "gone") != expected.get(p, "gone"))

    def _do(self, event: Callable[[Disk], None]) -> None:
        event(self._now)
        self.events.append(event)

    def _opened(self, op: Op, descriptor: int) -> None:
        path = self._name(op.path)
        if op.name == "create":
            self._do(lambda disk: _enter(disk, path, disk.add(File())))
        number = self._now.find(path)
        if op.name == "empty":
            self._do(lambda disk: disk.file(number).change(Change(0, None)))
        self._nodes[descriptor] = number

    def _changed(self, op: Op, result: Any) -> None:  # noqa: ANN401 - as `os`
        path, to = self._name(op.path), self._name(op.to)
        number = self._nodes[op.fd] if op.fd >= 0 else -1
        if op.name == "write":
            data = op.data[:result]
            at = op.size if op.size >= 0 else os.lseek(op.fd, 0, os.SEEK_CUR) - len(data)
            self._do(lambda disk: disk.file(number).change(Change(at, data)))
        elif op.name == "sync":
            self._do(lambda disk: disk.nodes[number].sync())
        elif op.name == "resize":
            node = number if number >= 0 else self._now.find(path)
            self._do(lambda disk: disk.file(node).change(Change(op.size, None)))
        elif op.name == "allocate":
            if len(self._now.file(number).cache) < op.size:
                self._do(lambda disk: disk.file(number).change(Change(op.size, None)))
        elif op.name == "unlink":
            self._do(lambda disk: _leave(disk, path))
        elif op.name == "mkdir":
            self._do(lambda disk: _enter(disk, path, disk.add(Folder())))
        elif op.name == "link":
            self._do(lambda disk: _enter(disk, to, disk.find(path)))
        else:
            assert op.name == "rename"
            assert path.rpartition("/")[0] == to.rpartition("/")[0], "renamed within a directory"
            self._do(lambda disk: _move(disk, path, to))

    def _name(self, path: str) -> str:
        return path.removeprefix(self._base).strip("/")


def _enter(disk: Disk, path: str, number: int) -> None:
    folder, name = disk.parent(path)
    folder.change(((name, number),))


def _leave(disk: Disk, path: str) -> None:
    folder, name = disk.parent(path)
    folder.change(((name, None),))


def _move(disk: Disk, path: str, to: str) -> None:
    folder, name = disk.parent(path)
    folder.change(((to.rpartition("/")[2], folder.cache[name]), (name, None)))


def read_state(root: Path) -> State:
    """Return what stands in a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def write_state(root: Path, state: State) -> None:
    """Let this, and nothing else, stand in a folder that exists."""
    for path in sorted(_below(root), reverse=True):
        relative = path[len(str(root)) + 1 :]
        if relative not in state or (state[relative] is None) != os.path.isdir(path):  # noqa: PTH112
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)  # noqa: PTH112
    for relative, content in sorted(state.items()):
        path = f"{root}/{relative}"
        if content is None:
            os.makedirs(path, 0o700, exist_ok=True)  # noqa: PTH103 - called a million times
        else:
            descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            os.write(descriptor, content)
            os.close(descriptor)


def _below(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield f"{folder}/{name}"
