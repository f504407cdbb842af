"""Token keys in an HSM: found, used out of process, lost and got again; SoftHSM, a real module."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.adapters.keys import pkcs11_link
from gateway.adapters.keys.pkcs11_signer import Pkcs11Signer
from gateway.adapters.keys.pkcs11_worker import FAULT, OPEN, SIGN, Key, answer
from gateway.core.errors import ConfigurationError, CountersignError
from tests.integration.keys.hsm import PIN, SoftHsm, find_library
from tests.unit.tokens.key_world import STEP_S, KeyWorld

pytestmark = [pytest.mark.req("TOK-12")]

ENVIRON = {"HSM_PIN": PIN}
SHORT_S = 0.4


@pytest.fixture
async def signer(hsm: SoftHsm) -> AsyncIterator[Pkcs11Signer]:
    found = await Pkcs11Signer.open(hsm.uri("one"), environ=ENVIRON, deadline_s=SHORT_S)
    yield found
    await found.close()


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """A token with keys that no access token is signed with."""
    found = SoftHsm(tmp_path_factory.mktemp("stocked") / "hsm", find_library())
    found.make_token()
    found.put("one")
    found.put("large", number="02", key=ec.generate_private_key(ec.SECP384R1()))
    found.put("rsa", number="03", key=rsa.generate_private_key(65537, 2048))
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


async def sign_again(signer: Pkcs11Signer) -> bytes:
    """Return the first signature that can be had again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await signer.sign(b"again")
            except CountersignError as error:
                if (error.code, error.retryable) != ("signer_unavailable", True):
                    raise
                await asyncio.sleep(0.005)


async def test_a_killed_process_signs_nothing_and_is_started_again(signer: Pkcs11Signer) -> None:
    former, kid = signer.pid, signer.kid
    os.kill(former, signal.SIGKILL)
    await until(lambda: signer.pid != former)
    assert len(await sign_again(signer)) == 64
    assert (signer.kid, signer.pid == former) == (kid, False)


async def test_a_module_that_hangs_is_given_up_at_the_deadline_and_blocks_nothing(
    signer: Pkcs11Signer,
) -> None:
    former = signer.pid
    os.kill(former, signal.SIGSTOP)
    loop, turns = asyncio.get_running_loop(), 0
    began = loop.time()
    waiting = [asyncio.create_task(signer.sign(b"said")) for _ in range(5)]
    while not all(task.done() for task in waiting):
        turns += 1
        await asyncio.sleep(0.005)
    assert loop.time() - began < 10 * SHORT_S
    assert turns > 10
    for task in waiting:
        error = task.exception()
        assert isinstance(error, CountersignError)
        assert error.code == "signer_unavailable"
    assert len(await sign_again(signer)) == 64
    assert signer.pid != former


