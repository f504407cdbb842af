from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.keys.token_keys import generate_token_key, public_jwk
from gateway.core.people.registry import BARRED, Member
from gateway.core.tokens.clients import Agent, hash_secret
from gateway.core.tokens.token import Claims
from tests.unit.registry.desk import READS, Desk, FailingStore, human, told

pytestmark = pytest.mark.req("TOK-01")
GRANT = {"server": "shop", "tool": "*", "effects": ["read"]}


def claims(**changes: object) -> Claims:
    values = {
        "issuer": "i",
        "audience": "a",
        "subject": "bot",
        "client_id": "flow",
        "jti": "j",
        "issued_at": 0,
        "expires_at": 1,
        "scopes": frozenset(),
        "grants": (),
        "environment": "test",
        "run_id": "r",
        "root_jti": "r",
        "sid": "r",
    }
    return Claims(**{**values, **changes})  # type: ignore[arg-type]


async def test_an_agent_is_registered_and_its_secret_is_told_once(desk: Desk) -> None:
    body = {"id": "sub.bot", "owner": "lars", "grants": [GRANT], "secret": True}
    made = (await desk.post("ada", "agents", body)).json()
    assert (made["status"], made["alone"]) == ("applied", False)
    assert desk.clients.authenticate("sub.bot", made["secret"]) == desk.clients.agent("sub.bot")
    shown = await desk.get("eve", "agents/sub.bot")
    assert shown.json()["grants"] == [GRANT]
    assert (shown.json()["environment"], shown.json()["has_secret"]) == ("test", True)
    assert made["secret"] not in shown.text
    assert "secret_hash" not in shown.text
    listed = (await desk.get("otto", "agents")).json()["agents"]
    assert [(one["id"], one["origin"]) for one in listed] == [
        ("bot", "file"),
        ("sub.bot", "registry"),
    ]


async def test_a_change_is_one_record_without_names_and_secrets(desk: Desk) -> None:
    made = (await desk.post("ada", "agents", {"id": "sub", "owner": "olga", "secret": True})).json()
    (record,) = desk.changes()
    told_of = {name: record[name] for name in ("kind", "entry", "change", "step", "version")}
    assert told_of == {
        "kind": "agent",
        "entry": "agent:sub",
        "change": "create",
        "step": "applied",
        "version": 1,
    }
    assert (record["before"], record["after"], record["alone"]) == ("none", "active", False)
    lines = b"".join(desk.audit.lines)
    for secret in (b"olga", b"ada", made["secret"].encode()):
        assert secret not in lines
    assert desk.audit.read_opening(record["seq"], "by") == b"ada"
    content = desk.audit.read_opening(record["seq"], "content.after") or b""
    assert b'"owner":"olga"' in content
    assert b"sha256:" not in content


async def test_a_suspended_agent_stops_at_once_and_goes_on_when_resumed(desk: Desk) -> None:
    for who, step, active in (("otto", "suspend", False), ("otto", "resume", True)):
        done = await desk.post(who, f"agents/bot/{step}", {"reason": "case 7"})
        assert done.status_code == 200, done.text
        assert desk.desk.registry.is_active_agent("bot") is active
        assert (desk.clients.agent("bot") is not None) is active
        assert (desk.clients.authenticate("bot", "bot-secret") is not None) is active
        assert desk.desk.registry.bars(claims()) == (None if active else BARRED)
        assert desk.clients.owners("bot") == ("lars",)  # separation does not end with it
    assert [one["change"] for one in desk.changes()] == ["suspend", "resume"]


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("clients/flow/suspend", {}),
        ("agents/sub/suspend", {"actors": ("sub",)}),
        ("users/carl/suspend", {"on_behalf_of": "Human:CARL"}),
    ],
)
async def test_whoever_stands_behind_a_token_stops_it(
    desk: Desk, path: str, changes: dict[str, object]
) -> None:
    await desk.post("ada", "agents", {"id": "sub"})
    await desk.post("ada", "users", {"id": "carl"})
    assert desk.desk.registry.bars(claims(**changes)) is None
    assert (await desk.post("otto", path)).status_code == 200
    assert desk.desk.registry.bars(claims(**changes)) == BARRED
    assert desk.desk.registry.bars(claims(subject="sub", client_id="sub")) == (
        BARRED if changes.get("actors") else None
    )


async def test_an_agent_that_nobody_knows_is_barred(desk: Desk) -> None:
    assert desk.desk.registry.bars(claims(subject="stranger")) == BARRED
    assert desk.desk.registry.bars(claims(subject="flow")) == BARRED  # no agent


