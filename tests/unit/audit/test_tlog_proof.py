"""C2SP tlog-proofs: written, read strictly, believed only for what they show."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.log.merkle import Tree, hash_leaf, hash_node, inclusion_proof
from gateway.core.log.note import Checkpoint, NoteKey, build_key, sign
from gateway.core.log.tlog_proof import TlogProof, build_proof, find_fault, parse_proof

SIZE = 11
LEAVES = [hash_leaf(b"record %d" % number) for number in range(SIZE)]


def node(level: int, index: int) -> bytes:
    if level == 0:
        return LEAVES[index]
    return hash_node(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


@pytest.fixture(scope="module")
def signed(key: NoteKey, signer: Ed25519PrivateKey) -> str:
    """The note of the log's checkpoint."""
    tree = Tree()
    for leaf in LEAVES:
        tree.append(leaf)
    return sign(Checkpoint(key.name, SIZE, tree.root()), key, signer)


@pytest.fixture(scope="module")
def proof(signed: str) -> TlogProof:
    return TlogProof(6, tuple(inclusion_proof(6, SIZE, node)), signed)


@pytest.mark.req("AUD-02")
def test_a_proof_is_written_as_tlog_proof_says(proof: TlogProof) -> None:
    lines = build_proof(proof).split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 6"]
    assert [len(line) for line in lines[2:6]] == [44] * 4
    assert lines[6] == ""
    assert "\n".join(lines[7:]) == proof.note


@pytest.mark.req("AUD-02")
def test_a_proof_is_read_as_it_was_written(proof: TlogProof, key: NoteKey) -> None:
    found = parse_proof(build_proof(proof))
    assert found == proof
    assert found.signed.checkpoint.size == SIZE
    assert find_fault(found, LEAVES[6], [key]) is None


def test_a_proof_of_the_only_record_has_no_hashes(key: NoteKey, signer: Ed25519PrivateKey) -> None:
    note = sign(Checkpoint(key.name, 1, LEAVES[0]), key, signer)
    text = build_proof(TlogProof(0, (), note))
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 0\n\n")
    assert find_fault(parse_proof(text), LEAVES[0], [key]) is None


def test_cosignatures_stay_with_the_proof(proof: TlogProof, key: NoteKey) -> None:
    line = "— witness.example " + "A" * 102 + "==\n"
    found = parse_proof(build_proof(TlogProof(6, proof.hashes, proof.note + line)))
    assert found.note.endswith(line)
    assert find_fault(found, LEAVES[6], [key]) is None


@pytest.mark.req("AUD-02")
def test_a_proof_shows_no_other_record(proof: TlogProof, key: NoteKey) -> None:
    for leaf in (*LEAVES[:6], *LEAVES[7:], hash_leaf(b"another")):
        assert find_fault(proof, leaf, [key]) == (
            "record and hashes do not add up to the root of its checkpoint"
        )
    for index in (*range(6), *range(7, SIZE)):
        moved = TlogProof(index, proof.hashes, proof.note)
        assert find_fault(moved, LEAVES[6], [key]) is not None


@pytest.mark.req("AUD-02")
def test_a_proof_under_another_key_shows_nothing(proof: TlogProof, key: NoteKey) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    stranger = build_key(key.name, other.public_key())
    assert find_fault(proof, LEAVES[6], [stranger]) == (
        f"its checkpoint is not signed by a given key of `{key.name}`"
    )
    assert find_fault(proof, LEAVES[6], []) is not None
    assert find_fault(proof, LEAVES[6], [stranger, key]) is None


def test_a_proof_whose_checkpoint_was_changed_shows_nothing(proof: TlogProof, key: NoteKey) -> None:
    changed = TlogProof(6, proof.hashes, proof.note.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n"))
    assert "is not signed by" in str(find_fault(changed, LEAVES[6], [key]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("c2sp.org/tlog-proof@v1\n", ""),
        ("index 6", "index 06"),
        ("index 6", "index +6"),
        ("index 6", "index  6"),
        ("index 6", "index ٦"),
        ("index 6", "index"),
        ("index 6", "index " + "1" * 20),
        ("index 6", "extra AAAA\nindex 6"),
        ("index 6", "index 11"),
        ("index 6\n", ""),
        ("index 6\n", "index 6\n\n"),
        ("index 6\n", "index 6\nAAAA\n"),
        ("index 6\n", "index 6\nno base64!\n"),
        ("index 6\n", "index 6\n" + "A" * 42 + "B=\n"),
        ("index 6\n", "index 6\r\n"),
        ("\n\n", "\n"),
        ("— ", "- "),
    ],
)
def test_another_spelling_is_refused(proof: TlogProof, old: str, new: str) -> None:
    text = build_proof(proof)
    assert old in text
    with pytest.raises(ValueError, match=r"."):
        parse_proof(text.replace(old, new, 1))


def test_what_follows_a_proof_is_refused(proof: TlogProof) -> None:
    for more in ("\n", "x", " "):
        with pytest.raises(ValueError, match=r"."):
            parse_proof(build_proof(proof) + more)
    with pytest.raises(ValueError, match="no proof"):
        parse_proof("")
