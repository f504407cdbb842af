"""A gateway that is killed with calls under way, again and again, and what its log can prove then.

Which intent an effect belongs to shows in its length: every call has arguments of a length of its
own, and an intent's commitment says how long its arguments are.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

import httpx
import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Record, Served
from tests.e2e.site import Site
from tests.e2e.stub import Stub
from tests.fault.conftest import Figure
from tests.fault.knobs import amount
from tests.fault.verifiers import ask_script

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.req("AUD-10", "AUD-11")]
CALLERS = 3
REPLIES_MOST = 60


class Load:
    """Callers who go on until the gateway is gone; `replies` are the lengths of good answers."""

    def __init__(self) -> None:
        self.replies: set[int] = set()
        self.held: list[str] = []
        self.number = 0
        self._lock = threading.Lock()
        self.enough = threading.Event()
        self._until = 0

    def run(self, served: Served, replies: int) -> list[Future[None]]:
        """Begin to call; `enough` is set after so many replies."""
        self.enough.clear()
        self._until = len(self.replies) + replies
        pool = ThreadPoolExecutor(CALLERS + 1)
        done = [pool.submit(self._call, served.agent()) for _ in range(CALLERS)]
        done.append(pool.submit(self._approve, served, served.agent()))
        pool.shutdown(wait=False)
        return done

    def _take(self) -> int:
        with self._lock:
            self.number += 1
            return self.number

    def _call(self, agent: Agent) -> None:
        try:
            while True:
                number = self._take()
                if agent.rest("stub__echo", {"value": "x" * number}).status_code == 200:
                    self.replies.add(length_of(number))
                if len(self.replies) >= self._until:
                    self.enough.set()
        except httpx.TransportError:
            self.enough.set()

    def _approve(self, served: Served, agent: Agent) -> None:
        try:
            while True:
                text = {"customer_id": "cus_1004", "body": f"held: canary {self._take()}"}
                held = agent.hold("acme__notes_add", text)
                self.held.append(held)
                served.person("dana").vote(held)
        except (httpx.TransportError, json.JSONDecodeError):
            pass


def length_of(number: int) -> int:
    """How long the arguments of a call are."""
    return len(json.dumps({"value": "x" * number}))


def test_no_effect_without_a_durable_intent_and_no_reply_without_a_durable_outcome(
    build_site: Build, start: Start, stub: Stub, acme: Acme, figure: Figure
) -> None:
    site = build_site(urls={"acme": acme.url, "stub": stub.url})
    random = Random(11)  # noqa: S311 - a loop to be had again
    served = start(site, step="never").wait_ready()
    load = Load()
    kills, seen = amount(4, 100), len(stub.seen)
    for _ in range(kills):
        done = load.run(served, random.randint(1, REPLIES_MOST))
        assert load.enough.wait(60)
        served.process.kill()
        served.wait()
        assert all(future.exception(30) is None for future in done)
        served = start(site, step="never").wait_ready()
    states = eventually(lambda: settled(served, load.held), "no approved call waits any more")
    assert served.stop() == 0
    calls = [call for call in stub.seen[seen:] if call["name"] == "echo"]
    effects = [len(json.dumps(call["arguments"])) for call in calls]
    notes = Counter(
        row["body"] for row in acme.find("notes") if row["body"].startswith("held: can")
    )
    records = served.records()
    problems = compare(records, effects, load.replies)
    problems += [f"written {times} times: {body}" for body, times in notes.items() if times > 1]
    problems += [f"executed, not written: {states}"] * (states["EXECUTED"] > len(notes))
    figure("gateways killed with calls under way", kills)
    figure("  effects upstream", len(effects) + sum(notes.values()))
    figure("  effects without a durable intent", sum("intent" in one for one in problems))
    figure("  replies without a durable outcome", sum("outcome" in one for one in problems))
    figure("  approvals with more than one effect", sum("times" in one for one in problems))
    assert problems == []
    assert alarms(site) == []


def settled(served: Served, helds: list[str]) -> Counter[str] | None:
    """Return the states of all held calls, once none is about to be sent."""
    states = Counter(str(served.person("dana").show(held)["state"]) for held in helds)
    return None if {"APPROVED", "DISPATCHING", "CLAIMED"} & set(states) else states


def compare(records: list[Record], effects: list[int], replies: set[int]) -> list[str]:
    """Return what happened and is not on record."""
    intents = {
        r["args"]["bytes"]: r["op"]
        for r in records
        if r["type"] == "call.intent" and r["tool"]["id"] == "stub.echo"
    }
    outcomes = {r["op"] for r in records if r["type"] == "call.outcome" and r["status"] == "ok"}
    problems = [f"no intent for effect {length}" for length in effects if length not in intents]
    problems += [f"two effects of {n}" for n, times in Counter(effects).items() if times > 1]
    problems += [f"no outcome for reply {n}" for n in replies if intents.get(n) not in outcomes]
    return problems


def alarms(site: Site) -> list[object]:
    """Verify the log with the verifier that stands alone, the rules between records included."""
    vkey = (site.audit / "log.vkey").read_text().partition("\n")[0]
    return list(ask_script(site.audit, vkey))
