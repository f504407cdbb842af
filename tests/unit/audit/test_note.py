from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log import note
from gateway.core.log.note import Checkpoint, NoteKey

ROOT = bytes(range(32))
# From the C2SP signed-note specification.
PETERNEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERNEUMANN_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETERNEUMANN_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def test_the_specification_s_example_verifies() -> None:
    key = note.parse_vkey(PETERNEUMANN)
    blob = base64.b64decode(PETERNEUMANN_SIGNATURE)
    assert blob[:4] == key.id
    assert key.verify(blob[4:], PETERNEUMANN_TEXT.encode())
    assert not key.verify(blob[4:], PETERNEUMANN_TEXT.encode() + b"!")
    assert note.build_vkey(key) == PETERNEUMANN


def test_a_signed_checkpoint_reads_back_and_verifies(
    key: NoteKey, signer: Ed25519PrivateKey
) -> None:
    checkpoint = Checkpoint(key.name, 42, ROOT)
    read = note.parse(note.sign(checkpoint, key, signer))
    assert read.checkpoint == checkpoint
    assert read.is_signed_by(key)


def test_another_key_of_the_same_name_did_not_sign(key: NoteKey, signer: Ed25519PrivateKey) -> None:
    other = note.build_key(key.name, Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    read = note.parse(note.sign(Checkpoint(key.name, 1, ROOT), key, signer))
    assert not read.names(other)
    assert not read.is_signed_by(other)


def _edits(text: str) -> list[str]:
    return [
        "",
        text.rstrip("\n"),
        text + "\n",
        text.replace("\n42\n", "\n042\n"),
        text.replace("\n42\n", "\n+42\n"),
        text.replace("\n42\n", "\n٤٢\n"),
        text.replace("\n42\n", "\n42\nextension\n"),
        text.replace("— ", "- "),
        text.replace("— ", "—  "),
        text.replace("=\n", "\n"),
        text.replace("Hh8=\n", "Hh9=\n"),  # the same bytes, spelt with stray bits
        text.replace("gateway", "gate way"),
        text.replace("gateway", "gate\u00fcay"),
        text.replace("\n42\n", f"\n42\n{base64.b64encode(b'short').decode()}\n", 1),
        text + text.splitlines()[-1] + "\n",
        text.replace("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "AAEC"),
        text.replace("\n\n", "\nx\n"),
    ]


@pytest.mark.parametrize("at", range(17))
def test_a_note_in_any_other_spelling_is_refused(
    at: int, key: NoteKey, signer: Ed25519PrivateKey
) -> None:
    text = note.sign(Checkpoint(key.name, 42, ROOT), key, signer)
    edited = _edits(text)[at]
    assert edited != text
    with pytest.raises(ValueError, match=r"checkpoint|base64|name a log"):
        note.parse(edited)


@given(st.text(max_size=200))
def test_reading_any_text_ends_in_a_value_error_or_a_checkpoint(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        note.parse(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000+AAAA",
        PETERNEUMANN.replace("c74f20a3", "c74f20a4"),
        PETERNEUMANN.replace("PeterNeumann", "Mallory"),
        PETERNEUMANN + " ",
        PETERNEUMANN.replace("+AR", "+AB"),
    ],
)
def test_a_verifier_key_that_is_not_its_own_is_refused(vkey: str) -> None:
    with pytest.raises(ValueError, match="verifier key"):
        note.parse_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "ä", "x" * 257])
def test_a_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    public = Ed25519PublicKey.from_public_bytes(note.parse_vkey(PETERNEUMANN).public)
    with pytest.raises(ValueError, match="cannot name a log"):
        note.build_key(name, public)
