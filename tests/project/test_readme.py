"""The README's "A gateway of your own", typed as it stands into a shell, every answer compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TITLE: Final = "A gateway of your own"
BLOCK: Final = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE: Final = re.compile(r"in place of (?:the first )?`([^`]+)`")
ANSWER: Final = re.compile(r"^# → (.*)$", re.MULTILINE)
MARK: Final = "@@ block"
PATIENCE_S: Final = 120
CONFIG: Final = "my-gateway/countersign.yaml"


class Step(NamedTuple):
    """A block of the page. `place`: what a block of YAML stands in place of."""

    kind: str
    text: str
    place: str = ""


def read_section(page: str, title: str) -> str:
    """Return one section of a page, up to the next of its level."""
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def read_steps(section: str) -> list[Step]:
    """Return the blocks in order. A block of YAML says before it what it replaces."""
    steps, end = [], 0
    for block in BLOCK.finditer(section):
        said = PLACE.findall(section[end : block.start()])
        steps.append(Step(block[1], block[2], said[-1] if said else ""))
        end = block.end()
    return steps


def build_script(steps: list[Step]) -> str:
    """Return a script that does what a reader would, and says where each block begins."""
    lines = ["set -euo pipefail"]
    for number, step in enumerate(steps):
        lines.append(f"printf '\\n{MARK} {number}\\n'")
        lines.append(step.text if step.kind == "sh" else _edit(step))
    return "\n".join(lines)


def _edit(step: Step) -> str:
    """Do what an editor would; no block of the page has single quotes in its YAML."""
    assert step.place, f"say what this replaces:\n{step.text}"
    code = "import pathlib, sys; file, old, new = sys.argv[1:]; path = pathlib.Path(file); "
    code += 'text = path.read_text(); assert old in text, old; old += "\\n"; '
    code += "path.write_text(text.replace(old, new, 1))"
    return f"python -c '{code}' {CONFIG} '{step.place}' '{step.text}'"


def free_ports(count: int) -> list[str]:
    """Return ports that nobody listens at."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def run(script: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Run a script as a terminal would; return its exit code and all that was to be seen."""
    with (folder / "seen").open("w+b") as seen:
        shell = subprocess.Popen(
            ["bash", "-c", script],  # noqa: S607 bash is wherever the reader has it
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=seen,
            stderr=seen,
            start_new_session=True,
        )
        try:
            code = shell.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if shell.poll() is None or _is_group(shell.pid):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        seen.seek(0)
        return code, seen.read().decode(errors="replace")


def _is_group(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def find_missing(steps: list[Step], seen: str) -> list[str]:
    """Return the promised answers that did not come, in their block and in their order."""
    parts = re.split(rf"\n{MARK} \d+\n", seen)[1:]
    missing = []
    for step, part in zip(steps, parts, strict=True):
        at = 0
        for answer in ANSWER.findall(step.text):
            found = part.find(answer, at)
            at = max(at, found)
            missing += [f"{answer!r} in:\n{part}"] if found < 0 else []
    return missing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like a checkout after `make demo`."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl; install it")
@pytest.mark.req("GW-02", "GW-04", "GW-07", "GW-08", "GW-10", "GW-11", "GW-12", "GW-13")
def test_a_newcomer_who_types_what_the_readme_says_gets_what_it_promises(folder: Path) -> None:
    section = read_section((ROOT / "README.md").read_text(), TITLE)
    gateway, shop = free_ports(2)
    steps = read_steps(section.replace("8080", gateway).replace("9000", shop))
    environ = {
        **os.environ,
        "COUNTERSIGN__LISTEN": f"127.0.0.1:{gateway}",
        "COUNTERSIGN__POLICY__DEADLINE_MS": "2000",  # the cores are shared with other tests
        "PYTHONUNBUFFERED": "1",
    }
    code, seen = run(build_script(steps), folder, environ)
    logs = "".join(log.read_text() for log in folder.glob("my-gateway*.log"))
    assert code == 0, f"{seen}\n{logs}"
    assert find_missing(steps, seen) == []
    assert not list(folder.glob("my-gateway*")), "the page's last step tidies up"


@pytest.mark.req("GW-02")
def test_the_section_shows_each_part_of_the_gateway() -> None:
    section = read_section((ROOT / "README.md").read_text(), TITLE)
    for part in (
        "init my-gateway",
        "config check",
        "tools list",
        "tools diff",
        "tools approve",
        "serve",
        "/v1/runs",
        "/oauth/token",
        "/v1/tools/",
        "/mcp",
        "approvals list",
        "approvals show",
        "approvals approve",
        "policy check",
        "policy test",
        "audit tail",
        "audit show",
        "audit verify",
    ):
        assert part in section, part


def test_a_promise_that_is_not_kept_is_found() -> None:
    steps = [Step("sh", "echo b a\n# → a\n# → b\n"), Step("sh", "echo c\n# → c\n")]
    assert find_missing(steps, f"\n{MARK} 0\nb a\n\n{MARK} 1\nc") == ["'b' in:\nb a\n"]
    assert find_missing(steps, f"\n{MARK} 0\na b\n\n{MARK} 1\nc") == []


def test_a_script_that_fails_says_so(tmp_path: Path) -> None:
    code, seen = run("echo before; false | true; echo after", tmp_path, dict(os.environ))
    assert (code, seen) == (0, "before\nafter\n")
    assert run(build_script([Step("sh", "false | true")]), tmp_path, dict(os.environ))[0] == 1
