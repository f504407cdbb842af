"""The verifier is one file outside of any package: it is loaded from its path, as it is run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.verify.logbuilder import Log

SCRIPT = Path(__file__).parents[3] / "verify" / "countersign_verify.py"
Json = dict[str, Any]
Judge = Callable[..., Json]


@pytest.fixture(scope="session")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("countersign_verify", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def script(module: ModuleType) -> Iterator[ModuleType]:
    """The verifier; what `--plain` switched off is on again afterwards."""
    tools = module.Tools.orjson, module.Tools.ed25519
    yield module
    module.Tools.orjson, module.Tools.ed25519 = tools


@pytest.fixture
def judge(script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Judge:
    """Verify a log, or a directory, with its first key pinned; answers the JSON report."""

    def run(log: Log | Path, *words: str, pinned: bool = True, **files: bool) -> Json:
        folder = log.write(tmp_path / "log", **files) if isinstance(log, Log) else log
        key = ["--key", log.first_key.vkey] if pinned and isinstance(log, Log) else []
        state = [] if "--state" in words else ["--state", "none"]
        code = script.main([str(folder), "--json", *key, *state, *words])
        out, err = capsys.readouterr()
        report: Json = json.loads(out) if out else {"error": err}
        assert report.setdefault("exit", code) == code
        return report

    return run


def found(report: Json) -> list[tuple[str, int]]:
    """Kind (of a rule: its name) and record of each finding."""
    return [(item.get("rule", item["kind"]), item["seq"]) for item in report["findings"]]
