"""Measures what a release would change, in a process of its own and out of the way of calls.

The process reads what to do from its standard input and writes what it found, as
`core.records.impact_told` has it. It gets no environment and its priority is the lowest.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import find_records
from gateway.adapters.audit.replay_impact import PolicyReplay
from gateway.adapters.audit.replay_inputs import Decisions, Inputs
from gateway.adapters.authoring.clock_readers import tell_clock
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.authoring.result_watchers import tell_watchers
from gateway.adapters.policy.policy_bundle import restore_bundle
from gateway.adapters.releases.release_store import ReleaseStore
from gateway.core.log.audit_filter import Filter, Selection
from gateway.core.records import impact_told

_KEPT_ENVIRONMENT: Final = ("LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")
_NICE: Final = 19
_DAY_S: Final = 86_400
_READ_MAX: Final = 16 << 20


class Order(Struct, frozen=True):
    """What is measured: a release that is kept, over the decisions of a log since a time.

    `before`: the release whose place it takes, where there is one.
    """

    log: str
    kek: str
    releases: str
    revision: str
    since_s: int
    before: str = ""


class Span(NamedTuple):
    """How far back is looked, and for how long at most; both in seconds."""

    back_s: int
    patience_s: float


SPANS: Final = (Span(7 * _DAY_S, 12), Span(_DAY_S, 8), Span(3_600, 5))
"""The week if that can be done in time, else the day, else the hour."""


async def measure(
    order: Order, *, now_s: int, spans: Sequence[Span] = SPANS
) -> bytes | impact_told.Unmeasured:
    """Return what a release would have changed (`impact_told.write`), or why nobody knows.

    Never raises: a release that mends something must not wait for its statistics.
    """
    for span in spans:
        asked = msgspec.structs.replace(order, since_s=max(now_s - span.back_s, 0))
        try:
            done = await _run(asked, span.patience_s)
        except TimeoutError:
            continue
        except OSError:
            return "failed"
        if done is None or not done:
            return "failed" if done is None else "no_decisions"
        return done
    return "too_slow"


async def _run(order: Order, patience_s: float) -> bytes | None:
    """Return what the process wrote; None where it failed. Raises `TimeoutError`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        __name__,
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # a panic prints what it worked on
    )
    try:
        async with asyncio.timeout(patience_s):
            out, _ = await process.communicate(msgspec.json.encode(order))
    finally:
        if process.returncode is None:  # its policy workers end with it
            process.kill()
            await process.wait()
    return out if process.returncode == 0 and len(out) <= _READ_MAX else None


async def replay(order: Order) -> bytes:
    """Do what was ordered, here; empty where nothing was decided in that time."""
    log, kek = Path(order.log), Path(order.kek)
    store = ReleaseStore(Path(order.releases))
    bundle = restore_bundle(store.load(order.revision).policy_files)
    since = Filter(since_us=order.since_s * 1_000_000)
    records = find_records(log, Decisions(Selection(since)))
    if not list_segments(log):
        return b""
    if not kek.is_file():  # noqa: ASYNC240 - nothing else runs here
        raise FileNotFoundError(kek)  # it must not be made
    vault = Vault(log / "openings" / "keys", load_or_create_kek(kek), "", Files())
    candidate = Candidate(bundle, workers=1)
    await candidate.start()
    try:
        impact = await PolicyReplay(candidate, Inputs(log, vault)).run(records)
    finally:
        await candidate.stop()
    if not impact.total and not impact.missing:
        return b""
    told: dict[str, Any] = impact_told.describe(impact, order.revision)
    before = restore_bundle(store.load(order.before).policy_files) if order.before else None
    told |= {"clock": tell_clock(bundle, before), "watchers": tell_watchers(bundle, before)}
    return impact_told.write(told | {"since_s": order.since_s})


def main() -> None:
    """Measure, as the process that `measure` starts."""
    os.nice(_NICE)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(asyncio.run(replay(order)))


if __name__ == "__main__":
    main()