async def test_what_was_asked_of_a_process_that_dies_fails_at_once(signer: Pkcs11Signer) -> None:
    os.kill(signer.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(signer.sign(b"said"))
    await asyncio.sleep(0)
    os.kill(signer.pid, signal.SIGKILL)
    with pytest.raises(CountersignError, match="its process ended"):
        await waiting


async def test_a_token_that_refuses_the_pin_is_not_asked_again(hsm: SoftHsm) -> None:
    environ = dict(ENVIRON)
    signer = await Pkcs11Signer.open(hsm.uri("one"), environ=environ, deadline_s=SHORT_S)
    environ["HSM_PIN"] = "wrong-pin"
    os.kill(signer.pid, signal.SIGKILL)
    await until(lambda: signer._reviving is not None and signer._reviving.done())  # noqa: SLF001
    assert signer.pid == 0
    with pytest.raises(CountersignError) as caught:
        await signer.sign(b"said")
    assert caught.value.code == "signer_unavailable"
    await signer.close()


async def test_another_key_under_the_same_name_is_not_taken_for_the_first(hsm: SoftHsm) -> None:
    hsm.put("two", number="02")
    environ = dict(ENVIRON)
    signer = await Pkcs11Signer.open(hsm.uri("one"), environ=environ, deadline_s=SHORT_S)
    signer._key = (await open_and_close(hsm.uri("two")))._key  # type: ignore[misc]  # noqa: SLF001
    former = signer.pid
    os.kill(former, signal.SIGKILL)
    await until(lambda: signer._link is None)  # noqa: SLF001
    for _ in range(20):
        with pytest.raises(CountersignError):
            await signer.sign(b"said")
        await asyncio.sleep(0.01)
    await signer.close()


async def open_and_close(uri: str) -> Pkcs11Signer:
    signer = await Pkcs11Signer.open(uri, environ=ENVIRON)
    await signer.close()
    return signer


async def test_a_pin_and_our_own_secrets_are_in_no_list_of_processes(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_PIN", PIN)
    monkeypatch.setenv("COUNTERSIGN__X", "canary")
    signer = await Pkcs11Signer.open(hsm.uri("one"), environ=os.environ)
    for name in ("cmdline", "environ"):
        shown = await asyncio.to_thread(Path(f"/proc/{signer.pid}/{name}").read_bytes)
        assert PIN.encode() not in shown
        assert b"canary" not in shown
    await signer.close()


async def test_a_pin_may_stand_in_a_file(hsm: SoftHsm, tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(f"{PIN}\n")
    path.chmod(0o640)
    uri = hsm.uri("one").replace("env:HSM_PIN", f"file:{path}")
    assert len((await open_and_close(uri)).kid) == 43
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        await open_and_close(uri)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await open_and_close(uri)


async def test_keys_of_one_label_are_told_apart_by_their_ids(hsm: SoftHsm) -> None:
    hsm.put("one", number="02")
    with pytest.raises(ConfigurationError, match="several private keys have this name; add `id`"):
        await open_and_close(hsm.uri("one"))
    first = await open_and_close(hsm.uri(number="01"))
    second = await open_and_close(hsm.uri("one", number="02"))
    assert first.kid != second.kid


async def test_a_token_may_be_named_by_its_serial_number(hsm: SoftHsm) -> None:
    by_label = await open_and_close(hsm.uri("one"))
    by_serial = hsm.uri("one").replace("token=gateway", f"serial={hsm.serial()}")
    assert (await open_and_close(by_serial)).kid == by_label.kid


async def test_halves_that_do_not_belong_together_are_told(hsm: SoftHsm) -> None:
    hsm.put("two", number="02")
    hsm.change(
        "find(ObjectClass.PUBLIC_KEY).destroy();"
        "find(ObjectClass.PUBLIC_KEY, 'two').copy({Attribute.LABEL: 'one', Attribute.ID: b'1'})"
    )
    with pytest.raises(ConfigurationError, match="is not that of the private one"):
        await open_and_close(hsm.uri("one"))


async def test_a_key_without_its_public_half_is_told(hsm: SoftHsm) -> None:
    hsm.change("find(ObjectClass.PUBLIC_KEY).destroy()")
    with pytest.raises(ConfigurationError, match="has no public key of this name"):
        await open_and_close(hsm.uri("one"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("gateway;object", "other;object"), "there is no such token"),
        (("object=one", "object=none"), "has no private key of this name"),
        (("object=one", "object=large"), "the key is no P-256 key"),
        (("object=one", "object=rsa"), "the key is no P-256 key"),
        (("libsofthsm2.so", "none.so"), "`module-path` cannot be loaded"),
        (("env:HSM_PIN", "env:WRONG"), "the token refuses the PIN"),
        (("&pin-source=env:HSM_PIN", ""), "has no private key of this name; log in"),
    ],
)
async def test_a_key_that_cannot_be_had_is_told(
    stocked: SoftHsm, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], told: str
) -> None:
    hsm = stocked
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.conf))
    with pytest.raises(ConfigurationError) as caught:
        await Pkcs11Signer.open(
            hsm.uri("one").replace(*change), environ={**ENVIRON, "WRONG": "7654321"}
        )
    assert told in str(caught.value)
    assert not any(pin in str(caught.value) for pin in (PIN, "7654321"))


async def test_tokens_of_one_label_are_told(hsm: SoftHsm) -> None:
    hsm.make_token()
    with pytest.raises(ConfigurationError, match="add its `serial`"):
        await open_and_close(hsm.uri("one"))


async def test_more_signatures_than_can_wait_are_refused(
    signer: Pkcs11Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pkcs11_link, "PENDING_MAX", 3)
    found = await asyncio.gather(*(signer.sign(b"x") for _ in range(6)), return_exceptions=True)
    errors = [one for one in found if isinstance(one, CountersignError)]
    assert len(errors) == 3
    assert all("too many" in str(error) for error in errors)


