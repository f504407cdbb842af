from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("GW-03")

# Each would break one contract of pyproject.toml.
BREAKING = {
    "core reads the clock": ("gateway/core/broken.py", "import time\n"),
    "core logs": ("gateway/core/broken.py", "import logging\n"),
    "core looks up": ("gateway/core/broken.py", "import gateway.protocol\n"),
    "an adapter sees http": ("gateway/adapters/broken.py", "import gateway.http\n"),
    "a connector sees an adapter": ("connectors/broken.py", "import gateway.adapters\n"),
    "protocol knows a framework": ("gateway/protocol/broken.py", "import fastapi\n"),
    "an adapter answers HTTP": ("gateway/adapters/broken.py", "import starlette\n"),
    "a connector evaluates policy": ("connectors/broken.py", "import regorus\n"),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of `folder`, whose own packages come before the installed ones."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages, for a test to break."""
    folder = tmp_path_factory.mktemp("contracts")
    for package in ("gateway", "connectors"):
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_import_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", BREAKING)
def test_a_broken_contract_is_found(copy: Path, name: str) -> None:
    file, text = BREAKING[name]
    path = copy / file
    path.write_text(text)
    try:
        result = lint_imports(copy)
    finally:
        path.unlink()
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


def test_every_part_of_the_gateway_has_its_layer() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = " ".join(settings["contracts"][0]["layers"])
    named = {name.strip("()") for name in layers.replace("|", " ").replace(":", " ").split()}
    parts = {
        f"gateway.{path.stem}"
        for path in (ROOT / "gateway").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem[0] != "_"
    }
    assert parts | {"connectors"} <= named
