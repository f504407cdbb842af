"""What the check finds, and what it calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.log import note
from gateway.core.log.chain import Chain, encode_checkpoint
from gateway.core.log.chain_check import Anchor, Break, ChainCheck, Sealed, explain
from gateway.core.log.note import Checkpoint, NoteKey, SignedCheckpoint

Build = Callable[[Sequence[Sequence[dict[str, Any]]]], list[bytes]]
BATCHES = [[{"n": 0}, {"n": 1}], [{"n": 2}], [{"n": 3}, {"n": 4}, {"n": 5}], [{"n": 6}]]
# lines:      0         1     2cp    3    4cp     5         6         7   8cp    9   10cp


@pytest.fixture
def lines(build: Build) -> list[bytes]:
    return build(BATCHES)


def judge(lines: Sequence[bytes], key: NoteKey, *, every_signature: bool = True) -> Break | None:
    check = ChainCheck(key.name, key, every_signature=every_signature)
    for at, line in enumerate(lines):
        answer = check.feed(line)
        if isinstance(answer, Break):
            return explain(answer, line, lines[at + 1 :], check.chain)
    return check.tail()


def found(lines: Sequence[bytes], key: NoteKey) -> tuple[str, int]:
    broken = judge(lines, key)
    assert broken is not None
    return broken.kind, broken.seq


@pytest.mark.req("GW-13")
@pytest.mark.parametrize("every_signature", [True, False])
def test_a_log_as_written_holds(lines: list[bytes], key: NoteKey, *, every_signature: bool) -> None:
    assert judge(lines, key, every_signature=every_signature) is None


def test_an_edited_record_is_named(lines: list[bytes], key: NoteKey) -> None:
    lines[5] = lines[5].replace(b'"n":3', b'"n":9')
    assert found(lines, key) == ("edited", 3)


def test_an_edited_record_at_the_end_of_a_batch_is_named(lines: list[bytes], key: NoteKey) -> None:
    lines[3] = lines[3].replace(b'"n":2', b'"n":9')
    assert found(lines, key) == ("edited", 2)


def test_an_edited_link_is_charged_to_the_record_that_holds_it(
    lines: list[bytes], key: NoteKey
) -> None:
    record = orjson.loads(lines[6])
    lines[6] = orjson.dumps({**record, "prev": "f" * 64}, option=orjson.OPT_SORT_KEYS)
    assert found(lines, key) == ("edited", 4)


def test_a_line_that_is_no_json_is_edited(lines: list[bytes], key: NoteKey) -> None:
    lines[6] = lines[6][:-1]
    assert found(lines, key) == ("edited", 4)


@pytest.mark.parametrize("line", [b"[]", b"7", b"{}", b'{"v":"1"}', b""])
def test_a_line_that_is_no_record_is_edited(line: bytes, lines: list[bytes], key: NoteKey) -> None:
    lines[1] = line
    assert found(lines, key) == ("edited", 1)


@pytest.mark.parametrize(("at", "seq"), [(1, 1), (5, 3), (7, 5)])
def test_a_deleted_record_is_named(at: int, seq: int, lines: list[bytes], key: NoteKey) -> None:
    del lines[at]
    assert found(lines, key) == ("deleted", seq)


def test_a_deleted_batch_is_named(lines: list[bytes], key: NoteKey) -> None:
    del lines[5:9]
    broken = judge(lines, key)
    assert broken == Break("deleted", 3, "records 3 to 5 are gone")


def test_a_deleted_checkpoint_is_named(lines: list[bytes], key: NoteKey) -> None:
    del lines[4]
    assert found(lines, key) == ("deleted", 3)


def test_a_repeated_record_is_inserted(lines: list[bytes], key: NoteKey) -> None:
    lines.insert(6, lines[5])
    assert found(lines, key) == ("inserted", 3)


def test_a_forged_record_in_between_is_inserted(lines: list[bytes], key: NoteKey) -> None:
    lines.insert(6, lines[6].replace(b'"n":4', b'"n":9'))
    assert found(lines, key) == ("inserted", 4)


def test_a_forged_record_with_a_false_link_is_inserted(lines: list[bytes], key: NoteKey) -> None:
    record = {**orjson.loads(lines[6]), "prev": "f" * 64}
    lines.insert(6, orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
    assert found(lines, key) == ("inserted", 4)


def test_a_repeated_checkpoint_is_inserted(lines: list[bytes], key: NoteKey) -> None:
    lines.insert(5, lines[4])
    assert found(lines, key) == ("inserted", 2)


def test_swapped_records_are_reordered(lines: list[bytes], key: NoteKey) -> None:
    lines[6], lines[7] = lines[7], lines[6]
    assert found(lines, key) == ("reordered", 4)


def test_a_checkpoint_before_its_last_record_is_reordered(lines: list[bytes], key: NoteKey) -> None:
    lines[7], lines[8] = lines[8], lines[7]
    assert found(lines, key) == ("reordered", 5)


def test_another_spelling_of_a_record_is_not_canonical(lines: list[bytes], key: NoteKey) -> None:
    lines[6] = lines[6].replace(b'"n":4', b'"n": 4')
    assert found(lines, key) == ("not_canonical", 4)


def test_a_number_outside_the_profile_is_not_canonical(lines: list[bytes], key: NoteKey) -> None:
    lines[6] = lines[6].replace(b'"n":4', b'"n":4.0')
    assert found(lines, key) == ("not_canonical", 4)


def test_a_record_of_another_log_is_told(lines: list[bytes], key: NoteKey) -> None:
    lines[6] = lines[6].replace(b"gateway.example.com", b"another.example.com")
    assert found(lines, key) == ("wrong_log", 4)


def test_a_checkpoint_of_another_log_is_told(
    lines: list[bytes], key: NoteKey, signer: Ed25519PrivateKey
) -> None:
    signed = note.sign(Checkpoint("another.example.com/audit", 7, bytes(32)), key, signer)
    lines[10] = encode_checkpoint(signed)
    assert found(lines, key) == ("wrong_log", 6)


@pytest.mark.parametrize("line", [b'{"cp":1}', b'{"cp":"x"}', b'{"cp":', b'{"cp":"x","y":1}'])
def test_a_malformed_checkpoint_is_edited(line: bytes, lines: list[bytes], key: NoteKey) -> None:
    lines[8] = line
    assert found(lines, key) == ("edited", 5)


def test_a_rewritten_past_does_not_add_up_to_the_signed_root(
    lines: list[bytes], build: Build, key: NoteKey
) -> None:
    forged = build([[{"n": 0}, {"n": 7}], *BATCHES[1:]])
    assert found([*forged[:2], *lines[2:]], key) == ("edited", 1)


def test_a_log_signed_by_another_key_is_told(lines: list[bytes], key: NoteKey) -> None:
    other = note.build_key(key.name, Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    assert found(lines, other) == ("wrong_key", 6)
    broken = judge(lines, other, every_signature=False)
    assert broken is not None
    assert broken.kind == "wrong_key"


def test_a_false_signature_under_the_right_name_is_told(lines: list[bytes], key: NoteKey) -> None:
    forger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    stated = _checkpoint_of(lines[10]).checkpoint
    lines[10] = encode_checkpoint(note.sign(stated, key, forger))
    assert judge(lines, key) == Break("edited", 6, "the signature of the checkpoint is false")


def test_a_forged_early_checkpoint_is_found_without_its_signature(
    lines: list[bytes], key: NoteKey
) -> None:
    forger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    lines[4] = encode_checkpoint(note.sign(_checkpoint_of(lines[4]).checkpoint, key, forger))
    broken = judge(lines, key, every_signature=False)
    assert broken is not None
    assert (broken.kind, broken.seq) == ("edited", 2)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ts": 0}, "time"),
        ({"type": "genesis"}, "genesis"),
    ],
)
def test_a_record_that_breaks_a_rule_of_the_chain_is_edited(
    changes: dict[str, Any], what: str, lines: list[bytes], key: NoteKey
) -> None:
    record = {**orjson.loads(lines[6]), **changes}
    lines[6] = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
    broken = judge(lines[:7], key)
    assert broken is not None
    assert (broken.kind, broken.seq) == ("edited", 4)
    assert what in broken.what


def test_a_checkpoint_inserted_into_a_batch_is_told(
    lines: list[bytes], key: NoteKey, signer: Ed25519PrivateKey
) -> None:
    chain = Chain(key.name)
    check = ChainCheck(key.name, key)
    for line in lines[:6]:
        check.feed(line)
    chain = check.chain.copy()
    lines.insert(6, chain.seal(key, signer)[0])
    assert found(lines, key) == ("inserted", 4)


def test_a_log_without_a_checkpoint_is_not_signed(lines: list[bytes], key: NoteKey) -> None:
    assert found(lines[:2], key) == ("missing", 1)
    assert found([], key) == ("missing", 0)


@pytest.mark.req("GW-13")
def test_a_change_of_any_single_bit_is_found(lines: list[bytes], key: NoteKey) -> None:
    """Every bit of every line; joined and split lines are changes of an LF."""
    text = b"\n".join([*lines[:5], b""])
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1 << at % 8
        body, _, rest = bytes(changed).rpartition(b"\n")
        assert rest or judge(body.split(b"\n"), key, every_signature=False) is not None, at


def _checkpoint_of(line: bytes) -> SignedCheckpoint:
    return note.parse(orjson.loads(line)["cp"])


def _verdict(lines: Sequence[bytes], known: SignedCheckpoint, key: NoteKey) -> str | None:
    anchor = Anchor(known)
    check = ChainCheck(key.name, key)
    for line in lines:
        answer = check.feed(line)
        if isinstance(answer, Sealed):
            anchor.meet(answer)
    broken = anchor.verdict(check.sealed_seq, [key])
    return broken.kind if broken is not None else None


def test_a_known_checkpoint_tells_a_longer_a_shorter_and_another_log_apart(
    lines: list[bytes], build: Build, key: NoteKey, signer: Ed25519PrivateKey
) -> None:
    known = _checkpoint_of(lines[8])
    forked = build([[{"n": 0}, {"n": 1}], [{"n": 2}], [{"n": 3}, {"n": 4}, {"n": 9}], [{"n": 6}]])
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    false = note.parse(note.sign(known.checkpoint, key, stranger))
    assert _verdict(lines, known, key) is None
    assert _verdict(lines[:5], known, key) == "truncated"
    assert _verdict(forked, known, key) == "forked"
    assert _verdict(lines, false, key) == "wrong_key"
