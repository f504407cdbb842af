"""`countersign tokens`: which access tokens are alive, and taking them back."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Final

import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_reason,
    fail,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.exits import Exit

app = typer.Typer(name="tokens", help="Live access tokens.", no_args_is_help=True)

_ROUTE: Final = "/v1/tokens"


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    client: Annotated[str, typer.Option(help="Only those of this client's runs.")] = "",
    run: Annotated[str, typer.Option(help="Only those of this run.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List live tokens, newest first; their text is nowhere kept."""
    named = (("agent", agent), ("client", client), ("run", run))
    found = ask("GET", _ROUTE, params=[(name, text) for name, text in named if text])
    if output is Output.JSON:
        print_json(found)
        return
    rows = [("JTI", "AGENT", "CLIENT", "RUN", "DEPTH", "EXPIRES", "STATE")]
    rows += [
        (
            one["jti"],
            visible(one["agent"]),
            visible(one["client"]),
            one["run"],
            str(one["depth"]),
            time.strftime("%H:%M:%SZ", time.gmtime(one["expires_at"])),
            one["state"],
        )
        for one in found["tokens"]
    ]
    print_rows(rows)
    if found["more"] or not found["complete"]:
        print("warning: there are more; name an agent, a client or a run", file=sys.stderr)


@app.command()
def revoke(
    reason: Annotated[str, typer.Option(help="Why, for the log.")],
    jti: Annotated[str, typer.Option(help="One token, and what was handed on from it.")] = "",
    root: Annotated[str, typer.Option(help="All tokens of this run.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back a token or a family for good; done when it is durable and on record."""
    if bool(jti) == bool(root):
        fail(Exit.USAGE, "name one of --jti, --root")
    check_reason(reason)
    body = {"reason": reason, **({"jti": jti} if jti else {"root": root})}
    done = ask("POST", f"{_ROUTE}/revoke", body=body)
    if not done["known"]:
        print("warning: no such token is alive; it is revoked all the same", file=sys.stderr)
    if output is Output.JSON:
        print_json(done)
    else:
        print(f"revoked: {visible(done['target'])}")
