"""A disk as POSIX promises it, and no better: what is not synced may be there, in part, or not.

A file has the content that was synced and the changes since; a directory the names that were
synced and the changes since. Syncing a file syncs neither its name nor that of its folder.
What a process sees is `cache`; what stands after a power failure is any of `crash_states`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Final, NamedTuple

SECTOR: Final = 512
"""What a disk writes whole or not at all, in bytes."""
_SUBSETS_MOST: Final = 6
_FEW: Final = 10
State = dict[str, bytes | None]
"""Content by path; None for a directory."""


class Change(NamedTuple):
    """Data written at an offset, or, without data, a new size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytes) -> bytes:
        """Return the content after it."""
        if self.data is None:
            return content[: self.offset].ljust(self.offset, b"\0")
        end = self.offset + len(self.data)
        return content[: self.offset].ljust(self.offset, b"\0") + self.data + content[end:]


@dataclass
class File:
    """A file. `held` are the bytes that its changes since the last sync go through."""

    synced: bytes = b""
    cache: bytes = b""
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """Change what processes see."""
        self.cache = change.apply(self.cache)
        self.pending.append(change)

    def sync(self) -> None:
        """Bring it to the disk."""
        self.synced, self.pending = self.cache, []

    def copy(self) -> File:
        """Return one that goes its own way."""
        return File(self.synced, self.cache, self.pending.copy())

    def variants(self, random: Random, most: int) -> list[bytes]:
        """Return contents that may stand after a power failure; at most so many, by lot."""
        found = {self.synced, self.cache}
        for at, change in enumerate(self.pending):
            before = self.synced
            for earlier in self.pending[:at]:
                before = earlier.apply(before)
            found.add(before)
            found.add(change.apply(self.synced))
            rest = self.pending[at + 1 :]
            skipped = before
            for later in rest:
                skipped = later.apply(skipped)
            found.add(skipped)
            for base in {before, self.synced}:
                found.update(_torn(base, change, random, most))
        ordered = sorted(found)
        return ordered if len(ordered) <= most else random.sample(ordered, most)


Names = tuple[tuple[str, int | None], ...]
"""Names that change together, and the node that each one means from then on."""


@dataclass
class Folder:
    """A directory: nodes by name."""

    synced: dict[str, int] = field(default_factory=dict)
    cache: dict[str, int] = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)

    def change(self, names: Names) -> None:
        """Change what processes see."""
        _rename(self.cache, names)
        self.pending.append(names)

    def sync(self) -> None:
        """Bring it to the disk."""
        self.synced, self.pending = self.cache.copy(), []

    def copy(self) -> Folder:
        """Return one that goes its own way."""
        return Folder(self.synced.copy(), self.cache.copy(), self.pending.copy())

    def variants(self, random: Random, most: int) -> list[dict[str, int]]:
        """Return the names that may stand after a power failure: any of the changes, in order."""
        if len(self.pending) <= _SUBSETS_MOST:
            chosen = list(product((False, True), repeat=len(self.pending)))
        else:
            chosen = [tuple(at < keep for at in range(len(self.pending))) for keep in range(2**4)]
            chosen += [tuple(random.random() < 0.5 for _ in self.pending) for _ in range(most)]
        found: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}
        for keep in chosen:
            names = self.synced.copy()
            for kept, change in zip(keep, self.pending, strict=True):
                if kept:
                    _rename(names, change)
            found[tuple(sorted(names.items()))] = names
        everything = list(found.values())
        return everything if len(everything) <= most else random.sample(everything, most)


