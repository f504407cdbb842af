"""C2SP tlog-tiles: where the hashes of a tree stand, and what a tile is called.

A tile holds 256 hashes of 32 bytes: the roots of the subtrees of 256^level leaves each. What lies
between two levels is worked out from the lower one. Pure.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from gateway.core.log.merkle import HASH_BYTES, hash_pair

TILE_BITS: Final = 8
TILE_WIDTH: Final = 1 << TILE_BITS
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
_GROUP: Final = 1000


class Tile(Struct, frozen=True):
    """Place of a tile. `width`: how many hashes it holds, 1 to 255 for a partial one."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def is_full(self) -> bool:
        """Whether the tile will never change."""
        return self.width == TILE_WIDTH

    @property
    def full_path(self) -> str:
        """The path of the full tile of this place."""
        return f"tile/{self.level}/{_encode_index(self.index)}"

    @property
    def path(self) -> str:
        """`tile/<level>/<index>[.p/<width>]`."""
        return self.full_path if self.is_full else f"{self.full_path}.p/{self.width}"

    def leaf_of(self, offset: int) -> int:
        """The first leaf under the tile's hash at `offset`."""
        return (self.index * TILE_WIDTH + offset) << (TILE_BITS * self.level)


def tile_of(level: int, index: int) -> tuple[int, int, int, int]:
    """Say where a node of the tree is: level and index of its tile, and which hashes are under it.

    `level`, `index`: the root over the leaves `index << level` to `(index + 1) << level`. The last
    two numbers are the first of the tile's hashes that are its leaves, and the one past the last.
    """
    tile_level, height = divmod(level, TILE_BITS)
    tile_index, offset = divmod(index << height, TILE_WIDTH)
    return tile_level, tile_index, offset, offset + (1 << height)


def split(data: bytes) -> list[bytes]:
    """Return the hashes of a tile, or of a part of one."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def root_over(data: bytes) -> bytes:
    """Return the root over hashes that stand one after the other; their number is a power of 2."""
    while len(data) > HASH_BYTES:
        starts = range(0, len(data), 2 * HASH_BYTES)
        data = b"".join([hash_pair(data[at : at + 2 * HASH_BYTES]) for at in starts])
    return data


def _encode_index(index: int) -> str:
    index, last = divmod(index, _GROUP)
    groups = [f"{last:03}"]
    while index:
        index, group = divmod(index, _GROUP)
        groups.append(f"x{group:03}")
    return "/".join(reversed(groups))
