"""Scopes: what a run may do in each of the three columns (scopes/*.yaml say what the keys mean)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from ruamel.yaml import YAML

from gateway.core.tokens.grants import EFFECTS

HERE: Final = Path(__file__).resolve().parent
SUITES: Final = ("workspace", "banking", "slack", "travel")
Column = Literal["none", "role", "task"]
COLUMNS: Final[tuple[Column, ...]] = ("none", "role", "task")

Values = dict[str, tuple[str, ...]]
Bounds = dict[str, dict[str, Any]]


class Act(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that changes something: its only values, other constraints, how often."""

    allow: Values = {}
    bound: Bounds = {}
    times: int | None = None


class Task(Struct, frozen=True, forbid_unknown_fields=True):
    """A task's scope. `allow`, `bound` and `times` on this level are about reading tools."""

    reads: tuple[str, ...] = ()
    acts: dict[str, Act] = {}
    allow: dict[str, Values] = {}
    bound: dict[str, Bounds] = {}
    times: dict[str, int] | int | None = None
    everything: bool = False


class Role(Struct, frozen=True, forbid_unknown_fields=True):
    """The suite's one role, and what its tools may do."""

    name: str
    effects: tuple[str, ...]


class Scopes(Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    suite: str
    role: Role
    reads: dict[str, tuple[str, ...]]
    tasks: dict[str, Task]


def load_scopes(suite: str) -> Scopes:
    """Read a suite's file. Raises `msgspec.ValidationError` for one with mistakes."""
    text = (HERE / "scopes" / f"{suite}.yaml").read_text(encoding="utf-8")
    return msgspec.convert(YAML(typ="safe").load(text), Scopes)


def load_prompts(suite: str) -> dict[str, str]:
    """Return the users' prompts, as the package has them: what the scopes were written from."""
    text = (HERE / "prompts.json").read_text(encoding="utf-8")
    return msgspec.json.decode(text, type=dict[str, dict[str, str]])[suite]


def load_manifest(suite: str) -> dict[str, Any]:
    """Read a suite's manifest, as people wrote it."""
    text = (HERE / "manifests" / f"{suite}.yaml").read_text(encoding="utf-8")
    manifest: dict[str, Any] = YAML(typ="safe").load(text)
    return manifest


def load_effects(suite: str) -> dict[str, str]:
    """Return what each tool does, as its manifest says."""
    return {tool["name"]: tool["effect"] for tool in load_manifest(suite)["tools"]}


def build_run(scopes: Scopes, column: Column, task_id: str) -> dict[str, Any]:
    """Return what a launcher asks for in `POST /v1/runs`: `grants` and `allowed_values`."""
    match column:
        case "none":
            return {"grants": _name_tools(scopes.suite, EFFECTS)}
        case "role":
            return {"grants": _name_tools(scopes.suite, scopes.role.effects)}
        case "task":
            return _build_task(scopes, scopes.tasks[task_id])


def _name_tools(suite: str, effects: Sequence[str]) -> list[dict[str, Any]]:
    """Grant each tool of these effects by its name: the pack permits no write by less than that."""
    return [
        {"server": suite, "tool": tool}
        for tool, effect in load_effects(suite).items()
        if effect in effects
    ]


def _build_task(scopes: Scopes, task: Task) -> dict[str, Any]:
    acts = _read_acts(scopes, task) | _written_acts(scopes, task)
    return {
        "grants": [_build_grant(scopes.suite, tool, act) for tool, act in acts.items()],
        "allowed_values": {
            f"{scopes.suite}.{tool}#{pointer}": list(values)
            for tool, act in acts.items()
            for pointer, values in act.allow.items()
        },
    }


def _read_acts(scopes: Scopes, task: Task) -> dict[str, Act]:
    times = task.times if isinstance(task.times, dict) else {}
    return {
        tool: Act(task.allow.get(tool, {}), task.bound.get(tool, {}), times.get(tool))
        for group in task.reads
        for tool in scopes.reads[group]
    }


def _written_acts(scopes: Scopes, task: Task) -> dict[str, Act]:
    if not task.everything:
        return task.acts
    assert isinstance(task.times, int)
    granted = set(scopes.role.effects)
    return {
        tool: Act(times=task.times)
        for tool, effect in load_effects(scopes.suite).items()
        if effect in granted
    }


def _build_grant(suite: str, tool: str, act: Act) -> dict[str, Any]:
    grant: dict[str, Any] = {"server": suite, "tool": tool}
    if act.bound:
        grant["constraints"] = act.bound
    if act.times is not None:
        grant["max_calls"] = act.times
    return grant
