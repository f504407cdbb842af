"""`/v1/policy/releases`, over real files, for people with and without the role (POL-07)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.releases.opa_signature import scope_of, sign_bundle
from gateway.core.releases.release import Release, read_archive, write_archive
from gateway.core.releases.statement import Statement, sign
from gateway.core.tokens.clients import hash_secret
from gateway.http import releases as routes
from gateway.http.app import build_api
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.http.releases import ReleaseAdmin
from tests.integration.releases.ground import KEYS, Ground, begin

pytestmark = pytest.mark.req("POL-07")

PEOPLE = {
    "pia": ("policy_publisher",),
    "paul": ("policy_publisher",),
    "aud": ("auditor",),
    "dana": ("approver",),
}
ROUTE = "/v1/policy/releases"


class Api:
    """The routes, as people with a secret meet them."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        assert ground.gateway is not None
        entries = [HumanEntry(name, roles, hash_secret(name)) for name, roles in PEOPLE.items()]

        async def refuse(_stage: str, _reason: str) -> None:
            return None

        router = ReleaseAdmin(
            desk=ground.desk(),
            admit=build_admit(Humans(entries), refuse),
            status=ground.gateway.status,
        ).router()
        transport = httpx.ASGITransport(build_api([router], "1"))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def get(self, by: str, path: str = "") -> httpx.Response:
        return await self._http.get(ROUTE + path, headers={"Authorization": f"Bearer {by}"})

    async def post(self, by: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        headers = {"Authorization": f"Bearer {by}"}
        return await self._http.post(ROUTE, json=body, headers=headers)

    async def word(self, by: str, release: Release, **over: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return what a publisher sends, for the place that the row is at."""
        head = (await self.get("aud")).json()
        said: dict[str, Any] = {
            "act": "publish",
            "env": head["environment"],
            "log": head["log"],
            "number": head["next"],
            "prev": head["replaces"],
            "rev": release.revision,
        }
        signature = sign_bundle(KEYS[by], release.bundle(), scope=scope_of("prod"))
        return {
            "statement": sign(KEYS[by], Statement(**said | over)),
            "signature": signature,
            "archive": base64.b64encode(write_archive(release)).decode(),
        }


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    ground, _ = await begin(tmp_path)
    yield Api(ground)
    await ground.die()


async def test_two_publishers_publish_over_the_routes(api: Api) -> None:
    second = api.ground.release("second")
    proposed = await api.post("pia", **await api.word("pia", second))
    assert proposed.json() == {"revision": second.revision, "number": 2, "state": "proposed"}
    head = (await api.get("aud")).json()
    assert [one["revision"] for one in head["proposals"]] == [second.revision]
    done = await api.post("paul", **await api.word("paul", second))
    assert done.json() == {"revision": second.revision, "number": 2, "state": "active"}
    head = (await api.get("aud")).json()
    assert (head["active"], head["next"], head["proposals"]) == (second.revision, 3, [])
    assert [(one["number"], one["state"]) for one in head["releases"]] == [
        (2, "active"),
        (1, "superseded"),
    ]
    assert (head["mode"], head["waits_for_restart"]) == ("required", False)


async def test_a_release_is_handed_out_with_a_signature_for_a_stock_opa(api: Api) -> None:
    first = (await api.get("aud")).json()["active"]
    answer = (await api.get("aud", f"/{first}")).json()
    found = read_archive(base64.b64decode(answer["archive"]))
    assert found.release.revision == answer["revision"] == first
    assert found.signature is not None


@pytest.mark.parametrize(("by", "status"), [("dana", 403), ("nobody", 401)])
async def test_who_has_no_role_here_reads_nothing_and_publishes_nothing(
    api: Api, by: str, status: int
) -> None:
    assert (await api.get(by)).status_code == status
    assert (await api.get(by, "/sha256:1")).status_code == status
    assert (await api.post(by, statement="")).status_code == status


async def test_an_auditor_reads_and_does_not_publish(api: Api) -> None:
    refused = await api.post("aud", **await api.word("pia", api.ground.release("second")))
    assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")


async def test_a_publisher_does_not_sign_with_anothers_key(api: Api) -> None:
    refused = await api.post("pia", **await api.word("paul", api.ground.release("second")))
    assert (refused.status_code, refused.json()["code"]) == (403, "release_key_foreign")


@pytest.mark.parametrize(
    ("over", "status", "code"),
    [
        ({"env": "dev"}, 409, "release_elsewhere"),
        ({"number": 1}, 409, "release_stale"),
        ({"prev": ""}, 409, "release_stale"),
        ({"act": "rollback"}, 409, "release_conflict"),
        ({"shadow_s": 60}, 409, "release_no_shadow"),
    ],
)
async def test_a_word_that_does_not_fit_is_refused(
    api: Api, over: dict[str, Any], status: int, code: str
) -> None:
    word = await api.word("pia", api.ground.release("second"), **over)
    refused = await api.post("pia", **word)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"statement": "a.b.c"}, "signature_invalid"),
        ({"signature": ""}, "signature_invalid"),
        ({"signature": "a.b.c"}, "signature_invalid"),
        ({"archive": base64.b64encode(b"x").decode()}, "release_invalid"),
        ({"archive": "!"}, "request_invalid"),
        ({"more": "x"}, "request_invalid"),
        ({"archive": ""}, "release_missing"),
    ],
)
async def test_a_body_that_does_not_hold_what_was_signed_is_refused(
    api: Api, change: dict[str, Any], code: str
) -> None:
    word = await api.word("pia", api.ground.release("second"))
    refused = await api.post("pia", **{**word, **change})
    assert refused.json()["code"] == code
    assert 400 <= refused.status_code < 500
    assert api.ground.records("policy.propose")[1:] == []


async def test_another_archive_than_the_signed_one_is_refused(api: Api) -> None:
    word = await api.word("pia", api.ground.release("second"))
    other = write_archive(api.ground.release("third"))
    refused = await api.post("pia", **{**word, "archive": base64.b64encode(other).decode()})
    assert (refused.status_code, refused.json()["code"]) == (400, "release_invalid")


async def test_a_body_that_is_too_large_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_MAX_BYTES", 1_000)
    refused = await api.post("pia", **await api.word("pia", api.ground.release("second")))
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("revision", ["sha256:" + "0" * 64, "x", "sha256:1"])
async def test_a_release_that_is_not_kept_is_not_found(api: Api, revision: str) -> None:
    refused = await api.get("aud", f"/{revision}")
    assert (refused.status_code, refused.json()["code"]) == (404, "release_missing")


async def test_the_way_back_needs_no_archive(api: Api) -> None:
    head = (await api.get("aud")).json()
    first = head["active"]
    second = api.ground.release("second")
    for by in ("pia", "paul"):
        await api.post(by, **await api.word(by, second))
    for by, state in (("pia", "proposed"), ("paul", "active")):
        word = await api.word(by, second, rev=first, act="rollback")
        done = await api.post(by, statement=word["statement"])
        assert done.json()["state"] == state
    assert (await api.get("aud")).json()["active"] == first
