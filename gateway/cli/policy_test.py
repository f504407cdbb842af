"""`countersign policy test`: the `test_*` rules of policies, as `opa test` runs them."""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from gateway.adapters.authoring.rego_cases import Case
from gateway.adapters.authoring.rego_coverage import report_coverage
from gateway.adapters.authoring.rego_tests import RuleOutcome, TestRun, run_folder
from gateway.adapters.policy.policy_bundle import AUTHORITY_FILE
from gateway.cli.exits import Exit
from gateway.cli.policy_folder import Directory, Format, Output, failed, usage
from gateway.cli.policy_telling import tell_rule, tell_stop
from gateway.core.errors import ConfigurationError

_OUTCOMES: Final = ("PASS", "FAIL", "ERROR", "SKIPPED")
_PRINTED_AT: Final = re.compile(r"^[^\s:]+:\d+: ")
_ERROR_CODES: Final = (
    (re.compile(r"conflict|multiple outputs"), "eval_conflict_error"),
    (re.compile(r"undefined|unsafe|not find"), "rego_compile_error"),
)

Run = Annotated[
    str, typer.Option("-r", "--run", metavar="REGEX", help="Only tests whose full name it finds.")
]
Coverage = Annotated[
    bool, typer.Option("-c", "--coverage", help="Print what was reached, as JSON, instead.")
]
Threshold = Annotated[
    float, typer.Option(min=0, max=100, help="Fail when fewer percent of the lines are reached.")
]
FailOnEmpty = Annotated[bool, typer.Option("--fail-on-empty", help="Fail when no test was run.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print what passing tests print.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="test")(run_all)


def run_all(
    directory: Directory,
    *,
    output: Format = Output.TABLE,
    run: Run = "",
    coverage: Coverage = False,
    threshold: Threshold = 0.0,
    fail_on_empty: FailOnEmpty = False,
    verbose: Verbose = False,
) -> None:
    """Run every `test_*` rule; exit with 9 unless all pass."""
    # An engine that is busy sees no signal handler: Ctrl-C has to end the process itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    measured = coverage or threshold > 0
    try:
        found = run_folder(directory, run, coverage=measured, explained=output is Output.TABLE)
    except ConfigurationError as error:
        raise failed(error) from None
    except re.error as error:
        raise usage(f"`--run` is no regular expression: {error}") from None
    share = report_coverage(found) if measured else {}
    _print(found, share if coverage else None, output, verbose=verbose)
    if not found.outcomes:
        typer.echo(_why_none(directory, run), err=True)
    elif any(each.outcome == "FAIL" for each in found.outcomes):
        _note_authority(directory)
    _judge(found, threshold, share.get("coverage", 0.0), fail_on_empty=fail_on_empty)


def _why_none(directory: Path, run: str) -> str:
    if run and any(directory.rglob("*_test.rego")):
        return f"no test found: no full name (`data.PACKAGE.test_…`) is matched by `-r {run}`"
    return "no tests found; write rules named `test_…` in *_test.rego"


def _note_authority(directory: Path) -> None:
    """Tell whoever named a folder too high, or forgot the file, why nothing is permitted."""
    if (directory / AUTHORITY_FILE).exists():
        return
    below = [file.parent for file in sorted(directory.rglob(AUTHORITY_FILE))]
    hint = f"did you mean {below[0]}?" if below else "see docs/policies.md"
    typer.echo(f"note: no {AUTHORITY_FILE} in {directory}, so no permit counts; {hint}", err=True)


def _print(
    found: TestRun, coverage: dict[str, Any] | None, output: Output, *, verbose: bool
) -> None:
    failing = [each for each in found.outcomes if each.outcome in {"FAIL", "ERROR"}]
    if coverage is not None and not failing:
        typer.echo(orjson.dumps(coverage, option=orjson.OPT_INDENT_2))
    elif output is Output.JSON:
        typer.echo(orjson.dumps([_as_opa(each) for each in found.outcomes]))
    else:
        _print_table(found.outcomes, verbose=verbose)


def _judge(found: TestRun, threshold: float, share: float, *, fail_on_empty: bool) -> None:
    if any(each.outcome in {"FAIL", "ERROR"} for each in found.outcomes):
        raise typer.Exit(Exit.TEST_FAILED)
    if share < threshold:
        text = f"error: {share:.2f} % of the lines are reached, {threshold:.2f} % are asked for"
        typer.echo(text, err=True)
        raise typer.Exit(Exit.TEST_FAILED)
    if fail_on_empty and not found.outcomes:
        raise typer.Exit(Exit.TEST_FAILED)


def _print_table(results: list[RuleOutcome], *, verbose: bool) -> None:
    for result in results:
        took = "" if result.outcome == "SKIPPED" else f" ({result.duration_ns / 1000:.1f}µs)"
        typer.echo(f"{result.file}:{result.row}: {result.name}: {result.outcome}{took}")
        for line in (*_tree(result.cases), *_why(result)):
            typer.echo(line)
        told = result.output if verbose or result.outcome != "PASS" else ()
        for line in (*told, *result.message.splitlines()):
            typer.echo(f"  {line}")
    typer.echo("-" * 80)
    counted = [outcome for result in results for outcome in _counted(result)]
    for outcome in _OUTCOMES:
        if outcome in counted or outcome == "PASS":
            typer.echo(f"{outcome}: {counted.count(outcome)}/{len(counted)}")


def _tree(cases: Iterable[Case], indent: str = "  ") -> Iterator[str]:
    for case in cases:
        yield f"{indent}{case.name}: {'FAIL' if case.failed else 'PASS'}"
        yield from _tree(case.cases, indent + "  ")


def _why(result: RuleOutcome) -> Iterator[str]:
    """Yield, for the test or each case that failed, where it stopped and on what values."""
    for failure in result.failures:
        stopped = failure.stopped
        name = f"{' / '.join(failure.case)}: " if failure.case else ""
        yield f"  {name}stopped at {failure.file}:{stopped.row}: {stopped.text}"
        yield from tell_stop(stopped, "      ")
        for traced in failure.asked:
            yield from tell_rule(traced, "      ")


def _counted(result: RuleOutcome) -> Iterator[str]:
    """Yield what counts: each case of a test that has some, else the test."""
    if result.cases:
        yield from _leaves(result.cases)
    else:
        yield result.outcome


def _leaves(cases: Iterable[Case]) -> Iterator[str]:
    for case in cases:
        if case.cases:
            yield from _leaves(case.cases)
        else:
            yield "FAIL" if case.failed else "PASS"


def _as_opa(result: RuleOutcome) -> dict[str, Any]:
    """Return the object that `opa test --format json` prints."""
    found: dict[str, Any] = {
        "location": {"file": result.file, "row": result.row, "col": result.col},
        "package": result.package,
        "name": result.name.removeprefix(f"{result.package}."),
    }
    if result.outcome == "FAIL":
        found["fail"] = True
    elif result.outcome == "SKIPPED":
        found["skip"] = True
    elif result.outcome == "ERROR":
        found["error"] = _error_as_opa(result)
    found["duration"] = result.duration_ns
    if result.output:
        lines = (_PRINTED_AT.sub("", line) + "\n" for line in result.output)
        found["output"] = base64.b64encode("".join(lines).encode()).decode()
    if result.cases:
        found["sub_results"] = _cases_as_opa(result.cases)
    return found


def _error_as_opa(result: RuleOutcome) -> dict[str, Any]:
    codes = (code for pattern, code in _ERROR_CODES if pattern.search(result.message))
    found: dict[str, Any] = {
        "code": next(codes, "eval_internal_error" if result.at else "rego_test_error"),
        "message": result.message,
    }
    if result.at:
        file, row, col = result.at
        found["location"] = {"file": file, "row": row, "col": col}
    return found


def _cases_as_opa(cases: Iterable[Case]) -> dict[str, Any]:
    found = {}
    for case in cases:
        shown: dict[str, Any] = {"name": case.name}
        if case.failed:
            shown["fail"] = True
        if case.cases:
            shown["sub_results"] = _cases_as_opa(case.cases)
        found[case.name] = shown
    return found
