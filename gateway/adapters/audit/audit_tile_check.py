"""Holds tiles against the records: at every start, and whenever a log is verified.

A tile holds nothing that the segments do not, so one that a crash tore or somebody deleted is made
anew. One that says something else is a witness: where every later link was worked out again after
a record was changed, level 0 still tells which record it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_tiles import (
    TileReader,
    TileWriter,
    drop_partial,
    partial_widths,
    put_tile,
)
from gateway.core.errors import ConfigurationError
from gateway.core.log.chain_check import Kind
from gateway.core.log.merkle import HASH_BYTES
from gateway.core.log.tiles import TILE_BYTES, TILE_WIDTH, Tile, root_over, split

_ZERO: Final = bytes(HASH_BYTES)
"""What a crash leaves of a block that was not written; no hash is that."""


class TileBreak(Struct, frozen=True):
    """A tile and the records contradict each other. `place`: `<path>:<hash>`."""

    kind: Kind
    seq: int
    place: str
    what: str


class TileCheck:
    """Takes the log's leaf hashes in order and compares them with the tiles in a directory.

    `found` is told of the first contradiction; whatever it raises goes through. Memory: what the
    right edge needs, and the places of tiles that are missing.
    """

    def __init__(self, directory: Path, found: Callable[[TileBreak], None]) -> None:
        self._directory: Final = directory
        self._found: Final = found
        self._full: Final = [0]
        self._edges: Final = [bytearray()]
        self._anew: Final[list[Tile]] = []
        self._stale: Final[list[Tile]] = []
        self._broken = False

    def add(self, leaf: bytes) -> None:
        """Take the next leaf hash."""
        edge = self._edges[0]
        edge += leaf
        if len(edge) == TILE_BYTES:
            self._complete(0)

    def finish(self, *, growing: bool = False) -> None:
        """Compare the right edge. `growing`: more records than these may have been written."""
        for level, edge in enumerate(self._edges):
            width = len(edge) // HASH_BYTES
            tile = Tile(level, self._full[level])
            for stated, data in self._read(tile):
                if stated.width > width and not growing:
                    self._tell_longer(stated, width)
                elif not self._holds(stated, data, bytes(edge)):
                    self._anew.append(stated)

    def repair(self, files: Files) -> TileWriter:
        """Make anew what is missing or torn, and return what writes the tiles that come.

        Call it once the records are known to be good. Raises `OSError`.
        """
        for tile in self._anew:
            if tile.is_full:
                data = TileReader(self._directory).derive(tile.level, tile.index, TILE_WIDTH)
                put_tile(self._directory, tile, data, files)
            else:
                edge = self._edges[tile.level][: tile.width * HASH_BYTES]
                put_tile(self._directory, tile, bytes(edge), files)
        for tile in self._stale:
            drop_partial(self._directory, tile)
        return TileWriter(self._directory, files, full=self._full, edges=self._edges)

    def _complete(self, level: int) -> None:
        data = bytes(self._edges[level])
        tile = Tile(level, self._full[level])
        stated = dict(self._read(tile))
        whole = [one for one, hashes in stated.items() if self._holds(one, hashes, data)]
        if tile not in whole:
            self._anew.append(tile)
        if any(not one.is_full for one in stated):
            self._stale.append(tile)
        self._edges[level].clear()
        self._full[level] += 1
        if level + 1 == len(self._edges):
            self._edges.append(bytearray())
            self._full.append(0)
        above = self._edges[level + 1]
        above += root_over(data)
        if len(above) == TILE_BYTES:
            self._complete(level + 1)

    def _read(self, tile: Tile) -> Iterator[tuple[Tile, bytes]]:
        """Yield what stands at a tile's place: partial ones, and itself."""
        for width in (*partial_widths(self._directory, tile), TILE_WIDTH):
            one = Tile(tile.level, tile.index, width)
            with contextlib.suppress(FileNotFoundError):
                yield one, (self._directory / one.path).read_bytes()

    def _holds(self, tile: Tile, data: bytes, hashes: bytes) -> bool:
        """Whether a tile is whole; one that contradicts the first of `hashes` is told of."""
        hashes = hashes[: tile.width * HASH_BYTES]
        if data == hashes:
            return True
        for offset, (stated, true) in enumerate(zip(split(data), split(hashes), strict=False)):
            if stated not in {true, _ZERO} and len(stated) == HASH_BYTES:
                self._tell_other(tile, offset)
                break
        return len(data) >= len(hashes) and data[: len(hashes)] == hashes

    def _tell_other(self, tile: Tile, offset: int) -> None:
        seq = tile.leaf_of(offset)
        what = "the record is not the one whose hash the tile keeps; one of the two was changed"
        self._tell(TileBreak("edited", seq, f"{tile.path}:{offset}", what))

    def _tell_longer(self, tile: Tile, width: int) -> None:
        seq = tile.leaf_of(width)
        what = f"the tile keeps hashes of record {seq} and more, which are gone"
        self._tell(TileBreak("truncated", seq, f"{tile.path}:{width}", what))

    def _tell(self, broken: TileBreak) -> None:
        if not self._broken:
            self._broken = True
            self._found(broken)


def refuse(directory: Path) -> Callable[[TileBreak], None]:
    """Return what a start does about a contradiction: it refuses, since one of the two is false."""

    def raise_it(broken: TileBreak) -> None:
        raise ConfigurationError(
            f"the audit log is damaged at `{directory / broken.place}`, record {broken.seq}: "
            f"{broken.kind}: {broken.what}; keep a copy of it, see `countersign audit verify` with "
            "a checkpoint that you keep elsewhere, then restore the log from a backup, or delete "
            "`tile` if nothing else is found"
        )

    return raise_it
