from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.adapters.audit.audit_keys import load_or_create, load_or_create_kek
from gateway.core.errors import ConfigurationError
from gateway.core.log.note import parse_vkey


def test_a_missing_key_is_made_for_its_owner_alone_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.pem"
    signer, vkey = load_or_create(path, name="gateway.example.com/audit")
    again, same = load_or_create(path, name="gateway.example.com/audit")
    assert path.stat().st_mode & 0o777 == 0o600
    assert same == vkey
    assert parse_vkey(vkey).verify(again.sign(b"text"), b"text")
    assert signer.private_bytes_raw() == again.private_bytes_raw()


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    for load in (load_or_create, load_or_create_kek):
        path = tmp_path / load.__name__
        load(path)
        path.chmod(0o640)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load(path)


def test_a_file_that_holds_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"", b"nonsense", pem):
        path = tmp_path / "key"
        path.touch(mode=0o600)
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="not an unencrypted Ed25519 key"):
            load_or_create(path)


def test_the_key_encryption_key_is_made_once_and_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    kek = load_or_create_kek(path)
    assert len(kek) == 32
    assert load_or_create_kek(path) == kek
    for content in (b"", b"abcd", b"zz" * 32, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="32 bytes in hex"):
            load_or_create_kek(path)
