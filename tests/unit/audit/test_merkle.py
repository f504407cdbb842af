from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log import merkle

Vectors = Callable[[str], list[dict[str, Any]]]


def _proof(case: dict[str, Any]) -> list[bytes]:
    return [b64decode(node) for node in case["proof"] or []]


def _naive_root(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.hash_node(_naive_root(leaves[:split]), _naive_root(leaves[split:]))


def _naive_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*_naive_path(index, leaves[:split]), _naive_root(leaves[split:])]
    return [*_naive_path(index - split, leaves[split:]), _naive_root(leaves[:split])]


def _naive_consistency(size: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    if size == len(leaves):
        return [] if whole else [_naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if size <= split:
        start = _naive_consistency(size, leaves[:split], whole=whole)
        return [*start, _naive_root(leaves[split:])]
    start = _naive_consistency(size - split, leaves[split:], whole=False)
    return [*start, _naive_root(leaves[:split])]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.Tree().root() == hashlib.sha256(b"").digest()


def test_a_leaf_never_hashes_like_a_node() -> None:
    left, right = bytes(32), bytes([1]) * 32
    assert merkle.hash_leaf(left + right) != merkle.hash_node(left, right)


def test_every_root_up_to_130_leaves_is_that_of_the_definition() -> None:
    tree, leaves = merkle.Tree(), []
    for number in range(130):
        leaf = merkle.hash_leaf(b"%d" % number)
        tree.append(leaf)
        leaves.append(leaf)
        assert (tree.size, tree.root()) == (number + 1, _naive_root(leaves))


def test_a_copy_grows_on_its_own() -> None:
    tree = merkle.Tree()
    tree.append(merkle.hash_leaf(b"a"))
    before = tree.root()
    tree.copy().append(merkle.hash_leaf(b"b"))
    assert (tree.size, tree.root()) == (1, before)


@pytest.mark.req("GW-13")
def test_inclusion_proofs_are_judged_as_the_shared_vectors_say(vectors: Vectors) -> None:
    cases = vectors("rfc6962_inclusion.jsonl")
    for case in cases:
        answer = merkle.is_included(
            b64decode(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            _proof(case),
            b64decode(case["root"]),
        )
        assert answer is not case["wantErr"], case["case"]
    assert len(cases) == 98


@pytest.mark.req("GW-13")
def test_consistency_proofs_are_judged_as_the_shared_vectors_say(vectors: Vectors) -> None:
    cases = vectors("rfc6962_consistency.jsonl")
    for case in cases:
        answer = merkle.is_consistent(
            case["size1"],
            b64decode(case["root1"] or ""),
            case["size2"],
            b64decode(case["root2"] or ""),
            _proof(case),
        )
        assert answer is not case["wantErr"], case["case"]
    assert len(cases) == 98


@given(st.integers(1, 40), st.data())
def test_every_true_inclusion_proof_holds_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = [merkle.hash_leaf(b"%d" % number) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root, proof = _naive_root(leaves), _naive_path(index, leaves)
    assert merkle.is_included(leaves[index], index, size, proof, root)
    assert not merkle.is_included(merkle.hash_leaf(b"other"), index, size, proof, root)
    assert not merkle.is_included(leaves[index], index, size, [*proof, root], root)
    assert not merkle.is_included(leaves[index], size, size, proof, root)


@given(st.integers(1, 40), st.data())
def test_every_true_consistency_proof_holds_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = [merkle.hash_leaf(b"%d" % number) for number in range(size)]
    start = data.draw(st.integers(1, size))
    first, second = _naive_root(leaves[:start]), _naive_root(leaves)
    proof = _naive_consistency(start, leaves)
    assert merkle.is_consistent(start, first, size, second, proof)
    assert not merkle.is_consistent(start, bytes(32), size, second, proof)
    assert not merkle.is_consistent(start, first, size, bytes(32), proof)
    assert not merkle.is_consistent(start, first, size, second, [*proof, second])


def test_a_hash_of_another_length_proves_nothing() -> None:
    leaf = merkle.hash_leaf(b"a")
    assert not merkle.is_included(leaf, 0, 1, [b"short"], leaf)
    assert not merkle.is_consistent(1, b"", 2, leaf, [leaf])
