from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log import note as notes
from gateway.core.log.cosignature import (
    ANSWER_MAX_BYTES,
    SKEW_MAX_S,
    Conflict,
    Cosignature,
    Lines,
    NoCosignature,
    build_cosignature,
    build_message,
    build_request,
    build_witness_key,
    build_witness_vkey,
    build_witnessed,
    build_witnessed_note,
    find_cosignature,
    is_cosigned,
    parse_cosignature,
    parse_witness_vkey,
    read_answer,
    split_witnessed_note,
)

pytestmark = pytest.mark.req("AUD-08")

# The example of C2SP tlog-cosignature.
C2SP_NOTE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # noqa: E501 - as it stands there
C2SP_ENTRY = (
    "witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWX"
    "EhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA=="
)
# The example request and answer of C2SP tlog-witness.
C2SP_PROOF = (
    "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=",
    "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=",
    "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=",
    "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=",
)
C2SP_ANSWER = """\
— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
"""  # noqa: E501 - as it stands there
# Made by another implementation, transparency-dev's `omniwitness`, over a log of this one.
OMNI_VKEY = "witness.example/w1+aa4a09d1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
OMNI_TEXT = b"log.example/audit\n5\nUS3wSubv+sIMO/ubwzQ12osPRHa4zrApHup1mQS4alA=\n"
OMNI_ENTRY = (
    "witness.example/w1 qkoJ0QAAAABrAWxe0aA3gJdW5JYYDXdYuFikj95Mm+mHm5tAOUYynlVtA8bI"
    "87oarDcxgJNqlr+NopIhpb+88oXVv941hn2uxnBlBg=="
)
OMNI_S = 1_795_255_390

NOW_S = 1_700_000_000
TEXT = b"log.example/audit\n7\nUS3wSubv+sIMO/ubwzQ12osPRHa4zrApHup1mQS4alA=\n"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = build_witness_key("witness.example/a", SIGNER.public_key().public_bytes_raw())


def cosign(text: bytes = TEXT, time_s: int = NOW_S) -> Cosignature:
    return Cosignature(KEY.name, KEY.id, time_s, SIGNER.sign(build_message(time_s, text)))


def line(cosignature: Cosignature) -> bytes:
    return f"— {build_cosignature(cosignature)}\n".encode()


def find(body: bytes, now_s: int = NOW_S) -> Cosignature | NoCosignature:
    return find_cosignature(body, KEY, TEXT, now_s)


def test_the_example_of_the_specification_is_read_and_written_alike() -> None:
    found = parse_cosignature(C2SP_ENTRY)
    assert (found.name, found.time_s) == ("witness.example.com/w1", 1_679_315_147)
    assert build_cosignature(found) == C2SP_ENTRY
    text = notes.parse(C2SP_NOTE).text
    assert build_message(found.time_s, text) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
    assert split_witnessed_note(C2SP_NOTE + f"— {C2SP_ENTRY}\n") == (C2SP_NOTE, [found])


def test_the_request_is_the_one_of_the_specification() -> None:
    proof = [base64.b64decode(node) for node in C2SP_PROOF]
    body = build_request(20852014, proof, C2SP_NOTE).decode()
    assert body == "old 20852014\n" + "\n".join(C2SP_PROOF) + "\n\n" + C2SP_NOTE
    assert build_request(0, [], C2SP_NOTE).decode() == f"old 0\n\n{C2SP_NOTE}"


@pytest.mark.parametrize("proof", [[bytes(31)], [bytes(32)] * 64])
def test_no_witness_is_sent_a_proof_that_cannot_be_one(proof: list[bytes]) -> None:
    with pytest.raises(ValueError, match="no consistency proof"):
        build_request(1, proof, C2SP_NOTE)


def test_the_answer_of_the_specification_has_no_line_of_ours() -> None:
    assert find(C2SP_ANSWER.encode()) == NoCosignature("not_cosigned")
    ours = C2SP_ANSWER.encode() + line(cosign())
    assert find(ours) == cosign()


def test_another_implementations_cosignature_is_believed() -> None:
    key = parse_witness_vkey(OMNI_VKEY)
    assert build_witness_vkey(key) == OMNI_VKEY
    found = find_cosignature(f"— {OMNI_ENTRY}\n".encode(), key, OMNI_TEXT, OMNI_S)
    assert isinstance(found, Cosignature)
    assert (found.time_s, build_cosignature(found)) == (OMNI_S, OMNI_ENTRY)


