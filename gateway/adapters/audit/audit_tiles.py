"""The tree's hashes in files (C2SP tlog-tiles): derived from the segments, so never trusted alone.

`TileWriter` keeps the right edge of the tree in memory and writes tiles as they fill. `TileReader`
looks hashes up in tiles, and works out from the segments what no tile holds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_seek import read_leaves
from gateway.core.log.merkle import HASH_BYTES, hash_node
from gateway.core.log.tiles import TILE_BYTES, TILE_WIDTH, Tile, root_over, tile_of

_CACHED_TILES: Final = 32


class TileReader:
    """Looks hashes up. What it returns is believed only once it adds up to a signed root."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        self._cached: dict[tuple[int, int], bytes] = {}

    def node(self, level: int, index: int) -> bytes:
        """Return a node of the tree: see `merkle.Node`. Raises `LookupError`, `OSError`."""
        tile_level, tile_index, first, end = tile_of(level, index)
        hashes = self.hashes(tile_level, tile_index, end)
        return root_over(hashes[first * HASH_BYTES : end * HASH_BYTES])

    def hashes(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` hashes of a tile, and perhaps more of them.

        Raises `LookupError` where the log has fewer records than that takes.
        """
        size = width * HASH_BYTES
        found = self._cached.get((level, index), b"")
        if len(found) < size:
            found = self._load(Tile(level, index), width)
        if len(found) < size:
            found = self.derive(level, index, width)
        if len(found) < size:
            raise LookupError(f"the log has no record {Tile(level, index).leaf_of(width) - 1}")
        if len(self._cached) >= _CACHED_TILES:
            self._cached = {}
        self._cached[level, index] = found
        return found

    def _load(self, tile: Tile, width: int) -> bytes:
        """Return what stands in a file; nothing where none is wide enough."""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / tile.full_path).read_bytes()[:TILE_BYTES]
        for partial in reversed(partial_widths(self._directory, tile)):
            if partial < width:
                break
            path = Tile(tile.level, tile.index, partial).path
            with contextlib.suppress(FileNotFoundError):  # a full one stands by now
                return (self._directory / path).read_bytes()[: partial * HASH_BYTES]
        return b""

    def derive(self, level: int, index: int, width: int) -> bytes:
        """Return the first hashes of a tile, worked out from what lies below it."""
        first = index * TILE_WIDTH
        if level == 0:
            return read_leaves(self._directory, first, first + width)
        below = (self.hashes(level - 1, first + at, TILE_WIDTH) for at in range(width))
        return b"".join(root_over(hashes[:TILE_BYTES]) for hashes in below)


class TileWriter:
    """Writes tiles of records that are durable, in order.

    One thread at a time adds and writes; `node` may be asked from any thread. `edges` are the
    hashes of each level that stand in no full tile yet, `full` how many full tiles it has.
    """

    def __init__(
        self,
        directory: Path,
        files: Files,
        *,
        full: Sequence[int],
        edges: Sequence[bytes | bytearray],
    ) -> None:
        self._directory: Final = directory
        self._files: Final = files
        self._reader: Final = TileReader(directory)
        self._lock: Final = threading.Lock()
        self._full: Final = list(full) or [0]
        self._edges: Final = [bytearray(edge) for edge in edges] or [bytearray()]
        # the width last written at each level where a partial tile may stand; 0 for an unknown one
        self._widths: Final = dict.fromkeys(range(len(self._edges)), 0)

    def standing(self) -> tuple[list[int], list[bytes]]:
        """Return `full` and `edges` as they are now: what another writer goes on from."""
        with self._lock:
            return list(self._full), [bytes(edge) for edge in self._edges]

    def add(self, leaves: Sequence[bytes]) -> None:
        """Take the leaf hashes of the next records."""
        joined = b"".join(leaves)
        with self._lock:
            self._edges[0] += joined

    def write_full(self) -> None:
        """Write every tile that is full. Raises `OSError`; then it can be called again."""
        for level in range(len(self._edges)):
            while len(self._edges[level]) >= TILE_BYTES:
                self._write_full(level)

    def write_edge(self) -> None:
        """Write the partial tiles as they are now, after the full ones. Raises `OSError`."""
        self.write_full()
        for level, edge in enumerate(self._edges):
            width = len(edge) // HASH_BYTES
            if width and self._widths.get(level) != width:
                tile = Tile(level, self._full[level], width)
                put_tile(self._directory, tile, bytes(edge), self._files)
                self._widths[level] = width

    def node(self, level: int, index: int) -> bytes:
        """Return a node over records that were added: see `merkle.Node`."""
        tile_level, tile_index, first, end = tile_of(level, index)
        with self._lock:
            known = tile_level < len(self._edges)
            is_full = known and tile_index < self._full[tile_level]
            hashes = b""
            if known and not is_full:
                start = (tile_index - self._full[tile_level]) * TILE_WIDTH
                edge = self._edges[tile_level]
                hashes = bytes(edge[(start + first) * HASH_BYTES : (start + end) * HASH_BYTES])
        if is_full:
            return self._reader.node(level, index)
        if len(hashes) == (end - first) * HASH_BYTES:
            return root_over(hashes)
        if level == 0:
            raise LookupError(f"the log has no record {index}")
        # its tiles below are full and wait to be written
        return hash_node(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def _write_full(self, level: int) -> None:
        data = bytes(self._edges[level][:TILE_BYTES])
        tile = Tile(level, self._full[level])
        put_tile(self._directory, tile, data, self._files)
        root = root_over(data)
        with self._lock:
            del self._edges[level][:TILE_BYTES]
            self._full[level] += 1
            if level + 1 == len(self._edges):
                self._edges.append(bytearray())
                self._full.append(0)
            self._edges[level + 1] += root
        if self._widths.pop(level, None) is not None:
            drop_partial(self._directory, tile)


def put_tile(directory: Path, tile: Tile, data: bytes, files: Files) -> None:
    """Write a tile, whole or not at all.

    It is not synced: a sync costs more than all the rest, at the expense of the next batch, and
    what a power failure tears is made anew from the segments at the next start.
    """
    path = directory / tile.path
    try:
        files.put(path, data)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.put(path, data)


def partial_widths(directory: Path, tile: Tile) -> list[int]:
    """Return the widths in which a tile stands partially, the narrowest first."""
    try:
        names = [path.name for path in (directory / f"{tile.full_path}.p").iterdir()]
    except FileNotFoundError:
        return []
    widths = {int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0"}
    return sorted(width for width in widths if width < TILE_WIDTH)


def drop_partial(directory: Path, tile: Tile) -> None:
    """Delete the partial tiles of a place where a full one stands."""
    folder = directory / f"{tile.full_path}.p"
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