async def test_a_retired_entry_never_comes_back(desk: Desk) -> None:
    await desk.post("ada", "agents", {"id": "sub"})
    assert (await desk.post("ada", "agents/sub/retire")).json()["entry"]["state"] == "retired"
    for method, path, body in (
        ("POST", "agents/sub/resume", None),
        ("POST", "agents/sub/suspend", None),
        ("PATCH", "agents/sub", {"owner": "x"}),
        ("POST", "agents/sub/secret", None),
    ):
        answer = await desk.ask("ada", method, path, body)
        assert told(answer) == (409, "registry_conflict"), path
    for taken in ("sub", "SUB"):
        again = await desk.post("ada", "agents", {"id": taken})
        assert told(again) == (409, "registry_exists")
    assert (await desk.again()).desk.registry.find("sub") is not None


async def test_entries_of_the_file_are_changed_there_but_suspended_here(desk: Desk) -> None:
    for method, path in (("PATCH", "agents/bot"), ("POST", "agents/bot/secret")):
        body = {"owner": "x"} if method == "PATCH" else {}
        answer = await desk.ask("ada", method, path, body)
        assert told(answer) == (409, "registry_read_only")
    await desk.post("ada", "agents/bot/suspend")
    later = await desk.again()
    assert later.desk.registry.bars(claims()) == BARRED
    assert later.clients.agent("bot") is None
    await later.post("ada", "agents/bot/resume")
    assert (await later.again()).desk.registry.bars(claims()) is None


async def test_what_was_stopped_stays_so_once_it_has_left_the_file(desk: Desk) -> None:
    for path in ("clients/flow/suspend", "users/eve/suspend", "agents/bot/retire"):
        assert (await desk.post("ada", path)).status_code == 200
    later = await desk.again([human("ada", "admin")])
    assert later.desk.registry.find("flow") is None
    assert later.desk.registry.bars(claims(subject="bot")) == BARRED
    for taken, kind in (("flow", "clients"), ("Bot", "agents")):
        answer = await later.post("ada", kind, {"id": taken})
        assert told(answer) == (409, "registry_exists")
    await later.post("ada", "agents", {"id": "sub"})
    for changes in ({"on_behalf_of": "human:EVE"}, {"client_id": "flow"}, {"actors": ("bot",)}):
        assert later.desk.registry.bars(claims(subject="sub", **changes)) == BARRED, changes
    assert (await later.again()).clients.launcher("flow") is None  # back in the file, and stopped


async def test_where_an_id_stands_in_both_the_file_says_what_it_is(desk: Desk) -> None:
    await desk.post("ada", "agents", {"id": "sub", "owner": "from the registry"})
    await desk.post("ada", "agents/sub/suspend")
    body = Agent(id="sub", owner="from the file")
    of_file = [Member(kind="agent", body=body, origin="file"), human("ada", "admin")]
    other = Desk(store=desk.store, audit=desk.audit)
    shadowed, older = await other.start(of_file)
    assert (shadowed, older) == (["sub"], [])
    found = other.desk.registry.find("sub")
    assert found is not None
    assert (found.origin, found.body, found.state) == ("file", body, "suspended")


async def test_an_update_changes_what_is_given_and_nothing_else(desk: Desk) -> None:
    await desk.post("ada", "agents", {"id": "sub", "owner": "lars", "grants": [GRANT]})
    done = await desk.ask("ada", "PATCH", "agents/sub", {"roles": ["support"], "dpop": True})
    assert done.status_code == 200
    found = desk.clients.agent("sub")
    assert found is not None
    assert (found.owner, found.roles, found.dpop, found.grants) == (
        "lars",
        ("support",),
        True,
        READS,
    )
    assert told(await desk.ask("ada", "PATCH", "agents/sub", {})) == (400, "registry_invalid")


async def test_a_launcher_is_registered_with_edges_and_a_secret(desk: Desk) -> None:
    body = {"id": "jobs", "may_launch": ["bot"], "humans": ["*"], "grants": [GRANT]}
    made = (await desk.post("ada", "clients", body)).json()
    assert desk.clients.authenticate("jobs", made["secret"]) == desk.clients.launcher("jobs")
    await desk.post("ada", "agents", {"id": "sub"})
    await desk.post("ada", "clients/jobs/edges", {"agent": "sub"})
    launcher = desk.clients.launcher("jobs")
    assert launcher is not None
    assert launcher.may_launch == ("bot", "sub")
    await desk.post("ada", "clients/jobs/edges", {"agent": "bot", "remove": True})
    await desk.ask("ada", "PATCH", "clients/jobs", {"humans": ["olga"]})
    launcher = desk.clients.launcher("jobs")
    assert launcher is not None
    assert (launcher.may_launch, launcher.humans) == (("sub",), ("olga",))
    again = (await desk.post("ada", "clients/jobs/secret")).json()
    assert desk.clients.authenticate("jobs", made["secret"]) is None
    assert desk.clients.authenticate("jobs", again["secret"]) is not None


