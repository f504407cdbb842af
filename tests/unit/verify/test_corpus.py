"""The published tamper corpus, run by this verifier: each case's finding, and none before it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CORPUS = Path(__file__).parents[2] / "conformance" / "audit" / "cases.jsonl"
pytestmark = [
    pytest.mark.req("AUD-12"),
    pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not there"),
]


def lay_out(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = isinstance(content, str)
        path.write_bytes(content.encode() if text else base64.b64decode(content["b64"]))
    folder.mkdir(exist_ok=True)
    return folder


def words_for(case: dict[str, Any], folder: Path) -> list[str]:
    words = ["--json", "--max-findings", "1000", "--state", str(folder / "state")]
    words += [word for key in case["keys"] for word in ("--key", key)]
    words += [word for key in case.get("witnesses", []) for word in ("--witness", key)]
    words += [word for key in case.get("publishers", []) for word in ("--publisher-key", key)]
    words += [word for need in case.get("require", []) for word in ("--require", need)]
    for index, note in enumerate(case.get("known", [])):
        (folder / f"known-{index}").write_text(note, encoding="utf-8")
        words += ["--checkpoint", str(folder / f"known-{index}")]
    return words


def is_expected(report: dict[str, Any], expect: dict[str, Any]) -> bool:
    if expect["kind"] is None:
        return not report["findings"]
    found = [(item["seq"], item["kind"], item.get("rule")) for item in report["findings"]]
    if expect["kind"] == "semantic":
        rules = {expect["rule"], *expect.get("also", [])}
        if any(rule not in rules for _, _, rule in found):
            return False
    wanted = (expect["seq"], expect["kind"], expect.get("rule"))
    return wanted in found and min(seq for seq, _, _ in found) == expect["seq"]


def test_every_case_of_the_corpus_is_answered_as_expected(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong, count = [], 0
    for line in CORPUS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        folder = tmp_path / case["name"]
        folder.mkdir()
        words = words_for(case, folder)
        if "before" in case:
            assert script.main([str(lay_out(folder / "before", case["before"])), *words]) == 0
            capsys.readouterr()
        code = script.main([str(lay_out(folder / "log", case["files"])), *words])
        out = capsys.readouterr().out
        report = json.loads(out) if out else {"findings": []}
        if code != case["expect"]["exit"] or not is_expected(report, case["expect"]):
            wrong.append((case["name"], case["expect"], code, report["findings"]))
        count += 1
    assert wrong == []
    assert count >= 200
