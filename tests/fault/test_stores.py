"""Bundles and releases when the power fails: what is said to be kept is kept, and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from gateway.adapters.policy.bundle_store import load_bundle, save_bundle
from gateway.adapters.policy.policy_bundle import default_pack, load_bundle_dir
from gateway.adapters.releases.release_store import ReleaseStore
from gateway.core.canonical import digest
from gateway.core.errors import CountersignError
from tests.fault.disk import Disk, State
from tests.fault.recorder import Recorder, write_state
from tests.fault.story import Ack
from tests.unit.releases.made import release

T = TypeVar("T")
BUNDLE = load_bundle_dir(default_pack())
RELEASE = release()
IMPACT = b"{}"
REVISION = BUNDLE.revision
WHOLE = [(0, "release_missing"), *((done, RELEASE) for done in range(4))]


def cut(root: Path, *acts: Callable[[], object]) -> Iterator[tuple[int, State]]:
    """Yield how many acts were done, and what may stand after the power fails then."""
    root.mkdir()
    disk, random, done = Disk(), Random(1), 0  # noqa: S311 - states to be had again
    with Recorder(root, disk) as recorder:
        for act in acts:
            act()
            recorder.tell(Ack("outcome"))
        assert recorder.unseen() == []
    for event in recorder.events:
        if isinstance(event, Ack):
            done += 1
        else:
            event(disk)
        for state in disk.crash_states(random, 4, lambda _path: False):
            yield done, state


def try_out(load: Callable[[], T]) -> T | str:
    """Return what is kept, or the code of why there is nothing."""
    try:
        return load()
    except CountersignError as error:
        return error.code


@pytest.mark.req("GW-11")
def test_a_bundle_that_is_said_to_be_kept_outlives_a_power_failure_and_a_torn_one_is_none(
    memory: Path,
) -> None:
    (seen := memory / "seen").mkdir()
    found = set()
    store = memory / "made" / "audit" / "bundles"
    for done, state in cut(memory / "made", lambda: save_bundle(store, BUNDLE)):
        write_state(seen, state)
        kept = try_out(lambda: load_bundle(seen / "audit" / "bundles", REVISION))
        found.add((done, "whole" if kept == BUNDLE else kept))
    assert found == {(0, "policy_bundle_missing"), (0, "whole"), (1, "whole")}


@pytest.mark.req("POL-07")
def test_a_release_its_signature_and_its_impact_outlive_a_power_failure(memory: Path) -> None:
    (seen := memory / "seen").mkdir()
    store, revision = ReleaseStore(memory / "made" / "audit" / "releases"), RELEASE.revision
    acts = (
        lambda: store.save(RELEASE),
        lambda: store.save_signature(revision, 1, "kid", "token"),
        lambda: store.save_impact(digest(IMPACT), IMPACT),
    )
    found = ReleaseStore(seen / "audit" / "releases")
    for done, state in cut(memory / "made", *acts):
        write_state(seen, state)
        assert (done, try_out(lambda: found.load(revision))) in WHOLE
        assert done < 2 or found.find_signatures(revision) == ["token"]
        assert done < 3 or found.load_impact(digest(IMPACT)) is not None
    assert done == len(acts)
