"""Codes, refresh tokens and apps outlive the gateway, and each is used up once."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from gateway.adapters.state.sql_authorizations import KEPT_S, SqlAuthorizations
from gateway.adapters.state.sql_store import SqlState
from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import Code, Consent, Refresh
from gateway.core.tokens.token import Constraint, Grant

NOW_S = 1_800_000_000
CONSENT = Consent(
    client_id="editor",
    redirect_uri="http://127.0.0.1/cb",
    challenge="c" * 43,
    resource="https://gateway.test/mcp",
    scopes=("tools:call",),
    agent="bot",
    person="ann",
    grants=(Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3),),
    expires_at=NOW_S + 60,
    deadline=NOW_S + 28_800,
    jkt="k",
)
CODE = Code(code_hash="sha256:code", consent=CONSENT)
REFRESH = Refresh(
    token_hash="sha256:one",
    run_id="run",
    client_id="editor",
    scopes=("tools:call",),
    resource="https://gateway.test/mcp",
    expires_at=NOW_S + 28_800,
)


async def opened(folder: Path) -> tuple[SqlState, SqlAuthorizations]:
    state = SqlState(f"sqlite:///{folder}/state.db")
    await state.open(environment="test", log_origin="test")
    return state, SqlAuthorizations(state)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    app = App(id="dyn~1", name="A", agent="bot", redirect_uris=("http://localhost/",), grants=())
    state, store = await opened(tmp_path)
    await store.put_code(CODE)
    await store.put_refresh(REFRESH)
    assert await store.put_app(app, at=NOW_S, most=1)
    await state.close()
    state, store = await opened(tmp_path)
    assert await store.get_code("sha256:code") == CODE
    assert await store.get_refresh("sha256:one") == REFRESH
    assert await store.find_apps() == [app]
    assert not await store.put_app(replace(app, id="dyn~2"), at=NOW_S, most=1)
    await state.close()


async def test_a_code_is_redeemed_once(tmp_path: Path) -> None:
    state, store = await opened(tmp_path)
    await store.put_code(CODE)
    assert await store.redeem_code("sha256:code", "run-1")
    assert not await store.redeem_code("sha256:code", "run-2")
    assert not await store.redeem_code("sha256:other", "run-3")
    found = await store.get_code("sha256:code")
    assert found is not None
    assert found.run_id == "run-1"
    await state.close()


async def test_a_refresh_token_gives_way_once(tmp_path: Path) -> None:
    state, store = await opened(tmp_path)
    await store.put_refresh(REFRESH)
    assert await store.rotate_refresh("sha256:one", replace(REFRESH, token_hash="sha256:two"))
    assert not await store.rotate_refresh("sha256:one", replace(REFRESH, token_hash="sha256:3"))
    old, new = await store.get_refresh("sha256:one"), await store.get_refresh("sha256:two")
    assert old is not None
    assert new is not None
    assert (old.spent, new.spent) == (True, False)
    assert await store.get_refresh("sha256:3") is None
    await state.close()


async def test_what_is_long_over_is_forgotten(tmp_path: Path) -> None:
    state, store = await opened(tmp_path)
    await store.put_code(CODE)
    later = replace(CONSENT, expires_at=CONSENT.expires_at + KEPT_S)
    await store.put_code(Code(code_hash="sha256:same", consent=later))
    assert await store.get_code("sha256:code") is not None
    much_later = replace(CONSENT, expires_at=CONSENT.expires_at + KEPT_S + 1)
    await store.put_code(Code(code_hash="sha256:next", consent=much_later))
    assert await store.get_code("sha256:code") is None
    await state.close()
