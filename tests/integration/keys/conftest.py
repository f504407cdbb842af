from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.keys.hsm import SoftHsm, find_library


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token `gateway` with the key `one`."""
    found = SoftHsm(tmp_path / "hsm", find_library())
    monkeypatch.setenv("SOFTHSM2_CONF", str(found.conf))
    found.make_token()
    found.put("one")
    return found
