"""Structure: logs of chance that are honest raise no alarm; whatever is done to one is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from tests.conformance.audit.writer import EPOCHS
from tests.fault.conftest import Figure
from tests.fault.forged import put_files
from tests.fault.knobs import amount
from tests.fault.random_logs import TAMPERINGS, RandomStory, Target
from tests.fault.verifiers import ask_gateway, ask_script

pytestmark = [pytest.mark.req("AUD-11"), pytest.mark.slow]
PARTS = 4
KEY = EPOCHS[0].vkey


@pytest.mark.parametrize("part", range(PARTS))
def test_an_honest_log_raises_no_alarm(memory: Path, part: int, figure: Figure) -> None:
    logs = amount(300 // PARTS, 10_000 // PARTS)
    alarms = []
    for number in range(logs):
        story = RandomStory(Random(f"honest {part} {number}")).tell()  # noqa: S311 - to be had again
        folder = memory / str(number)
        put_files(folder, story.files(tiles=True))
        alarms += [
            (number, found) for found in (*ask_gateway(folder, KEY), *ask_script(folder, KEY))
        ]
        shutil.rmtree(folder)
    figure("random valid logs, each told to two verifiers", logs)
    figure("  false alarms", len(alarms))
    assert alarms == []


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_done_to_a_log_is_found_and_named(memory: Path, name: str, figure: Figure) -> None:
    logs = amount(20, 600)
    missed, others = [], []
    for number in range(logs):
        target = Target(Random(f"{name} {number}"))  # noqa: S311 - to be had again
        tampered = TAMPERINGS[name](target)
        folder = memory / str(number)
        put_files(folder, tampered.files)
        found = ask_script(folder, KEY, tampered.known)
        by_gateway = ask_gateway(folder, KEY, tampered.known)
        shutil.rmtree(folder)
        if not (found and by_gateway):
            missed.append((number, tampered.truth))
        elif tampered.truth not in found or min(one.seq for one in found) < tampered.truth.seq:
            others.append((number, tampered.truth, found[:3]))
    figure("logs tampered with", logs)
    figure("  found by both verifiers", logs - len(missed))
    figure("  class and record named right", logs - len(missed) - len(others))
    figure(f"  {name}: found / right", f"{logs - len(missed)} / {logs - len(missed + others)}")
    assert missed == []
    assert len(others) <= logs / 100, others[:5]
