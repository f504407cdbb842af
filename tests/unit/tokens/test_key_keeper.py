"""Keys of the gateway's own: made, published, followed and destroyed while it runs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.keys.token_keys import create_token_key
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError, ConfigurationError, CountersignError
from tests.unit.tokens.key_world import STEP_S, KeyWorld

pytestmark = pytest.mark.req("TOK-07")


@pytest.fixture
def world(tmp_path: Path) -> KeyWorld:
    return KeyWorld(tmp_path)


async def test_the_first_start_makes_a_key_that_signs_at_once(world: KeyWorld) -> None:
    await world.start()
    assert world.is_believed(await world.issue())
    (kid,) = world.published
    assert world.changes == [(kid, "next"), (kid, "active")]
    assert world.key_files() == {"tokens.pem"}


async def test_the_next_key_is_published_first_then_signs_while_old_tokens_live_on(
    world: KeyWorld,
) -> None:
    await world.start()
    (first,) = world.published
    assert await world.keys.rotate("ann") is None
    first_of_both, second = world.published
    assert first_of_both == first
    await world.wait(STEP_S - 1)
    old = await world.issue()
    assert world.published[0] == first  # not before every cache knows the next one
    await world.wait(1)
    assert world.published == [second, first]
    new = await world.issue()
    assert (world.is_believed(old), world.is_believed(new)) == (True, True)
    await world.wait(STEP_S - 1)
    assert world.states == ["retired", "active"]
    await world.wait(1)
    assert world.states == ["gone", "active"]
    assert world.published == [second]
    assert "tokens.pem" not in world.key_files()
    assert len(world.key_files()) == 1
    world.now_s -= STEP_S
    assert not world.is_believed(old)  # nobody has its key any more, whatever the clock says


async def test_every_change_is_on_record_and_who_asked_is_sealed(world: KeyWorld) -> None:
    await world.start()
    await world.keys.rotate("ann")
    await world.wait(STEP_S)
    await world.wait(STEP_S)
    first, second = (key.kid for key in world.keys.ring.keys)
    assert world.changes == [
        (first, "next"),
        (first, "active"),
        (second, "next"),
        (first, "retired"),
        (second, "active"),
        (first, "gone"),
    ]
    assert {record["environment"] for record in world.records()} == {"test"}
    asked = [record for record in world.records() if "by" in record]
    assert [(r["kid"], r["why"]) for r in asked] == [(second, "command")]
    assert b'"ann"' not in b"\n".join(world.audit.lines)


async def test_keys_change_by_their_age(world: KeyWorld) -> None:
    await world.start(max_age_s=3_600)
    await world.wait(3_600 - STEP_S - 1)
    assert world.states == ["active"]
    await world.wait(1)
    assert world.states == ["active", "next"]
    await world.wait(STEP_S)
    assert world.states == ["retired", "active"]
    assert {r["why"] for r in world.records() if r["seq"] > 3} == {"schedule"}


async def test_what_a_wrong_clock_put_off_waits_no_longer_than_usual_once_it_is_set_right(
    world: KeyWorld,
) -> None:
    await world.start(max_age_s=3_600)
    world.now_s += 40 * 86_400
    await world.keys.rotate("ann")
    await world.wait(STEP_S)
    await world.keys.rotate("ann")
    assert world.states == ["retired", "active", "next"]
    world.now_s -= 40 * 86_400  # a time server sets it right, in the middle of a second rotation
    await world.wait(0)
    await world.wait(STEP_S - 1)
    assert world.states == ["retired", "active", "next"]
    await world.wait(1)
    assert world.states == ["gone", "retired", "active"]
    await world.wait(3_600 - STEP_S)
    assert world.states[-1] == "next"


async def test_a_second_command_makes_no_second_key(world: KeyWorld) -> None:
    await world.start()
    await world.keys.rotate("ann")
    await world.keys.rotate("bob")
    assert world.states == ["active", "next"]


async def test_a_rotation_goes_on_after_a_restart(world: KeyWorld) -> None:
    await world.start()
    await world.keys.rotate("ann")
    coming = world.published[1]
    await world.keys.close()
    await world.start()
    await world.wait(STEP_S)
    assert world.published[0] == coming
    old = await world.issue()
    await world.keys.close()
    await world.start()
    assert world.states == ["retired", "active"]
    assert world.is_believed(old)


async def test_what_was_due_while_the_gateway_was_down_is_done_at_its_start(
    world: KeyWorld,
) -> None:
    await world.start()
    await world.keys.rotate("ann")
    await world.keys.close()
    world.now_s += STEP_S
    await world.start()
    assert world.states == ["retired", "active"]


async def test_without_a_record_nothing_changes_and_no_key_is_left_behind(
    world: KeyWorld,
) -> None:
    await world.start()
    world.audit.poison()
    with pytest.raises(AuditError):
        await world.keys.rotate("ann")
    assert world.states == ["active"]
    assert world.key_files() == {"tokens.pem"}
    assert len(world.published) == 1


class FullDisk(Files):
    """A disk on which no ring can be replaced while it is `full`, and no file made."""

    def __init__(self) -> None:
        self.full = self.takes_files = False

    def replace(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "no space left on device")
        super().replace(path, data)

    def create(self, path: Path) -> int:
        if self.full and not self.takes_files:
            raise OSError(28, "no space left on device")
        return super().create(path)


@pytest.mark.parametrize("takes_files", [True, False])
async def test_a_ring_that_cannot_be_written_changes_nothing_and_is_tried_again(
    world: KeyWorld, *, takes_files: bool
) -> None:
    disk = FullDisk()
    await world.start(files=disk)
    disk.full, disk.takes_files = True, takes_files
    with pytest.raises(CountersignError) as caught:
        await world.keys.rotate("ann")
    assert (caught.value.code, caught.value.retryable) == ("key_ring_unavailable", True)
    assert (world.states, world.key_files()) == (["active"], {"tokens.pem"})
    disk.full = False
    await world.keys.rotate("ann")
    disk.full = True
    world.now_s += STEP_S
    with pytest.raises(CountersignError):
        await world.keys.turn()
    assert world.states == ["active", "next"]
    disk.full = False
    await world.wait(0)
    assert world.states == ["retired", "active"]


async def test_a_retired_key_finishes_what_it_signs_and_is_let_go(world: KeyWorld) -> None:
    await world.start()
    former = world.keys._signers[world.published[0]]  # noqa: SLF001 - who else would hold it
    await world.keys.rotate("ann")
    await world.wait(STEP_S)
    assert len(await former.sign(b"begun before")) == 64
    await world.wait(30)
    with pytest.raises(CountersignError, match="closed") as caught:
        await former.sign(b"")
    assert caught.value.code == "signer_unavailable"


async def test_a_lost_key_in_use_is_told_before_anything_is_served(world: KeyWorld) -> None:
    await world.start()
    (world.folder / "keys" / "tokens.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"tokens\.pem`, the token key in use, is missing"):
        await world.start()


async def test_another_key_under_the_name_of_the_one_in_use_is_told(world: KeyWorld) -> None:
    await world.start()
    path = world.folder / "keys" / "tokens.pem"
    path.unlink()
    create_token_key(path)
    with pytest.raises(ConfigurationError, match="another key than the ring"):
        await world.start()


async def test_a_lost_next_key_is_withdrawn(world: KeyWorld) -> None:
    await world.start()
    await world.keys.rotate("ann")
    (coming,) = world.keys.ring.find("next")
    (world.folder / "keys" / coming.source.removeprefix("file:")).unlink()
    await world.start()
    assert world.states[:2] == ["active", "gone"]
    assert coming.kid not in world.published
    await world.wait(STEP_S)  # it was asked for: another one takes its place
    assert world.states == ["retired", "gone", "active"]


async def test_files_of_others_beside_the_keys_are_left_alone(world: KeyWorld) -> None:
    await world.start()
    kept = ["tokens.backup.pem", "tokens.2026.pem", "tokens.pem.bak", "audit.pem"]
    left = ["tokens.0123456789abcdef.pem", "tokens.pem.0123456789abcdef.new"]
    for name in (*kept, *left):
        (world.folder / "keys" / name).write_text("of somebody")
    await world.start()
    assert world.key_files() == {"tokens.pem", *kept}


@pytest.mark.req("TOK-11")
async def test_a_ring_of_another_environment_does_not_start(world: KeyWorld) -> None:
    await world.start()
    with pytest.raises(ConfigurationError, match="belong to environment `test`, not `production`"):
        await world.start(environment="production")


@pytest.mark.req("TOK-11")
async def test_a_key_of_another_environment_does_not_start(world: KeyWorld) -> None:
    create_token_key(world.folder / "keys" / "tokens.pem", environment="staging")
    with pytest.raises(ConfigurationError, match="belongs to environment `staging`, not `test`"):
        await world.start()


@pytest.mark.req("TOK-11")
async def test_a_key_that_the_gateway_makes_bears_its_environment(world: KeyWorld) -> None:
    await world.start()
    await world.keys.rotate("ann")
    for name in world.key_files():
        text = (world.folder / "keys" / name).read_text()
        stamp, begin = text.splitlines()[:2]
        assert (stamp, begin[:11]) == ("# countersign environment: test", "-----BEGIN ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no ring of token keys"),
        ("{}", "no ring of token keys"),
        ('{"version":2,"ring":{"environment":"test"}}', "no ring of token keys"),
        ("\xff", "no ring of token keys"),
    ],
)
async def test_a_ring_that_cannot_be_read_does_not_start(
    world: KeyWorld, text: str, told: str
) -> None:
    await world.start()
    path = world.folder / "keys" / "tokens.ring.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=told):
        await world.start()


async def test_a_ring_that_others_may_change_does_not_start(world: KeyWorld) -> None:
    await world.start()
    (world.folder / "keys" / "tokens.ring.json").chmod(0o660)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        await world.start()


async def test_a_ring_with_two_active_keys_does_not_start(world: KeyWorld) -> None:
    await world.start()
    path = world.folder / "keys" / "tokens.ring.json"
    stored = json.loads(path.read_text())
    stored["ring"]["keys"].append({**stored["ring"]["keys"][0], "kid": "another"})
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigurationError, match="two active keys"):
        await world.start()


async def test_a_ring_that_is_no_file_does_not_start(world: KeyWorld) -> None:
    (world.folder / "keys" / "tokens.ring.json").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await world.start()


class CrashError(Exception):
    """The process is gone."""


class CrashingFiles(Files):
    """Ends the process before, or right after, the n-th thing that it does to the disk."""

    def __init__(self, count: int) -> None:
        self._left = count

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise CrashError

    def create(self, path: Path) -> int:
        self.step()
        return super().create(path)

    def write(self, descriptor: int, data: bytes) -> None:
        self.step()
        super().write(descriptor, data[: len(data) // 2])
        self.step()
        super().write(descriptor, data[len(data) // 2 :])

    def sync_directory(self, path: Path) -> None:
        self.step()
        super().sync_directory(path)
        self.step()

    def replace(self, path: Path, data: bytes) -> None:
        super().replace(path, data)
        self.step()


class CrashingWorld(KeyWorld):
    disk: CrashingFiles | None = None

    async def record(self, entry: Entry) -> Receipt:
        if self.disk is not None:
            self.disk.step()
        receipt = await super().record(entry)
        if self.disk is not None:
            self.disk.step()
        return receipt


async def rotate_until_crash(world: CrashingWorld, count: int) -> tuple[list[str], bool]:
    """Rotate once; return the tokens issued on the way, and whether it came to the end."""
    tokens: list[str] = []
    world.disk = CrashingFiles(count)
    try:
        await world.start(files=world.disk)
        await world.keys.rotate("ann")
        tokens.append(await world.issue())
        await world.wait(STEP_S)
        tokens.append(await world.issue())
        world.now_s += STEP_S - 100
        tokens.append(await world.issue())
        await world.wait(100)
    except CrashError:
        return tokens, False
    finally:
        world.disk = None
    return tokens, True


async def test_a_crash_at_any_step_of_a_rotation_costs_no_token_and_leaves_no_key(
    tmp_path: Path,
) -> None:
    count, whole = 0, False
    while not whole:
        count += 1
        world = CrashingWorld(tmp_path / str(count))
        await world.start()
        before = await world.issue()
        tokens, whole = await rotate_until_crash(world, count)
        await world.start()
        living = [t for t in (before, *tokens) if expiry_of(t) > world.now_s]
        assert all(world.is_believed(token) for token in living), count
        assert world.states.count("active") == 1
        assert world.is_believed(await world.issue())
        # And it can be ended: one key is left, in the ring and on the disk.
        if world.states.count("gone") == 0 and "retired" not in world.states:
            await world.keys.rotate("ann")
        await world.wait(STEP_S)
        await world.wait(STEP_S)
        live = world.keys.ring.find("next", "active", "retired")
        assert world.key_files() == {key.source.removeprefix("file:") for key in live}, count
        assert [key.state for key in live] == ["active"]
    assert count > 15


def expiry_of(token: str) -> int:
    """Tokens of these tests live for 300 s from their `jti`."""
    payload = token.split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    expires_at: int = said["exp"]
    return expires_at
