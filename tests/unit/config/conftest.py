"""A configuration in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.settings import Config, load_config
from gateway.core.errors import ConfigurationError

Write = Callable[..., Path]
Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `countersign.yaml` beside a folder of policies and a manifest."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "shop.yaml").write_text("id: shop\n")

    def make(text: str) -> Path:
        path = tmp_path / "countersign.yaml"
        path.write_text(text)
        return path

    return make


@pytest.fixture
def load(write: Write) -> Load:
    def make(text: str, **env: str) -> Config:
        return load_config(write(text), {f"COUNTERSIGN__{name}": env[name] for name in env})

    return make


@pytest.fixture
def mistakes(load: Load, tmp_path: Path) -> Mistakes:
    """Return each mistake of a configuration, without the folder in it."""

    def make(text: str, **env: str) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            load(text, **env)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return make
