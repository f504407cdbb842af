"""The Dockerfile, read and checked as text: no container engine is needed to hold its promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("GW-02")


class Instruction(NamedTuple):
    stage: str
    verb: str
    rest: str


def parse_dockerfile(text: str) -> list[Instruction]:
    """Split a Dockerfile into instructions, continuation lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    instructions: list[Instruction] = []
    stage = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        verb, _, rest = line.strip().partition(" ")
        if verb == "FROM":
            stage = rest.rpartition(" AS ")[2]
        instructions.append(Instruction(stage, verb, " ".join(rest.split())))
    return instructions


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    return parse_dockerfile((ROOT / "Dockerfile").read_text())


def rests(dockerfile: list[Instruction], verb: str, stage: str | None = None) -> list[str]:
    return [i.rest for i in dockerfile if i.verb == verb and stage in (None, i.stage)]


def test_the_image_has_a_build_and_a_runtime_stage(dockerfile: list[Instruction]) -> None:
    assert rests(dockerfile, "FROM") == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE} AS runtime"]
    assert "--from=build /opt/countersign /opt/countersign" in rests(dockerfile, "COPY", "runtime")


def test_the_base_image_names_a_patch_release_and_never_latest(
    dockerfile: list[Instruction],
) -> None:
    (base,) = rests(dockerfile, "ARG")
    assert re.fullmatch(
        r"PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base
    )
    assert not any("latest" in i.rest for i in dockerfile)


def test_everything_installed_comes_by_hash(dockerfile: list[Instruction]) -> None:
    installs = [r for r in rests(dockerfile, "RUN") if re.search(r"pip install|uv sync|uv pip", r)]
    assert len(installs) == 3
    assert all("--require-hashes" in run or "uv sync --frozen" in run for run in installs)
    assert not any(re.search(r"curl|wget|apt-get", run) for run in rests(dockerfile, "RUN"))


def test_the_runtime_stage_installs_nothing(dockerfile: list[Instruction]) -> None:
    assert not any("pip" in r or "uv " in r for r in rests(dockerfile, "RUN", "runtime"))


def test_it_runs_as_a_numbered_user_that_is_not_root(dockerfile: list[Instruction]) -> None:
    runtime = [i for i in dockerfile if i.stage == "runtime"]
    users = [i.rest for i in runtime if i.verb == "USER"]
    assert users == ["10001:10001"]
    last_root_step = max(n for n, i in enumerate(runtime) if i.verb in {"RUN", "COPY"})
    assert next(n for n, i in enumerate(runtime) if i.verb == "USER") > last_root_step


def test_only_the_state_folder_is_written_to(dockerfile: list[Instruction]) -> None:
    assert rests(dockerfile, "VOLUME") == ['["/var/lib/countersign"]']
    assert rests(dockerfile, "WORKDIR", "runtime") == ["/var/lib/countersign"]
    assert "PYTHONDONTWRITEBYTECODE=1" in " ".join(rests(dockerfile, "ENV", "runtime"))
    owned = " ".join(rests(dockerfile, "RUN", "runtime"))
    assert "--owner=10001 --group=10001 --mode=0700 /var/lib/countersign" in owned


def test_no_secret_is_built_in(dockerfile: list[Instruction]) -> None:
    settings = " ".join(rests(dockerfile, "ENV") + rests(dockerfile, "ARG"))
    assert not re.search(r"secret|token|password|key", settings, re.IGNORECASE)


def test_the_build_context_holds_exactly_what_is_copied(dockerfile: list[Instruction]) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for rest in rests(dockerfile, "COPY", "build")
        for source in rest.split()[:-1]
    }
    assert allowed == copied
    assert all((ROOT / source).exists() for source in copied)


def test_everything_that_the_wheel_is_made_of_is_in_the_build_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= allowed
