"""A log is gone on with under its own signing key only, and whoever lacks it is told what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import build


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(build(str(words[0])), [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway's folder whose log has been begun."""
    folder = tmp_path / "gateway"
    assert run("init", folder).exit_code == 0
    assert run("keys", "list", "--offline", "--config", folder / "countersign.yaml").exit_code == 0
    return folder


@pytest.mark.req("AUD-07")
def test_a_signing_key_that_was_not_restored_is_not_made_anew(folder: Path) -> None:
    key, asked = folder / "keys" / "audit.pem", ("keys", "list", "--offline", "--config")
    kept = key.rename(folder / "kept.pem")
    refused = run(*asked, folder / "countersign.yaml")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"audit.key: `{key}` is missing, and the log in `{folder / 'audit'}`" in refused.stderr
    assert "begin a new log" in refused.stderr
    assert not key.exists()
    kept.rename(key)
    assert run(*asked, folder / "countersign.yaml").exit_code == 0


@pytest.mark.req("AUD-07")
def test_a_log_under_another_key_is_not_called_damaged(folder: Path) -> None:
    key, asked = folder / "keys" / "audit.pem", ("keys", "rotate", "--offline", "--config")
    before = key.read_bytes()
    assert run(*asked, folder / "countersign.yaml").exit_code == 0
    vkey = (folder / "audit" / "log.vkey").read_text().splitlines()[-1]
    name, key_id, _ = vkey.split("+", 2)
    key.write_bytes(before)
    refused = run(*asked, folder / "countersign.yaml")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"goes on under the key `{name}+{key_id}`, and the signing key" in refused.stderr
    assert "begin a new log" in refused.stderr
    assert "damaged" not in refused.stderr
