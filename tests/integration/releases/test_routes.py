"""`/v1/policy/releases`, over real files, for people with and without the role (POL-07)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.approvals.sessions import CREDENTIAL_PREFIX, SignedIn
from gateway.core.records import impact_told
from gateway.core.records.impact import Impact
from gateway.core.releases.opa_signature import scope_of, sign_bundle
from gateway.core.releases.publisher_keys import public_of
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

    def __init__(
        self, ground: Ground, *, step_up_s: int = 0, acr: str = "", age_s: int = 0
    ) -> None:
        self.ground = ground
        assert ground.gateway is not None
        entries = [HumanEntry(name, roles, hash_secret(name)) for name, roles in PEOPLE.items()]

        async def refuse(_stage: str, _reason: str) -> None:
            return None

        async def signed_in(secret: str) -> SignedIn | None:
            name = secret.removeprefix(CREDENTIAL_PREFIX)
            proved_at = ground.clock.now_ns() // 1_000_000_000 - age_s
            return SignedIn(
                person=name,
                sid="s",
                auth_time=proved_at,
                acr=acr,
                amr=(),
                csrf="",
                expires_at=proved_at + 1,
            )

        self._prefix = CREDENTIAL_PREFIX if acr else ""
        router = ReleaseAdmin(
            desk=ground.desk(),
            admit=build_admit(Humans(entries), refuse, signed_in),
            status=ground.gateway.status,
            step_up_s=step_up_s,
        ).router()
        transport = httpx.ASGITransport(build_api([router], "1"))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def get(self, by: str, path: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._prefix}{by}"}
        return await self._http.get(ROUTE + path, headers=headers)

    async def post(self, by: str, path: str = "", **body: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        headers = {"Authorization": f"Bearer {self._prefix}{by}"}
        return await self._http.post(ROUTE + path, json=body, headers=headers)

    async def withdraw(self, by: str, release: Release, **over: Any) -> httpx.Response:  # noqa: ANN401
        word = await self.word(by, release, act="withdraw", **over)
        return await self.post(by, "/withdrawals", statement=word["statement"])

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
    assert proposed.json() == {
        "revision": second.revision,
        "number": 2,
        "state": "proposed",
        "impact": None,
    }
    head = (await api.get("aud")).json()
    assert [one["revision"] for one in head["proposals"]] == [second.revision]
    done = await api.post("paul", **await api.word("paul", second))
    assert (done.json()["number"], done.json()["state"]) == (2, "active")
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


async def test_a_proposal_is_withdrawn_by_another_publisher_and_never_decides(api: Api) -> None:
    second = api.ground.release("second")
    word = await api.word("pia", second)
    await api.post("pia", **word)
    done = await api.withdraw("paul", second)
    assert (done.status_code, done.json()["state"]) == (200, "withdrawn")
    head = (await api.get("aud")).json()
    assert head["proposals"] == []
    assert [(one["revision"], one["again"]) for one in head["withdrawn"]] == [(second.revision, 0)]
    for by, body in (("pia", word), ("paul", await api.word("paul", second))):
        refused = await api.post(by, **body)
        assert (refused.status_code, refused.json()["code"]) == (409, "release_withdrawn")
    for by, state in (("pia", "proposed"), ("paul", "active")):
        done = await api.post(by, **await api.word(by, second, again=1))
        assert done.json()["state"] == state
    head = (await api.get("aud")).json()
    assert head["withdrawn"] == []  # the next place in the row; what was stays told
    [told] = head["withdrawals"]
    assert (told["revision"], told["number"], told["action"]) == (second.revision, 2, "withdraw")
    assert told["key"] == public_of(KEYS["paul"]).kid
    [record] = api.ground.records("policy.withdraw")
    assert told["at"] == record["ts"] // 1_000_000
    assert (record["release"], record["number"], record["action"]) == (
        second.revision,
        2,
        "withdraw",
    )
    assert "paul" not in str(record)


async def test_what_does_not_wait_is_not_withdrawn_nor_by_a_stranger(api: Api) -> None:
    second = api.ground.release("second")
    refused = await api.withdraw("paul", second)
    assert (refused.status_code, refused.json()["code"]) == (409, "release_conflict")
    await api.post("pia", **await api.word("pia", second))
    word = await api.word("paul", second, act="withdraw")
    for by, code in (("aud", "role_missing"), ("pia", "release_key_foreign")):
        refused = await api.post(by, "/withdrawals", statement=word["statement"])
        assert (refused.status_code, refused.json()["code"]) == (403, code)
    broken = await api.post("paul", "/withdrawals", statement="a.b.c")
    assert broken.json()["code"] == "signature_invalid"
    assert len((await api.get("aud")).json()["proposals"]) == 1


async def test_who_publishes_and_whose_key_is_whose_is_told(api: Api) -> None:
    told = (await api.get("aud")).json()["publishers"]
    assert {one["id"]: one["key"] for one in told} == {
        name: public_of(key).kid for name, key in KEYS.items()
    }


async def test_who_comes_second_names_the_impact_that_they_were_shown(api: Api) -> None:
    second = api.ground.release("second")
    whole = impact_told.describe(Impact(), second.revision)
    assert api.ground.gateway is not None
    told = impact_told.summarize(whole)
    api.ground.gateway.store.save_impact(told["digest"], impact_told.write(whole))
    api.ground.impact = told
    proposed = await api.post("pia", **await api.word("pia", second))
    assert proposed.json()["impact"] == told
    [waiting] = (await api.get("aud")).json()["proposals"]
    assert waiting["impact"] == told
    assert api.ground.records("policy.propose")[-1]["impact"] == told
    word = await api.word("paul", second)
    for seen in ({}, {"seen": "sha256:" + "0" * 64}):
        refused = await api.post("paul", **word, **seen)
        assert (refused.status_code, refused.json()["code"]) == (409, "release_unseen")
    assert (await api.get("aud", f"/impacts/{told['digest']}")).json() == whole
    done = await api.post("paul", **word, seen=told["digest"])
    assert done.json()["state"] == "active"
    assert api.ground.records("policy.publish")[-1]["impact"] == told


@pytest.mark.parametrize("digest", ["x", "sha256:" + "0" * 64])
async def test_an_impact_that_is_not_kept_or_was_changed_is_not_shown(
    api: Api, digest: str
) -> None:
    assert (await api.get("aud", f"/impacts/{digest}")).status_code == 404
    assert (await api.get("dana", f"/impacts/{digest}")).status_code == 403
    assert api.ground.gateway is not None
    store = api.ground.gateway.store
    altered = "sha256:" + "1" * 64
    store.save_impact(altered, b"{}")
    assert (await api.get("aud", f"/impacts/{altered}")).status_code == 404


@pytest.mark.parametrize(
    ("acr", "age_s", "allowed"),
    [
        ("strong", 900, True),
        ("strong", 901, False),
        ("session", 0, False),
        ("unheard_of", 0, False),
        ("", 0, False),
    ],
)
async def test_publishing_and_withdrawing_take_a_strong_sign_in_of_late(
    tmp_path: Path, acr: str, age_s: int, *, allowed: bool
) -> None:
    ground, _ = await begin(tmp_path)
    api = Api(ground, step_up_s=900, acr=acr, age_s=age_s)
    second = ground.release("second")
    done = await api.post("pia", **await api.word("pia", second))
    withdrawn = await api.withdraw("pia", second)
    if allowed:
        assert done.json()["state"] == "proposed"
        assert withdrawn.json()["state"] == "withdrawn"
    else:
        for refused in (done, withdrawn):
            assert (refused.status_code, refused.json()["code"]) == (401, "step_up_required")
            assert "insufficient_user_authentication" in refused.headers["WWW-Authenticate"]
            assert "login --strong" in refused.json()["detail"]
        assert ground.records("policy.propose")[1:] == []
    assert (await api.get("aud")).status_code == 200  # reading asks for nothing more
    await ground.die()
