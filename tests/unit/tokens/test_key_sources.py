"""Keys that others make: found by URI, followed, and told apart from those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.adapters.keys.key_uris import check_uri, shown
from gateway.adapters.keys.pkcs11_uri import Pkcs11Key, parse_pkcs11_uri
from gateway.adapters.keys.token_keys import create_token_key, read_token_key
from gateway.core.approvals.declined import Declined
from gateway.core.errors import ConfigurationError
from tests.unit.tokens.key_world import STEP_S, KeyWorld

pytestmark = pytest.mark.req("TOK-07")

PKCS11 = "pkcs11:token=gateway;object=one?module-path=/usr/lib/m.so&pin-source=env:PIN"


@pytest.fixture
def world(tmp_path: Path) -> KeyWorld:
    return KeyWorld(tmp_path)


def make_pem(curve: ec.EllipticCurve | None = None) -> str:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def kid_of(pem: str) -> str:
    return str(read_token_key(pem.encode(), "").kid)


ONE, TWO = make_pem(), make_pem()
ENVIRON = {"ONE": ONE, "TWO": TWO}


async def test_the_first_key_of_the_list_signs_and_the_others_stand_by(world: KeyWorld) -> None:
    await world.start("env:ONE", "env:TWO", environ=ENVIRON)
    assert world.published == [kid_of(ONE), kid_of(TWO)]
    assert world.states == ["active", "next"]
    assert world.is_believed(await world.issue())
    await world.wait(100 * STEP_S)
    assert world.states == ["active", "next"]  # nobody asked


async def test_a_standby_key_takes_over_at_once_when_every_cache_knows_it(world: KeyWorld) -> None:
    await world.start("env:ONE", "env:TWO", environ=ENVIRON)
    await world.wait(STEP_S)
    old = await world.issue()
    assert await world.keys.rotate("ann") is None
    assert world.published == [kid_of(TWO), kid_of(ONE)]
    assert world.is_believed(old)
    assert world.records()[-3]["state"] == "next"  # that somebody asked
    assert "by" in world.records()[-3]


async def test_a_standby_key_takes_over_by_age(world: KeyWorld) -> None:
    await world.start("env:ONE", "env:TWO", environ=ENVIRON, max_age_s=3_600)
    await world.wait(3_600)
    assert world.states == ["retired", "active"]


async def test_a_key_that_is_gone_never_signs_again_however_long_it_is_listed(
    world: KeyWorld,
) -> None:
    await world.start("env:ONE", "env:TWO", environ=ENVIRON)
    await world.wait(STEP_S)
    await world.keys.rotate("ann")
    await world.wait(STEP_S)
    assert world.states == ["gone", "active"]
    await world.start("env:ONE", "env:TWO", environ=ENVIRON)
    assert world.states == ["gone", "active"]
    declined = await world.keys.rotate("ann")
    assert isinstance(declined, Declined)
    assert declined.code == "token_key_missing"
    with pytest.raises(ConfigurationError, match="no key can sign"):
        await world.start("env:ONE", environ=ENVIRON)


async def test_an_old_key_without_a_successor_goes_on_signing(world: KeyWorld) -> None:
    await world.start("env:ONE", environ=ENVIRON, max_age_s=3_600)
    await world.wait(3_600)
    await world.wait(3_600)
    assert world.is_believed(await world.issue())
    assert world.states == ["active"]


async def test_a_key_replaced_at_a_start_takes_over_and_old_tokens_live_on(
    world: KeyWorld,
) -> None:
    await world.start("env:KEY", environ={"KEY": ONE})
    old = await world.issue()
    await world.start("env:KEY", environ={"KEY": TWO})
    assert world.published == [kid_of(TWO), kid_of(ONE)]
    assert (world.is_believed(old), world.is_believed(await world.issue())) == (True, True)


async def test_a_gateway_may_change_from_its_own_keys_to_others_and_back(world: KeyWorld) -> None:
    await world.start()
    own = await world.issue()
    await world.start("env:ONE", environ=ENVIRON)
    assert world.is_believed(own)
    assert world.states == ["retired", "active"]
    await world.wait(STEP_S)
    assert world.key_files() == set()  # what the gateway made, it destroys
    others = await world.issue()
    await world.start()
    assert world.is_believed(others)
    assert world.states == ["gone", "retired", "active"]
    assert world.key_files() == {"tokens.pem"}


async def test_one_key_under_two_names_is_one_key(world: KeyWorld) -> None:
    await world.start("env:ONE", "env:ALSO", environ={"ONE": ONE, "ALSO": ONE})
    assert world.states == ["active"]
    assert world.is_believed(await world.issue())


async def test_a_file_holds_one_key(world: KeyWorld, tmp_path: Path) -> None:
    path = tmp_path / "given.pem"
    path.write_text(ONE)
    path.chmod(0o600)
    await world.start(f"file:{path}")
    assert world.published == [kid_of(ONE)]
    assert path.read_text() == ONE


def put(folder: Path, name: str, pem: str) -> None:
    """Put a secret as Kubernetes does: a link into a hidden folder that is swapped."""
    data = folder / "..data"
    data.mkdir(parents=True, exist_ok=True)
    (data / name).write_text(pem)
    (data / name).chmod(0o440)
    if not (folder / name).exists():
        (folder / name).symlink_to(Path("..data") / name)


async def test_a_folder_of_secrets_is_followed_while_the_gateway_runs(
    world: KeyWorld, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    put(folder, "2026-01", ONE)
    await world.start(f"dir:{folder}")
    assert world.published == [kid_of(ONE)]
    put(folder, "2026-02", TWO)
    await world.wait(10)
    assert world.published == [kid_of(ONE), kid_of(TWO)]
    await world.wait(STEP_S)
    await world.keys.rotate("ann")
    assert world.published == [kid_of(TWO), kid_of(ONE)]
    (folder / "2026-01").unlink()
    await world.wait(10)
    assert world.states == ["retired", "active"]
    three = make_pem()
    put(folder, "2026-03", three)
    await world.wait(10)
    (folder / "2026-03").unlink()
    await world.wait(10)
    assert world.states == ["retired", "active", "gone"]  # taken away before it ever signed
    assert kid_of(three) not in world.published


async def test_a_bad_file_in_a_folder_stops_no_rotation(world: KeyWorld, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    put(folder, "2026-01", ONE)
    put(folder, "2026-02", TWO)
    await world.start(f"dir:{folder}")
    await world.keys.rotate("ann")
    put(folder, "notes", "no key")
    await world.wait(STEP_S)
    assert world.published[0] == kid_of(TWO)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("env:NONE", "the variable `NONE` is not set"),
        ("env:P384", "`P384` is not an unencrypted P-256 key"),
        ("env:TEXT", "`TEXT` is not an unencrypted P-256 key"),
        ("file:{folder}/none.pem", "none.pem` cannot be read"),
        ("file:{folder}/open.pem", "can be read by others"),
        ("dir:{folder}/none", "none` cannot be read"),
        ("dir:{folder}/empty", "empty` holds no key"),
        ("dir:{folder}/open", "can be read by others"),
        ("pkcs11:token=t;object=o?module-path=/m.so&pin-source=env:NONE", "`NONE` is not set"),
    ],
)
async def test_a_key_that_cannot_be_used_is_told(
    world: KeyWorld, tmp_path: Path, uri: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "open").mkdir()
    for path in (tmp_path / "open.pem", tmp_path / "open" / "one"):
        path.write_text(ONE)
        path.chmod(0o604)
    environ = {"ONE": ONE, "P384": make_pem(ec.SECP384R1()), "TEXT": "no key"}
    with pytest.raises(ConfigurationError) as caught:
        await world.start("env:ONE", uri.format(folder=tmp_path), environ=environ)
    assert str(caught.value).startswith("tokens.keys: ")
    assert told in str(caught.value)
    assert not any(line in str(caught.value) for line in ONE.splitlines())


@pytest.mark.req("TOK-11")
@pytest.mark.parametrize("kind", ["file", "dir", "env"])
async def test_a_given_key_of_another_environment_does_not_start(
    world: KeyWorld, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "given" / "one.pem"
    create_token_key(path, environment="staging")
    uri = {"file": f"file:{path}", "dir": f"dir:{path.parent}", "env": "env:KEY"}[kind]
    with pytest.raises(ConfigurationError, match="environment `staging`, not `test`"):
        await world.start(uri, environ={"KEY": path.read_text()})


@pytest.mark.parametrize(
    "uri", ["file:/k.pem", "file:k.pem", "dir:/run/secrets", "env:TOKEN_KEY", PKCS11]
)
def test_a_source_of_a_known_scheme_is_fine(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize("uri", ["", "k.pem", "file:", "dir:", "env:", "env:A-B", "vault:x"])
def test_a_source_of_no_known_scheme_is_told(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        check_uri(uri)


def test_a_pkcs11_uri_is_read() -> None:
    assert parse_pkcs11_uri(PKCS11) == Pkcs11Key(
        module_path="/usr/lib/m.so", token="gateway", object="one", pin_source="env:PIN"
    )
    uri = "pkcs11:serial=0a1b;id=%01%ff;type=private?module-path=/a%20b.so&pin-source=file:/p"
    assert parse_pkcs11_uri(uri) == Pkcs11Key(
        module_path="/a b.so", serial="0a1b", id=b"\x01\xff", pin_source="file:/p"
    )


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("pkcs11:", "module-path"),
        ("pkcs11:token=t;object=o", "module-path"),
        ("pkcs11:token=t;object=o?module-path=m.so", "module-path"),
        ("pkcs11:object=o?module-path=/m.so", "names no token"),
        ("pkcs11:token=t?module-path=/m.so", "names no key"),
        ("pkcs11:token=t;object=o;type=public?module-path=/m.so", "must be `private`"),
        ("pkcs11:token=t;token=u;object=o?module-path=/m.so", "twice"),
        ("pkcs11:token=t;object=o?module-path=/m.so&pin-value=1234", "`pin-source=env:NAME`"),
        ("pkcs11:token=t;object=o?module-path=/m.so&pin-source=1234", "`env:NAME` or `file:PATH`"),
        ("pkcs11:token=t;object=o?module-name=m", "by `module-path`"),
        ("pkcs11:token=t;slot-id=1;object=o?module-path=/m.so", "`serial`"),
        ("pkcs11:token=t;object?module-path=/m.so", "`object` is not understood"),
        ("pkcs11:token=%ff;object=o?module-path=/m.so", "not UTF-8"),
        ("pkcs11:token=%0;object=o?module-path=/m.so", "two hex digits"),
        ("pkcs11:token=t;object=%00?module-path=/m.so", "NUL"),
    ],
)
def test_a_pkcs11_uri_that_names_no_single_key_is_told(uri: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_pkcs11_uri(uri)
    assert told in str(caught.value)
    assert "1234" not in str(caught.value)


def test_where_a_pin_is_kept_is_not_shown() -> None:
    assert shown(PKCS11) == "pkcs11:token=gateway;object=one"
    assert shown("file:/k.pem") == "file:/k.pem"
