"""Any sequence of requests by one admin: nothing that takes two people happens (TOK-08)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.people.registry import SENSITIVE, Person
from gateway.core.tokens.clients import hash_secret
from tests.effort import share
from tests.unit.registry.desk import Desk, human, secret_of

NAMES = st.sampled_from(["ada", "Ada", "alan", "ann", "tim", "zoe"])
ROLES = st.sampled_from(["admin", "approver", "auditor"])
PAIRS = st.sampled_from(
    [("alan", "admin"), ("ann", "approver"), ("tim", "admin"), ("tim", "auditor"), ("zoe", "admin")]
)
STEPS = st.sampled_from(["suspend", "resume", "retire"])
OF_FILE = (human("ada", "admin"),)
REGISTERED = {"tim": [], "ann": ["approver"], "alan": ["admin"]}


class OneAdmin(RuleBasedStateMachine):
    """Ada has her own credential, and every secret that she is told or chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.desk = Desk()
        self.run(self.desk.start(OF_FILE))
        self.secrets = {secret_of("ada")}
        self.proposals: list[str] = []
        for name, roles in REGISTERED.items():  # while she is the only admin
            body = {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
            assert self.run(self.desk.post("ada", "users", body)).status_code == 200

    def run(self, story: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it gives
        return self.loop.run_until_complete(story)

    def teardown(self) -> None:
        self.run(self.desk.client.aclose())
        self.loop.close()

    def send(self, secret: str, path: str, body: object) -> None:
        answer = self.run(self.desk.ask("", "POST", path, body, secret=secret)).json()
        if "secret" in answer:
            self.secrets.add(answer["secret"])
        if answer.get("status") == "proposed":
            self.proposals.append(answer["proposal"]["proposal"])

    def choose(self) -> str:
        chosen = f"chosen-{len(self.secrets)}"
        self.secrets.add(chosen)
        return hash_secret(chosen)

    def as_any(self, data: st.DataObject) -> str:
        """Choose whom to be: herself first, or whoever's secret she has."""
        others = [one for one in self.secrets if self.known(one) and one != secret_of("ada")]
        return data.draw(st.sampled_from([secret_of("ada"), *sorted(others)]), label="as")

    @rule(data=st.data(), name=NAMES, roles=st.sets(ROLES, max_size=2), secret=st.booleans())
    def create(self, data: st.DataObject, name: str, roles: set[str], secret: bool) -> None:  # noqa: FBT001 - drawn
        body: dict[str, Any] = {"id": name, "roles": sorted(roles), "secret": secret}
        if not secret:
            body["secret_hash"] = self.choose()
        self.send(self.as_any(data), "users", body)

    @rule(data=st.data(), pair=PAIRS, verb=st.sampled_from(["grant", "revoke"]))
    def change_roles(self, data: st.DataObject, pair: tuple[str, str], verb: str) -> None:
        name, role = pair
        self.send(self.as_any(data), f"users/{name}/roles", {verb: [role]})

    @rule(data=st.data(), name=NAMES, step=STEPS)
    def step(self, data: st.DataObject, name: str, step: str) -> None:
        self.send(self.as_any(data), f"users/{name}/{step}", {})

    @rule(data=st.data(), name=NAMES, chosen=st.booleans())
    def rotate(self, data: st.DataObject, name: str, chosen: bool) -> None:  # noqa: FBT001 - drawn
        body = {"secret_hash": self.choose()} if chosen else {}
        self.send(self.as_any(data), f"users/{name}/secret", body)

    @precondition(lambda self: self.proposals)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        for asked in self.proposals:
            self.send(self.as_any(data), f"registry/proposals/{asked}/confirm", {})

    @rule()
    def start_again(self) -> None:
        before, self.desk = self.desk, self.run(self.desk.again(OF_FILE))
        self.run(before.client.aclose())

    @rule()
    def wait(self) -> None:
        self.desk.clock.now_s += 3_600

    @invariant()
    def who_decides_is_as_it_was(self) -> None:
        deciding = {
            (one.id, role, one.state)
            for one in self.desk.desk.registry.of_kind("human")
            if isinstance(one.body, Person)
            for role in SENSITIVE.intersection(one.body.roles)
        }
        assert deciding == {
            ("ada", "admin", "active"),
            ("alan", "admin", "active"),
            ("ann", "approver", "active"),
        }

    @invariant()
    def she_is_nobody_else_who_decides(self) -> None:
        for secret in self.secrets:
            body = self.known(secret)
            assert body is None or body.id == "ada" or SENSITIVE.isdisjoint(body.roles)

    def known(self, secret: str) -> Person | None:
        people = (one.body for one in self.desk.desk.registry.of_kind("human"))
        digest = hash_secret(secret)
        found = (one for one in people if isinstance(one, Person) and one.secret_hash == digest)
        return next(found, None)


TestOneAdmin = pytest.mark.req("TOK-08")(OneAdmin.TestCase)
TestOneAdmin.settings = settings(max_examples=share(30), stateful_step_count=20, deadline=None)
