"""What a proposal would have changed: replayed in a process of its own, from a real log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.releases.impact_run import Order, Span, measure, replay
from gateway.adapters.releases.release_store import IMPACTS_FOLDER, IMPACTS_KEPT, ReleaseStore
from gateway.core import canonical
from gateway.core.entry import Entry, Opening
from gateway.core.records import impact_told
from gateway.core.releases.release import Release
from gateway.wiring.releases import FOLDER
from tests.integration.releases.ground import START_NS, Ground, begin

pytestmark = [pytest.mark.req("POL-08"), pytest.mark.req("POL-07")]

NOW_S = START_NS // 1_000_000_000
PATIENT = (Span(7 * 86_400, 60),)


def denied(number: int, agent: str) -> Entry:
    """Return the record of a call that the first release denied, with its input."""
    document = orjson.loads(build_sample("call"))
    document["resource"] |= {"id": "x.first", "server": "x", "effect": "read"}
    document["subject"]["id"] = agent
    return Entry(
        type="call.refused",
        op=f"op-{number}",
        fields={
            "decision": {"outcome": "deny", "reasons": ["house:first"]},
            "policy": {"rev": "r"},
        },
        openings=(Opening("policy.input", orjson.dumps(document), "alice"),),
    )


async def with_traffic(folder: Path) -> tuple[Ground, Release, Order]:
    """Return a deployment that denied three calls, and a release that would not have."""
    ground, _ = await begin(folder)
    for number, agent in enumerate(("ann", "ann", "bob")):
        await ground.record(denied(number, agent))
    second = ground.release("second")
    assert ground.gateway is not None
    ground.gateway.store.save(second)
    audit = ground.config().audit
    order = Order(
        log=str(audit.dir),
        kek=str(audit.kek),
        releases=str(audit.dir / FOLDER),
        revision=second.revision,
        since_s=0,
    )
    return ground, second, order


async def test_recorded_decisions_are_put_to_a_release_and_told_in_numbers(tmp_path: Path) -> None:
    ground, second, order = await with_traffic(tmp_path)
    told = impact_told.read(await replay(order))
    assert (told["candidate"], told["decisions"]) == (second.revision, 3)
    [row] = told["rows"]
    assert (row["kind"], row["rule"], row["tool"]) == ("newly_permitted", "house:first", "x.first")
    assert row["agents"] == {"ann": 2, "bob": 1}
    summary = impact_told.summarize(told)
    assert summary == {
        "digest": canonical.digest(impact_told.write(told)),
        "since_s": 0,
        "decisions": 3,
        "changed": 3,
        "newly_denied": 0,
        "newly_held": 0,
        "newly_permitted": 3,
        "error": 0,
        "missing": 0,
    }
    assert "ann" not in str(summary)
    # It is the same in a process of its own.
    found = await measure(order, now_s=NOW_S, spans=PATIENT)
    assert isinstance(found, bytes)
    since = {"since_s": NOW_S - 7 * 86_400}
    assert impact_told.read(found) == told | since
    # Nothing older than what is asked for.
    later = await measure(order, now_s=NOW_S + 60, spans=(Span(10, 60),))
    assert later == "no_decisions"
    await ground.die()


async def test_a_rule_that_waits_for_a_time_is_told_though_the_past_does_not_show_it(
    tmp_path: Path,
) -> None:
    ground, _, order = await with_traffic(tmp_path)
    first = ground.release("first")
    [package] = ground.policies.glob("*.rego")
    package.write_text(
        package.read_text()
        + """
