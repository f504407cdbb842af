"""`/openapi.json` says what the gateway does: a program that believes it gets along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import pytest
from fastapi.openapi.models import OpenAPI

from gateway.core.tokens.clients import hash_secret
from tests.e2e.conftest import Build, Start
from tests.e2e.served import Served
from tests.e2e.site import secret_of

pytestmark = pytest.mark.req("GW-07")

Json = dict[str, Any]
BROKEN = b'{"broken"'


class Operation(NamedTuple):
    method: str
    path: str
    said: Json

    @property
    def place(self) -> str:
        """Its path, with names that nothing has or can have."""
        return self.path.replace("{server}", "0").replace("{", "").replace("}", "")

    @property
    def reads_json(self) -> bool:
        return "application/json" in self.said.get("requestBody", {}).get("content", {})


@pytest.fixture(scope="module")
def document(house: Served) -> Json:
    document: Json = house.http.get("/openapi.json").json()
    return document


def operations(document: Json) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield Operation(method.upper(), path, said)


def test_it_is_a_document_of_that_kind(document: Json) -> None:
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1.")
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.validator_for({**schema, "components": document["components"]})


def test_each_body_that_is_read_is_described_and_no_other(
    build_site: Build, start: Start, document: Json
) -> None:
    roles = ["admin", "approver", "auditor", "operator"]
    root = {"id": "root", "roles": roles, "secret_hash": hash_secret(secret_of("root"))}
    served = start(build_site(urls={}, humans=[root]), step="never").wait_ready()
    people = {"Authorization": f"Bearer {secret_of('root')}"}
    found = {True: 0, False: 0}
    for asked in operations(document):
        if asked.method == "GET" or not asked.path.startswith("/v1/") or "call" in asked.path:
            continue
        reply = served.http.request(asked.method, asked.place, content=BROKEN, headers=people)
        if reply.json().get("code") in {"client_invalid", "role_missing", "step_up_required"}:
            continue
        assert (reply.json().get("code") == "body_invalid") is asked.reads_json, asked.path
        found[asked.reads_json] += 1
    assert found[True] >= 25
    assert found[False] >= 5


def test_strangers_are_told_of_as_described_whatever_they_ask(
    house: Served, document: Json
) -> None:
    with httpx.Client(base_url=house.site.url, trust_env=False, timeout=30) as stranger:
        for asked in operations(document):
            reply = stranger.request(asked.method, asked.place, content=BROKEN)
            failed = reply.status_code >= httpx.codes.BAD_REQUEST
            optional = not asked.said["security"] or {} in asked.said["security"]
            assert failed or optional, asked.path
            if not failed:
                continue
            ((media_type, content),) = asked.said["responses"]["default"]["content"].items()
            assert reply.headers["content-type"].startswith(media_type), asked.path
            whole = {**content["schema"], "components": document["components"]}
            jsonschema_rs.validate(whole, reply.json())


def test_the_agents_paths_are_described(house: Served, document: Json) -> None:
    agent = house.agent()
    described = document["paths"]["/v1/tools/{name}/call"]["post"]["requestBody"]["content"]
    whole = {**described["application/json"]["schema"], "components": document["components"]}
    for body, fits in (({"arguments": {"value": "a"}}, True), ({"args": {}}, False)):
        assert jsonschema_rs.is_valid(whole, body) is fits
        reply = house.http.post("/v1/tools/stub__echo/call", json=body, headers=agent.auth)
        assert (reply.status_code == httpx.codes.OK) is fits
    assert house.http.get("/v1/tools", headers=agent.auth).status_code == httpx.codes.OK
