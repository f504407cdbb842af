"""Reads the tamper corpus, lays out its directories, and compares what a verifier says."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests/conformance/audit/cases.jsonl"

Case = dict[str, Any]
Content = str | dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What a verifier said of a directory: the exit code, and its report where it gave one."""

    exit: int
    findings: list[dict[str, Any]]


Run = Callable[[list[str]], Answer]
"""Runs a verifier with arguments in the spelling of the Go one (`-key`)."""


def read_cases() -> list[Case]:
    """Return the cases in the order of the file."""
    return [json.loads(line) for line in CASES.read_text().splitlines()]


def lay_out(files: dict[str, Content], folder: Path) -> Path:
    """Write the directory of a case."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(content))
    return folder


def _content(content: Content) -> bytes:
    return content.encode() if isinstance(content, str) else base64.b64decode(content["b64"])


def answer_case(case: Case, run: Run, folder: Path) -> Answer:
    """Verify the directory of a case as its reader does."""
    arguments = list(_arguments(case, folder))
    state = folder / "state"
    if "before" in case:
        before = lay_out(case["before"], folder / "before")
        first = run([*arguments, "-state", str(state), str(before)])
        assert first == Answer(0, []), f"{case['name']}: {first}"
        arguments += ["-state", str(state)]
    return run([*arguments, str(lay_out(case["files"], folder / "log"))])


def _arguments(case: Case, folder: Path) -> Iterator[str]:
    for key in case["keys"]:
        yield from ("-key", key)
    for key in case.get("witnesses", []):
        yield from ("-witness", key)
    for key in case.get("publishers", []):
        yield from ("-publisher-key", key)
    for name in case.get("require", []):
        yield from ("-require", name)
    for number, note in enumerate(case.get("known", [])):
        path = folder / f"known-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(note)
        yield from ("-checkpoint", str(path))


def find_difference(expect: dict[str, Any], answer: Answer) -> str:
    """Say what of an answer is not as expected (README.md beside the corpus); empty if all is."""
    if answer.exit != expect["exit"]:
        return f"exit {answer.exit}, not {expect['exit']}: {_told(answer)}"
    if expect["kind"] is None:
        return f"found {_told(answer)} in a valid log" if answer.findings else ""
    wanted = (expect["seq"], expect["kind"], expect.get("rule"))
    found = [(one["seq"], one["kind"], one.get("rule") or None) for one in answer.findings]
    allowed = {(expect["seq"], "semantic", rule) for rule in expect.get("also", [])} | {wanted}
    places = [seq for seq, _, _ in found if seq is not None]
    is_first = wanted in found and min(places) == expect["seq"]
    is_alone = expect["kind"] != "semantic" or allowed.issuperset(found)
    return "" if is_first and is_alone else f"found {_told(answer)}, not {wanted}"


def _told(answer: Answer) -> str:
    told = [f"{one['kind']} {one.get('rule') or ''}@{one['seq']}" for one in answer.findings]
    return ", ".join(told) or "nothing"


def find_differences(run: Run, folder: Path) -> dict[str, str]:
    """Run a verifier on every case; return what it said otherwise, by the name of the case."""
    told = {
        case["name"]: find_difference(case["expect"], answer_case(case, run, folder / case["name"]))
        for case in read_cases()
    }
    return {name: what for name, what in told.items() if what}