def _rename(names: dict[str, int], change: Names) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _torn(base: bytes, change: Change, random: Random, most: int) -> Iterator[bytes]:
    """Yield a write cut at a byte, and with sectors of it missing, zeros in their place."""
    data = change.data
    if data is None:
        return
    cuts: Sequence[int] = range(1, len(data))
    for cut in cuts if len(cuts) <= most else random.sample(cuts, most):
        yield Change(change.offset, data[:cut]).apply(base)
    end = change.offset + len(data)
    edges = [change.offset]
    edges += range((change.offset // SECTOR + 1) * SECTOR, end, SECTOR)
    sectors = list(zip(edges, [*edges[1:], end], strict=True))
    for kept in _subsets(len(sectors), random, most):
        content = base
        for number in kept:
            start, stop = sectors[number]
            part = data[start - change.offset : stop - change.offset]
            content = Change(start, part).apply(content)
        yield content
        yield content.ljust(end, b"\0")


def _subsets(count: int, random: Random, most: int) -> Iterator[list[int]]:
    """Yield subsets of so many sectors: all, or those without one, with one, and some by lot."""
    if count <= _SUBSETS_MOST:
        for keep in product((False, True), repeat=count):
            yield [number for number in range(count) if keep[number]]
        return
    for number in range(count):
        yield [other for other in range(count) if other != number]
        yield list(range(number, count))
    for _ in range(most):
        yield [number for number in range(count) if random.random() < 0.5]


Form = bytes | dict[str, int]
Forms = dict[int, Form]
"""The content of each file and the names in each directory, by number of the node."""


class Disk:
    """Nodes by number; 0 is the folder that everything is in, which stands on the disk."""

    def __init__(self) -> None:
        self.nodes: dict[int, File | Folder] = {0: Folder()}

    @classmethod
    def of(cls, state: State) -> Disk:
        """Return a disk on which all of this stands, synced."""
        disk = cls()
        for path, content in sorted(state.items()):
            folder, name = disk.parent(path)
            node = disk.add(Folder() if content is None else File(content, content))
            folder.change(((name, node),))
            folder.sync()
        return disk

    def copy(self) -> Disk:
        """Return one that goes its own way."""
        twin = Disk()
        twin.nodes = {number: node.copy() for number, node in self.nodes.items()}
        return twin

    def add(self, node: File | Folder) -> int:
        """Take in a node that has no name yet; return its number."""
        number = len(self.nodes)
        self.nodes[number] = node
        return number

    def find(self, path: str) -> int:
        """Return the number of what stands at a path, as processes see it."""
        number = 0
        for name in path.split("/") if path else ():
            number = self.folder(number).cache[name]
        return number

    def parent(self, path: str) -> tuple[Folder, str]:
        """Return the folder that a path is in, and its name there."""
        above, _, name = path.rpartition("/")
        return self.folder(self.find(above)), name

    def folder(self, number: int) -> Folder:
        """Return a directory."""
        node = self.nodes[number]
        assert isinstance(node, Folder)
        return node

    def file(self, number: int) -> File:
        """Return a file."""
        node = self.nodes[number]
        assert isinstance(node, File)
        return node

    def seen(self) -> State:
        """Return what processes see, and what stands after they are killed."""
        return self._state({number: node.cache for number, node in self.nodes.items()})

    def owing(self) -> list[str]:
        """Return a path of each node with changes that are not synced."""
        return [path for number, path in self._paths().items() if self.nodes[number].pending]

    def links(self) -> list[list[str]]:
        """Return the names of each file that processes see under more than one."""
        found: dict[int, list[str]] = {}
        waiting = [(0, "")]
        while waiting:
            number, path = waiting.pop()
            for name, child in self.folder(number).cache.items():
                inner = f"{path}/{name}".removeprefix("/")
                if isinstance(self.nodes[child], File):
                    found.setdefault(child, []).append(inner)
                else:
                    waiting.append((child, inner))
        return [names for names in found.values() if len(names) > 1]

    def crash_states(
        self, random: Random, most: int, is_minor: Callable[[str], bool]
    ) -> Iterator[State]:
        """Yield what may stand after a power failure now.

        Each node with unsynced changes takes up to `most` forms while the others are as synced, as
        seen, or by lot; one that `is_minor`, by its path, takes few.
        """
        paths = self._paths()
        dirty = [number for number in paths if self.nodes[number].pending]
        forms: dict[int, Sequence[Form]] = {}
        for number in dirty:
            limit = _FEW if is_minor(paths[number]) else most
            forms[number] = self.nodes[number].variants(random, limit)
        synced: Forms = {number: node.synced for number, node in self.nodes.items()}
        cache: Forms = {number: node.cache for number, node in self.nodes.items()}
        yield self._state(synced)
        yield self._state(cache)
        for number in dirty:
            for form in forms[number]:
                yield self._state({**cache, number: form})
                if len(dirty) > 1:
                    yield self._state({**synced, number: form})
                    lot = {other: random.choice(forms[other]) for other in dirty}
                    yield self._state({**cache, **lot, number: form})

    def _paths(self) -> dict[int, str]:
        """Return a path for each node that has a name, on the disk or for processes."""
        found = {0: ""}
        waiting = [0]
        while waiting:
            number = waiting.pop()
            node = self.nodes[number]
            if isinstance(node, Folder):
                named = [*node.synced.items(), *node.cache.items()]
                named += [pair for names in node.pending for pair in names if pair[1] is not None]  # type: ignore[misc]
                for name, child in named:
                    if child not in found:
                        found[child] = f"{found[number]}/{name}".removeprefix("/")
                        waiting.append(child)
        return found

    @staticmethod
    def _state(forms: Forms) -> State:
        state: State = {}
        waiting = [(0, "")]
        while waiting:
            number, path = waiting.pop()
            names = forms[number]
            assert isinstance(names, dict)
            for name, child in names.items():
                inner = f"{path}/{name}" if path else name
                form = forms[child]
                if isinstance(form, dict):
                    state[inner] = None
                    waiting.append((child, inner))
                else:
                    state[inner] = form
        return state