ROGUES = {
    "out of order": "FRAME.pack(64, number + 7, 0) + bytes(64)",
    "another length": "FRAME.pack(3, number, 0) + b'abc'",
    "a false signature": "FRAME.pack(64, number, 0) + bytes(63) + b'1'",
    "nothing": "b''",
    "a fault": "FRAME.pack(4, number, 1) + b'Boom'",
}
ROGUE = """
import socket, struct, sys
FRAME = struct.Struct("<IQB")
connection = socket.socket(fileno=int(sys.argv[1]))
while head := connection.recv(FRAME.size):
    length, number, kind = FRAME.unpack(head)
    connection.recv(length)
    if kind == 0:
        point = bytes.fromhex("{point}")
        connection.sendall(FRAME.pack(65, number, 0) + point)
    else:
        connection.sendall({said})
        if {said} == b"":
            break
"""


@pytest.mark.parametrize("said", ROGUES)
async def test_a_module_that_answers_falsely_is_never_believed(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    point = b"\x04" + public.x.to_bytes(32, "big") + public.y.to_bytes(32, "big")
    program = tmp_path / "rogue.py"
    program.write_text(ROGUE.format(point=point.hex(), said=ROGUES[said]))
    monkeypatch.setattr(pkcs11_link, "_program", lambda: str(program))
    with pytest.raises(ConfigurationError):
        await Pkcs11Signer.open(hsm.uri("one"), environ=ENVIRON, deadline_s=SHORT_S)


SLOW = """
import socket, struct, sys, time
sys.path.insert(0, {root!r})
from gateway.adapters.keys import pkcs11_worker
answer = pkcs11_worker.answer
def late(key, kind, payload):
    if payload == b"slow":
        time.sleep(0.15)
    return answer(key, kind, payload)
pkcs11_worker.answer = late
pkcs11_worker.main()
"""


async def test_a_slow_module_that_answers_is_not_killed_for_its_queue(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "slow.py"
    program.write_text(SLOW.format(root=str(Path(pkcs11_link.__file__).parents[2])))
    monkeypatch.setattr(pkcs11_link, "_program", lambda: str(program))
    signer = await Pkcs11Signer.open(hsm.uri("one"), environ=ENVIRON, deadline_s=SHORT_S)
    pid = signer.pid
    asked = [asyncio.create_task(signer.sign(b"slow")) for _ in range(8)]
    left = asyncio.create_task(signer.sign(b"slow"))
    await asyncio.sleep(0)
    left.cancel()  # its caller has gone
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], bytes)
    assert isinstance(found[-1], CountersignError)
    assert len(await sign_again(signer)) == 64
    assert signer.pid == pid
    await signer.close()


async def test_a_process_that_cannot_be_started_is_told(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ConfigurationError, match="cannot be started"):
        await Pkcs11Signer.open(hsm.uri("one"), environ=ENVIRON)


def test_a_worker_says_no_more_of_a_fault_than_its_kind() -> None:
    assert answer(Key(), SIGN, b"data") == (FAULT, b"AttributeError")
    assert answer(Key(), OPEN, b"no json") == (FAULT, b"JSONDecodeError")


@pytest.mark.req("TOK-07")
async def test_keys_in_an_hsm_take_over_from_each_other(hsm: SoftHsm, tmp_path: Path) -> None:
    hsm.put("two", number="02")
    world = KeyWorld(tmp_path)
    await world.start(hsm.uri("one"), hsm.uri("two"), environ=ENVIRON)
    first, second = world.published
    await world.wait(STEP_S)
    old = await world.issue()
    begun = [asyncio.create_task(world.issue()) for _ in range(20)]
    await asyncio.sleep(0)
    await world.keys.rotate("ann")
    assert world.published == [second, first]
    tokens = [old, await world.issue(), *await asyncio.gather(*begun)]
    assert all(world.is_believed(token) for token in tokens)
    await world.wait(STEP_S)
    assert world.published == [second]
    await world.keys.close()


@pytest.mark.req("TOK-07")
async def test_without_its_hsm_a_gateway_issues_no_token_and_believes_those_it_issued(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    world = KeyWorld(tmp_path)
    await world.start(hsm.uri("one"), environ=ENVIRON)
    token = await world.issue()
    (signer,) = world.keys._signers.values()  # noqa: SLF001 - its process is to be killed
    assert isinstance(signer, Pkcs11Signer)
    os.kill(signer.pid, signal.SIGSTOP)
    os.kill(signer.pid, signal.SIGKILL)
    with pytest.raises(CountersignError) as caught:
        await world.issue()
    assert caught.value.code == "signer_unavailable"
    assert world.is_believed(token)
    await world.keys.close()
