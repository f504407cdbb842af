"""Decision logs over real HTTP, to a taker that knows OPA's, beside those of a real OPA."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.bounded_http import build_client
from gateway.adapters.policy.decision_log import DecisionLog
from gateway.adapters.policy.decision_sinks import HttpSink
from gateway.config.settings import load_config
from gateway.core.errors import ConfigurationError
from gateway.core.policy.decision import Deny, Permit, Reason
from gateway.core.policy.decision_event import MASK, Logged, build_event
from gateway.wiring.decisions import start_decisions
from tests.collector import Collector, run_collector
from tests.fixed import CountingIds, HandClock
from tests.opa_server import NO_OPA, OPA, run_opa

pytestmark = [pytest.mark.network, pytest.mark.req("POL-10")]

REV = "sha256:" + "1" * 64
INPUT = {"phase": "call", "context": {"args": {"to": "canary"}, "run": {"id": "run-1"}}}
OPAS_OWN = {"trace_id", "span_id", "requested_by", "request_context", "metrics", "nd_builtin_cache"}
"""Members of OPA's events that are about its own HTTP server, timers and functions."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as running:
        yield running


@pytest.fixture
async def log(collector: Collector) -> AsyncIterator[DecisionLog]:
    async with build_client() as http:
        labels = {"app": "countersign", "id": "log", "version": "0"}
        sink = HttpSink(http, collector.url, "token-of-ours")
        yield DecisionLog(sink, labels=labels, mask=MASK, clock=HandClock(), ids=CountingIds())


def observe(log: DecisionLog, count: int = 1) -> None:
    for _ in range(count):
        document = json.dumps(INPUT).encode()
        log.observe("t", "call", document, Deny((Reason("no", "canary"),), REV))


async def test_events_arrive_gzipped_with_the_token_and_without_masked_values(
    log: DecisionLog, collector: Collector
) -> None:
    observe(log, 3)
    assert await log.flush()
    assert [event["req_id"] for event in collector.events] == [1, 2, 3]
    (headers,) = collector.headers
    assert headers["authorization"] == "Bearer token-of-ours"
    assert (headers["content-type"], headers["content-encoding"]) == ("application/json", "gzip")
    assert "canary" not in json.dumps(collector.events)
    assert collector.events[0]["erased"] == ["/input/context/args", "/result/reasons/*/message"]


@pytest.mark.parametrize("status", [500, 503, 429, 401, 307])
async def test_what_is_not_taken_is_sent_again_in_order(
    log: DecisionLog, collector: Collector, status: int
) -> None:
    collector.refusals = [status]
    observe(log, 2)
    assert not await log.flush()
    observe(log)
    assert await log.flush()
    assert [event["req_id"] for event in collector.events] == [1, 2, 3]
    assert collector.posts == 3
    assert log.status()["failed_writes"] == 1


async def test_a_taker_that_is_gone_loses_nothing_that_there_is_room_for() -> None:
    with run_collector() as gone:
        url = gone.url
    async with build_client() as http:
        log = DecisionLog(
            HttpSink(http, url), labels={}, mask=MASK, clock=HandClock(), ids=CountingIds()
        )
        observe(log, 2)
        assert not await log.flush()
        assert log.status()["waiting"] == 2


@pytest.mark.skipif(OPA is None, reason=NO_OPA)
def test_events_have_the_members_and_types_of_a_real_opas(
    collector: Collector, tmp_path: Path
) -> None:
    theirs = log_of_opa(collector, tmp_path)
    ours = event_of_ours()
    assert set(theirs) - set(ours) <= OPAS_OWN
    assert set(ours) - set(theirs) == set()
    (bundle,) = theirs["bundles"].values()
    assert bundle.keys() == ours["bundles"]["countersign"].keys()
    for name in set(ours) & set(theirs):
        assert type(ours[name]) is type(theirs[name]), name
    assert ours["erased"] == theirs["erased"]
    assert set(theirs["labels"]) >= {"id", "version"}
    assert theirs["path"] == ours["path"]


def log_of_opa(collector: Collector, folder: Path) -> dict[str, Any]:
    """Return the event of a decision that a real OPA made on `INPUT`, masked alike."""
    (folder / "countersign.rego").write_text(
        'package countersign\ndecision := {"outcome": "permit"}\n', encoding="utf-8"
    )
    (folder / "mask.rego").write_text(
        'package system.log\nmask contains "/input/context/args"\n', encoding="utf-8"
    )
    (folder / ".manifest").write_text('{"revision": "r1"}', encoding="utf-8")
    settings = [
        "--log-level=info",  # below it, requests have no numbers
        f"--set=services.collector.url={collector.root}",
        "--set=decision_logs.service=collector",
        "--set=decision_logs.reporting.min_delay_seconds=1",
        "--set=decision_logs.reporting.max_delay_seconds=1",
    ]
    with run_opa(*settings, "--bundle", str(folder)) as opa:
        url = f"http://{opa.address}/v1/data/countersign/decision"
        body = json.dumps({"input": INPUT}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body)) as reply:
            assert json.load(reply)["result"] == {"outcome": "permit"}
        assert collector.came.wait(20)
    (event,) = [one for one in collector.events if one.get("path") == "countersign/decision"]
    return event


def event_of_ours() -> dict[str, Any]:
    logged = Logged("t", "call", json.dumps(INPUT).encode(), Permit((), (), REV), 1)
    labels = {"id": "log", "version": "0"}
    mask = ("/input/context/args",)
    raw = build_event(logged, decision_id="d", labels=labels, mask=mask, number=1)
    found: dict[str, Any] = json.loads(raw)
    return found


# Configured


def write(folder: Path, section: str) -> Path:
    (folder / "policies").mkdir()
    path = folder / "countersign.yaml"
    path.write_text(f"environment: test\ndev: true\ndecision_log: {section}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{file: a, url: 'https://x/logs'}", "decision_log.url"),
        ("{url: 'http://elsewhere.example/logs'}", "decision_log.url"),
        ("{file: a, mask: [input/context]}", "decision_log.mask"),
        ("{file: a, mask: [/other]}", "decision_log.mask"),
        ("{file: a, keep: -1}", "decision_log.keep"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(
    tmp_path: Path, section: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_config(write(tmp_path, section), {})


async def test_it_is_off_unless_it_is_configured(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "{}"), {})
    async with AsyncExitStack() as stack:
        decisions = start_decisions(config, clock=HandClock(), ids=CountingIds(), stack=stack)
        engine: Any = object()
        assert decisions.beside(engine) is engine
        assert decisions.status is None


async def test_it_posts_where_it_is_configured_to_and_says_who_it_is(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTOR_TOKEN", "from-the-environment")
    section = f"{{url: '{collector.url}', token_from: 'env:COLLECTOR_TOKEN'}}"
    config = load_config(write(tmp_path, section), {})
    async with AsyncExitStack() as stack:
        decisions = start_decisions(config, clock=HandClock(), ids=CountingIds(), stack=stack)
        engine: Any = object()
        observed: Any = decisions.beside(engine)
        observed._tell("t", "call", b"{}", Permit((), (), REV))  # noqa: SLF001 - as it tells
    assert collector.headers[0]["authorization"] == "Bearer from-the-environment"
    labels = collector.events[0]["labels"]
    assert (labels["app"], labels["environment"]) == ("countersign", "test")
