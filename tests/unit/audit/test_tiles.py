"""Places of tiles, and what a tile holds."""

from __future__ import annotations

import pytest

from gateway.core.log.merkle import hash_leaf, hash_node
from gateway.core.log.tiles import Tile, root_over, split, tile_of


@pytest.mark.req("AUD-02")
@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999), "tile/0/999"),
        (Tile(1, 1000, 255), "tile/1/x001/000.p/255"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(2, 5, 1), "tile/2/005.p/1"),
    ],
)
def test_a_tile_has_the_path_that_tlog_tiles_says(tile: Tile, path: str) -> None:
    assert tile.path == path


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ((0, 300), (0, 1, 44, 45)),
        ((7, 3), (0, 1, 128, 256)),
        ((8, 300), (1, 1, 44, 45)),
        ((10, 64), (1, 1, 0, 4)),
    ],
)
def test_a_node_is_the_root_over_hashes_of_one_tile(
    node: tuple[int, int], place: tuple[int, int, int, int]
) -> None:
    assert tile_of(*node) == place


def test_a_tile_s_hash_stands_for_the_leaves_under_it() -> None:
    assert [Tile(0, 2).leaf_of(3), Tile(1, 0).leaf_of(2), Tile(2, 1).leaf_of(0)] == [
        515,
        512,
        256**3,
    ]


def test_a_root_is_worked_out_from_hashes_in_a_row() -> None:
    leaves = [hash_leaf(bytes([number])) for number in range(4)]
    joined = b"".join(leaves)
    assert split(joined) == leaves
    assert root_over(leaves[0]) == leaves[0]
    assert root_over(joined) == hash_node(
        hash_node(leaves[0], leaves[1]), hash_node(leaves[2], leaves[3])
    )
