"""`countersign serve` asks first whether the address is free."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import build
from gateway.cli.serve import check_address
from gateway.config.settings import Config
from gateway.core.errors import ConfigurationError

app = build()

pytestmark = [pytest.mark.req("GW-04"), pytest.mark.network]


def test_a_port_in_use_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(tmp_path)]).exit_code == 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        result = runner.invoke(
            app,
            ["serve", "--config", str(tmp_path / "countersign.yaml")],
            env={"COUNTERSIGN__LISTEN": listen},
        )
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"listen: `{listen}` is in use by another program" in result.stderr
    assert not (tmp_path / "audit").exists()
    assert not (tmp_path / "state.db").exists()


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ConfigurationError, match="name one of this machine"):
        check_address(Config.model_validate({"listen": "192.0.2.1:8080"}))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_a_free_address_is_fine(listen: str) -> None:
    check_address(Config.model_validate({"listen": listen}))
