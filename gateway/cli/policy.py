"""`countersign policy`: check, test and try policies from their files; needs no running gateway."""

from __future__ import annotations

import typer

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.cli import (
    policy_bench,
    policy_check,
    policy_diff,
    policy_docs,
    policy_eval,
    policy_new,
    policy_publish,
    policy_question,
    policy_release,
    policy_replay,
    policy_search,
    policy_shadow,
    policy_test,
)

app = typer.Typer(name="policy", help="Check, test and try policies.", no_args_is_help=True)

policy_new.register(app)
policy_question.register(app)
policy_check.register(app)
policy_test.register(app)
policy_eval.register(app)
policy_bench.register(app)
policy_replay.register(app)
policy_release.register(app)
policy_publish.register(app)
policy_diff.register(app)
policy_search.register(app)
policy_shadow.register(app)
policy_docs.register(app)


@app.command()
def builtins() -> None:
    """Print the built-in functions that policies may call."""
    typer.echo("\n".join(sorted(ALLOWED)))
