"""`countersign policy`: check, test and try policies from their files; needs no running gateway."""

from __future__ import annotations

import asyncio
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args

import msgspec
import orjson
import typer

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.adapters.policy.rego_tests import RuleOutcome, run_tests
from gateway.adapters.policy.regorus_policy import RegorusPolicy
from gateway.cli import policy_publish, policy_release, policy_replay, policy_search
from gateway.cli.exits import Exit
from gateway.core import strict_json
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Deny, Hold, Phase

app = typer.Typer(name="policy", help="Check, test and try policies.", no_args_is_help=True)

policy_replay.register(app)
policy_search.register(app)
policy_release.register(app)
policy_publish.register(app)

_DEADLINE_MS: Final = 2000
_CLOCK: Final = re.compile(rb'"now_ns"\s*:\s*[0-9]+')
"""The gateway's own clock, which is beyond what strangers may send as an integer."""

_OUTCOMES: Final = ("PASS", "FAIL", "ERROR", "SKIPPED")


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of policies.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


@app.command()
def check(directory: Directory, output: Format = Output.TABLE) -> None:
    """Say whether the gateway would load these policies, and if not, every reason."""
    bundle = _load(directory)
    asyncio.run(_with_engine(bundle))
    names = sorted(bundle.packages)
    if output is Output.JSON:
        typer.echo(orjson.dumps({"revision": bundle.revision, "packages": names}))
    else:
        typer.echo(f"ok: {len(names)} packages ({', '.join(names)})\nrevision: {bundle.revision}")


@app.command(name="test")
def run(directory: Directory, output: Format = Output.TABLE) -> None:
    """Run every `test_*` rule; exit with 9 unless all pass."""
    try:
        results = run_tests(directory)
    except ConfigurationError as error:
        raise _failed(error) from None
    if output is Output.JSON:
        typer.echo(orjson.dumps([_as_opa(result) for result in results]))
    else:
        _print_results(results)
    if not results:
        typer.echo("no tests found; write rules named `test_…` in *_test.rego", err=True)
    if any(result.outcome in {"FAIL", "ERROR"} for result in results):
        raise typer.Exit(Exit.TEST_FAILED)


@app.command(name="eval")
def evaluate(
    directory: Directory,
    document: Annotated[
        Path, typer.Option("--input", help="A policy input (rego/schemas/input.v1.json).")
    ],
) -> None:
    """Print the decision on one input; exit with 3 when denied, with 7 when held."""
    bundle = _load(directory)
    try:
        raw = document.read_bytes()
        value = strict_json.parse(
            _CLOCK.sub(b'"now_ns":0', raw), max_depth=Limits().json_max_depth
        )
    except OSError as error:
        typer.echo(f"error: cannot read {document}: {error.strerror}", err=True)
        raise typer.Exit(Exit.USAGE) from None
    except CountersignError as error:
        raise _failed(error, Exit.USAGE) from None
    phase = value.get("phase") if isinstance(value, dict) else None
    if phase not in get_args(Phase):
        typer.echo(f"error: `phase` is none of {', '.join(get_args(Phase))}", err=True)
        raise typer.Exit(Exit.USAGE)
    decision = asyncio.run(_with_engine(bundle, (cast("Phase", phase), raw)))
    typer.echo(orjson.dumps(_describe(decision), option=orjson.OPT_INDENT_2))
    if isinstance(decision, Deny):
        raise typer.Exit(Exit.DENIED)
    if isinstance(decision, Hold):
        raise typer.Exit(Exit.PENDING)


@app.command()
def builtins() -> None:
    """Print the built-in functions that policies may call."""
    typer.echo("\n".join(sorted(ALLOWED)))


def _load(directory: Path) -> Bundle:
    try:
        return load_bundle_dir(directory)
    except ConfigurationError as error:
        raise _failed(error) from None


async def _with_engine(
    bundle: Bundle, question: tuple[Phase, bytes] | None = None
) -> Decision | None:
    """Start the engine as the gateway does, so that it is judged by the same gates."""
    engine = RegorusPolicy(bundle, workers=1, deadline_ms=_DEADLINE_MS)
    try:
        await engine.start()
        return None if question is None else await engine.decide("", *question)
    except CountersignError as error:
        raise _failed(error) from None
    finally:
        await engine.stop()


def _failed(error: CountersignError, code: Exit = Exit.ERROR) -> typer.Exit:
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
    return typer.Exit(code)


def _describe(decision: Decision | None) -> dict[str, Any]:
    outcome = type(decision).__name__.lower()
    return {"outcome": outcome, **msgspec.to_builtins(decision)}


def _print_results(results: list[RuleOutcome]) -> None:
    for result in results:
        took = "" if result.outcome == "SKIPPED" else f" ({result.duration_ns / 1000:.1f}µs)"
        typer.echo(f"{result.file}:{result.row}: {result.name}: {result.outcome}{took}")
        for line in (*result.output, *result.message.splitlines()):
            typer.echo(f"  {line}")
    typer.echo("-" * 80)
    for outcome in _OUTCOMES:
        count = sum(result.outcome == outcome for result in results)
        if count or outcome == "PASS":
            typer.echo(f"{outcome}: {count}/{len(results)}")


def _as_opa(result: RuleOutcome) -> dict[str, Any]:
    """Return the object that `opa test --format json` prints."""
    package, _, name = result.name.rpartition(".")
    found: dict[str, Any] = {
        "location": {"file": result.file, "row": result.row, "col": 1},
        "package": package,
        "name": name,
        "duration": result.duration_ns,
    }
    if result.outcome == "FAIL":
        found["fail"] = True
    elif result.outcome == "SKIPPED":
        found["skip"] = True
    elif result.outcome == "ERROR":
        found["error"] = {"code": "rego_test_error", "message": result.message}
    return found
