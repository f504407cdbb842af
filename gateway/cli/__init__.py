"""The `countersign` command: one file per command or group, each exposing `app` or a function.

Data goes to stdout, messages to stderr. Exit codes: `gateway.cli.exits`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

_GROUPS: Final = (
    "agents",
    "approvals",
    "audit",
    "clients",
    "config",
    "keys",
    "kill",
    "policy",
    "runs",
    "tokens",
    "tools",
    "users",
)
_SINGLE: Final = ("broker", "init", "login", "logout", "serve")


def build(only: str | None = None) -> typer.Typer:
    """Return the command line; with `only`, of one command, at a fifth of the start-up time."""
    app = typer.Typer(
        name="countersign",
        help="Policy-as-code governance gateway for AI agents.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_no_options)
    for name in _GROUPS:
        if only in (None, name):
            app.add_typer(import_module(f"gateway.cli.{name}").app)
    for name in _SINGLE:
        if only in (None, name):
            app.command(name)(getattr(import_module(f"gateway.cli.{name}"), name))
    return app


def _no_options() -> None:
    """Policy-as-code governance gateway for AI agents."""


def main() -> None:
    """Run the command line."""
    asked = sys.argv[1] if len(sys.argv) > 1 else None
    build(asked if asked in (*_GROUPS, *_SINGLE) else None)()
