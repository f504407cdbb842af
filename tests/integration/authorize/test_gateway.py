"""The page of consent in a whole gateway: sessions, the log, and what is known after a restart."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_verify import verify
from gateway.config.settings import Config, load_config
from gateway.core.tokens.clients import hash_secret
from gateway.wiring.gateway import Gateway
from tests.conformance.deployment import AGENT, deploy

pytestmark = [pytest.mark.req("TOK-02"), pytest.mark.network]

URL = "http://127.0.0.1:8099"  # nobody listens: requests are handed to the application itself
BACK = "http://127.0.0.1:3000/callback"
VERIFIER = "v" * 43
PASSWORD = "correct horse battery staple"


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway; yield a browser at it."""
    gateway = Gateway(config)
    await gateway.start()
    try:
        transport = httpx.ASGITransport(app=gateway.app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=URL) as browser:
            yield browser
    finally:
        await gateway.stop()


async def configured(folder: Path, upstream: str) -> Config:
    grants = [{"server": "fixture"}]
    app = {
        "kind": "app",
        "id": "editor",
        "agent": AGENT,
        "redirect_uris": [BACK],
        "grants": grants,
        "owner": "lars",
    }
    documents = {"agent": AGENT, "grants": grants}
    oauth = {"client_id_metadata_documents": documents, "dynamic_registration": True}
    made = await deploy(folder, 8099, {"fixture": upstream}, prefix=False, apps=[app], oauth=oauth)
    return made.config


