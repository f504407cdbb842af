"""The `countersign` command: one file per command or group, each exposing `app` or a function.

Data goes to stdout, messages to stderr. Exit codes: `gateway.cli.exits`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module
from typing import Final

import typer

from gateway.cli.exits import Exit, say_why

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
_OUTPUT_FAULTS: Final = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


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
    """Run the command line. What the system refuses is told in a line."""
    _open_closed()
    asked = sys.argv[1] if len(sys.argv) > 1 else None
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: any file's name can be told
    try:
        try:
            build(asked if asked in (*_GROUPS, *_SINGLE) else None)()
        finally:
            sys.stdout.flush()  # at its own end, Python could only show how it failed
    except OSError as error:
        _end(error)


def _open_closed() -> None:
    """Open what was closed of the standard input and outputs, to nowhere.

    The next file that is opened would take its number: the log, into which others then print.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _end(error: OSError) -> None:
    """Exit for a file or an output that the system refuses; raise what is neither."""
    if error.filename is not None:
        print(f"error: {say_why(error)}", file=sys.stderr)
    elif error.errno in _OUTPUT_FAULTS:
        print(
            f"error: the output, or a file, cannot be written: {error.strerror}; make room",
            file=sys.stderr,
        )
    elif error.errno != errno.EPIPE:  # who reads no further knows why
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes nowhere
    sys.exit(Exit.ERROR)
