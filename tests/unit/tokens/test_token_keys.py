from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from gateway.adapters.keys.token_keys import (
    create_token_key,
    generate_token_key,
    load_or_create_token_key,
    load_token_key,
)
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("GW-10")


def pem_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, secret: bytes = b"") -> str:
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(secret) if secret else NoEncryption()
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def test_a_created_key_is_read_back_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "tokens.pem"
    made = create_token_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_token_key(path).as_dict(private=True) == made.as_dict(private=True)


def test_a_keys_id_is_its_thumbprint() -> None:
    key = generate_token_key()
    assert key.kid == key.thumbprint()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "tokens.pem"
    first = load_or_create_token_key(path)
    assert load_or_create_token_key(path).kid == first.kid
    with pytest.raises(FileExistsError):
        create_token_key(path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.pem"
    create_token_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_token_key(path)


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_token_key(tmp_path / "tokens.pem")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a key",
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ec.generate_private_key(ec.SECP256R1()), b"passphrase"),
    ],
)
def test_what_is_no_plain_p256_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.pem"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="P-256"):
        load_token_key(path)
