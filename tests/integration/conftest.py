"""What every integration test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.idp.provider import Idp, running_idp


@pytest.fixture(scope="session")
def idp() -> Iterator[Idp]:
    """A real identity provider (npm `oidc-provider`) on loopback, one for the whole session.

    The test that asks needs `@pytest.mark.network`.
    """
    with running_idp() as provider:
        yield provider
