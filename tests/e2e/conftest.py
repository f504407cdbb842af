"""Acme, the stub and the desk behind a real `countersign serve`, shared as far as tests can share.

Every gateway that was started here is stopped, its log verified, and its log lines and records are
searched for secrets, whatever the tests themselves looked at.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Zygote
from tests.e2e.served import Served
from tests.e2e.site import DESK, ROOT, Site, list_over_http, list_over_stdio
from tests.e2e.stub import Stub

CANARY = b"canary"
"""Part of every secret and of every argument that no log may show."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here listens and connects on loopback."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.network)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1"]))


class Acme:
    """The example's back office, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.database, ready = folder / "shop.db", folder / "ready"
        command = [sys.executable, "-m", "examples.acme.server"]
        command += ["--db", str(self.database), "--ready-file", str(ready)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        greeting = self.process.stderr.readline()
        assert "listens on" in greeting, greeting + self.process.stderr.read()
        self.url = ready.read_text(encoding="utf-8")

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return len(self.find(table))

    def find(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table."""
        with closing(sqlite3.connect(self.database)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - named by a test
            return [dict(row) for row in found]

    def counts(self) -> dict[str, int]:
        """Return the number of rows of every table that a call could write to."""
        return {name: self.rows(name) for name in ("refunds", "notes", "email_outbox", "orders")}

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Iterator[Acme]:
    """Start Acme, while the zygote imports what it needs."""
    running = Acme(tmp_path_factory.mktemp("acme"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def acme_listing(acme: Acme) -> list[bytes]:
    return list_over_http(acme.url)


@pytest.fixture(scope="session")
def desk_listing() -> list[bytes]:
    return list_over_stdio(DESK)


@pytest.fixture(scope="session")
def stub() -> Iterator[Stub]:
    running = Stub()
    yield running
    running.stop()


Build = Callable[..., Site]
Start = Callable[..., Served]


@pytest.fixture(scope="session")
def build_site(
    tmp_path_factory: pytest.TempPathFactory, acme: Acme, acme_listing: list[bytes], stub: Stub
) -> Build:
    """Return a maker of sites, with Acme and the stub unless `urls` says else."""

    def build(**settings: Any) -> Site:  # noqa: ANN401 - sections of the configuration
        urls = settings.pop("urls", {"acme": acme.url, "stub": stub.url})
        listings = {"acme": acme_listing, "stub": stub.listing()} | settings.pop("listings", {})
        return Site(tmp_path_factory.mktemp("site"), urls=urls, listings=listings, **settings)

    return build


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def start_shared(zygote: Zygote) -> Iterator[Start]:
    """Return a starter of gateways; see what this module's docstring says of their end.

    Without a `step` it is `countersign serve` as people start it. With one, starting is faster.
    """
    started: list[Served] = []

    def run(site: Site, *, step: str | None = None) -> Served:
        served = Served(site, None if step is None else zygote.start(site, step))
        started.append(served)
        return served

    yield run
    for served in started:
        served.stop()
    for served in {served.site.path: served for served in started}.values():
        check_silence(served.site)
        if served.process.poll() == 0:  # not one that was left with a torn log
            served.verify()


def stopping(start_shared: Start) -> Iterator[Start]:
    """Yield a starter of gateways that end when this is resumed."""
    started: list[Served] = []

    def run(site: Site, *, step: str | None = None) -> Served:
        started.append(start_shared(site, step=step))
        return started[-1]

    yield run
    for served in started:
        served.stop()


@pytest.fixture(scope="module")
def start_here(start_shared: Start) -> Iterator[Start]:
    """Return a starter of gateways that end with the file: each costs time while it lives."""
    yield from stopping(start_shared)


@pytest.fixture
def start(start_shared: Start) -> Iterator[Start]:
    """Return a starter of gateways that end with the test."""
    yield from stopping(start_shared)


def check_silence(site: Site) -> None:
    """Fail where a secret or an argument stands in a log line or in the chain."""
    for file in (site.folder / "stderr.log", *site.audit.glob("*.jsonl")):
        if file.exists():
            for line in file.read_bytes().splitlines():
                assert CANARY not in line.lower(), f"{file}: {line!r}"


@pytest.fixture(scope="session")
def house(build_site: Build, start_shared: Start, desk_listing: list[bytes]) -> Served:
    """The gateway that most tests share: Acme, the stub and the desk, as in production."""
    site = build_site(desk=True, listings={"desk": desk_listing})
    return start_shared(site, step="never").wait_ready()
