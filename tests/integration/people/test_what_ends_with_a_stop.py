"""What people had when they were stopped stays ended, whoever lets them go on (TOK-08)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from gateway.config.settings import Config
from gateway.core.tokens.clients import hash_secret
from tests.conformance.deployment import deploy
from tests.integration.authorize.test_gateway import URL, serving
from tests.unit.people.test_command_line_sign_in import ASKED, REDIRECT, VERIFIER, code_of

pytestmark = pytest.mark.req("TOK-08")

PASSWORD = "correct horse battery staple"


async def configured(folder: Path) -> Config:
    """Olga decides nothing; ada is the admin, otto the operator."""
    humans = [
        {"id": name, "roles": roles, "secret_hash": hash_secret(f"secret-{name}")}
        for name, roles in (("ada", ["admin"]), ("otto", ["operator"]), ("olga", []))
    ]
    return (await deploy(folder, 8099, {}, prefix=False, humans=humans)).config


async def ask(browser: httpx.AsyncClient, by: str, path: str, **body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {by}"}
    return await browser.post(f"/v1/{path}", json=body, headers=headers)


async def sign_in(browser: httpx.AsyncClient) -> str:
    """Sign olga in, in this browser and at a command line, whose credential is returned."""
    code = (await ask(browser, "secret-olga", "sign-in/claims", person="olga")).json()["code"]
    own = {"Origin": URL}
    form = {"code": code, "password": PASSWORD}
    assert (await browser.post("/claim", data=form, headers=own)).status_code == 303
    csrf = re.search(r'name="csrf" value="(\w+)"', (await browser.get("/account")).text)
    assert csrf is not None
    allowed = await browser.post("/signin/cli", data=ASKED | {"csrf": csrf[1]}, headers=own)
    asked = {"client_id": "countersign-cli", "grant_type": "authorization_code"}
    asked |= {"code": code_of(allowed), "code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    return str((await browser.post("/signin/token", data=asked)).json()["access_token"])


async def is_in(browser: httpx.AsyncClient, credential: str) -> tuple[bool, bool]:
    """Return whether the browser, and the command line, are still signed in."""
    page = await browser.get("/account")
    kept = await ask(browser, credential, "users/nobody/suspend")
    return page.status_code == 200, kept.status_code != 401


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [
        (("users/olga/suspend", {}), ("users/olga/resume", {})),
        (
            ("kills", {"kind": "human", "target": "olga", "reason": "lost laptop"}),
            ("kills/lift", {"kind": "human", "target": "olga", "reason": "found"}),
        ),
    ],
    ids=["suspended", "killed"],
)
async def test_a_session_of_before_a_stop_is_over_once_its_person_goes_on(
    tmp_path: Path, stop: tuple[str, dict[str, str]], go_on: tuple[str, dict[str, str]]
) -> None:
    config = await configured(tmp_path)
    async with serving(config) as browser:
        credential = await sign_in(browser)
        assert await is_in(browser, credential) == (True, True)
        for path, body in (stop, go_on):
            assert (await ask(browser, "secret-otto", path, **body)).status_code == 200
            assert await is_in(browser, credential) == (False, False)
        cookies = dict(browser.cookies)
    async with serving(config) as browser:  # the log remembers
        browser.cookies.update(cookies)
        assert await is_in(browser, credential) == (False, False)
