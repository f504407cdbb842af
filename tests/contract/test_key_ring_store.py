"""What every store of the ring of token keys promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.keys.key_ring_file import KeyRingFile, KeyRingStore, MemoryKeyRing
from gateway.core.tokens import key_ring
from gateway.core.tokens.key_ring import KeyRing

pytestmark = pytest.mark.req("TOK-07")

PUBLIC = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
EMPTY = KeyRing(environment="test")
ONE = key_ring.add(EMPTY, kid="k", source="env:K", public=PUBLIC, now_s=7, own=False)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyRingStore:
    if request.param == "memory":
        return MemoryKeyRing()
    return KeyRingFile(tmp_path / "keys" / "ring.json", environment="test")


def test_at_first_there_is_no_ring(store: KeyRingStore) -> None:
    assert store.load() is None


def test_a_ring_is_loaded_as_it_was_saved_last(store: KeyRingStore) -> None:
    for ring in (EMPTY, ONE, key_ring.promote(ONE, "k", 8)):
        store.save(ring)
        assert store.load() == ring


def test_a_ring_is_for_its_owner_only_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ring.json"
    KeyRingFile(path, environment="test").save(ONE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRingFile(path, environment="test").load() == ONE
