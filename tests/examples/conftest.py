"""The Acme example, running as its own process on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Acme:
    """A running server: where it listens and where its rows are."""

    url: str
    database: Path


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """Start the example server on a fresh database; stop it afterwards."""
    folder = tmp_path_factory.mktemp("acme")
    database, ready = folder / "shop.db", folder / "ready"
    command = [sys.executable, "-m", "examples.acme.server"]
    command += ["--db", str(database), "--ready-file", str(ready)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            greeting = process.stderr.readline()
            assert "listens on" in greeting, greeting + process.stderr.read()
            yield Acme(url=ready.read_text(encoding="utf-8"), database=database)
        finally:
            process.terminate()
