from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from gateway.cli.runs import app

if TYPE_CHECKING:
    from tests.integration.approvals.conftest import Gateway

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-01")]


@pytest.mark.parametrize("more", [True, False])
async def test_a_list_of_runs_that_is_not_whole_says_so(*, more: bool, gateway: Gateway) -> None:
    run = {"run_id": "r1", "agent": "bot", "launcher": "lars", "on_behalf_of": None}
    told: dict[str, Any] = {**run, "state": "active", "deadline": 1, "outcome": ""}
    api = FastAPI()
    api.add_api_route("/v1/runs", lambda: {"runs": [told], "more": more})
    async with gateway.serve(api) as url:
        given = {"COUNTERSIGN_URL": url, "COUNTERSIGN_TOKEN": "t"}
        listed = await asyncio.to_thread(CliRunner().invoke, app, ["list"], env=given)
    assert listed.exit_code == 0
    assert ("older ones are left out" in listed.stderr) is more
    assert "older" not in listed.stdout