async def test_an_agent_gets_an_edge_to_a_sub_agent(desk: Desk) -> None:
    await desk.post("ada", "agents", {"id": "boss"})
    await desk.post("ada", "agents/boss/edges", {"agent": "bot"})
    boss = desk.clients.agent("boss")
    assert boss is not None
    assert boss.may_delegate_to == ("bot",)
    for agent in ("nobody", "boss", "flow"):
        answer = await desk.post("ada", "agents/boss/edges", {"agent": agent})
        assert told(answer) == (400, "registry_invalid")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("agents", {"id": "a b"}, "registry_invalid"),
        ("agents", {"id": "-x"}, "registry_invalid"),
        ("agents", {"id": "x", "environment": "production"}, "registry_invalid"),
        ("agents", {"id": "x", "owner": "a\u202eb"}, "registry_invalid"),
        ("agents", {"id": "x", "roles": [""]}, "registry_invalid"),
        ("agents", {"id": "x", "secret_hash": "sha256:zz"}, "registry_invalid"),
        ("agents", {"id": "x", "grants": [{"server": "shop"}]}, "registry_invalid"),
        ("agents", {"id": "x", "grants": [{**GRANT, "server": "bank"}]}, "registry_invalid"),
        ("agents", {"id": "x", "grants": [GRANT, GRANT]}, "registry_invalid"),
        ("agents", {"id": "x", "grants": [GRANT] * 65}, "registry_invalid"),
        ("agents", {"id": "x", "grants": [{**GRANT, "max_calls": -1}]}, "registry_invalid"),
        ("agents", {"id": "x", "may_delegate_to": ["a"] * 257}, "registry_invalid"),
        ("agents", {"id": "x", "unheard": 1}, "request_invalid"),
        ("agents", {"id": "x", "reason": "x" * 2001}, "request_invalid"),
        ("clients", {"id": "x", "humans": [""]}, "registry_invalid"),
        ("clients", {"id": "x", "may_launch": ["nobody"]}, "registry_invalid"),
        ("users", {"id": "x", "roles": ["root"]}, "registry_invalid"),
        ("users", {"id": "x", "secret_hash": hash_secret("bot-secret")}, "registry_invalid"),
        ("users", {"id": "x", "groups": ["admin"]}, "registry_invalid"),
        ("users", {"id": "x", "groups": ["Finance"]}, "registry_invalid"),
        ("users", {"id": "x", "groups": [f"g{n}" for n in range(257)]}, "registry_invalid"),
    ],
)
async def test_an_entry_that_does_not_fit_is_refused(
    desk: Desk, path: str, body: dict[str, object], code: str
) -> None:
    assert told(await desk.post("ada", path, body)) == (400, code)
    assert desk.changes() == []


@pytest.mark.parametrize("path", ["agents", "clients", "users"])
async def test_an_id_of_an_app_is_given_to_nobody_else(desk: Desk, path: str) -> None:
    answer = await desk.post("ada", path, {"id": "Desktop-App"})
    assert told(answer) == (409, "registry_exists")


@pytest.mark.parametrize("kind", ["agents", "clients", "users"])
async def test_what_is_not_there_is_not_found(desk: Desk, kind: str) -> None:
    assert told(await desk.get("ada", f"{kind}/nobody")) == (404, "registry_not_found")
    for action in ("suspend", "secret"):
        answer = await desk.post("ada", f"{kind}/nobody/{action}")
        assert told(answer) == (404, "registry_not_found")
    other = "clients" if kind == "agents" else "agents"
    name = "bot" if kind != "agents" else "flow"
    assert told(await desk.get("ada", f"{kind}/{name}")) == (404, "registry_not_found")
    assert (await desk.get("ada", f"{other}/{name}")).status_code == 200


@pytest.mark.parametrize("who", ["otto", "eve", "ann"])
async def test_least_authority_only_admins_register_and_change(desk: Desk, who: str) -> None:
    for path, body in (
        ("agents", {"id": "x"}),
        ("clients", {"id": "x"}),
        ("users", {"id": "x"}),
        ("agents/bot/retire", {}),
        ("users/ann/roles", {"grant": ["auditor"]}),
    ):
        assert told(await desk.post(who, path, body)) == (403, "role_missing"), path
    stops = (await desk.post(who, "agents/bot/suspend")).status_code
    assert stops == (200 if who == "otto" else 403)
    reads = (await desk.get(who, "agents")).status_code
    assert reads == (403 if who == "ann" else 200)


async def test_a_stranger_is_refused_and_that_is_on_record(desk: Desk) -> None:
    answer = await desk.ask("nobody", "GET", "agents")
    assert told(answer) == (401, "token_invalid")
    assert desk.refused == [("authenticate", "token_invalid")]


