"""What a command says where the gateway is at fault, and not who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI

from gateway.http.problem import problem

if TYPE_CHECKING:
    from tests.integration.approvals.conftest import Gateway

pytestmark = [pytest.mark.network, pytest.mark.req("GW-12")]


async def test_what_a_gateway_cannot_do_is_told_with_its_code_and_what_to_do(
    gateway: Gateway,
) -> None:
    full = FastAPI()
    told = problem(503, "audit_overloaded", "this could not be completed", "try again later")
    full.add_api_route("/v1/approvals", lambda: told)
    async with gateway.serve(full) as url:
        ended = await gateway.cli("ann", "list", COUNTERSIGN_URL=url)
    assert (ended.exit_code, ended.stderr) == (
        1,
        "error: this could not be completed (audit_overloaded); try again later\n",
    )
