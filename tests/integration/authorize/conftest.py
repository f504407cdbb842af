"""What stands behind the gateways whose pages of consent are tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.run import started


@pytest.fixture(scope="session")
def upstream() -> Iterator[str]:
    """The URL of the conformance suite's own server, which is the same to all that call it."""
    with started("fixture_server") as url:
        yield url