async def test_nothing_is_in_force_that_was_not_kept(desk: Desk) -> None:
    assert isinstance(desk.store, FailingStore)
    desk.store.fails = True
    for path, body in (("agents", {"id": "x"}), ("agents/bot/suspend", {})):
        assert told(await desk.post("ada", path, body)) == (503, "state_unavailable")
    assert desk.desk.registry.find("x") is None
    assert desk.desk.registry.is_active_agent("bot")
    assert desk.changes() == []


async def test_a_change_that_the_log_does_not_take_is_in_force_once_it_does() -> None:
    desk = Desk()
    await desk.start()
    desk.audit.overload()
    assert told(await desk.post("ada", "agents", {"id": "x"})) == (503, "audit_overloaded")
    assert not desk.desk.registry.is_active_agent("x")
    desk.audit.overload(overloaded_now=False)
    await desk.post("ada", "agents", {"id": "y"})
    assert desk.desk.registry.is_active_agent("x")
    assert [one["entry"] for one in desk.changes()] == ["agent:x", "agent:y"]


async def test_a_stop_holds_although_the_log_does_not_take_it() -> None:
    desk = Desk()
    await desk.start()
    desk.audit.overload()
    assert (await desk.post("otto", "agents/bot/suspend")).status_code == 503
    assert not desk.desk.registry.is_active_agent("bot")


async def test_after_a_crash_between_state_and_log_the_start_brings_both_together() -> None:
    desk = Desk()
    await desk.start()
    desk.audit.overload()
    await desk.post("ada", "agents", {"id": "x"})
    desk.audit.overload(overloaded_now=False)
    later = await desk.again()
    assert later.desk.registry.is_active_agent("x")
    assert [one["entry"] for one in later.changes()] == ["agent:x"]
    assert await desk.store.outbox() == []
    await later.again()
    assert len(later.changes()) == 1


async def test_a_state_that_is_older_than_the_log_lets_nobody_back_in(desk: Desk) -> None:
    await desk.post("ada", "agents", {"id": "sub"})
    recorded = {"agent:sub": 2, f"human:{desk.audit.key_id('ann')}": 1, "agent:gone": 9}
    other = Desk(store=desk.store, audit=desk.audit, ids=desk.ids)
    assert await other.start(recorded=recorded) == ([], ["ann", "sub"])
    assert not other.desk.registry.is_active_agent("sub")
    assert other.humans.find("ann") is None
    assert other.humans.find("ada") is not None
    await other.post("ada", "agents/sub/resume")
    assert other.changes()[-1]["version"] == 3


async def test_a_client_proves_itself_by_public_keys_or_by_a_secret(desk: Desk) -> None:
    keys = {"keys": [public_jwk(generate_token_key())]}
    assert (await desk.post("ada", "agents", {"id": "sub", "jwks": keys})).status_code == 200
    made = (await desk.post("ada", "clients", {"id": "jobs", "jwks": keys})).json()
    assert "secret" not in made
    found = desk.clients.launcher("jobs")
    assert found is not None
    assert [key["kid"] for key in found.jwks] == [keys["keys"][0]["kid"]]
    both = await desk.post("ada", "agents/sub/secret")
    assert told(both) == (400, "registry_invalid")
    done = await desk.ask("ada", "PATCH", "agents/sub", {"jwks": {"keys": []}})
    assert done.json()["entry"]["jwks"] == []
    assert (await desk.post("ada", "agents/sub/secret")).status_code == 200
    other = (await desk.again()).clients.launcher("jobs")
    assert other == found


@pytest.mark.parametrize("jwks", [{"keys": [{}]}, {"keys": [{"kty": "oct", "k": "AAAA"}]}])
async def test_keys_that_are_no_public_keys_are_refused(
    desk: Desk, jwks: dict[str, object]
) -> None:
    answer = await desk.post("ada", "agents", {"id": "x", "jwks": jwks})
    assert told(answer) == (400, "registry_invalid")


async def test_while_a_change_waits_for_the_log_no_other_is_made() -> None:
    desk = Desk()
    await desk.start()
    desk.audit.overload()
    for name in ("x", "y"):
        answer = await desk.post("ada", "agents", {"id": name})
        assert told(answer) == (503, "audit_overloaded")
    desk.audit.overload(overloaded_now=False)
    later = await desk.again()
    assert later.desk.registry.is_active_agent("x")
    assert later.desk.registry.find("y") is None


async def test_who_stops_listening_does_not_stop_a_change(desk: Desk) -> None:
    body = Agent(id="x")
    story = desk.desk.create("ada", "agent", body, secret=False, reason="")
    task = asyncio.ensure_future(story)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = await desk.post("ada", "agents", {"id": "x"})
    assert told(done) == (409, "registry_exists")
    assert desk.desk.registry.is_active_agent("x")
