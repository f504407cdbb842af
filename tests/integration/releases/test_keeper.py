"""What decides, over real files: starts, publications, halts, drift, and kills at every step."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir, restore_bundle
from gateway.config.release import assemble
from gateway.core.approvals.declined import Declined
from gateway.core.errors import AuditError, ConfigurationError, CountersignError, PolicyError
from gateway.core.releases.halting import STEP_S
from gateway.core.releases.release import Release
from gateway.http.releases_desk import Done
from gateway.wiring.release_lookout import ReleaseLookout
from tests.integration.releases.ground import Ground, Killed, begin

pytestmark = pytest.mark.req("POL-07")

ROOT = Path(__file__).parents[3]


def rev_of(release: Release) -> str:
    """Return the revision of the bundle in a release: what decisions name."""
    return restore_bundle(release.policy_files).revision


def verify(ground: Ground) -> str:
    """Return what the stand-alone verifier says of the log; empty where it is content."""
    command = [sys.executable, "verify/countersign_verify.py", "--state", "none"]
    done = subprocess.run(
        [*command, str(ground.folder / "audit")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else ""


async def test_outside_dev_nothing_starts_without_two_publishers_or_a_release(
    tmp_path: Path,
) -> None:
    ground = Ground(tmp_path / "one")
    with pytest.raises(ConfigurationError, match="policy publish --offline") as none:
        await ground.start()
    assert none.value.code == "release_none"
    alone = Ground(tmp_path / "two", publishers=[])
    with pytest.raises(ConfigurationError, match="policy keygen") as nobody:
        await alone.start()
    assert nobody.value.code == "release_publishers"
    for one in (ground, alone):
        await one.die()


async def test_with_releases_off_and_in_dev_the_folder_decides_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    ground = Ground(tmp_path, releases="off", publishers=[])
    keeper = await ground.start()
    assert ground.records("policy.activate")[0]["mode"] == "off"
    assert keeper.status()["mode"] == "off"
    declined = await ground.say("pia", ground.release("b"))
    assert isinstance(declined, Declined)
    assert declined.code == "release_closed"
    await keeper.tick()
    await ground.die()


async def test_two_publishers_let_a_release_decide_and_the_verifiers_agree(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    second = ground.release("second")
    assert ground.decides == rev_of(first)
    proposed = await ground.say("pia", second)
    assert proposed == Done(second.revision, 2, "proposed")
    assert ground.decides == rev_of(first)
    assert await ground.say("paul", second) == Done(second.revision, 2, "active")
    assert ground.decides == rev_of(second)
    assert await ground.publish(first, "rollback") == Done(first.revision, 3, "active")
    await ground.die()
    await ground.start()
    assert ground.decides == rev_of(first)
    await ground.die()
    assert verify(ground) == ""


@pytest.mark.parametrize("halting", [False, True], ids=["publish", "halt"])
async def test_killed_at_any_step_the_old_or_the_new_release_decides_and_the_log_is_whole(
    tmp_path: Path, *, halting: bool
) -> None:
    outcomes = set[str]()
    for kill_at in range(1, 40):
        ground, first = await begin(tmp_path / str(kill_at))
        second = ground.release("second")
        names = {rev_of(first): "old", rev_of(second): "new"}
        if halting:
            await ground.publish(second)
            await ground.call("second", 110)
        ground.kill_at, ground.step = kill_at, 0
        try:
            if halting:
                await jump(ground)
            else:
                await ground.publish(second)
        except Killed:
            died = True
        else:
            died = False
        assert ground.decides in names  # never none, also before anything is started again
        await ground.die()
        await ground.start()
        again = ground.decides
        assert again is not None
        outcomes.add(names[again])
        await ground.die()
        await ground.start()
        assert ground.decides == again
        await ground.die()
        if not died:
            break
    else:
        pytest.fail("it never came to its end")
    assert outcomes == {"old", "new"}
    assert verify(ground) == ""


async def jump(ground: Ground) -> None:
    """Let denials have jumped, as the keeper sees them."""
    keeper = ground.gateway
    assert keeper is not None
    keeper._audit = Recorder(ground)  # type: ignore[assignment]  # noqa: SLF001 - each step can be the last
    ground.clock.wait(STEP_S)
    await keeper.tick()


class Recorder:
    """The log, each of whose records can be the last step."""

    def __init__(self, ground: Ground) -> None:
        assert ground.gateway is not None
        self.record = ground.record
        self.recovered = ground.gateway._audit.recovered  # type: ignore[union-attr]  # noqa: SLF001


async def test_denials_of_what_went_before_bring_the_release_before_back(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    second = ground.release("second")
    await ground.publish(second)
    await ground.call("other", 50)
    await ground.call("second", 49)
    ground.clock.wait(STEP_S)
    await keeper.tick()
    assert ground.decides == rev_of(second)  # too few to say
    await ground.call("second", 1)
    await keeper.tick()
    assert ground.decides == rev_of(first)
    halt = ground.records("policy.halt")[0]
    assert (halt["why"], halt["number"], halt["back_to"]["number"]) == ("denials", 2, 1)
    assert halt["before"] == {"calls": 200, "denied_per_mille": 0, "failed_per_mille": 0}
    assert halt["after"] == {"calls": 200, "denied_per_mille": 500, "failed_per_mille": 0}
    # The way back is not watched, and the next release may decide.
    assert not keeper.is_watching
    third = ground.release("third")
    assert (await ground.publish(third)).state == "active"
    await ground.die()
    assert verify(ground) == ""


@pytest.mark.parametrize("code", ["first", "second"])
async def test_calls_that_are_sent_to_be_denied_bring_no_halt_about(
    tmp_path: Path, code: str
) -> None:
    ground, _ = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    release = ground.release("first").files["policies/house.rego"].decode()
    ground.write("second")
    house = ground.policies / "house.rego"
    house.write_text(release + house.read_text().split("\n\n")[-1])
    second = ground.assemble()
    await ground.publish(second)
    # What both refuse says nothing, whoever sends it; what one agent runs into alone, neither.
    await ground.call(code, 300, *(("ann", "bob") if code == "first" else ("ann",)))
    await ground.call("other", 20, "bob", "cyd")
    ground.clock.wait(STEP_S)
    await keeper.tick()
    assert ground.decides == rev_of(second)
    assert keeper.is_watching
    await ground.die()


async def test_after_its_window_a_release_is_not_halted_any_more(tmp_path: Path) -> None:
    ground, _ = await begin(tmp_path, halt={"window_s": 60})
    keeper = ground.gateway
    assert keeper is not None
    second = ground.release("second")
    await ground.publish(second)
    ground.clock.wait(60)
    await keeper.tick()
    assert not keeper.is_watching
    await ground.call("second", 300)
    await keeper.tick()
    assert ground.decides == rev_of(second)
    await ground.die()


async def test_a_release_that_cannot_be_put_to_use_is_halted_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    ground, first = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None

    async def refuse(_bundle: Bundle, _stated: object) -> None:
        raise ConfigurationError("it denies nothing", code="policy_selftest_failed")

    keeper._activate = refuse  # noqa: SLF001 - an engine that does not take it
    second = ground.release("second")
    assert (await ground.publish(second)).state == "halted"
    assert ground.records("policy.halt")[0]["why"] == "not_activated"
    await ground.die()
    await ground.start()
    assert ground.decides == rev_of(first)
    await ground.die()
    assert verify(ground) == ""


@pytest.mark.parametrize(
    "trouble",
    [PolicyError("no OPA there"), AuditError("busy", code="audit_overloaded", retryable=True)],
)
async def test_a_release_is_put_to_use_once_engine_and_log_are_back(
    tmp_path: Path, trouble: CountersignError
) -> None:
    ground, first = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    works = keeper._activate  # noqa: SLF001

    async def fail(_bundle: Bundle, _stated: object) -> None:
        raise trouble

    keeper._activate = fail  # noqa: SLF001 - an engine that is away
    second = ground.release("second")
    assert (await ground.publish(second)).state == "published"
    ground.clock.wait(59)
    await keeper.tick()
    assert ground.decides == rev_of(first)
    keeper._activate = works  # noqa: SLF001
    await keeper.tick()
    assert ground.decides == rev_of(second)
    assert not ground.records("policy.halt")
    await ground.die()
    assert verify(ground) == ""


async def test_a_release_whose_engine_stays_away_is_halted_after_a_minute(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None

    async def fail(_bundle: Bundle, _stated: object) -> None:
        raise PolicyError("no OPA there")

    works, keeper._activate = keeper._activate, fail  # noqa: SLF001 - an engine that is away
    await ground.publish(ground.release("second"))
    ground.clock.wait(60)
    await keeper.tick()
    assert ground.records("policy.halt")[0]["why"] == "not_activated"
    keeper._activate = works  # noqa: SLF001
    third = ground.release("third")  # has a minute of its own
    await ground.publish(third)
    assert ground.decides == rev_of(third)
    assert first != third
    await ground.die()


async def test_a_release_with_other_people_decides_as_a_whole_from_the_next_start(
    tmp_path: Path,
) -> None:
    ground, first = await begin(tmp_path)
    file = ground.folder / "countersign.yaml"
    file.write_text(file.read_text().replace('"humans": [', '"humans": [{"id": "olga"}, '))
    second = ground.release("second")
    assert (await ground.publish(second)).state == "published"
    assert ground.decides == rev_of(first)
    assert ground.gateway is not None
    assert ground.gateway.status()["waits_for_restart"]
    await ground.gateway.tick()
    assert ground.decides == rev_of(first)
    await ground.die()
    await ground.start()
    assert ground.decides == rev_of(second)
    await ground.die()
    assert verify(ground) == ""


class Beside:
    """A shadow that only remembers what it was given."""

    def __init__(self) -> None:
        self.label: str | None = None

    async def start(self, bundle: Bundle, label: str) -> None:
        assert bundle.packages
        self.label = label

    async def stop(self) -> None:
        self.label = None


async def test_a_release_runs_in_the_shadow_before_it_decides_also_over_a_restart(
    tmp_path: Path,
) -> None:
    ground, first = await begin(tmp_path)
    await ground.die()
    shadow = Beside()
    keeper = await ground.start(shadow)
    second = ground.release("second")
    assert (await ground.publish(second, shadow_s=600)).state == "shadow"
    assert (ground.decides, shadow.label) == (rev_of(first), second.revision)
    await ground.die()
    shadow = Beside()
    keeper = await ground.start(shadow)
    assert ground.decides == rev_of(first)
    await keeper.tick()
    assert shadow.label == second.revision
    ground.clock.wait(599)
    await keeper.tick()
    assert ground.decides == rev_of(first)
    ground.clock.wait(1)
    await keeper.tick()
    assert ground.decides == rev_of(second)
    assert not shadow.label
    await ground.die()
    assert verify(ground) == ""


async def test_without_something_to_evaluate_beside_there_is_no_shadow(tmp_path: Path) -> None:
    ground, _ = await begin(tmp_path)
    declined = await ground.say("pia", ground.release("second"), shadow_s=600)
    assert isinstance(declined, Declined)
    assert declined.code == "release_no_shadow"
    await ground.die()


async def test_changed_files_change_nothing_and_are_told_once(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    assert keeper.status()["differs"] == []
    ground.write("changed")
    await keeper.tick()
    await keeper.tick()
    assert ground.decides == rev_of(first)
    assert keeper.status()["differs"] == ["policies/house.rego"]
    told = keeper.tell()
    assert (told["mode"], told["release"], told["files_differ"]) == (
        "required",
        first.revision,
        True,
    )
    assert [one["files"] for one in ground.records("policy.drift")] == [["policies/house.rego"]]
    (ground.policies / "house.rego").write_text("package {{{")
    await keeper.tick()
    assert keeper.status()["differs"] == ["policies"]
    ground.write("first")
    await keeper.tick()
    assert keeper.status()["differs"] == []
    assert len(ground.records("policy.drift")) == 2
    await ground.die()


async def test_whatever_files_are_called_they_are_told_and_keep_no_gateway_from_starting(
    tmp_path: Path,
) -> None:
    ground, _ = await begin(tmp_path)
    deep = ground.policies.joinpath(*5 * ["d" * 200])
    deep.mkdir(parents=True)
    for number in range(40):
        (deep / f"x{number}.rego").write_text(f"package policies.x{number}\n")
    assert ground.gateway is not None
    await ground.gateway.tick()
    (told,) = ground.records("policy.drift")
    assert (told["count"], len(told["files"])) == (40, 32)
    (ground.policies / os.fsdecode(b"\xff.rego")).write_text("package policies.ff\n")
    await ground.gateway.tick()
    assert ground.gateway.status()["differs"] == ["policies"]
    await ground.die()
    keeper = await ground.start()
    assert keeper.tell()["files_differ"]
    assert len(ground.records("policy.drift")) == 3
    await ground.die()


async def test_what_the_log_did_not_take_at_that_moment_is_on_record_later(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    assert ground.gateway is not None
    active, log = ground.gateway.history.active, MemoryAuditLog()
    assert active is not None
    lookout = ReleaseLookout(ground.config(), ground.ids)
    ground.write("changed")
    log.overload()
    with pytest.raises(AuditError):
        await lookout.look_for_drift(first, active, log)
    log.overload(overloaded_now=False)
    for _ in range(2):
        await lookout.look_for_drift(first, active, log)
    assert [one["files"] for one in log.records if one["type"] == "policy.drift"] == [
        ["policies/house.rego"]
    ]
    await ground.die()


@pytest.mark.parametrize("path", ["policies/house.rego", "deployment/roles.json", ".manifest"])
async def test_a_release_whose_files_were_changed_in_the_store_does_not_decide(
    tmp_path: Path, path: str
) -> None:
    ground, first = await begin(tmp_path)
    await ground.die()
    assert ground.gateway is not None
    file = ground.gateway.store.place(first.revision) / path
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ConfigurationError) as refused:
        await ground.start()
    assert refused.value.code == "release_altered"
    await ground.die()


async def test_a_release_that_is_gone_from_the_store_is_not_replaced_by_an_older_one(
    tmp_path: Path,
) -> None:
    ground, _ = await begin(tmp_path)
    second = ground.release("second")
    await ground.publish(second)
    await ground.die()
    assert ground.gateway is not None
    ground.gateway.store.place(second.revision).rename(tmp_path / "away")
    with pytest.raises(ConfigurationError) as refused:
        await ground.start()
    assert refused.value.code == "release_missing"
    await ground.die()


async def test_a_release_whose_publishers_are_no_more_does_not_start(tmp_path: Path) -> None:
    ground, _ = await begin(tmp_path)
    await ground.die()
    file = ground.folder / "countersign.yaml"
    file.write_text(file.read_text().replace('"environment": "prod"', '"environment": "test"'))
    with pytest.raises(ConfigurationError, match="test"):
        await ground.start()
    await ground.die()


async def test_a_release_that_was_withdrawn_while_it_was_tried_out_does_not_decide(
    tmp_path: Path,
) -> None:
    ground, first = await begin(tmp_path)
    second = ground.release("second")
    await ground.say("pia", second)

    async def withdraw() -> None:
        ground.on_try_out = _nothing
        done = await ground.withdraw("pia", second)
        assert isinstance(done, Done)

    ground.on_try_out = withdraw
    declined = await ground.say("paul", second)
    assert isinstance(declined, Declined)
    assert declined.code == "release_withdrawn"
    assert ground.decides == rev_of(first)
    await ground.die()
    await ground.start()
    refused = await ground.say("paul", second)
    assert isinstance(refused, Declined)  # the log remembers
    assert refused.code == "release_withdrawn"
    assert (await ground.publish(second, again=1)).state == "active"
    await ground.die()
    assert verify(ground) == ""


async def test_a_release_signed_for_what_was_halted_meanwhile_is_stale(tmp_path: Path) -> None:
    ground, first = await begin(tmp_path)
    second, third = ground.release("second"), ground.release("third")
    await ground.publish(second)
    await ground.call("second", 110)
    await ground.say("pia", third)
    keeper = ground.gateway
    assert keeper is not None

    async def halt() -> None:
        ground.on_try_out = _nothing
        await keeper.tick()

    ground.on_try_out = halt
    declined = await ground.say("paul", third)
    assert isinstance(declined, Declined)
    assert declined.code == "release_stale"
    assert ground.decides == rev_of(first)
    await ground.die()
    await ground.start()
    assert ground.decides == rev_of(first)
    await ground.die()
    assert verify(ground) == ""


async def _nothing() -> None:
    return


async def test_what_the_gate_of_a_newer_version_refuses_goes_on_deciding_and_is_told(
    tmp_path: Path,
) -> None:
    ground, _ = await begin(tmp_path)
    keeper = ground.gateway
    assert keeper is not None
    assert keeper.tell()["gate"] == "unknown"
    await keeper.tick()
    assert keeper.tell()["gate"] == keeper.status()["gate"] == "passed"
    await ground.die()
    # A release of before a rule: what the gate of today refuses, and an engine takes.
    ground = Ground(tmp_path / "old")
    house = ground.policies / "house.rego"
    house.write_text(house.read_text() + "\n" + UNSAFE)
    old = assemble(loosely(ground), [ground.config()])
    await ground.start(boot=False)
    await ground.publish(old)
    await ground.die()
    keeper = await ground.start()
    assert ground.decides == rev_of(old)
    await keeper.tick()
    await keeper.tick()
    assert ground.decides == rev_of(old)
    assert keeper.tell()["gate"] == "refused"
    [record] = ground.records("policy.gate")
    assert (record["release"], record["number"], record["count"]) == (old.revision, 1, 1)
    assert record["places"] == ["house.rego:7:35"]
    await ground.die()
    assert verify(ground) == ""


UNSAFE = """deny contains {"code": "much"} if input.context.args.amount > 100
"""


def loosely(ground: Ground) -> dict[str, bytes]:
    """Return a folder's files as a version without the newest rules would build them."""
    house = ground.policies / "house.rego"
    source = house.read_bytes()
    house.write_bytes(source.replace(UNSAFE.encode(), b""))
    files = dict(load_bundle_dir(ground.policies).files)
    house.write_bytes(source)
    return files | {"policies/house.rego": source}


