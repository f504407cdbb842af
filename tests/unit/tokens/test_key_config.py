"""How token keys are configured, and that mistakes are told with the place where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import Config, load_config
from gateway.core.errors import ConfigurationError
from gateway.wiring.keys import find_ring

pytestmark = pytest.mark.req("TOK-07")


def load(folder: Path, tokens: str) -> Config:
    (folder / "policies").mkdir()
    path = folder / "countersign.yaml"
    path.write_text(f"tokens: {{{tokens}}}\n")
    return load_config(path, {})


def test_by_default_the_gateway_makes_its_keys_and_the_ring_is_beside_them(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert (config.tokens.keys, config.tokens.key_max_age_h) == ((), 720)
    assert find_ring(config.tokens) == tmp_path / "keys" / "tokens.ring.json"


def test_the_ring_may_be_elsewhere(tmp_path: Path) -> None:
    config = load(tmp_path, "ring: state/ring.json")
    assert find_ring(config.tokens) == tmp_path / "state" / "ring.json"


def test_sources_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    pkcs11 = "pkcs11:token=t;object=o?module-path=/m.so"
    config = load(tmp_path, f'keys: [file:k.pem, file:/k.pem, dir:keys, env:KEY, "{pkcs11}"]')
    assert config.tokens.keys == (
        f"file:{tmp_path}/k.pem",
        "file:/k.pem",
        f"dir:{tmp_path}/keys",
        "env:KEY",
        pkcs11,
    )


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("keys/tokens.pem", "it is no key source; there are `file:PATH`, `env:NAME`"),
        ("env:", "needs the name of a variable"),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-value=pin-canary",
            "a PIN does not stand in the",
        ),
    ],
)
def test_a_source_that_cannot_be_is_told_with_its_place(
    tmp_path: Path, uri: str, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, f'keys: [env:KEY, "{uri}"]')
    assert "countersign.yaml:1: tokens.keys[1]: " in str(caught.value)
    assert told in str(caught.value)
    assert "canary" not in str(caught.value)
