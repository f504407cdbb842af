"""Without the key-encryption key, a log that has values under it is not gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import build


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(build(str(words[0])), [str(word) for word in words])


@pytest.mark.req("AUD-06")
def test_a_key_that_was_not_restored_is_not_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    assert run("init", folder).exit_code == 0
    offline = ("--offline", "--config", folder / "countersign.yaml")
    kek = folder / "keys" / "kek"
    kek.unlink()
    assert run("kill", "status", *offline).exit_code == 0  # nothing is under one yet: it is made
    done = run("kill", "on", "--agent", "agent", "--reason", "case 7", *offline)
    assert done.exit_code == 0, done.stderr
    kept = kek.rename(tmp_path / "kek")
    refused = run("kill", "off", "--agent", "agent", "--reason", "case 7", *offline)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"audit.kek: `{kek}` is missing" in refused.stderr
    assert not kek.exists()
    kept.rename(kek)
    assert run("kill", "off", "--agent", "agent", "--reason", "case 7", *offline).exit_code == 0
