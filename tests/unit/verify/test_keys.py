"""Keys, signatures and notes are read strictly, and alike with and without `cryptography`."""

from __future__ import annotations

import base64
import hashlib
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import share
from tests.unit.verify.logbuilder import TestKey, b64

pytestmark = pytest.mark.req("AUD-03")
GROUP = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19

# RFC 8032 §7.1: public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
LOW_ORDER = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (FIELD - 1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    (1 << 255).to_bytes(32, "little"),
]


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_the_vectors_of_the_rfc_are_good(
    script: ModuleType, public: str, message: str, signature: str
) -> None:
    good = [bytes.fromhex(part) for part in (public, message, signature)]
    assert script.plain_ed25519(*good)
    assert script.is_signed(*good)


@given(st.binary(max_size=40), st.integers(0, 511), st.integers(0, 2**32))
@settings(max_examples=share(25))
def test_a_flipped_bit_is_refused_alike(
    module: ModuleType, message: bytes, bit: int, seed: int
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(str(seed).encode()).digest())
    public, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert module.plain_ed25519(public, message, signature)
    bad = bytearray(signature)
    bad[bit // 8] ^= 1 << bit % 8
    assert not module.plain_ed25519(public, message, bytes(bad))
    assert not module.is_signed(public, message, bytes(bad))
    assert not module.plain_ed25519(public, message + b"x", signature)


def test_a_signature_with_a_large_s_is_refused_alike(script: ModuleType) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = private.public_key().public_bytes_raw(), private.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + GROUP
    bad = signature[:32] + s.to_bytes(32, "little")
    assert not script.plain_ed25519(public, b"m", bad)
    assert not script.is_signed(public, b"m", bad)
    assert not script.plain_ed25519(public, b"m", signature + b"\0")
    assert not script.plain_ed25519(public, b"m", signature[:63])


@pytest.mark.parametrize("public", LOW_ORDER)
def test_keys_of_low_order_are_refused(script: ModuleType, public: bytes) -> None:
    data = b"\1" + public
    kid = hashlib.sha256(b"log.example\n" + data).digest()[:4].hex()
    with pytest.raises(ValueError, match="anybody"):
        script.read_key(f"log.example+{kid}+{b64(data)}")


@pytest.mark.parametrize("number", [FIELD, FIELD + 1, 2**255 - 1, 2, 2**255 + 2])
def test_what_is_no_point_is_no_key(script: ModuleType, number: int) -> None:
    assert script.is_low_order(number.to_bytes(32, "little"))
    assert not script.plain_ed25519(number.to_bytes(32, "little"), b"", bytes(64))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key.vkey.replace("+", " ", 1),
        lambda key: key.vkey.replace(key.name, "a b"),
        lambda key: key.vkey.replace(key.name, "other"),
        lambda key: key.vkey.replace(key.id.hex(), key.id.hex().upper() + "0"),
        lambda key: key.vkey + "=",
        lambda key: key.vkey[:-4],
        lambda key: key.vkey[:-1] + " ",
        lambda _: "",
        lambda _: TestKey("seed", "w.example", 4).vkey,
        lambda key: "+".join([key.name, key.id.hex(), "A" * 44]),
    ],
)
def test_another_spelling_of_a_verifier_key_is_refused(script: ModuleType, spoil: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        script.read_key(spoil(TestKey("seed")))  # type: ignore[operator]


def test_a_good_verifier_key_is_read(script: ModuleType) -> None:
    key = TestKey("seed")
    read = script.read_key(key.vkey)
    assert (read.name, read.id, read.public, read.text) == (key.name, key.id, key.public, key.vkey)


@pytest.mark.parametrize(
    "text", ["AA", "AA=", "AB==", "A A=", "AA==\n", "AA==AA==", "-_==", "é", "A===", "\u0661A=="]
)
def test_base64_has_one_spelling(script: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        script.unbase64(text)
    assert script.unbase64("AA==") == b"\0"


@pytest.mark.parametrize(
    "text", ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "\u0661", "²", "9" * 17]
)
def test_sizes_have_one_spelling(script: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        script.uncounted(text)
    assert script.uncounted("10") == 10


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n\n", "\n"),
        ("\n\n", "\n\n\n"),
        ("\n5\n", "\n5\n6\n"),
        ("\n5\n", "\n05\n"),
        ("—", "-"),
        ("— ", "—"),
        ("log.example.com/audit\n", "\n"),
        ("log.example.com/audit\n", "a b\n"),
        ("=\n\n", "\n\n"),
    ],
)
def test_another_spelling_of_a_note_is_refused(script: ModuleType, old: str, new: str) -> None:
    note = TestKey("seed").note(5, hashlib.sha256(b"").digest())
    assert script.read_note(note).size == 5
    with pytest.raises(ValueError, match=r"."):
        script.read_note(note.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"."):
        script.read_note(note[:-1])


def test_a_note_with_a_short_root_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        script.read_note(TestKey("seed").note(5, b"short"))


def test_a_cosignature_covers_time_and_text(script: ModuleType) -> None:
    witness = TestKey("witness", "w.example", 4)
    key = script.read_key(witness.vkey, 4)
    blob = base64.b64decode(witness.cosignature("text\n"))
    assert script.is_cosigned("text\n", key, "w.example", blob) is True
    assert script.is_cosigned("other\n", key, "w.example", blob) is False
    assert script.is_cosigned("text\n", key, "w.example", blob[:4] + bytes(8) + blob[12:]) is False
    assert script.is_cosigned("text\n", key, "w.example", blob[:-1]) is False
    assert script.is_cosigned("text\n", key, "v.example", blob) is None
    assert script.is_cosigned("text\n", key, "w.example", bytes(4) + blob[4:]) is None
