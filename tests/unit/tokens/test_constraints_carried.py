"""Bounds on their way: from a run's body into its token, with none lost or unheard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from gateway.core.errors import CredentialError
from gateway.core.tokens import jwt_claims
from gateway.core.tokens.token import Claims, Constraint, Grant, Range, Window

if TYPE_CHECKING:
    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("TOK-03")

READ: Final = {"server": "shop", "effects": ["read"]}
BOUNDS: Final = {
    "/to": {"domain": ["acme.example", "*.acme.example"], "prefix": "https://", "suffix": "/"},
    "/note": {"length": {"max": 200}},
    "/items": {"count": {"min": 1, "max": 3}},
}
WINDOW: Final = {"days": ["mon", "fri"], "start": "22:00", "end": "06:00", "not_before": 5}
LIMITED: Final = {**READ, "constraints": BOUNDS, "window": WINDOW}
GRANT: Final = Grant(
    "shop",
    "*",
    ("read",),
    {
        "/to": Constraint(domain=("acme.example", "*.acme.example"), prefix="https://", suffix="/"),
        "/note": Constraint(length=Range(max=200)),
        "/items": Constraint(count=Range(1, 3)),
    },
    window=Window(("mon", "fri"), "22:00", "06:00", not_before=5),
)


async def test_every_bound_of_a_run_is_in_its_token_and_its_view(world: World) -> None:
    launched = (await world.launch(grants=[LIMITED])).json()
    token = (await world.token(launched["run_id"], launched["run_credential"])).json()
    claims = world.verifier.verify(token["access_token"].encode(), world.clock.now_s)
    assert claims.grants == (GRANT,)
    auth = ("workflow", "workflow-secret")
    (shown,) = (await world.client.get(f"/v1/runs/{launched['run_id']}", auth=auth)).json()[
        "grants"
    ]
    assert (shown["constraints"], shown["window"]) == (BOUNDS, WINDOW)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"constraints": {"/to": {"domain": ["Acme.example"]}}}, "`Acme.example` is no domain"),
        ({"constraints": {"/to": {"domain": "acme.example"}}}, "Expected `array | null`"),
        ({"constraints": {"/to": {"domian": ["acme.example"]}}}, "unknown field `domian`"),
        ({"constraints": {"/to": {"length": {"min": -1}}}}, "`length` is negative"),
        ({"constraints": {"/to": {"length": {"mni": 1}}}}, "unknown field `mni`"),
        ({"constraints": {"/to": {"count": {"max": True}}}}, "Expected `int | null`"),
        ({"window": {"days": ["monday"]}}, "`monday` is no day"),
        ({"window": {"start": "25:00"}}, "`25:00` is no time"),
        ({"window": {"from": "08:00"}}, "unknown field `from`"),
    ],
)
async def test_a_run_with_an_unclear_bound_is_refused(
    world: World, change: dict[str, Any], told: str
) -> None:
    reply = await world.launch(grants=[{**READ, **change}])
    assert reply.status_code == 400
    assert told in reply.json()["detail"]


def test_a_token_with_a_bound_that_nobody_knows_is_refused(
    make_claims: Callable[..., Claims],
) -> None:
    payload = jwt_claims.encode(make_claims(grants=(GRANT,)))
    assert jwt_claims.decode(msgspec.json.encode(payload))[0].grants == (GRANT,)
    (detail,) = payload["authorization_details"]
    for change in (
        {"window": {**detail["window"], "timezone": "Europe/Berlin"}},
        {"constraints": {"/to": {"regex": ".*"}}},
        {"constraints": {"/to": {"length": {"max": 2, "unit": "bytes"}}}},
        {"further": 1},
    ):
        changed = {**payload, "authorization_details": [{**detail, **change}]}
        with pytest.raises(CredentialError):
            jwt_claims.decode(msgspec.json.encode(changed))
