from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_watch import PolicyWatcher, take_fingerprint
from gateway.core.errors import PolicyError

pytestmark = pytest.mark.req("GW-11")
GOOD = 'package policies.a\ndeny contains {"code": "no"} if input.x\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.rego").write_text(GOOD)
    return tmp_path


class Engine:
    """Takes bundles, or refuses them all."""

    def __init__(self) -> None:
        self.bundles: list[Bundle] = []
        self.refusal: PolicyError | None = None
        self.taken = asyncio.Event()

    async def activate(self, bundle: Bundle) -> None:
        if self.refusal:
            raise self.refusal
        self.bundles.append(bundle)
        self.taken.set()


async def test_nothing_happens_while_nothing_changes(folder: Path) -> None:
    engine = Engine()
    watcher = PolicyWatcher(folder, engine.activate)
    assert not await watcher.check()
    (folder / "a_test.rego").write_text("package a_test\n")
    (folder / "notes.md").write_text("hello")
    assert not await watcher.check()
    assert engine.bundles == []


async def test_a_changed_file_is_loaded_and_activated(folder: Path) -> None:
    engine, told = Engine(), list[str | None]()
    watcher = PolicyWatcher(folder, engine.activate, report=told.append)
    (folder / "b.rego").write_text(GOOD.replace("policies.a", "policies.b"))
    assert await watcher.check()
    assert set(engine.bundles[0].packages) == {"a", "b"}
    assert told == [None]
    assert not await watcher.check()


async def test_a_broken_file_activates_nothing_and_says_why_until_it_is_mended(
    folder: Path,
) -> None:
    engine, told = Engine(), list[str | None]()
    watcher = PolicyWatcher(folder, engine.activate, report=told.append)
    (folder / "b.rego").write_text("package policies.b\ndeny := {\n")
    assert await watcher.check()
    assert engine.bundles == []
    assert [str(error).split(" ")[0] for error in told] == ["b.rego:3:1:"]
    assert [watcher.last_error] == told
    (folder / "b.rego").unlink()
    assert await watcher.check()
    assert told[1:] == [None]
    assert len(engine.bundles) == 1


async def test_what_changed_since_the_bundle_was_read_is_loaded_at_the_first_look(
    folder: Path,
) -> None:
    engine, seen = Engine(), take_fingerprint(folder)
    (folder / "a.rego").write_text(GOOD + "# more\n")
    watcher = PolicyWatcher(folder, engine.activate, seen=seen)
    assert await watcher.check()
    assert len(engine.bundles) == 1


async def test_a_folder_that_changes_while_it_is_read_is_read_anew(folder: Path) -> None:
    engine, told = Engine(), list[str | None]()
    watcher = PolicyWatcher(folder, engine.activate, report=told.append)
    data = folder / "data.json"
    os.mkfifo(data)
    look = asyncio.create_task(watcher.check())
    with await asyncio.to_thread(data.open, "w") as pipe:  # once the other end is being read
        (folder / "b.rego").write_text(GOOD.replace("policies.a", "policies.b"))
        pipe.write("{}")
    assert not await look
    assert engine.bundles == []
    data.unlink()
    assert await watcher.check()
    assert set(engine.bundles[0].packages) == {"a", "b"}
    assert told == [None]


async def test_an_engine_that_refuses_a_bundle_is_reported(folder: Path) -> None:
    engine = Engine()
    engine.refusal = PolicyError("no worker")
    watcher = PolicyWatcher(folder, engine.activate)
    (folder / "a.rego").write_text(GOOD + "# more\n")
    assert await watcher.check()
    assert watcher.last_error == "no worker"


async def test_an_engine_that_cannot_be_reached_is_asked_until_it_takes_what_is_there(
    folder: Path,
) -> None:
    engine, told = Engine(), list[str | None]()
    engine.refusal = PolicyError("no connection", code="policy_unavailable")
    watcher = PolicyWatcher(folder, engine.activate, report=told.append, again_s=0)
    (folder / "a.rego").write_text(GOOD + "# more\n")
    assert await watcher.check()
    assert await watcher.check()
    assert told == ["no connection"]  # once
    engine.refusal = None
    assert await watcher.check()
    assert told == ["no connection", None]
    assert len(engine.bundles) == 1
    assert not await watcher.check()


async def test_an_engine_that_cannot_be_reached_is_left_alone_for_a_while(folder: Path) -> None:
    engine = Engine()
    engine.refusal = PolicyError("no connection", code="policy_unavailable")
    watcher = PolicyWatcher(folder, engine.activate, again_s=3600)
    (folder / "a.rego").write_text(GOOD + "# more\n")
    assert await watcher.check()
    engine.refusal = None
    assert not await watcher.check()
    (folder / "a.rego").write_text(GOOD + "# once more\n")
    assert await watcher.check()
    assert len(engine.bundles) == 1


async def test_run_looks_by_itself(folder: Path) -> None:
    engine = Engine()
    watcher = PolicyWatcher(folder, engine.activate, interval_s=0.001)
    task = asyncio.create_task(watcher.run())
    (folder / "a.rego").write_text(GOOD + "# more\n")
    await asyncio.wait_for(engine.taken.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