def query(**changes: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    asked = {
        "response_type": "code",
        "client_id": "editor",
        "redirect_uri": BACK,
        "state": "s",
        "code_challenge": challenge.decode().rstrip("="),
        "code_challenge_method": "S256",
        "resource": f"{URL}/mcp",
    }
    return urlencode(asked | changes)


async def claim(browser: httpx.AsyncClient, said: str) -> None:
    """Become the first admin, who is then signed in."""
    code = re.search(r"/claim\?code=([\w-]+)", said)
    assert code is not None
    form = {"code": code[1], "person": "ann", "password": PASSWORD}
    reply = await browser.post("/claim", data=form, headers={"Origin": URL})
    assert reply.status_code == 303, reply.text


async def answer(browser: httpx.AsyncClient, origin: str, **changes: str) -> httpx.Response:
    """Open the page and answer it, as a page of `origin` would."""
    page = await browser.get(f"/oauth/authorize?{query()}")
    csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert csrf is not None, page.text
    form = {"csrf": csrf[1], "request": query(), "decision": "allow", "keep.fixture.update": "on"}
    headers = {"Origin": origin}
    return await browser.post("/oauth/authorize", data=form | changes, headers=headers)


async def test_a_consent_is_a_run_on_behalf_of_the_person(
    tmp_path: Path, upstream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await configured(tmp_path, upstream)
    async with serving(config) as browser:
        await claim(browser, capsys.readouterr().err)
        # Another site's page cannot answer, nor one that has no token of this session.
        assert (await answer(browser, "https://evil.example")).status_code == 403
        assert (await answer(browser, "null")).status_code == 403
        assert (await answer(browser, URL, csrf="0" * 64)).status_code == 403
        reply = await answer(browser, URL)
        back = dict(parse_qsl(urlsplit(reply.headers["location"]).query))
        assert (back["state"], back["iss"]) == ("s", URL)
        form = {
            "grant_type": "authorization_code",
            "code": back["code"],
            "client_id": "editor",
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
        }
        issued = (await browser.post("/oauth/token", data=form)).json()
        token = {"Authorization": f"Bearer {issued['access_token']}"}
        call = await browser.post("/v1/tools/fixture.test_simple_text/calls", headers=token)
        listed = await browser.get("/v1/tools", headers=token)
    assert listed.status_code == 200
    assert call.status_code in (200, 404)
    report = verify(tmp_path / "audit", every_signature=True)
    assert report.valid, report.findings
    found: dict[str, Any] = {one["type"]: one for one in read_records(tmp_path / "audit")}
    assert found["authorization.grant"]["narrowed"] is True
    assert found["authorization.refused"]["reason"] == "form_foreign"
    assert found["run.create"]["client"] == "editor"
    assert found["token.issue"]["allow"] == [
        {"server": "fixture", "tool": "*", "effects": ["update"]}
    ]
    log = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert b'"ann"' not in log
    assert back["code"].encode() not in log


async def test_an_app_that_registered_itself_is_known_after_a_restart(
    tmp_path: Path, upstream: str
) -> None:
    config = await configured(tmp_path, upstream)
    async with serving(config) as browser:
        body = {"redirect_uris": [BACK], "token_endpoint_auth_method": "none"}
        made = (await browser.post("/oauth/register", json=body)).json()["client_id"]
        assert (await browser.get(f"/oauth/authorize?{query(client_id='nobody')}")).is_error
    async with serving(config) as browser:
        path = f"/oauth/authorize?{query(client_id=made)}"
        reply = await browser.get(path)
        assert reply.status_code == 303
        assert reply.headers["location"] == f"/signin?next={quote(path, safe='')}"
        said = (await browser.get("/.well-known/oauth-authorization-server")).json()
    assert said["registration_endpoint"] == f"{URL}/oauth/register"
    assert {"authorization_code", "refresh_token"} <= set(said["grant_types_supported"])
    assert said["client_id_metadata_document_supported"] is False


async def refreshable(browser: httpx.AsyncClient) -> dict[str, str]:
    """Sign ann in, who lets an app act for her; return how it goes on."""
    known = {"Authorization": "Bearer secret-ann"}
    made = await browser.post("/v1/sign-in/claims", json={"person": "ann"}, headers=known)
    form = {"code": made.json()["code"], "password": PASSWORD}
    await browser.post("/claim", data=form, headers={"Origin": URL})
    back = dict(parse_qsl(urlsplit((await answer(browser, URL)).headers["location"]).query))
    public = {"client_id": "editor"}
    form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": BACK}
    form |= public | {"code_verifier": VERIFIER}
    issued = (await browser.post("/oauth/token", data=form)).json()
    return public | {"grant_type": "refresh_token", "refresh_token": issued["refresh_token"]}


async def test_an_app_acts_no_more_for_somebody_who_has_left_the_file(
    tmp_path: Path, upstream: str
) -> None:
    await configured(tmp_path, upstream)
    path = tmp_path / "countersign.yaml"
    without = json.loads(path.read_text())
    humans = [{"id": "ann", "roles": [], "secret_hash": hash_secret("secret-ann")}]
    path.write_text(json.dumps(without | {"humans": humans}))
    async with serving(load_config(path, {})) as browser:
        again = await refreshable(browser)
    path.write_text(json.dumps(without))
    async with serving(load_config(path, {})) as browser:
        refused = await browser.post("/oauth/token", data=again)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    path.write_text(json.dumps(without | {"humans": humans}))
    async with serving(load_config(path, {})) as browser:  # a slip of the pen costs nobody anything
        assert (await browser.post("/oauth/token", data=again)).status_code == 200


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [
        (("users/ann/suspend", {}), ("users/ann/resume", {})),
        (
            ("kills", {"kind": "human", "target": "ann", "reason": "lost laptop"}),
            ("kills/lift", {"kind": "human", "target": "ann", "reason": "found"}),
        ),
    ],
    ids=["suspended", "killed"],
)
async def test_what_was_consented_to_before_a_stop_is_over_once_its_person_goes_on(
    tmp_path: Path,
    upstream: str,
    stop: tuple[str, dict[str, str]],
    go_on: tuple[str, dict[str, str]],
) -> None:
    await configured(tmp_path, upstream)
    path = tmp_path / "countersign.yaml"
    humans = [
        {"id": name, "roles": roles, "secret_hash": hash_secret(f"secret-{name}")}
        for name, roles in (("ann", []), ("otto", ["operator"]))
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"humans": humans}))
    async with serving(load_config(path, {})) as browser:
        again = await refreshable(browser)
        first = (await browser.post("/oauth/token", data=again)).json()
        for where, body in (stop, go_on):
            known = {"Authorization": "Bearer secret-otto"}
            done = await browser.post(f"/v1/{where}", json=body, headers=known)
            assert done.status_code == 200
        later = again | {"refresh_token": first["refresh_token"]}
        refused = await browser.post("/oauth/token", data=later)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