permit contains {"code": "later"} if {
	input.resource.effect == "money"
	input.context.now_ns > 4000000000000000000
}
"""
    )
    later = ground.assemble()
    assert ground.gateway is not None
    ground.gateway.store.save(later)
    given = {name: getattr(order, name) for name in Order.__struct_fields__}
    given |= {"revision": later.revision, "before": first.revision}
    told = impact_told.read(await replay(Order(**given)))
    assert told["changed"] == 0
    assert told["clock"] == {"reads": ["house"], "changed": ["house"]}
    keeper = ground.gateway
    ground.over = {"measure": keeper.build_desk(lambda _person, _at: True).deps.measure}
    await ground.say("pia", later)
    digest = ground.records("policy.propose")[-1]["impact"]["digest"]
    kept = keeper.store.load_impact(digest)
    assert kept is not None
    assert kept["clock"] == told["clock"]
    await ground.die()


async def test_a_proposal_is_told_and_recorded_with_what_it_would_have_changed(
    tmp_path: Path,
) -> None:
    ground, second, _ = await with_traffic(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    ground.over = {"measure": keeper.build_desk(lambda _person, _at: True).deps.measure}
    await ground.say("pia", second)
    impact = ground.records("policy.propose")[-1]["impact"]
    assert (impact["decisions"], impact["newly_permitted"]) == (3, 3)
    assert keeper.store.load_impact(impact["digest"]) is not None
    declined = await ground.say("paul", second)
    assert getattr(declined, "code", "") == "release_unseen"
    await ground.say("paul", second, seen=impact["digest"])
    assert ground.records("policy.publish")[-1]["impact"] == impact
    await ground.die()
    await ground.start()  # the log is all that remembers it
    assert ground.gateway is not None
    target = ground.gateway.history.target
    assert target is not None
    assert target.impact == impact
    await ground.die()


async def test_who_turns_out_to_be_second_has_to_be_shown_it_too(tmp_path: Path) -> None:
    ground, second, _ = await with_traffic(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    measured, both = keeper.build_desk(lambda _person, _at: True).deps.measure, asyncio.Barrier(2)

    async def measure_together(release: Release) -> Mapping[str, Any] | None:
        found = await measured(release)
        await both.wait()  # both were looked at while nobody's word was on record
        return found

    ground.over = {"measure": measure_together}
    published = len(ground.records("policy.publish"))
    said = await asyncio.gather(ground.say("pia", second), ground.say("paul", second))
    told = sorted(getattr(one, "code", "") or getattr(one, "state", "") for one in said)
    assert told == ["proposed", "release_unseen"]
    assert len(ground.records("policy.publish")) == published
    await ground.die()


def age(store: ReleaseStore, digests: Iterable[str], seconds: int) -> None:
    for digest in digests:
        old = NOW_S - seconds
        os.utime(store.place(digest).parent / IMPACTS_FOLDER / f"{digest[7:]}.json", (old, old))


async def test_impacts_are_kept_while_a_publication_may_name_them_and_then_the_newest(
    tmp_path: Path,
) -> None:
    ground, second, _ = await with_traffic(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    ground.over = {"measure": keeper.build_desk(lambda _person, _at: True).deps.measure}
    await ground.say("pia", second)
    waiting = ground.records("policy.propose")[-1]["impact"]["digest"]
    documents = [b'{"%d":0}' % number for number in range(IMPACTS_KEPT + 3)]
    others = [canonical.digest(document) for document in documents]
    for digest, document in zip(others, documents, strict=True):
        keeper.store.save_impact(digest, document)
    age(keeper.store, [waiting], 9_000)
    for seconds, digest in enumerate(others):
        age(keeper.store, [digest], 1_000 - seconds)
    keeper.store.save_impact(others[0], documents[0])  # measured again: it is the newest now
    folder = tmp_path / "audit" / FOLDER / IMPACTS_FOLDER
    (folder / "0.new").write_bytes(b"{")  # killed while it was written

    third = ground.release("third")
    await ground.say("paul", third)
    fresh = ground.records("policy.propose")[-1]["impact"]["digest"]

    kept = {f"sha256:{file.stem}" for file in folder.iterdir()}
    assert kept == {waiting, fresh, others[0], *others[-IMPACTS_KEPT + 1 :]}
    assert keeper.store.load_impact(waiting) is not None
    assert getattr(await ground.say("paul", second, seen=waiting), "state", "") == "active"
    await ground.die()


def test_impacts_of_publishers_who_speak_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    documents = [b'{"counts":{"n":%d}}' % number for number in range(40)]

    def say(document: bytes) -> None:
        name = canonical.digest(document)
        store.save_impact(name, document)
        store.prune_impacts([name])

    with ThreadPoolExecutor(8) as publishers:
        list(publishers.map(say, [document for document in documents for _ in range(4)]))
    assert len(list((tmp_path / IMPACTS_FOLDER).iterdir())) == IMPACTS_KEPT + 1


async def test_impacts_that_cannot_be_removed_hold_no_proposal_up(
    tmp_path: Path,
) -> None:
    ground, second, _ = await with_traffic(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    ground.over = {"measure": keeper.build_desk(lambda _person, _at: True).deps.measure}
    (tmp_path / "audit" / FOLDER / IMPACTS_FOLDER / "x.new").mkdir(parents=True)
    with capture_logs() as told:
        await ground.say("pia", second)
    assert ground.records("policy.propose")[-1]["impact"]["decisions"] == 3
    assert [one["event"] for one in told] == ["impacts_not_pruned"]
    await ground.die()


async def test_inputs_that_cannot_be_had_are_counted(tmp_path: Path) -> None:
    ground, _, order = await with_traffic(tmp_path)
    other = tmp_path / "other"
    other.write_text("0" * 64 + "\n")
    other.chmod(0o600)
    given = {name: getattr(order, name) for name in Order.__struct_fields__}
    told = impact_told.read(await replay(Order(**given | {"kek": str(other)})))
    assert impact_told.summarize(told)["missing"] == 3
    await ground.die()


async def test_what_takes_too_long_is_tried_over_less_and_then_let_go(tmp_path: Path) -> None:
    ground, _, order = await with_traffic(tmp_path)
    hasty = Span(7 * 86_400, 0)
    assert await measure(order, now_s=NOW_S, spans=(hasty, hasty)) == "too_slow"
    assert isinstance(await measure(order, now_s=NOW_S, spans=(hasty, *PATIENT)), bytes)
    await ground.die()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revision": "sha256:" + "0" * 64}, "failed"),
        ({"kek": "/nowhere/kek"}, "failed"),
        ({"log": "/nowhere/audit"}, "no_decisions"),
    ],
)
async def test_what_cannot_be_measured_says_so_and_holds_nothing_up(
    tmp_path: Path, change: dict[str, str], why: str
) -> None:
    ground, _, order = await with_traffic(tmp_path)
    given = {name: getattr(order, name) for name in Order.__struct_fields__}
    assert await measure(Order(**given | change), now_s=NOW_S, spans=PATIENT) == why
    await ground.die()


async def test_where_no_process_can_be_started_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground, _, order = await with_traffic(tmp_path)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert await measure(order, now_s=NOW_S, spans=PATIENT) == "failed"
    await ground.die()
