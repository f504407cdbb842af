from __future__ import annotations

import asyncio
import base64
import importlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import ModuleType
from urllib.parse import quote

import keyring
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.backend import KeyringBackend

from connectors import secret_sources
from connectors.credential_http import CredentialProblem
from connectors.secret_sources import SecretSources, read_private_file
from gateway.aside import Aside
from gateway.core.credentials import NEVER_NS, build_needles, holds_any

pytestmark = pytest.mark.req("TOK-09")

S = 1_000_000_000


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


async def refusal(sources: SecretSources, reference: str) -> str:
    with pytest.raises(CredentialProblem) as caught:
        await sources.read(reference, 0)
    assert caught.value.failure.reason == "missing"
    return caught.value.failure.detail


async def test_a_variable_is_read_and_never_expires() -> None:
    secret = await SecretSources({"A": " s3cr3t\n"}).read("env:A", 0)
    assert (secret.value, secret.expires_ns) == ("s3cr3t", NEVER_NS)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [({}, "`A` is not set"), ({"A": " "}, "is empty"), ({"A": "a\r\nX: b"}, "no text")],
)
async def test_a_variable_without_a_secret_is_told(environ: dict[str, str], problem: str) -> None:
    assert problem in await refusal(SecretSources(environ), "env:A")


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, sources = write(tmp_path / "s", "first-secret\n"), SecretSources({})
    reference = f"file:{path}"
    assert (await sources.read(reference, 0)).value == "first-secret"
    write(path, "other-secret\n")
    assert (await sources.read(reference, S - 1)).value == "first-secret"
    assert (await sources.read(reference, S)).value == "other-secret"


async def test_a_file_that_was_taken_away_is_no_secret_any_more(tmp_path: Path) -> None:
    path, sources = write(tmp_path / "s", "first-secret"), SecretSources({})
    found = await sources.read(f"file:{path}", 0)
    assert found.expires_ns <= 5 * S
    path.unlink()
    with pytest.raises(CredentialProblem):
        await sources.read(f"file:{path}", S)


@pytest.mark.parametrize(
    ("mode", "problem"),
    [(0o644, "read by everybody"), (0o620, "changed by others"), (0o602, "changed by others")],
)
def test_a_file_that_strangers_can_use_is_refused(tmp_path: Path, mode: int, problem: str) -> None:
    with pytest.raises(CredentialProblem, match=problem):
        read_private_file(write(tmp_path / "s", "secret", mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_file_of_the_owner_or_a_group_is_read(tmp_path: Path, mode: int) -> None:
    assert read_private_file(write(tmp_path / "s", "secret", mode)) == "secret"


def test_what_a_container_runtime_mounts_may_be_read_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_sources, "_MOUNTED", (f"{tmp_path}/",))
    assert read_private_file(write(tmp_path / "s", "secret", 0o444)) == "secret"


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    (tmp_path / "b").chmod(0o600)
    for path in (tmp_path, tmp_path / "none", tmp_path / "b"):
        with pytest.raises(CredentialProblem):
            read_private_file(path)


class Drawer(KeyringBackend):
    """A keyring of its own, through the library's public interface."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise RuntimeError("locked: canary-in-an-error")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    before, drawer = keyring.get_keyring(), Drawer()
    keyring.set_keyring(drawer)
    yield drawer
    keyring.set_keyring(before)


async def test_the_keyring_is_asked(drawer: Drawer) -> None:
    keyring.set_password("crm", "team/gw", "keyring-secret")
    found = await SecretSources({}).read("keyring:crm/team/gw", 0)
    assert found.value == "keyring-secret"
    assert found.expires_ns == 300 * S


async def test_a_keyring_without_the_entry_is_told(drawer: Drawer) -> None:
    assert "nothing for `crm/gw`" in await refusal(SecretSources({}), "keyring:crm/gw")


async def test_a_keyring_that_fails_is_told_without_its_words(drawer: Drawer) -> None:
    drawer.locked = True
    with pytest.raises(CredentialProblem) as caught:
        await SecretSources({}).read("keyring:crm/gw", 0)
    assert caught.value.failure.reason == "unreachable"
    assert "canary" not in str(caught.value)


async def test_a_keyring_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert "install `countersign[keyring]`" in await refusal(SecretSources({}), "keyring:a/b")


async def test_a_file_is_read_anew_after_the_clock_was_set_back(tmp_path: Path) -> None:
    path = write(tmp_path / "secret", "before")
    sources = SecretSources({})
    assert (await sources.read(f"file:{path}", 3600 * S)).value == "before"
    write(path, "after")
    assert (await sources.read(f"file:{path}", 0)).value == "after"


async def test_a_reader_that_hangs_is_not_waited_for_and_holds_up_nothing_else() -> None:
    aside, released = Aside(stuck_max=2), Event()

    def hang() -> str:
        released.wait(10)
        return "too late"

    for _ in range(3):  # the third is not even begun
        with pytest.raises(TimeoutError):
            await aside.run(hang, timeout_s=0.01)
    assert await asyncio.to_thread(lambda: "served") == "served"
    released.set()
    for _ in range(1000):
        with suppress(TimeoutError):
            assert await aside.run(lambda: "at once", timeout_s=5) == "at once"
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never recovered")


async def test_what_a_reader_raises_is_raised_where_it_was_asked_for() -> None:
    def fail() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await Aside().run(fail, timeout_s=5)


async def test_a_vault_that_is_not_configured_is_told() -> None:
    assert "VAULT_ADDR" in await refusal(SecretSources({}), "vault:kv/a#b")


# What is looked for in answers

SECRET = 'p"ä/+s? w0rd-0123'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.b64encode(b"u:" + SECRET.encode() + b"\n").decode(),
    ],
)
def test_a_secret_is_found_in_its_usual_forms(form: str) -> None:
    assert holds_any(f'{{"text":"x{form}x"}}'.encode(), build_needles([SECRET]))


ESCAPES = {
    "php": {"/": "\\/"},
    "dotnet": {c: f"\\u00{ord(c):02X}" for c in "+&'<>`"} | {'\\"': "\\u0022"},
    "gson": {c: f"\\u00{ord(c):02x}" for c in "=&'<>"},
}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("encoder", ESCAPES)
@pytest.mark.parametrize("secret", ["aB3/xY9+kQ7=&<'`>z", 'a"b+c/d\\e=f&g', "bGV0IG1lLy4rPQ+/=="])
def test_a_secret_is_found_however_an_upstream_escapes_it(
    secret: str, encoder: str, depth: int
) -> None:
    text = f"I was sent {secret} just now"
    for _ in range(depth):  # a text that holds JSON whose text holds JSON
        text = json.dumps({"text": text})
        for char, escaped in ESCAPES[encoder].items():
            text = text.replace(char, escaped)
    assert holds_any(text.encode(), build_needles([secret]))


@given(st.binary(max_size=4), st.text("abcXYZ0189+/=~", min_size=8, max_size=40), st.binary())
def test_a_secret_is_found_in_base64_wherever_it_stands(
    before: bytes, secret: str, after: bytes
) -> None:
    encoded = base64.b64encode(before + secret.encode() + after)
    assert holds_any(encoded, build_needles([secret]))


def test_a_short_secret_is_not_looked_for() -> None:
    assert build_needles(["1234567", ""]) == ()


def test_other_text_is_let_through() -> None:
    assert not holds_any(b"an ordinary answer, secret-free", build_needles([SECRET]))
    assert not holds_any(rb'{"a":"\u002B\/\\u00e9"}', build_needles([SECRET, "\\" * 8]))
