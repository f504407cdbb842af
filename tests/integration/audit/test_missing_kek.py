"""A log is gone on with by its own deployment only, and with the key to its values."""

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


@pytest.mark.req("AUD-06")
def test_another_key_than_the_values_are_under_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    assert run("init", folder).exit_code == 0
    offline = ("--offline", "--config", folder / "countersign.yaml")
    why = ("--reason", "case 7")
    assert run("kill", "on", "--agent", "agent", *why, *offline).exit_code == 0
    kek, kept = folder / "keys" / "kek", folder / "audit" / "openings" / "keys"
    right, before = kek.read_text(), sorted(kept.iterdir())
    assert before
    kek.write_text("ab" * 32)
    refused = run("kill", "off", "--agent", "agent", *why, *offline)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"audit.kek: `{kek}` opens none of the keys in `{kept}`; restore" in refused.stderr
    assert sorted(kept.iterdir()) == before

    # What a crash left of a key says nothing of the key it was made under.
    for key in before:
        key.write_bytes(bytes(60))
    (kept / ("0" * 32)).touch()
    assert run("kill", "status", *offline).exit_code == 0
    kek.write_text(right)
    assert run("kill", "off", "--agent", "agent", *why, *offline).exit_code == 0


@pytest.mark.req("GW-04")
def test_a_log_of_another_deployment_says_which_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gateway"
    assert run("init", folder).exit_code == 0
    asked = ("kill", "status", "--offline", "--config", folder / "countersign.yaml")
    assert run(*asked).exit_code == 0
    monkeypatch.setenv("COUNTERSIGN__LISTEN", "127.0.0.1:8081")
    refused = run(*asked)
    assert refused.exit_code == 1
    was, would_be = refused.stderr.split(", not of ")
    assert was.endswith("environment `development`, issuer `http://127.0.0.1:8080`")
    assert would_be.startswith("environment `development`, issuer `http://127.0.0.1:8081`; put")
