"""A state put back from a backup revives no sign-in, no claim and no refresh token (GW-18)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.config.settings import Config
from gateway.wiring.gateway import Gateway
from tests.integration.authorize.test_gateway import (
    BACK,
    URL,
    VERIFIER,
    answer,
    claim,
    configured,
    serving,
)

pytestmark = [pytest.mark.req("GW-18", "TOK-02"), pytest.mark.network]


class Backup:
    """The state's files, as they were when this was made."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept = folder, folder / "kept"
        self._kept.mkdir()
        for file in folder.glob("state.db*"):
            shutil.copy(file, self._kept)

    def put_back(self) -> None:
        for file in self._folder.glob("state.db*"):
            file.unlink()
        for file in self._kept.iterdir():
            shutil.copy(file, self._folder)


async def sign_out(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/account")
    csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert csrf is not None
    cookies = dict(browser.cookies)
    reply = await browser.post("/signout", data={"csrf": csrf[1]}, headers={"Origin": URL})
    assert reply.status_code == 303
    browser.cookies.update(cookies)  # somebody kept a copy


async def is_in(browser: httpx.AsyncClient) -> bool:
    return (await browser.get("/account")).status_code == 200


async def ask(browser: httpx.AsyncClient, **form: str) -> dict[str, Any]:
    reply = await browser.post("/oauth/token", data={"client_id": "editor", **form})
    told: dict[str, Any] = reply.json()
    return told


async def consent(browser: httpx.AsyncClient) -> str:
    """Let the app act; return its refresh token."""
    back = dict(parse_qsl(urlsplit((await answer(browser, URL)).headers["location"]).query))
    code = {"grant_type": "authorization_code", "code": back["code"]}
    issued = await ask(browser, **code, redirect_uri=BACK, code_verifier=VERIFIER)
    return str(issued["refresh_token"])


async def refresh(browser: httpx.AsyncClient, token: str) -> str:
    told = await ask(browser, grant_type="refresh_token", refresh_token=token)
    return str(told.get("refresh_token") or told["error"])


def warnings(logs: list[Any]) -> list[str]:
    names = {"signed_out_everybody", "refresh_tokens_ended"}
    return [one["event"] for one in logs if one["event"] in names]


async def signed_in(config: Config, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Sign in and let an app act; return the cookies and the refresh token."""
    async with serving(config) as browser:
        await claim(browser, capsys.readouterr().err)
        token = await consent(browser)
        return dict(browser.cookies), token


async def test_a_session_that_was_ended_is_not_revived(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await configured(tmp_path, upstream)
    cookies, token = await signed_in(config, capsys)
    backup = Backup(tmp_path)
    async with serving(config) as browser:
        browser.cookies.update(cookies)
        await sign_out(browser)
        assert not await is_in(browser)
    backup.put_back()
    with capture_logs() as logs:
        async with serving(config) as browser:
            browser.cookies.update(cookies)
            assert not await is_in(browser)
            assert await refresh(browser, token) == "invalid_grant"
    assert warnings(logs) == ["signed_out_everybody"]


async def test_a_refresh_token_that_was_used_is_not_revived_and_people_stay_in(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await configured(tmp_path, upstream)
    cookies, first = await signed_in(config, capsys)
    backup = Backup(tmp_path)
    async with serving(config) as browser:
        second = await refresh(browser, first)
        assert second != "invalid_grant"
    backup.put_back()
    with capture_logs() as logs:
        async with serving(config) as browser:
            browser.cookies.update(cookies)
            assert await refresh(browser, first) == "invalid_grant"
            assert await is_in(browser)
    assert warnings(logs) == ["refresh_tokens_ended"]


async def test_a_crash_soon_after_signs_nobody_out_who_was_in(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the disk holds once the state was kept is what a crash then leaves."""
    config = await configured(tmp_path, upstream)
    cookies, token = await signed_in(config, capsys)
    gateway = Gateway(config)
    await gateway.start()
    transport = httpx.ASGITransport(app=gateway.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=URL) as browser:
        browser.cookies.update(cookies)
        token = await refresh(browser, token)
        page = await browser.get("/account")
        csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
        assert csrf is not None
        path, form = "/account/sessions/end", {"csrf": csrf[1]}
        ended = await browser.post(path, data=form, headers={"Origin": URL})
        assert ended.status_code == 303
        await gateway._keep_up()  # noqa: SLF001 - the turn that comes each second
        token = await refresh(browser, token)  # that one only the log knows of
    crashed = Backup(tmp_path)
    await gateway.stop()
    crashed.put_back()
    with capture_logs() as logs:
        async with serving(config) as browser:
            browser.cookies.update(cookies)
            assert await is_in(browser)
            assert await refresh(browser, token) != "invalid_grant"
    assert warnings(logs) == []
