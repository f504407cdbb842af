"""The `countersign` command: one sub-command group per file, each exposing `app`.

Data goes to stdout, messages to stderr. Exit codes: `gateway.cli.exits`.
"""

from __future__ import annotations

import typer

from gateway.cli import approvals, audit, config, policy, tools
from gateway.cli.init import init
from gateway.cli.serve import serve

app = typer.Typer(
    name="countersign",
    help="Policy-as-code governance gateway for AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(approvals.app)
app.add_typer(audit.app)
app.add_typer(config.app)
app.add_typer(policy.app)
app.add_typer(tools.app)
app.command()(init)
app.command()(serve)


def main() -> None:
    """Run the command line."""
    app()
