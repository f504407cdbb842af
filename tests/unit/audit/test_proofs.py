"""Proofs made from stored hashes: every one holds, and nothing else does."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log import merkle
from gateway.core.log.merkle import Node, consistency_proof, inclusion_proof, root_of

SIZES = range(301)
LEAVES = [merkle.hash_leaf(b"%d" % number) for number in SIZES]


@cache
def node(level: int, index: int) -> bytes:
    """A node over `LEAVES`; one that the tree does not have is an error."""
    assert (index + 1) << level <= len(LEAVES)
    if level == 0:
        return LEAVES[index]
    return merkle.hash_node(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


def only_within(size: int) -> Node:
    """`node`, for a tree of `size` leaves."""

    def look(level: int, index: int) -> bytes:
        assert (index + 1) << level <= size
        return node(level, index)

    return look


def roots() -> list[bytes]:
    tree, found = merkle.Tree(), []
    for leaf in LEAVES:
        found.append(tree.root())
        tree.append(leaf)
    return found


ROOTS = roots()


@pytest.mark.req("AUD-02")
def test_the_root_over_stored_nodes_is_the_tree_s_at_every_size() -> None:
    assert [root_of(size, only_within(size)) for size in SIZES] == ROOTS


@pytest.mark.req("AUD-02")
def test_every_inclusion_proof_of_every_size_holds() -> None:
    for size in SIZES:
        look = only_within(size)
        for index in range(size):
            proof = inclusion_proof(index, size, look)
            assert merkle.is_included(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.req("AUD-02")
def test_every_consistency_proof_between_all_sizes_holds() -> None:
    for new in SIZES:
        look = only_within(new)
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, look)
            assert merkle.is_consistent(old, ROOTS[old], new, ROOTS[new], proof)


@pytest.mark.req("AUD-02")
@given(st.data())
def test_an_inclusion_proof_holds_for_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    leaf, root = LEAVES[index], ROOTS[size]
    wrong = data.draw(st.integers(-2, 300).filter(lambda other: other != index))
    assert not merkle.is_included(leaf, wrong, size, proof, root)
    assert not merkle.is_included(merkle.hash_leaf(b"x"), index, size, proof, root)
    assert not merkle.is_included(leaf, index, size, [*proof, root], root)
    assert not merkle.is_included(leaf, index, size, proof, bytes(32))
    for at in range(len(proof)):
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        assert not merkle.is_included(
            leaf, index, size, [*proof[:at], flipped, *proof[at + 1 :]], root
        )
        assert not merkle.is_included(leaf, index, size, proof[:at] + proof[at + 1 :], root)


@pytest.mark.req("AUD-02")
@given(st.data())
def test_an_inclusion_proof_does_not_hold_at_another_size(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    for other in SIZES:
        if other != size:
            assert not merkle.is_included(LEAVES[index], index, other, proof, ROOTS[other])


@pytest.mark.req("AUD-02")
@given(st.data())
def test_a_consistency_proof_holds_for_nothing_else(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(old, new, node)
    for other in range(1, 301):
        assert other == old or not merkle.is_consistent(other, ROOTS[other], new, ROOTS[new], proof)
        assert other == new or not merkle.is_consistent(old, ROOTS[old], other, ROOTS[other], proof)
    for at in range(len(proof)):
        flipped = [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        assert not merkle.is_consistent(old, ROOTS[old], new, ROOTS[new], flipped)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (7, 3)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_proof(index, size, node)


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3), (0, 0)])
def test_a_tree_that_does_not_grow_has_no_proof(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="does not grow"):
        consistency_proof(old, new, node)
