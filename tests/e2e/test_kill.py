"""The kill switch of a served gateway: from the command line, offline, from another process."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.state.sql_kills import SqlKills
from gateway.adapters.state.sql_store import SqlState
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.core.kills.kill import Kill
from tests.e2e.callers import Agent
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import ROOT, secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("TOK-06")
CRASHES, PULLS = 2, 8
WHY = ["--reason", "canary: it writes to strangers"]


@pytest.fixture(scope="module")
def gate(build_site: Build, start_here: Start, stub: Stub) -> Served:
    """A gateway of our own: what is stopped here is stopped for nobody else."""
    return start_here(build_site(urls={"stub": stub.url}), step="never").wait_ready()


def run(served: Served, *words: str, who: str = "opal") -> Result:
    env = {"COUNTERSIGN_URL": served.site.url, "COUNTERSIGN_TOKEN": secret_of(who)}
    return CliRunner().invoke(build(words[0]), list(words), env=env)


@contextmanager
def killed(served: Served, *target: str) -> Iterator[None]:
    """Stop a target for a while, from the command line."""
    done = run(served, "kill", "on", *target, *WHY)
    assert done.exit_code == 0, done.output
    yield
    done = run(served, "kill", "off", *target, "--reason", "mended")
    assert done.exit_code == 0, done.output


@contextmanager
def locked(served: Served) -> Iterator[None]:
    """Hold the write lock of the state database, as a hung process or a slow disk would."""
    with closing(sqlite3.connect(served.site.folder / "state.db", timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (["--agent", "helper"], "killed"),
        (["--client", "launcher"], "killed"),
        (["--all"], "killed"),
        (["--tool", "stub.masked"], "tool_killed"),
        (["--server", "stub"], "tool_killed"),
    ],
)
def test_what_is_stopped_is_refused_at_once_and_goes_on_when_lifted(
    gate: Served, stub: Stub, target: list[str], code: str
) -> None:
    agent = gate.agent()
    assert agent.rest("stub__masked").status_code == 200
    calls = stub.calls["masked"]
    with gate.adding() as added, killed(gate, *target):
        refused = agent.rest("stub__masked")
        assert (refused.status_code, refused.json()["code"]) == (403, code)
        shown = json.loads(run(gate, "kill", "status", "-o", "json", who="aud").stdout)["kills"]
        assert [one["by"] for one in shown] == ["opal"]
        assert stub.calls["masked"] == calls
    assert [r["type"] for r in added] == ["kill.set", "call.refused", "kill.lift"]
    assert agent.rest("stub__masked").status_code == 200


@pytest.mark.parametrize("target", [["--agent", "helper"], ["--client", "launcher"]])
def test_what_is_stopped_gets_no_run(gate: Served, target: list[str]) -> None:
    credential = ("launcher", secret_of("launcher"))
    wanted = {"agent": "helper", "grants": [{"server": "stub"}]}
    with killed(gate, *target):
        refused = gate.http.post("/v1/runs", auth=credential, json=wanted)
        assert (refused.status_code, refused.json()["code"]) == (403, "killed")
        assert gate.records("run.refused")[-1]["reason"] == "killed"
        told = gate.http.get("/readyz").json()
        assert told["status"] == "ready"
        assert told["kills"] == {"stale": False}  # how many stand is not for everybody
    assert gate.http.post("/v1/runs", auth=credential, json=wanted).status_code == 201


def test_a_run_that_is_stopped_gets_no_token_and_others_go_on(gate: Served) -> None:
    agent, other = gate.agent(), gate.agent()
    with killed(gate, "--run", agent.run["run_id"]):
        assert agent.rest("stub__echo").json()["code"] == "killed"
        form = {"grant_type": "client_credentials"}
        credential = (agent.run["run_id"], agent.run["run_credential"])
        refused = gate.http.post("/oauth/token", auth=credential, data=form)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
        assert other.rest("stub__echo").status_code == 200


def test_a_call_at_its_upstream_is_recorded_and_none_is_sent_after_it(
    gate: Served, stub: Stub
) -> None:
    agent = gate.agent()
    stub.entered.clear()
    stub.released.clear()
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(agent.rest, "stub__slow")
        assert stub.entered.wait(10)
        with killed(gate, "--agent", "helper"):
            assert agent.rest("stub__echo").json()["code"] == "killed"
            stub.released.set()
            assert under_way.result().status_code == 200
    assert gate.records("call.outcome")[-1]["delivery"] == "sent"


def test_a_held_call_whose_agent_or_voter_is_stopped_is_not_sent(gate: Served, stub: Stub) -> None:
    agent = gate.agent()
    sent = stub.calls["transfer"]
    first = agent.hold("stub__transfer", {"to": "canary-a", "amount": 1})
    gate.person("dana").vote(first)
    with killed(gate, "--agent", "helper"):
        assert gate.person("eli").vote(first).json()["state"] == "APPROVED"
        eventually(
            lambda: gate.person("dana").show(first)["state"] == "STALE", "the call is let go"
        )
    second = agent.hold("stub__transfer", {"to": "canary-b", "amount": 2})
    gate.person("dana").vote(second)
    with killed(gate, "--human", "dana"):
        assert gate.person("dana").get("/v1/approvals").status_code == 403
        gate.person("eli").vote(second)
        eventually(lambda: gate.person("eli").show(second)["state"] == "STALE", "the vote is void")
    assert stub.calls["transfer"] == sent
    assert gate.person("dana").get("/v1/approvals").status_code == 200


@pytest.mark.parametrize("restarts", [False, True])
def test_a_lift_gives_nobody_their_earlier_votes_back(
    build_site: Build, start: Start, stub: Stub, *, restarts: bool
) -> None:
    site = build_site(urls={"stub": stub.url})
    served = start(site, step="never").wait_ready()
    sent = stub.calls["transfer"]
    before = served.agent().hold("stub__transfer", {"to": "canary-a", "amount": 1})
    after = served.agent().hold("stub__transfer", {"to": "canary-b", "amount": 2})
    assert served.person("dana").vote(before).json()["state"] == "PENDING"
    with killed(served, "--human", "dana"):
        second = int(time.time())
    if restarts:
        assert served.stop() == 0
        served = start(site, step="never").wait_ready()
    served.person("eli").vote(before)
    eventually(lambda: served.person("eli").show(before)["state"] == "STALE", "the vote is void")
    assert stub.calls["transfer"] == sent
    eventually(lambda: int(time.time()) > second, "the second of the kill is over")
    served.person("dana").vote(after)
    served.person("eli").vote(after)
    eventually(lambda: served.person("eli").show(after)["state"] == "EXECUTED", "it counts again")
    assert stub.calls["transfer"] == sent + 1


def write_kill(served: Served, kill: Kill, *, end: bool = False) -> None:
    """Do what another process with the same state would."""

    async def write() -> None:
        state = SqlState(f"sqlite:///{served.site.folder / 'state.db'}")
        await state.open(environment="endtoend", log_origin="countersign/audit")
        store = SqlKills(state)
        await (store.end([kill.id]) if end else store.put(kill))
        await state.close()

    asyncio.run(write())


def test_a_kill_by_another_process_is_in_force_soon(gate: Served) -> None:
    agent = gate.agent()
    kill = Kill(id="f" * 32, kind="agent", target="helper", at=int(time.time()), by="elsewhere")
    write_kill(gate, kill)
    eventually(lambda: agent.rest("stub__masked").status_code == 403, "the kill is seen", 5)
    write_kill(gate, kill, end=True)
    eventually(lambda: agent.rest("stub__masked").status_code == 200, "the lift is seen", 5)
    assert gate.records("kill.lift")[-1]["why"] == "elsewhere"


def test_while_the_state_does_not_answer_effects_are_refused_and_reads_go_on(
    gate: Served, stub: Stub
) -> None:
    agent = gate.agent()
    assert agent.rest("stub__masked").status_code == 200
    with locked(gate):
        eventually(lambda: agent.rest("stub__masked").status_code == 503, "it is stale", 10)
        calls = stub.calls["masked"]
        refused = agent.call("stub__masked")
        assert (refused.status, refused.code) == (503, "kill_feed_stale")
        assert stub.calls["masked"] == calls
        assert agent.rest("stub__echo").status_code == 200
    eventually(lambda: agent.rest("stub__masked").status_code == 200, "it knows again", 15)


def test_tokens_are_listed_and_revoked_with_their_family(gate: Served) -> None:
    agent, other = gate.agent(), gate.agent()
    listed = run(gate, "tokens", "list", "--run", agent.run["run_id"], "-o", "json", who="aud")
    (token,) = json.loads(listed.stdout)["tokens"]
    assert (token["agent"], token["client"], token["state"]) == ("helper", "launcher", "live")
    assert token["jti"] in run(gate, "tokens", "list", "--agent", "helper").stdout
    done = run(gate, "tokens", "revoke", "--jti", token["jti"], *WHY)
    assert (done.exit_code, done.stdout) == (0, f"revoked: {token['jti']}\n")
    assert agent.rest("stub__echo").json()["code"] == "token_revoked"
    root = other.run["run_id"]
    done = run(gate, "tokens", "revoke", "--root", root, *WHY, "-o", "json")
    assert json.loads(done.stdout)["known"]
    assert other.rest("stub__echo").json()["code"] == "token_revoked"
    unknown = run(gate, "tokens", "revoke", "--jti", "0" * 32, *WHY)
    assert (unknown.exit_code, "no such token is alive" in unknown.stderr) == (0, True)


def test_an_own_run_that_is_revoked_stays_so_for_as_long_as_it_lives(gate: Served) -> None:
    own = Agent(gate.http, gate.token("clerk", secret_of("clerk")), {})
    listed = run(gate, "tokens", "list", "--agent", "clerk", "-o", "json")
    root = json.loads(listed.stdout)["tokens"][0]["run"]
    done = run(gate, "tokens", "revoke", "--root", root, *WHY, "-o", "json")
    lives = gate.person("opal").get(f"/v1/runs/{root}").json()
    assert json.loads(done.stdout)["until"] > lives["deadline"]
    assert own.rest("stub__echo").json()["code"] == "token_revoked"


def test_a_client_revokes_and_asks_over_oauth(gate: Served) -> None:
    metadata = gate.http.get("/.well-known/oauth-authorization-server").json()
    revoke = metadata["revocation_endpoint"].removeprefix(gate.site.url)
    introspect = metadata["introspection_endpoint"].removeprefix(gate.site.url)
    agent = gate.agent()
    credential = (agent.run["run_id"], agent.run["run_credential"])
    asked = {"token": agent.token}
    told = gate.http.post(introspect, auth=credential, data=asked).json()
    assert (told["active"], told["run_id"]) == (True, agent.run["run_id"])
    stranger = ("clerk", secret_of("clerk"))
    assert gate.http.post(introspect, auth=stranger, data=asked).json() == {"active": False}
    assert gate.http.post(revoke, auth=stranger, data=asked).status_code == 400
    assert agent.rest("stub__echo").status_code == 200
    assert gate.http.post(revoke, auth=credential, data=asked).status_code == 200
    assert agent.rest("stub__echo").json()["code"] == "token_revoked"
    assert gate.http.post(introspect, auth=credential, data=asked).json() == {"active": False}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["kill", "on", *WHY], Exit.USAGE),
        (["kill", "on", "--all", "--agent", "helper", *WHY], Exit.USAGE),
        (["kill", "on", "--all", "--reason", " "], Exit.USAGE),
        (["kill", "on", "--all", "--for", "soon", *WHY], Exit.USAGE),
        (["kill", "on", "--all", "--for", "366d", *WHY], Exit.USAGE),
        (["kill", "off", "--agent", "helper", *WHY], Exit.NOT_FOUND),
        (["tokens", "revoke", *WHY], Exit.USAGE),
        (["tokens", "revoke", "--jti", "a", "--root", "b", *WHY], Exit.USAGE),
        (["tokens", "revoke", "--jti", "a", "--reason", ""], Exit.USAGE),
    ],
)
def test_a_slip_at_the_command_line_stops_nothing(
    gate: Served, words: list[str], code: Exit
) -> None:
    assert run(gate, *words).exit_code == code
    assert run(gate, "kill", "on", "--all", *WHY, who="dana").exit_code == Exit.DENIED
    assert json.loads(run(gate, "kill", "status", "-o", "json").stdout)["kills"] == []


def test_a_kill_for_a_time_says_until_when_and_an_unknown_target_is_told(gate: Served) -> None:
    done = run(gate, "kill", "on", "--agent", "hepler", "--for", "1s", *WHY)
    assert (done.exit_code, "no agent `hepler` is known here" in done.stderr) == (0, True)
    assert "hepler" in done.stdout
    slip = run(gate, "kill", "on", "--run", "0" * 32, "--for", "1s", *WHY)
    assert f"no run `{'0' * 32}` is known here" in slip.stderr
    eventually(
        lambda: json.loads(run(gate, "kill", "status", "-o", "json").stdout)["kills"] == [],
        "their time is over",
        10,
    )
    assert gate.records("kill.lift")[-1]["why"] == "expired"


def test_a_kill_survives_a_gateway_that_dies_right_after_and_works_offline(
    build_site: Build, start: Start, stub: Stub
) -> None:
    site = build_site(urls={"stub": stub.url})
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    assert run(served, "kill", "on", "--agent", "helper", *WHY).exit_code == 0
    offline = ["--offline", "--config", str(site.path)]
    held = run(served, "kill", "on", "--all", *WHY, *offline)
    assert (held.exit_code, "error:" in held.stderr) == (Exit.ERROR, True)
    served.process.send_signal(signal.SIGKILL)
    served.wait()
    shown = run(served, "kill", "status", *offline)
    assert "helper" in shown.stdout
    assert run(served, "kill", "on", "--all", *WHY, *offline).exit_code == 0
    again = start(site, step="never").wait_ready()
    late = Agent(again.http, agent.token, agent.run)
    assert late.rest("stub__echo").json()["code"] == "killed"
    listed = json.loads(run(again, "tokens", "list", "-o", "json").stdout)["tokens"]
    assert agent.run["run_id"] in {one["run"] for one in listed}
    assert run(again, "kill", "off", "--all", "--reason", "mended").exit_code == 0
    assert late.rest("stub__echo").json()["code"] == "killed"
    assert run(again, "kill", "off", "--agent", "helper", "--reason", "mended").exit_code == 0
    assert late.rest("stub__echo").status_code == 200
    assert again.stop() == 0
    refused = run(again, "kill", "off", "--agent", "nobody", "--reason", "x", *offline)
    assert refused.exit_code == Exit.NOT_FOUND
    check(again)


def test_the_log_of_all_this_stands_up_to_the_verifier(gate: Served) -> None:
    check(gate, "--json")


class Load:
    """Calls, and a hand that plays with the switch; until the gateway dies."""

    def __init__(self, served: Served, agent: Agent) -> None:
        self._served, self._agent = served, agent
        self.over, self.pulled = threading.Event(), threading.Event()

    def call(self) -> None:
        with suppress(httpx.TransportError):
            while not self.over.is_set():
                self._agent.rest("stub__masked")

    def pull(self) -> None:
        body = {"kind": "agent", "target": "helper", "reason": "canary"}
        auth = self._served.person("opal").auth
        with suppress(httpx.TransportError):
            for number in itertools.count():
                for path in ("/v1/kills", "/v1/kills/lift"):
                    self._served.http.post(path, json=body, headers=auth)
                if number == PULLS:
                    self.pulled.set()
                if self.over.is_set():
                    return


def test_no_kill_is_ignored_or_made_up_when_gateways_die_under_load(
    build_site: Build, start: Start, stub: Stub
) -> None:
    site = build_site(urls={"stub": stub.url})
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    for _ in range(CRASHES):
        with ThreadPoolExecutor(5) as pool:
            load = Load(served, agent)
            for work in (load.call, load.call, load.call, load.call, load.pull):
                pool.submit(work)
            assert load.pulled.wait(30)
            served.process.send_signal(signal.SIGKILL)
            load.over.set()
        served.wait()
        served = start(site, step="never").wait_ready()
        agent = Agent(served.http, agent.token, agent.run)
    assert served.stop() == 0
    assert len([r for r in served.records() if r["type"] == "kill.set"]) > CRASHES * PULLS
    check(served)


def check(served: Served, *words: str) -> None:
    """Run the stand-alone verifier: no kill was ignored, and none is told that was not."""
    verifier = ROOT / "verify" / "countersign_verify.py"
    command = [sys.executable, str(verifier), str(served.site.audit), "--state", "none", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "effect_despite_kill" not in done.stdout


def test_nobody_stops_anything_without_a_credential(gate: Served) -> None:
    for path in ("/v1/kills", "/v1/kills/lift", "/v1/tokens/revoke"):
        refused = gate.http.post(path, json={"kind": "all", "reason": "x"})
        assert refused.status_code == httpx.codes.UNAUTHORIZED
