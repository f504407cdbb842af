"""The hash tree of RFC 6962 (§2.1; proofs as RFC 9162 §2.1.3 and §2.1.4 verify them).

Leaves and nodes are hashed under different prefixes, so that a node can never pass for a leaf.
Proofs are made from the roots of whole subtrees, wherever those are kept (`Node`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
HASH_BYTES: Final = 32

Node = Callable[[int, int], bytes]
"""`node(level, index)`: root of the subtree over the leaves `index << level` to
`(index + 1) << level`, which all are in the tree. May raise what its store raises."""


def hash_leaf(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data), 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def hash_pair(both: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right) of two hashes that stand one after the other."""
    return hashlib.sha256(b"\x01" + both).digest()


class Tree:
    """A tree that only grows, kept as the roots of its perfect subtrees: O(log n) memory.

    `append` takes leaf hashes. There are as many `nodes` as `size` has one bits.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def copy(self) -> Tree:
        """Return a tree of the same leaves that grows on its own."""
        twin = Tree()
        twin._nodes, twin._size = self._nodes.copy(), self._size
        return twin

    @property
    def nodes(self) -> Sequence[bytes]:
        """The roots of the perfect subtrees, from the largest to the smallest."""
        return tuple(self._nodes)

    @classmethod
    def of(cls, size: int, nodes: Sequence[bytes]) -> Tree:
        """Return the tree of `size` leaves with these subtrees. Raises `ValueError`."""
        if size.bit_count() != len(nodes):
            raise ValueError(f"a tree of {size} leaves has not {len(nodes)} perfect subtrees")
        tree = cls()
        tree._nodes, tree._size = list(nodes), size
        return tree

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash; two node hashes on average at most."""
        size = self._size
        nodes = self._nodes
        while size & 1:
            leaf = hash_node(nodes.pop(), leaf)
            size >>= 1
        nodes.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """Return the tree head: 32 bytes, `EMPTY_ROOT` for no leaves."""
        if not self._nodes:
            return EMPTY_ROOT
        root = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            root = hash_node(node, root)
        return root


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf hash at `index` in the tree of `size` leaves under `root`.

    RFC 9162 §2.1.3.2. False for anything malformed.
    """
    if not 0 <= index < size or not _are_hashes([leaf, *proof]):
        return False
    fn, sn, computed = index, size - 1, leaf
    for node in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            computed = hash_node(node, computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = hash_node(computed, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and computed == root


def is_consistent(
    size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the tree of `size1` is the start of the tree of `size2`.

    RFC 9162 §2.1.4.2. False for anything malformed; an empty first tree proves nothing and is
    refused.
    """
    if size1 == size2:
        return size1 > 0 and not proof and root1 == root2
    if not 1 <= size1 < size2 or not _are_hashes([root1, root2, *proof]):
        return False
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    return len(path) > 1 and _fold(path, size1, size2) == (root1, root2)


def nodes_over(leaves: Sequence[bytes]) -> Node:
    """Return what looks up nodes over leaf hashes in memory; hashes anew each time."""

    def node(level: int, index: int) -> bytes:
        row = list(leaves[index << level : (index + 1) << level])
        while len(row) > 1:
            pairs = iter(row)
            row = [hash_node(left, right) for left, right in zip(pairs, pairs, strict=True)]
        return row[0]

    return node


def root_of(size: int, node: Node) -> bytes:
    """Return the head of the tree of the first `size` leaves."""
    return _root_between(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Return the proof that `is_included` takes: RFC 6962 §2.1.1, at most 2 log n node lookups.

    Raises `ValueError` where the tree of `size` leaves has no leaf `index`.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _path(0, index, size, node)


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """Return the proof that `is_consistent` takes: RFC 6962 §2.1.2.

    Raises `ValueError` unless 1 <= old <= new: about an empty tree there is nothing to prove.
    """
    if not 1 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not grow from one of {old}")
    if old == new:
        return []
    level = (old & -old).bit_length() - 1  # the last whole subtree of the old tree
    index = (old >> level) - 1
    start = [node(level, index)] if index else []
    return start + _path(level, index, new, node)


def _path(level: int, index: int, size: int, node: Node) -> list[bytes]:
    """Return the siblings on the way from a subtree up to the root, nearest first."""
    path = []
    while (last := (size - 1) >> level) > 0:
        sibling = index ^ 1
        if sibling < last:
            path.append(node(level, sibling))
        elif sibling == last:
            path.append(_root_between(sibling << level, size, node))
        level, index = level + 1, index >> 1
    return path


def _root_between(begin: int, end: int, node: Node) -> bytes:
    """Return the root over leaves `begin` to `end`; `begin` is a place where such a subtree can."""
    parts = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        parts.append(node(level, begin >> level))
        begin += 1 << level
    root = parts.pop()
    while parts:
        root = hash_node(parts.pop(), root)
    return root


def _fold(path: Sequence[bytes], size1: int, size2: int) -> tuple[bytes, bytes] | None:
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for node in path[1:]:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            first, second = hash_node(node, first), hash_node(node, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = hash_node(second, node)
        fn, sn = fn >> 1, sn >> 1
    return (first, second) if sn == 0 else None


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