def test_no_flipped_bit_of_an_answer_is_believed() -> None:
    body = line(cosign())
    assert find(body) == cosign()
    for place in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[place // 8] ^= 1 << place % 8
        assert isinstance(find(bytes(flipped)), NoCosignature), place


def test_no_flipped_bit_of_the_checkpoint_is_covered() -> None:
    cosignature = cosign()
    for place in range(8 * len(TEXT)):
        flipped = bytearray(TEXT)
        flipped[place // 8] ^= 1 << place % 8
        assert not is_cosigned(bytes(flipped), cosignature, KEY), place


@given(st.binary(max_size=300))
def test_whatever_a_witness_answers_is_read_or_refused(body: bytes) -> None:
    assert isinstance(find(body), NoCosignature)
    assert isinstance(find("— ".encode() + body + b"\n"), NoCosignature)


def test_a_cosignature_of_another_checkpoint_or_key_is_not_believed() -> None:
    assert find(line(cosign(TEXT.replace(b"7", b"8")))) == NoCosignature("bad_signature")
    other = Ed25519PrivateKey.generate()
    forged = Cosignature(KEY.name, KEY.id, NOW_S, other.sign(build_message(NOW_S, TEXT)))
    assert find(line(forged)) == NoCosignature("bad_signature")
    renamed = Cosignature("witness.example/b", KEY.id, NOW_S, cosign().signature)
    assert find(line(renamed)) == NoCosignature("not_cosigned")
    assert not is_cosigned(TEXT, renamed, KEY)
    # A log's own signature is none of a witness: another algorithm, another text.
    plain = Cosignature(KEY.name, KEY.id, NOW_S, SIGNER.sign(TEXT))
    assert find(line(plain)) == NoCosignature("bad_signature")


def test_a_cosignature_counts_only_around_its_own_time() -> None:
    body = line(cosign())
    for off in (-SKEW_MAX_S, SKEW_MAX_S):
        assert find(body, NOW_S + off) == cosign()
    for off in (-SKEW_MAX_S - 1, SKEW_MAX_S + 1):
        assert find(body, NOW_S + off) == NoCosignature("time_off")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        line(cosign())[:-1],
        line(cosign()) + b"\n",
        line(cosign()) + b"more\n",
        line(cosign()).replace("— ".encode(), b"- "),
        line(cosign()) + line(cosign(time_s=NOW_S + 1)),
        line(cosign()) * (ANSWER_MAX_BYTES // 100),
        b"\xff" + line(cosign()),
        line(cosign()).replace(b"==\n", b"\n"),
    ],
)
def test_an_answer_in_another_form_is_refused(body: bytes) -> None:
    assert find(body) == NoCosignature("malformed")


def test_the_same_line_twice_is_one() -> None:
    assert find(line(cosign()) * 2) == cosign()


@pytest.mark.parametrize(
    "blob",
    [
        KEY.id + bytes(71),
        KEY.id + bytes(73),
        KEY.id + b"\x80" + bytes(71),  # a time past 2^63
    ],
)
def test_a_blob_that_is_no_cosignature_is_refused(blob: bytes) -> None:
    entry = f"{KEY.name} {base64.b64encode(blob).decode()}"
    with pytest.raises(ValueError, match=r"cosignature|time"):
        parse_cosignature(entry)
    assert find(f"— {entry}\n".encode()) == NoCosignature("malformed")


@pytest.mark.parametrize(
    ("status", "kind", "body", "meaning"),
    [
        (200, "text/plain", b"x", Lines(b"x")),
        (409, "text/x.tlog.size", b"20852014\n", Conflict(20852014)),
        (409, "Text/X.tlog.size; charset=utf-8", b"0\n", Conflict(0)),
        (409, "text/plain", b"12\n", NoCosignature("inconsistent")),
        (403, "", b"", NoCosignature("key_unknown")),
        (404, "", b"", NoCosignature("log_unknown")),
        (422, "", b"", NoCosignature("inconsistent")),
        (429, "", b"", NoCosignature("busy")),
        (400, "", b"", NoCosignature("rejected")),
        (204, "", b"", NoCosignature("rejected")),
        (302, "", b"", NoCosignature("redirected")),
        (503, "", b"", NoCosignature("unavailable")),
    ],
)
def test_every_status_has_its_meaning(
    status: int, kind: str, body: bytes, meaning: Lines | Conflict | NoCosignature
) -> None:
    assert read_answer(status, kind, body) == meaning


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"12", b"012\n", b"-1\n", b"1 2\n", b"9" * 20 + b"\n"]
)
def test_a_size_in_another_spelling_is_refused(body: bytes) -> None:
    assert read_answer(409, "text/x.tlog.size", body) == NoCosignature("malformed")


@pytest.mark.parametrize(
    ("vkey", "says"),
    [
        ("", "not a witness's"),
        ("witness.example/w1", "not a witness's"),
        (OMNI_VKEY.replace("witness.example/w1", "a b"), "not a witness's"),
        (OMNI_VKEY.replace("aa4a09d1", "aa4a09d2"), "own hash"),
        (OMNI_VKEY + "=", "not a witness's"),
        (notes.build_vkey(notes.build_key("a", SIGNER.public_key())), "0x04"),
    ],
)
def test_a_key_that_is_no_witnesss_is_refused(vkey: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_witness_vkey(vkey)


def test_a_key_under_which_anybody_can_sign_is_refused(verifier: ModuleType) -> None:
    # The stand-alone verifier works it out on the curve; here it is a list. They agree.
    is_low_order: Callable[[bytes], bool] = verifier.is_low_order
    prime = 2**255 - 19
    order_8 = int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    )
    for y in (0, 1, prime - 1, prime, prime + 1, order_8, prime - order_8):
        for sign in (0, 1 << 255):
            public = (y | sign).to_bytes(32, "little")
            assert is_low_order(public)
            with pytest.raises(ValueError, match="anybody"):
                build_witness_key("w", public)
    assert not is_low_order(KEY.public)


def test_the_record_and_the_note_hold_the_cosignatures() -> None:
    checkpoint = notes.Checkpoint("log.example/audit", 7, bytes(range(32)))
    note = notes.sign(checkpoint, notes.build_key("log.example/audit", SIGNER.public_key()), SIGNER)
    found = [cosign(), cosign(time_s=NOW_S + 1)]
    assert split_witnessed_note(build_witnessed_note(note, found)) == (note, found)
    assert split_witnessed_note(note) == (note, [])
    entry = build_witnessed("op", checkpoint, found)
    assert entry.type == "checkpoint.witnessed"
    assert entry.fields == {
        "size": 7,
        "root": bytes(range(32)).hex(),
        "cosignatures": [build_cosignature(one) for one in found],
    }


@pytest.fixture(scope="module")
def verifier() -> ModuleType:
    """Return the stand-alone verifier, which is a file and no package."""
    path = Path(__file__).parents[3] / "verify" / "countersign_verify.py"
    spec = importlib.util.spec_from_file_location("verifier_of_cosignatures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
