"""The demo, played as `make demo` plays it: two runs side by side, one of them sabotaged."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.acme.demo_telling import Telling

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "examples" / "acme" / "policies"
PATIENCE_S = 120.0

pytestmark = pytest.mark.req("GW-15")


@dataclass(frozen=True)
class Run:
    """A demo that is being played, and the file that it prints into."""

    process: subprocess.Popen[bytes]
    folder: Path
    printed: Path

    def text(self) -> str:
        return self.printed.read_text(encoding="utf-8")

    def wait_for(self, what: str) -> str:
        """Wait until it has printed `what`, or ended."""
        until = time.monotonic() + PATIENCE_S
        while what not in (text := self.text()) and self.process.poll() is None:
            assert time.monotonic() < until, text
            # Another process writes a file: there is no event to wait on.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        return self.text()


def play(folder: Path, *options: str, python: str = sys.executable, path: str = "") -> Run:
    """Start the demo in a folder of its own, without measuring coverage in all its processes.

    `path` is where a `python` without packages finds some.
    """
    printed = folder.with_suffix(".out")
    env = {name: value for name, value in os.environ.items() if "COV" not in name}
    env |= {"PYTHONPATH": path} if path else {}
    command = [python, "-m", "examples.acme.demo", "--dir", str(folder), *options]
    with printed.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True
        )
    return Run(process, folder, printed)


def end(run: Run) -> None:
    """Interrupt a demo that a failed test has left; it then ends what it has started."""
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)
    run.process.wait(PATIENCE_S)


def find_processes(folder: Path) -> list[str]:
    """Processes that work in the folder or name it, except the demo itself."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((entry / "cwd").readlink())
            if int(entry.name) != os.getpid() and str(folder) in f"{line} {where}":
                found.append(f"{entry.name}: {line}")
    return found


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, sabotaged: Run) -> Iterator[Run]:
    """Start the demo as it is, beside the other one."""
    run = play(tmp_path_factory.mktemp("honest") / "demo")
    yield run
    end(run)