async def test_a_person_has_one_word_at_a_time_and_measuring_delays_nobody_else(
    tmp_path: Path,
) -> None:
    ground, first = await begin(tmp_path)
    second, third = ground.release("second"), ground.release("third")
    await ground.publish(second)
    measuring, go_on = asyncio.Event(), asyncio.Event()

    async def measure(_release: Release) -> None:
        measuring.set()
        await go_on.wait()

    ground.over = {"measure": measure}
    desk = ground.desk()
    ground.desk = lambda: desk  # type: ignore[method-assign]  # one desk, as a gateway has
    proposing = asyncio.create_task(ground.say("pia", third))
    await measuring.wait()
    busy = await ground.say("pia", third)
    assert isinstance(busy, Declined)
    assert busy.code == "release_busy"
    # Pia's proposal is still measured; the way back is judged meanwhile.
    back = asyncio.create_task(ground.say("paul", first, "rollback"))
    go_on.set()
    assert await proposing == Done(third.revision, 3, "proposed")
    assert await back == Done(first.revision, 3, "proposed")
    assert (await ground.say("pia", first, "rollback")).state == "active"  # type: ignore[union-attr]
    await ground.die()


async def test_a_clock_that_ran_ahead_and_was_put_back_keeps_nobody_from_publishing(
    tmp_path: Path,
) -> None:
    ground, _ = await begin(tmp_path)
    second, third = ground.release("second"), ground.release("third")
    await ground.say("pia", second)
    ground.clock.wait(90_000)
    assert ground.gateway is not None
    await ground.gateway.tick()
    ground.clock.wait(-90_000)
    waits = await ground.say("paul", second)  # Pia's word was over, and is not revived
    assert isinstance(waits, Done)
    assert waits.state == "proposed"
    assert (await ground.publish(third)).state == "active"
    await ground.die()
