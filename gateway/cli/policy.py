"""`countersign policy`: check, test and try policies from their files; needs no running gateway."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import typer

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.cli import (
    policy_check,
    policy_docs,
    policy_publish,
    policy_release,
    policy_replay,
    policy_search,
    policy_shadow,
    policy_test,
)
from gateway.cli.exits import Exit
from gateway.cli.policy_folder import Directory, Input, ask, load, read_input
from gateway.core.policy.decision import Decision, Deny, Hold

app = typer.Typer(name="policy", help="Check, test and try policies.", no_args_is_help=True)

policy_check.register(app)
policy_test.register(app)
policy_replay.register(app)
policy_release.register(app)
policy_publish.register(app)
policy_search.register(app)
policy_shadow.register(app)
policy_docs.register(app)


@app.command(name="eval")
def evaluate(directory: Directory, document: Input) -> None:
    """Print the decision on one input; exit with 3 when denied, with 7 when held."""
    bundle = load(directory)
    phase, raw, _ = read_input(document)
    decision = ask(bundle, phase, raw)
    typer.echo(orjson.dumps(_describe(decision), option=orjson.OPT_INDENT_2))
    if isinstance(decision, Deny):
        raise typer.Exit(Exit.DENIED)
    if isinstance(decision, Hold):
        raise typer.Exit(Exit.PENDING)


@app.command()
def builtins() -> None:
    """Print the built-in functions that policies may call."""
    typer.echo("\n".join(sorted(ALLOWED)))


def _describe(decision: Decision) -> dict[str, Any]:
    outcome = type(decision).__name__.lower()
    return {"outcome": outcome, **msgspec.to_builtins(decision)}