@pytest.fixture(scope="module")
def sabotaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Start the demo with a policy that lets an agent refund more alone; it is left up."""
    place = tmp_path_factory.mktemp("sabotaged")
    policies = place / "policies"
    shutil.copytree(POLICIES, policies)
    refunds = policies / "acme_refunds.rego"
    text = refunds.read_text(encoding="utf-8")
    assert "alone_cents := 10000" in text
    refunds.write_text(text.replace("alone_cents := 10000", "alone_cents := 50000"))
    run = play(place / "demo", "--keep", "--policies", str(policies))
    yield run
    end(run)


@pytest.mark.network
@pytest.mark.slow
def test_every_claim_of_the_demo_holds(honest: Run) -> None:
    code = honest.process.wait(PATIENCE_S)
    text = honest.text()
    assert code == 0, text
    assert "✗" not in text
    assert text.count(" ✓ ") >= 25
    assert len(text.splitlines()) <= 100


@pytest.mark.network
@pytest.mark.slow
def test_the_demo_leaves_its_data_and_no_process(honest: Run) -> None:
    honest.process.wait(PATIENCE_S)
    assert find_processes(honest.folder) == []
    assert (honest.folder / "countersign.yaml").is_file()
    assert list((honest.folder / "audit").glob("*.jsonl"))


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.req("AUD-03", "AUD-04")
def test_a_bare_python_finds_nothing_in_the_log_of_the_demo(honest: Run) -> None:
    honest.process.wait(PATIENCE_S)
    log = honest.folder / "audit"
    key = (log / "log.vkey").read_text(encoding="utf-8").splitlines()[0]
    command = [sys.executable, "-I", "-S", str(ROOT / "verify" / "countersign_verify.py")]
    done = subprocess.run(
        [*command, str(log), "--key", key, "--state", "none", "--all-signatures"],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VALID" in done.stdout


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.req("AUD-05")
def test_every_decision_of_the_demo_is_made_again_the_same(honest: Run) -> None:
    honest.process.wait(PATIENCE_S)
    command = [sys.executable, "-c", "from gateway.cli import main; main()", "audit", "replay"]
    done = subprocess.run(
        [*command, "--config", str(honest.folder / "countersign.yaml"), "--fail-on-change"],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"agree\w*\D+1\d", done.stdout), done.stdout


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.req("AUD-01")
def test_the_page_of_the_format_describes_every_member_of_every_record_of_the_demo(
    honest: Run,
) -> None:
    honest.process.wait(PATIENCE_S)
    page = (ROOT / "docs" / "spec" / "audit-log-v1.md").read_text(encoding="utf-8")
    common = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    described = _described(page)
    records = [
        json.loads(line)
        for segment in sorted((honest.folder / "audit").glob("*.jsonl"))
        for line in segment.read_text(encoding="utf-8").splitlines()
        if not line.startswith('{"cp":')
    ]
    undescribed = {
        f"{record['type']}: {name}"
        for record in records
        for name in record.keys() - common - described.get(record["type"], set())
    }
    assert undescribed == set()
    assert len({record["type"] for record in records}) >= 12


def _described(page: str) -> dict[str, set[str]]:
    """Return the members that the table of record types gives to each type."""
    table = page[page.index("### 9.1 Fields") : page.index("### 9.2")]
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`[a-z]+[a-z_.`, ]*) \| [^|]* \| (.*) \|$", table, re.MULTILINE):
        names = re.findall(r"`([a-z_.]+)`", row[0])
        members = set(re.findall(r"`(\w+)`", row[1]))
        for name in names:
            full = names[0].split(".")[0] + name if name.startswith(".") else name
            found.setdefault(full, set()).update(members)
    return found


@pytest.mark.network
@pytest.mark.slow
def test_secrets_are_for_their_owner_only_and_not_in_what_is_printed(honest: Run) -> None:
    honest.process.wait(PATIENCE_S)
    secrets = list((honest.folder / "secrets").iterdir())
    assert len(secrets) >= 6
    for path in (*secrets, *(honest.folder / "keys").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in secrets:
        assert path.read_text(encoding="utf-8") not in honest.text()


@pytest.mark.network
@pytest.mark.slow
def test_what_is_left_up_can_be_played_with_as_printed(sabotaged: Run) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    text = sabotaged.wait_for("/secrets/run\n\n")
    start = text.index("# A fresh token")
    shell = subprocess.run(
        ["bash", "-eu"],  # noqa: S607 - whichever bash a person pastes into
        input=text[start:].encode(),
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    said = shell.stdout.decode()
    assert shell.returncode == 0, (said, shell.stderr)
    assert '"status":"completed"' in said
    assert '"code":"refund_over_limit"' in said
    assert '"jsonrpc":"2.0","id":1,"result"' in said
    assert '"status":"pending_approval"' in said
    assert "PENDING" in said
    assert '"unreviewed"' in said
    assert "valid: every record is as it was written" in said
    assert ":" in (sabotaged.folder / "secrets" / "run").read_text(encoding="utf-8")


@pytest.mark.network
@pytest.mark.slow
def test_a_claim_that_does_not_hold_is_shown_and_ends_the_demo_with_an_error(
    sabotaged: Run,
) -> None:
    text = sabotaged.wait_for("claims held")
    assert " ✗ she sees the very bytes" in text
    assert "seen instead:" in text
    sabotaged.wait_for("/secrets/run\n\n")
    sabotaged.process.send_signal(signal.SIGINT)
    assert sabotaged.process.wait(PATIENCE_S) == 1
    assert " ✓ nothing of it is left running" in sabotaged.text()
    assert find_processes(sabotaged.folder) == []


@pytest.mark.network
@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path) -> None:
    run = play(tmp_path / "demo")
    until = time.monotonic() + PATIENCE_S
    while not (run.folder / "acme.url").exists() and run.process.poll() is None:
        assert time.monotonic() < until
        with suppress(subprocess.TimeoutExpired):
            run.process.wait(0.05)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(PATIENCE_S) == 130, run.text()
    assert find_processes(run.folder) == []


@pytest.mark.network
def test_a_demo_that_cannot_be_set_up_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Here its Python has no `uv` beside it, while git is at work on the repository."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    run = play(tmp_path / "demo", python=str(python), path=sysconfig.get_path("purelib"))
    try:
        assert run.process.wait(PATIENCE_S) == 2, run.text()
    finally:
        end(run)
    assert run.text().count("error: ") == 1
    assert f"error: `{python.with_name('uv')}` is not installed; install it" in run.text()
    assert find_processes(run.folder) == []


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.md").write_text("the only copy", encoding="utf-8")
    run = play(tmp_path)
    assert run.process.wait(PATIENCE_S) == 2
    assert "holds something else" in run.text()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.md"]


def test_a_failed_check_is_counted_and_says_what_was_seen() -> None:
    out = io.StringIO()
    tell = Telling(out)
    tell.check("water is wet", holds=True)
    tell.check("the moon is green", holds=False, seen="\x1b[2Jgrey")
    assert (tell.checked, tell.failed) == (2, 1)
    assert out.getvalue().splitlines() == [
        " ✓ water is wet",
        " ✗ the moon is green",
        "     seen instead: \\u001b[2Jgrey",
    ]
